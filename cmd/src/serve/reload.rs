//! `POST /-/reload` and SIGHUP: the file's scrape configs and probes are read again, and `alertmanager.yml`.
//!
//! All of the file is checked, and one that is wrong changes nothing. What else than scraping changed in it waits for a
//! restart, and is said.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use binnacle_alerting::http::v2::V2;
use binnacle_alerting::notify::AlertmanagerConfig;
use binnacle_collector::monitors::MonitorHandle;
use binnacle_collector::probe::Endpoint;
use binnacle_collector::scrape::Scraper;
use binnacle_model::time::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ServeArgs;
use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::status::{InForce, Status};

const OTHERS: &str = "sections other than scrape_configs and probes changed, too: these wait for a restart";

/// Reads the file again.
pub(super) struct Reloader {
    path: Option<PathBuf>,
    scraper: Arc<Scraper>,
    endpoint: Arc<Endpoint>,
    monitors: Option<MonitorHandle>,
    status: Option<Arc<Status>>,
    /// `alertmanager.yml`, and who follows it.
    routes: Option<(PathBuf, Arc<V2>)>,
    /// Of the file that this process was started with.
    others: u64,
    /// Whether it may be asked for over HTTP.
    is_open: bool,
    /// One at a time.
    turn: Mutex<()>,
}

impl Reloader {
    pub(super) fn of_serve(
        args: &ServeArgs,
        config: &Config,
        parts: (&Arc<Scraper>, &Arc<Endpoint>, Option<MonitorHandle>),
        (status, v2): (&Arc<Status>, &Arc<V2>),
    ) -> Arc<Self> {
        let collector = Self::of_collect(args.config.clone(), config, parts);
        let routes = args.alertmanager_config.clone().map(|path| (path, Arc::clone(v2)));
        let status = Some(Arc::clone(status));
        Arc::new(Self { status, routes, is_open: args.enable_lifecycle, ..collector })
    }

    pub(super) fn of_collect(
        path: Option<PathBuf>,
        config: &Config,
        (scraper, endpoint, monitors): (&Arc<Scraper>, &Arc<Endpoint>, Option<MonitorHandle>),
    ) -> Self {
        let (scraper, endpoint, turn) = (Arc::clone(scraper), Arc::clone(endpoint), Mutex::default());
        let (status, routes, others) = (None, None, config.others);
        Self { path, scraper, endpoint, monitors, status, routes, others, is_open: false, turn }
    }

    /// Answers what is still to be done, or why nothing was.
    fn reload(&self) -> anyhow::Result<&'static str> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // All is read before anything is taken.
        let routes =
            self.routes.as_ref().map(|(path, v2)| config::load_alertmanager(path).map(|read| (read, v2)));
        let routes = routes.transpose()?;
        let Some(path) = &self.path else {
            let Some(((routes, shown), v2)) = routes else {
                return Ok("there is no file to read: see --config and --alertmanager-config");
            };
            take(v2, routes, shown);
            return Ok("");
        };
        let read = config::load(path);
        if let (Err(_), Some(status)) = (&read, &self.status) {
            status.in_force().is_good = false;
        }
        let config = read?;
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if let Some(((routes, shown), v2)) = routes {
            take(v2, routes, shown);
        }
        self.scraper.reload(config.pools);
        if let Some(monitors) = &self.monitors {
            monitors.set(config.defaults);
        }
        self.endpoint.reload(config.probes);
        if let Some(status) = &self.status {
            *status.in_force() = InForce { yaml: config.shown, at: SystemClock.now(), is_good: true };
        }
        tracing::info!(file = %path.display(), "scrape configs are read again");
        if config.others == self.others {
            return Ok("");
        }
        tracing::warn!("{OTHERS}");
        Ok(OTHERS)
    }

    /// As [`Self::reload`], of `alertmanager.yml` alone.
    fn reroute(&self) -> anyhow::Result<&'static str> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, v2)) = &self.routes {
            let (routes, shown) = config::load_alertmanager(path)?;
            take(v2, routes, shown);
        }
        Ok("")
    }

    async fn on_thread(
        self: &Arc<Self>,
        work: fn(&Self) -> anyhow::Result<&'static str>,
    ) -> anyhow::Result<&'static str> {
        let me = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&me)).await?
    }

    /// As Prometheus answers.
    pub(super) async fn answer(self: &Arc<Self>) -> Response {
        if !self.is_open && self.routes.is_none() {
            return (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response();
        }
        // Alertmanager needs no flag for it, Prometheus does: each file as its own server would.
        let done = if self.is_open {
            self.on_thread(Self::reload).await
        } else {
            self.on_thread(Self::reroute).await
        };
        match done {
            Ok("") => StatusCode::OK.into_response(),
            Ok(left) => format!("{left}\n").into_response(),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the configuration was not read again");
                let text = format!("failed to reload config: {error:#}\n");
                (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
            }
        }
    }

    /// Reloads at each SIGHUP until `stop` fires.
    pub(super) fn listen(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (me, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move {
            let mut hangups = match signal(SignalKind::hangup()) {
                Ok(hangups) => hangups,
                Err(error) => {
                    tracing::error!(%error, "SIGHUP cannot be handled");
                    return;
                }
            };
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = hangups.recv() => {}
                }
                if let Err(error) = me.on_thread(Self::reload).await {
                    tracing::error!(error = format!("{error:#}"), "the configuration was not read again");
                }
            }
        });
    }
}

fn take(v2: &V2, routes: AlertmanagerConfig, shown: String) {
    routes.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    v2.reload(routes, shown);
    tracing::info!("routes and receivers are read again");
}
