//! A page, from wherever it is: the deadline, the bound of its size, and where redirects may lead.

use std::sync::Arc;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode, Url};

use super::protocol::{Media, media};
use super::run::Tools;
use super::target::{PageSource, Target};
use crate::bounds::{Bounds, Held};
use crate::exposition::Format;
use binnacle_outgoing::{Guarded, chain};

/// As Go's HTTP client.
const REDIRECTS_MAX: usize = 10;

/// No line of a page of text is longer. A body that grows a thousandfold when it is unpacked has none that end, and is not
/// read up to the bound of pages.
const LINE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A page as it came.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) bytes: Vec<u8>,
    /// An empty page needs no type.
    pub(super) media: Result<Media, String>,
    /// Its place within the bounds of memory.
    _held: Held,
}

/// Why there is no page.
#[derive(Debug)]
pub(super) struct FetchError {
    pub(super) reason: String,
    /// Whether there were more bytes than there may be.
    pub(super) is_too_long: bool,
}

impl From<String> for FetchError {
    fn from(reason: String) -> Self {
        Self { reason, is_too_long: false }
    }
}

/// The target's page within its timeout, which is for connection, headers and body together; `expected_bytes` is the
/// length of the one before.
pub(super) async fn fetch(
    target: &Target,
    expected_bytes: usize,
    tools: &Tools,
    held: Held,
) -> Result<Page, FetchError> {
    match &target.source {
        PageSource::Http(url) => {
            let page = by_http(target, url, expected_bytes, (&tools.bounds, held));
            let fetched = tokio::time::timeout(target.timeout, page).await;
            fetched.unwrap_or_else(|_| Err("context deadline exceeded".to_owned().into()))
        }
        PageSource::Probe(probe) => {
            // Its time is a little shorter than ours.
            let (page, success) = probe.page(target.timeout).await?;
            tools.telemetry.probed(success);
            Ok(Page { bytes: page.into_bytes(), media: Ok(Media::Text(Format::Text)), _held: held })
        }
        PageSource::Local(_, page) => {
            let page = Arc::clone(page);
            let made = tokio::task::spawn_blocking(move || page()).await;
            let bytes = made.map_err(|error| error.to_string())??.into_bytes();
            let is_open = bytes.ends_with(b"# EOF\n");
            let format = if is_open { Format::OpenMetrics } else { Format::Text };
            Ok(Page { bytes, media: Ok(Media::Text(format)), _held: held })
        }
    }
}

async fn by_http(
    target: &Target,
    url: &Url,
    expected_bytes: usize,
    (bounds, mut held): (&Bounds, Held),
) -> Result<Page, FetchError> {
    let pool = &target.pool;
    let mut response = respond(target, url).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("server returned HTTP status {}", response.status()).into());
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let media = media(&content_type, pool.fallback);
    let max_bytes = pool.limits.body_bytes.min(bounds.page_bytes());
    let mut line_start = 0;
    let mut bytes = Vec::with_capacity(expected_bytes.min(max_bytes));
    while let Some(chunk) = response.chunk().await.map_err(chain)? {
        if bytes.len() + chunk.len() > max_bytes {
            let of_memory =
                if max_bytes < pool.limits.body_bytes { ", a half of collector.memory" } else { "" };
            let reason = format!("body size limit exceeded: more than {max_bytes} bytes{of_memory}");
            return Err(FetchError { reason, is_too_long: true });
        }
        line_start = memchr::memrchr(b'\n', &chunk).map_or(line_start, |at| bytes.len() + at + 1);
        bounds.pages.grow(&mut held, bytes.len() + chunk.len()).await;
        bytes.extend_from_slice(&chunk);
        if bytes.len() - line_start > LINE_MAX_BYTES && media != Ok(Media::Protobuf) {
            return Err(format!("a line has more than {LINE_MAX_BYTES} bytes").into());
        }
    }
    Ok(Page { bytes, media, _held: held })
}

/// Follows redirects by hand: a host that was not configured is reached only where it is no link-local or metadata
/// address, at which whoever answers could make us read what is not for him; and it is not told who we are.
async fn respond(target: &Target, url: &Url) -> Result<Response, FetchError> {
    let pool = &target.pool;
    let clients = pool.clients().await?;
    let headers = pool.way.headers().await?;
    let mut own = HeaderMap::new();
    let header = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    own.insert(ACCEPT, header(&pool.accept)?);
    own.insert("x-prometheus-scrape-timeout-seconds", header(&target.timeout.as_secs_f64().to_string())?);
    let mut next = url.clone();
    if pool.guarded.has_host(url) {
        return Err(pool.guarded.name().to_owned().into());
    }
    let elsewhere = pool.guarded.max(Guarded::Metadata);
    for _ in 0..=REDIRECTS_MAX {
        let is_same = next.host() == url.host();
        let client = pool.client(&clients, if is_same { pool.guarded } else { elsewhere })?;
        let mut request = client.get(next.clone()).timeout(target.timeout).headers(own.clone());
        if is_same {
            request = request.headers(headers.clone());
        }
        let response = request.send().await.map_err(chain)?;
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let (true, Some(location)) = (is_redirect && pool.follow_redirects, location) else {
            return Ok(response);
        };
        next = next.join(location).map_err(|error| format!("redirect to {location:?}: {error}"))?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(format!("redirect to {next}: neither http nor https").into());
        }
        let is_other = next.host() != url.host();
        if is_other && elsewhere.has_host(&next) {
            return Err(format!("redirect to {next}: {}", elsewhere.name()).into());
        }
        // Headers of one's own may be secrets that only the operator knows of.
        if is_other && pool.way.has_headers() {
            return Ok(response);
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects").into())
}
