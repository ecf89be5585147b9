//! What is known of pods lives as long as their lines.

use binnacle_model::storage::{PodCatalog, PodMetadata, PodSink};

use super::upkeep::{open, options, seal};
use super::*;

/// A line of a pod of its own.
fn push_of(uid: &str, hour: i64) -> LogPush {
    let mut push = push(uid, 0..1);
    push.batches[0].stream.push(Pair { name: "pod_uid".into(), value: uid.into() });
    push.batches[0].entries[0].time_ns = hour * HOUR_MS * 1_000_000;
    push
}

fn between(store: &Store, hours: (i64, i64)) -> Vec<String> {
    let at = |hour: i64| LogTime(hour * HOUR_MS * 1_000_000);
    let groups = store.pods_between(at(hours.0), at(hours.1));
    let mut pods: Vec<String> =
        groups.iter().flat_map(|group| &group.pods).map(ToString::to_string).collect();
    pods.sort();
    pods
}

#[test]
fn sixty_days_of_pods_that_come_and_go_stay_bounded() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let store = open(&disk, &clock, Catalog::in_memory(), options(Vec::new())).unwrap();
    let mut most = 0;
    for hour in 0..24 * 60 {
        clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
        let uid = format!("u{hour}");
        let labels = Labels::new([("team", format!("t{hour}"))]).unwrap();
        store.save_pods(&[PodMetadata { uid: uid.clone(), labels }]).unwrap();
        let received = LogTime(hour * HOUR_MS * 1_000_000);
        LogAppender::append(&store, push_of(&uid, hour), received).unwrap();
        if hour % 12 == 0 {
            assert!(seal(&store, &disk));
        }
        store.maintain().unwrap();
        most = most.max(store.catalog.pods_held());
    }
    // Seven days of retention, the day that is not over, and what one round leaves for the next.
    assert!((24 * 7..24 * 10).contains(&most), "{most}");
    assert!(store.pod("u0").is_none() && store.pod("u1300").is_some());
    let last = 24 * 60;
    assert_eq!(between(&store, (last - 3, last - 1)), ["u1437", "u1438"]);
    store.close();
}

#[test]
fn what_was_noted_of_lines_survives_a_crash_and_spares_lines_from_before() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let dir = tempfile::tempdir().unwrap();
    let catalog = |name: &str| Catalog::open(&dir.path().join(name)).unwrap();
    let store = open(&disk, &clock, catalog("a"), options(Vec::new())).unwrap();
    let labels = Labels::new([("team", "t")]).unwrap();
    let pods = ["early", "late"].map(|uid| PodMetadata { uid: uid.into(), labels: labels.clone() });
    store.save_pods(&pods).unwrap();
    LogAppender::append(&store, push_of("early", 1), LogTime(0)).unwrap();
    assert!(seal(&store, &disk));
    store.maintain().unwrap();
    LogAppender::append(&store, push_of("late", 5), LogTime(1)).unwrap();
    let crashed = disk.crash(1);
    drop(store);
    let store = open(&crashed, &clock, catalog("a"), options(Vec::new())).unwrap();
    assert_eq!(between(&store, (0, 3)), ["early"]);
    assert_eq!(between(&store, (5, 6)), ["late"], "by the log");
    assert!(seal(&store, &crashed));
    store.close();
    drop(store);
    // With another catalog nobody knows of which pods the lines are that are there.
    let store = open(&crashed, &clock, catalog("b"), options(Vec::new())).unwrap();
    store.save_pods(&pods).unwrap();
    assert_eq!(between(&store, (0, 3)), ["early", "late"]);
    store.close();
}
