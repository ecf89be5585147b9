//! What the bytes of a page's series mean, given target and rules.

use std::sync::Arc;

use binnacle_model::Labels;
use binnacle_model::labels::{LabelsError, METRIC_NAME};
use binnacle_model::storage::SeriesDecoder;
use xxhash_rust::xxh3::xxh3_64;

use super::pool::Pool;
use super::target::Target;
use crate::exposition::{Family, decode_typed, protobuf};
use crate::relabel::relabel;

/// What stands before the bytes of a series says how they are read. First, those that the scrape itself makes.
pub(super) const OWN: u8 = 0;
const PLAIN: u8 = 1;
const HISTOGRAM: u8 = 2;
const SUMMARY: u8 = 3;
pub(super) const PROTOBUF: u8 = 4;

/// Stands before a series of a page that is a text.
pub(super) fn tag(family: Family) -> u8 {
    match family {
        Family::Plain => PLAIN,
        Family::Histogram => HISTOGRAM,
        Family::Summary => SUMMARY,
    }
}

/// Knows what the bytes of a page's series mean, given the target's labels and the pool's rules.
pub(super) struct SeriesLabels {
    salt: u64,
    labels: Labels,
    pool: Arc<Pool>,
}

impl SeriesLabels {
    pub(super) fn of(target: &Target) -> Self {
        let pool = &target.pool;
        let rules = serde_json::to_string(&pool.metric_relabel).unwrap_or_default();
        let salt = xxh3_64(format!("{} {} {rules}", pool.honor_labels, target.labels).as_bytes());
        Self { salt, labels: target.labels.clone(), pool: Arc::clone(pool) }
    }

    /// Whether the same bytes mean the same series to both.
    pub(super) fn has_meaning_of(&self, other: &Self) -> bool {
        self.salt == other.salt
    }

    /// `None` if the rules let the series go.
    pub(super) fn read(&self, raw: &[u8]) -> Result<Option<Labels>, LabelsError> {
        let (tag, bytes) =
            raw.split_first().ok_or_else(|| LabelsError::Malformed("a series without bytes".to_owned()))?;
        let of_page = match *tag {
            OWN => return Ok(Some(self.with_target(decode_typed(bytes, Family::Plain)?, false)?)),
            HISTOGRAM => decode_typed(bytes, Family::Histogram)?,
            SUMMARY => decode_typed(bytes, Family::Summary)?,
            PROTOBUF => protobuf::decode(bytes)?,
            _ => decode_typed(bytes, Family::Plain)?,
        };
        let labels = self.with_target(of_page, self.pool.honor_labels)?;
        let Some(labels) = relabel(&labels, &self.pool.metric_relabel).filter(|labels| !labels.is_empty())
        else {
            return Ok(None);
        };
        if labels.get(METRIC_NAME).is_none() {
            return Err(LabelsError::Malformed("the rules leave no metric name".to_owned()));
        }
        Ok(Some(labels))
    }

    /// The labels of a page and those of the target. Where labels are honoured, an empty one keeps the target's away, too.
    fn with_target(&self, of_page: Vec<(String, String)>, honor: bool) -> Result<Labels, LabelsError> {
        let named: Vec<String> = of_page.iter().map(|(name, _)| name.clone()).collect();
        // As Prometheus's builder of labels: a name that has an empty value once has none.
        let empty: Vec<String> =
            of_page.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| name.clone()).collect();
        let of_page = of_page.into_iter().filter(|(name, _)| !empty.contains(name));
        let of_page = Labels::new(of_page)?;
        let mut labels = of_page.clone();
        let mut conflicting = Vec::new();
        for label in &self.labels {
            if honor && named.iter().any(|name| **name == *label.name) {
                continue;
            }
            conflicting.extend(of_page.get(&label.name).map(|own| (&label.name, own)));
            labels = labels.with(&label.name, &label.value);
        }
        // As in Prometheus: the shortest first, and none over a label that is there.
        conflicting.sort_by_key(|(name, _)| name.len());
        for (name, own) in conflicting {
            let mut renamed = format!("exported_{name}");
            while labels.get(&renamed).is_some() {
                renamed.insert_str(0, "exported_");
            }
            labels = labels.with(&renamed, own);
        }
        Ok(labels)
    }
}

impl SeriesDecoder for SeriesLabels {
    fn salt(&self) -> u64 {
        self.salt
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        self.read(raw)?.ok_or_else(|| LabelsError::Malformed("the rules let this series go".to_owned()))
    }
}
