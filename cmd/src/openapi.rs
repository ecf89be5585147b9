//! `/api/v1/openapi.yaml`: the API in words of OpenAPI. A test compares it with the routes and with what they answer.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use binnacle_query::http::Params;

/// Written by hand, for 3.1.
const DOCUMENT: &str = include_str!("openapi.yaml");
const HEAD: &str = "openapi: 3.1.0\n";

/// As Prometheus: `openapi_version=3.2` asks for the newer form, which this document satisfies, too.
pub(crate) async fn document(params: Params) -> Response {
    let wants_newer = matches!(params.get("openapi_version"), Some("3.2" | "3.2.0"));
    let body = if wants_newer { DOCUMENT.replacen(HEAD, "openapi: 3.2.0\n", 1) } else { DOCUMENT.to_owned() };
    let headers = [
        (header::CONTENT_TYPE, "application/yaml; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    ];
    (headers, body).into_response()
}
