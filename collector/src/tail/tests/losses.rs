//! A store that is away, or forgot; what is deleted before it has it, and what is said of that.

use super::*;

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
fn a_request_that_comes_late_takes_nothing_from_those_behind_it() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57.1Z stdout F started\n");
    round(&mut tailer);
    bed.raw("2026-11-21T20:50:57.2Z stdout F java.lang.IllegalStateException: no\n");
    round(&mut tailer);
    bed.wait(2);
    bed.store.refuses.store(true, Ordering::Relaxed);
    round_until(&mut tailer, || !bed.store.late.lock().unwrap().is_empty());
    drop(tailer);
    bed.store.refuses.store(false, Ordering::Relaxed);
    bed.raw("2026-11-21T20:50:58.1Z stdout F \tat a.B.c(B.java:1)\n");
    let mut tailer = bed.tailer();
    tailer.scan();
    tailer.ask();
    tailer.settle(Duration::from_millis(100));
    bed.wait(2);
    tailer.fill();
    // It has been read from the first line on, and the next pack goes on behind it.
    bed.store.arrive();
    bed.raw("2026-11-21T20:50:59.1Z stdout F \tat a.B.d(B.java:2)\n2026-11-21T20:50:59.2Z stdout F on\n");
    tailer.send();
    tailer.scan();
    tailer.fill();
    tailer.send();
    tailer.settle(Duration::from_millis(100));
    bed.wait(2);
    round(&mut tailer);
    let want = [
        "started",
        "java.lang.IllegalStateException: no",
        "\tat a.B.c(B.java:1)",
        "\tat a.B.d(B.java:2)",
        "on",
    ];
    assert_eq!(bed.store.lines(), want);
    assert_eq!((bed.telemetry.overtaken.get(), bed.telemetry.duplicates.get()), (1, 0));
}

#[test]
fn two_collectors_of_one_node_lose_and_double_nothing() {
    let mut bed = Bed::new();
    let mut other = bed.options(Input::Containers(bed.dir.path().join("containers")));
    other.state_dir = bed.dir.path().join("other");
    let mut tailers = [bed.tailer(), bed.tailer_of(other)];
    for step in 0..40 {
        bed.write(7);
        if step % 10 == 9 {
            bed.rotate(&format!("20261121-2{step:05}"));
            bed.write(3);
        }
        let tailer = &mut tailers[step % 2];
        tailer.scan();
        tailer.ask();
        tailer.settle(Duration::from_millis(100));
        tailer.fill();
        tailers[usize::from(step % 3 == 0)].send();
        tailers[step % 2].settle(Duration::from_millis(100));
    }
    for tailer in &mut tailers {
        round(tailer);
    }
    assert_eq!(bed.store.lines(), bed.want());
    assert!(bed.telemetry.overtaken.get() > 0);
    assert_eq!(bed.telemetry.lost_bytes.get(), 0);
}

#[test]
fn what_an_earlier_process_read_is_not_lost_if_it_goes_before_it_is_opened() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(10);
    round(&mut tailer);
    // Of this nothing is in the checkpoint; the store has the first half of it.
    tailer.save();
    bed.write(10);
    round(&mut tailer);
    let stored = fs::metadata(bed.log()).unwrap().len();
    drop(tailer);
    bed.write(10);
    let size = fs::metadata(bed.log()).unwrap().len();
    let mut tailer = bed.tailer();
    tailer.list();
    fs::remove_file(bed.log()).unwrap();
    for _ in 0..3 {
        bed.wait(3);
        round(&mut tailer);
    }
    tailer.find_lost();
    round(&mut tailer);
    assert_eq!(bed.telemetry.lost_bytes.get(), size - stored);
    assert_eq!(lost_of_gone(&mut tailer), Some(size - stored));
}

#[test]
fn a_question_for_all_files_moves_none() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(3);
    round(&mut tailer);
    bed.store.asked.lock().unwrap().clear();
    tailer.ask_for_all();
    bed.write(2);
    round(&mut tailer);
    assert_eq!(bed.store.asked.lock().unwrap().len(), 1);
    assert_eq!(bed.store.lines(), bed.want());
    assert_eq!(bed.telemetry.duplicates.get(), 0);
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

/// What is said to be lost of a container that has no files any more.
fn lost_of_gone(tailer: &mut Tailer) -> Option<u64> {
    let report = tailer.report();
    let [one] = &report.containers[..] else { return None };
    let is_gone = (&*one.namespace, &*one.pod, &*one.container, one.files) == ("shop", "", "app", 0);
    is_gone.then_some(one.lost)
}

#[test]
fn what_was_lost_while_nobody_ran_is_in_reports() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(1);
    round(&mut tailer);
    let stored = fs::metadata(bed.log()).unwrap().len();
    bed.store.refuses.store(true, Ordering::Relaxed);
    bed.write(4);
    round(&mut tailer);
    let unread = fs::metadata(bed.log()).unwrap().len() - stored;
    tailer.save();
    drop(tailer);
    fs::remove_file(bed.log()).unwrap();
    bed.store.refuses.store(false, Ordering::Relaxed);
    let mut tailer = bed.tailer();
    tailer.scan();
    tailer.find_lost();
    round(&mut tailer);
    assert_eq!(lost_of_gone(&mut tailer), Some(unread));
}

#[test]
fn what_was_lost_of_a_pod_that_is_gone_stays_in_reports() {
    let mut bed = Bed::new();
    let input = Input::Containers(bed.dir.path().join("containers"));
    let spool = SpoolLimits { bytes: 0, ..SpoolLimits::default() };
    let mut tailer = bed.tailer_of(Options { spool, ..bed.options(input) });
    bed.write(1);
    round(&mut tailer);
    bed.store.refuses.store(true, Ordering::Relaxed);
    // More than the packs that may be under way.
    let line = format!("2026-11-21T20:50:57.5Z stdout F {}\n", "unread ".repeat(30));
    bed.raw(&line.repeat(100_000));
    round(&mut tailer);
    fs::remove_dir_all(bed.dir.path().join("pods")).unwrap();
    round(&mut tailer);
    bed.wait(5);
    round(&mut tailer);
    bed.store.refuses.store(false, Ordering::Relaxed);
    for _ in 0..60 {
        round(&mut tailer);
        if lost_of_gone(&mut tailer).is_some() {
            break;
        }
    }
    let lost = bed.telemetry.lost_bytes.get();
    assert!(lost > 0);
    assert_eq!(lost_of_gone(&mut tailer), Some(lost));
}
