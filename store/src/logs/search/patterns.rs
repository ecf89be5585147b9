//! What messages have in common: the templates of what is found, over time.

use std::collections::BTreeMap;
use std::sync::Arc;

use binnacle_model::LogTime;
use binnacle_model::storage::{
    Deadline, LogOrder, LogPattern, LogPatterns, LogRequest, LogSlices, StorageError,
};

use super::groups::{SUMS_MAX, fits_minutes, slice_of_minute};
use super::plan::Plan;
use super::rows::{Found, Wants, find};
use crate::logs::Logs;
use crate::logs::page::{self, MINUTE_NS, PageError, PageView, SealedPage, level_name};
use crate::logs::template::Template;

/// Patterns of one answer.
const PATTERNS_MAX: usize = 10_000;

impl Logs {
    /// See [`binnacle_model::storage::LogSearcher::patterns`].
    pub(crate) fn patterns(
        &self,
        request: &LogRequest,
        slices: LogSlices,
        deadline: &Deadline,
    ) -> Result<LogPatterns, StorageError> {
        let start = request.start.max(slices.start);
        let end = request.end.min(slices.end());
        let mut plan = Plan::new(&LogRequest { query: request.query.clone(), start, end });
        let mut patterns: BTreeMap<(String, u8), LogPattern> = BTreeMap::new();
        let warnings = self.shared.visit(
            &mut plan,
            LogOrder::NewestFirst,
            deadline,
            &mut |_| true,
            &mut |plan, view, sealed| {
                let found = find(plan, view, Wants::Rows, deadline)?;
                add_patterns(&mut patterns, slices, found, view, sealed)?;
                Ok(())
            },
        )?;
        let mut patterns: Vec<LogPattern> =
            patterns.into_values().filter(|pattern| pattern.total > 0).collect();
        patterns.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.pattern.cmp(&b.pattern)));
        Ok(LogPatterns { patterns, warnings })
    }
}

fn add_patterns(
    patterns: &mut BTreeMap<(String, u8), LogPattern>,
    slices: LogSlices,
    found: Found,
    view: &dyn PageView,
    sealed: Option<&SealedPage>,
) -> Result<(), PageError> {
    let mut found = found;
    let fits = sealed.is_some_and(|one| fits_minutes(slices, one));
    let templates = if fits { found.take_templates(view) } else { Vec::new() };
    for at in templates {
        let one = &view.templates()[at as usize];
        let Some(first) = one.minutes.first() else { continue };
        let first = LogTime(first.at.saturating_mul(MINUTE_NS));
        let Some(pattern) = pattern_of(patterns, slices, view, at, first)? else { continue };
        for minute in &one.minutes {
            if let Some(slice) = slice_of_minute(slices, minute.at) {
                pattern.counts[slice] += u64::from(minute.rows);
                pattern.total += u64::from(minute.rows);
            }
        }
    }
    let rows = found.all_rows(view)?;
    if rows.is_empty() {
        return Ok(());
    }
    let (numbers, times) = (view.template_column()?, view.time_column()?);
    for row in rows {
        let time = LogTime(times[row as usize]);
        let Some(slice) = slices.index(time) else { continue };
        if let Some(pattern) = pattern_of(patterns, slices, view, numbers[row as usize], time)? {
            pattern.counts[slice] += 1;
            pattern.total += 1;
        }
    }
    Ok(())
}

/// The pattern of a template of a page, `None` if there are too many already.
fn pattern_of<'a>(
    patterns: &'a mut BTreeMap<(String, u8), LogPattern>,
    slices: LogSlices,
    view: &dyn PageView,
    at: u32,
    seen: LogTime,
) -> Result<Option<&'a mut LogPattern>, PageError> {
    let template: &Arc<Template> = &view.templates()[at as usize].template;
    let key = (template.pattern(), template.level);
    if !patterns.contains_key(&key) {
        if patterns.len() >= PATTERNS_MAX || (patterns.len() + 1).saturating_mul(slices.count) > SUMS_MAX {
            return Ok(None);
        }
        let row = view.template_column()?.iter().position(|number| *number == at);
        let example = match row {
            Some(row) => String::from_utf8_lossy(&page::entry(view, row)?.message).into_owned(),
            None => String::new(),
        };
        let pattern = LogPattern {
            pattern: key.0.clone(),
            level: level_name(template.level).to_owned(),
            total: 0,
            counts: vec![0; slices.count],
            example,
            first_seen: seen,
        };
        patterns.insert(key.clone(), pattern);
    }
    let mut pattern = patterns.get_mut(&key);
    if let Some(pattern) = &mut pattern {
        pattern.first_seen = pattern.first_seen.min(seen);
    }
    Ok(pattern)
}
