//! Requests as an OpenTelemetry SDK sends them, in both encodings.

use std::collections::BTreeSet;

use binnacle_model::Timestamp;
use binnacle_model::storage::SeriesDecoder;

use super::convert::OneSeries;
use super::message::{
    AnyValue, Buckets, Exemplar, ExponentialHistogram, ExponentialPoint, Gauge, Histogram, HistogramPoint,
    KeyValue, Metric, NumberPoint, Quantile, Request, Resource, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryPoint,
};
use super::*;

const NOW_NS: u64 = 1_700_000_000_123_000_000;

fn converted_of(request: &message::Request) -> Converted {
    convert(request, &Arc::default())
}

fn pair(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { string_value: Some(value.to_owned()), ..AnyValue::default() };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn number(value: f64) -> NumberPoint {
    NumberPoint {
        time_unix_nano: NOW_NS,
        as_double: Some(value),
        attributes: vec![pair("http.method", "GET")],
        ..NumberPoint::default()
    }
}

fn request(metrics: Vec<Metric>) -> Request {
    let attributes = vec![
        pair("service.name", "cart"),
        pair("service.namespace", "shop"),
        pair("service.instance.id", "cart-1"),
        pair("k8s.pod.name", "cart-1-x"),
    ];
    Request {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes }),
            scope_metrics: vec![ScopeMetrics { metrics }],
        }],
    }
}

/// Series as text with their value, or the number of observations of a native histogram.
fn shown(series: &[OneSeries]) -> Vec<(String, f64)> {
    let show = |one: &OneSeries| {
        let labels = WireLabels.decode(&one.labels).unwrap().to_string();
        let labels = labels.replace(r#", instance="cart-1""#, "").replace(r#"instance="cart-1", "#, "");
        let value = one.sample.map(|sample| sample.value);
        (
            labels.replace(r#"job="shop/cart""#, "J"),
            value.or(one.histogram.as_ref().map(|h| h.histogram.count)).unwrap(),
        )
    };
    series.iter().map(show).collect()
}

fn texts(converted: &Converted) -> Vec<String> {
    shown(&converted.series).into_iter().map(|(labels, value)| format!("{labels} {value}")).collect()
}

#[test]
fn gauges_and_sums_are_named_and_carry_their_resource() {
    let gauge = Metric {
        name: "queue.depth".into(),
        unit: "{item}".into(),
        description: "How deep.".into(),
        gauge: Some(Gauge { data_points: vec![number(7.5)] }),
        ..Metric::default()
    };
    let mut point = number(0.0);
    (point.as_double, point.as_int) = (None, Some(3));
    point.exemplars = vec![Exemplar {
        time_unix_nano: NOW_NS,
        as_int: Some(1),
        trace_id: vec![0xab, 0x01],
        ..Exemplar::default()
    }];
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let sum = Metric { name: "requests".into(), sum: Some(sum), ..Metric::default() };
    let converted = converted_of(&request(vec![gauge, sum]));
    assert_eq!(
        texts(&converted),
        [
            r#"queue_depth{http_method="GET", J} 7.5"#,
            r#"requests_total{http_method="GET", J} 3"#,
            r#"target_info{J, k8s_pod_name="cart-1-x"} 1"#,
        ]
    );
    assert_eq!(converted.series[0].sample.unwrap().timestamp, Timestamp(1_700_000_000_123));
    assert_eq!(converted.series[1].exemplars[0].labels.to_string(), r#"{trace_id="ab01"}"#);
    let (name, described) = &converted.metadata[0];
    assert_eq!((&**name, &*described.kind, &*described.help), ("queue_depth", "gauge", "How deep."));
}

#[test]
fn explicit_histograms_and_summaries_become_classic_series() {
    let point = HistogramPoint {
        time_unix_nano: NOW_NS,
        count: 6,
        sum: Some(9.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.5, 1.0],
        exemplars: vec![Exemplar { as_double: Some(0.7), ..Exemplar::default() }],
        ..HistogramPoint::default()
    };
    let histogram = Histogram { data_points: vec![point], aggregation_temporality: 2 };
    let histogram =
        Metric { name: "lat".into(), unit: "s".into(), histogram: Some(histogram), ..Metric::default() };
    let point = SummaryPoint {
        time_unix_nano: NOW_NS,
        count: 2,
        sum: 3.0,
        quantile_values: vec![Quantile { quantile: 0.5, value: 1.25 }],
        ..SummaryPoint::default()
    };
    let summary =
        Metric { name: "s".into(), summary: Some(Summary { data_points: vec![point] }), ..Metric::default() };
    let converted = converted_of(&request(vec![histogram, summary]));
    assert_eq!(
        texts(&converted)[..8],
        [
            "lat_seconds_sum{J} 9.5",
            "lat_seconds_count{J} 6",
            r#"lat_seconds_bucket{J, le="0.5"} 1"#,
            r#"lat_seconds_bucket{J, le="1"} 3"#,
            r#"lat_seconds_bucket{J, le="+Inf"} 6"#,
            "s_sum{J} 3",
            "s_count{J} 2",
            r#"s{J, quantile="0.5"} 1.25"#,
        ]
    );
    assert_eq!(converted.series[3].exemplars.len(), 1, "beside the bucket it fell into");
}

#[test]
fn exponential_histograms_become_native_ones() {
    let buckets = |offset, counts: &[u64]| Some(Buckets { offset, bucket_counts: counts.to_vec() });
    let convert_one = |scale, positive| {
        let point = ExponentialPoint {
            time_unix_nano: NOW_NS,
            count: 7,
            sum: Some(20.0),
            scale,
            zero_count: 1,
            positive,
            ..ExponentialPoint::default()
        };
        let data = ExponentialHistogram { data_points: vec![point], aggregation_temporality: 2 };
        converted_of(&request(vec![Metric {
            name: "e".into(),
            exponential_histogram: Some(data),
            ..Metric::default()
        }]))
    };
    let converted = convert_one(1, buckets(-1, &[1, 2, 3]));
    let native = &converted.series[0].histogram.as_ref().unwrap().histogram;
    // OpenTelemetry's bucket 0 ends where Prometheus's bucket 1 does.
    assert_eq!(native.positive.iter().collect::<Vec<_>>(), [(0, 1.0), (1, 2.0), (2, 3.0)]);
    assert_eq!((native.schema, native.zero_count, native.zero_threshold), (1, 1.0, 1e-128));
    // Four buckets of scale 10 make one of scale 8.
    let converted = convert_one(10, buckets(-2, &[1, 1, 1, 1, 1, 1]));
    let native = &converted.series[0].histogram.as_ref().unwrap().histogram;
    assert_eq!((native.schema, native.positive.iter().collect::<Vec<_>>()), (8, vec![(0, 2.0), (1, 4.0)]));
    let converted = convert_one(-5, None);
    assert_eq!(converted.rejected, 1);
    assert!(converted.reason.unwrap().contains("coarser than -4"));
}

#[test]
fn deltas_are_refused_and_the_rest_is_kept() {
    let sum = |temporality| Metric {
        name: format!("m{temporality}"),
        sum: Some(Sum {
            data_points: vec![number(1.0), number(2.0)],
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        ..Metric::default()
    };
    let converted = converted_of(&request(vec![sum(1), sum(2), sum(0)]));
    assert_eq!((converted.series.len(), converted.rejected), (3, 4));
    assert!(converted.reason.unwrap().contains("\"m1\": its temporality is not cumulative"));
}

#[test]
fn what_was_not_recorded_ends_its_series() {
    let point = NumberPoint { flags: 1, ..number(5.0) };
    let metric =
        Metric { name: "g".into(), gauge: Some(Gauge { data_points: vec![point] }), ..Metric::default() };
    let converted = converted_of(&request(vec![metric]));
    assert!(binnacle_model::sample::is_stale(converted.series[0].sample.unwrap().value));
}

#[test]
fn both_encodings_say_the_same() {
    let json = r#"{"resourceMetrics":[{"resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"cart"}},{"key":"n","value":{"intValue":"5"}},
        {"key":"list","value":{"arrayValue":{"values":[{"intValue":1},{"boolValue":true}]}}}]},
        "scopeMetrics":[{"scope":{"name":"x"},"metrics":[{"name":"a.b","unit":"By","gauge":{"dataPoints":[
        {"timeUnixNano":"1700000000123000000","asDouble":1.5,"startTimeUnixNano":"1"}]}}]}]}]}"#;
    let from_json = Encoding::Json.read(json.as_bytes()).unwrap();
    let from_protobuf = Encoding::Protobuf.read(&from_json.encode_to_vec()).unwrap();
    assert_eq!(from_json, from_protobuf);
    let converted = converted_of(&from_json);
    let shown: Vec<String> =
        converted.series.iter().map(|one| WireLabels.decode(&one.labels).unwrap().to_string()).collect();
    assert_eq!(shown, [r#"a_b_bytes{job="cart"}"#, r#"target_info{job="cart", list="[1,true]", n="5"}"#]);
}

#[test]
fn bodies_that_would_grow_are_refused() {
    let mut point = Vec::new();
    (0..1_000_001).for_each(|_| point.extend([7 << 3 | 2, 0]));
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag << 3 | 2];
        super::super::wire::put_varint(&mut out, inner.len() as u64);
        out.extend_from_slice(inner);
        out
    };
    let body = [1u8, 5, 2, 2, 1].iter().fold(point, |inner, tag| wrap(*tag, &inner));
    assert!(
        matches!(Encoding::Protobuf.read(&body), Err(Refusal::Bad(reason)) if reason.contains("messages"))
    );
    let json = format!("{{\"resourceMetrics\":[{}{{}}]}}", "{},".repeat(1_000_001));
    assert!(
        matches!(Encoding::Json.read(json.as_bytes()), Err(Refusal::Bad(reason)) if reason.contains("messages"))
    );
    // What is no message to us may be one to the decoder behind it.
    let group = [&[0x7b, 0x7c][..], &[1 << 3 | 2, 0].repeat(10)].concat();
    assert!(matches!(Encoding::Protobuf.read(&group), Err(Refusal::Bad(_))));
    let deep = (0..70).fold(Vec::new(), |inner, _| wrap(5, &wrap(1, &inner)));
    let deep = [2u8, 7, 1, 5, 2, 2, 1].iter().fold(deep, |inner, tag| wrap(*tag, &inner));
    assert!(matches!(Encoding::Protobuf.read(&deep), Err(Refusal::Bad(reason)) if reason.contains("deep")));
    let bomb = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; OTLP_MAX_BYTES + 1]).unwrap();
        encoder.finish().unwrap()
    };
    assert!(matches!(gunzip(&bomb, OTLP_MAX_BYTES), Err(Refusal::TooLarge(_))));
}

proptest::proptest! {
    #[test]
    fn foreign_bytes_never_panic(body in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..300)) {
        try_read(&body, false);
        try_read(&body, true);
    }
}

#[test]
fn json_may_leave_out_and_quote() {
    let json = r#"{"resourceMetrics":[{"resource":null,"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[
        {"timeUnixNano":"1700000000123000000","asInt":1,"flags":"0","attributes":null,"exemplars":null}]},"sum":null}]}]}]}"#;
    assert_eq!(texts(&converted_of(&Encoding::Json.read(json.as_bytes()).unwrap())), ["a 1"]);
}

#[test]
fn a_point_cannot_become_more_than_its_share() {
    let point = HistogramPoint {
        time_unix_nano: NOW_NS,
        attributes: vec![pair("long", &"x".repeat(60_000))],
        bucket_counts: vec![1; 10_001],
        explicit_bounds: (0..10_000).map(f64::from).collect(),
        ..HistogramPoint::default()
    };
    let histogram = Histogram { data_points: vec![point.clone()], aggregation_temporality: 2 };
    let metric = Metric { name: "h".into(), histogram: Some(histogram), ..Metric::default() };
    let converted = converted_of(&request(vec![metric]));
    assert_eq!((converted.series.len(), converted.rejected), (0, 1));
    assert!(converted.reason.unwrap().contains("128 MiB"));
    let odd = HistogramPoint { explicit_bounds: vec![2.0, 1.0], bucket_counts: vec![1; 3], ..point };
    let histogram = Histogram { data_points: vec![odd], aggregation_temporality: 2 };
    let metric = Metric { name: "h".into(), histogram: Some(histogram), ..Metric::default() };
    assert!(converted_of(&request(vec![metric])).reason.unwrap().contains("do not ascend"));
}

#[test]
fn values_of_attributes_are_written_as_go_does() {
    let double = |value| AnyValue { double_value: Some(value), ..AnyValue::default() };
    let list =
        |values| AnyValue { array_value: Some(super::message::Array { values }), ..AnyValue::default() };
    let map = |pairs: Vec<(&str, AnyValue)>| {
        let values = pairs.into_iter().map(|(key, value)| KeyValue { key: key.into(), value: Some(value) });
        AnyValue {
            kvlist_value: Some(super::message::KeyValues { values: values.collect() }),
            ..AnyValue::default()
        }
    };
    let bytes = AnyValue { bytes_value: Some(vec![1, 2, 255, 4]), ..AnyValue::default() };
    let text = |value: AnyValue| super::convert::value_text(Some(&value));
    assert_eq!(text(double(1.0)), "1");
    assert_eq!(text(list(vec![double(1.0), double(1.5)])), "[1,1.5]");
    assert_eq!(text(map(vec![("b", double(2.0)), ("a", double(1.0))])), r#"{"a":1,"b":2}"#);
    assert_eq!(text(bytes), "AQL/BA==");
}

#[test]
fn a_resource_gives_its_series_what_is_promoted() {
    let json = r#"{"resourceMetrics":[{"resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"shop"}},
        {"key":"k8s.pod.name","value":{"stringValue":"p1"}},
        {"key":"host.name","value":{"stringValue":"h"}}]},
        "scopeMetrics":[{"metrics":[{"name":"a.b","gauge":{"dataPoints":[{"asInt":"1","timeUnixNano":"1"}]}}]}]}]}"#;
    let request = Encoding::Json.read(json.as_bytes()).unwrap();
    let text = |options: OtlpOptions| texts(&convert(&request, &Arc::new(options))).join(" | ");
    let promoted = BTreeSet::from(["k8s.pod.name".to_owned()]);
    let some = OtlpOptions { promote_resource_attributes: promoted.clone(), ..OtlpOptions::default() };
    let shown = text(some);
    assert!(shown.starts_with("a_b{job=\"shop\", k8s_pod_name=\"p1\"} 1"), "{shown}");
    let all = OtlpOptions {
        promote_all_resource_attributes: true,
        ignore_resource_attributes: promoted,
        translation_strategy: TranslationStrategy::NoTranslation,
        ..OtlpOptions::default()
    };
    let shown = text(all);
    assert!(shown.contains("host.name") && shown.contains("a.b") && shown.contains("job"), "{shown}");
    assert!(shown.split(" | ").next().is_some_and(|own| !own.contains("k8s")), "{shown}");
    let keeps = OtlpOptions { keep_identifying_resource_attributes: true, ..OtlpOptions::default() };
    assert!(text(keeps).contains("service_name=\"shop\""));
}
