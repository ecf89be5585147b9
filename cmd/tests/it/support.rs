//! A server to test, and somebody to receive its notifications.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything.
pub(crate) const CAP: Duration = Duration::from_mins(1);

pub(crate) fn binnacle() -> Command {
    Command::new(env!("CARGO_BIN_EXE_binnacle"))
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    pub child: Child,
    pub url: String,
}

impl Server {
    /// Starts `binnacle serve` on a free port and waits until it answers.
    pub(crate) fn start(data: &Path, args: &[&str]) -> Self {
        Self::start_on(data, "127.0.0.1:0", args)
    }

    pub(crate) fn start_on(data: &Path, listen: &str, args: &[&str]) -> Self {
        let mut child = binnacle()
            .arg("serve")
            .args(["--data".as_ref(), data.as_os_str()])
            .args(["--listen", listen, "--log-level", "warn"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(url.starts_with("http://"), "the server did not start: {line:?}");
        Self { child, url }
    }

    /// Ends the process at once, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let timeout = Duration::from_secs(20);
    reqwest::Client::builder().timeout(timeout).no_proxy().tls_certs_only([]).build().unwrap()
}

/// Asks and answers status and JSON.
pub(crate) async fn get(url: &str) -> (u16, Value) {
    let response = client().get(url).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

/// Asks again and again until `found` says yes.
pub(crate) async fn poll<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + CAP;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < until, "waited {CAP:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Takes POSTs and hands over their bodies.
pub(crate) fn sink() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, receiver) = sync_channel(100);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that ends with the test.
pub(crate) struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prometheus with this configuration, if `make peers` has fetched one.
pub(crate) fn prometheus(dir: &Path, file: &str) -> Option<(Killed, String)> {
    let home = std::env::var_os("HOME")?;
    let fetched = Path::new(&home).join(".cache/binnacle/peers/prometheus/usr/bin/prometheus");
    let program = std::env::var_os("BINNACLE_PROMETHEUS").map_or(fetched, PathBuf::from);
    if !program.exists() {
        println!("SKIPPED 1: no Prometheus to compare with; see `make peers`");
        return None;
    }
    let config = dir.join("theirs.yml");
    std::fs::write(&config, file).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let child = Command::new(program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("theirs").display()))
        .arg(format!("--web.listen-address={listen}"))
        .args(["--web.enable-remote-write-receiver", "--enable-feature=native-histograms"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some((Killed(child), format!("http://{listen}")))
}
