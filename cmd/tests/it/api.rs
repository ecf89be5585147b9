//! The endpoints that Prometheus's clients look at, over real HTTP.

use binnacle_model::prompb::{ReadMatcher, ReadQuery, ReadRequest, ReadResponse};
use prost::Message;
use serde_json::json;

use crate::differential::now_ms;
use crate::support::{Server, client, get, poll};

#[tokio::test]
async fn status_pages_answer_and_keep_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.yml");
    let text = "remote_write: [{url: 'http://a', basic_auth: {password: hunter2}}]\n";
    std::fs::write(&config, text).unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let data = async |path: &str| {
        let (status, body) = get(&format!("{}{path}", server.url)).await;
        assert_eq!((status, &body["status"]), (200, &json!("success")), "{path}: {body}");
        body["data"].clone()
    };
    let shown = data("/api/v1/status/config").await["yaml"].to_string();
    assert!(shown.contains("<secret>") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(data("/api/v1/status/flags").await["config"], json!(config));
    assert_eq!(data("/api/v1/status/runtimeinfo").await["storageRetention"], "45d");
    assert_eq!(data("/api/v1/status/walreplay").await["current"], 0);
    assert!(data("/api/v1/status/buildinfo").await.get("features").is_none(), "Grafana would see Mimir");
    assert_eq!(data("/api/v1/format_query?query=sum(up)by(job)").await, "sum by (job) (up)");
    assert_eq!(data("/api/v1/parse_query?query=up").await["type"], "vectorSelector");
    for list in ["notifications", "query_exemplars?query=test&start=1700000000000&end=1700000000001"] {
        assert_eq!(data(&format!("/api/v1/{list}")).await, json!([]), "{list}");
    }
    for bad in ["format_query?query=sum(", "parse_query", "status/tsdb?limit=0", "query?query=1&limit=x"] {
        let (status, body) = get(&format!("{}/api/v1/{bad}", server.url)).await;
        assert_eq!((status, &body["errorType"]), (400, &json!("bad_data")), "{bad}: {body}");
    }
    server.kill();
}

/// What is federated, counted and cut: the server's own rule results, which need no network.
#[tokio::test]
async fn series_are_federated_counted_and_limited() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "groups: [{name: g, interval: 1s, rules: [\
        {record: 'a:one', expr: vector(1)}, \
        {record: 'b:two', expr: vector(2), labels: {instance: here}}]}]";
    std::fs::write(dir.path().join("r.yml"), rules).unwrap();
    let config = dir.path().join("c.yml");
    std::fs::write(&config, "rule_files: [r.yml]\n").unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let url = &server.url;
    poll("both rules' results", async || {
        let (_, body) = get(&format!("{url}/api/v1/query?query={{__name__=~\"a:one|b:two\"}}")).await;
        (body["data"]["result"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let page = client().get(format!("{url}/federate?match[]=a:one&match[]=b:two")).send().await.unwrap();
    let page = page.text().await.unwrap();
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!((lines[0], lines[2]), ("# TYPE a:one untyped", "# TYPE b:two untyped"));
    assert!(
        lines[1].starts_with("a:one{instance=\"\"} 1 ")
            && lines[3].starts_with("b:two{instance=\"here\"} 2 ")
    );
    let (status, _) = get(&format!("{url}/federate?match[]=%7B")).await;
    assert_eq!(status, 400);

    let (_, body) = get(&format!("{url}/api/v1/query?query={{__name__=~\"a:one|b:two\"}}&limit=1")).await;
    assert_eq!(body["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(body["warnings"], json!(["results truncated due to limit"]));
    let (_, body) = get(&format!("{url}/api/v1/status/tsdb?limit=5")).await;
    let counts = &body["data"]["seriesCountByMetricName"];
    assert!(counts.as_array().unwrap().contains(&json!({ "name": "a:one", "value": 1 })), "{counts}");
    server.kill();
}

#[tokio::test]
async fn queries_are_listed_and_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--query-slow", "1ms"]);
    let url = server.url.clone();
    let (status, body) = get(&format!("{url}/api/queries")).await;
    assert_eq!((status, &body["data"]), (200, &json!([])));
    // Sorts millions of values a thousand times: it runs until somebody ends it.
    let slow = "quantile_over_time(0.5,vector(1)[1h:1ms])";
    let asked = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        let request = client().get(format!("{url}/api/v1/query_range?query={slow}&start=0&end=1000&step=1"));
        request.header("x-grafana-user", "ann").send().await.unwrap()
    });
    let kill = async {
        let id = poll("the query on the list", async || {
            let (_, body) = get(&format!("{url}/api/queries")).await;
            let first = body["data"].get(0)?.clone();
            assert_eq!((&first["user"], &first["query"]), (&json!("ann"), &json!(slow)));
            first["id"].as_u64()
        })
        .await;
        client().delete(format!("{url}/api/queries/{id}")).send().await.unwrap().status().as_u16()
    };
    let (answer, killed) = tokio::join!(asked, kill);
    let answer = answer.unwrap();
    assert_eq!((killed, answer.status().as_u16()), (200, 499));
    assert!(answer.text().await.unwrap().contains("\"canceled\""));
    let gone = client().delete(format!("{url}/api/queries/1000")).send().await.unwrap();
    assert_eq!(gone.status().as_u16(), 404);
    let (status, body) = get(&format!("{url}/api/queries/slow")).await;
    assert_eq!((status, body["data"][0]["query"].as_str()), (200, Some(slow)), "{body}");
    assert_eq!(body["data"][0]["error"], "the query was ended by an operator", "{body}");
    server.kill();
}

#[tokio::test]
async fn rules_are_filtered_and_paged() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "groups:\n\
        - {name: b, rules: [{record: 'x:y', expr: sum(up)by(job), labels: {team: red}}]}\n\
        - {name: a, rules: [{record: 'x:z', expr: 'up'}]}\n\
        - {name: c, rules: [{alert: A, expr: up == 0, labels: {team: blue}}]}\n";
    std::fs::write(dir.path().join("r.yml"), rules).unwrap();
    let config = dir.path().join("c.yml");
    std::fs::write(&config, "rule_files: [r.yml]\n").unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let data = async |query: &str| get(&format!("{}/api/v1/rules?{query}", server.url)).await;
    let names = async |query: &str| {
        let (_, body) = data(query).await;
        let groups = body["data"]["groups"].as_array().unwrap_or(&Vec::new()).clone();
        groups.iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["a", "b", "c"]);
    assert_eq!(names("match[]={team=~\"red|blue\"}").await, ["b", "c"]);
    assert_eq!(names("type=ALERT").await, ["c"]);
    assert_eq!(names("type=&group_limit=").await, ["a", "b", "c"]);
    let (_, last) = data("type=record&group_limit=2").await;
    assert_eq!(last["data"]["groupNextToken"], serde_json::Value::Null, "no group is left");
    assert_eq!(names("rule_group[]=a&rule_group[]=b&rule_name[]=x:y").await, ["b"]);
    let (_, page) = data("group_limit=2").await;
    assert_eq!(page["data"]["groups"][1]["rules"][0]["query"], "sum by (job) (up)");
    let token = page["data"]["groupNextToken"].as_str().unwrap();
    assert_eq!(names(&format!("group_limit=2&group_next_token={token}")).await, ["c"]);
    for bad in
        ["group_next_token=x", "group_limit=1&group_next_token=x", "match[]={", "type=x", "group_limit=-1"]
    {
        let (status, body) = data(bad).await;
        assert_eq!((status, &body["errorType"]), (400, &json!("bad_data")), "{bad}: {body}");
    }
    server.kill();
}

/// A field of a protobuf message.
fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.extend([number << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
    out.extend_from_slice(bytes);
}

#[tokio::test]
async fn remote_write_2_says_what_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let mut body = Vec::new();
    for symbol in ["", "__name__", "up", "job", "second"] {
        put(&mut body, 4, symbol.as_bytes());
    }
    // One sample now and one of 1970, and an empty histogram.
    let mut series = Vec::new();
    put(&mut series, 1, &[1, 2, 3, 4]);
    for at in [now, 1000] {
        let mut sample = vec![1 << 3 | 1];
        sample.extend(7f64.to_bits().to_le_bytes());
        sample.push(2 << 3);
        let mut rest = at;
        while rest >= 0x80 {
            sample.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        sample.push(rest as u8);
        put(&mut series, 2, &sample);
        if at == now {
            let mut histogram = vec![15 << 3];
            histogram.extend_from_slice(&sample[10..]);
            put(&mut series, 3, &histogram);
        }
    }
    put(&mut body, 5, &series);
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let send = async |content_type: &str| {
        let request = client().post(format!("{}/api/v1/write", server.url)).body(body.clone());
        request
            .header("content-type", content_type)
            .header("content-encoding", "snappy")
            .send()
            .await
            .unwrap()
    };
    let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let answer = send(v2).await;
    let written = |kind: &str| {
        answer.headers()[&format!("x-prometheus-remote-write-{kind}-written")].to_str().unwrap().to_owned()
    };
    let counts = [written("samples"), written("histograms"), written("exemplars")];
    // The histogram stands at the sample's moment: there is one value for it already.
    assert_eq!((answer.status().as_u16(), counts), (400, ["1".into(), "0".into(), "0".into()]));
    assert!(answer.text().await.unwrap().contains("1 too old, 0 too far ahead, 1 with another value"));
    let (_, body) = get(&format!("{}/api/v1/query?query=up", server.url)).await;
    assert_eq!(body["data"]["result"][0]["metric"]["job"], "second");
    for refused in ["application/json", "application/x-protobuf;proto=io.prometheus.write.v3.Request"] {
        assert_eq!(send(refused).await.status().as_u16(), 415, "{refused}");
    }
    server.kill();
}

/// What OpenTelemetry's SDKs and Prometheus's remote read see.
#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
#[tokio::test]
async fn otlp_comes_in_and_remote_read_goes_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.yml");
    std::fs::write(&config, "global: {external_labels: {cluster: c}}\n").unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let url = &server.url;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (seconds, nanoseconds) = (now.as_secs_f64(), now.as_nanos().to_string());
    let sum = |name: &str, temporality: u8| {
        json!({ "name": name, "unit": "1", "sum": { "aggregationTemporality": temporality, "isMonotonic": true,
            "dataPoints": [{ "timeUnixNano": nanoseconds, "asInt": "42", "exemplars": [
                { "timeUnixNano": nanoseconds, "asDouble": 1.5, "traceId": "0af7651916cd43dd8448eb211c80319c" }]}]}})
    };
    let body = |metrics: serde_json::Value| {
        json!({ "resourceMetrics": [{ "resource": { "attributes": [
            { "key": "service.name", "value": { "stringValue": "cart" }}]},
            "scopeMetrics": [{ "metrics": metrics }]}]})
    };
    let push = async |metrics| {
        let request = client().post(format!("{url}/api/v1/otlp/v1/metrics")).json(&body(metrics));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<serde_json::Value>().await.unwrap())
    };
    assert_eq!(push(json!([sum("orders", 2)])).await, (200, json!({})));
    let (status, answer) = push(json!([sum("orders", 2), sum("deltas", 1)])).await;
    assert_eq!((status, &answer["partialSuccess"]["rejectedDataPoints"]), (200, &json!("1")));
    let (status, answer) = push(json!([sum("deltas", 1)])).await;
    assert_eq!((status, &answer["code"]), (400, &json!(3)));
    assert!(answer["message"].as_str().unwrap().contains("cumulative"), "{answer}");

    let (_, found) = get(&format!("{url}/api/v1/query?query=orders_total")).await;
    assert_eq!(found["data"]["result"][0]["metric"], json!({ "__name__": "orders_total", "job": "cart" }));
    assert_eq!(found["data"]["result"][0]["value"][1], "42");
    let range = format!("start={}&end={}", seconds - 60.0, seconds + 60.0);
    let (_, found) = get(&format!("{url}/api/v1/query_exemplars?query=rate(orders_total[5m])&{range}")).await;
    let exemplar = &found["data"][0]["exemplars"][0];
    assert_eq!(exemplar["labels"], json!({ "trace_id": "0af7651916cd43dd8448eb211c80319c" }), "{found}");
    assert_eq!(
        (&exemplar["value"], exemplar["timestamp"].as_f64().unwrap() as u64),
        (&json!("1.5"), now.as_secs())
    );
    let (_, found) = get(&format!("{url}/api/v1/metadata?metric=orders_total")).await;
    assert_eq!(found["data"]["orders_total"][0]["type"], "counter");
    let (_, found) = get(&format!("{url}/api/v1/features")).await;
    assert_eq!(
        (&found["data"]["promql"]["anchored"], &found["data"]["promql_functions"]["rate"]),
        (&json!(false), &json!(true))
    );

    let matcher =
        |kind, name: &str, value: &str| ReadMatcher { kind, name: name.into(), value: value.into() };
    let read = async |matchers: Vec<ReadMatcher>| {
        let (start, end) = ((seconds as i64 - 60) * 1000, (seconds as i64 + 60) * 1000);
        let query = ReadQuery { start_timestamp_ms: start, end_timestamp_ms: end, matchers };
        let request = ReadRequest { queries: vec![query], accepted_response_types: vec![] };
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        let response = client().post(format!("{url}/api/v1/read")).body(body).send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap())
    };
    let matchers = vec![matcher(2, "__name__", "orders.*"), matcher(0, "cluster", "c")];
    let (status, answer) = read(matchers).await;
    let plain = snap::raw::Decoder::new().decompress_vec(&answer).unwrap();
    let series = &ReadResponse::decode(&plain[..]).unwrap().results[0].timeseries;
    let labels: Vec<&str> = series[0].labels.iter().map(|label| &*label.name).collect();
    assert_eq!((status, series.len(), labels), (200, 1, vec!["__name__", "cluster", "job"]));
    assert_eq!(series[0].samples[0].value, 42.0);
    let (status, answer) = read(vec![matcher(9, "x", "y")]).await;
    assert_eq!(status, 400, "{answer:?}");
    let page = client().get(format!("{url}/federate?match[]=orders_total")).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("orders_total{job=\"cart\",cluster=\"c\",instance=\"\"} 42"), "{page}");
    server.kill();
}

/// Pages of text with times of their own come in, also long ones, and are found by the search API.
#[tokio::test]
async fn pages_are_imported_and_names_are_searched() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let import = format!("{}/api/v1/import/prometheus", server.url);
    let now = now_ms();
    let post = async |url: &str, kind: &str, body: String| {
        let sent = client().post(url).header("Content-Type", kind).body(body).send().await.unwrap();
        (sent.status().as_u16(), sent.text().await.unwrap())
    };
    let mut page = String::from("# TYPE shop_orders_total counter\n# HELP shop_orders_total Orders.\n");
    for n in 0..60_000i64 {
        page += &format!("shop_orders_total{{shop=\"s{}\"}} {n} {}\n", n % 3, now - 60_000_000 + n * 1000);
    }
    let (status, said) = post(&format!("{import}?extra_label=region%3Deu"), "text/plain", page.clone()).await;
    assert_eq!((status, &*said), (204, ""));
    let (status, _) = post(&format!("{import}?extra_label=region%3Deu"), "text/plain", page).await;
    assert_eq!(status, 204, "nothing is stored twice");
    let query = "sum(count_over_time(shop_orders_total{region=\"eu\"}[1d]))";
    let (_, body) = get(&format!("{}/api/v1/query?query={query}", server.url)).await;
    assert_eq!(body["data"]["result"][0]["value"][1], "60000");
    let open = format!("shop_ok 1 {}\n# EOF\n", now as f64 / 1000.0);
    assert_eq!(post(&import, "application/openmetrics-text", open.clone()).await.0, 204);
    let cases = [
        (open.replace("# EOF\n", ""), "does not end with # EOF"),
        (format!("shop_ok 1\nshop_ok{{a=1}} 2\n{open}"), "line 2, column 11"),
    ];
    for (page, want) in cases {
        let (status, said) = post(&import, "application/openmetrics-text", page).await;
        assert!(
            status == 400 && said.contains(want) && said.contains("1 samples before it"),
            "{status} {said}"
        );
    }
    let (status, said) = post(&import, "text/plain", format!("old 1 1000\nshop_new 1 {now}\n")).await;
    assert!(status == 400 && said.contains("1 samples are stored") && said.contains("too old"), "{said}");
    let search = async |what: &str| {
        let response = client().get(format!("{}/api/v1/search/{what}", server.url)).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.text().await.unwrap())
    };
    let found = search("metric_names?search[]=orders&include_metadata=true&start=0").await;
    let line = r#"{"results":[{"name":"shop_orders_total","type":"counter","help":"Orders.","unit":""}]}"#;
    assert_eq!(found, (200, format!("{line}\n{{\"status\":\"success\",\"has_more\":false}}\n")));
    let (_, lines) = search("label_values?label=shop&start=0&batch_size=1&limit=2").await;
    let trailer = "{\"status\":\"success\",\"has_more\":true}\n";
    let batches = "{\"results\":[{\"name\":\"s0\",\"value\":\"s0\"}]}\n{\"results\":[{\"name\":\"s1\",\"value\":\"s1\"}]}\n";
    assert_eq!(lines, format!("{batches}{trailer}"));
    assert!(search("label_names?start=0&match[]=shop_ok").await.1.contains("__name__"));
    assert_eq!(search("label_values").await.0, 400, "whose values?");
    let nothing = "{\"results\":[]}\n{\"status\":\"success\",\"has_more\":false}\n";
    assert_eq!(search("metric_names?search[]=nosuch").await.1, nothing);
    let (_, body) = get(&format!("{}/api/v1/status/tsdb/blocks", server.url)).await;
    assert_eq!(body["data"]["blocks"], json!([]), "nothing is two hours old");
    let (status, body) = get(&format!("{}/api/v1/targets/metadata", server.url)).await;
    assert_eq!((status, &body["errorType"]), (404, &json!("not_found")), "there are no targets");
    server.kill();
}

#[tokio::test]
async fn pages_of_other_sites_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let client = client();
    let send = |path: &str, origin: String| {
        let request = client.post(format!("{}{path}", server.url)).header("origin", origin);
        request.header("content-type", "text/plain").body("{\"message\":\"x\"}\n").send()
    };
    for path in ["/api/logs/ndjson", "/loki/api/v1/push", "/elastic/_bulk", "/api/v1/import/prometheus"] {
        let answer = send(path, "http://evil.example".to_owned()).await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
    }
    assert_eq!(send("/api/logs/ndjson", server.url.clone()).await.unwrap().status(), 200);
}
