//! What a page may have at most, and what happens to one that has more: the scrape fails, and says which limit it was.

use binnacle_model::Labels;
use binnacle_model::histogram::Histogram;
use binnacle_model::labels::{METRIC_NAME, is_legacy_label_name};

/// Longest page, decompressed, where nothing is said.
pub(super) const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Where it is said that there is no limit: more than any page that somebody scrapes, less than there is memory.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Zero is no limit, but for bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits {
    /// Of a page, decompressed.
    pub(super) body_bytes: usize,
    /// Samples that are left after relabelling.
    pub(super) samples: usize,
    /// Labels of a series.
    pub(super) labels: usize,
    /// Bytes of a label's name.
    pub(super) label_name: usize,
    /// Bytes of a label's value.
    pub(super) label_value: usize,
    /// Targets of a scrape config.
    pub(super) targets: usize,
    /// Buckets of a native histogram: finer ones are made coarser.
    pub(super) buckets: usize,
    /// No schema is finer.
    pub(super) schema_max: i32,
    /// Dropped targets that are remembered.
    pub(super) dropped: usize,
    /// Whether names are letters, digits, underscores and colons alone.
    pub(super) legacy_names: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: BODY_BYTES,
            samples: 0,
            labels: 0,
            label_name: 0,
            label_value: 0,
            targets: 0,
            buckets: 0,
            schema_max: i32::MAX,
            dropped: 0,
            legacy_names: false,
        }
    }
}

fn is_legacy_metric_name(name: &str) -> bool {
    let colons_away = name.replace(':', "_");
    is_legacy_label_name(&colons_away)
}

fn cut(text: &str) -> String {
    text.chars().take(50).collect()
}

impl Limits {
    /// Whether a series may be there.
    ///
    /// # Errors
    /// The reason, in Prometheus's words.
    pub(super) fn check(&self, labels: &Labels) -> Result<(), String> {
        let name = labels.metric_name();
        if self.legacy_names {
            let is_legal = |name: &str| name == METRIC_NAME || is_legacy_label_name(name);
            if !is_legacy_metric_name(name) || !labels.iter().all(|label| is_legal(&label.name)) {
                return Err(format!("invalid metric name or label names: {labels}"));
            }
        }
        if self.labels > 0 && labels.len() > self.labels {
            let (name, count, limit) = (cut(name), labels.len(), self.labels);
            return Err(format!(
                "label_limit exceeded (metric: {name}, number of labels: {count}, limit: {limit})"
            ));
        }
        for label in labels {
            let (length, limit) = (label.name.len(), self.label_name);
            if limit > 0 && length > limit {
                let (name, label) = (cut(name), cut(&label.name));
                return Err(format!(
                    "label_name_length_limit exceeded (metric: {name}, label name: {label}, length: {length}, limit: {limit})"
                ));
            }
            let (length, limit) = (label.value.len(), self.label_value);
            if limit > 0 && length > limit {
                let (name, value, label) = (cut(name), cut(&label.value), cut(&label.name));
                return Err(format!(
                    "label_value_length_limit exceeded (metric: {name}, label name: {label}, value: {value:?}, length: {length}, limit: {limit})"
                ));
            }
        }
        Ok(())
    }

    /// Makes a histogram as coarse as it has to be; `false` if no schema is coarse enough.
    pub(super) fn fit(&self, histogram: &mut Histogram) -> bool {
        if histogram.is_custom() {
            return self.buckets == 0 || histogram.positive.len() <= self.buckets;
        }
        if histogram.schema > self.schema_max {
            histogram.reduce(self.schema_max);
        }
        let count = |histogram: &Histogram| histogram.positive.len() + histogram.negative.len();
        while self.buckets > 0 && count(histogram) > self.buckets {
            if histogram.schema <= -4 {
                return false;
            }
            histogram.reduce(histogram.schema - 1);
        }
        true
    }
}

/// The finest schema whose buckets grow by `factor` at least, as Prometheus picks it.
pub(super) fn schema_of_factor(factor: f64) -> i32 {
    if factor <= 1.0 {
        return 8;
    }
    let finest = -factor.log2().log2();
    (finest.floor() as i32).clamp(-4, 8)
}

#[cfg(test)]
mod tests {
    use binnacle_model::histogram::Buckets;

    use super::*;

    #[test]
    fn limits_name_what_is_over() {
        let labels = Labels::new([("__name__", "m.x"), ("a", "1234"), ("long", "b")]).unwrap();
        let check = |limits: Limits| limits.check(&labels).unwrap_err();
        assert_eq!(Limits::default().check(&labels), Ok(()));
        assert!(check(Limits { labels: 2, ..Limits::default() }).contains("number of labels: 3, limit: 2"));
        assert!(check(Limits { label_name: 7, ..Limits::default() }).contains("label name: __name__"));
        assert!(check(Limits { label_value: 3, ..Limits::default() }).contains("value: \"1234\", length: 4"));
        assert!(check(Limits { legacy_names: true, ..Limits::default() }).contains("invalid metric name"));
    }

    #[test]
    fn histograms_become_coarser_until_they_fit() {
        let positive: Buckets = (0..64).map(|index| (index, 1.0)).collect();
        let mut histogram = Histogram { schema: 3, count: 64.0, positive, ..Histogram::default() };
        assert!(Limits { buckets: 10, ..Limits::default() }.fit(&mut histogram));
        assert!(histogram.positive.len() <= 10 && histogram.schema < 3, "{histogram:?}");
        assert_eq!(histogram.positive.counts().iter().sum::<f64>(), 64.0);
        assert_eq!((schema_of_factor(1.1), schema_of_factor(2.0), schema_of_factor(65_536.0)), (2, 0, -4));
    }
}
