//! Lines by every door, sent with programs that nobody here wrote, and read back byte for byte.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::house::root;
use crate::support::{Server, free_port, get, poll};

/// What programs print.
pub(crate) fn texts() -> Vec<String> {
    let texts = [
        "plain words",
        "Zo\u{eb} \u{2014} \u{65e5}\u{672c}\u{8a9e} \u{1f680} \u{202e}right to left\u{2028}a line separator",
        r#"quotes " ' ` and \ backslashes \n \u0041"#,
        "tabs\tand \u{1b}[31mcolours\u{1b}[0m",
        r#"{"level":"error","msg":"in JSON","nested":{"n":1.0,"list":[1,"2"]}}"#,
        "level=warn key=\"a value\" logfmt=true",
        "<34>1 2003-10-11T22:14:15Z no syslog: at all",
        "trailing spaces  ",
        "100% of %s {0} $HOME ${jndi:x}",
        "[brackets] key: value, ERROR: not one",
    ];
    let mut texts: Vec<String> = texts.map(str::to_owned).to_vec();
    texts.push(format!("long {} end", "\u{e4}b\"c\\ ".repeat(1000)));
    texts
}

/// Messages of a service, sorted.
async fn kept(server: &Server, service: &str) -> Vec<String> {
    let url = format!("{}/api/logs/search?limit=500&q=service:{service}", server.url);
    let (_, answer) = get(&url).await;
    let entries = answer["data"]["entries"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<String> =
        entries.iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect();
    found.sort_unstable();
    found
}

/// All that was sent is there, once and as it was.
async fn check(server: &Server, service: &str, mut sent: Vec<String>) {
    sent.sort_unstable();
    let count = sent.len();
    let found =
        poll(service, async || Some(kept(server, service).await).filter(|found| found.len() >= count));
    assert_eq!(found.await, sent, "{service}");
}

/// Python with the clients of `cmd/tests/shippers/requirements.txt`, if `make shippers` has installed them.
pub(crate) fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    let made = cache.join("binnacle/shippers/bin/python");
    let python = std::env::var_os("BINNACLE_SHIPPERS").map_or(made, PathBuf::from);
    if !python.exists() {
        println!("SKIPPED 1: no clients in Python at {}; see `make shippers`", python.display());
        return None;
    }
    Some(python)
}

fn send(python: &Path, dir: &Path, client: &str, address: &str, texts: &[String]) {
    let file = dir.join(format!("{client}.json"));
    std::fs::write(&file, serde_json::to_vec(texts).unwrap()).unwrap();
    let output = Command::new(python)
        .arg(root().join("cmd/tests/shippers/send.py"))
        .args([client, address, client])
        .arg(&file)
        .env("no_proxy", "*")
        .output()
        .unwrap();
    assert!(output.status.success(), "{client}: {output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_python_are_understood() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let grpc = format!("127.0.0.1:{}", free_port());
    let server = Server::start(&dir.path().join("data"), &["--listen-otlp-grpc", &grpc]);
    let mut with_empty = texts();
    with_empty.push(String::new());

    let elastic = format!("{}/elastic", server.url);
    send(&python, dir.path(), "elasticsearch", &elastic, &with_empty);
    let mut all = with_empty.clone();
    all.push("beside a refusal".to_owned());
    check(&server, "elasticsearch", all).await;

    send(&python, dir.path(), "otlp_http", &server.url, &with_empty);
    check(&server, "otlp_http", with_empty.clone()).await;
    send(&python, dir.path(), "otlp_grpc", &format!("http://{grpc}"), &with_empty);
    check(&server, "otlp_grpc", with_empty.clone()).await;
    let (_, answer) = get(&format!("{}/api/logs/search?limit=1&q=service:otlp_grpc", server.url)).await;
    let entry = &answer["data"]["entries"][0];
    let stream = json!({ "namespace": "shop", "pod": "cart-0", "app": "cart", "service": "otlp_grpc" });
    assert_eq!((&entry["stream"], &entry["level"]), (&stream, &json!("warn")));

    send(&python, dir.path(), "loki", &server.url, &texts());
    check(&server, "loki", texts()).await;
    server.kill();
}

fn has_rsyslog() -> bool {
    let asked = Command::new("rsyslogd").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if asked.is_err() {
        println!("SKIPPED 1: rsyslogd is not installed");
    }
    asked.is_ok()
}

/// Ends with the test.
struct Rsyslog(Child);

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// rsyslog with a file of texts as its input, and one action.
fn rsyslog(dir: &Path, service: &str, texts: &[String], action: &str) -> Rsyslog {
    let dir = dir.join(service);
    std::fs::create_dir(&dir).unwrap();
    let (input, config) = (dir.join("input"), dir.join("rsyslog.conf"));
    std::fs::write(&input, texts.join("\n") + "\n").unwrap();
    let text = format!(
        r#"
global(workDirectory="{dir}" maxMessageSize="128k" parser.escapeControlCharactersOnReceive="off")
module(load="imfile" mode="polling" pollingInterval="1")
module(load="omelasticsearch")
template(name="document" type="list") {{
  constant(value="{{\"@timestamp\":\"") property(name="timereported" dateFormat="rfc3339")
  constant(value="\",\"message\":\"") property(name="msg" format="json")
  constant(value="\",\"host\":{{\"name\":\"") property(name="hostname" format="json")
  constant(value="\"}},\"service\":{{\"name\":\"") property(name="programname" format="json")
  constant(value="\"}}}}")
}}
input(type="imfile" file="{input}" tag="{service}:" severity="warning" facility="local3")
{action}
"#,
        dir = dir.display(),
        input = input.display(),
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new("rsyslogd")
        .args(["-n", "-f"])
        .arg(&config)
        .arg("-i")
        .arg(dir.join("pid"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Rsyslog(child)
}

/// Answers 503 to the first two requests, and hands the others on.
fn busy_at_first(server: &Server) -> String {
    let target = server.url.trim_start_matches("http://").to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let Ok(mut client) = stream else { return };
            // As the server answers when its queue is full: `collector::intake::elastic::answer`.
            if number < 2 {
                let mut head = [0; 4096];
                let _ = client.read(&mut head);
                let body = "too many writes at once\n";
                let _ = write!(
                    client,
                    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 1\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                continue;
            }
            let Ok(mut upstream) = std::net::TcpStream::connect(&target) else { return };
            let (mut from_client, mut to_upstream) =
                (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_upstream);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut upstream, &mut client);
            });
        }
    });
    address
}

/// rsyslog repeats lines of its own accord when it tries again; none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_keeps_what_a_busy_server_does_not_take() {
    if !has_rsyslog() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let action = format!(
        r#"action(type="omelasticsearch" server="{}/elastic" bulkmode="on" searchIndex="texts" template="document"
  action.resumeRetryCount="-1" action.resumeInterval="1")"#,
        busy_at_first(&server)
    );
    let sent: Vec<String> = (0..20).map(|number| format!("line {number:02}")).collect();
    let _rsyslog = rsyslog(dir.path(), "rs-busy", &sent, &action);
    let all = poll("all lines", async || {
        let mut found = kept(&server, "rs-busy").await;
        found.dedup();
        Some(found).filter(|found| found.len() >= sent.len())
    });
    assert_eq!(all.await, sent);
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_is_understood_by_three_ways() {
    if !has_rsyslog() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (tcp, udp) = (free_port(), free_port());
    let (tcp_address, udp_address) = (format!("127.0.0.1:{tcp}"), format!("127.0.0.1:{udp}"));
    let args = ["--listen-syslog-tcp", &tcp_address, "--listen-syslog-udp", &udp_address];
    let server = Server::start(&dir.path().join("data"), &args);
    let elastic = format!(
        r#"action(type="omelasticsearch" server="{}/elastic" bulkmode="on" searchIndex="texts" template="document")"#,
        server.url
    );
    let forward =
        |port: u16, more: &str| format!(r#"action(type="omfwd" target="127.0.0.1" port="{port}" {more})"#);
    let ways = [
        ("rs-elastic", elastic),
        (
            "rs-counted",
            forward(
                tcp,
                r#"protocol="tcp" TCP_Framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format""#,
            ),
        ),
        ("rs-lines", forward(tcp, r#"protocol="tcp" template="RSYSLOG_TraditionalForwardFormat""#)),
        ("rs-precise", forward(tcp, r#"protocol="tcp" template="RSYSLOG_ForwardFormat""#)),
        ("rs-datagrams", forward(udp, r#"protocol="udp" template="RSYSLOG_SyslogProtocol23Format""#)),
    ];
    for (service, action) in ways {
        let _rsyslog = rsyslog(dir.path(), service, &texts(), &action);
        check(&server, service, texts()).await;
        let (_, answer) = get(&format!("{}/api/logs/search?limit=1&q=service:{service}", server.url)).await;
        let entry: &Value = &answer["data"]["entries"][0];
        assert!(entry["stream"]["node"].as_str().is_some_and(|node| !node.is_empty()), "{entry}");
        if service != "rs-elastic" {
            assert_eq!(
                (&entry["level"], &entry["fields"]["log.syslog.facility.name"]),
                (&json!("warn"), &json!("local3"))
            );
        }
    }
    server.kill();
}
