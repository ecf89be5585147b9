//! `tsdb`: what lies in a data directory, whether it is sound, and what Prometheus left elsewhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, bail};
use binnacle_store::{
    BlockReport, ImportCounts, ImportOptions, ImportOutcome, ImportedBlock, MetricReport, import_prometheus,
    inspect_metrics,
};

use crate::clock::SystemClock;
use crate::{ImportArgs, TsdbArgs};

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

/// Blocks of Prometheus, one line each, and what came of all of them.
pub(crate) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let options = ImportOptions { retention: args.retention };
    let mut tell = |block: &ImportedBlock| println!("{}", line_of(block, args));
    let report = import_prometheus(&args.from, &args.data, &options, Arc::new(SystemClock), &mut tell)?;
    println!(
        "{} blocks imported, {} had been before, {} failed: {}",
        report.imported,
        report.known,
        report.failed,
        counts_of(&report.counts)
    );
    if report.has_wal {
        println!(
            "The newest two to three hours of {} are in its write-ahead log, which is not read. A snapshot has them as a \
             block: start Prometheus with --web.enable-admin-api, POST /api/v1/admin/tsdb/snapshot, stop it, and import \
             snapshots/NAME of its data directory; moments that are here already are not doubled.",
            args.from.display()
        );
    }
    if report.failed > 0 {
        bail!("{} of the blocks could not be imported; the others are", report.failed);
    }
    Ok(())
}

fn line_of(block: &ImportedBlock, args: &ImportArgs) -> String {
    let dir = block.dir.file_name().unwrap_or(block.dir.as_os_str()).to_string_lossy();
    let range = block.range.map(|range| format!(", {} to {}", range.start, range.end)).unwrap_or_default();
    let outcome = match &block.outcome {
        ImportOutcome::Imported(counts) => counts_of(counts),
        ImportOutcome::Known => {
            let list = args.data.join("metrics").join("imported");
            format!("was imported before; to import it again, take its line out of {}", list.display())
        }
        ImportOutcome::Unfinished => "left out: it has no meta.json, Prometheus did not finish it".to_owned(),
        // The whole chain.
        ImportOutcome::Failed(error) => {
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            causes.fold(format!("not imported: {error}"), |text, cause| format!("{text}: {cause}"))
        }
    };
    format!("{dir}{range}: {outcome}")
}

fn counts_of(counts: &ImportCounts) -> String {
    let ImportCounts { series, samples, blocks, too_old, too_new, deleted, .. } = counts;
    let mut text = format!("{samples} samples of {series} series into {blocks} blocks");
    for (count, what) in [(too_old, "too old"), (too_new, "from the future"), (deleted, "deleted")] {
        if *count > 0 {
            text.push_str(&format!("; {count} samples left out, {what}"));
        }
    }
    for (refused, what) in
        [(&counts.refused_series, "series"), (&counts.refused_histograms, "native histograms")]
    {
        for (reason, count) in refused {
            text.push_str(&format!("; {count} {what} refused: {reason}"));
        }
    }
    text
}
