//! `grpc:` of a module.

use std::path::Path;

use binnacle_model::yaml::null_is_default;
use serde::Deserialize;

use super::super::net::Family;
use super::super::tls::Tls;
use super::{family, tls_way};
use binnacle_outgoing::RawTls;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGrpc {
    service: String,
    tls: bool,
    #[serde(deserialize_with = "null_is_default")]
    tls_config: RawTls,
    preferred_ip_protocol: Option<String>,
    ip_protocol_fallback: Option<bool>,
}

/// A module that asks a health service.
#[derive(Debug)]
pub(in crate::probe) struct GrpcModule {
    pub(in crate::probe) family: Family,
    /// Empty is the server as a whole.
    pub(in crate::probe) service: String,
    pub(in crate::probe) tls: Option<Tls>,
}

impl RawGrpc {
    pub(super) fn check(self, dir: &Path) -> Result<GrpcModule, String> {
        let way = tls_way(self.tls_config, dir)?;
        Ok(GrpcModule {
            family: family(self.preferred_ip_protocol.as_deref(), self.ip_protocol_fallback)?,
            service: self.service,
            tls: self.tls.then(|| Tls::new(way, &[b"h2"])),
        })
    }
}
