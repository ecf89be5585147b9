//! One request with a connection of its own, directly or through a proxy.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use base64::Engine;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderValue, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use hyper::rt::Executor;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::Incoming;
use crate::probe::Run;
use crate::probe::config::{HttpModule, Proxy};
use crate::probe::net::{bare, lap};
use crate::probe::tls::Shown;
use binnacle_outgoing::Guarded;

/// The head of a proxy's answer.
const PROXY_HEAD_MAX_BYTES: usize = 16 * 1024;

/// What one response's head may have.
const HEAD_MAX_BYTES: usize = 256 * 1024;
const HEADERS_MAX: usize = 200;

/// Cookies that are kept from one redirect to the next.
const COOKIES_MAX: usize = 100;

/// A request that is to be made.
pub(super) struct Hop {
    pub(super) url: Url,
    method: Method,
    pub(super) body: Bytes,
    /// In place of the URL's host in the header.
    host: Option<String>,
    /// Of the target; what a redirect leads to is resolved when it is followed.
    address: Option<IpAddr>,
    /// Whether it goes to where the first one went.
    is_first_host: bool,
    first: Url,
}

/// A response, and what was seen on the way to it.
pub(super) struct Received {
    pub(super) response: Incoming,
    pub(super) tls: Option<Shown>,
    /// When its head was there.
    pub(super) since: Instant,
    /// Drives the connection as long as the body is read.
    _driver: Driver,
}

impl Hop {
    pub(super) fn first(
        module: &HttpModule,
        url: Url,
        address: Option<IpAddr>,
        host: Option<String>,
    ) -> Self {
        Self {
            first: url.clone(),
            url,
            method: module.method.clone(),
            body: Bytes::new(),
            host: host.or_else(|| module.host.clone()),
            address,
            is_first_host: true,
        }
    }

    /// The request that a redirect asks for, as Go makes it.
    pub(super) fn next(&self, status: StatusCode, location: &str) -> Result<Self, String> {
        let url = self.url.join(location);
        let url = url.map_err(|error| format!("redirect to {location:?}: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("redirect to {url}: neither http nor https"));
        }
        let keeps = matches!(status.as_u16(), 307 | 308);
        let method = match &self.method {
            method if keeps || *method == Method::HEAD => method.clone(),
            _ => Method::GET,
        };
        let is_same = |other: &Url| other.host() == url.host();
        // `//host/` is no whole URL either, and names another server.
        let is_there = is_same(&self.url) && self.url.port_or_known_default() == url.port_or_known_default();
        let is_relative = is_there && Url::parse(location).is_err();
        Ok(Self {
            method,
            body: if keeps { self.body.clone() } else { Bytes::new() },
            host: self.host.clone().filter(|_| is_relative),
            // The same server as before, unless the redirect names one.
            address: self.address.filter(|_| is_relative),
            is_first_host: is_same(&self.first),
            first: self.first.clone(),
            url,
        })
    }

    pub(super) async fn send(
        &self,
        module: &HttpModule,
        run: &mut Run,
        jar: &Jar,
    ) -> Result<Received, String> {
        let mut since = Instant::now();
        let address = self.address_of(module, run, &mut since).await?;
        let port = self.url.port_or_known_default().ok_or("the URL has no port")?;
        let stream = match &module.proxy {
            None => {
                let address = address.ok_or("the target was not resolved")?;
                run.connect(SocketAddr::new(address, port), None).await?
            }
            Some(proxy) => self.through(proxy, run, address, port).await?,
        };
        let connect = lap(&mut since);
        let request = self.request(module, jar, address).await?;
        if self.url.scheme() != "https" {
            run.phase("connect", connect);
            return self.exchange(TokioIo::new(stream), false, request, run, (since, None)).await;
        }
        let connected = module.tls.connect(stream, self.server_name(module)).await;
        // A connection without its handshake is none, as by blackbox exporter.
        let (stream, shown) = connected?;
        run.phase("connect", connect);
        run.phase("tls", lap(&mut since));
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        self.exchange(TokioIo::new(stream), is_http2, request, run, (since, Some(shown))).await
    }

    /// Where to connect to; `None` if a proxy finds out.
    async fn address_of(
        &self,
        module: &HttpModule,
        run: &mut Run,
        since: &mut Instant,
    ) -> Result<Option<IpAddr>, String> {
        let is_known = self.address.is_some() || module.proxy.as_ref().is_some_and(|proxy| proxy.resolves);
        let host = bare(self.url.host_str().unwrap_or_default());
        let is_redirected = self.url != self.first && host.parse::<IpAddr>().is_ok();
        if is_known && (self.address.is_some() || !is_redirected) {
            return Ok(self.address);
        }
        // Where a redirect leads is not for the target to choose freely.
        let elsewhere = run.guarded.max(Guarded::Metadata);
        let guarded = std::mem::replace(&mut run.guarded, elsewhere);
        let found = run.addresses(host).await;
        run.guarded = guarded;
        run.phase("resolve", lap(since));
        let found = found?;
        let preferred = found.iter().find(|one| one.is_ipv6() == module.family.prefers_6);
        Ok(preferred.or(found.first()).copied())
    }

    /// Through a proxy: a tunnel where TLS follows.
    async fn through(
        &self,
        proxy: &Proxy,
        run: &mut Run,
        address: Option<IpAddr>,
        port: u16,
    ) -> Result<TcpStream, String> {
        // The operator named it.
        let guarded = std::mem::take(&mut run.guarded);
        let at = run.addresses(&proxy.host).await;
        run.guarded = guarded;
        let at = at?.first().copied().ok_or("the proxy has no address")?;
        let mut stream = run.connect(SocketAddr::new(at, proxy.port), None).await?;
        if self.url.scheme() == "https" {
            let authority = match address {
                Some(address) => SocketAddr::new(address, port).to_string(),
                None => format!("{}:{port}", self.url.host_str().unwrap_or_default()),
            };
            tunnel(&mut stream, &authority, proxy).await?;
            run.log.say(&format!("the proxy leads to {authority}"));
        }
        Ok(stream)
    }

    /// The name that the certificate is to have.
    fn server_name<'h>(&'h self, module: &'h HttpModule) -> &'h str {
        let own = bare(self.url.host_str().unwrap_or_default());
        if !self.is_first_host {
            return own;
        }
        let named = self.host.as_deref().map(|host| host.split(':').next().unwrap_or(host));
        module.tls.server_name().or(named).unwrap_or(own)
    }

    async fn request(
        &self,
        module: &HttpModule,
        jar: &Jar,
        address: Option<IpAddr>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut headers = module.headers.clone();
        let credentials = module.tls.way().headers().await?;
        if self.is_first_host {
            credentials.iter().for_each(|(name, value)| _ = headers.insert(name, value.clone()));
        } else {
            // Secrets of the operator are for nobody else.
            ["authorization", "cookie", "www-authenticate"].iter().for_each(|name| _ = headers.remove(*name));
        }
        if self.body.is_empty() {
            [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH].iter().for_each(|name| _ = headers.remove(name));
        }
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("binnacle/", env!("CARGO_PKG_VERSION"))));
        if let Some(cookies) = jar.of(&self.url) {
            headers.insert(COOKIE, cookies);
        }
        let authority = self.url.authority().rsplit('@').next().unwrap_or_default().to_owned();
        let host = self.host.clone().unwrap_or_else(|| authority.clone());
        let host = HeaderValue::from_str(&host).map_err(|_| format!("{host:?} cannot stand in a header"))?;
        headers.insert(HOST, host);
        let path = match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        };
        let is_plain_proxy = module.proxy.is_some() && self.url.scheme() == "http";
        let uri = if is_plain_proxy {
            let port = self.url.port_or_known_default().unwrap_or(80);
            let authority = address.map_or(authority, |address| SocketAddr::new(address, port).to_string());
            if let Some(value) = module.proxy.as_ref().and_then(Proxy::authorization) {
                headers.insert(PROXY_AUTHORIZATION, value);
            }
            format!("http://{authority}{path}")
        } else {
            path
        };
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.uri_mut() = uri.parse::<Uri>().map_err(|error| format!("{uri:?}: {error}"))?;
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn exchange<S>(
        &self,
        stream: TokioIo<S>,
        is_http2: bool,
        request: Request<Full<Bytes>>,
        run: &mut Run,
        (mut since, tls): (Instant, Option<Shown>),
    ) -> Result<Received, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        run.log.say(&format!("{} {}", self.method, self.url.as_str().split('?').next().unwrap_or_default()));
        let driver = Driver::default();
        let sent = if is_http2 {
            let request = self.for_http2(request)?;
            http2_exchange(stream, request, &driver).await
        } else {
            http1_exchange(stream, request, &driver).await
        };
        let response = sent.map_err(|error| format!("no response: {}", all_of(&error)))?;
        run.phase("processing", lap(&mut since));
        Ok(Received { response, tls, since, _driver: driver })
    }

    /// HTTP/2 has the host in the URI.
    fn for_http2(&self, mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, String> {
        let host = request.headers_mut().remove(HOST);
        let host = host.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let uri = format!("{}://{host}{}", self.url.scheme(), request.uri());
        *request.uri_mut() = uri.parse::<Uri>().map_err(|error| format!("{uri:?}: {error}"))?;
        Ok(request)
    }
}

async fn http1_exchange<S>(
    stream: TokioIo<S>,
    request: Request<Full<Bytes>>,
    driver: &Driver,
) -> Result<Response<hyper::body::Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_headers(HEADERS_MAX).max_buf_size(HEAD_MAX_BYTES);
    let (mut sender, connection) = builder.handshake(stream).await?;
    driver.execute(async move { drop(connection.await) });
    sender.send_request(request).await
}

pub(in crate::probe) async fn http2_exchange<S>(
    stream: TokioIo<S>,
    request: Request<Full<Bytes>>,
    driver: &Driver,
) -> Result<Response<hyper::body::Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(driver.executor());
    builder.max_header_list_size(HEAD_MAX_BYTES as u32);
    let (mut sender, connection) = builder.handshake(stream).await?;
    driver.execute(async move { drop(connection.await) });
    sender.send_request(request).await
}

/// An error with what caused it.
pub(in crate::probe) fn all_of(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", all_of(cause)),
        None => error.to_string(),
    }
}

/// Runs what a connection needs beside its requests, and ends it when it is dropped.
#[derive(Debug)]
pub(in crate::probe) struct Driver {
    executor: OnTracker,
    _ends: DropGuard,
}

#[derive(Debug, Clone)]
struct OnTracker {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Default for Driver {
    fn default() -> Self {
        let executor = OnTracker { tasks: TaskTracker::new(), stop: CancellationToken::new() };
        Self { _ends: executor.stop.clone().drop_guard(), executor }
    }
}

impl Driver {
    fn executor(&self) -> OnTracker {
        self.executor.clone()
    }

    fn execute(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor.execute(task);
    }
}

impl<F> Executor<F> for OnTracker
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = task => {}
            }
        });
    }
}

impl Proxy {
    fn authorization(&self) -> Option<HeaderValue> {
        let pair = self.credentials.as_ref()?.reveal();
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Asks a proxy for a way to `authority`.
async fn tunnel(stream: &mut TcpStream, authority: &str, proxy: &Proxy) -> Result<(), String> {
    let told = |error: std::io::Error| format!("the proxy: {error}");
    let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(value) = proxy.authorization() {
        head.push_str(&format!("Proxy-Authorization: {}\r\n", value.to_str().unwrap_or_default()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.map_err(told)?;
    let mut answer = Vec::new();
    // A byte at a time: what follows is not ours.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= PROXY_HEAD_MAX_BYTES {
            return Err("the proxy's answer has no end".to_owned());
        }
        answer.push(stream.read_u8().await.map_err(told)?);
    }
    let first =
        String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let is_open = first.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
    if is_open { Ok(()) } else { Err(format!("the proxy answers {first:?}")) }
}

/// Cookies from one redirect to the next: some sites redirect forever to whoever does not keep them.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<Cookie>);

#[derive(Debug)]
struct Cookie {
    domain: String,
    /// Whether hosts below the domain get it, too.
    is_wide: bool,
    name: String,
    value: String,
}

impl Jar {
    /// Keeps what a header `Set-Cookie` says.
    pub(super) fn take(&mut self, url: &Url, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let host = url.host_str().unwrap_or_default().to_owned();
        let named = parts.find_map(|part| {
            let (key, value) = part.split_once('=')?;
            let is_domain = key.eq_ignore_ascii_case("domain");
            is_domain.then(|| value.trim_start_matches('.').to_ascii_lowercase())
        });
        let named = named.filter(|domain| domain.contains('.') && is_below(&host, domain));
        let is_wide = named.is_some();
        let domain = named.unwrap_or(host);
        self.0.retain(|kept| kept.domain != domain || kept.name != name);
        if self.0.len() < COOKIES_MAX {
            self.0.push(Cookie { domain, is_wide, name: name.to_owned(), value: value.to_owned() });
        }
    }

    /// The header for a request.
    fn of(&self, url: &Url) -> Option<HeaderValue> {
        let host = url.host_str()?;
        let is_meant =
            |cookie: &&Cookie| cookie.domain == host || (cookie.is_wide && is_below(host, &cookie.domain));
        let pairs = self.0.iter().filter(is_meant).map(|cookie| format!("{}={}", cookie.name, cookie.value));
        let text = pairs.collect::<Vec<_>>().join("; ");
        if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_at_the_address_only_where_it_names_no_other_server() {
        let url = Url::parse("http://a.example:81/x").unwrap();
        let hop = Hop {
            first: url.clone(),
            url,
            method: Method::GET,
            body: Bytes::new(),
            host: Some("virtual".to_owned()),
            address: Some(IpAddr::from([127, 0, 0, 1])),
            is_first_host: true,
        };
        for (location, stays) in [
            ("/y", true),
            ("y?z", true),
            ("//a.example:81/y", true),
            ("//a.example/y", false),
            ("//b.example:81/y", false),
            ("http://a.example:81/y", false),
        ] {
            let next = hop.next(StatusCode::FOUND, location).unwrap();
            assert_eq!((next.address.is_some(), next.host.is_some()), (stays, stays), "{location}");
        }
        assert!(hop.next(StatusCode::FOUND, "file:///etc/passwd").is_err());
    }

    #[test]
    fn cookies_go_to_whoever_gave_them() {
        let url = |text: &str| Url::parse(text).unwrap();
        let mut jar = Jar::default();
        jar.take(&url("http://a.example.org/"), "one=1; Path=/; HttpOnly");
        jar.take(&url("http://a.example.org/"), "two=2; Domain=.example.org");
        jar.take(&url("http://a.example.org/"), "bad=3; Domain=other.org");
        jar.take(&url("http://a.example.org/"), "one=9");
        let of = |text: &str| jar.of(&url(text)).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(of("https://a.example.org/x").unwrap(), "two=2; bad=3; one=9");
        assert_eq!(of("https://b.example.org/x").unwrap(), "two=2");
        assert_eq!(of("https://badexample.org/x"), None);
    }
}
