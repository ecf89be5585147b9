//! What one scrape costs of a page whose series are known: fetched, parsed, recognised and appended to a store on disk.
//!
//! `BENCH_SERIES` changes the size: a hundred thousand by default. It prints milliseconds of CPU, of all threads of this
//! process, and asserts none.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use binnacle_collector::Telemetry;
use binnacle_collector::kubernetes::Share;
use binnacle_collector::scrape::{PageSource, Scraper, Target};
use binnacle_model::LogTime;
use binnacle_model::storage::Appender;
use binnacle_model::time::Clock;
use binnacle_store::{Options, Store};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const WARM: u64 = 5;
const SCRAPES: u64 = 20;
const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Machine;

impl Clock for Machine {
    #[allow(clippy::disallowed_methods, reason = "a store on disk runs on the machine's clock")]
    fn now_ns(&self) -> LogTime {
        LogTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64))
    }
}

/// As cAdvisor names things.
fn page(series: u64, number: u64) -> String {
    let mut page = String::new();
    let names = [
        "container_memory_working_set_bytes",
        "container_cpu_usage_seconds_total",
        "container_fs_reads_total",
    ];
    for at in 0..series {
        let name = names[(at * names.len() as u64 / series) as usize];
        if at % (series / names.len() as u64 + 1) == 0 {
            let _ = writeln!(page, "# HELP {name} What it is.\n# TYPE {name} gauge");
        }
        let value = (at * 7919 + number * (at % 3)) % 1_000_000;
        let _ = writeln!(
            page,
            "{name}{{container=\"app\",namespace=\"shop\",pod=\"payment-7d9f8b6c5-{at:06}\",node=\"n{}\"}} {value}",
            at % 50
        );
    }
    page
}

/// Of all threads of this process, in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux says what a process used");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn main() {
    // `cargo test` runs benches with this flag to see that they start.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let series = std::env::var("BENCH_SERIES").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let dir = tempfile::tempdir().expect("a folder for the data");
    let mut registry = Registry::default();
    let telemetry = binnacle_store::Telemetry::new(&mut registry);
    let store = Store::open(dir.path(), Options::default(), Arc::new(Machine), telemetry).expect("a store");
    let store = Arc::new(store);
    let pages: Vec<String> = (0..4).map(|number| page(series, number)).collect();
    let bytes = pages[0].len();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let source = move || Ok(pages[counted.fetch_add(1, Ordering::Relaxed) as usize % pages.len()].clone());
    let target =
        Target::new("bench", "here", PageSource::Local("page", Arc::new(source)), INTERVAL, INTERVAL);
    let scraper = Scraper::new(vec![target], Vec::new());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let appender: Arc<dyn Appender> = Arc::clone(&store) as Arc<dyn Appender>;
        let clock: Arc<dyn Clock> = Arc::new(Machine);
        scraper.start(&appender, &clock, &Telemetry::default(), Share::All, &Arc::default(), (&tasks, &stop));
        let reached = async |wanted: u64| {
            while count.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // From the beginning of one scrape to that of another one.
        reached(WARM).await;
        let before = cpu();
        reached(WARM + SCRAPES).await;
        let used = cpu().saturating_sub(before);
        let each = used.as_secs_f64() * 1e3 / SCRAPES as f64;
        let rate = bytes as f64 / 1e3 / each;
        println!("{series} known series, {bytes} bytes: {each:.1} ms of CPU per scrape, {rate:.0} MB/s");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    });
    store.close();
}
