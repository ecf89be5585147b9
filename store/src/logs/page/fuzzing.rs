//! For whoever throws foreign bytes at pages. Checksums would refuse nearly all of them, so that what lies behind a
//! checksum can be reached without one.

use std::sync::Arc;

use super::prose::Dictionary;
use super::reader::PageReader;
use super::seal::HolePlace;
use super::sealed::{SealedPage, Source};
use super::shared::Shared;
use super::tables::{OpenTables, Texts};
use super::uses::holes_of_id;
use super::{Fuse, IDS, PageTemplate, PageView, TEXTS, Uses, cells, entry, ints, rewrite, seal};
use crate::bytes::Reader;
use crate::fs::{Disk, SimDisk};
use crate::logs::split::{Pieces, decode, encode, split};

/// Rows that are read of a page of foreign bytes.
const ROWS_MAX: usize = 64;

/// Reads `bytes` as a page, as the head of one, as columns, as a filter, as the places of texts and ids, or as texts by
/// words, or cuts them as a message, as the first byte says.
pub fn try_log_page(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => read_page(bytes),
        1 => {
            let _ = SealedPage::of_head(bytes, &mut Shared::default());
        }
        2 => {
            let Some((count, bytes)) = bytes.split_first_chunk::<2>() else { return };
            let _ = ints::decode(&mut Reader::new(bytes), usize::from(u16::from_le_bytes(*count)));
        }
        3 => {
            let Some((count, bytes)) = bytes.split_first_chunk::<2>() else { return };
            let _ = cells::decode(&mut Reader::new(bytes), usize::from(u16::from_le_bytes(*count)));
        }
        4 => {
            let _ = Fuse::decode(bytes).map(|filter| filter.may_contain(7));
        }
        5 => read_uses(bytes),
        6 => read_prose(bytes),
        _ => cut(bytes),
    }
}

/// The first bytes say how many texts there are, how many templates and holes, and how many rows each has.
fn read_uses(bytes: &[u8]) {
    let Some(([texts, holes, rows], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let texts = usize::from(*texts);
    let place = HolePlace { kinds: TEXTS | IDS, ..HolePlace::default() };
    let places = vec![vec![place; usize::from(holes % 8)]; usize::from(holes / 8)];
    for is_16 in [false, true] {
        let found = holes_of_id(bytes, &places, u32::from(*rows), is_16).unwrap_or_default();
        assert!(found.len() <= 256 * 8, "more holes than there are");
    }
    let template = PageTemplate {
        template: Arc::default(),
        rows: u32::from(*rows),
        bytes: 0,
        minutes: Vec::new(),
        number: None,
    };
    if let Ok(uses) = Uses::decode(bytes, &vec![template; places.len()], &places, texts) {
        let most = (0..2 * texts).flat_map(|slot| uses.of(slot)).map(|one| one.rows).max();
        assert!(most.unwrap_or_default() <= u32::from(*rows), "more rows than there are");
    }
}

fn read_page(bytes: &[u8]) {
    let (disk, path) = (SimDisk::default(), std::path::Path::new("/p"));
    let Ok(mut file) = disk.create(path) else { return };
    if file.append(bytes).is_err() {
        return;
    }
    let Ok(file) = disk.open(path) else { return };
    let source = Source { file, offset: 0, length: bytes.len() as u64 };
    let Ok(page) = SealedPage::open(source, &std::sync::Mutex::default()) else { return };
    let page = Arc::new(page);
    let reader = PageReader::new(Arc::clone(&page));
    for row in 0..reader.rows().min(ROWS_MAX) {
        let _ = entry(&reader, row);
    }
    let _ = reader.verify();
    // What can be read as a whole can be written anew.
    if reader.rows() <= ROWS_MAX
        && let Ok(anew) = rewrite(&[page], &mut |_| true)
    {
        assert!(seal(&anew).is_ok(), "what was read cannot be written");
    }
}

/// A dictionary, and behind it a frame of texts.
fn read_prose(bytes: &[u8]) {
    const BYTES_MAX: usize = 1 << 20;
    let (reader, mut texts) = (&mut Reader::new(bytes), Texts::default());
    let unpacked = Dictionary::decode(reader)
        .and_then(|dictionary| dictionary.unpack(reader.rest(), BYTES_MAX, &mut texts));
    assert!(unpacked.is_none() || texts.bytes.len() <= BYTES_MAX, "more text than is allowed");
}

/// A message comes back as it was.
fn cut(message: &[u8]) {
    const TIME_NS: i64 = 1_763_892_672_345_678_901;
    let (mut pieces, mut tables) = (Pieces::default(), OpenTables::default());
    split(message, TIME_NS, &mut pieces);
    let (mut rebuilt, mut at) = (Vec::new(), 0);
    for hole in &pieces.holes {
        rebuilt.extend_from_slice(&message[at..hole.start as usize]);
        let cell = hole.time.unwrap_or_else(|| encode(hole.of(message), &mut tables));
        assert!(decode(cell, &tables, TIME_NS, &mut rebuilt), "a cell that leads nowhere");
        at = hole.end as usize;
    }
    rebuilt.extend_from_slice(&message[at..]);
    assert_eq!(rebuilt, message);
}
