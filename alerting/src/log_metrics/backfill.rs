//! Series of the past, from stored logs.
//!
//! ```text
//!        start                                        cut, where the live side began
//! zero ──┤ step │ step │ step │ … │ what is left ├────┤ live samples …
//!              └ each sample stands a second before its step's end
//! ```
//!
//! Entries are counted in the step of their own time, but only those that the store received before the live side began: it
//! has counted the others, whenever they were written. So nothing counts twice, and nothing is written where live samples
//! are. Everything is counted before anything is written, and what is stored in the span already must be a part of what
//! would be written: so the same backfill may be repeated, also one that was cut off, and another one over the same time
//! is refused.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::log_query::EntryView;
use binnacle_model::storage::{
    Deadline, LogOrder, LogRequest, LogSearcher, Queryable, RawSeries, SeriesDecoder,
};
use binnacle_model::{Labels, LogTime, MatchOp, Matcher, Sample, TimeRange, Timestamp};

use super::file::LogMetricRule;
use super::live::LogMetrics;
use super::table::{Matched, Table};
use crate::series::RuleLabels;

/// Samples of one rule, which are held in memory before they are written: 64 MB.
const MAX_SAMPLES: usize = 4_000_000;
/// Samples of one append.
const CHUNK_SAMPLES: usize = 50_000;
/// So long before a step's end its sample stands, so that the zero of the next backfill has a place of its own.
const BEFORE_END: i64 = 1000;
/// Entries between two looks at the deadline.
const ENTRIES_PER_LOOK: u64 = 1000;

/// Which time a backfill is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: Timestamp,
    end: Timestamp,
    step: i64,
}

impl Span {
    /// From `start` until before `end`, with a sample for each `step`. Moments are cut to whole seconds.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub fn new(start: Timestamp, end: Timestamp, step: Duration) -> Result<Self, String> {
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        if step < 2000 || step % 1000 != 0 {
            return Err("step must be whole seconds, 2s at least".to_owned());
        }
        let (start, end) = (whole_second(start), whole_second(end));
        if end.0.saturating_sub(start.0) < 2000 {
            return Err("end must come 2s after start at least".to_owned());
        }
        if (i128::from(end.0) - i128::from(start.0)) / i128::from(step) > 1_000_000 {
            return Err("more than a million steps; take a longer step or a shorter time".to_owned());
        }
        Ok(Self { start, end, step })
    }

    fn until(self, cut: Timestamp) -> Self {
        Self { end: self.end.min(whole_second(cut)), ..self }
    }

    fn is_empty(self) -> bool {
        self.end.0 - self.start.0 < 2000
    }

    /// How many steps there are, the last one perhaps shorter.
    fn steps(self) -> usize {
        ((self.end.0 - self.start.0) as u64).div_ceil(self.step as u64) as usize
    }

    /// Where the sample of a step stands.
    fn stamp(self, step: usize) -> Timestamp {
        let end = self.start.0 + self.step * (step as i64 + 1);
        Timestamp((end.min(self.end.0) - BEFORE_END).max(self.start.0 + 1000))
    }

    fn step_of(self, time: LogTime) -> usize {
        ((time.to_timestamp().0 - self.start.0) / self.step).max(0) as usize
    }
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp(at.0.div_euclid(1000) * 1000)
}

fn is_live(at: Timestamp) -> bool {
    at.0 % 1000 != 0
}

/// What a backfill did for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfilled {
    /// Of which metric.
    pub metric: String,
    /// Up to where: the end that was asked for, or where the live side began.
    pub end: Timestamp,
    /// Entries that were counted.
    pub entries: u64,
    /// Series that were made.
    pub series: usize,
    /// Samples that were written.
    pub written: usize,
    /// Samples that were there already.
    pub known: usize,
    /// Samples that the store refused: too old, or of series beyond its limit.
    pub refused: usize,
}

/// All samples of a rule, by series.
type Past = BTreeMap<Vec<u8>, Vec<Sample>>;

impl LogMetrics {
    /// Counts what is stored, for each rule, or for those of one metric, and writes samples of the past.
    ///
    /// Rules come one after the other; what was done for those before stays if one fails. Blocks: call it from a thread that may
    /// wait for long.
    ///
    /// # Errors
    /// A sentence for whoever asked. Nothing was written for the rule that it names, unless the store refused the write.
    pub fn backfill(
        &self,
        metric: Option<&str>,
        span: Span,
        logs: &dyn LogSearcher,
        metrics: &dyn Queryable,
        deadline: &Deadline,
    ) -> Result<Vec<Backfilled>, String> {
        let rules = self.groups.iter().flat_map(|running| &running.group.rules);
        let wanted: Vec<&LogMetricRule> =
            rules.filter(|rule| metric.is_none_or(|metric| rule.metric == metric)).collect();
        if let Some(metric) = metric.filter(|_| wanted.is_empty()) {
            return Err(format!("no rule makes {metric:?}"));
        }
        let mut done = Vec::new();
        for rule in wanted {
            let one = self.backfill_rule(rule, span, logs, metrics, deadline);
            done.push(one.map_err(|reason| format!("rule {:?}: {reason}", rule.metric))?);
        }
        Ok(done)
    }

    fn backfill_rule(
        &self,
        rule: &LogMetricRule,
        span: Span,
        logs: &dyn LogSearcher,
        metrics: &dyn Queryable,
        deadline: &Deadline,
    ) -> Result<Backfilled, String> {
        let stored = stored(rule, span, metrics, deadline)?;
        let live = stored.values().flatten().map(|sample| sample.timestamp).filter(|at| is_live(*at));
        let cut = live.min().map_or(self.started, |first| first.min(self.started));
        let span = span.until(cut);
        let mut report = Backfilled {
            metric: rule.metric.clone(),
            end: span.end,
            entries: 0,
            series: 0,
            written: 0,
            known: 0,
            refused: 0,
        };
        if span.is_empty() {
            return Ok(Backfilled { end: span.end.max(span.start), ..report });
        }
        let (past, entries) = count(rule, span, cut, logs, deadline)?;
        check_known(&past, &stored, span)?;
        (report.entries, report.series) = (entries, past.len());
        for (labels, samples) in &past {
            for chunk in samples.chunks(CHUNK_SAMPLES) {
                if deadline.is_over() {
                    return Err("was ended; repeat it to go on".to_owned());
                }
                let batch = [RawSeries { labels, samples: chunk, histograms: &[] }];
                let taken = self.appender().append(&batch, &RuleLabels).map_err(|error| error.to_string())?;
                report.written += taken.appended;
                report.known += taken.duplicate;
                report.refused += chunk.len() - (taken.appended + taken.duplicate).min(chunk.len());
            }
        }
        Ok(report)
    }
}

/// What is stored of a rule's series in the span.
fn stored(
    rule: &LogMetricRule,
    span: Span,
    metrics: &dyn Queryable,
    deadline: &Deadline,
) -> Result<BTreeMap<Labels, Vec<Sample>>, String> {
    let mut found = BTreeMap::new();
    let range = TimeRange { start: span.start, end: span.end };
    let mut count = 0;
    for metric in rule.metrics() {
        let constant = rule.constant_labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let matchers: Result<Vec<Matcher>, String> = [(METRIC_NAME, metric.as_str())]
            .into_iter()
            .chain(constant)
            .map(|(name, value)| Matcher::new(name, MatchOp::Equal, value))
            .collect();
        for series in metrics.select(&matchers?, range, deadline).map_err(|error| error.to_string())? {
            let series = series.map_err(|error| format!("what is stored cannot be read: {error}"))?;
            // Somebody else's series may have the same name.
            if !series.labels.iter().all(|label| rule.has_label(&label.name)) {
                continue;
            }
            count += series.samples.len();
            if count > MAX_SAMPLES {
                return Err(format!("more than {MAX_SAMPLES} samples are in that time; take a shorter one"));
            }
            found.insert(series.labels, series.samples.iter().collect());
        }
    }
    Ok(found)
}

/// Counts the entries that were received before `cut`.
fn count(
    rule: &LogMetricRule,
    span: Span,
    cut: Timestamp,
    logs: &dyn LogSearcher,
    deadline: &Deadline,
) -> Result<(Past, u64), String> {
    let request = LogRequest {
        query: rule.query().clone(),
        start: span.start.to_log_time(),
        end: span.end.to_log_time(),
    };
    let mut counting =
        Counting { rule, span, table: Table::new(rule, span.start), past: Past::new(), step: 0, samples: 0 };
    let (mut seen, mut entries, mut failed) = (0u64, 0u64, None);
    let cut = cut.to_log_time();
    let warnings = logs.scan(&request, LogOrder::OldestFirst, deadline, &mut |_, entry| {
        seen += 1;
        if seen.is_multiple_of(ENTRIES_PER_LOOK) && deadline.is_over() {
            failed = Some("was ended".to_owned());
            return ControlFlow::Break(());
        }
        if entry.received >= cut {
            return ControlFlow::Continue(());
        }
        let view = EntryView::new(&entry);
        let Some(matched) = Matched::of(rule, &view) else { return ControlFlow::Continue(()) };
        if let Err(reason) = counting.end_steps_before(span.step_of(entry.time)) {
            failed = Some(reason);
            return ControlFlow::Break(());
        }
        counting.table.count(rule, &matched);
        entries += 1;
        ControlFlow::Continue(())
    });
    let warnings = warnings.map_err(|error| error.to_string())?;
    if let Some(reason) = failed {
        return Err(reason);
    }
    if let Some(warning) = warnings.first() {
        return Err(format!("not all of that time can be read: {warning}"));
    }
    counting.end_steps_before(span.steps())?;
    Ok((counting.past, entries))
}

/// Steps that are over, and the one that is not.
struct Counting<'a> {
    rule: &'a LogMetricRule,
    span: Span,
    table: Table,
    past: Past,
    step: usize,
    samples: usize,
}

impl Counting<'_> {
    fn end_steps_before(&mut self, step: usize) -> Result<(), String> {
        while self.step < step.min(self.span.steps()) {
            let at = self.span.stamp(self.step);
            let readings = self.table.read(self.rule, at);
            for reading in &readings {
                for (name, value) in reading.names.iter().zip(&reading.values) {
                    let samples = self.past.entry(name.clone()).or_default();
                    samples.extend(reading.zero_at.map(|timestamp| Sample { timestamp, value: 0.0 }));
                    samples.push(Sample { timestamp: at, value: *value });
                    self.samples += 1;
                }
            }
            if self.samples > MAX_SAMPLES {
                return Err(format!(
                    "would be more than {MAX_SAMPLES} samples; take a longer step, a shorter time or fewer labels"
                ));
            }
            self.table.written(readings.len());
            self.step += 1;
        }
        Ok(())
    }
}

/// What is stored in the span must be a part of what would be written.
fn check_known(past: &Past, stored: &BTreeMap<Labels, Vec<Sample>>, span: Span) -> Result<(), String> {
    let mut wanted: BTreeMap<Labels, &[Sample]> = BTreeMap::new();
    for (name, samples) in past {
        let labels = RuleLabels.decode(name).map_err(|error| error.to_string())?;
        wanted.insert(labels, samples);
    }
    for (labels, known) in stored {
        let own = wanted.get(labels).copied().unwrap_or_default();
        for sample in known.iter().filter(|sample| sample.timestamp < span.end) {
            let at = own.binary_search_by_key(&sample.timestamp, |one| one.timestamp);
            if !at.is_ok_and(|at| own[at].value == sample.value) {
                return Err(format!(
                    "{labels} has a sample at {} that this backfill would not write, so that another one was there, or \
                     lines came or went since; take another time, or delete the series there first",
                    sample.timestamp.to_rfc3339()
                ));
            }
        }
    }
    Ok(())
}
