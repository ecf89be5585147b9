//! Servers of this process that are probed.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX, SOA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record};
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Servers, until they are dropped.
#[derive(Default)]
pub(super) struct Servers(pub(super) JoinSet<()>);

/// A certificate of `localhost` and its issuer's, in PEM, and how a server shows it.
pub(super) struct Identity {
    pub(super) ca: String,
    pub(super) acceptor: TlsAcceptor,
}

/// The issuer holds until 2040, what it issued until 2035.
pub(super) fn identity(protocols: &[&[u8]]) -> Identity {
    let mut of_ca = CertificateParams::default();
    of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    of_ca.distinguished_name.push(DnType::CommonName, "our CA");
    of_ca.not_after = date_time_ymd(2040, 1, 1);
    let ca_key = KeyPair::generate().unwrap();
    let ca = of_ca.self_signed(&ca_key).unwrap();
    let mut own = CertificateParams::new(["localhost".to_owned(), "b.example".to_owned()]).unwrap();
    own.distinguished_name.push(DnType::CountryName, "CH");
    own.distinguished_name.push(DnType::OrganizationName, "Shop, Inc");
    own.distinguished_name.push(DnType::CommonName, "localhost");
    own.serial_number = Some(vec![0x0a, 0xff].into());
    own.not_after = date_time_ymd(2035, 1, 1);
    let key = KeyPair::generate().unwrap();
    let cert = own.signed_by(&key, &Issuer::new(of_ca, ca_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Identity { ca: ca.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
}

impl Servers {
    async fn listen<F, T>(&mut self, serve: F) -> SocketAddr
    where
        F: Fn(TcpStream) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.0.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        address
    }

    pub(super) async fn http(&mut self) -> SocketAddr {
        self.listen(|stream| async move { answer(stream).await }).await
    }

    pub(super) async fn https(&mut self, identity: &Identity) -> SocketAddr {
        let acceptor = identity.acceptor.clone();
        self.listen(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    http2(stream).await;
                } else {
                    answer(stream).await;
                }
            }
        })
        .await
    }

    /// A health service that knows the server as a whole, and a service that is ill.
    pub(super) async fn grpc(&mut self) -> SocketAddr {
        self.listen(|stream| async move {
            let service = hyper::service::service_fn(health);
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            let _ = hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await;
        })
        .await
    }

    /// Says who it is, echoes words, and speaks TLS if that is wanted.
    pub(super) async fn smtp(&mut self, identity: &Identity) -> SocketAddr {
        let acceptor = identity.acceptor.clone();
        self.listen(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = BufReader::new(stream);
                let _ = stream.write_all(b"note\r\n220 mail.example ESMTP ready\r\n").await;
                let mut line = String::new();
                let _ = stream.read_line(&mut line).await;
                let _ = stream.write_all(format!("250 hello {line}").as_bytes()).await;
                line.clear();
                if stream.read_line(&mut line).await.is_ok() && line == "STARTTLS\n" {
                    let _ = stream.write_all(b"220 go ahead\n").await;
                    if let Ok(mut secure) = acceptor.accept(stream.into_inner()).await {
                        let _ = secure.write_all(b"250 secret").await;
                        let _ = secure.shutdown().await;
                    }
                }
            }
        })
        .await
    }

    /// A DNS server at one port of UDP and TCP.
    pub(super) async fn dns(&mut self) -> SocketAddr {
        let address = self.listen(|stream| async move { dns_over(stream).await }).await;
        let socket = UdpSocket::bind(address).await.unwrap();
        self.0.spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = dns_answer(&buffer[..length]);
                // Of somebody else, which is to be left alone.
                let mut other = answer.clone();
                other[0] ^= 1;
                let _ = socket.send_to(&other, from).await;
                let _ = socket.send_to(&answer, from).await;
            }
        });
        address
    }

    pub(super) async fn dot(&mut self, identity: &Identity) -> SocketAddr {
        let acceptor = identity.acceptor.clone();
        self.listen(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    dns_over(stream).await;
                }
            }
        })
        .await
    }

    /// A proxy of HTTP that wants a password, and answers itself where nobody wants a tunnel.
    pub(super) async fn proxy(&mut self) -> SocketAddr {
        self.listen(|mut stream| async move {
            let head = head_of(&mut stream).await;
            // me:pass word
            if !head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6cgfzcyb3b3jk") {
                let _ = stream.write_all(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n").await;
                return;
            }
            let wanted = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if !head.starts_with("CONNECT ") {
                let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{wanted}", wanted.len());
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await;
            if let Ok(mut other) = TcpStream::connect(&wanted).await {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
            }
        })
        .await
    }
}

/// The head of a request, without what follows.
async fn head_of<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let head = head_of(&mut stream).await;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let lower = head.to_ascii_lowercase();
    let redirect = |status: &str, to: &str| {
        format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {to}\r\nset-cookie: seen=1; Path=/\r\ncontent-length: 0\r\n\r\n"
        )
    };
    let text = match path.as_str() {
        "/ok" => "HTTP/1.1 200 OK\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-shop: open\r\nx-shop: all day\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
        "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "/echo" => {
            let mut body = String::new();
            if lower.contains("content-length: 7") {
                let mut bytes = [0; 7];
                stream.read_exact(&mut bytes).await.unwrap();
                body = String::from_utf8(bytes.to_vec()).unwrap();
            }
            let all = format!("{head}{body}");
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{all}", all.len())
        }
        "/to" => redirect("302", "/next"),
        "/next" => redirect("301", "/cookie"),
        "/cookie" if lower.contains("cookie: seen=1") => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx".to_owned(),
        "/loop" => redirect("302", "/loop"),
        "/cloud" => redirect("302", "http://169.254.169.254/latest"),
        "/file" => redirect("302", "file:///etc/passwd"),
        "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello".to_owned(),
        "/never" => {
            // Until the other side has enough of it.
            let _ = stream.read_u8().await;
            return;
        }
        "/old" => "HTTP/1.0 204 Fine\r\n\r\n".to_owned(),
        "/gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &[b'z'; 1000]).unwrap();
            let body = encoder.finish().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
            return;
        }
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        let text = format!("{} {:?}", request.uri(), request.headers().get("x-one"));
        Ok::<_, std::convert::Infallible>(hyper::Response::new(http_body_util::Full::new(
            bytes::Bytes::from(text),
        )))
    });
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let _ = hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await;
}

type Health = http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>;

async fn health(
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Health>, std::convert::Infallible> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let (answer, code) = match &body[5..] {
        b"" => (&[0, 0, 0, 0, 2, 8, 1][..], "0"),
        b"\x0a\x03ill" => (&[0, 0, 0, 0, 2, 8, 2][..], "0"),
        _ => (&[][..], "5"),
    };
    let mut trailers = hyper::HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    let body = http_body_util::Full::new(bytes::Bytes::copy_from_slice(answer));
    Ok(hyper::Response::new(body.with_trailers(async { Some(Ok(trailers)) }).boxed()))
}

async fn dns_over<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let Ok(length) = stream.read_u16().await else { return };
    let mut query = vec![0; usize::from(length)];
    stream.read_exact(&mut query).await.unwrap();
    let answer = dns_answer(&query);
    let _ = stream.write_all(&(answer.len() as u16).to_be_bytes()).await;
    let _ = stream.write_all(&answer).await;
    let _ = stream.flush().await;
}

fn dns_answer(query: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let asked = query.queries[0].clone();
    let name = asked.name().clone();
    let mut answer = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.add_query(asked);
    let host = |text: &str| Name::from_ascii(text).unwrap();
    let record = |data| Record::from_rdata(name.clone(), 3600, data);
    match name.to_string().as_str() {
        "a.example." => {
            answer.add_answer(record(RData::A(A("127.0.0.1".parse().unwrap()))));
            answer.add_answer(record(RData::A(A("127.0.0.2".parse().unwrap()))));
            answer.add_additional(record(RData::TXT(TXT::new(vec![
                "say \"hi\"".to_owned(),
                "two".to_owned(),
            ]))));
        }
        "soa.example." => {
            let soa = SOA::new(host("ns.example."), host("mail.example."), 2_026_112_301, 1, 2, 3, 4);
            answer.add_answer(record(RData::SOA(soa)));
            answer.add_authority(record(RData::MX(MX::new(10, host("mx.example.")))));
        }
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.to_vec().unwrap()
}
