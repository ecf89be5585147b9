//! `binnacle demo`: the whole product on this machine, on real input.
//!
//! ```text
//! shop    front ─► cart ─► payment      three HTTP services that really call one another
//!           │ lines in CRI files, as a container runtime lays them out; /metrics pages
//! host    CPU, memory, disks, network   binnacle   its own metrics
//!           │
//! SLO     payment's availability, windows scaled 1:60 ─► webhook ─► the shop's pager, a log line
//! ```
//!
//! Payment fails for a while again and again, so that there is something to be told of.

mod pager;
mod runtime_log;
mod shop;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use binnacle_collector::scrape::{PageSource, Target};
use binnacle_collector::tail::Input;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ReadGroups, TailConfig};
use crate::serve::{self, Plan};
use crate::{DemoArgs, ServeArgs};

/// Short, because the SLO's windows are scaled: its shortest is five seconds.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

const SLO: &str = include_str!("slo.yml");
const RULES: &str = include_str!("rules.yml");

const SYSTEM_LOGS: &str = "/var/log/containers";

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    serve::runtime()?.block_on(async {
        let tasks = TaskTracker::new();
        let stopped = stop.clone();
        tasks.spawn(async move {
            serve::wait_for_signal().await;
            stopped.cancel();
        });
        let logs_dir = absolute(&args.data)?.join("shop-logs");
        let shop = shop::open(&logs_dir, &tasks, &stop).await?;
        let plan = plan(args, &shop, &logs_dir)?;
        let done = serve::start(plan, stop.clone(), |url| announce(url, &args.data)).await;
        stop.cancel();
        done
    })
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("--data {}", path.display()))
}

/// What the server is to do with the shop and this machine.
fn plan(args: &DemoArgs, shop: &shop::Shop, logs_dir: &Path) -> anyhow::Result<Plan> {
    let mut config = Config {
        evaluation_interval: Some(Duration::from_secs(5)),
        external_labels: binnacle_model::Labels::new([("cluster", "demo"), ("region", "local")])?,
        ..Config::default()
    };
    for (file, text, read) in [
        ("demo/slo.yml", SLO, binnacle_alerting::slo::parse_slos as ReadGroups),
        ("demo/rules.yml", RULES, binnacle_alerting::rules::parse_rules as ReadGroups),
    ] {
        let groups = read(file, text).map_err(|errors| anyhow::anyhow!("{}", errors[0]))?;
        config.groups.extend(groups);
    }
    for service in &shop.services {
        let url = reqwest::Url::parse(&format!("http://{}/metrics", service.address))?;
        let source = PageSource::Http(url);
        let instance = service.address.to_string();
        let mut target = Target::new("shop", &instance, source, SCRAPE_INTERVAL, SCRAPE_INTERVAL);
        for (name, value) in [("namespace", "shop"), ("pod", service.pod)] {
            target.labels = target.labels.with(name, value);
        }
        config.targets.push(target);
    }
    config.tails.push(TailConfig::of(Input::Containers(logs_dir.join("containers"))));
    let system = args.logs.clone().or_else(|| {
        let system = PathBuf::from(SYSTEM_LOGS);
        system.is_dir().then_some(system)
    });
    config.tails.extend(system.map(|dir| TailConfig::of(Input::Containers(dir))));
    let routes = format!(
        "route: {{receiver: pager, group_by: [alertname, service, severity], group_wait: 2s, group_interval: 5s, repeat_interval: 1h}}\n\
         receivers: [{{name: pager, webhook_configs: [{{url: 'http://{}/'}}]}}]\n",
        shop.pager
    );
    let alertmanager = binnacle_alerting::notify::parse_alertmanager("demo/alertmanager.yml", &routes)?;
    let args = ServeArgs {
        data: args.data.clone(),
        listen: args.listen,
        doors: crate::DoorArgs::default(),
        config: None,
        alertmanager_config: None,
        external_url: None,
        enable_feature: Vec::new(),
        enable_admin_api: false,
        enable_lifecycle: false,
        limits: crate::LimitArgs::default(),
    };
    let own_targets = Some(Duration::from_secs(5));
    Ok(Plan { args, config, alertmanager: Some((alertmanager, routes)), own_targets })
}

fn announce(url: &str, data: &Path) {
    println!(
        "
Binnacle is ready at {url}

  Logs      {url}/?q=service:payment
  Metrics   {url}/?page=metrics&expr=sum(rate(http_requests_total[1m]))%20by%20(service)
  Alerts    {url}/?page=alerts

The shop's payment service fails from the first to the second minute, and every five minutes after
that. Its SLO (windows scaled 1:60) then pages the shop's pager, and the page resolves a minute and a
half later. The ticket, whose windows are longer, stays until the errors are forgotten.

  binnacle logs -f 'service:payment' --url {url}
  binnacle query 'sum(rate(http_requests_total[1m])) by (service)' --url {url}

Data is kept in {}. Stop with Ctrl-C.
",
        data.display()
    );
}

/// A service's address and pod.
struct Service {
    address: std::net::SocketAddr,
    pod: &'static str,
}
