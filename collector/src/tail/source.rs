//! The bytes of a file: as they are, or unpacked.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use binnacle_model::LogTime;
use flate2::read::MultiGzDecoder;

use crate::journal::JournalFile;

/// An open file, whose bytes are counted unpacked.
#[derive(Debug)]
pub(super) enum Source {
    /// It may still grow.
    Plain(File),
    /// It takes no more.
    Gzip(Box<GzipSource>),
    /// Places in it are numbers of entries.
    Journal(Box<JournalFile>),
}

/// A reader that goes forward, and keeps what may be asked for again.
#[derive(Debug)]
pub(super) struct GzipSource {
    file: File,
    decoder: Option<MultiGzDecoder<BufReader<File>>>,
    /// Offset of its first byte.
    base: u64,
    /// Unpacked so far; `kept` are the bytes before it.
    at: u64,
    kept: Vec<u8>,
    has_ended: bool,
    /// Why nothing comes behind `at`, if there should.
    damage: Option<String>,
}

impl Source {
    pub(super) fn new(file: File, compressed: bool, base: u64) -> Self {
        if !compressed {
            return Self::Plain(file);
        }
        let gzip = GzipSource {
            file,
            decoder: None,
            base,
            at: base,
            kept: Vec::new(),
            has_ended: false,
            damage: None,
        };
        Self::Gzip(Box::new(gzip))
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(gzip) => &gzip.file,
            Self::Journal(journal) => journal.file(),
        }
    }

    /// How many bytes (or entries) there are, and whether the file has lost its name.
    ///
    /// What a compressed file says of itself is its length modulo 4 GiB, of its last member: good enough to show.
    pub(super) fn size(&mut self) -> io::Result<(u64, bool)> {
        let metadata = self.file().metadata()?;
        let size = match self {
            Self::Journal(journal) => {
                journal.refresh()?;
                journal.entries()
            }
            Self::Plain(_) => metadata.len(),
            Self::Gzip(gzip) if gzip.has_ended => gzip.at,
            Self::Gzip(gzip) => {
                let mut last = [0; 4];
                gzip.file.read_exact_at(&mut last, metadata.len().saturating_sub(4))?;
                (gzip.base + u64::from(u32::from_le_bytes(last))).max(gzip.at)
            }
        };
        Ok((size, metadata.nlink() == 0))
    }

    /// When the file was changed last.
    pub(super) fn changed(&self) -> Option<LogTime> {
        let metadata = self.file().metadata().ok()?;
        Some(LogTime(metadata.mtime().checked_mul(1_000_000_000)?.checked_add(metadata.mtime_nsec())?))
    }

    /// Reads up to `wanted` bytes from `offset` on into `buffer`. Answers whether the bytes end there.
    pub(super) fn read(&mut self, offset: u64, wanted: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Plain(file) => {
                buffer.resize(wanted, 0);
                let mut filled = 0;
                while filled < wanted {
                    let read = file.read_at(&mut buffer[filled..], offset + filled as u64)?;
                    if read == 0 {
                        break;
                    }
                    filled += read;
                }
                buffer.truncate(filled);
                Ok(filled < wanted)
            }
            Self::Gzip(gzip) => gzip.read(offset, wanted, buffer),
            // Its bytes are no lines.
            Self::Journal(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Why the bytes end before they should: a compressed file that is cut off, or is none.
    pub(super) fn damage(&self) -> Option<&str> {
        match self {
            Self::Plain(_) | Self::Journal(_) => None,
            Self::Gzip(gzip) => gzip.damage.as_deref(),
        }
    }

    /// Lets go of what makes reading on cheap.
    pub(super) fn rest(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Gzip(gzip) => {
                (gzip.decoder, gzip.at, gzip.kept) = (None, gzip.base, Vec::new());
                gzip.has_ended = false;
            }
            Self::Journal(journal) => journal.rest(),
        }
    }
}

impl GzipSource {
    fn read(&mut self, offset: u64, wanted: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let kept_from = self.at - self.kept.len() as u64;
        if self.decoder.is_none() || offset < kept_from {
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            self.decoder = Some(MultiGzDecoder::new(BufReader::with_capacity(64 * 1024, file)));
            (self.at, self.has_ended) = (self.base, false);
            self.kept.clear();
        }
        self.skip_to(offset);
        self.fill(wanted);
        buffer.clear();
        buffer.extend_from_slice(&self.kept[..self.kept.len().min(wanted)]);
        Ok(self.has_ended && self.kept.len() <= wanted)
    }

    /// Makes `kept` begin at `offset`, or be empty at the end.
    fn skip_to(&mut self, offset: u64) {
        let kept_from = self.at - self.kept.len() as u64;
        let known = ((offset - kept_from) as usize).min(self.kept.len());
        self.kept.drain(..known);
        let mut rest = offset.saturating_sub(self.at);
        let mut passed = vec![0; rest.min(64 * 1024) as usize];
        let Some(decoder) = &mut self.decoder else { return };
        while rest > 0 {
            let most = passed.len().min(rest as usize);
            let read = decoder.read(&mut passed[..most]).unwrap_or_else(|error| {
                self.damage = Some(error.to_string());
                0
            });
            if read == 0 {
                self.has_ended = true;
                break;
            }
            self.at += read as u64;
            rest -= read as u64;
        }
    }

    fn fill(&mut self, wanted: usize) {
        let Some(decoder) = &mut self.decoder else { return };
        while self.kept.len() < wanted && !self.has_ended {
            let before = self.kept.len();
            self.kept.resize(wanted, 0);
            let read = decoder.read(&mut self.kept[before..]).unwrap_or_else(|error| {
                self.damage = Some(error.to_string());
                0
            });
            self.kept.truncate(before + read);
            self.at += read as u64;
            self.has_ended = read == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(parts: &[&[u8]]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for part in parts {
            let mut packed = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
            packed.write_all(part).unwrap();
            packed.finish().unwrap();
        }
        file
    }

    #[test]
    fn windows_of_unpacked_bytes_may_overlap_and_go_back() {
        let all: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut source = Source::new(gzip(&[&all[..70_000], &all[70_000..]]), true, 0);
        let mut buffer = Vec::new();
        for (offset, wanted) in
            [(0, 10), (5, 100_000), (90_000, 50_000), (3, 7), (199_990, 10), (199_990, 50)]
        {
            let has_ended = source.read(offset, wanted, &mut buffer).unwrap();
            let end = (offset as usize + wanted).min(all.len());
            assert_eq!(buffer, &all[offset as usize..end], "{offset} {wanted}");
            assert!(!has_ended || end == all.len());
        }
        assert!(source.read(300_000, 10, &mut buffer).unwrap() && buffer.is_empty());
        assert_eq!(source.size().unwrap().0, 200_000);
        let mut rest = Source::new(gzip(&[&all[150_000..]]), true, 150_000);
        assert_eq!(rest.size().unwrap().0, 200_000);
        assert!(!rest.read(160_000, 10, &mut buffer).unwrap() && buffer == all[160_000..160_010]);
        source.rest();
        assert!(source.read(199_999, 10, &mut buffer).unwrap());
        assert_eq!(buffer, &all[199_999..]);
    }

    #[test]
    fn what_is_cut_off_or_no_gzip_is_an_error() {
        let mut whole = Vec::new();
        let mut file = gzip(&[&vec![b'x'; 100_000]]);
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut whole).unwrap();
        for bytes in [&whole[..whole.len() / 2], b"no gzip at all"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            let mut source = Source::new(file, true, 0);
            let mut buffer = Vec::new();
            assert!(source.read(0, 1 << 20, &mut buffer).unwrap() && source.damage().is_some());
            assert!(buffer.iter().all(|b| *b == b'x'));
        }
    }
}
