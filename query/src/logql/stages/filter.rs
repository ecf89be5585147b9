//! Filters: by the line's bytes and by labels.

use super::super::ast::{Convert, LabelFilter, LineFilter, Needle, Unit, Unwrap};
use super::super::row::Row;
use super::super::units;

impl LineFilter {
    /// Whether a line passes.
    pub(in crate::logql) fn keeps(&self, line: &[u8]) -> bool {
        let found = self.needles.iter().any(|needle| match needle {
            // As the standard library and no search of our own: needles are short, and most were looked for by the store.
            Needle::Text(_, bytes) => contains(line, bytes),
            Needle::Regex(regex) => regex.is_match(line),
            Needle::Ip(_, range) => range.is_in(&String::from_utf8_lossy(line)),
            Needle::Pattern(pattern) => pattern.is_match(line),
        });
        found != self.op.is_negative()
    }
}

fn contains(line: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(line, needle).is_some()
}

impl LabelFilter {
    /// Whether a line passes. One whose label is no number passes, and says so.
    pub(in crate::logql) fn keeps(&self, row: &mut Row<'_>) -> bool {
        match self {
            Self::Text(matcher) => matcher.matches(&row.get(&matcher.name)),
            Self::Ip { name, is_equal, range, .. } => {
                let value = row.get(name);
                !value.is_empty() && range.is_in(&value) == *is_equal
            }
            Self::And(parts) => parts.iter().all(|part| part.keeps(row)),
            Self::Or(parts) => parts.iter().any(|part| part.keeps(row)),
            Self::Amount { name, compare, unit, value, .. } => {
                // As in Loki: a line that is in error already is not judged again.
                if row.error().is_some() {
                    return true;
                }
                let found = row.get(name);
                if found.is_empty() {
                    return false;
                }
                let read = match unit {
                    Unit::Number => found.parse::<f64>().ok(),
                    Unit::Duration => units::duration_ns(&found),
                    Unit::Bytes => units::bytes(&found),
                };
                let Some(read) = read else {
                    let details = format!("{found:?} cannot be compared with {}", self.written());
                    row.fail("LabelFilterErr", details);
                    return true;
                };
                compare.holds(read, *value)
            }
        }
    }

    fn written(&self) -> &str {
        match self {
            Self::Amount { written, .. } => written,
            _ => "",
        }
    }
}

impl Unwrap {
    /// The label's number, if there is one and the filters behind it keep the line.
    pub(in crate::logql) fn number(&self, row: &mut Row<'_>) -> Option<f64> {
        let text = row.get(&self.label).into_owned();
        if text.is_empty() {
            return None;
        }
        let read = match self.convert {
            Convert::Number => text.parse::<f64>().ok(),
            Convert::Duration | Convert::DurationSeconds => units::duration_ns(&text).map(|ns| ns / 1e9),
            Convert::Bytes => units::bytes(&text),
        };
        if read.is_none() {
            row.fail("SampleExtractionErr", format!("{text:?} is no number"));
        }
        self.filters.iter().all(|filter| filter.keeps(row)).then(|| read.unwrap_or(0.0))
    }
}
