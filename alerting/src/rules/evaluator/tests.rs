//! The life of an alert through evaluations and restarts, over a list of samples.

use binnacle_model::LogTime;
use binnacle_model::storage::{
    AppendError, AppendReport, LabelSets, Metadata, Series, SeriesDecoder, SeriesSet, StorageError,
};
use binnacle_model::{Matcher, TimeRange};

use super::super::file::parse_rules;
use super::*;

#[derive(Default)]
struct World {
    series: Mutex<BTreeMap<Labels, Vec<Sample>>>,
    sent: Mutex<Vec<SentAlert>>,
    broken: std::sync::atomic::AtomicBool,
}

impl World {
    fn set(&self, name: &str, at: i64, value: f64) {
        let labels = Labels::new([("__name__", name), ("job", "a")]).unwrap();
        let sample = Sample { timestamp: Timestamp(at * 1000), value };
        self.series.lock().unwrap().entry(labels).or_default().push(sample);
    }

    fn values(&self, name: &str) -> Vec<String> {
        let series = self.series.lock().unwrap();
        let of_name = series.iter().filter(|(labels, _)| labels.metric_name() == name);
        of_name
            .flat_map(|(labels, samples)| {
                samples.iter().map(move |s| {
                    let stale = binnacle_model::sample::is_stale(s.value);
                    let value = if stale { "stale".to_owned() } else { s.value.to_string() };
                    format!("{} {} {value}", labels.value("alertstate"), s.timestamp.0 / 1000)
                })
            })
            .collect()
    }
}

impl Queryable for World {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StorageError::Broken("test".into()));
        }
        let series = self.series.lock().unwrap();
        let fits = |labels: &Labels| binnacle_model::matcher::all_match(matchers, labels);
        let found: Vec<_> = series
            .iter()
            .filter(|(labels, _)| fits(labels))
            .map(|(labels, samples)| {
                let samples = samples.iter().filter(|s| range.contains(s.timestamp)).copied();
                Ok(Series { labels: labels.clone(), samples: samples.collect(), ..Series::default() })
            })
            .collect();
        Ok(Box::new(found.into_iter()))
    }

    fn series(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        Ok(LabelSets::default())
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }
}

impl Appender for World {
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError> {
        let mut series = self.series.lock().unwrap();
        for one in batch {
            let samples = series.entry(decoder.decode(one.labels).unwrap()).or_default();
            for sample in one.samples {
                if !samples.iter().any(|known| known.timestamp == sample.timestamp) {
                    samples.push(*sample);
                }
            }
        }
        Ok(AppendReport::default())
    }

    fn append_metadata(&self, _: &[(String, Metadata)]) {}
}

impl AlertSink for World {
    fn receive(&self, alerts: Vec<SentAlert>) {
        self.sent.lock().unwrap().extend(alerts);
    }
}

struct Still;

impl Clock for Still {
    fn now_ns(&self) -> LogTime {
        LogTime(0)
    }
}

const RULES: &str = "
groups:
- name: g
  rules:
  - record: doubled
    expr: up * 2
  - alert: Down
    expr: doubled == 0
    for: 20s
    labels: {severity: page, who: '{{ $labels.job }}'}
    annotations: {summary: '{{ $labels.job }} has {{ $value | humanize }}'}
";

fn evaluator(world: &Arc<World>, db: &Arc<AlertDb>) -> Evaluator {
    let settings = Settings {
        interval: Duration::from_secs(10),
        external_labels: Labels::new([("cluster", "c")]).unwrap(),
        external_url: "http://b".to_owned(),
        limits: Limits::default(),
    };
    Evaluator::new(
        parse_rules("r.yml", RULES).unwrap(),
        settings,
        world.clone(),
        world.clone(),
        db.clone(),
        world.clone(),
        Arc::new(Still),
        Telemetry::default(),
    )
    .unwrap()
}

fn states(evaluator: &Evaluator) -> Vec<&'static str> {
    evaluator.status()[0].rules[1].alerts.iter().map(|alert| alert.state.as_str()).collect()
}

#[test]
fn an_alert_lives_through_restarts_and_failures() {
    let world = Arc::new(World::default());
    let db = Arc::new(AlertDb::in_memory().unwrap());
    world.set("up", 0, 0.0);
    evaluator(&world, &db).evaluate(0, Timestamp(0), &Deadline::default());
    // A restart between any two evaluations changes nothing.
    let second = evaluator(&world, &db);
    assert_eq!(states(&second), ["pending"]);
    second.evaluate(0, Timestamp(10_000), &Deadline::default());
    let third = evaluator(&world, &db);
    third.evaluate(0, Timestamp(20_000), &Deadline::default());
    assert_eq!(states(&third), ["firing"]);
    world.broken.store(true, std::sync::atomic::Ordering::Relaxed);
    third.evaluate(0, Timestamp(30_000), &Deadline::default());
    assert_eq!(states(&third), ["firing"], "an evaluation that fails changes no state");
    assert_eq!(third.status()[0].rules[1].health, RuleHealth::Err);
    world.broken.store(false, std::sync::atomic::Ordering::Relaxed);
    world.set("up", 40, 1.0);
    let fourth = evaluator(&world, &db);
    fourth.evaluate(0, Timestamp(40_000), &Deadline::default());
    assert_eq!(states(&fourth), ["inactive"]);
    let sent = world.sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 2, "one while firing, one when resolved");
    assert_eq!(
        sent[0].labels.to_string(),
        r#"{alertname="Down", cluster="c", job="a", severity="page", who="a"}"#
    );
    assert_eq!(sent[0].annotations.to_string(), r#"{summary="a has 0"}"#);
    assert_eq!((sent[0].starts_at, sent[0].ends_at), (Timestamp(20_000), None));
    assert_eq!(sent[0].generator_url, "http://b/graph?g0.expr=doubled+%3D%3D+0&g0.tab=1");
    assert_eq!(sent[1].ends_at, Some(Timestamp(40_000)));
    assert_eq!(world.values("ALERTS"), ["firing 20 1", "pending 0 1", "pending 10 1"]);
}

#[test]
fn series_of_rules_end_with_a_marker() {
    let world = Arc::new(World::default());
    let db = Arc::new(AlertDb::in_memory().unwrap());
    let evaluator = evaluator(&world, &db);
    world.set("up", 0, 0.0);
    evaluator.evaluate(0, Timestamp(0), &Deadline::default());
    world.set("up", 10, STALE_NAN);
    evaluator.evaluate(0, Timestamp(10_000), &Deadline::default());
    assert_eq!(world.values("doubled"), [" 0 0", " 10 stale"]);
    assert_eq!(world.values("ALERTS"), ["pending 0 1", "pending 10 stale"]);
}

#[test]
fn alerts_of_a_rule_that_is_gone_are_resolved() {
    let world = Arc::new(World::default());
    let db = Arc::new(AlertDb::in_memory().unwrap());
    world.set("up", 0, 0.0);
    let first = evaluator(&world, &db);
    first.evaluate(0, Timestamp(0), &Deadline::default());
    first.evaluate(0, Timestamp(20_000), &Deadline::default());
    db.save_rule("gone;Rule", Timestamp(0), first.status()[0].rules[1].alerts.iter()).unwrap();
    world.sent.lock().unwrap().clear();
    first.resolve_orphans(Timestamp(30_000)).unwrap();
    let sent = world.sent.lock().unwrap().clone();
    assert_eq!((sent.len(), sent[0].ends_at), (1, Some(Timestamp(30_000))));
    assert!(!db.rules().unwrap().contains(&"gone;Rule".to_owned()));
}
