//! The listener: bounded in connections, in the time for a request's head, and in its size.
//!
//! axum's own `serve` sets no timer, so that hyper's header timeout would never fire.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use binnacle_query::http::{Peer, is_foreign};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::stage::Stage;

/// As many as Prometheus allows.
const MAX_CONNECTIONS: usize = 512;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_MAX_BYTES: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;
/// For a connection's first request. Some clients open one before they have it.
const FIRST_TIMEOUT: Duration = Duration::from_mins(2);
/// Requests of one connection of HTTP/2 at once.
const MAX_STREAMS: u32 = 32;
const PING_INTERVAL: Duration = Duration::from_mins(1);
/// Requests under way may end after the stop.
const DRAIN: Duration = Duration::from_secs(10);

/// What the page may do: its own scripts and styles, and nothing else.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// Binds the address, or says what to do about it.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; choose another address with --listen"))
}

/// The router with what every answer needs.
pub(crate) fn wrap(router: Router) -> Router {
    wrap_with(router, || async { (StatusCode::NOT_FOUND, "404 page not found\n") })
}

/// As [`wrap`], with another answer for paths that there are not.
pub(crate) fn wrap_with<S, H, T>(router: Router<S>, not_found: H) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    H: Handler<T, S>,
    T: 'static,
{
    let set = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    let not_allowed = || async { (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response() };
    router.fallback(not_found).method_not_allowed_fallback(not_allowed).layer(
        ServiceBuilder::new()
            .layer(CatchPanicLayer::new())
            .layer(set(header::CONTENT_SECURITY_POLICY, CSP))
            .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(set(header::REFERRER_POLICY, "no-referrer"))
            .layer(CompressionLayer::new()),
    )
}

/// The doors of shippers, for no page of another site: a browser sends plain text anywhere without asking.
pub(crate) fn own_site_only(doors: Router) -> Router {
    doors.layer(middleware::from_fn(|request: axum::extract::Request, next: Next| async move {
        if is_foreign(request.headers()) {
            let reason = "a page of another site may not do this\n";
            return (StatusCode::FORBIDDEN, reason).into_response();
        }
        next.run(request).await
    }))
}

/// Serves until `stop` fires; then lets requests under way end.
pub(crate) async fn serve(listener: TcpListener, stage: Stage, stop: CancellationToken) {
    serve_with(listener, connection_builder(), stage, stop).await;
}

/// As [`serve`], for clients that begin with HTTP/2, as those of gRPC do.
pub(crate) async fn serve_http2(listener: TcpListener, stage: Stage, stop: CancellationToken) {
    serve_with(listener, http2_builder(), stage, stop).await;
}

async fn serve_with(
    listener: TcpListener,
    builder: Builder<TokioExecutor>,
    stage: Stage,
    stop: CancellationToken,
) {
    let tracker = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let builder = Arc::new(builder);
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => match place {
                Ok(place) => place,
                Err(_) => break,
            },
        };
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptors left, most likely: some will be free in a moment.
                    tracing::warn!(%error, "connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let stage = stage.clone();
        let asked = CancellationToken::new();
        let first = asked.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            first.cancel();
            request.extensions_mut().insert(Peer(from.ip()));
            stage.router().oneshot(request)
        });
        let (builder, stop) = (Arc::clone(&builder), stop.clone());
        tracker.spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
            // Whoever opens a connection has something to ask; HTTP/2 alone would wait for it without a limit.
            let is_asked = tokio::select! {
                done = connection.as_mut() => return log_end(done.err()),
                () = asked.cancelled() => true,
                () = tokio::time::sleep(FIRST_TIMEOUT) => false,
                () = stop.cancelled() => true,
            };
            if !is_asked {
                return;
            }
            let done = tokio::select! {
                done = connection.as_mut() => done,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            log_end(done.err());
        });
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(DRAIN, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "connections were still open at the stop");
    }
}

fn log_end(error: Option<Box<dyn std::error::Error + Send + Sync>>) {
    if let Some(error) = error {
        tracing::debug!(%error, "connection ended");
    }
}

/// HTTP/2 alone: a client that says nothing for long is asked whether it is there.
fn http2_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(HEAD_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(HEAD_MAX_BYTES as u32);
    builder
}

/// HTTP/1 only: telling HTTP/2 apart would mean to wait, without a limit, for a client's first bytes.
fn connection_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(MAX_HEADERS);
    builder
}
