//! Rules, and whoever is told.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use binnacle_alerting::http::v2::V2;
use binnacle_alerting::http::{self, AlertApi};
use binnacle_alerting::notify::{AlertmanagerConfig, Dispatcher, InForce, Sender, Silences};
use binnacle_alerting::rules::{Evaluator, Settings};
use binnacle_alerting::{AlertDb, Telemetry};
use binnacle_model::time::Clock;
use binnacle_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits_of;
use crate::config::Config;
use crate::{ServeArgs, server};

/// What others ask of alerting.
pub(super) struct Watch {
    api: Arc<AlertApi>,
    pub(super) v2: Arc<V2>,
}

impl Watch {
    /// Prometheus's routes and Alertmanager's; a page of another site may silence nothing.
    pub(super) fn router(self) -> Router {
        server::own_site_only(http::v2::router(self.v2)).merge(http::router(self.api))
    }
}

/// Starts evaluating and telling. Without an `alertmanager.yml` nobody is told, but alerts and silences are there.
pub(super) fn start(
    config: &Config,
    alertmanager: Option<(AlertmanagerConfig, String)>,
    (args, external_url, store, clock): (&ServeArgs, &str, &Arc<Store>, &Arc<dyn Clock>),
    telemetry: Telemetry,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> anyhow::Result<Watch> {
    let connection = binnacle_store::sqlite::open(&args.data.join("alerting.sqlite"), &AlertDb::MIGRATIONS)?;
    let db = Arc::new(AlertDb::new(connection));
    let (routes, shown) = alertmanager.unwrap_or_default();
    let routes = InForce::new(routes);
    let silences = Silences::open(Arc::clone(&db), Arc::clone(clock)).context("cannot read the silences")?;
    let dispatcher = Arc::new(Dispatcher::new(
        routes.clone(),
        external_url.to_owned(),
        Arc::clone(&db),
        Arc::new(silences),
        Arc::clone(clock),
    ));
    tasks.spawn(Arc::clone(&dispatcher).run(stop.clone()));
    let sender = Sender::new(routes, Arc::clone(&db), Arc::clone(clock), telemetry.clone());
    tasks.spawn(Arc::new(sender).run(stop.clone()));
    let settings = Settings {
        interval: config.evaluation_interval.unwrap_or(Duration::from_mins(1)),
        external_labels: config.external_labels.clone(),
        external_url: external_url.to_owned(),
        limits: limits_of(args, config),
    };
    let evaluator = Evaluator::new(
        config.groups.clone(),
        settings,
        store.clone(),
        store.clone(),
        Arc::clone(&db),
        dispatcher.clone(),
        Arc::clone(clock),
        telemetry,
    )
    .context("cannot read the state of alerts")?;
    let evaluator = Arc::new(evaluator);
    evaluator.start(tasks, stop);
    let v2 = Arc::new(V2::new(dispatcher, shown, clock.now()));
    Ok(Watch { api: Arc::new(AlertApi { evaluator, db }), v2 })
}
