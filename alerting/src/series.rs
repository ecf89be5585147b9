//! How alerting names the series that it writes.

use binnacle_model::Labels;
use binnacle_model::labels::LabelsError;
use binnacle_model::storage::SeriesDecoder;

/// Labels as bytes that [`RuleLabels`] reads: names and values, each with its length before it.
pub(crate) fn to_bytes(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    for label in labels {
        for part in [&label.name, &label.value] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            out.extend_from_slice(part.as_bytes());
        }
    }
    out
}

/// Reads what [`to_bytes`] writes.
pub(crate) struct RuleLabels;

impl SeriesDecoder for RuleLabels {
    fn salt(&self) -> u64 {
        // Of no meaning but to differ from other senders'.
        0x7275_6c65_735f_3031
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        let malformed = || LabelsError::Malformed("not as the rules wrote them".to_owned());
        let mut parts = Vec::new();
        let mut rest = raw;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (part, after) = after.split_at_checked(length).ok_or_else(malformed)?;
            parts.push(std::str::from_utf8(part).map_err(|_| malformed())?);
            rest = after;
        }
        Labels::new(parts.chunks_exact(2).map(|pair| (pair[0], pair[1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_whatever_they_hold() {
        let labels = Labels::new([("a", "x\0y"), ("b", "")]).unwrap();
        assert_eq!(RuleLabels.decode(&to_bytes(&labels)), Ok(labels));
        assert!(RuleLabels.decode(b"\xff\0\0\0").is_err());
    }
}
