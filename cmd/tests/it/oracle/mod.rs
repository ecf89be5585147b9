//! Queries of real records, in text, beside a scan of the same records that shares no code with the engine: the same
//! rows in the same order, the same counts, the same sums of histograms.
//!
//! ```text
//! records ─┬─► Store: a closed partition, sealed pages, an open page ─┐
//!          │                                                          ├─ equal
//!          └─► lucene, logql: query ─┬─► text ─► parser ─► engine ────┘   │
//!                                    └─► finds(record), on strings ───────┘
//! ```
//!
//! `BINNACLE_SEED` asks other questions, `BINNACLE_QUERIES` more. The records lie outside of this repository; where they
//! are not found, the tests say so and pass.

mod logql;
mod lucene;
mod records;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::log::Field;
use binnacle_model::storage::{
    Deadline, LogAggregate, LogFull, LogKey, LogMeasure, LogOrder, LogRequest, LogSearcher, LogSlices,
    PageRequest,
};
use binnacle_query::logql::{MetricParams, Plan, Query, metric_instant, metric_range, parse, select};
use binnacle_query::promql::{Limits, Output};

use crate::differential::generate::Random;
use records::{Bench, Record, START, bench};

/// Of either language.
const QUERIES: usize = 2_500;

const HOUR_NS: i64 = 3_600_000_000_000;

/// Behind the last record.
const SPAN_NS: i64 = 8 * HOUR_NS;

/// The same questions in each run, so that a change that breaks nothing is not held up by one that nobody asked before:
/// other seeds are for whoever looks for those.
const SEED: u64 = 20_261_123;

fn seed() -> u64 {
    std::env::var("BINNACLE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

fn count() -> usize {
    std::env::var("BINNACLE_QUERIES").ok().and_then(|text| text.parse().ok()).unwrap_or(QUERIES)
}

/// Asks `check` for each number, and says all that went wrong.
fn ask(what: &str, seed: u64, mut check: impl FnMut(u64) -> Result<usize, String>) {
    let (mut failed, mut found, asked) = (Vec::new(), 0, count());
    for number in 0..asked {
        match check(seed.wrapping_add(number as u64 * 0x9e37_79b9)) {
            Ok(rows) => found += usize::from(rows > 0),
            Err(reason) => {
                eprintln!("in {what}: {reason}\n");
                failed.push(reason);
            }
        }
    }
    println!("{asked} queries in {what}, {found} with an answer; BINNACLE_SEED={seed}");
    let shown = failed.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n\n");
    assert!(failed.is_empty(), "{} of {asked}, BINNACLE_SEED={seed}:\n\n{shown}", failed.len());
    assert!(found * 2 > asked, "only {found} of {asked} queries found something");
}

/// What says which record it is.
type Row<'r> = (i64, &'r [u8]);

fn first_difference(found: &[Row<'_>], want: &[Row<'_>]) -> Option<String> {
    let at = (0..found.len().max(want.len())).find(|at| found.get(*at) != want.get(*at))?;
    let shown = |rows: &[Row<'_>]| {
        rows.get(at).map_or("nothing".to_owned(), |(time, line)| format!("{time} {}", line.escape_ascii()))
    };
    Some(format!("row {at} is {}\nand should be {}", shown(found), shown(want)))
}

/// Records in an order, of a span.
fn of_span<'r>(
    records: &'r [Record],
    (start, end): (i64, i64),
    order: LogOrder,
    finds: impl Fn(&Record) -> bool + 'r,
) -> Vec<&'r Record> {
    let within = records.iter().filter(move |one| (start..end).contains(&one.time) && finds(one));
    let mut found: Vec<&Record> = within.collect();
    if order == LogOrder::NewestFirst {
        found.reverse();
    }
    found
}

fn rows<'r>(records: &[&'r Record]) -> Vec<Row<'r>> {
    records.iter().map(|one| (one.time, one.text.as_bytes())).collect()
}

/// A span, an order and a number of rows.
fn frame(random: &mut Random) -> ((i64, i64), LogOrder, usize) {
    let order = if random.below(2) == 0 { LogOrder::NewestFirst } else { LogOrder::OldestFirst };
    let limit = [1, 10, 100, 10_000][random.below(4) as usize];
    if random.below(2) == 0 {
        return ((START - HOUR_NS, START + SPAN_NS), order, limit);
    }
    let start = START + random.below(HOUR_NS as u64) as i64;
    ((start, start + 1 + random.below(2 * HOUR_NS as u64) as i64), order, limit)
}

#[test]
fn lucene_finds_what_a_scan_finds() {
    let dir = tempfile::tempdir().unwrap();
    let Some(bench) = bench(dir.path()) else { return };
    ask("Lucene's syntax", seed(), |seed| {
        let mut random = Random::new(seed);
        let mut maker = lucene::Maker { random: &mut random, records: &bench.records };
        let (query, text) = maker.query_and_text();
        let explain = |reason: String| format!("{text}\n{reason}\nwhere it means {query:?}");
        check_lucene(&bench, &mut random, &query, &text).map_err(explain)
    });
    bench.store.close();
}

fn check_lucene(
    bench: &Bench,
    random: &mut Random,
    query: &lucene::Query,
    text: &str,
) -> Result<usize, String> {
    let parsed = binnacle_query::logs::parse(text, LogTime(START)).map_err(|error| error.to_string())?;
    if let Some(note) = parsed.notes.iter().find(|note| note.text.contains("whole text as a phrase")) {
        return Err(note.to_string());
    }
    let (span, order, limit) = frame(random);
    let want = of_span(&bench.records, span, order, |record| query.finds(record));
    let request = LogRequest { query: parsed.query, start: LogTime(span.0), end: LogTime(span.1) };
    let page = PageRequest { limit, order, counts: true, cursor: None };
    let deadline = Deadline::default();
    let found = bench.store.search(&request, page, &deadline).map_err(|error| error.to_string())?;
    let seen: Vec<Row<'_>> =
        found.entries.iter().map(|(_, one)| (one.time.0, one.message.as_slice())).collect();
    if let Some(reason) = first_difference(&seen, &rows(&want)[..want.len().min(limit)]) {
        return Err(reason);
    }
    if found.total != Some(want.len() as u64) {
        return Err(format!("{:?} are counted, and there are {}", found.total, want.len()));
    }
    let width_ns = (span.1 - span.0).unsigned_abs().div_ceil(7);
    let slices = LogSlices { start: LogTime(span.0), width_ns, count: 7 };
    let by = vec![LogKey::Field(Field::Stream("level"))];
    let aggregate = LogAggregate { by, slices, measure: LogMeasure::Entries, full: LogFull::Refuse };
    let groups = bench.store.aggregate(&request, &aggregate, &deadline).map_err(|error| error.to_string())?;
    let mut bars: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for record in &want {
        let slice = (record.time - span.0).unsigned_abs() / width_ns;
        bars.entry(record.level.as_str()).or_insert_with(|| vec![0; 7])[slice as usize] += 1;
    }
    let groups: BTreeMap<&str, Vec<u64>> =
        groups.groups.iter().map(|group| (group.key[0].as_str(), group.sums.clone())).collect();
    if groups != bars {
        return Err(format!("the bars are {groups:?} and should be {bars:?}"));
    }
    Ok(want.len())
}

#[test]
fn logql_answers_what_a_scan_answers() {
    let dir = tempfile::tempdir().unwrap();
    let Some(bench) = bench(dir.path()) else { return };
    ask("LogQL", seed(), |seed| {
        let mut random = Random::new(seed);
        let pipeline = logql::Maker { random: &mut random, records: &bench.records }.pipeline();
        let explain = |reason: String| format!("{}\n{reason}", pipeline.text());
        if random.below(3) == 0 {
            check_numbers(&bench, &mut random, &pipeline).map_err(explain)
        } else {
            check_lines(&bench, &mut random, &pipeline).map_err(explain)
        }
    });
    bench.store.close();
}

fn check_lines(bench: &Bench, random: &mut Random, pipeline: &logql::Pipeline) -> Result<usize, String> {
    let Query::Logs(logs) = parse(&pipeline.text()).map_err(|error| error.to_string())? else {
        return Err("it asks for numbers".to_owned());
    };
    let (span, order, limit) = frame(random);
    let want = of_span(&bench.records, span, order, |record| pipeline.run(record).is_some());
    let times = (LogTime(span.0), LogTime(span.1));
    let found = select(&bench.store, &Plan::new(&logs), times, order, limit, &Deadline::default());
    let found = found.map_err(|error| error.to_string())?.lines;
    let seen: Vec<Row<'_>> = found.iter().map(|one| (one.time.0, one.line.as_slice())).collect();
    if let Some(reason) = first_difference(&seen, &rows(&want)[..want.len().min(limit)]) {
        return Err(reason);
    }
    for (one, record) in found.iter().zip(&want) {
        let mut labels: BTreeMap<String, String> =
            one.labels.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
        labels.remove("__error_details__");
        let expected = pipeline.run(record).unwrap().labels;
        if labels != expected {
            return Err(format!(
                "{:?}\nhas the labels {labels:?}\nand should have {expected:?}",
                record.text
            ));
        }
    }
    Ok(want.len())
}

/// Lines, bytes or a label's numbers, by some labels, in windows side by side.
fn check_numbers(bench: &Bench, random: &mut Random, pipeline: &logql::Pipeline) -> Result<usize, String> {
    let mut pipeline = pipeline.clone();
    let is_parsed = pipeline.stages.iter().any(|stage| !matches!(stage, logql::Stage::Line(..)));
    if is_parsed {
        let no_error = logql::Matcher::new("__error__", "=", "");
        pipeline.stages.push(logql::Stage::Labels(logql::Filter::Text(no_error)));
    }
    let by = [&[][..], &["namespace"], &["detected_level", "app"], &["row_EventId"], &["Level"]];
    let by = by[random.below(by.len() as u64) as usize];
    let op = ["count_over_time", "bytes_over_time", "rate"][random.below(3) as usize];
    let minutes = [7, 60, 500][random.below(3) as usize];
    let range_ns = minutes * 60_000_000_000;
    let grouping = if by.is_empty() { String::new() } else { format!(" by ({})", by.join(", ")) };
    let text = format!("sum{grouping} ({op}({}[{minutes}m]))", pipeline.text());
    let Query::Metric(metric) = parse(&text).map_err(|error| error.to_string())? else {
        return Err("it asks for lines".to_owned());
    };
    // A step ends where its window does; to PromQL a moment is a millisecond.
    let at = |step: i64| START + HOUR_NS / 2 + step * range_ns;
    let steps = if random.below(2) == 0 { 1 } else { 5 };
    let (limits, deadline) = (Limits::default(), Deadline::default());
    let answer = if steps == 1 {
        metric_instant(&metric, &bench.store, LogTime(at(0)), limits, &deadline)
    } else {
        let step = Duration::from_nanos(range_ns.unsigned_abs());
        let params = MetricParams { start: LogTime(at(0)), end: LogTime(at(steps - 1)), step };
        metric_range(&metric, &bench.store, params, limits, &deadline)
    };
    let mut found: BTreeMap<(BTreeMap<String, String>, i64), f64> = BTreeMap::new();
    let mut add = |labels: &binnacle_model::Labels, ms: i64, value: f64| {
        let labels = labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect();
        found.insert((labels, ms), value);
    };
    match answer.map_err(|error| format!("{text}\n{error}"))?.output {
        Output::Vector(moment, series) => {
            series.iter().for_each(|one| add(&one.labels, moment.0, one.value.to_string().parse().unwrap()));
        }
        Output::Matrix(series) => {
            for one in &series {
                one.samples.iter().for_each(|sample| add(&one.labels, sample.timestamp.0, sample.value));
            }
        }
        _ => return Err("the answer is neither a vector nor a matrix".to_owned()),
    }
    let mut want: BTreeMap<(BTreeMap<String, String>, i64), f64> = BTreeMap::new();
    for step in 0..steps {
        let window = (at(step) - range_ns + 1)..=at(step);
        for record in bench.records.iter().filter(|one| window.contains(&one.time)) {
            let Some(row) = pipeline.run(record) else { continue };
            let pairs =
                by.iter().filter_map(|name| Some(((*name).to_owned(), row.labels.get(*name)?.clone())));
            let amount = if op == "bytes_over_time" { record.text.len() as f64 } else { 1.0 };
            *want.entry((pairs.collect(), at(step) / 1_000_000)).or_default() += amount;
        }
    }
    let seconds = if op == "rate" { range_ns as f64 / 1e9 } else { 1.0 };
    want.values_mut().for_each(|value| *value /= seconds);
    let is_close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
    let is_same = found.len() == want.len()
        && found.iter().zip(&want).all(|((a, value), (b, wanted))| a == b && is_close(*value, *wanted));
    if is_same { Ok(want.len()) } else { Err(format!("{text}\nis {found:?}\nand should be {want:?}")) }
}
