//! Parameters, from the URL and from a form, merged.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, header};
use binnacle_model::time::parse_duration;
use binnacle_model::{LogTime, Timestamp};

use super::{ApiError, Asked};

/// Longest form.
const FORM_MAX_BYTES: usize = 1024 * 1024;
/// For a whole form to arrive.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);

/// All parameters of a request; those of the form come first, as in Go.
#[derive(Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
    path: String,
    user: String,
}

/// The other end of a connection, where whoever accepts it says so in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Whom a proxy or Grafana names; they share the gate by turns. No proof of anything.
const USER_HEADERS: [&str; 2] = ["x-grafana-user", "x-forwarded-user"];
/// Longest name of a user that is told apart.
const USER_MAX: usize = 100;

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let (path, user) = (request.uri().path().to_owned(), user(request.headers(), request.extensions()));
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        // Whoever sends JSON would get the answer to another question.
        if content_type.starts_with("application/json") && request.method() == Method::POST {
            let reason = "parameters in JSON are not read; send them in the URL or as a form";
            return Err(ApiError::BadData(reason.to_owned()));
        }
        let is_form = content_type.starts_with("application/x-www-form-urlencoded");
        let form = if is_form {
            let read = to_bytes(request.into_body(), FORM_MAX_BYTES);
            let read = tokio::time::timeout(FORM_TIMEOUT, read).await;
            let read = read.map_err(|_| ApiError::BadData("form did not arrive within 30 s".to_owned()))?;
            read.map_err(|error| ApiError::BadData(format!("form cannot be read: {error}")))?
        } else {
            Bytes::new()
        };
        let parsed = form_urlencoded::parse(&form).chain(form_urlencoded::parse(query.as_bytes()));
        let pairs = parsed.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Ok(Self { pairs, path, user })
    }
}

fn user(headers: &HeaderMap, extensions: &Extensions) -> String {
    let named = USER_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    if let Some(name) = named.into_iter().find(|name| !name.is_empty()) {
        return name.chars().take(USER_MAX).collect();
    }
    extensions.get::<Peer>().map_or_else(|| "unknown".to_owned(), |peer| peer.0.to_string())
}

impl Params {
    /// Those of a request whose body is no form.
    pub(super) fn of(request: &Parts) -> Self {
        let query = request.uri.query().unwrap_or_default();
        let (path, user) = (request.uri.path().to_owned(), user(&request.headers, &request.extensions));
        Self { path, user, ..Self::from_query(query) }
    }

    /// A query for logs, which may also be named as everywhere else.
    pub(super) fn log_query(&self) -> &str {
        self.get("q").or_else(|| self.get("query")).unwrap_or_default()
    }

    /// Who asks for what, for the gate.
    pub(super) fn asked(&self, at: Timestamp) -> Asked {
        let said = ["query", "q", "match[]"].into_iter().find_map(|name| self.get(name));
        Asked { user: self.user.clone(), query: said.unwrap_or(&self.path).to_owned(), at }
    }

    /// Parameters of a URL's query.
    pub fn from_query(query: &str) -> Self {
        let parsed = form_urlencoded::parse(query.as_bytes());
        Self { pairs: parsed.into_owned().collect(), ..Self::default() }
    }

    /// Names and values in order.
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.pairs.iter().filter(|(key, value)| key == name && !value.is_empty());
        found.next().map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A moment as Loki takes it: Unix nanoseconds, seconds with a fraction, RFC 3339.
    pub(super) fn log_time(&self, name: &str) -> Result<Option<LogTime>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let refuse = || {
            let reason = format!("{text:?} is no time; write Unix nanoseconds, seconds or RFC 3339");
            ApiError::parameter(name, reason)
        };
        LogTime::parse(text).map(Some).ok_or_else(refuse)
    }

    /// A moment of the metrics side.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let refuse = || ApiError::parameter(name, format!("cannot parse {text:?} to a valid timestamp"));
        Timestamp::parse(text).map(Some).ok_or_else(refuse)
    }

    /// A span: seconds with a fraction, or as `5m`.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        if let Ok(seconds) = text.parse::<f64>() {
            // Nanoseconds of 64 bits, as in Go; beyond that no sum of times is safe.
            let span = Duration::try_from_secs_f64(seconds).ok();
            let span = span.filter(|span| span.as_nanos() <= i64::MAX as u128);
            let refuse = || ApiError::parameter(name, format!("cannot parse {text:?} to a valid duration"));
            return span.map(Some).ok_or_else(refuse);
        }
        parse_duration(text).map(Some).map_err(|reason| ApiError::parameter(name, reason))
    }

    /// A count.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let refuse = |_| ApiError::parameter(name, format!("{text:?} is no count"));
        text.parse().map(Some).map_err(refuse)
    }

    /// A count of which zero and less stand for any number.
    pub(super) fn most(&self, name: &str) -> Result<usize, ApiError> {
        if self.get(name).and_then(|text| text.parse::<i64>().ok()).is_some_and(|count| count <= 0) {
            return Ok(usize::MAX);
        }
        Ok(self.count(name)?.unwrap_or(usize::MAX))
    }
}
