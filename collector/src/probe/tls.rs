//! Handshakes, and what the other side showed in them.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConnection, ProtocolVersion};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::page::Page;
use binnacle_outgoing::{Trust, Way};

/// What Go says where no chain was verified: the first moment of its calendar.
const NO_CHAIN: f64 = -62_135_596_800.0;

/// Certificates of a chain, and chains that are followed.
const DEPTH_MAX: usize = 10;
const CHAINS_MAX: usize = 100;

/// How a module speaks TLS.
#[derive(Debug)]
pub(super) struct Tls {
    way: Way,
    protocols: &'static [&'static [u8]],
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    trust: Arc<Trust>,
    /// What the files held then.
    print: Option<u64>,
}

impl Tls {
    pub(super) fn new(way: Way, protocols: &'static [&'static [u8]]) -> Self {
        Self { way, protocols, made: Mutex::default() }
    }

    /// What a server hears of who we are.
    pub(super) fn sends(&self) -> Option<&'static str> {
        self.way.sends()
    }

    /// The name that certificates are to have, if the module says one.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.way.server_name()
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// Made anew when files change.
    async fn trust(&self) -> Result<Arc<Trust>, String> {
        let print = self.way.tls_print().await;
        let kept = || {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.as_ref().filter(|made| made.print == print).map(|made| Arc::clone(&made.trust))
        };
        if let Some(trust) = kept() {
            return Ok(trust);
        }
        let (way, protocols) = (self.way.clone(), self.protocols);
        let trust = tokio::task::spawn_blocking(move || way.trust(protocols)).await;
        let trust = Arc::new(trust.map_err(|error| error.to_string())??);
        let made = Made { trust: Arc::clone(&trust), print };
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(trust)
    }

    /// A handshake with a server of this name, and what it showed.
    pub(super) async fn connect<S>(&self, stream: S, name: &str) -> Result<(TlsStream<S>, Shown), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let trust = self.trust().await?;
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|_| format!("{name:?} is no name that a certificate could have"))?;
        let stream = TlsConnector::from(Arc::clone(&trust.config)).connect(server, stream).await;
        let stream = stream.map_err(|error| format!("TLS handshake with {name}: {error}"))?;
        let shown = Shown::of(stream.get_ref().1, &trust.roots)?;
        Ok((stream, shown))
    }
}

/// What the other side showed in a handshake.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    earliest_expiry: f64,
    last_chain_expiry: f64,
    version: &'static str,
    cipher: String,
    leaf: Leaf,
}

/// The other side's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaf {
    fingerprint: String,
    subject: String,
    issuer: String,
    names: String,
    serial: String,
}

impl Shown {
    fn of(connection: &ClientConnection, roots: &[CertificateDer<'_>]) -> Result<Self, String> {
        let chain = connection.peer_certificates().unwrap_or_default();
        let read = |der: &CertificateDer<'_>| {
            X509Certificate::from_der(der)
                .map(|(_, read)| (read.validity().not_after.timestamp(), fingerprint(der)))
                .map_err(|error| format!("a certificate that was shown cannot be read: {error}"))
        };
        let expiries: Vec<(i64, String)> = chain.iter().map(read).collect::<Result<_, _>>()?;
        let earliest = expiries.iter().map(|(at, _)| *at).min();
        let (Some(earliest), Some(leaf)) = (earliest, chain.first()) else {
            return Err("the other side showed no certificate".to_owned());
        };
        let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        Ok(Self {
            earliest_expiry: earliest as f64,
            last_chain_expiry: last_chain_expiry(chain, roots).map_or(NO_CHAIN, |at| at as f64),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "unknown",
            },
            cipher: suite.map_or_else(String::new, cipher_name),
            leaf: Leaf::of(leaf)?,
        })
    }

    /// Says it on the page.
    pub(super) fn say(&self, page: &mut Page) {
        page.set("probe_ssl_earliest_cert_expiry", self.earliest_expiry);
        page.set("probe_ssl_last_chain_expiry_timestamp_seconds", self.last_chain_expiry);
        page.set_with("probe_tls_version_info", &[("version", self.version)], 1.0);
        page.set_with("probe_tls_cipher_info", &[("cipher", &self.cipher)], 1.0);
        let leaf = &self.leaf;
        let labels = [
            ("fingerprint_sha256", &*leaf.fingerprint),
            ("issuer", &*leaf.issuer),
            ("serialnumber", &*leaf.serial),
            ("subject", &*leaf.subject),
            ("subjectalternative", &*leaf.names),
        ];
        page.set_with("probe_ssl_last_chain_info", &labels, 1.0);
    }
}

/// As the registry of IANA and Go write it; rustls names those of TLS 1.3 otherwise.
fn cipher_name(suite: CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn fingerprint(der: &[u8]) -> String {
    hex(&Sha256::digest(der))
}

impl Leaf {
    fn of(der: &[u8]) -> Result<Self, String> {
        let (_, read) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let alternatives = read.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|one| &one.value.general_names);
        let names: Vec<&str> = names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
            .collect();
        let serial = read.raw_serial();
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        Ok(Self {
            fingerprint: fingerprint(der),
            subject: name_of(read.subject()),
            issuer: name_of(read.issuer()),
            names: names.join(","),
            serial: hex(&serial[zeros..]),
        })
    }
}

/// Attributes that a name has in Go, in the order of Go's text, each with its object identifier.
const ATTRIBUTES: [(&str, &str); 9] = [
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.3", "CN"),
    ("2.5.4.17", "POSTALCODE"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.8", "ST"),
    ("2.5.4.7", "L"),
    ("2.5.4.11", "OU"),
    ("2.5.4.10", "O"),
    ("2.5.4.6", "C"),
];

/// A distinguished name as Go writes one: attributes in a fixed order, and those of a kind joined by `+`.
fn name_of(name: &X509Name<'_>) -> String {
    let all: Vec<(String, String)> = name
        .iter_attributes()
        .map(|one| (one.attr_type().to_id_string(), text_of(one.attr_value())))
        .collect();
    let mut parts = Vec::new();
    for (id, key) in ATTRIBUTES {
        let values: Vec<String> = all
            .iter()
            .filter(|(of, _)| of == id)
            .map(|(_, value)| format!("{key}={}", escaped(value)))
            .collect();
        if !values.is_empty() {
            parts.push(values.join("+"));
        }
    }
    let others = all.iter().rev().filter(|(id, _)| ATTRIBUTES.iter().all(|(known, _)| known != id));
    parts.extend(others.map(|(id, value)| format!("{id}={}", escaped(value))));
    parts.join(",")
}

fn text_of(value: &x509_parser::der_parser::asn1_rs::Any<'_>) -> String {
    String::from_utf8_lossy(value.data).into_owned()
}

/// As RFC 2253 asks for.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::new();
    for (at, c) in value.chars().enumerate() {
        let is_special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && at == 0)
            || (c == ' ' && (at == 0 || at == last));
        if is_special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// When the chain expires that holds longest, of all from the first certificate to a trusted one. The handshake has
/// verified one of them; issuers are found by name and key identifier.
fn last_chain_expiry(shown: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> Option<i64> {
    let read = |der: &'_ CertificateDer<'_>| -> Option<Link> {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        Some(Link::of(&read))
    };
    let shown: Vec<Link> = shown.iter().filter_map(read).collect();
    let leaf = shown.first()?;
    let roots: Vec<Link> = roots.iter().filter_map(read).collect();
    let mut found = Vec::new();
    let mut open = vec![(leaf, leaf.expires, 1)];
    while let Some((last, expires, depth)) = open.pop() {
        // Who is trusted need not be issued by anybody.
        if roots.iter().any(|root| root.is_same(last)) {
            found.push(expires);
            continue;
        }
        let of_roots = roots.iter().filter(|root| root.issued(last));
        found.extend(of_roots.map(|root| expires.min(root.expires)));
        if depth < DEPTH_MAX && found.len() < CHAINS_MAX {
            let others = shown[1..].iter().filter(|one| one.issued(last) && !one.is_same(last));
            open.extend(others.map(|one| (one, expires.min(one.expires), depth + 1)));
        }
        if open.len() > CHAINS_MAX {
            break;
        }
    }
    found.into_iter().max()
}

/// What of a certificate decides its place in a chain.
struct Link {
    subject: Vec<u8>,
    issuer: Vec<u8>,
    key: Option<Vec<u8>>,
    issuer_key: Option<Vec<u8>>,
    public: Vec<u8>,
    expires: i64,
}

impl Link {
    fn of(read: &X509Certificate<'_>) -> Self {
        use x509_parser::extensions::ParsedExtension::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
        let mut link = Self {
            subject: read.subject().as_raw().to_vec(),
            issuer: read.issuer().as_raw().to_vec(),
            key: None,
            issuer_key: None,
            public: read.public_key().raw.to_vec(),
            expires: read.validity().not_after.timestamp(),
        };
        for extension in read.extensions() {
            match extension.parsed_extension() {
                SubjectKeyIdentifier(key) => link.key = Some(key.0.to_vec()),
                AuthorityKeyIdentifier(key) => {
                    link.issuer_key = key.key_identifier.as_ref().map(|key| key.0.to_vec());
                }
                _ => {}
            }
        }
        link
    }

    fn is_same(&self, other: &Self) -> bool {
        self.subject == other.subject && self.public == other.public && self.expires == other.expires
    }

    fn issued(&self, other: &Self) -> bool {
        let keys = self.key.as_ref().zip(other.issuer_key.as_ref());
        self.subject == other.issuer && keys.is_none_or(|(own, wanted)| own == wanted)
    }
}
