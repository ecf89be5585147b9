//! Probes of HTTP: a request, the redirects that follow, and what the last response is like.
//!
//! ```text
//! resolve ─► hop: connect ─► tls ─► request ─► response ─┬─ redirect: the next hop, resolved anew
//!                                                        └─ judge: status, headers, body, version, TLS
//! ```

mod body;
mod hop;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, LAST_MODIFIED, LOCATION, SET_COOKIE};
use hyper::{HeaderMap, Method, Response, StatusCode, Version};
use regex::bytes::Regex;
use reqwest::Url;

use super::Run;
use super::config::{Body, HeaderRule, HttpModule};
use super::net::{bare, lap};
pub(super) use hop::{Driver, all_of, http2_exchange};
use hop::{Hop, Jar, Received};

/// As blackbox exporter.
const REDIRECTS_MAX: u32 = 10;

/// A file that is sent as a body.
const FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;

pub(super) async fn probe(module: &HttpModule, run: &mut Run, target: &str) -> Result<(), String> {
    for name in [
        "probe_failed_due_to_regex",
        "probe_http_content_length",
        "probe_http_redirects",
        "probe_http_ssl",
        "probe_http_status_code",
        "probe_http_uncompressed_body_length",
        "probe_http_version",
    ] {
        run.page.set(name, 0.0);
    }
    let has_scheme = target.starts_with("http://") || target.starts_with("https://");
    let text = if has_scheme { target.to_owned() } else { format!("http://{target}") };
    let url = Url::parse(&text).map_err(|error| format!("the target is no URL: {error}"))?;
    let host = url.host_str().ok_or("the target's URL has no host")?;
    let mut address = None;
    if module.proxy.as_ref().is_none_or(|proxy| !proxy.resolves) {
        let resolved = run.resolve(bare(host), module.family).await;
        run.phase("resolve", run.lookup.as_secs_f64());
        address = Some(resolved?);
    }
    for phase in ["connect", "tls", "processing", "transfer"] {
        run.phase(phase, 0.0);
    }
    let mut hop = Hop::first(module, url, address, run.hostname.clone());
    hop.body = body_of(module).await?;
    let (received, followed) = follow(module, run, hop).await?;
    judge(module, run, received, followed).await
}

impl Run {
    fn phase(&mut self, phase: &str, seconds: f64) {
        self.page.add("probe_http_duration_seconds", &[("phase", phase)], seconds);
    }
}

async fn body_of(module: &HttpModule) -> Result<Bytes, String> {
    match &module.body {
        Body::None => Ok(Bytes::new()),
        Body::Text(text) => Ok(Bytes::from(text.reveal().to_owned())),
        Body::File(path) => {
            let told = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
            let length = tokio::fs::metadata(path).await.map_err(told)?.len();
            if length > FILE_MAX_BYTES {
                return Err(format!("{} has more than {FILE_MAX_BYTES} bytes", path.display()));
            }
            tokio::fs::read(path).await.map(Bytes::from).map_err(told)
        }
    }
}

/// Makes requests until there is no redirect to follow. Also answers whether the last response is one that is not.
async fn follow(module: &HttpModule, run: &mut Run, first: Hop) -> Result<(Received, bool), String> {
    let mut jar = Jar::default();
    let mut hop = first;
    let mut redirects = 0;
    loop {
        let received = hop.send(module, run, &jar).await?;
        let response = &received.response;
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let (true, Some(location)) = (is_redirect, location) else { return Ok((received, true)) };
        redirects += 1;
        run.page.set("probe_http_redirects", f64::from(redirects));
        if !module.follows_redirects || redirects > REDIRECTS_MAX {
            run.log.say(&format!("a redirect to {location} is not followed"));
            return Ok((received, false));
        }
        for cookie in response.headers().get_all(SET_COOKIE) {
            jar.take(&hop.url, cookie.to_str().unwrap_or_default());
        }
        run.log.say(&format!("{} redirects to {location}", response.status()));
        hop = hop.next(response.status(), location)?;
    }
}

/// Says what the last response is like. The first thing that is wrong with it is why the probe fails.
async fn judge(module: &HttpModule, run: &mut Run, received: Received, is_read: bool) -> Result<(), String> {
    let Received { response, tls, mut since, .. } = received;
    let (head, stream) = response.into_parts();
    let (status, version) = (head.status, head.version);
    run.log.say(&format!("response {status} by {version:?}"));
    run.page.set("probe_http_status_code", f64::from(status.as_u16()));
    run.page.flag("probe_http_ssl", tls.is_some());
    if let Some(tls) = &tls {
        tls.say(&mut run.page);
    }
    run.page.set("probe_http_version", number_of(version));
    let modified = head.headers.get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
    if let Some(at) = modified.and_then(http_date) {
        run.page.set("probe_http_last_modified_timestamp_seconds", at as f64);
    }
    let is_empty = hyper::body::Body::is_end_stream(&stream);
    let length = length_of(&head.headers, status, &module.method, is_empty);
    run.page.set("probe_http_content_length", length as f64);

    let mut verdict = check_status(module, status);
    if verdict.is_ok() {
        verdict = check_headers(module, &head.headers).inspect_err(|_| run.failed_by_regex());
    }
    let has_rules = !module.if_body_matches.is_empty() || !module.if_body_not_matches.is_empty();
    let wants_body = verdict.is_ok() && has_rules;
    let mut transfer = Ok(());
    if is_read || wants_body {
        let (read, body) = body::read(module, stream, wants_body).await;
        run.page.set("probe_http_uncompressed_body_length", read as f64);
        match body {
            Ok(body) if wants_body => {
                verdict = check_body(module, &body).inspect_err(|_| run.failed_by_regex());
            }
            Ok(_) => {}
            Err(reason) => {
                if wants_body {
                    run.failed_by_regex();
                }
                transfer = Err(reason);
            }
        }
    }
    run.phase("transfer", lap(&mut since));
    verdict?;
    transfer?;
    let shown = format!("{version:?}");
    if !module.versions.is_empty() && !module.versions.contains(&shown) {
        return Err(format!("{shown} is none of valid_http_versions"));
    }
    match tls {
        Some(_) if module.fails_if_ssl => Err("the last response came over TLS".to_owned()),
        None if module.fails_if_not_ssl => Err("the last response did not come over TLS".to_owned()),
        _ => Ok(()),
    }
}

impl Run {
    fn failed_by_regex(&mut self) {
        self.page.set("probe_failed_due_to_regex", 1.0);
    }
}

fn number_of(version: Version) -> f64 {
    match version {
        Version::HTTP_09 => 0.9,
        Version::HTTP_10 => 1.0,
        Version::HTTP_2 => 2.0,
        Version::HTTP_3 => 3.0,
        _ => 1.1,
    }
}

/// A date as headers have it, in Unix seconds.
fn http_date(text: &str) -> Option<i64> {
    let formats = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let read = |format| chrono::NaiveDateTime::parse_from_str(text.trim(), format).ok();
    formats.into_iter().find_map(read).map(|time| time.and_utc().timestamp())
}

/// As Go says it: -1 where nobody knows.
fn length_of(headers: &HeaderMap, status: StatusCode, method: &Method, is_empty: bool) -> i64 {
    let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match said {
        Some(length) => length,
        None if status == StatusCode::NO_CONTENT || (is_empty && *method != Method::HEAD) => 0,
        None => -1,
    }
}

fn check_status(module: &HttpModule, status: StatusCode) -> Result<(), String> {
    if module.statuses.is_empty() {
        let is_valid = status.is_success();
        return if is_valid { Ok(()) } else { Err(format!("status {status} is none of 2xx")) };
    }
    if module.statuses.contains(&status.as_u16()) {
        return Ok(());
    }
    Err(format!("status {status} is none of valid_status_codes {:?}", module.statuses))
}

fn check_headers(module: &HttpModule, headers: &HeaderMap) -> Result<(), String> {
    let both = [(&module.if_header_matches, true), (&module.if_header_not_matches, false)];
    for (rules, fails_if) in both {
        for HeaderRule { name, regex, allows_missing } in rules {
            if !headers.contains_key(name) {
                if *allows_missing {
                    continue;
                }
                return Err(format!("the header {name} is missing"));
            }
            let does_match = headers.get_all(name).iter().any(|value| regex.is_match(value.as_bytes()));
            if does_match == fails_if {
                let how = if fails_if { "matches" } else { "does not match" };
                return Err(format!("the header {name} {how} {:?}", regex.as_str()));
            }
        }
    }
    Ok(())
}

fn check_body(module: &HttpModule, body: &[u8]) -> Result<(), String> {
    let told = |how: &str, regex: &Regex| Err(format!("the body {how} {:?}", regex.as_str()));
    if let Some(regex) = module.if_body_matches.iter().find(|regex| regex.is_match(body)) {
        return told("matches", regex);
    }
    match module.if_body_not_matches.iter().find(|regex| !regex.is_match(body)) {
        Some(regex) => told("does not match", regex),
        None => Ok(()),
    }
}

/// A response of which the body is still to come.
pub(super) type Incoming = Response<hyper::body::Incoming>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_lengths_are_read_as_go_does() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(http_date(text), Some(784_111_777), "{text}");
        }
        assert_eq!(http_date("yesterday"), None);
        let mut headers = HeaderMap::new();
        let length = |headers: &HeaderMap, status: u16, method, is_empty| {
            length_of(headers, StatusCode::from_u16(status).unwrap(), &method, is_empty)
        };
        assert_eq!(length(&headers, 200, Method::GET, false), -1);
        assert_eq!(length(&headers, 200, Method::HEAD, true), -1);
        assert_eq!(length(&headers, 204, Method::GET, true), 0);
        headers.insert(CONTENT_LENGTH, "7".parse().unwrap());
        assert_eq!(length(&headers, 200, Method::HEAD, true), 7);
    }
}
