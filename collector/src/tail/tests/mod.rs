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
    /// Whether it says of no file how far it has it.
    has_no_marks: AtomicBool,
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
}

impl LogSink for TestStore {
    fn send(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("test".into()));
        }
        let mut report = LogAppendReport::default();
        let mut state = self.state.lock().unwrap();
        for batch in LogPush::decode(wire).unwrap().batches {
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

    fn keeps_marks(&self) -> bool {
        !self.has_no_marks.load(Ordering::Relaxed)
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        assert!(self.keeps_marks(), "nobody asks a store that does not know");
        if self.refuses.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("test".into()));
        }
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
    drop(tailer);
    bed.write(2);
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want(), "resumed at the checkpoint");
    assert_eq!(bed.telemetry.duplicates.get(), 0);
    fs::remove_dir_all(bed.dir.path().join("state")).unwrap();
    bed.write(1);
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want(), "without a checkpoint the marks decide (L19)");
    assert_eq!(bed.telemetry.duplicates.get(), 0, "the store was asked");
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
    assert_eq!(bed.store.count(), 0);
    bed.store.refuses.store(false, Ordering::Relaxed);
    round_until(&mut tailer, || bed.store.lines() == bed.want());
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

#[test]
fn what_was_compressed_while_nobody_looked_is_read_on_where_it_was_left() {
    for has_checkpoint in [true, false] {
        let mut bed = Bed::new();
        bed.write(5);
        let mut tailer = bed.tailer();
        round(&mut tailer);
        tailer.save();
        drop(tailer);
        bed.write(4);
        for second in 0..4 {
            let stamp = format!("20261121-20505{second}");
            bed.rotate(&stamp);
            bed.write(1000);
            if second > 0 {
                bed.compress(&format!("20261121-20505{}", second - 1));
            }
        }
        fs::write(bed.rotated("20261121-205053.tmp"), "half a copy").unwrap();
        if !has_checkpoint {
            fs::remove_dir_all(bed.dir.path().join("state")).unwrap();
        }
        round(&mut bed.tailer());
        assert_eq!(bed.store.lines(), bed.want(), "L4, checkpoint {has_checkpoint}");
        assert_eq!(bed.telemetry.duplicates.get(), 0);
    }
}

#[test]
fn a_file_that_is_compressed_while_it_is_read_goes_on_in_its_copy() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(10);
    round(&mut tailer);
    bed.store.refuses.store(true, Ordering::Relaxed);
    bed.write(10);
    bed.rotate("20261121-205058");
    bed.write(5);
    round(&mut tailer);
    gzip(&bed.rotated("20261121-205058"), &bed.rotated("20261121-205058.gz"));
    round(&mut tailer);
    fs::remove_file(bed.rotated("20261121-205058")).unwrap();
    round(&mut tailer);
    bed.store.refuses.store(false, Ordering::Relaxed);
    round_until(&mut tailer, || bed.store.count() >= bed.written);
    assert_eq!(bed.store.lines(), bed.want());
    assert_eq!(bed.telemetry.lost_bytes.get(), 0);
}

#[test]
fn a_deleted_file_is_spooled_while_the_store_is_away_and_found_after_a_restart() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(10);
    round(&mut tailer);
    bed.store.refuses.store(true, Ordering::Relaxed);
    bed.write(2000);
    bed.rotate("20261121-205058");
    bed.write(3);
    round(&mut tailer);
    bed.write(3);
    bed.rotate("20261121-205059");
    bed.write(3);
    round(&mut tailer);
    bed.compress("20261121-205058");
    round(&mut tailer);
    fs::remove_file(bed.rotated("20261121-205058.gz")).unwrap();
    fs::remove_file(bed.rotated("20261121-205059")).unwrap();
    round(&mut tailer);
    bed.wait(3);
    round(&mut tailer);
    drop(tailer);
    let mut tailer = bed.tailer();
    bed.store.refuses.store(false, Ordering::Relaxed);
    round_until(&mut tailer, || bed.store.count() >= bed.written);
    assert_eq!(bed.store.lines(), bed.want());
    bed.wait(3);
    round(&mut tailer);
    assert_eq!(fs::read_dir(bed.dir.path().join("state/spool")).unwrap().count(), 0);
    assert_eq!(bed.telemetry.lost_bytes.get(), 0);
}

#[test]
fn what_the_spool_has_no_room_for_is_lost_to_the_byte() {
    let mut bed = Bed::new();
    let input = Input::Containers(bed.dir.path().join("containers"));
    let spool = SpoolLimits { bytes: 0, ..SpoolLimits::default() };
    let mut tailer = bed.tailer_of(Options { spool, ..bed.options(input) });
    bed.write(10);
    round(&mut tailer);
    let acknowledged = fs::metadata(bed.log()).unwrap().len();
    bed.store.refuses.store(true, Ordering::Relaxed);
    bed.write(30);
    bed.rotate("20261121-205058");
    bed.write(3);
    round(&mut tailer);
    // Two packs are with the sender, which has them whatever becomes of the file.
    let size = fs::metadata(bed.rotated("20261121-205058")).unwrap().len();
    let mut more = OpenOptions::new().append(true).open(bed.rotated("20261121-205058")).unwrap();
    more.write_all(b"2026-11-21T20:50:57.5Z stdout F unread\n").unwrap();
    fs::remove_file(bed.rotated("20261121-205058")).unwrap();
    round(&mut tailer);
    bed.wait(3);
    round(&mut tailer);
    bed.store.refuses.store(false, Ordering::Relaxed);
    round_until(&mut tailer, || bed.store.count() >= 43);
    let lost = bed.telemetry.lost_bytes.get();
    let stored = bed.store.lines().iter().filter(|line| *line == "unread").count() as u64;
    assert!(size > acknowledged);
    assert_eq!(lost + stored * 39, 39, "what is not stored is counted");
}

#[test]
fn what_went_while_nobody_ran_is_said() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(10);
    round(&mut tailer);
    bed.store.refuses.store(true, Ordering::Relaxed);
    bed.write(10);
    round(&mut tailer);
    let unread = 10 * "2026-11-21T20:50:57.000000001Z stdout F line 10\n".len() as u64;
    tailer.save();
    drop(tailer);
    fs::remove_file(bed.log()).unwrap();
    bed.store.refuses.store(false, Ordering::Relaxed);
    let tailer = bed.tailer();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| tailer.run(&stop));
        for _ in 0..600 {
            std::thread::sleep(Duration::from_millis(10));
            if bed.telemetry.lost_bytes.get() > 0 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(bed.telemetry.lost_bytes.get(), unread);
}

#[test]
fn a_checkpoint_that_is_old_makes_nothing_lost() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(10);
    tailer.scan();
    tailer.ask();
    tailer.settle(Duration::from_millis(100));
    tailer.save();
    round(&mut tailer);
    assert_eq!(bed.store.count(), 10);
    drop(tailer);
    fs::remove_file(bed.log()).unwrap();
    let mut tailer = bed.tailer();
    tailer.scan();
    tailer.find_lost();
    round(&mut tailer);
    assert_eq!(bed.telemetry.lost_bytes.get(), 0, "the store has it all");
}

#[test]
fn a_trace_that_grew_after_it_was_given_out_and_a_crash_loses_no_line() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57.1Z stdout F started\n");
    round(&mut tailer);
    tailer.save();
    bed.raw("2026-11-21T20:50:57.2Z stdout F java.lang.IllegalStateException: no\n");
    round(&mut tailer);
    bed.wait(2);
    round(&mut tailer);
    assert_eq!(bed.store.count(), 2, "its beginning was given out");
    drop(tailer);
    bed.raw("2026-11-21T20:50:58.1Z stdout F \tat a.B.c(B.java:1)\n");
    round(&mut bed.tailer());
    assert_eq!(
        bed.store.lines()[2..],
        ["\tat a.B.c(B.java:1)"],
        "the checkpoint is older than what the store has"
    );
}

#[test]
fn a_directory_that_vanishes_and_comes_back_is_read_again() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(3);
    round(&mut tailer);
    fs::rename(bed.dir.path().join("pods"), bed.dir.path().join("away")).unwrap();
    fs::create_dir_all(bed.dir.path().join(CONTAINER)).unwrap();
    bed.write(3);
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want());
}

#[test]
fn a_file_that_cannot_be_read_holds_no_other_back() {
    let mut bed = Bed::new();
    bed.write(3);
    bed.rotate("20261121-205058");
    bed.write(2);
    // Another file system's, such as a directory that is bound there: it cannot be opened as a file.
    fs::create_dir(bed.rotated("20261121-205059")).unwrap();
    std::os::unix::fs::symlink("nowhere", bed.rotated("20261121-205057.gz")).unwrap();
    fs::write(bed.rotated("20261121-205056.gz"), "no gzip at all").unwrap();
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want());
}

#[test]
fn a_store_that_lost_what_it_had_is_sent_what_is_still_there() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(3);
    round(&mut tailer);
    tailer.save();
    drop(tailer);
    *bed.store.state.lock().unwrap() = Default::default();
    bed.write(1);
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want());
}

#[test]
fn what_stands_in_files_and_what_was_acknowledged_is_reported() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(10);
    round(&mut tailer);
    bed.rotate("20261121-205058");
    bed.write(5);
    bed.store.refuses.store(true, Ordering::Relaxed);
    round(&mut tailer);
    let report = tailer.report();
    let [container] = &report.containers[..] else { panic!("{report:?}") };
    let line = "2026-11-21T20:50:57.000000001Z stdout F line 1\n".len() as u64;
    let names = [&container.namespace, &container.pod, &container.container];
    assert_eq!(names, ["shop", "payment-7d9f8b6c5-x2x4z", "app"]);
    assert_eq!((container.files, container.lost), (2, 0));
    assert_eq!((container.acknowledged, container.bytes), (10 * line, 15 * line + 5));
}

#[test]
fn partial_lines_are_joined_by_stream_and_survive_a_restart() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout P one \n2026-11-21T20:50:57Z stderr F whole\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), [""; 0], "what stands behind an open line waits");
    drop(tailer);
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout P two \n2026-11-21T20:50:57Z stdout F three\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), ["one two three", "whole"]);
    bed.raw("2026-11-21T20:50:57Z stdout P orphan\n");
    round(&mut tailer);
    assert_eq!(bed.store.count(), 2);
    bed.wait(31);
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
    let odd = b"\x00\xff\xfe\x1b[31m\xe2\x80\xa8\xef\xbb\xbf \r ";
    bed.raw_bytes(&[&b"2026-11-21T20:50:58Z stdout F "[..], odd, b"\n"].concat());
    round(&mut tailer);
    assert_eq!(bed.store.state.lock().unwrap().1.last().unwrap().message, odd, "byte for byte (L13)");
}

#[test]
fn a_line_without_end_costs_bounded_memory_and_not_the_lines_after_it() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw(&format!("2026-11-21T20:50:57Z stdout F {}\n", "x".repeat(9 << 20)));
    bed.raw("2026-11-21T20:50:57Z stdout F after\n");
    round(&mut tailer);
    let entries = bed.store.state.lock().unwrap().1.clone();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].message.len(), 1 << 20);
    let said: Vec<&str> = entries[0].fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(said, ["truncated", "orig_len"]);
    let want = binnacle_model::push::PushValue::Int(9 << 20);
    assert_eq!(entries[0].fields[1].value.as_ref().unwrap(), &want);
    assert_eq!(entries[1].message, b"after");
}

#[test]
fn an_endless_partial_line_is_given_out_cut_and_holds_nothing_back() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    let piece = format!("2026-11-21T20:50:57Z stdout P {}\n", "x".repeat(16_000));
    bed.raw(&piece.repeat(400));
    bed.raw("2026-11-21T20:50:57Z stderr F beside\n");
    round(&mut tailer);
    let lengths = |bed: &Bed| bed.store.lines().iter().map(String::len).collect::<Vec<_>>();
    assert_eq!(lengths(&bed), [1 << 20, 6]);
    tailer.save();
    drop(tailer);
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout F its end\n2026-11-21T20:50:57Z stdout F next\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "next");
    assert_eq!(bed.store.count(), 3);
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
    assert_eq!(bed.store.count(), 6);
    // Grown beyond its old length meanwhile, so that its size tells nothing.
    let longer = (0..9).map(|i| {
        format!(
            "2026-11-21T20:51:0{i}Z stdout F other {i}
"
        )
    });
    let longer = longer.collect::<Vec<_>>().concat();
    fs::write(bed.log(), longer).unwrap();
    round(&mut tailer);
    assert_eq!(bed.store.count(), 15);
    assert_eq!(bed.telemetry.files_truncated.get(), 2);
    assert_eq!(bed.telemetry.lost_bytes.get(), 0);
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

mod journal;
mod plain;
mod random;
