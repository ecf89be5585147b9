//! Expressions and rule files that people run elsewhere: each one is read, printed and evaluated. They
//! lie outside of this repository; where they are not found, the tests say so and pass.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use binnacle_model::matcher::all_match;
use binnacle_model::storage::{Deadline, LabelSets, Metadata, Queryable, Series, SeriesSet, StorageError};
use binnacle_model::{Labels, MatchOp, Matcher, Sample, TimeRange, Timestamp};
use binnacle_query::promql::{Engine, Expr, Limits, QueryParams, parse};
use serde_json::Value;

use crate::support::binnacle;

pub(crate) fn real(kind: &str) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/real").join(kind);
    if !place.is_dir() {
        eprintln!("not tested: there is no {}", place.display());
        return None;
    }
    Some(place)
}

pub(crate) fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A storage that has one series for whatever is asked for: a counter that ascends.
struct Obliging;

impl Obliging {
    /// Labels that satisfy the matchers, if a simple guess does.
    fn labels(matchers: &[Matcher]) -> Option<Labels> {
        let mut pairs: BTreeMap<&str, &str> = BTreeMap::new();
        for matcher in matchers {
            let words = ["x", "0.99", "200", "500", "GET", "running"].into_iter();
            let literals = matcher.literals().unwrap_or_default().iter().map(String::as_str);
            let guesses = matches!(matcher.op, MatchOp::Equal | MatchOp::Regex);
            let value = literals.chain(words).find(|guess| guesses && matcher.matches(guess));
            pairs.entry(&matcher.name).or_insert(value.unwrap_or_default());
        }
        pairs.entry("__name__").or_insert("some_metric");
        pairs.entry("le").or_insert("+Inf");
        let labels = Labels::new(pairs.into_iter().filter(|(_, value)| !value.is_empty())).ok()?;
        all_match(matchers, &labels).then_some(labels)
    }
}

impl Queryable for Obliging {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let series = Self::labels(matchers).map(|labels| {
            let times = (range.start.0..=range.end.0).step_by(60_000).take(2000);
            let sample = |at: i64| Sample { timestamp: Timestamp(at), value: at as f64 / 1000.0 };
            Ok(Series { labels, samples: times.map(sample).collect(), ..Series::default() })
        });
        Ok(Box::new(series.into_iter()))
    }

    fn series(&self, matchers: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        Ok(LabelSets { labels: Self::labels(matchers).into_iter().collect(), warnings: Vec::new() })
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }
}

/// Reads, prints and reads again, and evaluates as instant and range. Says what went wrong.
fn check(text: &str) -> Result<(), String> {
    let expr = parse(text).map_err(|error| format!("{text}\n  {error}"))?;
    let printed = expr.to_string();
    let again = parse(&printed).map_err(|error| format!("{text}\n  is printed as {printed}\n  {error}"))?;
    if again.to_string() != printed {
        return Err(format!("{text}\n  is printed as {printed}\n  and then as {again}"));
    }
    evaluate(&expr).map_err(|error| format!("{text}\n  {error}"))
}

fn evaluate(expr: &Expr) -> Result<(), String> {
    let engine = Engine::new(&Obliging, Limits::default());
    let now = Timestamp(1_700_000_000_000);
    engine.instant(expr, now, &Deadline::default()).map_err(|error| error.to_string())?;
    let start = Timestamp(now.0 - 600_000);
    let params = QueryParams { start, end: now, step: Duration::from_mins(1) };
    engine.range(expr, params, &Deadline::default()).map_err(|error| error.to_string())?;
    Ok(())
}

/// The expressions of all dashboards, each as often as it occurs.
fn of_dashboards() -> Option<Vec<String>> {
    let mut found = Vec::new();
    for path in files(&real("dashboards")?, ".expressions.json") {
        let text = std::fs::read_to_string(&path).unwrap();
        let dashboards: Vec<Value> = serde_json::from_str(&text).unwrap();
        let targets = dashboards.iter().flat_map(|one| one["expressions"].as_array().unwrap());
        found.extend(targets.map(|target| target["expanded"].as_str().unwrap().to_owned()));
    }
    Some(found)
}

/// The expressions of all dashboards and rule files, each once.
pub(crate) fn real_expressions() -> Option<Vec<String>> {
    let mut found: BTreeSet<String> = of_dashboards()?.into_iter().collect();
    for path in files(&real("rules")?, ".yaml") {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let groups = binnacle_alerting::rules::parse_rules(&name, &text).unwrap_or_default();
        let rules = groups.iter().flat_map(|group| &group.rules);
        found.extend(rules.map(|rule| rule.expr.to_string()));
    }
    Some(found.into_iter().collect())
}

#[test]
fn every_expression_of_real_dashboards_is_understood() {
    let Some(expressions) = of_dashboards() else { return };
    let checked = expressions.len();
    let failed: Vec<String> = expressions.iter().filter_map(|text| check(text).err()).collect();
    assert!(failed.is_empty(), "{} of {checked} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(checked >= 4_000, "only {checked} expressions");
}

#[test]
fn every_real_rule_file_is_understood() {
    let Some(dir) = real("rules") else { return };
    let (mut checked, mut failed) = (0, Vec::new());
    for path in files(&dir, ".yaml") {
        if path.to_string_lossy().contains("rejected") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        match binnacle_alerting::rules::parse_rules(&name, &text) {
            Err(errors) => failed.extend(errors.iter().map(ToString::to_string)),
            Ok(groups) => {
                for rule in groups.iter().flat_map(|group| &group.rules) {
                    checked += 1;
                    failed.extend(check(&rule.expr.to_string()).err());
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} of {checked} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(checked >= 1_500, "only {checked} rules");
    let all = files(&dir, ".yaml").into_iter().filter(|path| !path.to_string_lossy().contains("rejected"));
    let status = binnacle().args(["check", "rules"]).args(all).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}
