//! Probes of gRPC: what a server's health service (`grpc.health.v1`) says of itself.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use prost::Message;
use reqwest::Url;

use super::Run;
use super::config::GrpcModule;
use super::http::{Driver, Incoming, all_of, http2_exchange};
use super::net::{bare, lap};

/// By their numbers.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Who does not answer is unavailable, in the words of gRPC.
const UNAVAILABLE: f64 = 14.0;

/// An answer has a few bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// In front of each message: whether it is packed, and its length.
const PREFIX_BYTES: usize = 5;

#[derive(Clone, PartialEq, Message)]
struct Ask {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn probe(module: &GrpcModule, run: &mut Run, target: &str) -> Result<(), String> {
    for name in ["probe_grpc_ssl", "probe_grpc_status_code", "probe_ssl_earliest_cert_expiry"] {
        run.page.set(name, 0.0);
    }
    run.grpc_phase("resolve", 0.0);
    let has_scheme = target.starts_with("http://") || target.starts_with("https://");
    let text = if has_scheme { target.to_owned() } else { format!("http://{target}") };
    let url = Url::parse(&text).map_err(|error| format!("the target is no address: {error}"))?;
    let host = bare(url.host_str().ok_or("the target has no host")?).to_owned();
    // A port that a scheme means is left out of a URL that has it.
    let by_scheme = if has_scheme { url.port_or_known_default() } else { url.port() };
    let port = by_scheme.unwrap_or(if module.tls.is_some() { 443 } else { 80 });
    let resolved = run.resolve(&host, module.family).await;
    run.grpc_phase("resolve", run.lookup.as_secs_f64());
    let address = SocketAddr::new(resolved?, port);
    let mut since = Instant::now();
    let answered = check(module, run, address, &host).await;
    run.grpc_phase("check", lap(&mut since));
    for status in STATUSES {
        run.page.set_with("probe_grpc_healthcheck_response", &[("serving_status", status)], 0.0);
    }
    let (code, message) = answered.inspect_err(|_| run.page.set("probe_grpc_status_code", UNAVAILABLE))?;
    run.page.set("probe_grpc_status_code", f64::from(code));
    if code != 0 {
        return Err(format!("gRPC answers with status {code}: {message}"));
    }
    run.page.set_with("probe_grpc_healthcheck_response", &[("serving_status", message)], 1.0);
    if message == "SERVING" { Ok(()) } else { Err(format!("the service is {message}")) }
}

impl Run {
    fn grpc_phase(&mut self, phase: &str, seconds: f64) {
        self.page.add("probe_grpc_duration_seconds", &[("phase", phase)], seconds);
    }
}

/// The status of the call, and if that is zero the service's.
async fn check(
    module: &GrpcModule,
    run: &mut Run,
    address: SocketAddr,
    host: &str,
) -> Result<(u16, &'static str), String> {
    let stream = run.connect(address, None).await?;
    let driver = Driver::default();
    let (scheme, sent) = match &module.tls {
        None => {
            let request = request(module, "http", host, address.port())?;
            ("http", http2_exchange(TokioIo::new(stream), request, &driver).await)
        }
        Some(tls) => {
            let (stream, shown) = tls.connect(stream, tls.server_name().unwrap_or(host)).await?;
            run.page.set("probe_grpc_ssl", 1.0);
            shown.say(&mut run.page);
            let request = request(module, "https", host, address.port())?;
            ("https", http2_exchange(TokioIo::new(stream), request, &driver).await)
        }
    };
    let response = sent.map_err(|error| format!("no response over {scheme}: {}", all_of(&error)))?;
    read(response).await
}

fn request(module: &GrpcModule, scheme: &str, host: &str, port: u16) -> Result<Request<Full<Bytes>>, String> {
    let ask = Ask { service: module.service.clone() }.encode_to_vec();
    let mut body = vec![0];
    body.extend_from_slice(&(ask.len() as u32).to_be_bytes());
    body.extend_from_slice(&ask);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let uri = format!("{scheme}://{host}:{port}/grpc.health.v1.Health/Check");
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.uri_mut() = uri.parse().map_err(|error| format!("{uri:?}: {error}"))?;
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    let agent = concat!("binnacle/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [(CONTENT_TYPE, "application/grpc"), (TE, "trailers"), (USER_AGENT, agent)] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(request)
}

async fn read(response: Incoming) -> Result<(u16, &'static str), String> {
    let (head, mut stream) = response.into_parts();
    if !head.status.is_success() {
        return Err(format!("HTTP status {}: that is no server of gRPC", head.status));
    }
    let (mut body, mut status) = (Vec::new(), status_of(&head.headers));
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| format!("the answer was cut off: {}", all_of(&error)))?;
        if let Some(data) = frame.data_ref() {
            if body.len() + data.len() > ANSWER_MAX_BYTES {
                return Err(format!("an answer of more than {ANSWER_MAX_BYTES} bytes"));
            }
            body.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            status = status.or(status_of(trailers));
        }
    }
    let status = status.ok_or("the answer has no grpc-status")?;
    if status != 0 {
        return Ok((status, "see gRPC's list of codes"));
    }
    let message = body.get(PREFIX_BYTES..).ok_or("the answer has no message")?;
    let answer = Answer::decode(message).map_err(|error| format!("the answer cannot be read: {error}"))?;
    let known = usize::try_from(answer.status).ok().and_then(|number| STATUSES.get(number));
    Ok((0, known.copied().unwrap_or("UNKNOWN")))
}

fn status_of(headers: &HeaderMap) -> Option<u16> {
    headers.get(HeaderName::from_static("grpc-status"))?.to_str().ok()?.parse().ok()
}
