//! Every call of Grafana's Prometheus data source as Grafana makes it, and the bytes of each answer.

use binnacle_collector::intake::encode_write_request;
use binnacle_model::histogram::Histogram;
use binnacle_model::prompb::{LabelPair, TimeSeries};
use binnacle_model::storage::HistogramSample;
use binnacle_model::{Labels, Sample, Samples, Timestamp};
use prost::Message;

use crate::support::{Server, client};

const FORM: &str = "application/x-www-form-urlencoded";

struct Grafana {
    url: String,
}

impl Grafana {
    /// As the data source posts: everything in a form, with headers that say which panel asks.
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, String) {
        let body: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = client()
            .post(format!("{}{path}", self.url))
            .header("content-type", FORM)
            .header("x-dashboard-uid", "d1")
            .header("x-panel-id", "7")
            .header("x-grafana-org-id", "1")
            .body(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> (u16, String) {
        let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let response = client().get(format!("{}{path}?{query}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

fn ok(body: impl Into<String>) -> (u16, String) {
    (200, body.into())
}

/// Two series with three samples each, 15 s apart, the last one at `end`.
async fn fill(url: &str, end: i64) {
    let labels =
        |job: &str| Labels::new([("__name__", "jobs_total"), ("job", job), ("my.name", "x")]).unwrap();
    let samples = |first: f64| {
        [0, 1, 2]
            .map(|at| Sample { timestamp: Timestamp(end - 30_000 + at * 15_000), value: first + at as f64 })
    };
    let (a, b) = (labels("a"), labels("b"));
    let (of_a, of_b) = (samples(1.0), samples(f64::INFINITY));
    let body = encode_write_request([(&a, &of_a[..]), (&b, &of_b[..])]);
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let response = client().post(format!("{url}/api/v1/write")).body(body).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 204);
}

#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
fn quarter_minute() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() as i64 / 15 * 15
}

#[tokio::test]
async fn queries_and_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let grafana = Grafana { url: server.url.clone() };
    let end = quarter_minute();
    fill(&server.url, end * 1000).await;
    let (start, middle, last) = ((end - 30).to_string(), (end - 15).to_string(), end.to_string());

    // "Save & test".
    let health = grafana.post("/api/v1/query", &[("query", "1+1"), ("time", "4")]).await;
    assert_eq!(health, ok(r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#));
    // A panel: times are floats in seconds, the step is a decimal number of seconds.
    let range = [("query", "jobs_total{job=\"a\"}"), ("start", &*start), ("end", &last), ("step", "15")];
    let found = grafana.post("/api/v1/query_range", &range).await;
    let metric = r#"{"__name__":"jobs_total","job":"a","my.name":"x"}"#;
    assert_eq!(
        found,
        ok(format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{metric},"values":[[{start},"1"],[{middle},"2"],[{last},"3"]]}}]}}}}"#
        ))
    );
    let half = [
        ("query", "sum(jobs_total)"),
        ("start", &*last),
        ("end", &last),
        ("step", "0.5"),
        ("timeout", "60s"),
    ];
    assert_eq!(
        grafana.post("/api/v1/query_range", &half).await,
        ok(format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":[[{last},"+Inf"]]}}]}}}}"#
        ))
    );
    // Explore's instant query, not aligned.
    let moment = format!("{end}.123");
    let instant =
        grafana.post("/api/v1/query", &[("query", "jobs_total{job=\"a\"} * 0.1"), ("time", &moment)]).await;
    assert_eq!(
        instant,
        ok(format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"job":"a","my.name":"x"}},"value":[{moment},"0.30000000000000004"]}}]}}}}"#
        ))
    );
    let infos = grafana.post("/api/v1/query", &[("query", "rate(up[1m])"), ("time", &last)]).await;
    assert_eq!(infos, ok(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#));
    let stats = grafana
        .post("/api/v1/query", &[("query", "sum(jobs_total)"), ("time", &last), ("stats", "all")])
        .await;
    assert!(stats.1.contains(r#""samples":{"totalQueryableSamples":2,"peakSamples":"#), "{stats:?}");
    assert!(stats.1.contains(&format!(r#""totalQueryableSamplesPerStep":[[{last},2]]"#)), "{stats:?}");

    let bad = grafana.post("/api/v1/query", &[("query", "sum("), ("time", "4")]).await;
    let reason = r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"}"#;
    assert_eq!(bad, (400, reason.to_owned()));
    let clash =
        grafana.post("/api/v1/query", &[("query", "jobs_total + on () jobs_total"), ("time", &last)]).await;
    assert_eq!(clash.0, 422);
    assert!(
        clash.1.starts_with(r#"{"status":"error","errorType":"execution","error":"found duplicate series"#),
        "{clash:?}"
    );
    let put = client().put(format!("{}/api/v1/query", server.url)).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 405);
    server.kill();
}

#[tokio::test]
async fn names_metadata_and_probes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let grafana = Grafana { url: server.url.clone() };
    let end = quarter_minute();
    fill(&server.url, end * 1000).await;
    let (start, last) = ((end - 3600).to_string(), end.to_string());
    let times = [("start", &*start), ("end", &*last)];
    let with = |more: &[(&'static str, &'static str)]| {
        let own = times.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        own.chain(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
            .collect::<Vec<_>>()
    };
    let list = |body: &str| ok(format!(r#"{{"status":"success","data":{body}}}"#));
    let calls = [
        ("/api/v1/labels", with(&[("limit", "40000")]), r#"["__name__","job","my.name"]"#),
        ("/api/v1/labels", with(&[("match[]", "{job=\"a\"}")]), r#"["__name__","job","my.name"]"#),
        ("/api/v1/label/job/values", with(&[("limit", "40000")]), r#"["a","b"]"#),
        ("/api/v1/label/__name__/values", with(&[("match[]", "{job=\"b\"}")]), r#"["jobs_total"]"#),
        ("/api/v1/label/U__my_2e_name/values", with(&[]), r#"["x"]"#),
        (
            "/api/v1/series",
            with(&[("match[]", "{__name__!=\"\"}"), ("limit", "40000")]),
            r#"[{"__name__":"jobs_total","job":"a","my.name":"x"},{"__name__":"jobs_total","job":"b","my.name":"x"}]"#,
        ),
        ("/api/v1/metadata", vec![], "{}"),
        ("/api/v1/rules", vec![], r#"{"groups":[]}"#),
        ("/api/v1/alerts", vec![], r#"{"alerts":[]}"#),
        ("/api/v1/query_exemplars", with(&[("query", "jobs_total")]), "[]"),
    ];
    for (path, query, want) in calls {
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(grafana.get(path, &query).await, list(want), "{path} {query:?}");
    }
    for path in ["/api/v1/labels", "/api/v1/series"] {
        let form = [("match[]", "{job=\"a\"}"), ("start", &*start), ("end", &last), ("limit", "1")];
        assert_eq!(grafana.post(path, &form).await.0, 200, "{path} by POST");
    }
    let cut = grafana.get("/api/v1/label/job/values", &[("limit", "1")]).await;
    assert_eq!(cut, ok(r#"{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}"#));
    // The probe at the start has milliseconds.
    let probe = [("query", "test"), ("start", "1700000000000"), ("end", "1700003600000")];
    assert_eq!(grafana.get("/api/v1/query_exemplars", &probe).await, list("[]"));

    // What it is: first by POST, and without a word of features, which would make it Mimir.
    let (status, flavour) = grafana.post("/api/v1/status/buildinfo", &[]).await;
    assert!(
        status == 200 && flavour.contains(r#""version":"3."#) && !flavour.contains("features"),
        "{flavour}"
    );
    assert_eq!(grafana.get("/api/v1/status/flags", &[]).await.0, 200);
    assert_eq!(grafana.get("/api/v1/query", &[("query", "prometheus_build_info")]).await.0, 200);
    server.kill();
}

/// Parts of a write request that only senders make.
#[derive(Clone, PartialEq, Message)]
struct Described {
    #[prost(message, repeated, tag = "1")]
    series: Vec<WithExemplars>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Description>,
}

#[derive(Clone, PartialEq, Message)]
struct WithExemplars {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelPair>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelPair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Description {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    family: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct Write {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

/// A native histogram, a gauge, an exemplar of the counter that is there, and what these are.
async fn fill_more(url: &str, end: i64) {
    let positive = [(0, 2.0), (1, 1.0)].into_iter().collect();
    let histogram = Histogram {
        count: 4.0,
        sum: 3.5,
        zero_threshold: 0.001,
        zero_count: 1.0,
        positive,
        ..Histogram::default()
    };
    let at = [15_000, 0].map(|before| Timestamp(end - before));
    let histograms = at.map(|timestamp| HistogramSample { timestamp, histogram: histogram.clone().into() });
    let labels = |name: &str| Labels::new([("__name__", name), ("job", "a")]).unwrap();
    let floats: Samples = at.map(|timestamp| Sample { timestamp, value: 20.5 }).into_iter().collect();
    let native = TimeSeries::new(&labels("lat"), &Samples::default(), &histograms);
    let gauge = TimeSeries::new(&labels("temp"), &floats, &[]);
    let pair = |name: &str, value: &str| LabelPair { name: name.to_owned(), value: value.to_owned() };
    let exemplar = Exemplar { labels: vec![pair("trace_id", "abc")], value: 1.5, timestamp: end - 500 };
    let counter = WithExemplars {
        labels: vec![pair("__name__", "jobs_total"), pair("job", "a"), pair("my.name", "x")],
        exemplars: vec![exemplar],
    };
    let description = |kind, family: &str, help: &str, unit: &str| Description {
        kind,
        family: family.to_owned(),
        help: help.to_owned(),
        unit: unit.to_owned(),
    };
    let metadata =
        vec![description(1, "jobs_total", "How \"many\".", ""), description(2, "temp", "", "celsius")];
    let described = Described { series: vec![counter], metadata };
    // Of two messages behind one another protobuf makes one.
    let mut body = Write { series: vec![native, gauge] }.encode_to_vec();
    body.extend(described.encode_to_vec());
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let response = client().post(format!("{url}/api/v1/write")).body(body).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 204);
}

#[tokio::test]
async fn histograms_notes_and_what_is_known_of_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let grafana = Grafana { url: server.url.clone() };
    let end = quarter_minute();
    fill(&server.url, end * 1000).await;
    fill_more(&server.url, end * 1000).await;
    let (before, last) = ((end - 15).to_string(), end.to_string());
    let histogram =
        r#"{"count":"4","sum":"3.5","buckets":[[3,"-0.001","0.001","1"],[0,"0.5","1","2"],[0,"1","2","1"]]}"#;
    let metric = r#"{"__name__":"lat","job":"a"}"#;
    let at_once = |query: &'static str| [("query", query), ("time", &*last)];
    let vector = |rows: &str, notes: &str| {
        ok(format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{rows}]}}{notes}}}"#))
    };
    let found = grafana.post("/api/v1/query", &at_once("lat")).await;
    assert_eq!(found, vector(&format!(r#"{{"metric":{metric},"histogram":[{last},{histogram}]}}"#), ""));
    let range = [("query", "lat"), ("start", &*before), ("end", &*last), ("step", "15")];
    let rows = format!(r#"{{"metric":{metric},"histograms":[[{before},{histogram}],[{last},{histogram}]]}}"#);
    assert_eq!(
        grafana.post("/api/v1/query_range", &range).await,
        ok(format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{rows}]}}}}"#))
    );
    let info = r#","infos":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"temp\" (1:6)"]"#;
    let row = format!(r#"{{"metric":{{"job":"a"}},"value":[{last},"0"]}}"#);
    assert_eq!(grafana.post("/api/v1/query", &at_once("rate(temp[1m])")).await, vector(&row, info));
    let warning = r#","warnings":["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"]"#;
    let row = format!(r#"{{"metric":{{}},"value":[{last},"+Inf"]}}"#);
    assert_eq!(grafana.post("/api/v1/query", &at_once("quantile(2, temp)")).await, vector(&row, warning));

    let list = |body: &str| ok(format!(r#"{{"status":"success","data":{body}}}"#));
    let known = r#"{"jobs_total":[{"type":"counter","help":"How \"many\".","unit":""}],"temp":[{"type":"gauge","help":"","unit":"celsius"}]}"#;
    assert_eq!(grafana.get("/api/v1/metadata", &[("limit_per_metric", "1")]).await, list(known));
    let one = r#"{"temp":[{"type":"gauge","help":"","unit":"celsius"}]}"#;
    assert_eq!(grafana.get("/api/v1/metadata", &[("metric", "temp")]).await, list(one));
    let asked = [("query", "rate(jobs_total[1m])"), ("start", &*before), ("end", &*last)];
    let time = end * 1000 - 500;
    let exemplars = format!(
        r#"[{{"seriesLabels":{{"__name__":"jobs_total","job":"a","my.name":"x"}},"exemplars":[{{"labels":{{"trace_id":"abc"}},"value":"1.5","timestamp":{}.{:03}}}]}}]"#,
        time / 1000,
        time % 1000,
    );
    assert_eq!(grafana.get("/api/v1/query_exemplars", &asked).await, list(&exemplars));

    let formatted = grafana.get("/api/v1/format_query", &[("query", "sum(rate(a[5m]))by(b)")]).await;
    assert_eq!(formatted, list(r#""sum by (b) (rate(a[5m]))""#));
    let parsed = grafana.get("/api/v1/parse_query", &[("query", "1")]).await;
    assert_eq!(parsed, list(r#"{"type":"numberLiteral","val":"1"}"#));
    server.kill();
}

#[tokio::test]
async fn answers_are_compressed_for_whoever_takes_it() {
    let _ = client();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    for encoding in ["gzip", "zstd"] {
        let plain =
            reqwest::Client::builder().no_gzip().no_zstd().no_proxy().tls_certs_only([]).build().unwrap();
        let request = plain.get(format!("{}/metrics", server.url)).header("accept-encoding", encoding);
        let response = request.send().await.unwrap();
        let found = response
            .headers()
            .get("content-encoding")
            .and_then(|value| value.to_str().ok())
            .map(String::from);
        assert_eq!(found.as_deref(), Some(encoding));
    }
    server.kill();
}
