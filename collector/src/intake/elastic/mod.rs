//! `/elastic/`: what Filebeat, Fluent Bit, Logstash, Vector, rsyslog and the clients of Elasticsearch write to.
//!
//! ```text
//! GET /elastic/…          probes   who is there, and that there are no templates, policies and pipelines
//! POST /elastic/_bulk     bulk     action, document, action, document … ─► drafts ─► one append
//!                         answer   an item for each action, in order, once the append is durable
//! ```
//!
//! An index is no place here: all documents go to the one store of logs, and an index that is named stays with its
//! entries as the attribute `_index`. A document's `_id` does not make two of them one. What is refused of a request
//! is refused by item, so that a sender need not repeat what was kept.

mod answer;
mod bulk;
mod probes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;

use super::Intake;
pub use bulk::try_read;

/// Clients of Elasticsearch believe no server that does not say this.
const PRODUCT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-elastic-product"), HeaderValue::from_static("Elasticsearch"));

/// Takes every request under `/elastic`.
pub(super) async fn handle(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    let path = request.uri().path().strip_prefix("/elastic").unwrap_or_default().trim_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let mut answer = match (request.method(), &*segments) {
        (&Method::POST | &Method::PUT, ["_bulk"]) => bulk::handle(&intake, None, request).await,
        (&Method::POST | &Method::PUT, [index, "_bulk"] | [index, _, "_bulk"]) => {
            bulk::handle(&intake, Some(index), request).await
        }
        (method, segments) => probes::answer(method, segments, intake.clock.now()),
    };
    let (name, value) = PRODUCT;
    answer.headers_mut().insert(name, value);
    answer
}
