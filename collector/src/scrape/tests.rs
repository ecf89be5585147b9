use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::storage::{AppendError, AppendReport, RawSeries, SeriesDecoder};

use super::super::pool::Pool;
use super::super::target::{PageSource, TargetStatus};
use super::*;
use crate::relabel::read_rules;

type Stored = Vec<(String, i64, f64)>;

#[derive(Default)]
struct Recorder(Mutex<Stored>);

impl Appender for Recorder {
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError> {
        let mut stored = self.0.lock().unwrap();
        for one in batch {
            let labels = decoder.decode(one.labels).unwrap().to_string();
            stored.push((labels, one.samples[0].timestamp.0, one.samples[0].value));
        }
        Ok(AppendReport::default())
    }

    fn append_metadata(&self, _: &[(String, Metadata)]) {}
}

struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now_ns(&self) -> LogTime {
        LogTime(self.0.fetch_add(1_000_000_000, Ordering::Relaxed))
    }
}

fn run(pages: &'static [&'static str], honor_labels: bool) -> (Stored, TargetStatus) {
    run_with(pages, honor_labels, "[]")
}

fn run_with(pages: &'static [&'static str], honor_labels: bool, rules: &str) -> (Stored, TargetStatus) {
    let (stored, status) = run_all(pages, honor_labels, rules);
    let own = |(series, ..): &(String, i64, f64)| !series.starts_with("scrape_");
    (stored.into_iter().filter(own).collect(), status)
}

fn run_all(pages: &'static [&'static str], honor_labels: bool, rules: &str) -> (Stored, TargetStatus) {
    let metric_relabel = read_rules("r", serde_saphyr::from_str(rules).unwrap()).unwrap();
    let next = AtomicI64::new(0);
    let page = move || match pages[next.fetch_add(1, Ordering::Relaxed) as usize] {
        "" => Err("refused".to_owned()),
        page => Ok(page.to_owned()),
    };
    let source = PageSource::Local("test", Arc::new(page));
    let mut target = Target::new("j", "i", source, Duration::from_secs(1), Duration::from_secs(1));
    target.pool = Arc::new(Pool { job: "j".to_owned(), honor_labels, metric_relabel, ..Pool::default() });
    let recorder = Arc::new(Recorder::default());
    let clock = Arc::new(Ticking(AtomicI64::new(0)));
    let target = Arc::new(target);
    rustls_ring();
    let tools = Tools {
        appender: recorder.clone(),
        clock,
        telemetry: Telemetry::default(),
        descriptions: Arc::default(),
        bounds: Arc::default(),
    };
    let mut run = Run::new(target.clone(), tools, None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in pages {
            run.scrape_once().await;
        }
    });
    let stored = recorder.0.lock().unwrap().clone();
    (stored, target.status())
}

fn rustls_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[test]
fn series_that_vanish_end_with_a_marker() {
    let (stored, status) = run(&["a 1\nb 2\n", "a 1\n", ""], false);
    let show: Vec<String> = stored
        .iter()
        .map(|(series, at, value)| {
            let value =
                if binnacle_model::sample::is_stale(*value) { "stale".into() } else { value.to_string() };
            format!("{} {} {value}", series.split('{').next().unwrap(), at / 1000)
        })
        .collect();
    let want = ["a 0 1", "b 0 2", "up 0 1", "a 1 1", "b 1 stale", "up 1 1", "a 2 stale", "up 2 0"];
    assert_eq!(show, want);
    assert_eq!((status.health, status.last_error.as_str()), (Health::Down, "refused"));
}

#[test]
fn a_malformed_page_fails_as_a_whole() {
    let (stored, status) = run(&["a 1\nb{ 2\n"], false);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].0, r#"up{instance="i", job="j"}"#);
    assert_eq!(status.last_error, "malformed page: line 2, column 4: a label's name was expected");
}

#[test]
fn labels_of_page_and_target_meet() {
    let (stored, _) = run(&["a{job=\"x\",exported_job=\"y\"} 1\n"], false);
    assert_eq!(stored[0].0, r#"a{exported_exported_job="x", exported_job="y", instance="i", job="j"}"#);
    let (stored, _) = run(&["a{job=\"x\"} 1\n"], true);
    assert_eq!(stored[0].0, r#"a{instance="i", job="x"}"#);
    // As the Pushgateway says that there is no instance.
    let (stored, _) = run(&["a{job=\"x\",instance=\"\"} 1\n"], true);
    assert_eq!(stored[0].0, r#"a{job="x"}"#);
}

#[test]
fn a_series_with_times_of_its_own_is_known_and_ends_without_a_marker() {
    let pages = &["a 1 1000\nb 2\n", "a 1 2000\nb 2\n", "b 2\n"];
    let (stored, _) = run_all(pages, false, "[]");
    let added: Vec<f64> = stored
        .iter()
        .filter(|(series, ..)| series.starts_with("scrape_series_added"))
        .map(|(.., value)| *value)
        .collect();
    assert_eq!(added, [2.0, 0.0, 0.0]);
    assert!(stored.iter().all(|(.., value)| !binnacle_model::sample::is_stale(*value)));
}

#[test]
fn rules_change_what_a_page_says_and_what_is_gone_costs_nothing_else() {
    let rules = "[{source_labels: [__name__], regex: 'b.*', action: drop},
        {source_labels: [__name__], regex: 'a(.*)', target_label: __name__, replacement: 'x$1'},
        {regex: 'job|up', action: labeldrop}]";
    let (stored, status) = run_with(&["a1 1\nb 2\n", "b 2\na1 1\nb3{c=\"d\"} 1\n", "b 1\n"], false, rules);
    let names: Vec<&str> = stored.iter().map(|(series, ..)| series.as_str()).collect();
    let (x, up) = ("x1{instance=\"i\"}", "up{instance=\"i\", job=\"j\"}");
    assert_eq!(names, [x, up, x, up, x, up]);
    assert!(binnacle_model::sample::is_stale(stored[4].2));
    assert_eq!(status.health, Health::Up);
    let (_, status) = run_with(&["a 1\n"], false, "[{regex: __name__, action: labeldrop}]");
    assert!(status.last_error.ends_with("the rules leave no metric name"), "{}", status.last_error);
}

fn own(stored: &Stored, name: &str) -> Vec<f64> {
    stored.iter().filter(|(series, ..)| series.starts_with(name)).map(|(.., value)| *value).collect()
}

#[test]
fn a_series_that_comes_twice_is_stored_once_and_counted_twice() {
    let (stored, status) = run_all(&["a 1\na 2\nb{c=\"d\",e=\"f\"} 3\nb{e=\"f\",c=\"d\"} 4\n"], false, "[]");
    let values: Vec<f64> = stored.iter().take(3).map(|(.., value)| *value).collect();
    assert_eq!(
        (values, status.health),
        (vec![1.0, 3.0, 4.0], Health::Up),
        "the store knows that two of b are one"
    );
    assert_eq!(own(&stored, "scrape_samples_scraped"), [4.0]);
    assert_eq!(own(&stored, "scrape_samples_post_metric_relabeling"), [4.0]);
}

#[test]
fn a_scrape_that_fails_says_how_far_it_came_and_forgets_nothing() {
    let (stored, _) = run_all(&["a 1\nb 2\n", "a 1\n{\n", "", "a 1\nb 2\n", "a{x=\"y\"} 1\n"], false, "[]");
    assert_eq!(own(&stored, "scrape_samples_scraped"), [2.0, 1.0, 0.0, 2.0, 1.0]);
    assert_eq!(own(&stored, "scrape_series_added"), [2.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(own(&stored, "up"), [1.0, 0.0, 0.0, 1.0, 1.0]);
    let ended = stored.iter().filter(|(.., value)| binnacle_model::sample::is_stale(*value)).count();
    assert_eq!(ended, 4, "a and b end with the second scrape, and again with the last one");
}

#[test]
fn a_series_that_is_written_in_another_way_goes_on() {
    let (stored, _) = run_all(&["a{b=\"c\",d=\"e\"} 1\n", "a{d=\"e\",b=\"c\"} 2\n"], false, "[]");
    assert!(stored.iter().all(|(.., value)| !binnacle_model::sample::is_stale(*value)), "{stored:?}");
}

#[test]
fn bounds_are_read_by_the_type_that_they_stand_under() {
    const PAGE: &str = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n# TYPE g gauge\ng_bucket{le=\"1\"} 1\n";
    let (stored, _) = run(&[PAGE], false);
    let names: Vec<&str> = stored.iter().map(|(series, ..)| series.as_str()).collect();
    let want = [
        r#"h_bucket{instance="i", job="j", le="1.0"}"#,
        r#"g_bucket{instance="i", job="j", le="1"}"#,
        r#"up{instance="i", job="j"}"#,
    ];
    assert_eq!(names, want);
}
