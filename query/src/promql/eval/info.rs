//! `info`: labels of info metrics, such as `target_info`, for series of the same instance and job.

use std::collections::BTreeMap;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::{Labels, MatchOp, Matcher};

use super::super::ast::{At, Borders, Expr, Kind, Reach, Selector};
use super::column::{Column, is_absent, unique};
use super::{EvalError, Grid, Run};

/// Labels by which an info metric belongs to a series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric if none is named.
const TARGET_INFO: &str = "target_info";

/// What to take from which info metrics.
struct Wanted {
    /// On the names of info metrics.
    names: Vec<Matcher>,
    /// On their labels; only labels named here are taken, or all if none is.
    labels: Vec<Matcher>,
}

impl Wanted {
    fn of(arg: Option<&Expr>) -> Self {
        let default = || Matcher::equal(METRIC_NAME, TARGET_INFO);
        let Some(Kind::Vector(selector)) = arg.map(|arg| &arg.bare().kind) else {
            return Self { names: vec![default()], labels: Vec::new() };
        };
        let (names, labels): (Vec<_>, Vec<_>) =
            selector.matchers.iter().cloned().partition(|matcher| matcher.name == METRIC_NAME);
        let mut names = names;
        if !names.iter().any(is_positive) {
            // What is left out of all metrics is no info metric yet.
            names.push(default());
        }
        Self { names, labels }
    }

    fn is_info(&self, name: &str) -> bool {
        self.names.iter().all(|matcher| matcher.matches(name))
    }

    fn takes(&self, label: &str) -> bool {
        self.labels.is_empty() || self.labels.iter().any(|matcher| matcher.name == label)
    }

    /// Whether a series without an info metric satisfies the matchers.
    fn allows_none(&self) -> bool {
        self.labels.iter().all(|matcher| matcher.matches(""))
    }
}

impl Run<'_> {
    pub(super) fn info(&mut self, args: &[Expr], grid: Grid) -> Result<Vec<Column>, EvalError> {
        let columns = self.columns(&args[0], grid)?;
        let wanted = Wanted::of(args.get(1));
        let is_plain = |column: &Column| !wanted.is_info(column.name());
        let matchers = identity_matchers(columns.iter().filter(|column| is_plain(column)));
        let infos = match matchers {
            None => Vec::new(),
            Some(matchers) => self.info_series(&args[0], matchers, &wanted, grid)?,
        };
        let mut found = Vec::new();
        for column in columns {
            if is_plain(&column) {
                found.extend(self.enriched(&column, &infos, &wanted, grid)?);
            } else {
                found.push(column);
            }
        }
        unique(found)
    }

    /// Info series with the times of their samples in place of their values.
    fn info_series(
        &mut self,
        base: &Expr,
        mut matchers: Vec<Matcher>,
        wanted: &Wanted,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        matchers.extend(wanted.names.iter().cloned());
        matchers.extend(wanted.labels.iter().cloned());
        let (at, offset_ms) = self.reference(base)?.unwrap_or_default();
        let offset = Reach::Fixed(offset_ms);
        let selector = Selector { matchers, name: None, offset, at, borders: Borders::Strict };
        self.sample_times(&selector, grid)
    }

    /// Where in time the first selector of an expression looks: a fixed moment, and how far back.
    fn reference(&self, expr: &Expr) -> Result<Option<(Option<At>, i64)>, EvalError> {
        let own = |at: Option<At>, offset: &Reach| Ok::<_, EvalError>((at, self.reach(offset)?));
        match &expr.kind {
            Kind::Vector(selector) | Kind::Matrix(selector, _) => {
                own(selector.at, &selector.offset).map(Some)
            }
            Kind::Subquery(subquery) => {
                let (at, offset_ms) = own(subquery.at, &subquery.offset)?;
                let Some((inner_at, inner_ms)) = self.reference(&subquery.expr)? else { return Ok(None) };
                // What is fixed inside does not move with the subquery.
                Ok(Some(match inner_at {
                    Some(_) => (inner_at, inner_ms),
                    None => (at, offset_ms + inner_ms),
                }))
            }
            _ => {
                for part in expr.parts() {
                    if let Some(found) = self.reference(part)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }

    /// A series with the labels of its info series, which may differ from step to step.
    fn enriched(
        &mut self,
        column: &Column,
        infos: &[Column],
        wanted: &Wanted,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let belongs = |info: &&Column| {
            IDENTIFYING.iter().all(|name| info.labels.value(name) == column.labels.value(name))
        };
        let infos: Vec<&Column> = infos.iter().filter(belongs).collect();
        let mut found: BTreeMap<Labels, Column> = BTreeMap::new();
        for step in 0..grid.steps {
            let Some(point) = column.point(step) else { continue };
            let newest = newest_by_name(&infos, step)?;
            if newest.is_empty() && !wanted.allows_none() {
                continue;
            }
            let labels = with_infos(&column.labels, newest.values().copied(), wanted)?;
            let enriched = found.entry(labels).or_insert_with_key(|labels| {
                let mut enriched = Column::empty(labels.clone(), grid.steps);
                enriched.drop_name = column.drop_name;
                enriched
            });
            enriched.set(step, Some(point));
        }
        self.hold(found.len() * grid.steps)?;
        Ok(found.into_values().collect())
    }
}

fn is_positive(matcher: &Matcher) -> bool {
    matches!(matcher.op, MatchOp::Equal | MatchOp::Regex)
}

/// Of each info metric the series whose sample is newest.
fn newest_by_name<'i>(infos: &[&'i Column], step: usize) -> Result<BTreeMap<&'i str, &'i Column>, EvalError> {
    let mut newest: BTreeMap<&str, &Column> = BTreeMap::new();
    for info in infos.iter().filter(|info| !is_absent(info.floats[step])) {
        let known = newest.entry(info.name()).or_insert(info);
        if std::ptr::eq(*known, *info) {
            continue;
        }
        let (old, new) = (known.floats[step], info.floats[step]);
        if old == new {
            return EvalError::execution(format!(
                "found duplicate series for info metric: existing {} @ {old}, new {} @ {new}",
                known.labels, info.labels
            ));
        }
        if new > old {
            *known = info;
        }
    }
    Ok(newest)
}

/// The labels of a series and those that its infos add. What it has itself stays as it is.
fn with_infos<'i>(
    base: &Labels,
    infos: impl Iterator<Item = &'i Column>,
    wanted: &Wanted,
) -> Result<Labels, EvalError> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for info in infos {
        for label in &info.labels {
            let is_taken = &*label.name != METRIC_NAME && wanted.takes(&label.name);
            if !is_taken {
                continue;
            }
            if added.get(&*label.name).is_some_and(|known| *known != &*label.value) {
                return EvalError::execution(format!("conflicting label: {}", label.name));
            }
            if base.get(&label.name).is_none() {
                added.insert(&label.name, &label.value);
            }
        }
    }
    let mut labels = base.clone();
    for (name, value) in added {
        labels = labels.with(name, value);
    }
    Ok(labels)
}

/// Matchers for all instances and jobs of some series; nothing if they have none.
fn identity_matchers<'c>(columns: impl Iterator<Item = &'c Column>) -> Option<Vec<Matcher>> {
    let mut values: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for column in columns {
        for name in IDENTIFYING {
            let value = column.labels.value(name);
            if !value.is_empty() {
                values.entry(name).or_default().push(regex::escape(value));
            }
        }
    }
    if values.is_empty() {
        return None;
    }
    let mut matchers = Vec::new();
    for (name, mut values) in values {
        values.sort_unstable();
        values.dedup();
        // Too many for one expression: all are read, and matched one by one.
        let any = Matcher::new(name, MatchOp::Regex, &values.join("|"));
        matchers.extend(any.or_else(|_| Matcher::new(name, MatchOp::Regex, ".+")).ok());
    }
    Some(matchers)
}
