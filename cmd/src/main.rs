//! Binnacle: metrics, logs and alerts of a Kubernetes cluster in one binary.
//!
//! This crate reads flags and files, opens the store, and introduces the parts to one another; what
//! they do is in the other crates.

mod bucket;
mod check;
mod client;
mod clock;
mod config;
mod demo;
mod expand;
mod log_metrics;
mod memory;
mod notifications;
mod openapi;
mod own_page;
mod self_metrics;
mod serve;
mod server;
mod stage;
mod status;
mod tell;
mod tsdb;
mod web;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Gives memory of large queries back to the machine, and lets threads allocate side by side.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Metrics, logs and alerts of a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "binnacle", version, max_term_width = 100)]
struct Cli {
    /// What to log about itself: error, warn, info, debug, trace.
    #[arg(long, global = true, default_value = "info")]
    log_level: String,
    /// How to log about itself.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store, query, alerting, and a collector for whatever the file names, in one process.
    Serve(ServeArgs),
    /// The whole product on this machine, with a small shop that has troubles of its own.
    Demo(DemoArgs),
    /// The node agent: tails logs and scrapes, and sends to a store, ours or others.
    Collect(CollectArgs),
    /// Check files: exit 0 if they are right, 1 if not.
    Check {
        #[command(subcommand)]
        what: CheckCommand,
    },
    /// Play unit tests: exit 0 if they pass, 1 if not.
    Test {
        #[command(subcommand)]
        what: TestCommand,
    },
    /// Where alerts go, by an alertmanager.yml.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// What templates of notifications say.
    Template {
        #[command(subcommand)]
        what: TemplateCommand,
    },
    /// Look at the metrics of a data directory, also while a server uses it, or import Prometheus's.
    Tsdb {
        #[command(subcommand)]
        what: TsdbCommand,
    },
    /// Ask a running server a PromQL query.
    Query(QueryArgs),
    /// Search the logs of a running server, or follow them.
    Logs(client::LogsArgs),
    /// Delete what a query finds; needs a server with --enable-admin-api.
    Delete {
        #[command(subcommand)]
        what: DeleteCommand,
    },
    /// Write all that is found into a file, however much it is.
    Export {
        #[command(subcommand)]
        what: ExportCommand,
    },
}

#[derive(Debug, Subcommand)]
enum DeleteCommand {
    /// Lines of logs that are there by now.
    Logs(client::DeleteLogsArgs),
}

#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// Lines of logs. What was cut off goes on where it ended, if it is asked for again.
    Logs(client::ExportLogsArgs),
}

#[derive(Debug, Clone, Args)]
struct ServeArgs {
    /// Directory that holds the data.
    #[arg(long, alias = "storage.tsdb.path", default_value = "data")]
    data: PathBuf,
    /// Address to listen on.
    #[arg(long, alias = "web.listen-address", default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    #[command(flatten)]
    doors: DoorArgs,
    /// Binnacle's file or a plain prometheus.yml.
    #[arg(long, alias = "config.file")]
    config: Option<PathBuf>,
    /// A plain alertmanager.yml.
    #[arg(long)]
    alertmanager_config: Option<PathBuf>,
    /// Where this server is seen from outside, for links in notifications.
    #[arg(long, alias = "web.external-url")]
    external_url: Option<String>,
    /// Experimental parts to switch on, by Prometheus's names, such as promql-experimental-functions.
    #[arg(long, value_delimiter = ',')]
    enable_feature: Vec<String>,
    /// Answer requests that copy or delete what is stored, under /api/v1/admin/tsdb/ and /api/logs/delete.
    #[arg(long, alias = "web.enable-admin-api")]
    enable_admin_api: bool,
    /// Read scrape_configs again on POST /-/reload, too; SIGHUP does so always.
    #[arg(long, alias = "web.enable-lifecycle")]
    enable_lifecycle: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Addresses for what does not speak HTTP. Without one, nobody listens.
#[derive(Debug, Clone, Default, Args)]
struct DoorArgs {
    /// Address for syslog over TCP, such as 0.0.0.0:6514; it is not encrypted.
    #[arg(long = "listen-syslog-tcp")]
    syslog_tcp: Option<SocketAddr>,
    /// Address for syslog over UDP, such as 0.0.0.0:514.
    #[arg(long = "listen-syslog-udp")]
    syslog_udp: Option<SocketAddr>,
    /// Address for OTLP over gRPC, such as 0.0.0.0:4317; it is not encrypted.
    #[arg(long = "listen-otlp-grpc")]
    otlp_grpc: Option<SocketAddr>,
}

/// What one query may use, by Prometheus's names.
#[derive(Debug, Clone, Args)]
struct LimitArgs {
    /// Samples that a query may hold in memory at once, 16 bytes each; a series counts as eight of them.
    #[arg(long = "query-max-samples", alias = "query.max-samples", default_value_t = 50_000_000)]
    max_samples: usize,
    /// The same of all queries together, until their answers are sent. Default: half of the memory.
    #[arg(long = "query-max-samples-total", alias = "query.max-samples-total")]
    max_samples_total: Option<usize>,
    /// After which a query is ended.
    #[arg(long = "query-timeout", alias = "query.timeout", default_value = "2m", value_parser = binnacle_model::time::parse_duration)]
    timeout: Duration,
    /// Queries that run at once; others wait for their turn. Default: two for each core, and four at least.
    #[arg(long = "query-max-concurrency", alias = "query.max-concurrency")]
    max_concurrency: Option<usize>,
    /// A query that took longer is logged, and listed at /api/queries/slow.
    #[arg(long = "query-slow", alias = "query.slow", default_value = "10s", value_parser = binnacle_model::time::parse_duration)]
    slow: Duration,
    /// For how long a sample counts as the present one.
    #[arg(long = "query-lookback-delta", alias = "query.lookback-delta", default_value = "5m", value_parser = binnacle_model::time::parse_duration)]
    lookback_delta: Duration,
}

impl Default for LimitArgs {
    fn default() -> Self {
        let limits = binnacle_query::promql::Limits::default();
        Self {
            max_samples: limits.max_samples,
            max_samples_total: None,
            timeout: Duration::from_mins(2),
            max_concurrency: None,
            slow: Duration::from_secs(10),
            lookback_delta: limits.lookback,
        }
    }
}

impl LimitArgs {
    fn limits(&self) -> binnacle_query::promql::Limits {
        binnacle_query::promql::Limits {
            max_samples: self.max_samples,
            lookback: self.lookback_delta,
            ..binnacle_query::promql::Limits::default()
        }
    }

    fn samples_total(&self) -> usize {
        let half = || memory::limit().map(|bytes| usize::try_from(bytes / 2 / 16).unwrap_or(usize::MAX));
        self.max_samples_total.or_else(half).unwrap_or_else(|| self.max_samples.saturating_mul(4))
    }

    fn gate(&self) -> binnacle_query::http::GateLimits {
        binnacle_query::http::GateLimits {
            places: self.places(),
            timeout: self.timeout,
            max_samples: self.max_samples,
            max_samples_total: self.samples_total(),
            slow: self.slow,
        }
    }

    fn places(&self) -> usize {
        let usual = || std::thread::available_parallelism().map_or(4, |cores| cores.get() * 2).max(4);
        self.max_concurrency.map_or_else(usual, |places| places.max(1))
    }
}

#[derive(Debug, Clone, Args)]
struct DemoArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// Directory that holds the data; it is kept.
    #[arg(long, default_value = ".demo")]
    data: PathBuf,
    /// Directory of container logs to read besides the shop's. Default: /var/log/containers, if there.
    #[arg(long)]
    logs: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct CollectArgs {
    /// Binnacle's file: `store.url` or `send`, `logs`, `scrape_configs`, `probes`.
    #[arg(long, required_unless_present = "file")]
    config: Option<PathBuf>,
    /// Tail these files instead of containers'; the last part may hold `*`.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Label `service` of lines from --file.
    #[arg(long, default_value = "app")]
    service: String,
    /// The URL of Binnacle's store; wins over the file's.
    #[arg(long)]
    store: Option<String>,
    /// Send lines to Loki at this URL; wins over the file's `send.logs`.
    #[arg(long, conflicts_with_all = ["otlp", "elasticsearch"])]
    loki: Option<String>,
    /// Send lines by OTLP over HTTP to this URL.
    #[arg(long, conflicts_with = "elasticsearch")]
    otlp: Option<String>,
    /// Send lines to Elasticsearch at this URL, by `_bulk`.
    #[arg(long)]
    elasticsearch: Option<String>,
    /// Directory for checkpoints.
    #[arg(long, default_value = "/var/lib/binnacle")]
    state: PathBuf,
    /// Address for /metrics, /livez and /readyz.
    #[arg(long, default_value = "127.0.0.1:9091")]
    listen: SocketAddr,
}

#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// Binnacle's file or a prometheus.yml, and the rule files it names.
    Config {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Prometheus rule files, and files of rules that make metrics of logs.
    Rules {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// alertmanager.yml files.
    Alertmanager {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// SLO files.
    Slo {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum TestCommand {
    /// Tests of rules, in promtool's format.
    Rules {
        /// Files of tests.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// The tree of routes.
    Routes {
        #[command(subcommand)]
        what: RoutesCommand,
    },
}

#[derive(Debug, Subcommand)]
enum RoutesCommand {
    /// Print the receivers of an alert with these labels, in the order of the tree.
    Test(RoutesTestArgs),
}

#[derive(Debug, Clone, Args)]
struct RoutesTestArgs {
    /// An alertmanager.yml.
    #[arg(long = "config.file", alias = "config")]
    config: PathBuf,
    /// Receivers, with commas between them; exit 1 if they are others.
    #[arg(long = "verify.receivers")]
    verify: Option<String>,
    /// NAME=VALUE
    labels: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum TemplateCommand {
    /// Print what a text makes of a notification.
    Render(RenderArgs),
}

#[derive(Debug, Clone, Args)]
struct RenderArgs {
    /// Files of templates, which know one another; ours are there before them.
    #[arg(long = "template.glob")]
    globs: Vec<String>,
    /// A text, such as `{{ template "slack.default.title" . }}`.
    #[arg(long = "template.text", allow_hyphen_values = true)]
    text: String,
    /// What the text becomes.
    #[arg(long = "template.type", value_enum, default_value = "text")]
    mode: RenderMode,
    /// A notification as JSON, as webhooks get it; one alert that fires otherwise.
    #[arg(long = "template.data")]
    data: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RenderMode {
    Text,
    Html,
}

#[derive(Debug, Subcommand)]
enum TsdbCommand {
    /// Print blocks, and the metrics with most series; what is not in blocks yet is left out.
    Analyze(TsdbArgs),
    /// Check every checksum: exit 0 if all are right, 1 if not.
    Verify(TsdbArgs),
    /// Bring blocks of Prometheus in, while no server uses the data directory.
    Import(ImportArgs),
}

#[derive(Debug, Clone, Args)]
struct ImportArgs {
    /// Prometheus's data directory, a snapshot of it, or one block. Nothing in it is changed.
    #[arg(long)]
    from: PathBuf,
    /// Directory that holds the data.
    #[arg(long, alias = "storage.tsdb.path", default_value = "data")]
    data: PathBuf,
    /// Leave samples out that are older. The server's own retention removes older ones, too.
    #[arg(long, default_value = "45d", value_parser = binnacle_model::time::parse_duration)]
    retention: std::time::Duration,
}

#[derive(Debug, Clone, Args)]
struct TsdbArgs {
    /// Directory that holds the data.
    #[arg(long, alias = "storage.tsdb.path", default_value = "data")]
    data: PathBuf,
    /// At most so many metrics.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Table,
    Json,
    Raw,
}

#[derive(Debug, Clone, Args)]
struct QueryArgs {
    /// A PromQL query.
    #[arg(allow_hyphen_values = true)]
    query: String,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    url: String,
    /// Moment: RFC 3339 or Unix seconds. Default: now.
    #[arg(long)]
    time: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = start_logging(&cli) {
        eprintln!("binnacle: {error:#}");
        return ExitCode::FAILURE;
    }
    // Once per process, before the first client is made; nobody else installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Collect(args) => serve::collect(args),
        Command::Check { what } => return check::run(what),
        Command::Test { what: TestCommand::Rules { files } } => return check::test_rules(&files),
        Command::Config { what: ConfigCommand::Routes { what: RoutesCommand::Test(args) } } => {
            tell::test_routes(&args)
        }
        Command::Template { what: TemplateCommand::Render(args) } => tell::render(&args),
        Command::Tsdb { what: TsdbCommand::Analyze(args) } => tsdb::analyze(&args),
        Command::Tsdb { what: TsdbCommand::Verify(args) } => tsdb::verify(&args),
        Command::Tsdb { what: TsdbCommand::Import(args) } => tsdb::import(&args),
        Command::Query(args) => client::query(&args),
        Command::Logs(args) => client::logs(&args),
        Command::Export { what: ExportCommand::Logs(args) } => client::export_logs(&args),
        Command::Delete { what: DeleteCommand::Logs(args) } => client::delete_logs(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("binnacle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(cli: &Cli) -> anyhow::Result<()> {
    use anyhow::Context;
    let filter =
        tracing_subscriber::EnvFilter::try_new(format!("{},tantivy=warn,kube_client=off", cli.log_level))
            .with_context(|| format!("--log-level {:?}", cli.log_level))?;
    // A closed pipe behind standard error must not end anything but the log.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    match cli.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
