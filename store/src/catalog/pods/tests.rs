use binnacle_model::push::{FileBatch, Pair, PushEntry, PushField};

use super::*;

const HOUR: i64 = 3600;

fn pod(uid: &str, team: &str) -> PodMetadata {
    PodMetadata { uid: uid.to_owned(), labels: Labels::new([("team", team), ("zone", "a")]).unwrap() }
}

fn at(seconds: i64) -> LogTime {
    LogTime(seconds * NS_PER_SECOND)
}

/// A line of a pod at each of some times.
fn lines(uid: &str, own: &[(&str, &str)], seconds: &[i64]) -> LogPush {
    let pair = |(name, value): &(&str, &str)| Pair { name: (*name).into(), value: (*value).into() };
    let stream = [("pod_uid", uid)].iter().chain(own).map(pair).collect();
    let entry = |time: &i64| PushEntry { time_ns: at(*time).0, ..PushEntry::default() };
    let entries = seconds.iter().map(entry).collect();
    LogPush { batches: vec![FileBatch { stream, entries, ..FileBatch::default() }] }
}

fn shown(catalog: &Catalog, span: Option<(i64, i64)>) -> Vec<(String, Option<String>, Vec<String>)> {
    let groups = catalog.pods_between(span.map(|(start, end)| (at(start), at(end))));
    let one = |group: PodGroup| {
        let own = group.own.map(|own| own.to_string());
        (group.known.value("team").to_owned(), own, group.pods.iter().map(ToString::to_string).collect())
    };
    let mut all: Vec<_> = groups.into_iter().map(one).collect();
    all.sort();
    all
}

fn team(team: &str, own: Option<&str>, pods: &[&str]) -> (String, Option<String>, Vec<String>) {
    (team.to_owned(), own.map(str::to_owned), pods.iter().map(ToString::to_string).collect())
}

#[test]
fn what_is_said_last_of_a_pod_is_known_also_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    let catalog = Catalog::open(&path).unwrap();
    catalog.save_pods(&[pod("a", "pay"), pod("b", "pay"), pod("c", "shop")], at(1)).unwrap();
    let generation = catalog.pods_generation();
    catalog.save_pods(&[pod("b", "pay")], at(2)).unwrap();
    assert_eq!(catalog.pods_generation(), generation, "nothing new");
    catalog.save_pods(&[pod("b", "shop")], at(3)).unwrap();
    assert!(catalog.pods_generation() > generation);
    let want = vec![team("pay", None, &["a"]), team("shop", None, &["b", "c"])];
    assert_eq!(shown(&catalog, None), want);
    assert_eq!(catalog.pod("b").unwrap().value("team"), "shop");
    assert_eq!(catalog.pod("d"), None);
    drop(catalog);
    assert_eq!(shown(&Catalog::open(&path).unwrap(), None), want);
}

#[test]
fn pods_are_known_by_the_hours_of_their_lines_also_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    let catalog = Catalog::open(&path).unwrap();
    // Lines come before anybody knows the pod.
    catalog.note_lines(&lines("a", &[("app", "x")], &[5 * HOUR + 7, 3 * HOUR]), at(9 * HOUR));
    catalog.note_lines(&lines("b", &[], &[7 * HOUR]), at(9 * HOUR));
    catalog.note_lines(&lines("no identity", &[], &[7 * HOUR]), at(9 * HOUR));
    let all: Vec<PodMetadata> = ["a", "b", "c"].map(|uid| pod(uid, "pay")).into();
    catalog.save_pods(&all, at(9 * HOUR)).unwrap();
    // One says different things, another says something in a line.
    catalog.note_lines(&lines("d", &[("app", "x")], &[20 * HOUR]), at(20 * HOUR));
    catalog.note_lines(&lines("d", &[("app", "y")], &[20 * HOUR]), at(20 * HOUR));
    let mut told = lines("e", &[], &[20 * HOUR]);
    told.batches[0].entries[0].fields = vec![PushField { name: "label.tier".into(), value: None }];
    catalog.note_lines(&told, at(20 * HOUR));
    catalog.save_pods(&[pod("d", "shop"), pod("e", "shop")], at(20 * HOUR)).unwrap();
    for _ in 0..2 {
        let catalog = Catalog::open(&path).unwrap();
        let of = |start, end| shown(&catalog, Some((start, end)));
        assert_eq!(of(0, 3 * HOUR), [], "the end is not in the span");
        let a = team("pay", Some(r#"{app="x"}"#), &["a"]);
        assert_eq!(of(4 * HOUR, 5 * HOUR), std::slice::from_ref(&a));
        assert_eq!(of(5 * HOUR + 1800, 8 * HOUR), [a, team("pay", Some("{}"), &["b"])]);
        assert_eq!(of(8 * HOUR, 30 * HOUR), [team("shop", None, &["d", "e"])]);
        assert_eq!(shown(&catalog, None).iter().map(|one| one.2.len()).sum::<usize>(), 5);
    }
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    let catalog = Catalog::open(&path).unwrap();
    catalog.note_lines(&lines("a", &[], &[0]), at(0));
    catalog.connection().pragma_update(None, "query_only", true).unwrap();
    assert!(catalog.save_noted().is_err());
    assert!(catalog.save_pods(&[pod("a", "pay")], at(0)).is_err());
    catalog.connection().pragma_update(None, "query_only", false).unwrap();
    catalog.save_pods(&[pod("a", "pay")], at(0)).unwrap();
    drop(catalog);
    let again = Catalog::open(&path).unwrap();
    assert_eq!(shown(&again, Some((0, 1))), [team("pay", Some("{}"), &["a"])]);
}

#[test]
fn of_too_many_pods_those_seen_last_are_kept() {
    let catalog = Catalog::in_memory();
    catalog.save_pods(&[pod("first", "t"), pod("second", "t")], at(0)).unwrap();
    for number in 0..3000 {
        catalog.note_lines(&lines(&format!("unknown{number}"), &[], &[9]), at(10 * HOUR));
    }
    assert!(catalog.pods_held() <= 1100, "{}", catalog.pods_held());
    assert!(catalog.pod("first").is_some(), "of which something is known");
    catalog.save_pods(&[pod("second", "t")], at(2 * HOUR)).unwrap();
    let many: Vec<PodMetadata> = (0..1100).map(|number| pod(&format!("p{number}"), "u")).collect();
    catalog.save_pods(&many, at(3 * HOUR)).unwrap();
    assert!(catalog.pods_held() <= 1100);
    assert!(catalog.pod("first").is_none() && catalog.pod("p7").is_some());
    let count = |table: &str| -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        catalog.connection().query_row(&query, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count("pods"), catalog.pods_held() as i64);
    assert!(count("pod_labels") <= 2);
}
