//! The tailer on real files, with a store that sometimes refuses.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::push::{LogPush, PushEntry};
use binnacle_model::storage::{AppendError, LogAppendReport};
use binnacle_model::time::Clock;
use prost::Message;

use super::multiline::Multiline;
use super::*;
use crate::Telemetry;

/// Ahead of the machine's by so many nanoseconds.
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_ns(&self) -> LogTime {
        #[allow(clippy::disallowed_methods, reason = "files are made by the kernel's clock")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        LogTime(now.as_nanos() as i64 + self.0.load(Ordering::Relaxed))
    }
}

/// Keeps marks and lines as a store does.
#[derive(Default)]
struct TestStore {
    state: Mutex<(BTreeMap<String, u64>, Vec<PushEntry>)>,
    refuses: AtomicBool,
    /// What it refused last: a request that may yet come.
    late: Mutex<Vec<u8>>,
    /// Whether it says of no file how far it has it.
    has_no_marks: AtomicBool,
    /// Files that it was asked for.
    asked: Mutex<Vec<String>>,
    report: Mutex<crate::completeness::NodeReport>,
}

impl TestStore {
    fn lines(&self) -> Vec<String> {
        let text = |entry: &PushEntry| String::from_utf8_lossy(&entry.message).into_owned();
        self.state.lock().unwrap().1.iter().map(text).collect()
    }

    fn count(&self) -> usize {
        self.state.lock().unwrap().1.len()
    }

    fn take(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError> {
        let mut report = LogAppendReport::default();
        let mut state = self.state.lock().unwrap();
        let batches = LogPush::decode(wire).unwrap().batches;
        let mut marks = state.0.clone();
        for batch in batches.iter().filter(|batch| batch.is_whole && self.keeps_marks()) {
            let mark = marks.entry(batch.file.clone()).or_default();
            if batch.from < *mark && *mark < batch.to {
                return Err(AppendError::Overtaken("test".into()));
            }
            *mark = batch.to.max(*mark);
        }
        for batch in batches {
            let mark = state.0.get(&batch.file).copied().unwrap_or(0);
            assert!(batch.from <= mark, "gap: batch from {} but mark {mark}", batch.from);
            for entry in batch.entries {
                assert!((batch.from..batch.to).contains(&entry.offset));
                if entry.offset >= mark {
                    state.1.push(entry);
                } else {
                    report.duplicate += 1;
                }
            }
            state.0.insert(batch.file, mark.max(batch.to));
        }
        Ok(report)
    }

    /// The request that came too late comes.
    fn arrive(&self) {
        let wire = std::mem::take(&mut *self.late.lock().unwrap());
        // Nobody hears what became of it.
        let _ = self.take(&wire);
    }
}

impl LogSink for TestStore {
    fn send(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError> {
        if self.refuses.load(Ordering::Relaxed) {
            *self.late.lock().unwrap() = wire.to_vec();
            return Err(AppendError::Unavailable("test".into()));
        }
        self.take(wire)
    }

    fn keeps_marks(&self) -> bool {
        !self.has_no_marks.load(Ordering::Relaxed)
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        assert!(self.keeps_marks(), "nobody asks a store that does not know");
        if self.refuses.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("test".into()));
        }
        self.asked.lock().unwrap().extend_from_slice(files);
        let state = self.state.lock().unwrap();
        Ok(files.iter().map(|file| state.0.get(file).copied().unwrap_or(0)).collect())
    }

    fn report(&self, report: &crate::completeness::NodeReport) -> Result<(), AppendError> {
        *self.report.lock().unwrap() = report.clone();
        Ok(())
    }
}

struct Bed {
    dir: tempfile::TempDir,
    store: Arc<TestStore>,
    clock: Arc<TestClock>,
    telemetry: Telemetry,
    written: usize,
}

const CONTAINER: &str = "pods/shop_payment-7d9f8b6c5-x2x4z_uid/app";

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(CONTAINER)).unwrap();
        fs::create_dir_all(dir.path().join("containers")).unwrap();
        let link = dir.path().join("containers/payment-7d9f8b6c5-x2x4z_shop_app-0123.log");
        std::os::unix::fs::symlink(dir.path().join(CONTAINER).join("0.log"), link).unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(0)));
        Self { dir, store: Arc::default(), clock, telemetry: Telemetry::default(), written: 0 }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join(CONTAINER).join("0.log")
    }

    fn raw(&self, text: &str) {
        self.raw_bytes(text.as_bytes());
    }

    fn raw_bytes(&self, bytes: &[u8]) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        file.write_all(bytes).unwrap();
    }

    /// Lines as a runtime writes them: no two of a container are alike.
    fn write(&mut self, count: usize) {
        let line = |i| format!("2026-11-21T20:50:57.{i:09}Z stdout F line {i}\n");
        let text = (self.written..self.written + count).map(line).collect::<Vec<_>>().concat();
        self.raw(&text);
        self.written += count;
    }

    fn rotated(&self, stamp: &str) -> PathBuf {
        self.log().with_file_name(format!("0.log.{stamp}"))
    }

    fn rotate(&self, to: &str) {
        fs::rename(self.log(), self.rotated(to)).unwrap();
    }

    /// As the kubelet compresses: beside the file, which goes afterwards.
    fn compress(&self, stamp: &str) {
        gzip(&self.rotated(stamp), &self.rotated(&format!("{stamp}.gz")));
        fs::remove_file(self.rotated(stamp)).unwrap();
    }

    fn options(&self, input: Input) -> Options {
        Options {
            input,
            node: "n".into(),
            number: 0,
            state_dir: self.dir.path().join("state"),
            pack_bytes: 4 << 20,
            cpu: None,
            spool: SpoolLimits::default(),
            multiline: Multiline::default(),
            zone_seconds: 0,
            edge: edge::EdgeRules::default(),
            pods: None,
        }
    }

    fn tailer(&self) -> Tailer {
        self.tailer_of(self.options(Input::Containers(self.dir.path().join("containers"))))
    }

    fn tailer_of(&self, options: Options) -> Tailer {
        Tailer::new(options, self.store.clone(), self.clock.clone(), self.telemetry.clone()).unwrap()
    }

    fn want(&self) -> Vec<String> {
        (0..self.written).map(|i| format!("line {i}")).collect()
    }

    fn wait(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1_000_000_000, Ordering::Relaxed);
    }
}

fn gzip(from: &Path, to: &Path) {
    let file = fs::File::create(to).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packed.write_all(&fs::read(from).unwrap()).unwrap();
    packed.finish().unwrap();
}

/// Looks, reads and sends until nothing is left to do, or the store answers no more.
fn round(tailer: &mut Tailer) {
    for _ in 0..5 {
        tailer.scan();
        tailer.ask();
        loop {
            let has_more = tailer.fill();
            tailer.send();
            tailer.settle(Duration::from_millis(100));
            if !has_more || tailer.is_waiting() {
                break;
            }
        }
    }
}

/// Goes on until something holds: the sender waits between its attempts.
fn round_until(tailer: &mut Tailer, holds: impl Fn() -> bool) {
    for _ in 0..60 {
        round(tailer);
        if holds() {
            return;
        }
    }
    panic!("it never held");
}

mod journal;
mod lines;
mod losses;
mod plain;
mod random;
mod rotation;
