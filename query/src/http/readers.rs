//! Readers of live tails: which pages may be some, and how many there are at once.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ApiError;

/// A WebSocket no longer counts among the listener's connections.
const MAX_READERS: usize = 256;

/// Places for the readers of a route.
#[derive(Debug, Clone)]
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_READERS)))
    }
}

impl Readers {
    /// A place for as long as it is held; an error where none is free, or where a page of another site asks for a
    /// WebSocket, which browsers let it read.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, ApiError> {
        if headers.contains_key(header::UPGRADE) && is_foreign(headers) {
            return Err(ApiError::BadData("a page of another site may not read logs".to_owned()));
        }
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| ApiError::Busy)
    }
}

/// Whether a page of another site asks: browsers send cookies with it, and ask nobody.
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_none_or(|(_, host)| text(header::HOST) != Some(host))
}
