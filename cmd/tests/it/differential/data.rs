//! Samples for whatever expressions ask for: series that satisfy their selectors, with the labels by which
//! they group and match.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use binnacle_collector::intake::encode_write_request;
use binnacle_model::histogram::Histogram;
use binnacle_model::prompb::TimeSeries;
use binnacle_model::storage::HistogramSample;
use binnacle_model::{Labels, MatchOp, Matcher, STALE_NAN, Sample, Samples, Timestamp};
use binnacle_query::promql::{parse, tree};
use prost::Message;
use serde_json::Value;

use super::generate::{NATIVE, Random};
use crate::support::client;

const INTERVAL_MS: i64 = 30_000;
const SAMPLES: i64 = 80;
/// Of each selector.
const VARIANTS: usize = 2;
const BOUNDS: [&str; 5] = ["0.1", "0.5", "1", "5", "+Inf"];
const SERIES_PER_BODY: usize = 500;

pub(super) type Data = BTreeMap<Labels, Vec<Sample>>;

/// A moment, in seconds, shortly before the last sample.
pub(super) fn last_step(now_ms: i64) -> i64 {
    (now_ms / 60_000 - 2) * 60
}

/// What the expressions select, and a little more.
pub(super) fn series(expressions: &[String], now_ms: i64) -> Data {
    let mut all = Data::new();
    for text in expressions {
        let Ok(expr) = parse(text) else { continue };
        let (mut selectors, mut names) = (Vec::new(), BTreeSet::new());
        walk(&tree(&expr), &mut selectors, &mut names);
        let is_native = |one: &&Vec<Matcher>| one.iter().any(|matcher| matcher.value == NATIVE);
        for matchers in selectors.iter().filter(|one| !is_native(one)) {
            for variant in 0..VARIANTS {
                let Some(base) = labels(matchers, &names, variant) else { continue };
                add(&mut all, &base, names.contains("le"), variant, now_ms);
            }
        }
    }
    all
}

/// Selectors, and labels by which something is grouped or matched, of a syntax tree.
fn walk(node: &Value, selectors: &mut Vec<Vec<Matcher>>, names: &mut BTreeSet<String>) {
    match node {
        Value::Array(all) => all.iter().for_each(|one| walk(one, selectors, names)),
        Value::Object(parts) => {
            if let Some(Value::Array(matchers)) = parts.get("matchers") {
                selectors.push(matchers.iter().filter_map(matcher).collect());
            }
            for key in ["grouping", "labels", "include"] {
                let listed = parts.get(key).and_then(Value::as_array).into_iter().flatten();
                names.extend(listed.filter_map(|name| name.as_str().map(str::to_owned)));
            }
            parts.values().for_each(|part| walk(part, selectors, names));
        }
        _ => {}
    }
}

fn matcher(node: &Value) -> Option<Matcher> {
    let op = match node["type"].as_str()? {
        "=" => MatchOp::Equal,
        "!=" => MatchOp::NotEqual,
        "=~" => MatchOp::Regex,
        _ => MatchOp::NotRegex,
    };
    Matcher::new(node["name"].as_str()?, op, node["value"].as_str()?).ok()
}

/// Labels that satisfy the matchers, if a simple guess does.
fn labels(matchers: &[Matcher], names: &BTreeSet<String>, variant: usize) -> Option<Labels> {
    let mut pairs: BTreeMap<&str, String> = BTreeMap::new();
    for matcher in matchers {
        let own = format!("{}-{variant}", matcher.name);
        let literals = matcher.literals().unwrap_or_default();
        let literal = literals.get(variant % literals.len().max(1)).cloned();
        let words = ["x", "200", "500", "GET", "running", "1", "a/b"].map(str::to_owned);
        let guesses = literal.into_iter().chain([own]).chain(words);
        let value = guesses.into_iter().find(|guess| matcher.matches(guess));
        pairs.entry(&matcher.name).or_insert(value.unwrap_or_default());
    }
    for name in names.iter().filter(|name| !matches!(name.as_str(), "le" | "__name__")) {
        // Some labels tell the variants apart, and some are the same for all.
        let is_apart = hash(name).is_multiple_of(2);
        pairs.entry(name).or_insert(if is_apart { format!("{name}-{variant}") } else { "same".to_owned() });
    }
    pairs.entry("__name__").or_insert("some_metric".to_owned());
    pairs.entry("instance").or_insert(format!("host-{variant}"));
    let labels = Labels::new(pairs.into_iter().filter(|(_, value)| !value.is_empty())).ok()?;
    (!labels.metric_name().is_empty()).then_some(labels)
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn add(all: &mut Data, base: &Labels, wants_le: bool, variant: usize, now_ms: i64) {
    let name = base.metric_name();
    let is_classic = base.get("le").is_none() && (name.ends_with("_bucket") || wants_le);
    if !is_classic {
        let samples = || samples(base, variant, now_ms, 1.0);
        all.entry(base.clone()).or_insert_with(samples);
        return;
    }
    for (at, bound) in BOUNDS.into_iter().enumerate() {
        // The larger the bound, the faster the count grows, from the same random numbers.
        let samples = || samples(base, variant, now_ms, (at + 1) as f64);
        all.entry(base.with("le", bound)).or_insert_with(samples);
    }
}

fn samples(labels: &Labels, variant: usize, now_ms: i64, weight: f64) -> Vec<Sample> {
    let name = labels.metric_name();
    let is_counter = ["_total", "_count", "_sum", "_bucket"].iter().any(|ending| name.ends_with(ending));
    let mut random = Random::new(hash(labels));
    let begins = now_ms / INTERVAL_MS * INTERVAL_MS - SAMPLES * INTERVAL_MS;
    let jitter = hash(&variant) as i64 & 0x3fff;
    // A few series have holes, and a few end.
    let (holes, ends) = (random.below(8) == 0, random.below(10) == 0);
    let mut value = (random.below(1000) as f64) / 10.0 * weight;
    let mut found = Vec::new();
    for at in 0..SAMPLES {
        let (step, kind) = (random.below(500) as f64, random.below(120));
        value = match (is_counter, kind) {
            (true, 0) => 0.0,
            (true, _) => value + (step / 100.0).floor() * weight,
            (false, _) => value + (step - 250.0) / 100.0,
        };
        if holes && random.below(3) == 0 {
            continue;
        }
        let timestamp = Timestamp(begins + at * INTERVAL_MS + jitter);
        if ends && at > SAMPLES * 3 / 4 {
            found.push(Sample { timestamp, value: STALE_NAN });
            break;
        }
        found.push(Sample { timestamp, value });
    }
    found
}

/// A remote write of series with histograms.
#[derive(Clone, PartialEq, Message)]
struct NativeRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

/// A body of native histograms, of several schemas, that count up and now and then begin again.
fn natives(now_ms: i64) -> Vec<u8> {
    let begins = now_ms / INTERVAL_MS * INTERVAL_MS - SAMPLES * INTERVAL_MS;
    let mut request = NativeRequest::default();
    for number in 0..12u64 {
        let mut random = Random::new(number);
        let (job, zone) = (["api", "web", "db"][number as usize % 3], format!("zone-{}", number / 3 % 2));
        let instance = format!("host-{number}");
        let pairs = [("__name__", NATIVE), ("job", job), ("zone", &zone), ("instance", &instance)];
        let mut buckets = BTreeMap::from([(3, 1.0)]);
        // Few rates reach back to a count of nothing.
        let (mut sum, mut zeros) = (0.0, 40.0);
        let histograms = (0..SAMPLES).map(|at| {
            if random.below(60) == 0 {
                // Of a histogram without buckets Prometheus may have empty ones, by what else is in its chunk.
                buckets = BTreeMap::from([(3, 1.0)]);
                (sum, zeros) = (0.0, 40.0);
            }
            for _ in 0..random.below(9) {
                *buckets.entry(random.below(24) as i32).or_default() += random.below(5) as f64;
                sum += random.below(1000) as f64 / 64.0;
                zeros += random.below(2) as f64;
            }
            let mut one = Histogram {
                schema: number as i32 % 4 - 1,
                zero_threshold: 0.001,
                zero_count: zeros,
                count: buckets.values().sum::<f64>() + zeros,
                sum,
                positive: buckets.iter().map(|(at, count)| (*at, *count)).collect(),
                ..Histogram::default()
            };
            if number == 11 {
                // As somebody who calculated would send it.
                one.scale(0.75);
            }
            let timestamp = Timestamp(begins + at * INTERVAL_MS + number as i64);
            HistogramSample { timestamp, histogram: Arc::new(one) }
        });
        let histograms: Vec<HistogramSample> = histograms.collect();
        request.series.push(TimeSeries::new(&Labels::new(pairs).unwrap(), &Samples::default(), &histograms));
    }
    request.encode_to_vec()
}

/// Sends all of it to each server.
pub(super) async fn send(all: &Data, now_ms: i64, servers: &[&str]) {
    let series: Vec<(&Labels, &[Sample])> = all.iter().map(|(labels, one)| (labels, &one[..])).collect();
    let bodies = series.chunks(SERIES_PER_BODY).map(|part| encode_write_request(part.iter().copied()));
    for body in bodies.chain([natives(now_ms)]) {
        let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        for server in servers {
            let request = client()
                .post(format!("{server}/api/v1/write"))
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy")
                .header("x-prometheus-remote-write-version", "0.1.0");
            let answer = request.body(body.clone()).send().await.unwrap();
            let status = answer.status();
            assert!(status.is_success(), "{server}: {status} {}", answer.text().await.unwrap());
        }
    }
}
