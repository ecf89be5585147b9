//! For whoever throws foreign bytes at blocks. Checksums would refuse nearly all of them, so that what lies behind a
//! checksum can be reached without one.

use std::path::Path;
use std::sync::Arc;

use binnacle_model::storage::ALL_TIME;

use super::{Block, ChunkReader, Cut, Footer, Opened};
use crate::fs::{Disk, SimDisk};
use crate::header::{self, HEADER_BYTES, MAGIC_BLOCK};
use crate::metrics::chunk::{interleaved, times, values};
use crate::metrics::histograms;

/// Reads `bytes` as a whole block, an index, or a chunk, as the first byte says.
pub fn try_block(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => read_file(bytes),
        1 => read_file(&around_index(bytes)),
        2 => {
            let Some((count, bytes)) = bytes.split_first_chunk::<2>() else { return };
            let _ = values::decode(bytes, usize::from(u16::from_le_bytes(*count)), &mut vec![0.5; 3]);
        }
        3 => {
            let _ = times::decode(bytes, &mut Vec::new());
        }
        4 => {
            let _ = histograms::decode_chunk(bytes, &mut Vec::new());
        }
        _ => {
            let _ = interleaved::decode(bytes, &mut Vec::new());
        }
    }
}

/// A file with this index, some room for chunks, and checksums that are right.
fn around_index(index: &[u8]) -> Vec<u8> {
    let mut file = header::encode(MAGIC_BLOCK, header::BLOCK_VERSION).to_vec();
    file.resize(HEADER_BYTES + 4096, 0);
    let footer = Footer {
        range: ALL_TIME,
        cut: Cut::NONE,
        index_offset: file.len() as u64,
        index_bytes: index.len() as u64,
        index_crc: crc32c::crc32c(index),
        samples: 1,
    };
    file.extend_from_slice(index);
    file.extend_from_slice(&footer.encode());
    file
}

fn read_file(bytes: &[u8]) {
    let disk = SimDisk::default();
    let path = Path::new("/d/0000000001-0-1.block");
    let written = disk.create(path).and_then(|mut file| file.append(bytes));
    let (Ok(()), Ok(opened)) = (written, Opened::new(&disk, path)) else { return };
    let block = Arc::new(Block::new(opened, 1, Arc::default()));
    let (_, _, _) = (block.series(), block.sources(), block.label_names(&[]));
    let Ok(mut reader) = ChunkReader::new(Arc::clone(&block)) else { return };
    for (_, chunks) in block.select(&[], ALL_TIME).unwrap_or_default() {
        for chunk in chunks {
            let _ = reader.read(chunk, &mut Vec::new(), &mut Vec::new());
        }
    }
}
