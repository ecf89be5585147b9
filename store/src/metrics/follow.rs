//! Samples as they are appended, for those who send them on, from a position that survives a restart.
//!
//! The position is a small text (`store/docs/format/position.md`), written whole and renamed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::storage::{FeedBatch, FeedPosition, FeedValue, HistogramSample, MetricFollower};
use binnacle_model::{Labels, Sample, Timestamp};

use super::histograms;
use crate::bytes::Reader;
use crate::fs::{Disk, read_all, write_atomic};
use crate::wal::{Follower, Place, RecordKind, RecordView, Sequence, Wal, WalFileId};

/// The first line of a position's file.
const HEADER: &str = "binnacle position 1";

/// A position's file has some fifty.
const POSITION_MAX_BYTES: u64 = 4096;

/// A follower of the log with its saved position.
pub(crate) struct Following {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    follower: Follower,
    saved: Place,
}

impl Following {
    /// Goes on where `path` says, or else begins at the log's end and says so in `path`.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path, wal: Arc<Wal>) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            disk.create_dir_all(dir)?;
        }
        let end = wal.end();
        let place = if disk.exists(path)? {
            let bytes = read_all(&*disk, path, POSITION_MAX_BYTES)?;
            let known = decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "position cannot be read; all that the log has is sent again");
                wal.beginning()
            });
            // A log that lost its end, or was copied back: what comes next is new.
            let is_ahead = known.sequence > end.sequence || known.file > end.file;
            if is_ahead { end } else { known }
        } else {
            write_atomic(&*disk, path, encode(end).as_bytes())?;
            end
        };
        let follower = Follower::new(wal, place);
        Ok(Self { disk, path: path.to_path_buf(), follower, saved: place })
    }
}

impl MetricFollower for Following {
    fn next(&mut self, wait: Duration) -> io::Result<FeedBatch> {
        let mut batch = FeedBatch::default();
        let piece = self.follower.next(wait, &mut |record| {
            if read(record, &mut batch).is_none() {
                tracing::error!(
                    "a record of the write-ahead log contradicts its format; it is not sent on whole"
                );
            }
        })?;
        batch.forgets = piece.begins_file;
        batch.lost_records = piece.lost;
        batch.is_end = piece.is_end;
        batch.position = FeedPosition { file: piece.place.file.0, sequence: piece.place.sequence.0 };
        Ok(batch)
    }

    fn acknowledge(&mut self, position: FeedPosition) -> io::Result<()> {
        let place = Place { file: WalFileId(position.file), sequence: Sequence(position.sequence) };
        if place != self.saved {
            write_atomic(&*self.disk, &self.path, encode(place).as_bytes())?;
            self.saved = place;
            self.follower.release_before(place.file);
        }
        Ok(())
    }
}

/// Adds what a record says. `None`: it contradicts the format; what could be read is kept.
fn read(record: RecordView<'_>, batch: &mut FeedBatch) -> Option<()> {
    if !matches!(record.kind, RecordKind::Samples | RecordKind::Histograms) {
        return Some(());
    }
    let mut reader = Reader::new(record.payload);
    for _ in 0..reader.count()? {
        let number = reader.varint()?;
        let mut pairs = Vec::new();
        for _ in 0..reader.count()? {
            pairs.push((reader.text()?, reader.text()?));
        }
        batch.series.push((number, Labels::new(pairs).ok()?));
    }
    if !record.is_new {
        return Some(());
    }
    let mut time = 0i64;
    for _ in 0..reader.count()? {
        let number = reader.varint()?;
        let value = if record.kind == RecordKind::Histograms {
            let timestamp = Timestamp(reader.zigzag()?);
            let histogram = Arc::new(histograms::read(&mut reader)?);
            FeedValue::Histogram(HistogramSample { timestamp, histogram })
        } else {
            time = time.wrapping_add(reader.zigzag()?);
            FeedValue::Float(Sample { timestamp: Timestamp(time), value: reader.f64()? })
        };
        batch.samples.push((number, value));
    }
    reader.is_empty().then_some(())
}

fn encode(place: Place) -> String {
    let text = format!("{HEADER}\n{} {}\n", place.file.0, place.sequence.0);
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}{crc:08x}\n")
}

fn decode(bytes: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let (header, place) = (lines.next()?, lines.next()?);
    let (file, sequence) = place.split_once(' ')?;
    let place = Place { file: WalFileId(file.parse().ok()?), sequence: Sequence(sequence.parse().ok()?) };
    (header == HEADER && encode(place).as_bytes() == bytes).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{put_text, put_varint, put_zigzag};
    use crate::fs::SimDisk;
    use crate::wal::Floor;

    const SOON: Duration = Duration::from_millis(1);

    fn wal(disk: &SimDisk, file_max_bytes: u64) -> Arc<Wal> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened =
            Wal::open_with(disk, Path::new("/w"), &Floor::default(), file_max_bytes, &mut |_, _, _, _| {});
        Arc::new(opened.unwrap().0)
    }

    fn follow(disk: &SimDisk, wal: &Arc<Wal>) -> Following {
        Following::open(Arc::new(disk.clone()), Path::new("/p/a.position"), Arc::clone(wal)).unwrap()
    }

    /// A record of one sample of series 7, which it names if it begins its file.
    fn append(wal: &Wal, named: &mut Option<WalFileId>, value: u8) -> Sequence {
        wal.append(RecordKind::Samples, |file, out| {
            let is_new = named.replace(file) != Some(file);
            put_varint(out, u64::from(is_new));
            if is_new {
                put_varint(out, 7);
                put_varint(out, 1);
                put_text(out, "__name__");
                put_text(out, "m");
            }
            put_varint(out, 1);
            put_varint(out, 7);
            put_zigzag(out, i64::from(value));
            out.extend_from_slice(&f64::from(value).to_le_bytes());
        })
    }

    /// What is there to be read, and the last position.
    fn all(following: &mut Following) -> (Vec<u8>, FeedPosition, u64) {
        let (mut values, mut lost) = (Vec::new(), 0);
        let mut names = std::collections::HashMap::new();
        loop {
            let batch = following.next(SOON).unwrap();
            if batch.forgets {
                names.clear();
            }
            names.extend(batch.series);
            lost += batch.lost_records;
            for (number, value) in batch.samples {
                assert_eq!(names[&number].to_string(), "m");
                let FeedValue::Float(sample) = value else { panic!("no number") };
                assert_eq!(sample.timestamp.0 as f64, sample.value);
                values.push(sample.value as u8);
            }
            if batch.is_end {
                return (values, batch.position, lost);
            }
        }
    }

    #[test]
    fn durable_records_come_in_order_over_files_and_restarts() {
        let disk = SimDisk::default();
        let mut named = None;
        let first = wal(&disk, 150);
        append(&first, &mut named, 0);
        first.commit_all().unwrap();
        let mut following = follow(&disk, &first);
        assert!(all(&mut following).0.is_empty(), "it begins at the end");
        (1..20).for_each(|value| {
            append(&first, &mut named, value);
        });
        assert!(all(&mut following).0.is_empty(), "nothing is durable yet");
        first.commit_all().unwrap();
        let (values, position, lost) = all(&mut following);
        assert_eq!((values, lost), ((1..20).collect(), 0));
        assert!(position.file > 3, "{position:?}");
        following.acknowledge(FeedPosition { file: 3, sequence: 9 }).unwrap();
        drop((following, first));

        let second = wal(&disk, 150);
        let mut named = None;
        let mut following = follow(&disk, &second);
        append(&second, &mut named, 20);
        second.commit_all().unwrap();
        let (values, _, lost) = all(&mut following);
        assert!(values.ends_with(&[19, 20]) && values.is_sorted() && lost == 0, "{values:?}");
        assert_eq!(values.len(), 21 - 9);
    }

    #[test]
    fn files_are_held_up_to_a_bound_and_what_is_gone_is_counted() {
        let disk = SimDisk::default();
        let wal = wal(&disk, 150);
        let mut following = follow(&disk, &wal);
        let mut named = None;
        (1..20).for_each(|value| {
            append(&wal, &mut named, value);
        });
        wal.commit_all().unwrap();
        let through = wal.sealed().last().unwrap().id;
        assert_eq!(wal.unheld_through(through, u64::MAX).unwrap(), None);
        let unheld = wal.unheld_through(through, 400).unwrap().unwrap();
        assert!(unheld < through);
        wal.remove_through(unheld).unwrap();
        let (values, position, lost) = all(&mut following);
        assert_eq!(values.len() as u64 + lost, 19);
        assert!(lost > 0 && values.ends_with(&[18, 19]));
        following.acknowledge(position).unwrap();
        assert_eq!(wal.unheld_through(through, u64::MAX).unwrap(), Some(through));
        drop(following);
        assert_eq!(wal.unheld_through(through, 0).unwrap(), Some(through));
    }

    #[test]
    fn damage_costs_what_was_damaged() {
        let disk = SimDisk::default();
        let wal = wal(&disk, 1000);
        let mut following = follow(&disk, &wal);
        let mut named = None;
        (1..6).for_each(|value| {
            append(&wal, &mut named, value);
        });
        wal.commit_all().unwrap();
        wal.seal();
        append(&wal, &mut None, 6);
        wal.commit_all().unwrap();
        let path = Path::new("/w/0000000001.wal");
        let size = disk.open(path).unwrap().size().unwrap() as usize;
        disk.flip_bit(path, (size - 60) * 8);
        let (values, _, lost) = all(&mut following);
        assert_eq!((values.len(), lost, values.last()), (5, 1, Some(&6)));
    }

    #[test]
    fn positions_survive_and_damaged_ones_are_known() {
        let place = Place { file: WalFileId(7), sequence: Sequence(99) };
        let text = encode(place);
        assert_eq!(text, "binnacle position 1\n7 99\n5b0edb11\n");
        assert_eq!(decode(text.as_bytes()), Some(place));
        assert_eq!(decode(text.replace('9', "8").as_bytes()), None);
        assert_eq!(decode(b""), None);
        assert_eq!(decode(&[0xff; 40]), None);
    }
}
