//! Which metrics anybody asks for: queries as they come, and rules as they were read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::storage::{Queried, QueryLog, StorageError};
use binnacle_model::{MatchOp, Matcher, Timestamp};

use crate::promql::Expr;

/// Names that are remembered; there are hardly more metrics.
const NAMES_MAX: usize = 200_000;

/// Patterns of names that are remembered.
const PATTERNS_MAX: usize = 100;

/// Longer names and patterns are not remembered: whoever asks chooses them.
const TEXT_MAX_BYTES: usize = 512;

/// For so long it is remembered that a metric was asked for.
const REMEMBERED: Duration = Duration::from_hours(24 * 90);

/// Since the log began; what came after the last [`Usage::save`] is lost with the process.
#[derive(Debug)]
pub struct Usage {
    since: Timestamp,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    names: BTreeMap<String, Timestamp>,
    /// By their text.
    patterns: BTreeMap<String, (Matcher, Timestamp)>,
    /// Names, and patterns, that are not in the log as they stand here.
    unsaved: BTreeSet<(bool, String)>,
}

impl Usage {
    /// Nothing was asked yet.
    pub fn new(since: Timestamp) -> Self {
        Self { since, asked: Mutex::default() }
    }

    /// What the log knows.
    ///
    /// # Errors
    /// Of the log.
    pub fn open(log: &dyn QueryLog, now: Timestamp) -> Result<Self, StorageError> {
        let known = log.queried(now.minus(REMEMBERED), now)?;
        let mut asked = Asked::default();
        for one in known.metrics {
            let op = if one.is_pattern { MatchOp::Regex } else { MatchOp::Equal };
            match Matcher::new(METRIC_NAME, op, &one.name) {
                Ok(matcher) => asked.note(&matcher, one.at),
                Err(error) => tracing::warn!(name = one.name, error, "a pattern in the query log is none"),
            }
        }
        asked.unsaved.clear();
        Ok(Self { since: known.since, asked: Mutex::new(asked) })
    }

    /// Writes into the log what is new.
    ///
    /// # Errors
    /// Of the log; what was to be written is tried again the next time.
    pub fn save(&self, log: &dyn QueryLog) -> Result<(), StorageError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let unsaved = std::mem::take(&mut asked.unsaved);
        let found = unsaved.iter().filter_map(|(is_pattern, name)| {
            let at = if *is_pattern { asked.patterns.get(name)?.1 } else { *asked.names.get(name)? };
            Some(Queried { name: name.clone(), is_pattern: *is_pattern, at })
        });
        let metrics: Vec<Queried> = found.collect();
        drop(asked);
        if metrics.is_empty() {
            return Ok(());
        }
        log.save_queried(&metrics).inspect_err(|_| {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).unsaved.extend(unsaved);
        })
    }

    /// Since when this is known.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// Remembers what an expression asks for.
    pub fn note(&self, expr: &Expr, at: Timestamp) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        expr.each_selector(&mut |selector| {
            for matcher in selector.matchers.iter().filter(|one| one.name == METRIC_NAME) {
                asked.note(matcher, at);
            }
        });
    }

    /// When each of these metrics was last asked for.
    pub(super) fn last<'n>(&self, names: &BTreeSet<&'n str>) -> BTreeMap<&'n str, Timestamp> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let last = |name: &'n str| {
            let patterns = asked.patterns.values().filter(|(matcher, _)| matcher.matches(name));
            let at = asked.names.get(name).into_iter().chain(patterns.map(|(_, at)| at)).max()?;
            Some((name, *at))
        };
        names.iter().filter_map(|name| last(name)).collect()
    }
}

impl Asked {
    fn note(&mut self, matcher: &Matcher, at: Timestamp) {
        if matcher.value.len() > TEXT_MAX_BYTES {
            return;
        }
        if matcher.op == MatchOp::Equal {
            if self.names.len() < NAMES_MAX || self.names.contains_key(&matcher.value) {
                self.names.insert(matcher.value.clone(), at);
                self.unsaved.insert((false, matcher.value.clone()));
            }
            return;
        }
        // What only leaves out, or takes all, asks for no metric in particular.
        let takes_all = matcher.op != MatchOp::Regex || matcher.matches("");
        let is_known = self.patterns.contains_key(&matcher.value);
        if !takes_all && matcher.value != ".+" && (is_known || self.patterns.len() < PATTERNS_MAX) {
            self.patterns.insert(matcher.value.clone(), (matcher.clone(), at));
            self.unsaved.insert((true, matcher.value.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::storage::QueriedBefore;

    use super::*;
    use crate::promql::parse;

    /// Takes no more than one metric at a time.
    #[derive(Default)]
    struct Log(Mutex<Vec<Queried>>);

    impl QueryLog for Log {
        fn queried(&self, _: Timestamp, _: Timestamp) -> Result<QueriedBefore, StorageError> {
            Ok(QueriedBefore { since: Timestamp(1), metrics: self.0.lock().unwrap().clone() })
        }

        fn save_queried(&self, metrics: &[Queried]) -> Result<(), StorageError> {
            if metrics.len() > 1 {
                return Err(StorageError::Broken("too many".into()));
            }
            self.0.lock().unwrap().extend_from_slice(metrics);
            Ok(())
        }
    }

    #[test]
    fn what_was_asked_for_outlives_the_process() {
        let log = Log::default();
        let usage = Usage::open(&log, Timestamp(2)).unwrap();
        let note = |usage: &Usage, text: &str, at: i64| usage.note(&parse(text).unwrap(), Timestamp(at));
        note(&usage, "a", 3);
        usage.save(&log).unwrap();
        usage.save(&log).unwrap();
        assert_eq!(log.0.lock().unwrap().len(), 1, "once");
        note(&usage, r#"{__name__=~"b_.*"}"#, 4);
        usage.save(&log).unwrap();
        let again = Usage::open(&log, Timestamp(9)).unwrap();
        let last = again.last(&["a", "b_1", "c"].into_iter().collect());
        assert_eq!(last, [("a", Timestamp(3)), ("b_1", Timestamp(4))].into_iter().collect());
        assert_eq!(again.since(), Timestamp(1));
        note(&again, "a + c", 10);
        assert!(again.save(&log).is_err());
        assert_eq!(again.asked.lock().unwrap().unsaved.len(), 2, "for the next time");
    }

    #[test]
    fn names_and_patterns_count_as_asked_for_and_everything_does_not() {
        let usage = Usage::new(Timestamp(0));
        let note = |text: &str, at: i64| usage.note(&parse(text).unwrap(), Timestamp(at));
        note("rate(a_total[5m]) / on (job) b", 1);
        note(r#"{__name__=~"c_.*"}"#, 2);
        note(r#"{__name__=~".+", job="x"}"#, 3);
        note(r#"{__name__!="z", job="x"}"#, 4);
        note("b", 5);
        let last = usage.last(&["a_total", "b", "c_1", "d", "z"].into_iter().collect());
        let want = [("a_total", Timestamp(1)), ("b", Timestamp(5)), ("c_1", Timestamp(2))];
        assert_eq!(last, want.into_iter().collect());
    }
}
