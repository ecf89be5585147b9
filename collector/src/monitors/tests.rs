use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::assets::AssetRef;
use super::set::{Name, Object, Set};
use super::*;
use crate::scrape::Pool;

fn set(telemetry: &MonitorTelemetry) -> Set {
    let raw: RawMonitors = serde_saphyr::from_str("true").unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    Set::new(raw.check().unwrap().unwrap(), &Access::InCluster, telemetry, (&tasks, &stop))
}

fn name(kind: Kind, name: &str) -> Name {
    (kind, format!("shop/{name}").into())
}

fn object(name: &str, spec: &Value) -> Object {
    let meta = serde_json::from_value(json!({"namespace": "shop", "name": name})).unwrap();
    Object { meta: Arc::new(meta), spec: Arc::new(spec.clone()) }
}

fn note(set: &mut Set, kind: Kind, of: &str, spec: &Value) {
    set.note(name(kind, of), Some(object(of, spec)));
}

fn jobs(pools: &[Arc<Pool>]) -> Vec<&str> {
    pools.iter().map(|pool| pool.job.as_str()).collect()
}

fn endpoint(more: &Value) -> Value {
    json!({"endpoints": [more]})
}

#[test]
fn what_did_not_change_goes_on_and_what_is_wrong_costs_itself() {
    let telemetry = MonitorTelemetry::default();
    let mut set = set(&telemetry);
    let defaults = Defaults::default();
    note(&mut set, Kind::Service, "a", &json!({"endpoints": [{"port": "x"}, {"port": "y"}]}));
    note(&mut set, Kind::Service, "b", &endpoint(&json!({})));
    note(&mut set, Kind::Pod, "a", &json!({"podMetricsEndpoints": [{}]}));
    note(&mut set, Kind::Probe, "a", &json!({"module": "m", "targets": {"staticConfig": {}}}));
    let first = set.pools(&defaults);
    let all = [
        "serviceMonitor/shop/a/0",
        "serviceMonitor/shop/a/1",
        "serviceMonitor/shop/b/0",
        "podMonitor/shop/a/0",
    ];
    assert_eq!(jobs(&first), all, "no section `probes` is there");
    assert_eq!((telemetry.pools.get(), telemetry.discoveries.get()), (4, 2), "of services one, of pods one");
    assert!(!set.has_changed());

    note(&mut set, Kind::Service, "a", &json!({"endpoints": [{"port": "x"}, {"port": "z"}]}));
    note(&mut set, Kind::Service, "b", &endpoint(&json!({"scrapeTimeout": "soon"})));
    let second = set.pools(&defaults);
    assert_eq!(jobs(&second), [all[0], all[1], all[3]]);
    let same = |at: usize, was: usize| Arc::ptr_eq(&second[at], &first[was]);
    assert_eq!((same(0, 0), same(1, 1), same(2, 3)), (true, false, true));

    note(&mut set, Kind::Service, "b", &endpoint(&json!({})));
    set.note(name(Kind::Pod, "a"), None);
    assert_eq!(jobs(&set.pools(&defaults)), &all[..3]);
    set.all_changed();
    let third = set.pools(&Defaults { print: 1, ..Defaults::default() });
    assert!(third.iter().zip(&second).all(|(one, other)| one.print != other.print), "`global` is another");
}

#[test]
fn a_secret_that_changes_makes_its_monitor_another() {
    let telemetry = MonitorTelemetry::default();
    let mut set = set(&telemetry);
    let defaults = Defaults::default();
    let with_secret = endpoint(&json!({"bearerTokenSecret": {"name": "s", "key": "k"}}));
    note(&mut set, Kind::Service, "a", &with_secret);
    note(&mut set, Kind::Service, "b", &endpoint(&json!({})));
    let asked: Vec<AssetRef> = set.unknown().into_iter().collect();
    assert_eq!((asked.len(), asked[0].namespace.as_str()), (1, "shop"));
    assert_eq!(jobs(&set.pools(&defaults)), ["serviceMonitor/shop/b/0"], "nobody has answered");
    let with = |set: &mut Set, value: Result<&str, &str>| {
        let value = value.map(|text| text.to_owned().into()).map_err(str::to_owned);
        let is_news = set.assets.put(asked[0].clone(), value);
        set.values_changed(&BTreeSet::from([asked[0].clone()]).into_iter().filter(|_| is_news).collect());
        set.pools(&defaults)
    };
    let one = with(&mut set, Ok("one"));
    let same = with(&mut set, Ok("one"));
    let two = with(&mut set, Ok("two"));
    assert_eq!(one.len(), 2);
    assert!(Arc::ptr_eq(&one[0], &same[0]) && Arc::ptr_eq(&one[1], &two[1]));
    assert_ne!(one[0].print, two[0].print);
    assert!(!format!("{two:?}").contains("two"), "{two:?}");
    assert_eq!(jobs(&with(&mut set, Err("gone"))), ["serviceMonitor/shop/b/0"]);
}

#[test]
fn there_is_room_for_so_many() {
    let telemetry = MonitorTelemetry::default();
    let mut set = set(&telemetry);
    let endpoints: Vec<Value> = (0..100).map(|_| json!({"relabelings": []})).collect();
    for at in 0..=101 {
        let of = format!("m{at:03}");
        note(&mut set, Kind::Pod, &of, &json!({"podMetricsEndpoints": endpoints}));
    }
    let defaults = Defaults::default();
    assert_eq!(set.pools(&defaults).len(), 10_000);
    set.note(name(Kind::Pod, "m000"), None);
    let pools = set.pools(&defaults);
    assert_eq!((pools.len(), pools.last().unwrap().job.as_str()), (10_000, "podMonitor/shop/m100/99"));
}
