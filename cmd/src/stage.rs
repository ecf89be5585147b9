//! What answers while the store is being opened, and the routes after that.
//!
//! A start may have to read hours of the write-ahead log. Probes must not hang meanwhile, or Kubernetes would restart a
//! server that does its work.

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use binnacle_store::ReplayProgress;
use serde_json::{Value, json};

use crate::server;

/// The routes as they are now.
#[derive(Clone)]
pub(crate) struct Stage {
    starting: Router,
    ready: Arc<OnceLock<Router>>,
}

impl Stage {
    /// While `progress` is made.
    pub(crate) fn starting(progress: Arc<ReplayProgress>) -> Self {
        let starting = server::wrap_with(
            Router::new()
                .route("/-/healthy", get(healthy).head(healthy))
                .route("/livez", get(healthy))
                .route("/api/v1/status/walreplay", get(wal_replay)),
            unavailable,
        );
        Self { starting: starting.with_state(progress), ready: Arc::default() }
    }

    /// Of a server that has nothing to open.
    pub(crate) fn of(router: Router) -> Self {
        Self { starting: router, ready: Arc::default() }
    }

    /// From now on these answer.
    pub(crate) fn set_ready(&self, router: Router) {
        // Nobody does it twice.
        let _ = self.ready.set(router);
    }

    pub(crate) fn router(&self) -> Router {
        self.ready.get().unwrap_or(&self.starting).clone()
    }
}

/// Whatever a start still does: it lives.
pub(crate) async fn healthy() -> &'static str {
    "Binnacle is Healthy.\n"
}

/// As Prometheus shows it while it replays.
async fn wal_replay(State(progress): State<Arc<ReplayProgress>>) -> Json<Value> {
    let [first, last, current] = progress.files();
    let state = if current == 0 { "waiting" } else { "in progress" };
    let data = json!({ "min": first, "max": last, "current": current, "state": state });
    Json(json!({ "status": "success", "data": data }))
}

async fn unavailable(State(progress): State<Arc<ReplayProgress>>) -> Response {
    let [first, last, current] = progress.files();
    let place = if current == 0 {
        String::new()
    } else {
        format!(": reading file {current} of {first} to {last} of the write-ahead log")
    };
    let retry = [(header::RETRY_AFTER, "5")];
    (StatusCode::SERVICE_UNAVAILABLE, retry, format!("Service Unavailable: starting{place}\n"))
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get_of(stage: &Stage, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = stage.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_start_says_how_far_it_is_and_then_the_routes_answer() {
        let stage = Stage::starting(Arc::default());
        assert_eq!(get_of(&stage, "/-/healthy").await.0, 200);
        for path in ["/-/ready", "/readyz", "/api/v1/query?query=up", "/"] {
            let (status, text) = get_of(&stage, path).await;
            assert_eq!((status, text.as_str()), (503, "Service Unavailable: starting\n"), "{path}");
        }
        let (status, text) = get_of(&stage, "/api/v1/status/walreplay").await;
        assert!(status == 200 && text.contains(r#""state":"waiting""#), "{text}");
        stage.set_ready(Router::new().route("/-/ready", get(healthy)));
        assert_eq!(get_of(&stage, "/-/ready").await.0, 200);
    }
}
