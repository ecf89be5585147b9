use prost::Message;

use super::*;

/// The messages as another implementation writes them.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ExemplarOf {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Pair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, tag = "3")]
    timestamp: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Simple {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, tag = "2")]
    exemplar: Option<ExemplarOf>,
}

#[derive(Clone, PartialEq, Message)]
struct QuantileOf {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryOf {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<QuantileOf>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketOf {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    upper: f64,
    #[prost(message, tag = "3")]
    exemplar: Option<ExemplarOf>,
}

#[derive(Clone, PartialEq, Message)]
struct SpanOf {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramOf {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<BucketOf>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<SpanOf>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<ExemplarOf>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricOf {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Pair>,
    #[prost(message, tag = "2")]
    gauge: Option<Simple>,
    #[prost(message, tag = "3")]
    counter: Option<Simple>,
    #[prost(message, tag = "4")]
    summary: Option<SummaryOf>,
    #[prost(int64, tag = "6")]
    timestamp_ms: i64,
    #[prost(message, tag = "7")]
    histogram: Option<HistogramOf>,
}

#[derive(Clone, PartialEq, Message)]
struct FamilyOf {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<MetricOf>,
    #[prost(string, tag = "5")]
    unit: String,
}

fn pair(name: &str, value: &str) -> Pair {
    Pair { name: name.to_owned(), value: value.to_owned() }
}

fn exemplar(trace: &str, at: Option<i64>) -> ExemplarOf {
    ExemplarOf {
        label: vec![pair("trace_id", trace)],
        value: 0.5,
        timestamp: at.map(|seconds| Time { seconds, nanos: 5_000_000 }),
    }
}

fn family(name: &str, kind: u64, metric: MetricOf) -> FamilyOf {
    FamilyOf {
        name: name.to_owned(),
        help: "Text.".to_owned(),
        kind: kind as i32,
        metric: vec![metric],
        unit: String::new(),
    }
}

fn page(families: &[FamilyOf]) -> Vec<u8> {
    families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

fn rows(page: &[u8], wanted: Wanted) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    parse(page, wanted, |entry| {
        let Entry::Row { series, value, timestamp, exemplars } = entry else { return };
        let pairs = decode(series).unwrap();
        let shown: Vec<String> = pairs[1..].iter().map(|(name, value)| format!("{name}={value}")).collect();
        let value = match value {
            RowValue::Float(value) => value.to_string(),
            RowValue::Histogram(histogram) => histogram.to_string(),
        };
        let time = timestamp.map_or_else(String::new, |time| format!(" @{}", time.0));
        let traces: Vec<String> = exemplars
            .iter()
            .map(|one| decode_exemplar(one).unwrap())
            .map(|(pairs, value, at)| format!(" {}:{value}:{:?}", pairs[0].1, at.map(|at| at.0)))
            .collect();
        found.push(format!("{}{{{}}} {value}{time}{}", pairs[0].1, shown.join(","), traces.concat()));
    })
    .map_err(|error| error.to_string())?;
    Ok(found)
}

fn both() -> HistogramOf {
    let bucket = |upper, count| BucketOf { count, upper, exemplar: Some(exemplar("b", None)) };
    HistogramOf {
        count: 5,
        sum: 9.0,
        bucket: vec![bucket(0.5, 1), bucket(1.0, 3)],
        zero_threshold: 0.001,
        zero_count: 1,
        positive_span: vec![SpanOf { offset: 0, length: 2 }, SpanOf { offset: 1, length: 1 }],
        positive_delta: vec![1, 1, -1],
        exemplars: vec![exemplar("a", Some(7))],
        ..HistogramOf::default()
    }
}

#[test]
fn families_become_rows_as_in_prometheus() {
    let label = vec![pair("code", "200")];
    let counter = Simple { value: 4.0, exemplar: Some(exemplar("c", Some(1))) };
    let counter =
        MetricOf { label: label.clone(), counter: Some(counter), timestamp_ms: 9, ..MetricOf::default() };
    let quantile =
        vec![QuantileOf { quantile: 0.5, value: 2.0 }, QuantileOf { quantile: 1.0, value: f64::NAN }];
    let summary =
        MetricOf { summary: Some(SummaryOf { count: 2, sum: 3.5, quantile }), ..MetricOf::default() };
    let histogram = MetricOf { label, histogram: Some(both()), ..MetricOf::default() };
    let all = page(&[
        family("hits_total", COUNTER, counter),
        family("s", SUMMARY, summary),
        family("h", HISTOGRAM, histogram),
        FamilyOf { name: "empty".to_owned(), ..FamilyOf::default() },
    ]);
    let first = [
        "hits_total{code=200} 4 @9 c:0.5:Some(1005)",
        "s_count{} 2",
        "s_sum{} 3.5",
        "s{quantile=0.5} 2",
        "s{quantile=1.0} NaN",
    ];
    let classic = [
        "h_count{code=200} 5",
        "h_sum{code=200} 9",
        "h_bucket{code=200,le=0.5} 1 b:0.5:None",
        "h_bucket{code=200,le=1.0} 3 b:0.5:None",
        "h_bucket{code=200,le=+Inf} 5",
    ];
    let native =
        ["h{code=200} {count:5, sum:9, [-0.001,0.001]:1, (0.5,1]:1, (1,2]:2, (4,8]:1} a:0.5:Some(7005)"];
    let want = |parts: &[&[&str]]| parts.concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let (no, yes) = (Wanted::default(), Wanted { native: true, classic: false });
    assert_eq!(rows(&all, no).unwrap(), want(&[&first, &classic]));
    assert_eq!(rows(&all, yes).unwrap(), want(&[&first, &native]));
    let too = Wanted { native: true, classic: true };
    assert_eq!(rows(&all, too).unwrap(), want(&[&first, &native, &classic]));
}

#[test]
fn what_is_no_page_is_refused_with_a_place() {
    let metric = || MetricOf { gauge: Some(Simple::default()), ..MetricOf::default() };
    let good = page(&[family("a", GAUGE, metric())]);
    let error = |bytes: &[u8]| rows(bytes, Wanted { native: true, classic: true }).unwrap_err();
    assert_eq!(error(&good[..good.len() - 1]), "byte 1: a length leads past the end");
    assert!(error(&[0xff; 11]).contains("too long"));
    assert!(error(&page(&[family("", GAUGE, metric())])).contains("no name"));
    assert!(error(&page(&[family("a", 9, metric())])).contains("unknown metric type"));
    let unit = |name: &str, kind| FamilyOf { unit: "seconds".to_owned(), ..family(name, kind, metric()) };
    assert!(error(&page(&[unit("a", GAUGE)])).contains("no suffix"));
    assert!(rows(&page(&[unit("a_seconds_total", COUNTER)]), Wanted::default()).is_ok());
    let endless = HistogramOf { positive_span: vec![SpanOf { offset: 0, length: u32::MAX }], ..both() };
    let endless = MetricOf { histogram: Some(endless), ..MetricOf::default() };
    assert!(error(&page(&[family("h", HISTOGRAM, endless)])).contains("lacks buckets"));
}

proptest::proptest! {
    /// Whatever comes, nothing panics, and each series that is shown can be decoded or is refused.
    #[test]
    fn torn_pages_never_panic(cut in 0usize..400, flip in 0usize..400, with in proptest::num::u8::ANY) {
        let histogram = MetricOf { label: vec![pair("a", "b")], histogram: Some(both()), ..MetricOf::default() };
        let mut bytes = page(&[family("h", HISTOGRAM, histogram.clone()), family("i", HISTOGRAM, histogram)]);
        let flip = flip % bytes.len();
        bytes[flip] ^= with;
        bytes.truncate(bytes.len().saturating_sub(cut));
        let _ = parse(&bytes, Wanted { native: true, classic: true }, |entry| {
            if let Entry::Row { series, exemplars, .. } = entry {
                let _ = decode(series);
                exemplars.iter().for_each(|one| drop(decode_exemplar(one)));
            }
        });
    }
}
