//! `collect`: reads and scrapes on a node, and sends to a store, ours or others.

use std::sync::Arc;

use anyhow::Context;
use binnacle_collector::http::probe_router;
use binnacle_collector::probe::Endpoint;
use binnacle_collector::scrape::Scraper;
use binnacle_collector::tail::Input;
use binnacle_model::time::Clock;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::kubernetes::Cluster;
use super::outlets::Outlets;
use super::own_routes::own_routes;
use super::reload::Reloader;
use super::tailers::{Node, Tailers};
use super::{SELF_INTERVAL, own, read_selector, register_build, runtime, wait_for_signal};
use crate::clock::SystemClock;
use crate::config::{self, Config, ShareMode, TailConfig};
use crate::stage::Stage;
use crate::{CollectArgs, server};

/// The node agent.
pub(crate) fn collect(args: CollectArgs) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => config::load(path)?,
        None => Config::default(),
    };
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if !config.remotes.is_empty() {
        tracing::warn!("remote_write is not used by `collect`; the store that it sends to may have one");
    }
    if args.file.is_none() {
        config.check_node_name()?;
    }
    let runtime = runtime()?;
    runtime.block_on(run_collector(args, config))
}

async fn run_collector(args: CollectArgs, mut config: Config) -> anyhow::Result<()> {
    let listener = server::bind(args.listen).await?;
    let mut registry = Registry::with_prefix("binnacle");
    let telemetry = binnacle_collector::Telemetry::new(&mut registry);
    register_build(&mut registry);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let bounds = config.collector.bounds(true);
    let outlets = Outlets::open(&args, &mut config, &clock, &mut registry, &telemetry)?;
    let stop = CancellationToken::new();
    let producers = TaskTracker::new();
    let cluster = Cluster { config: &config, telemetry: &telemetry, tasks: &producers, stop: &stop };
    let pods = cluster.watch_node(Arc::clone(&outlets.pods));
    let share = cluster.share(ShareMode::Elect, &clock);
    cluster.read_events(share.clone(), Arc::clone(&outlets.sink));
    let (monitors, monitored) = super::kubernetes::monitors(&config, &mut registry);
    let registry = Arc::new(registry);
    let node = config.node_name();
    if args.file.is_none() && outlets.takes_samples {
        let own_url = format!("http://{node}");
        config.targets.extend(own(SELF_INTERVAL, &own_url, &registry));
    }
    let scraper = Scraper::new(std::mem::take(&mut config.targets), std::mem::take(&mut config.pools));
    scraper.start(&outlets.appender, &clock, &telemetry, share, &bounds, (&producers, &stop));
    super::kubernetes::follow_monitors(monitors, &scraper, (&producers, &stop));
    let tails = match args.file {
        Some(pattern) => vec![TailConfig::of(Input::Files { pattern, service: args.service })],
        None => std::mem::take(&mut config.tails),
    };
    let node = Node::of(&config, &args.state, pods, bounds);
    let tailers = Tailers::start(tails, &node, &outlets.sink, &clock, &telemetry)?;
    let endpoint = Endpoint::new(config.probes.take(), telemetry.clone());
    let reloader = Reloader::of_collect(args.config.clone(), &config, (&scraper, &endpoint, monitored));
    let reloader = Arc::new(reloader);
    reloader.listen(&producers, &stop);
    let router = own_routes(None, registry, reloader)
        .merge(server::own_site_only(probe_router(endpoint)))
        .merge(binnacle_collector::http::router(&scraper, read_selector));
    println!("Binnacle collects for {}", outlets.shown);
    let signalled = stop.clone();
    let signals = TaskTracker::new();
    signals.spawn(async move {
        wait_for_signal().await;
        signalled.cancel();
    });
    server::serve(listener, Stage::of(server::wrap(router)), stop).await;
    producers.close();
    producers.wait().await;
    tokio::task::spawn_blocking(move || tailers.stop()).await.context("tailers")?;
    outlets.close().await;
    Ok(())
}
