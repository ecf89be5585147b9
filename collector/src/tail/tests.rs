//! The tailer on real files, with a store that sometimes refuses.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;

use binnacle_model::LogTime;
use binnacle_model::storage::LogAppendReport;

use super::*;

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_ns(&self) -> LogTime {
        LogTime(self.0.load(Ordering::Relaxed))
    }
}

/// Keeps marks and lines as a store does.
#[derive(Default)]
struct TestStore {
    state: Mutex<(BTreeMap<String, u64>, Vec<String>)>,
    refuses: AtomicBool,
}

impl TestStore {
    fn lines(&self) -> Vec<String> {
        self.state.lock().unwrap().1.clone()
    }
}

impl LogAppender for TestStore {
    fn append(&self, push: LogPush, _: LogTime) -> Result<LogAppendReport, AppendError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("test".into()));
        }
        let mut state = self.state.lock().unwrap();
        for batch in push.batches {
            let mark = state.0.get(&batch.file).copied().unwrap_or(0);
            assert!(batch.from <= mark, "gap: batch from {} but mark {mark}", batch.from);
            for entry in &batch.entries {
                assert!((batch.from..batch.to).contains(&entry.offset));
                if entry.offset >= mark {
                    state.1.push(String::from_utf8_lossy(&entry.message).into_owned());
                }
            }
            state.0.insert(batch.file, mark.max(batch.to));
        }
        Ok(LogAppendReport::default())
    }
}

struct Bed {
    dir: tempfile::TempDir,
    store: Arc<TestStore>,
    clock: Arc<TestClock>,
    written: usize,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let container = dir.path().join("pods/shop_payment-7d9f8b6c5-x2x4z_uid/app");
        fs::create_dir_all(&container).unwrap();
        fs::create_dir_all(dir.path().join("containers")).unwrap();
        let link = dir.path().join("containers/payment-7d9f8b6c5-x2x4z_shop_app-0123.log");
        std::os::unix::fs::symlink(container.join("0.log"), link).unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1)));
        Self { dir, store: Arc::default(), clock, written: 0 }
    }

    fn log(&self) -> std::path::PathBuf {
        self.dir.path().join("pods/shop_payment-7d9f8b6c5-x2x4z_uid/app/0.log")
    }

    fn raw(&self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn write(&mut self, count: usize) {
        for _ in 0..count {
            self.raw(&format!("2026-11-21T20:50:57.000000001Z stdout F line {}\n", self.written));
            self.written += 1;
        }
    }

    fn rotate(&self, to: &str) {
        fs::rename(self.log(), self.log().with_file_name(format!("0.log.{to}"))).unwrap();
    }

    fn tailer(&self) -> Tailer {
        let options = Options {
            input: Input::Containers(self.dir.path().join("containers")),
            node: "n".into(),
            state_dir: self.dir.path().join("state"),
        };
        Tailer::new(options, self.store.clone(), self.clock.clone(), Telemetry::default())
    }

    fn want(&self) -> Vec<String> {
        (0..self.written).map(|i| format!("line {i}")).collect()
    }
}

fn round(tailer: &mut Tailer) {
    for _ in 0..4 {
        tailer.scan();
        let _ = tailer.read_and_push();
    }
}

#[test]
fn lines_are_followed_through_rotation_and_restart() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(3);
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want());
    bed.write(2);
    bed.rotate("20261121-205058");
    bed.write(2);
    bed.rotate("20261121-205059");
    bed.write(1);
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want(), "two rotations between two looks (L2)");
    tailer.save();
    bed.write(2);
    let mut tailer = bed.tailer();
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want(), "resumed at the checkpoint");
    fs::remove_dir_all(bed.dir.path().join("state")).unwrap();
    bed.write(1);
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want(), "without a checkpoint the marks decide (L19)");
}

#[test]
fn what_the_store_refuses_is_sent_again() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(3);
    bed.store.refuses.store(true, Ordering::Relaxed);
    round(&mut tailer);
    bed.rotate("20261121-205058");
    bed.write(3);
    round(&mut tailer);
    bed.store.refuses.store(false, Ordering::Relaxed);
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want());
}

#[test]
fn partial_lines_are_joined_by_stream_and_survive_a_restart() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout P one \n2026-11-21T20:50:57Z stderr F whole\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), [""; 0], "what stands behind an open line waits");
    tailer.save();
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout P two \n2026-11-21T20:50:57Z stdout F three\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), ["one two three", "whole"]);
    bed.raw("2026-11-21T20:50:57Z stdout P orphan\n");
    round(&mut tailer);
    bed.clock.0.store(31_000_000_000, Ordering::Relaxed);
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "orphan");
}

#[test]
fn odd_lines_are_kept_whole() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw("no header at all\n\n2026-11-21T20:50:57Z stdout F \n2026-11-21T20:50:57Z stdout F no end");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), ["no header at all", "", ""]);
    bed.raw(" yet\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "no end yet");
}

#[test]
fn a_line_without_end_costs_bounded_memory_and_not_the_lines_after_it() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw(&format!("2026-11-21T20:50:57Z stdout F {}\n", "x".repeat(3 << 20)));
    bed.raw("2026-11-21T20:50:57Z stdout F after\n");
    for _ in 0..4 {
        round(&mut tailer);
    }
    let lines = bed.store.lines();
    assert_eq!(lines.len(), 2);
    assert!((900_000..1_100_000).contains(&lines[0].len()), "{}", lines[0].len());
    assert_eq!(lines[1], "after");
}

#[test]
fn an_endless_partial_line_is_given_out_cut_and_holds_nothing_back() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    let piece = format!("2026-11-21T20:50:57Z stdout P {}\n", "x".repeat(16_000));
    bed.raw(&piece.repeat(200));
    bed.raw("2026-11-21T20:50:57Z stderr F beside\n");
    for _ in 0..3 {
        round(&mut tailer);
    }
    assert_eq!(bed.store.lines().iter().map(String::len).collect::<Vec<_>>(), [1 << 20, 6]);
    bed.raw("2026-11-21T20:50:57Z stdout F its end\n2026-11-21T20:50:57Z stdout F next\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "next");
    assert_eq!(bed.store.lines().len(), 3);
}

#[test]
fn a_truncated_file_is_read_again_from_its_beginning() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(5);
    round(&mut tailer);
    fs::write(bed.log(), "2026-11-21T20:50:57Z stdout F new\n").unwrap();
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "new");
    assert_eq!(bed.store.lines().len(), 6);
}

#[test]
fn a_file_that_was_rotated_after_the_listing_is_not_read_under_the_wrong_identity() {
    let mut bed = Bed::new();
    bed.write(2);
    let listing = discover(&Input::Containers(bed.dir.path().join("containers")), "n");
    bed.rotate("20261121-205058");
    bed.write(1);
    let found = listing.files[0].clone();
    let opened = TailedFile::open(found, checkpoint::Checkpoint::default(), "n");
    assert_eq!(opened.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want());
}

#[test]
fn plain_files_are_followed_through_rotation_and_restart() {
    let bed = Bed::new();
    let dir = bed.dir.path().join("plain");
    fs::create_dir(&dir).unwrap();
    let options = Options {
        input: Input::Files { pattern: dir.join("*.log"), service: "s".into() },
        node: "n".into(),
        state_dir: bed.dir.path().join("state"),
    };
    let tailer = || Tailer::new(options.clone(), bed.store.clone(), bed.clock.clone(), Telemetry::default());
    fs::write(dir.join("app.log"), "one\ntwo\n").unwrap();
    fs::write(dir.join("app.log-20251121.gz"), b"\x1f\x8b\n").unwrap();
    fs::write(dir.join("other.txt"), "not asked for\n").unwrap();
    let mut first = tailer();
    round(&mut first);
    first.save();
    assert_eq!(bed.store.lines(), ["one", "two"]);
    drop(first);
    // Twice rotated while nobody looked, with lines at each end.
    let append = |name: &str, text: &str, minute: u64| {
        let mut file = OpenOptions::new().create(true).append(true).open(dir.join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(minute * 60)).unwrap();
    };
    append("app.log", "three\n", 1);
    fs::rename(dir.join("app.log"), dir.join("app.log.1")).unwrap();
    append("app.log", "four\n", 2);
    fs::rename(dir.join("app.log.1"), dir.join("app.log.2")).unwrap();
    fs::rename(dir.join("app.log"), dir.join("app.log.1")).unwrap();
    append("app.log", "five\n", 3);
    let mut second = tailer();
    round(&mut second);
    assert_eq!(bed.store.lines(), ["one", "two", "three", "four", "five"]);
    append("app.log", "six\n", 4);
    round(&mut second);
    assert_eq!(bed.store.lines().last().unwrap(), "six");
}

#[test]
fn planted_links_and_pipes_are_never_read() {
    let mut bed = Bed::new();
    bed.write(1);
    let secret = bed.dir.path().join("secret.log");
    fs::write(&secret, "2026-11-21T20:50:57Z stdout F secret\n").unwrap();
    std::os::unix::fs::symlink(&secret, bed.dir.path().join("containers/evil_x_y-1.log")).unwrap();
    std::os::unix::fs::symlink(&secret, bed.log().with_file_name("1.log")).unwrap();
    let fifo = bed.log().with_file_name("2.log");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want());
    assert!(Path::new(&fifo).exists());
}
