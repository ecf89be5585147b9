//! Log lines through the whole program: in by Loki's door, out by all of ours, and once more after a kill.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Server, binnacle, client, get, poll};

/// Lines of an hour ago, a second apart.
#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
fn lines(count: i64) -> (Vec<String>, Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let line = |n: i64| {
        format!("{{\"level\":\"{}\",\"msg\":\"order {n} moved\"}}", if n % 5 == 0 { "error" } else { "info" })
    };
    let lines: Vec<String> = (0..count).map(line).collect();
    let start = now - 3500;
    let values: Vec<Value> =
        lines.iter().zip(0..).map(|(line, n)| json!([format!("{}000000000", start + n), line])).collect();
    let stream = json!({ "namespace": "shop", "pod": "cart-1", "app": "cart" });
    (lines, json!({ "streams": [{ "stream": stream, "values": values }] }))
}

async fn total(server: &Server, query: &str) -> Option<u64> {
    let (_, answer) = get(&format!("{}/api/logs/search?limit=1&start=now-2h&q={query}", server.url)).await;
    answer["data"]["total"].as_u64()
}

async fn export(server: &Server, format: &str) -> String {
    let url = format!("{}/api/logs/export?start=now-2h&format={format}&q=namespace:shop", server.url);
    // Compressed or not, the end is an end.
    let response = client().get(url).header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    response.text().await.unwrap()
}

#[tokio::test]
async fn lines_come_in_by_lokis_door_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let (lines, push) = lines(3000);
    let sent = client().post(format!("{}/loki/api/v1/push", server.url)).json(&push).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 204);
    let check = async |server: &Server| {
        poll("all lines", async || (total(server, "namespace:shop").await? == 3000).then_some(())).await;
        assert_eq!(total(server, "level:error").await, Some(600));
        assert_eq!(total(server, "%22order%2017%20moved%22").await, Some(1));
        let text = export(server, "text").await;
        assert!(lines.iter().all(|line| text.contains(line.as_str())), "a line is missing");
        let context = ["--since", "2h", "--context", "2", "-o", "raw", "--url", &server.url];
        let shown = binnacle().args(["logs", "\"order 17 moved\""]).args(context).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let near: Vec<&str> = shown.lines().map(|line| line.trim_start_matches(['>', ' '])).collect();
        assert_eq!(near, lines[15..20], "neighbours in the stream");
        let rows = export(server, "csv").await;
        assert_eq!(rows.lines().filter(|row| row.contains("moved")).count(), 3000);
        let last = export(server, "ndjson").await.lines().last().map(str::to_owned).unwrap();
        assert!(last.contains("3000"), "{last}");
        let query = "sum by (level) (count_over_time({namespace=\"shop\"} |= \"moved\" [2h]))";
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let (status, answer) = get(&format!("{}/loki/api/v1/query?query={query}", server.url)).await;
        let result = answer["data"]["result"].as_array().unwrap();
        let mut values: Vec<&str> = result.iter().map(|one| one["value"][1].as_str().unwrap()).collect();
        values.sort_unstable();
        assert_eq!((status, values), (200, vec!["2400", "600"]));
    };
    check(&server).await;
    server.kill();
    check(&Server::start(dir.path(), &[])).await;
}
