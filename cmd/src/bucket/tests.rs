//! Addresses; and partitions in an S3 that nobody here wrote, over HTTP on loopback.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use binnacle_model::LogTime;
use binnacle_model::log_query::LogQuery;
use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry};
use binnacle_model::storage::{Deadline, LogAppender, LogRequest, LogSearcher, PageRequest};
use binnacle_model::time::Clock;
use binnacle_store::archive::{ArchiveOptions, AttachOptions};
use binnacle_store::{LogOptions, Options, Store, Telemetry};

use super::*;

#[test]
fn addresses_are_checked_and_show_no_secret() {
    let check = |url: &str| {
        let address = BucketAddress { url: url.to_owned(), ..BucketAddress::default() };
        address.check().map_err(|error| error.to_string())
    };
    for good in ["file:///var/archive", "s3://logs", "s3://logs/", "s3://logs/a/b-c.d"] {
        check(good).unwrap();
    }
    for bad in ["file://x", "file:///", "gs://x", "/var", "s3://", "s3://a//b", "s3://a/../b"] {
        check(bad).unwrap_err();
    }
    let error = check("s3://id:hunter2@bucket/x").unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

/// moto's server; it ends with the test.
struct Moto {
    child: Child,
    endpoint: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// Starts it, if `make shippers` has installed it, with a bucket `logs`.
    fn start(runtime: &tokio::runtime::Runtime) -> Option<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
        let made = cache.join("binnacle/shippers/bin/python");
        let python = std::env::var_os("BINNACLE_SHIPPERS").map_or(made, PathBuf::from);
        let program = python.with_file_name("moto_server");
        if !program.exists() {
            println!("SKIPPED 1: no moto_server at {}; see `make shippers`", program.display());
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, endpoint: format!("http://127.0.0.1:{port}") };
        let until = Instant::now() + Duration::from_mins(1);
        let make = || {
            let client = binnacle_collector::http_client(Duration::from_secs(5)).unwrap();
            runtime.block_on(async { client.put(format!("{}/logs", moto.endpoint)).send().await })
        };
        while !make().is_ok_and(|answer| answer.status().is_success()) {
            assert!(Instant::now() < until, "moto does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(moto)
    }

    fn address(&self, dir: &Path) -> BucketAddress {
        let (id, secret) = (dir.join("id"), dir.join("secret"));
        std::fs::write(&id, "someone\n").unwrap();
        std::fs::write(&secret, "hunter2\n").unwrap();
        BucketAddress {
            url: "s3://logs/prod".to_owned(),
            endpoint: Some(self.endpoint.clone()),
            region: Some("eu-central-1".to_owned()),
            key_files: Some((id, secret)),
        }
    }
}

#[derive(Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ns(&self) -> LogTime {
        LogTime(self.0.load(Ordering::Relaxed))
    }
}

const HOUR_NS: i64 = 3_600_000_000_000;

fn push(hour: i64) -> LogPush {
    let entry = |at: i64| PushEntry {
        time_ns: hour * HOUR_NS + at,
        offset: (hour * 100 + at).cast_unsigned(),
        message: format!("request {at} of hour {hour} took {} ms", at * 7 % 50).into_bytes(),
        ..PushEntry::default()
    };
    let stream = vec![Pair { name: "pod".into(), value: "web-0".into() }];
    let file = FileBatch {
        file: "f".into(),
        from: (hour * 100).cast_unsigned(),
        to: (hour * 100 + 100).cast_unsigned(),
        stream,
        entries: (0..100).map(entry).collect(),
        ..FileBatch::default()
    };
    LogPush { batches: vec![file] }
}

fn all_lines(store: &Store) -> (Vec<Vec<u8>>, Vec<String>) {
    let request = LogRequest { query: LogQuery::All, start: LogTime(i64::MIN), end: LogTime(i64::MAX) };
    let wanted = PageRequest { limit: 20_000, counts: true, ..PageRequest::default() };
    let found = store.search(&request, wanted, &Deadline::default()).unwrap();
    (found.entries.into_iter().map(|(_, entry)| entry.message).collect(), found.warnings)
}

/// What every bucket does.
fn check_bucket(bucket: &dyn Bucket) {
    bucket.put("a/b/1.page", b"hello".to_vec()).unwrap();
    bucket.put("a/c", b"x".to_vec()).unwrap();
    bucket.put("a/c", b"yz".to_vec()).unwrap();
    let listed = |prefix: &str| -> Vec<(String, u64)> {
        bucket.list(prefix).unwrap().into_iter().map(|one| (one.key, one.bytes)).collect()
    };
    assert_eq!(listed(""), [("a/b/1.page".into(), 5), ("a/c".into(), 2)]);
    assert_eq!(listed("a/b/"), [("a/b/1.page".into(), 5)]);
    assert_eq!((bucket.head("a/c").unwrap(), bucket.head("a/d").unwrap()), (Some(2), None));
    assert_eq!(bucket.get("a/b/1.page", 1..4).unwrap(), b"ell");
    assert!(matches!(bucket.get("a/b/1.page", 1..6), Err(BucketError::Short(_))));
    assert!(matches!(bucket.get("a/b/2.page", 0..1), Err(BucketError::Missing(_))));
    for key in ["a/c", "a/c", "a/b/1.page"] {
        bucket.delete(key).unwrap();
    }
    assert_eq!(listed(""), []);
}

#[test]
fn partitions_lie_in_a_server_of_s3() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let Some(moto) = Moto::start(&runtime) else { return };
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let address = moto.address(dir.path());
    let bucket = address.open().unwrap();
    assert!(!format!("{address:?} {:?}", address.check()).contains("hunter2"));
    check_bucket(&*bucket);

    let clock = Arc::new(Hands::default());
    let open = |name: &str, logs: LogOptions| {
        let options = Options { logs, ..Options::default() };
        Store::open(&dir.path().join(name), options, clock.clone(), Telemetry::default()).unwrap()
    };
    let archive = ArchiveOptions {
        bucket: Arc::clone(&bucket),
        url: address.url.clone(),
        after: Duration::from_hours(1),
        retention_bytes: None,
    };
    let store = open("here", LogOptions { archive: Some(archive), ..LogOptions::default() });
    for hour in 0..60 {
        clock.0.store(hour * HOUR_NS, Ordering::Relaxed);
        LogAppender::append(&store, push(hour), clock.now_ns()).unwrap();
        store.flush_logs();
        store.maintain().unwrap();
    }
    let (before, _) = all_lines(&store);
    assert_eq!(before.len(), 6_000);
    let until = Instant::now() + Duration::from_mins(1);
    while bucket.list("manifests/").unwrap().len() < 2 {
        store.maintain().unwrap();
        store.tend_archive().unwrap();
        assert!(Instant::now() < until, "nothing was archived");
    }
    assert_eq!(all_lines(&store), (before.clone(), vec![]));

    let attach = vec![AttachOptions { bucket: Arc::clone(&bucket), url: address.url.clone() }];
    let other = open("there", LogOptions { attach, ..LogOptions::default() });
    other.tend_archive().unwrap();
    let (attached, warnings) = all_lines(&other);
    assert_eq!((&attached[..], &warnings[..]), (&before[before.len() - 4_800..], &[][..]));

    other.close();
    store.close();
    drop((store, other, moto));
    // Nobody listens any more.
    let error = bucket.list("").unwrap_err().to_string();
    assert!(!error.contains("hunter2") && error.len() < 600, "{error}");
}
