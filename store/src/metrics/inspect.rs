//! Looks at the blocks of a data directory without changing anything, also while a server uses it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use binnacle_model::TimeRange;

use super::block::{self, BlockError, ChunkReader, Opened};
use crate::fs::Disk;

/// What is in a block.
#[derive(Debug, Clone)]
pub struct BlockReport {
    /// Its file.
    pub path: PathBuf,
    /// Of its samples.
    pub range: TimeRange,
    /// Of the file.
    pub bytes: u64,
    /// Series with samples.
    pub series: usize,
    /// Samples that could be read.
    pub samples: u64,
    /// By metric.
    pub metrics: BTreeMap<String, MetricReport>,
    /// What could not be read; empty if all of it could.
    pub damage: Vec<String>,
}

/// What a block has of a metric.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetricReport {
    /// Series of it.
    pub series: usize,
    /// Samples of it.
    pub samples: u64,
}

/// Reads every byte of every block in `dir`, a folder of blocks.
pub(crate) fn inspect(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<BlockReport>> {
    let names = disk.list(dir)?;
    let blocks = names.iter().filter_map(|name| Some((name, block::parse_name(name)?)));
    Ok(blocks.map(|(name, (number, range))| look(disk, &dir.join(name), number, range)).collect())
}

fn look(disk: &dyn Disk, path: &Path, number: u64, range: TimeRange) -> BlockReport {
    let mut report = BlockReport {
        path: path.to_path_buf(),
        range,
        bytes: 0,
        series: 0,
        samples: 0,
        metrics: BTreeMap::new(),
        damage: Vec::new(),
    };
    if let Err(error) = read(disk, path, number, &mut report) {
        report.damage.push(error.to_string());
    }
    report
}

fn read(disk: &dyn Disk, path: &Path, number: u64, report: &mut BlockReport) -> Result<(), BlockError> {
    let block = Arc::new(Opened::new(disk, path)?.into_block(number, Arc::default())?);
    report.bytes = block.bytes();
    let mut reader = ChunkReader::new(Arc::clone(&block))?;
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    let mut group = 0;
    while let Some(rows) = block.group(group)? {
        group += 1;
        for (labels, chunks) in rows {
            samples.clear();
            histograms.clear();
            for chunk in chunks {
                if let Err(error) = reader.read(chunk, &mut samples, &mut histograms) {
                    report.damage.push(format!("{labels}: {error}"));
                }
            }
            let count = (samples.len() + histograms.len()) as u64;
            report.series += 1;
            report.samples += count;
            let metric = report.metrics.entry(labels.metric_name().to_owned()).or_default();
            metric.series += 1;
            metric.samples += count;
        }
    }
    Ok(())
}
