//! `serve` and `collect`: opens the parts, introduces them, and stops them in order.

mod alerting;
mod collect;
mod kubernetes;
mod outlets;
mod own_routes;
mod reload;
mod tailers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use binnacle_collector::bounds::Bounds;
use binnacle_collector::http::probe_router;
use binnacle_collector::intake::{self, Intake, Stores, SyslogListeners, grpc_router};
use binnacle_collector::kubernetes::Share;
use binnacle_collector::monitors::Monitors;
use binnacle_collector::probe::Endpoint;
use binnacle_collector::remote_write::{RemoteWrite, Telemetry as RemoteTelemetry};
use binnacle_collector::scrape::{PageSource, Scraper, Target};
use binnacle_collector::tail::{LocalSink, LogSink};
use binnacle_model::storage::{Admin, Appender, LogAppender, Queryable};
use binnacle_model::time::Clock;
use binnacle_query::http::{Gate, ReadApi, Usage};
use binnacle_query::logs::WithPods;
use binnacle_query::promql::{Features, Limits, parse_selector};
use binnacle_store::archive::{ArchiveOptions, AttachOptions};
use binnacle_store::{LogOptions, Maintenance, MetricOptions, Options, ReplayProgress, Store, Telemetry};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use self::collect::collect;
use self::kubernetes::Cluster;
use self::own_routes::own_routes;
use self::reload::Reloader;
use self::tailers::{Node, Tailers};
use crate::clock::SystemClock;
use crate::config::{self, Config, ShareMode};
use crate::notifications::Notifications;
use crate::stage::Stage;
use crate::status::{self, InForce, Status};
use crate::{DoorArgs, ServeArgs, log_metrics, memory, own_page, server, web};

const SELF_INTERVAL: Duration = Duration::from_secs(15);
const SELF_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that `serve` and `demo` run; built from flags and files by one of them.
pub(crate) struct Plan {
    pub(crate) args: ServeArgs,
    pub(crate) config: Config,
    /// With the file as it may be shown.
    pub(crate) alertmanager: Option<(binnacle_alerting::notify::AlertmanagerConfig, String)>,
    /// Adds this host and this process as targets, every so often.
    pub(crate) own_targets: Option<Duration>,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => config::load(path)?,
        None => Config::default(),
    };
    config.check_node_name()?;
    if config.send.logs.is_some() || !config.send.metrics.is_empty() {
        tracing::warn!("send is for `collect` alone; what is stored here is sent on by remote_write");
    }
    let alertmanager = args.alertmanager_config.as_deref().map(config::load_alertmanager).transpose()?;
    let plan = Plan { args, config, alertmanager, own_targets: None };
    let stop = CancellationToken::new();
    runtime()?.block_on(async {
        let stopped = stop.clone();
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            wait_for_signal().await;
            stopped.cancel();
        });
        start(plan, stop, |url| println!("Binnacle is ready at {url}")).await
    })
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")
}

/// What `--enable-feature` switches on, and whether rules use nothing else. A name that nobody knows is no reason not to
/// start.
fn features(names: &[String], config: &Config) -> anyhow::Result<Features> {
    let mut features = Features::default();
    for name in names {
        if !features.enable(name) {
            tracing::warn!(name, "--enable-feature knows no such name; it changes nothing");
        }
    }
    check_rules(config, features)?;
    Ok(features)
}

/// Rules may use only what is switched on.
fn check_rules(config: &Config, features: Features) -> anyhow::Result<()> {
    for group in &config.groups {
        for rule in &group.rules {
            let place = || format!("{}: group {:?}, rule {:?}", group.file, group.name, rule.name);
            features.check(&rule.query, &rule.expr).with_context(place)?;
        }
    }
    Ok(())
}

/// How often it is written down which metrics were asked for.
const SAVE_USAGE_INTERVAL: Duration = Duration::from_mins(1);

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn wait_for_signal() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::error!(%error, "signals cannot be handled");
            return;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Runs all parts until `stop` fires; `ready` hears the URL once requests are answered.
pub(crate) async fn start(
    plan: Plan,
    stop: CancellationToken,
    ready: impl FnOnce(&str),
) -> anyhow::Result<()> {
    let Plan { args, mut config, alertmanager, own_targets } = plan;
    let warnings = config.warnings.iter().chain(alertmanager.iter().flat_map(|(config, _)| &config.warnings));
    warnings.for_each(|warning| tracing::warn!("{warning}"));
    let features = features(&args.enable_feature, &config)?;
    let status = Arc::new(status_of(&args, &config, &stop));
    let listener = server::bind(args.listen).await?;
    let doors = Doors::bind(&args.doors).await?;
    let url = format!("http://{}", listener.local_addr().context("cannot listen")?);
    let external_url = args.external_url.clone().unwrap_or_else(|| url.clone());
    let mut registry = Registry::with_prefix("binnacle");
    let progress = Arc::<ReplayProgress>::default();
    let stage = Stage::starting(Arc::clone(&progress));
    let front = TaskTracker::new();
    front.spawn(server::serve(listener, stage.clone(), stop.clone()));
    let store = open_store(&args, &config, &mut registry, progress).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let remotes = start_remotes(&mut config, &store, &clock, &mut registry)?;
    let maintenance = Maintenance::start(Arc::clone(&store)).context("cannot start a thread")?;
    let collector = binnacle_collector::Telemetry::new(&mut registry);
    let telemetry = binnacle_alerting::Telemetry::new(&mut registry);
    register_build(&mut registry);

    // Producers stop first, then rules, then what they write to.
    let (produce, evaluate) = (CancellationToken::new(), CancellationToken::new());
    let (producers, rules) = (TaskTracker::new(), TaskTracker::new());
    let cluster = Cluster { config: &config, telemetry: &collector, tasks: &producers, stop: &produce };
    let (pods, share) = (cluster.watch_node(store.clone()), cluster.share(ShareMode::All, &clock));
    let (monitors, monitored) = kubernetes::monitors(&config, &mut registry);
    let registry = Arc::new(registry);
    let evaluating = (&rules, &evaluate);
    let counted = log_metrics::start(&config, &store, &clock, telemetry.clone(), evaluating).await?;
    let scraper = scraper_of(&mut config, own_targets.map(|interval| own(interval, &url, &registry)));
    let bounds = config.collector.bounds(false);
    let tools = (&store, &clock, &collector);
    start_scraper(&scraper, monitors, tools, (share.clone(), &bounds), (&producers, &produce));
    let log_store: Arc<dyn LogAppender> = store.clone();
    let endpoint = Endpoint::new(config.probes.take(), collector.clone());
    let parts = (&args, external_url.as_str(), &store, &clock);
    let watch = alerting::start(&config, alertmanager, parts, telemetry, evaluating)?;
    let reloader = Reloader::of_serve(&args, &config, (&scraper, &endpoint, monitored), (&status, &watch.v2));
    reloader.listen(&producers, &produce);

    let api = read_api(&store, &clock, features, &config, &args, &stop);
    rules.spawn(save_usage(Arc::clone(&api), Arc::clone(&store), evaluate.clone()));
    let intake = Intake::new(stores_of(&store), Arc::clone(&clock), collector.clone(), config.otlp.clone());
    let sink = LocalSink::new(log_store.clone(), Arc::clone(&clock), intake.reports());
    let sink: Arc<dyn LogSink> = Arc::new(sink);
    let cluster = Cluster { config: &config, telemetry: &collector, tasks: &producers, stop: &produce };
    cluster.read_events(share, Arc::clone(&sink));
    let node = Node::of(&config, &args.data.join("collector"), pods, bounds);
    let tailers = Tailers::start(config.tails.clone(), &node, &sink, &clock, &collector)?;
    doors.syslog.start(&log_store, &clock, &collector, &producers, &produce);
    start_grpc(doors.grpc, &intake, &producers, &produce);
    let router = Router::new()
        .merge(own_routes(Some(Arc::clone(&store)), Arc::clone(&registry), reloader))
        .merge(binnacle_query::http::router(api))
        .merge(status::router(status))
        .merge(watch.router())
        .merge(log_metrics::routes(counted, &store, &clock, args.enable_admin_api))
        .merge(binnacle_collector::http::router(&scraper, read_selector))
        .merge(server::own_site_only(probe_router(endpoint).merge(intake::router(intake))))
        .merge(web::router());
    stage.set_ready(server::wrap(router));
    ready(&url);
    front.close();
    front.wait().await;

    produce.cancel();
    finish(&producers, tailers, &store).await?;
    end(&rules, &evaluate).await;
    remotes.stop().await;
    close(maintenance, store).await
}

async fn end(tasks: &TaskTracker, stop: &CancellationToken) {
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Of what the file names, and of `own` targets.
fn scraper_of(config: &mut Config, own: Option<impl IntoIterator<Item = Target>>) -> Arc<Scraper> {
    config.targets.extend(own.into_iter().flatten());
    Scraper::new(std::mem::take(&mut config.targets), std::mem::take(&mut config.pools))
}

/// Scrapes what the file and monitors say, into the store.
fn start_scraper(
    scraper: &Arc<Scraper>,
    monitors: Option<Monitors>,
    (store, clock, telemetry): (&Arc<Store>, &Arc<dyn Clock>, &binnacle_collector::Telemetry),
    (share, bounds): (Share, &Arc<Bounds>),
    running: (&TaskTracker, &CancellationToken),
) {
    let appender: Arc<dyn Appender> = store.clone();
    scraper.start(&appender, clock, telemetry, share, bounds, running);
    kubernetes::follow_monitors(monitors, scraper, running);
}

fn stores_of(store: &Arc<Store>) -> Stores {
    Stores { metrics: store.clone(), logs: store.clone(), pods: store.clone() }
}

/// Listeners beside the one for HTTP, bound before the store is opened so that a port in use is said at once.
struct Doors {
    syslog: SyslogListeners,
    grpc: Option<TcpListener>,
}

impl Doors {
    async fn bind(args: &DoorArgs) -> anyhow::Result<Self> {
        let syslog = SyslogListeners::bind(args.syslog_tcp, args.syslog_udp).await;
        let syslog =
            syslog.context("choose another address with --listen-syslog-tcp or --listen-syslog-udp")?;
        let grpc = match args.otlp_grpc {
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address}; choose another address with --listen-otlp-grpc")
            })?),
            None => None,
        };
        Ok(Self { syslog, grpc })
    }
}

/// Takes gRPC until `stop` fires, if it has an address.
fn start_grpc(
    grpc: Option<TcpListener>,
    intake: &Arc<Intake>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    if let Some(listener) = grpc {
        let router = grpc_router(Arc::clone(intake)).layer(CatchPanicLayer::new());
        tasks.spawn(server::serve_http2(listener, Stage::of(router), stop.clone()));
    }
}

/// What sends to other servers. It stops after whatever is stored.
struct Remotes {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Remotes {
    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Before the store is maintained, so that nothing of the log goes that is still to be sent.
fn start_remotes(
    config: &mut Config,
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    registry: &mut Registry,
) -> anyhow::Result<Remotes> {
    let remotes = Remotes { tasks: TaskTracker::new(), stop: CancellationToken::new() };
    let configs = std::mem::take(&mut config.remotes);
    if !configs.is_empty() {
        let telemetry = RemoteTelemetry::new(registry);
        let opened = RemoteWrite::open(configs, &config.external_labels, &**store, clock, &telemetry)?;
        let metrics: Arc<dyn Queryable> = store.clone();
        opened.start(&metrics, &remotes.tasks, &remotes.stop);
    }
    Ok(remotes)
}

/// Waits for all that produces samples and lines, and until rules have heard of the last line.
async fn finish(producers: &TaskTracker, tailers: Tailers, store: &Arc<Store>) -> anyhow::Result<()> {
    tracing::info!("stopping");
    producers.close();
    producers.wait().await;
    let store = Arc::clone(store);
    let stopping = tokio::task::spawn_blocking(move || {
        tailers.stop();
        store.flush_logs()
    });
    // A store that is broken says so itself.
    stopping.await.context("tailers").map(|_| ())
}

async fn close(maintenance: Maintenance, store: Arc<Store>) -> anyhow::Result<()> {
    let closing = tokio::task::spawn_blocking(move || {
        maintenance.stop();
        store.close();
    });
    closing.await.context("store")?;
    tracing::info!("stopped");
    Ok(())
}

/// How logs are kept, with the archives that the file names.
fn with_archives(config: &Config) -> anyhow::Result<LogOptions> {
    let mut logs = config.logs.clone();
    logs.parse_query = Some(binnacle_query::logs::parse_plain);
    if let Some(own) = &config.archives.own {
        let bucket = own.address.open().context("storage.logs.archive")?;
        let url = own.address.url.clone();
        let (after, retention_bytes) = (own.after, own.max_bytes);
        logs.archive = Some(ArchiveOptions { bucket, url, after, retention_bytes });
    }
    for address in &config.archives.attached {
        let bucket = address.open().context("storage.logs.attach")?;
        logs.attach.push(AttachOptions { bucket, url: address.url.clone() });
    }
    Ok(logs)
}

async fn open_store(
    args: &ServeArgs,
    config: &Config,
    registry: &mut Registry,
    progress: Arc<ReplayProgress>,
) -> anyhow::Result<Arc<Store>> {
    let defaults = MetricOptions::default();
    let in_memory = memory::series(defaults.series_limit);
    let series_limit = config.series_limit.unwrap_or(in_memory);
    let of_job = match config.series_limit {
        // One job alone does not take all of the memory.
        None => defaults.series_limit_per_job.min(in_memory / 4 * 3),
        Some(_) => defaults.series_limit_per_job,
    };
    let options = Options {
        metrics: MetricOptions {
            retention: config.metric_retention.unwrap_or(defaults.retention),
            retention_bytes: config.metric_retention_bytes,
            rollup_retention: config.rollup_retention,
            short_retentions: config.short_retentions.clone(),
            series_limit_per_job: config.series_limit_per_job.unwrap_or(of_job),
            series_limit,
            ..defaults
        },
        logs: with_archives(config)?,
        progress,
    };
    let telemetry = Telemetry::new(registry);
    let data = args.data.clone();
    let open = move || Store::open(&data, options, Arc::new(SystemClock), telemetry);
    let store = tokio::task::spawn_blocking(open).await.context("the store was not opened")?;
    Ok(Arc::new(store?))
}

fn status_of(args: &ServeArgs, config: &Config, stop: &CancellationToken) -> Status {
    let retention = config.metric_retention.unwrap_or(MetricOptions::default().retention);
    Status {
        config: Mutex::new(InForce { yaml: config.shown.clone(), at: SystemClock.now(), is_good: true }),
        flags: status::flags_of(args),
        retention,
        started: SystemClock.now(),
        hostname: hostname(),
        clock: Arc::new(SystemClock),
        notifications: Notifications::new(stop.clone()),
    }
}

fn read_api(
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    features: Features,
    config: &Config,
    args: &ServeArgs,
    stop: &CancellationToken,
) -> Arc<ReadApi> {
    let usage = Usage::open(&**store, clock.now()).unwrap_or_else(|error| {
        tracing::warn!(%error, "which metrics were queried before is not known");
        Usage::new(clock.now())
    });
    let rules = config.groups.iter().flat_map(|group| &group.rules);
    rules.for_each(|rule| usage.note(&rule.expr, clock.now()));
    let logs = Arc::new(WithPods::new(store.clone(), store.clone(), store.clone()));
    Arc::new(ReadApi {
        admin: args.enable_admin_api.then(|| Arc::clone(store) as Arc<dyn Admin>),
        keeper: Some(store.clone()),
        metrics: store.clone(),
        logs: logs.clone(),
        feed: logs,
        clock: Arc::clone(clock),
        limits: limits_of(args, config),
        features,
        gate: Gate::new(args.limits.gate()),
        stop: stop.clone(),
        external_labels: config.external_labels.clone(),
        usage,
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Writes down now and then, and at the end, which metrics were asked for.
async fn save_usage(api: Arc<ReadApi>, store: Arc<Store>, stop: CancellationToken) {
    loop {
        let is_over = tokio::time::timeout(SAVE_USAGE_INTERVAL, stop.cancelled()).await.is_ok();
        let (api, store) = (Arc::clone(&api), Arc::clone(&store));
        let saved = tokio::task::spawn_blocking(move || api.usage.save(&*store)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "which metrics were queried was not saved");
        }
        if is_over {
            return;
        }
    }
}

/// What a query may use; a subquery without a step has the interval of rules.
fn limits_of(args: &ServeArgs, config: &Config) -> Limits {
    let limits = args.limits.limits();
    Limits { subquery_step: config.evaluation_interval.unwrap_or(limits.subquery_step), ..limits }
}

fn read_selector(text: &str) -> Result<Vec<binnacle_model::Matcher>, String> {
    parse_selector(text).map_err(|error| error.to_string())
}

/// This host and this process, as targets.
fn own(interval: Duration, url: &str, registry: &Arc<Registry>) -> Vec<Target> {
    let timeout = SELF_TIMEOUT.min(interval);
    let registry = Arc::clone(registry);
    let itself = move || own_page::encode(&registry);
    let instance = url.trim_start_matches("http://");
    vec![
        Target::new(
            "node",
            &hostname(),
            PageSource::Local("host", Arc::new(|| Ok(binnacle_collector::host::page()))),
            interval,
            timeout,
        ),
        Target::new("binnacle", instance, PageSource::Local("self", Arc::new(itself)), interval, timeout),
    ]
}

/// The name of this machine, or of the pod that this runs in.
pub(crate) fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

fn register_build(registry: &mut Registry) {
    let labels = vec![("version", env!("CARGO_PKG_VERSION"))];
    let info = prometheus_client::metrics::info::Info::new(labels);
    registry.register("build", "Which release this is", info);
}
