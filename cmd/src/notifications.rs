//! `/api/v1/notifications`: what the server has to say of itself to everybody who looks at it, and the stream of it.
//!
//! There is one thing so far: that it stops, which only the stream can still tell.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::status::{Shared, success};

/// Streams at once, as Prometheus allows.
const SUBSCRIBERS: usize = 16;

const STOPPING: &str = "Binnacle is stopping: requests under way end, then everything is written to disk.";

/// Who listens, and until when.
pub(crate) struct Notifications {
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Notifications {
    /// Until `stop` fires, which is what there is to tell.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(SUBSCRIBERS)), stop }
    }
}

pub(crate) async fn list() -> Json<Value> {
    success(&json!([]))
}

/// Stays open until the server stops. With no place left it answers 204, upon which browsers do not try again.
pub(crate) async fn live(State(status): Shared) -> Response {
    let places = Arc::clone(&status.notifications.places);
    let Ok(place) = places.try_acquire_owned() else {
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        return (StatusCode::NO_CONTENT, headers).into_response();
    };
    let told = stream::once(async move {
        let _place = place;
        status.notifications.stop.cancelled().await;
        let date = status.clock.now().to_rfc3339();
        let text = json!({ "text": STOPPING, "date": date, "active": true });
        Ok::<_, Infallible>(Event::default().data(text.to_string()))
    });
    // A comment now and then: a client that is gone without a word would keep its place.
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}
