//! Exemplars: the newest of all, in memory. A restart forgets them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use binnacle_model::storage::{EXEMPLAR_LABELS_MAX, Exemplar, SeriesExemplars};
use binnacle_model::{Labels, Matcher, TimeRange, Timestamp};

/// How many are kept, of all series together.
const KEPT_MAX: usize = 100_000;

/// How many bytes they and the labels of their series may take.
const KEPT_MAX_BYTES: usize = 48 << 20;

/// What an exemplar takes beside its labels; a label, beside its texts.
const EXEMPLAR_BYTES: usize = 128;
const LABEL_BYTES: usize = 64;

/// A ring of exemplars in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Exemplars {
    ring: VecDeque<(Labels, Exemplar)>,
    /// Of each series: how many the ring has, and the newest.
    series: HashMap<Labels, (usize, Timestamp)>,
    bytes: usize,
}

/// Roughly what labels take that nobody shares.
fn bytes_of(labels: &Labels) -> usize {
    labels.iter().map(|label| LABEL_BYTES + label.name.len() + label.value.len()).sum()
}

impl Exemplars {
    /// Keeps an exemplar, unless it is known, older than another of its series, or too long; answers whether.
    pub(super) fn push(&mut self, series: Labels, exemplar: Exemplar) -> bool {
        let length = |labels: &Labels| -> usize {
            labels.iter().map(|label| label.name.chars().count() + label.value.chars().count()).sum()
        };
        if length(&exemplar.labels) > EXEMPLAR_LABELS_MAX {
            return false;
        }
        let series = match self.series.get_key_value(&series) {
            Some((_, (_, newest))) if *newest >= exemplar.timestamp => return false,
            // One copy of the labels for all of a series.
            Some((known, _)) => known.clone(),
            None => {
                self.bytes += bytes_of(&series);
                series
            }
        };
        let (count, newest) = self.series.entry(series.clone()).or_insert((0, exemplar.timestamp));
        *count += 1;
        *newest = exemplar.timestamp;
        self.bytes += EXEMPLAR_BYTES + bytes_of(&exemplar.labels);
        self.ring.push_back((series, exemplar));
        while self.ring.len() > KEPT_MAX || self.bytes > KEPT_MAX_BYTES {
            self.forget_oldest();
        }
        true
    }

    fn forget_oldest(&mut self) {
        let Some((labels, exemplar)) = self.ring.pop_front() else { return };
        self.bytes -= EXEMPLAR_BYTES + bytes_of(&exemplar.labels);
        if let Some((count, _)) = self.series.get_mut(&labels) {
            *count -= 1;
            if *count == 0 {
                self.bytes -= bytes_of(&labels);
                self.series.remove(&labels);
            }
        }
    }

    /// See [`binnacle_model::storage::Queryable::exemplars`].
    pub(super) fn select(&self, matchers: &[Vec<Matcher>], range: TimeRange) -> Vec<SeriesExemplars> {
        let fits = |labels: &Labels| {
            matchers.iter().any(|all| all.iter().all(|one| one.matches(labels.value(&one.name))))
        };
        let mut found: BTreeMap<&Labels, Vec<Exemplar>> =
            self.series.keys().filter(|labels| fits(labels)).map(|labels| (labels, Vec::new())).collect();
        for (labels, exemplar) in &self.ring {
            if range.contains(exemplar.timestamp)
                && let Some(of_series) = found.get_mut(labels)
            {
                of_series.push(exemplar.clone());
            }
        }
        found
            .into_iter()
            .filter(|(_, all)| !all.is_empty())
            .map(|(labels, all)| (labels.clone(), all))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::storage::ALL_TIME;

    use super::*;

    fn exemplar(at: i64, trace: &str) -> Exemplar {
        let labels = Labels::new([("trace_id", trace)]).unwrap();
        Exemplar { labels, value: 1.0, timestamp: Timestamp(at) }
    }

    fn series(name: &str) -> Labels {
        Labels::new([("__name__", name)]).unwrap()
    }

    #[test]
    fn the_newest_of_each_series_are_kept_in_order() {
        let mut kept = Exemplars::default();
        assert!(kept.push(series("a"), exemplar(1, "x")));
        assert!(!kept.push(series("a"), exemplar(1, "x")), "known");
        assert!(!kept.push(series("a"), exemplar(0, "y")), "older");
        assert!(kept.push(series("a"), exemplar(2, "z")));
        assert!(kept.push(series("b"), exemplar(1, "x")));
        assert!(!kept.push(series("b"), exemplar(9, &"x".repeat(121))), "longer than 128 characters");
        let all = kept.select(&[vec![]], ALL_TIME);
        assert_eq!(all.iter().map(|(_, of)| of.len()).collect::<Vec<_>>(), [2, 1]);
        let late = kept.select(&[vec![]], TimeRange { start: Timestamp(2), end: Timestamp(5) });
        assert_eq!(late, [(series("a"), vec![exemplar(2, "z")])]);
        assert!(kept.select(&[], ALL_TIME).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut kept = Exemplars::default();
        for at in 0..KEPT_MAX as i64 + 10 {
            kept.push(series(&format!("m{at}")), exemplar(at, "x"));
        }
        assert_eq!((kept.ring.len(), kept.series.len()), (KEPT_MAX, KEPT_MAX));
    }
}
