//! TLS for connections that are no HTTP client's, and for servers whose certificate has another name than their address:
//! the same keys of `tls_config`, as a configuration of rustls.

use std::sync::Arc;

use reqwest::tls::Version;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};

use super::Way;
use super::transport::{Tls, pem};

/// How a handshake is made, and whom it trusts.
#[derive(Debug)]
pub struct Trust {
    /// For a handshake.
    pub config: Arc<ClientConfig>,
    /// The certificates that are trusted; none where nothing is verified.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Way {
    /// For connections that offer these protocols. Reads files: call it from where that may wait.
    pub fn trust(&self, protocols: &[&[u8]]) -> Result<Trust, String> {
        self.tls.trust(protocols)
    }

    /// The name that certificates are to have, if the configuration says one.
    pub fn server_name(&self) -> Option<&str> {
        self.tls.server_name.as_deref()
    }
}

impl Tls {
    fn trust(&self, protocols: &[&[u8]]) -> Result<Trust, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&self.versions());
        let builder = builder.map_err(|error| format!("cannot speak TLS: {error}"))?;
        let (builder, roots) = if self.insecure_skip_verify {
            let anybody = Arc::new(Anybody(provider));
            (builder.dangerous().with_custom_certificate_verifier(anybody), Vec::new())
        } else {
            let roots = self.roots()?;
            let mut store = RootCertStore::empty();
            // A machine may hold some that nobody can read; they trust nobody.
            store.add_parsable_certificates(roots.iter().cloned());
            (builder.with_root_certificates(store), roots)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let ((cert, place), (key, key_place)) = (pem(cert)?, pem(key)?);
                let chain = certificates(&cert, &place)?;
                let key = PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|error| format!("{key_place} holds no key: {error}"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("{place} and {key_place} do not go together: {error}"))?
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // Each connection is to show its certificates.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Trust { config: Arc::new(config), roots })
    }

    /// For an HTTP client whose servers show certificates of `server_name`, if there is one. What a server is asked for is
    /// its address all the same: reqwest has no say in that.
    pub(crate) fn named(&self) -> Result<Option<ClientConfig>, String> {
        let Some(name) = &self.server_name else { return Ok(None) };
        let name = ServerName::try_from(name.clone())
            .map_err(|_| format!("tls_config.server_name: {name:?} is no name of a server"))?;
        let Trust { config, roots } = self.trust(&[b"http/1.1"])?;
        let mut config = ClientConfig::clone(&config);
        if !self.insecure_skip_verify {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(roots);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
            let verifier = verifier.map_err(|error| format!("cannot speak TLS: {error}"))?;
            config.dangerous().set_certificate_verifier(Arc::new(Named { verifier, name }));
        }
        Ok(Some(config))
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let is_allowed = |version: Version| {
            self.min_version.is_none_or(|min| version >= min)
                && self.max_version.is_none_or(|max| version <= max)
        };
        let all = [(Version::TLS_1_3, &TLS13), (Version::TLS_1_2, &TLS12)];
        all.into_iter().filter(|(version, _)| is_allowed(*version)).map(|(_, known)| known).collect()
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        match &self.ca {
            Some(ca) => {
                let (bytes, place) = pem(ca)?;
                certificates(&bytes, &place)
            }
            // Where there are none, no handshake succeeds, and says why.
            None => Ok(rustls_native_certs::load_native_certs().certs),
        }
    }
}

fn certificates(bytes: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| format!("{place} holds no certificates: {error}"))?;
    if found.is_empty() {
        return Err(format!("{place} holds no certificates"));
    }
    Ok(found)
}

/// Trusts who has a certificate of this name, wherever that is.
#[derive(Debug)]
struct Named {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(own, others, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Trusts whoever answers, as `insecure_skip_verify` says; that they have the key is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
