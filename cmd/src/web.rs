//! The page: what `make ui` built, carried in the binary.

use axum::Router;

/// Routes of the page, if this binary has one.
#[cfg(not(feature = "ui"))]
pub(crate) fn router() -> Router {
    Router::new()
}

/// Routes of the page, if this binary has one.
#[cfg(feature = "ui")]
pub(crate) fn router() -> Router {
    use axum::routing::get;
    Router::new()
        .route("/", get(|| async { embedded::asset("index.html") }))
        .route("/graph", get(embedded::to_metrics))
        .route("/assets/{*path}", get(embedded::handler))
        .route("/favicon.svg", get(|| async { embedded::asset("favicon.svg") }))
}

#[cfg(feature = "ui")]
mod embedded {
    use axum::extract::{Path, RawQuery};
    use axum::http::{StatusCode, header};
    use axum::response::{IntoResponse, Redirect, Response};
    use rust_embed::RustEmbed;

    #[derive(RustEmbed)]
    #[folder = "$CARGO_MANIFEST_DIR/../dashboards/web/dist"]
    struct Assets;

    pub(super) async fn handler(Path(path): Path<String>) -> Response {
        asset(&format!("assets/{path}"))
    }

    /// The links of alerts lead to Prometheus's page; ours shows the same query.
    pub(super) async fn to_metrics(RawQuery(query): RawQuery) -> Redirect {
        let query = query.unwrap_or_default();
        let expr = query.split('&').find_map(|pair| pair.strip_prefix("g0.expr="));
        Redirect::to(&format!("/?page=metrics&expr={}", expr.unwrap_or_default()))
    }

    pub(super) fn asset(path: &str) -> Response {
        let Some(file) = Assets::get(path) else {
            return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
        };
        let kind = match path.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("woff2") => "font/woff2",
            _ => "application/octet-stream",
        };
        // Names under assets/ change with their content.
        let cache =
            if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
        ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], file.data.into_owned())
            .into_response()
    }
}
