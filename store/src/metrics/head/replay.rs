//! Records of the WAL, taken back in at a start.

use std::sync::Arc;

use binnacle_model::storage::HistogramSample;
use binnacle_model::{Labels, Sample, Timestamp};

use super::series::Inserted;
use super::{Head, SeriesNumbers};
use crate::bytes::Reader;
use crate::metrics::block::Cut;
use crate::metrics::{SampleKind, histograms};
use crate::wal::WalFileId;

impl Head {
    /// Takes a record of the WAL back in. Samples that `cut` says are in blocks are left out.
    /// `names` are the numbers that the WAL has said so far.
    pub(crate) fn replay(
        &mut self,
        file: WalFileId,
        payload: &[u8],
        kind: SampleKind,
        cut: Cut,
        names: &mut SeriesNumbers,
    ) -> Option<()> {
        let mut reader = Reader::new(payload);
        self.unsaved_bytes += payload.len() as u64;
        let mut pairs = Vec::new();
        for _ in 0..reader.count()? {
            let number = reader.varint()?;
            pairs.clear();
            for _ in 0..reader.count()? {
                pairs.push([reader.text()?, reader.text()?]);
            }
            // Each file of the log says it anew.
            if names.get(number).is_none_or(|place| !self.registry.is_named(place, &pairs)) {
                let labels = Labels::new(pairs.iter().map(|[name, value]| (*name, *value))).ok()?;
                names.insert(number, self.registry.replayed(&labels, number)?);
            }
        }
        if kind == SampleKind::Histograms {
            return self.replay_histograms(file, reader, cut, names);
        }
        let mut time = 0i64;
        let (mut oldest, mut newest) = (Timestamp(i64::MAX), Timestamp(i64::MIN));
        for _ in 0..reader.count()? {
            let number = reader.varint()?;
            time = time.wrapping_add(reader.zigzag()?);
            let sample = Sample { timestamp: Timestamp(time), value: reader.f64()? };
            (oldest, newest) = (oldest.min(sample.timestamp), newest.max(sample.timestamp));
            let in_block = file <= cut.wal_file && sample.timestamp < cut.before;
            // A series that the file names in a damaged record only: its samples have no name.
            let Some(place) = names.get(number) else { continue };
            let series = self.registry.get_mut(place);
            if !in_block && series.judge(sample) == Inserted::New {
                series.insert(sample, self.span, &mut self.times);
            }
        }
        if oldest <= newest {
            self.note_bounds(file, oldest, newest);
        }
        reader.is_empty().then_some(())
    }

    fn replay_histograms(
        &mut self,
        file: WalFileId,
        mut reader: Reader<'_>,
        cut: Cut,
        names: &mut SeriesNumbers,
    ) -> Option<()> {
        for _ in 0..reader.count()? {
            let number = reader.varint()?;
            let timestamp = Timestamp(reader.zigzag()?);
            let histogram = Arc::new(histograms::read(&mut reader)?);
            let sample = HistogramSample { timestamp, histogram };
            self.note_bounds(file, timestamp, timestamp);
            let in_block = file <= cut.wal_file && timestamp < cut.before;
            let Some(place) = names.get(number) else { continue };
            let series = self.registry.get_mut(place);
            if !in_block && series.judge_histogram(&sample) == Inserted::New {
                series.insert_histogram(&sample);
            }
        }
        reader.is_empty().then_some(())
    }
}
