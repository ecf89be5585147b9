//! `POST /-/reload` and SIGHUP: the file's scrape configs and probes are read again.
//!
//! All of the file is checked, and one that is wrong changes nothing. What else than scraping changed in it waits for a
//! restart, and is said.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
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
        status: &Arc<Status>,
    ) -> Arc<Self> {
        let collector = Self::of_collect(args.config.clone(), config, parts);
        Arc::new(Self { status: Some(Arc::clone(status)), is_open: args.enable_lifecycle, ..collector })
    }

    pub(super) fn of_collect(
        path: Option<PathBuf>,
        config: &Config,
        (scraper, endpoint, monitors): (&Arc<Scraper>, &Arc<Endpoint>, Option<MonitorHandle>),
    ) -> Self {
        let (scraper, endpoint, turn) = (Arc::clone(scraper), Arc::clone(endpoint), Mutex::default());
        let (status, others) = (None, config.others);
        Self { path, scraper, endpoint, monitors, status, others, is_open: false, turn }
    }

    /// Answers what is still to be done, or why nothing was.
    fn reload(&self) -> anyhow::Result<&'static str> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.path else { return Ok("there is no file to read: see --config") };
        let read = config::load(path);
        if let (Err(_), Some(status)) = (&read, &self.status) {
            status.in_force().is_good = false;
        }
        let config = read?;
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
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

    async fn on_thread(self: &Arc<Self>) -> anyhow::Result<&'static str> {
        let me = Arc::clone(self);
        tokio::task::spawn_blocking(move || me.reload()).await?
    }

    /// As Prometheus answers.
    pub(super) async fn answer(self: &Arc<Self>) -> Response {
        if !self.is_open {
            return (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response();
        }
        match self.on_thread().await {
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
                if let Err(error) = me.on_thread().await {
                    tracing::error!(error = format!("{error:#}"), "the configuration was not read again");
                }
            }
        });
    }
}
