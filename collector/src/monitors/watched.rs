//! All monitors of one kind, as the API says them.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::set::{Name, Object};
use super::telemetry::MonitorTelemetry;
use super::views::Monitor;
use crate::kubernetes::watch::{Selection, Watch};

/// A kind that is not installed, or may not be read, is asked for again.
const RETRY: Duration = Duration::from_mins(1);

/// Monitors that are there or gone.
pub(super) type Changes = Vec<(Name, Option<Object>)>;

/// Says to `changes` what there is, until `stop` fires.
pub(super) async fn follow<K: Monitor>(
    client: Client,
    selection: Selection,
    telemetry: MonitorTelemetry,
    changes: Sender<Changes>,
    stop: CancellationToken,
) {
    let watching = async {
        wait_until_there::<K>(&client, &selection).await;
        let mut watch: Watch<K> = Watch::new(client, &selection, &telemetry.watches);
        loop {
            let keys = watch.changed().await;
            let object = |of: &K| Object { meta: of.meta().clone().into(), spec: of.spec().clone().into() };
            let news = keys.into_iter().map(|key| {
                let found = watch.objects().get(&key).map(|found| object(found));
                ((K::KIND, key), found)
            });
            let news: Changes = news.collect();
            if !news.is_empty() && changes.send(news).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watching => {}
    }
}

/// Until the kind is known to the API. Prometheus Operator need not run, but what it brings must be installed.
async fn wait_until_there<K: Monitor>(client: &Client, selection: &Selection) {
    let mut said = 0;
    loop {
        let api: Api<K> = match &selection.namespace {
            None => Api::all_with(client.clone(), &()),
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &()),
        };
        let code = match api.list_metadata(&ListParams::default().limit(1)).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => status.code,
            // Of all else the watch says what is wrong.
            _ => return,
        };
        if std::mem::replace(&mut said, code) != code {
            let resource = K::RESOURCE;
            if code == 404 {
                tracing::info!(
                    resource,
                    "the cluster does not know these monitors; it is asked every minute"
                );
            } else {
                tracing::warn!(
                    resource,
                    "monitors may not be read: the service account needs `get`, `list` and `watch` on them; it is asked every minute"
                );
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
