//! Remote write 2.0: texts stand once in a table, and series name them by number.
//!
//! ```text
//! Request     4: symbols text*    5: TimeSeries*
//! TimeSeries  1: labels_refs uint32*, name and value in turn    2: Sample*   3: Histogram*
//!             4: Exemplar*      5: Metadata
//! Exemplar    1: labels_refs uint32*    2: value double    3: timestamp int64 (ms)
//! Metadata    1: type enum    3: help_ref    4: unit_ref
//! ```
//!
//! Field numbers are those of Prometheus's `prompb/io/prometheus/write/v2/types.proto`. Samples and
//! histograms are as in 1.0. Numbers of symbols mean something in one body only, so that each series
//! gets the label bytes that it would have in 1.0, and with them the same identity in the store.

use std::borrow::Cow;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::storage::Metadata;
use binnacle_model::{Sample, Timestamp};

use super::remote_write::{MAX_METADATA, MAX_SERIES, Parts, WriteRequest, exemplar_labels, kind_name};
use super::wire::{Field, Fields, WireError, put_bytes};

/// Texts of one body.
const MAX_SYMBOLS: usize = 1_000_000;

/// Names and values of one series' labels.
const MAX_REFS: usize = 10_000;

/// All label bytes and descriptions of one body, written out. A short body could name a long text very
/// often.
const MAX_LABEL_BYTES: usize = 128 * 1024 * 1024;

/// Walks a decompressed body.
pub fn write_request_v2(body: &[u8]) -> Result<WriteRequest<'_>, WireError> {
    let symbols = symbols(body)?;
    let mut request = WriteRequest::default();
    let mut room = MAX_LABEL_BYTES;
    let mut fields = Fields::new(body, 0);
    while let Some(field) = fields.next()? {
        if let (5, Some(bytes)) = (field.number, field.bytes) {
            if request.series.len() >= MAX_SERIES {
                return fields.fail("more than 200,000 series in one body");
            }
            time_series(bytes, field.at, &symbols, &mut room, &mut request)?;
        }
    }
    Ok(request)
}

/// The table. It may stand behind series that name its texts.
fn symbols(body: &[u8]) -> Result<Vec<&[u8]>, WireError> {
    let mut symbols = Vec::new();
    let mut fields = Fields::new(body, 0);
    while let Some(field) = fields.next()? {
        if let (4, Some(bytes)) = (field.number, field.bytes) {
            if symbols.len() >= MAX_SYMBOLS {
                return fields.fail("more than a million symbols in one body");
            }
            symbols.push(bytes);
        }
    }
    Ok(symbols)
}

fn time_series<'a>(
    body: &'a [u8],
    at: usize,
    symbols: &[&'a [u8]],
    room: &mut usize,
    request: &mut WriteRequest<'a>,
) -> Result<(), WireError> {
    let mut parts = Parts::begin(request);
    let mut refs = Vec::new();
    let mut described = None;
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next()? {
        match (field.number, field.bytes) {
            (1, _) => numbers(&field, &mut refs)?,
            (2, Some(bytes)) => request.push_sample(bytes, field.at)?,
            (3, Some(bytes)) => request.push_histogram(bytes, field.at)?,
            (4, Some(bytes)) => exemplar(bytes, field.at, symbols, request)?,
            (5, Some(bytes)) => described = Some(metadata(bytes, field.at, symbols)?),
            _ => {}
        }
    }
    let mut labels = Vec::new();
    let mut pair = Vec::new();
    let mut name: &[u8] = &[];
    let (pairs, odd) = refs.as_chunks::<2>();
    if !odd.is_empty() {
        return fields.fail("a label name without a value");
    }
    for [name_ref, value_ref] in pairs {
        let (Some(label), Some(value)) = (symbol(symbols, *name_ref), symbol(symbols, *value_ref)) else {
            return fields.fail("a label names a symbol that is not there");
        };
        pair.clear();
        put_bytes(&mut pair, 1, label);
        put_bytes(&mut pair, 2, value);
        let Some(left) = room.checked_sub(pair.len()) else {
            return fields.fail("labels of more than 128 MiB in one body");
        };
        *room = left;
        put_bytes(&mut labels, 1, &pair);
        if label == METRIC_NAME.as_bytes() {
            name = value;
        }
    }
    if let Some(described) = described {
        describe(name, &described, room, request);
    }
    parts.labels = Cow::Owned(labels);
    parts.end(request);
    Ok(())
}

fn exemplar(
    body: &[u8],
    at: usize,
    symbols: &[&[u8]],
    request: &mut WriteRequest<'_>,
) -> Result<(), WireError> {
    let mut refs = Vec::new();
    let mut sample = Sample { timestamp: Timestamp(0), value: 0.0 };
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => numbers(&field, &mut refs)?,
            2 => sample.value = f64::from_bits(field.number_value),
            3 => sample.timestamp = Timestamp(field.number_value as i64),
            _ => {}
        }
    }
    let text = |number: u64| std::str::from_utf8(symbol(symbols, number)?).ok();
    let (pairs, _) = refs.as_chunks::<2>();
    let pairs: Option<Vec<(&str, &str)>> =
        pairs.iter().map(|[name, value]| Some((text(*name)?, text(*value)?))).collect();
    let Some(pairs) = pairs else { return fields.fail("an exemplar names a symbol that is not there") };
    request.push_exemplar(exemplar_labels(pairs.into_iter()), sample, at)
}

fn symbol<'a>(symbols: &[&'a [u8]], number: u64) -> Option<&'a [u8]> {
    symbols.get(usize::try_from(number).ok()?).copied()
}

/// Packed, or one by one.
fn numbers(field: &Field<'_>, out: &mut Vec<u64>) -> Result<(), WireError> {
    let mut packed = Fields::new(field.bytes.unwrap_or_default(), field.at);
    let mut push = |number| {
        out.push(number);
        if out.len() > MAX_REFS {
            return Err(WireError { at: field.at, reason: "a series has more than 5,000 labels" });
        }
        Ok(())
    };
    if field.bytes.is_none() {
        return push(field.number_value);
    }
    while packed.position < packed.body.len() {
        push(packed.varint()?)?;
    }
    Ok(())
}

/// What a series says of its metric, not yet copied.
struct Described<'a> {
    kind: &'static str,
    help: &'a [u8],
    unit: &'a [u8],
}

fn metadata<'a>(body: &[u8], at: usize, symbols: &[&'a [u8]]) -> Result<Described<'a>, WireError> {
    let mut described = Described { kind: "unknown", help: &[], unit: &[] };
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next()? {
        let place = match field.number {
            1 => {
                described.kind = kind_name(field.number_value);
                continue;
            }
            3 => &mut described.help,
            4 => &mut described.unit,
            _ => continue,
        };
        let Some(text) = symbol(symbols, field.number_value) else {
            return fields.fail("a description names a symbol that is not there");
        };
        *place = text;
    }
    Ok(described)
}

/// Every series of a metric says the same of it, mostly one after the other.
fn describe(name: &[u8], described: &Described<'_>, room: &mut usize, request: &mut WriteRequest<'_>) {
    let is_empty = described.kind == "unknown" && described.help.is_empty() && described.unit.is_empty();
    let Ok(mut family) = std::str::from_utf8(name) else { return };
    if is_empty || family.is_empty() || request.metadata.len() >= MAX_METADATA {
        return;
    }
    if matches!(described.kind, "histogram" | "gaugehistogram" | "summary") {
        let endings = ["_bucket", "_count", "_sum"];
        family = endings.iter().find_map(|ending| family.strip_suffix(ending)).unwrap_or(family);
    }
    let is_known = request.metadata.last().is_some_and(|(last, known)| {
        last == family
            && known.kind == described.kind
            && known.help.as_bytes() == described.help
            && known.unit.as_bytes() == described.unit
    });
    // Descriptions are a courtesy: where there is no room, the samples are kept without them.
    if let (false, Some(left)) = (is_known, room.checked_sub(described.help.len() + described.unit.len())) {
        *room = left;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (kind, help, unit) = (described.kind.to_owned(), text(described.help), text(described.unit));
        request.metadata.push((family.to_owned(), Metadata { kind, help, unit }));
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::storage::SeriesDecoder;
    use proptest::prelude::*;

    use super::super::remote_write::{WireLabels, encode_write_request, write_request};
    use super::super::wire::put_varint;
    use super::*;

    const SYMBOLS: [&str; 6] = ["", "__name__", "lat_bucket", "job", "a", "How long it takes."];

    fn body(symbols: &[&str], series: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        // Behind the series, which is legal.
        series.iter().for_each(|one| put_bytes(&mut out, 5, one));
        symbols.iter().for_each(|symbol| put_bytes(&mut out, 4, symbol.as_bytes()));
        out
    }

    fn series(refs: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, refs);
        let mut sample = vec![1 << 3 | 1];
        sample.extend_from_slice(&1.5f64.to_bits().to_le_bytes());
        sample.push(2 << 3);
        put_varint(&mut sample, 1000);
        put_bytes(&mut out, 2, &sample);
        put_bytes(&mut out, 5, &[1 << 3, 3, 3 << 3, 5]);
        out
    }

    #[test]
    fn a_series_is_the_same_as_in_1_0() {
        let body = body(&SYMBOLS, &[series(&[1, 2, 3, 4]), series(&[1, 2, 3, 4])]);
        let request = write_request_v2(&body).unwrap();
        let batch = request.batch();
        assert_eq!(batch.len(), 2);
        assert_eq!((batch[0].samples[0].timestamp, batch[0].samples[0].value), (Timestamp(1000), 1.5));
        let labels = WireLabels.decode(batch[0].labels).unwrap();
        assert_eq!(labels.to_string(), "lat_bucket{job=\"a\"}");
        let old = encode_write_request([(&labels, batch[0].samples)]);
        assert_eq!(write_request(&old).unwrap().batch()[0].labels, batch[0].labels);
        let described =
            Metadata { kind: "histogram".into(), help: "How long it takes.".into(), unit: String::new() };
        assert_eq!(request.metadata, [("lat".to_owned(), described)]);
    }

    #[test]
    fn exemplars_are_kept_with_short_labels_only() {
        let long = "x".repeat(600);
        let symbols = [&SYMBOLS[..], &[&long, "trace_id"]].concat();
        let exemplar = |refs: &[u8]| {
            let mut out = Vec::new();
            put_bytes(&mut out, 1, refs);
            out.extend([3 << 3, 9]);
            out
        };
        let mut one = series(&[1, 2]);
        for refs in [[7u8, 4], [6, 4], [7, 6]] {
            put_bytes(&mut one, 4, &exemplar(&refs));
        }
        let body = body(&symbols, &[one]);
        let request = write_request_v2(&body).unwrap();
        let found: Vec<String> =
            request.exemplars().iter().map(|one| one.exemplar.labels.to_string()).collect();
        assert_eq!(found, ["{trace_id=\"a\"}"]);
    }

    #[test]
    fn references_must_lead_somewhere() {
        let error = |body: &[u8]| write_request_v2(body).unwrap_err().to_string();
        assert!(error(&body(&SYMBOLS, &[series(&[1, 99])])).contains("symbol that is not there"));
        assert!(error(&body(&SYMBOLS, &[series(&[1, 2, 3])])).contains("name without a value"));
        assert!(error(&body(&SYMBOLS[..5], &[series(&[1, 2])])).contains("description names a symbol"));
    }

    #[test]
    fn a_short_body_cannot_grow_without_bound() {
        let long = "x".repeat(1 << 20);
        let refs = [1, 6].repeat(200);
        let body = body(&[&SYMBOLS[..], &[&long]].concat(), &[series(&refs)]);
        let error = write_request_v2(&body).unwrap_err();
        assert!(error.to_string().contains("128 MiB"));
    }

    #[test]
    fn references_one_by_one_are_bounded_too() {
        let error = |one: Vec<u8>| write_request_v2(&body(&SYMBOLS, &[one])).unwrap_err().to_string();
        let refs = [1 << 3, 1].repeat(MAX_REFS + 1);
        assert!(error(refs.clone()).contains("more than 5,000 labels"));
        let mut exemplar = Vec::new();
        put_bytes(&mut exemplar, 4, &refs);
        assert!(error(exemplar).contains("more than 5,000 labels"));
    }

    #[test]
    fn many_empty_samples_and_long_descriptions_are_bounded() {
        let mut one = Vec::new();
        (0..1_000_001).for_each(|_| put_bytes(&mut one, 2, &[]));
        assert!(write_request_v2(&body(&[], &[one])).unwrap_err().to_string().contains("million samples"));
        let mut one = Vec::new();
        (0..100_000).for_each(|_| put_bytes(&mut one, 3, &[]));
        assert!(write_request_v2(&body(&[], &[one])).unwrap_err().to_string().contains("million samples"));
        let long = "x".repeat(60 << 20);
        let names: Vec<String> = (0..5).map(|at| format!("m{at}")).collect();
        let mut symbols = vec!["", "__name__", &long];
        symbols.extend(names.iter().map(String::as_str));
        let all: Vec<Vec<u8>> = (3..8)
            .map(|at| {
                let mut one = Vec::new();
                put_bytes(&mut one, 1, &[1, at]);
                put_bytes(&mut one, 5, &[3 << 3, 2]);
                one
            })
            .collect();
        let body = body(&symbols, &all);
        assert_eq!(write_request_v2(&body).unwrap().metadata.len(), 2);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = write_request_v2(&body);
        }
    }
}
