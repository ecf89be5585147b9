//! `tsdb`: what lies in a data directory, and whether it is sound.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, bail};
use binnacle_store::{BlockReport, MetricReport, inspect_metrics};

use crate::TsdbArgs;

/// Metrics with most series, of all blocks.
pub(crate) fn analyze(args: &TsdbArgs) -> anyhow::Result<()> {
    let blocks = blocks(args)?;
    let mut out = std::io::stdout().lock();
    let mut metrics: BTreeMap<&str, MetricReport> = BTreeMap::new();
    writeln!(
        out,
        "{:<25} {:<25} {:>10} {:>12} {:>12} {:>8}",
        "FROM", "TO", "SERIES", "SAMPLES", "BYTES", "B/SAMPLE"
    )?;
    for block in &blocks {
        let each = block.bytes as f64 / (block.samples.max(1)) as f64;
        let (from, to) = (block.range.start.to_rfc3339(), block.range.end.to_rfc3339());
        writeln!(
            out,
            "{from:<25} {to:<25} {:>10} {:>12} {:>12} {each:>8.2}",
            block.series, block.samples, block.bytes
        )?;
        for (name, one) in &block.metrics {
            let all = metrics.entry(name).or_default();
            // Series of several blocks are mostly the same.
            all.series = all.series.max(one.series);
            all.samples += one.samples;
        }
    }
    let mut largest: Vec<(&str, MetricReport)> = metrics.into_iter().collect();
    largest.sort_by(|(a, few), (b, many)| many.series.cmp(&few.series).then_with(|| a.cmp(b)));
    writeln!(out, "\n{:>10} {:>14}  METRIC", "SERIES", "SAMPLES")?;
    for (name, one) in largest.iter().take(args.limit) {
        writeln!(out, "{:>10} {:>14}  {name}", one.series, one.samples)?;
    }
    damage(&blocks)
}

/// Every checksum of every block.
pub(crate) fn verify(args: &TsdbArgs) -> anyhow::Result<()> {
    let blocks = blocks(args)?;
    damage(&blocks)?;
    let samples: u64 = blocks.iter().map(|block| block.samples).sum();
    println!("{} blocks with {samples} samples are sound", blocks.len());
    Ok(())
}

fn blocks(args: &TsdbArgs) -> anyhow::Result<Vec<BlockReport>> {
    inspect_metrics(&args.data).with_context(|| format!("cannot read the blocks of {}", args.data.display()))
}

fn damage(blocks: &[BlockReport]) -> anyhow::Result<()> {
    let all: Vec<&String> = blocks.iter().flat_map(|block| &block.damage).collect();
    for one in &all {
        eprintln!("{one}");
    }
    if !all.is_empty() {
        bail!(
            "{} pieces of blocks are damaged; a server answers the rest and says what is missing",
            all.len()
        );
    }
    Ok(())
}
