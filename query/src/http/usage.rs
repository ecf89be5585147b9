//! Which metrics anybody asks for: queries as they come, and rules as they were read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::{MatchOp, Matcher, Timestamp};

use crate::promql::Expr;

/// Names that are remembered; there are hardly more metrics.
const NAMES_MAX: usize = 200_000;

/// Patterns of names that are remembered.
const PATTERNS_MAX: usize = 100;

/// Longer names and patterns are not remembered: whoever asks chooses them.
const TEXT_MAX_BYTES: usize = 512;

/// Since the start of the process.
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
}

impl Usage {
    /// Nothing was asked yet.
    pub fn new(since: Timestamp) -> Self {
        Self { since, asked: Mutex::default() }
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
            }
            return;
        }
        // What only leaves out, or takes all, asks for no metric in particular.
        let takes_all = matcher.op != MatchOp::Regex || matcher.matches("");
        let is_known = self.patterns.contains_key(&matcher.value);
        if !takes_all && matcher.value != ".+" && (is_known || self.patterns.len() < PATTERNS_MAX) {
            self.patterns.insert(matcher.value.clone(), (matcher.clone(), at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

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
