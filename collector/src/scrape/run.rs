//! The loop of a target.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use binnacle_model::storage::{AppendError, Appender, Exemplar, Metadata, RawExemplar, RawSeries};
use binnacle_model::time::Clock;
use binnacle_model::{Labels, STALE_NAN, Sample, Timestamp};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use super::labels::{OWN, SeriesLabels, tag};
use super::target::{Described, Health, PageSource, Target};
use crate::Telemetry;
use crate::exposition::{Format, Line, PageExemplar, decode_series, parse};
use crate::outgoing::chain;

/// Longest page, decompressed.
const PAGE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A page that takes longer to read than other tasks should wait.
const LARGE_PAGE_BYTES: usize = 256 * 1024;

/// What we can read, best first.
const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

type Kept = Weak<[(String, Metadata)]>;

/// The loop of a target.
pub(super) struct Run {
    target: Arc<Target>,
    appender: Arc<dyn Appender>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// The series of the last scrape that was taken, by the hash of their bytes.
    before: HashMap<u64, Box<[u8]>>,
    /// Those of them to which the page gave times of its own: they end without a marker.
    timed: HashSet<u64>,
    /// Those of that page that the rules let go.
    dropped: HashSet<u64>,
    decoder: Arc<SeriesLabels>,
    described: u64,
    descriptions: Arc<Descriptions>,
}

/// Descriptions that targets share, by their hash.
#[derive(Debug, Default)]
pub(super) struct Descriptions(Mutex<HashMap<u64, Kept>>);

impl Descriptions {
    fn share(&self, hash: u64, metadata: Vec<(String, Metadata)>) -> Described {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = known.get(&hash).and_then(Weak::upgrade);
        if let Some(shared) = shared.filter(|shared| **shared == *metadata) {
            return shared;
        }
        known.retain(|_, one| one.strong_count() > 0);
        let shared = Described::from(metadata);
        known.insert(hash, Arc::downgrade(&shared));
        shared
    }
}

/// A scrape, ready to be appended.
#[derive(Default)]
struct Scraped {
    series: Vec<(Box<[u8]>, Sample)>,
    /// Samples of the page, those among them that the rules let go.
    count: usize,
    /// Only if it is not that of the last page.
    metadata: Option<Described>,
    /// Series to which the page gave times of its own.
    timed: HashSet<u64>,
    /// With the bytes that name their series.
    exemplars: Vec<(Box<[u8]>, Exemplar)>,
}

impl Run {
    pub(super) fn new(
        target: Arc<Target>,
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        descriptions: Arc<Descriptions>,
    ) -> Self {
        let decoder = Arc::new(SeriesLabels::of(&target));
        Self {
            target,
            appender,
            clock,
            telemetry,
            before: HashMap::new(),
            timed: HashSet::new(),
            dropped: HashSet::new(),
            decoder,
            described: 0,
            descriptions,
        }
    }

    /// Scrapes until `stop` fires. A scrape already under way is finished first: the store never sees half of one.
    ///
    /// Series are not marked as ended then: whoever stops comes back, and rules would see a gap that is none.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        // Spread over the interval, so that many targets are not all scraped at once.
        let spread = xxh3_64(self.target.labels.to_string().as_bytes()) % 1000;
        let first = self.target.interval * spread as u32 / 1000;
        let mut ticks = time::interval_at(time::Instant::now() + first, self.target.interval);
        // A target that was slow for a minute must not get a minute's scrapes at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.scrape_once().await,
            }
        }
    }

    async fn scrape_once(&mut self) {
        let began = self.clock.now();
        let started = Instant::now();
        let fetched = self.fetch().await;
        let duration = started.elapsed();
        let read = fetched.and_then(|(page, format)| match page.len() {
            0..LARGE_PAGE_BYTES => self.read(&page, format, began),
            // Other tasks of this thread go on elsewhere meanwhile.
            _ => tokio::task::block_in_place(|| self.read(&page, format, began)),
        });
        self.telemetry.scrapes.inc();
        let (mut scraped, error) = match read {
            Ok(scraped) => (scraped, String::new()),
            Err(error) => (Scraped::default(), error),
        };
        let is_up = error.is_empty();
        if !is_up {
            self.telemetry.scrapes_failed.inc();
        }
        let (count, left) = (scraped.count, scraped.series.len());
        let now_there: HashMap<u64, Box<[u8]>> =
            scraped.series.iter().map(|(raw, _)| (xxh3_64(raw), raw.clone())).collect();
        let timed = std::mem::take(&mut scraped.timed);
        let added = now_there.keys().filter(|hash| !self.before.contains_key(hash)).count();
        scraped.series.extend(self.gone(&now_there, began));
        (self.before, self.timed) = (now_there, timed);
        let report = [
            ("up", f64::from(u8::from(is_up))),
            ("scrape_duration_seconds", duration.as_secs_f64()),
            ("scrape_samples_scraped", count as f64),
            ("scrape_samples_post_metric_relabeling", left as f64),
            ("scrape_series_added", added as f64),
        ];
        for (name, value) in report {
            let raw = [&[OWN], name.as_bytes()].concat();
            scraped.series.push((raw.into(), Sample { timestamp: began, value }));
        }
        let stored = self.append(scraped).await;
        let mut status = self.target.lock();
        status.health = if is_up { Health::Up } else { Health::Down };
        status.last_error = if is_up { stored } else { error };
        status.last_scrape = Some(began);
        status.last_duration = duration;
    }

    async fn fetch(&self) -> Result<(Vec<u8>, Format), String> {
        let url = match &self.target.source {
            PageSource::Http(url) => url.clone(),
            PageSource::Local(_, page) => {
                let page = Arc::clone(page);
                let made = tokio::task::spawn_blocking(move || page()).await;
                let page = made.map_err(|error| error.to_string())??.into_bytes();
                let is_open = page.ends_with(b"# EOF\n");
                let format = if is_open { Format::OpenMetrics } else { Format::Text };
                return Ok((page, format));
            }
        };
        let client = self.target.pool.client()?;
        let headers = self.target.pool.way.headers().await?;
        let seconds = self.target.timeout.as_secs_f64().to_string();
        let request = client
            .get(url)
            .timeout(self.target.timeout)
            .header("accept", ACCEPT)
            .header("x-prometheus-scrape-timeout-seconds", seconds)
            .headers(headers);
        let mut response = request.send().await.map_err(chain)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("server returned HTTP status {}", response.status()));
        }
        let content_type = response.headers().get("content-type");
        let format =
            content_type.and_then(|value| value.to_str().ok()).map_or(Format::Text, Format::of_content_type);
        let mut page = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(chain)? {
            if page.len() + chunk.len() > PAGE_MAX_BYTES {
                return Err(format!("body size limit exceeded: more than {PAGE_MAX_BYTES} bytes"));
            }
            page.extend_from_slice(&chunk);
        }
        Ok((page, format))
    }

    fn read(&mut self, page: &[u8], format: Format, began: Timestamp) -> Result<Scraped, String> {
        let mut rows: Vec<(Box<[u8]>, Sample)> = Vec::with_capacity(self.before.len());
        let mut metadata: HashMap<&str, Metadata> = HashMap::new();
        if page.is_empty() {
            return Ok(Scraped::default());
        }
        let keeps_times = !self.target.pool.ignore_timestamps;
        let mut exemplars = Vec::new();
        let mut timed = HashSet::new();
        parse(page, format, |line| match line {
            Line::Sample { series, value, timestamp, exemplar, family } => {
                let raw = &*[&[tag(family)], series].concat();
                let own_time = timestamp.filter(|_| keeps_times);
                if own_time.is_some() {
                    timed.insert(xxh3_64(raw));
                }
                rows.push((raw.into(), Sample { timestamp: own_time.unwrap_or(began), value }));
                exemplars.extend(exemplar.and_then(|one| read_exemplar(raw, &one, began)));
            }
            Line::Type(name, kind) => kind.clone_into(&mut metadata.entry(name).or_default().kind),
            Line::Help(name, help) => help.clone_into(&mut metadata.entry(name).or_default().help),
            Line::Unit(name, unit) => unit.clone_into(&mut metadata.entry(name).or_default().unit),
        })
        .map_err(|error| format!("malformed page: {error}"))?;
        let mut series = rows;
        let count = series.len();
        let gone = self.relabel(&series)?;
        if !gone.is_empty() {
            series.retain(|(raw, _)| !gone.contains(&xxh3_64(raw)));
            exemplars.retain(|(raw, _)| !gone.contains(&xxh3_64(raw)));
        }
        self.dropped = gone;
        let mut metadata: Vec<(String, Metadata)> =
            metadata.into_iter().map(|(name, one)| (name.to_owned(), one)).collect();
        metadata.sort_by(|a, b| a.0.cmp(&b.0));
        let hash = xxh3_64(format!("{metadata:?}").as_bytes());
        let is_new = hash != self.described;
        self.described = hash;
        let metadata = is_new.then(|| self.descriptions.share(hash, metadata));
        Ok(Scraped { series, count, metadata, timed, exemplars })
    }

    /// Those of `series` that the rules let go. Rules are asked for what is new alone.
    fn relabel(&self, series: &[(Box<[u8]>, Sample)]) -> Result<HashSet<u64>, String> {
        let mut gone = HashSet::new();
        for (raw, _) in series {
            let hash = xxh3_64(raw);
            if self.before.contains_key(&hash) {
                continue;
            }
            let text = || String::from_utf8_lossy(&raw[..raw.len().min(200)]).into_owned();
            let is_gone = self.dropped.contains(&hash)
                || self
                    .decoder
                    .read(raw)
                    .map_err(|error| format!("malformed page: {}: {error}", text()))?
                    .is_none();
            if is_gone {
                gone.insert(hash);
            }
        }
        Ok(gone)
    }

    /// Staleness markers for the series of the last scrape that are not in this one.
    fn gone(&self, now_there: &HashMap<u64, Box<[u8]>>, at: Timestamp) -> Vec<(Box<[u8]>, Sample)> {
        let has_ended = |hash: &u64| !now_there.contains_key(hash) && !self.timed.contains(hash);
        let ended = self.before.iter().filter(|(hash, _)| has_ended(hash));
        let marker = Sample { timestamp: at, value: STALE_NAN };
        ended.map(|(_, raw)| (raw.clone(), marker)).collect()
    }

    /// Appends a scrape; answers what went wrong, or nothing.
    async fn append(&self, scraped: Scraped) -> String {
        if scraped.series.is_empty() {
            return String::new();
        }
        let appender = Arc::clone(&self.appender);
        let target = Arc::clone(&self.target);
        let decoder = Arc::clone(&self.decoder);
        let stored = tokio::task::spawn_blocking(move || {
            if let Some(metadata) = &scraped.metadata {
                appender.append_metadata(metadata);
                target.describe(metadata);
            }
            let batch: Vec<RawSeries<'_>> = scraped
                .series
                .iter()
                .map(|(labels, sample)| RawSeries {
                    labels,
                    samples: std::slice::from_ref(sample),
                    histograms: &[],
                })
                .collect();
            let report = appender.append(&batch, &*decoder)?;
            let exemplars: Vec<RawExemplar<'_>> = scraped
                .exemplars
                .iter()
                .map(|(series, exemplar)| RawExemplar { series, exemplar: exemplar.clone() })
                .collect();
            if !exemplars.is_empty() {
                appender.append_exemplars(&exemplars, &*decoder);
            }
            Ok::<_, AppendError>(report)
        })
        .await;
        let failure = match stored {
            // The rest was stored, and whoever looks at the target is told.
            Ok(Ok(report)) if report.limited + report.invalid > 0 => {
                return report.refusal().unwrap_or_default();
            }
            Ok(Ok(_)) => return String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(target = %self.target.source, error = %failure, "scrape was not stored");
        format!("scrape was not stored: {failure}")
    }
}

/// An exemplar of a page. One with labels that cannot be used is left out: its sample is sound.
fn read_exemplar(series: &[u8], one: &PageExemplar<'_>, began: Timestamp) -> Option<(Box<[u8]>, Exemplar)> {
    let labels = Labels::new(decode_series(one.labels).ok()?).ok()?;
    let timestamp = one.timestamp.unwrap_or(began);
    Some((series.into(), Exemplar { labels, value: one.value, timestamp }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use binnacle_model::LogTime;
    use binnacle_model::storage::{AppendReport, SeriesDecoder};

    use super::super::pool::Pool;
    use super::super::target::TargetStatus;
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
        let mut run = Run::new(target.clone(), recorder.clone(), clock, Telemetry::default(), Arc::default());
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
        let (stored, status) =
            run_with(&["a1 1\nb 2\n", "b 2\na1 1\nb3{c=\"d\"} 1\n", "b 1\n"], false, rules);
        let names: Vec<&str> = stored.iter().map(|(series, ..)| series.as_str()).collect();
        let (x, up) = ("x1{instance=\"i\"}", "up{instance=\"i\", job=\"j\"}");
        assert_eq!(names, [x, up, x, up, x, up]);
        assert!(binnacle_model::sample::is_stale(stored[4].2));
        assert_eq!(status.health, Health::Up);
        let (_, status) = run_with(&["a 1\n"], false, "[{regex: __name__, action: labeldrop}]");
        assert!(status.last_error.ends_with("the rules leave no metric name"), "{}", status.last_error);
    }
}
