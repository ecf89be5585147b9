//! `tcp:` of a module.

use std::net::IpAddr;
use std::path::Path;

use binnacle_model::labels::is_legacy_label_name;
use binnacle_model::yaml::null_is_default;
use regex::bytes::Regex;
use serde::Deserialize;

use super::super::net::Family;
use super::super::tls::Tls;
use super::{family, regex, source_address, tls_way};
use binnacle_outgoing::{RawTls, Secret};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTcp {
    preferred_ip_protocol: Option<String>,
    ip_protocol_fallback: Option<bool>,
    source_ip_address: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    query_response: Vec<RawExchange>,
    tls: bool,
    #[serde(deserialize_with = "null_is_default")]
    tls_config: RawTls,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawExchange {
    expect: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    labels: Vec<RawLabel>,
    #[serde(deserialize_with = "null_is_default")]
    send: Secret,
    starttls: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLabel {
    name: String,
    value: String,
}

/// A module that connects, and talks a little.
#[derive(Debug)]
pub(in crate::probe) struct TcpModule {
    pub(in crate::probe) family: Family,
    pub(in crate::probe) source: Option<IpAddr>,
    pub(in crate::probe) exchanges: Vec<Exchange>,
    /// Whether the connection begins with TLS.
    pub(in crate::probe) is_tls: bool,
    pub(in crate::probe) tls: Tls,
}

/// What is waited for, and what is said then.
#[derive(Debug)]
pub(in crate::probe) struct Exchange {
    pub(in crate::probe) expect: Option<Regex>,
    /// Of what was waited for, on the page.
    pub(in crate::probe) labels: Vec<(String, String)>,
    /// It may be a password.
    pub(in crate::probe) send: Secret,
    pub(in crate::probe) starts_tls: bool,
}

impl RawTcp {
    pub(super) fn check(self, dir: &Path) -> Result<TcpModule, String> {
        let exchanges = self.query_response.into_iter().enumerate();
        let exchanges =
            exchanges.map(|(at, raw)| raw.check().map_err(|reason| format!(".query_response[{at}]{reason}")));
        Ok(TcpModule {
            family: family(self.preferred_ip_protocol.as_deref(), self.ip_protocol_fallback)?,
            source: source_address(self.source_ip_address.as_deref())?,
            exchanges: exchanges.collect::<Result<_, _>>()?,
            is_tls: self.tls,
            tls: Tls::new(tls_way(self.tls_config, dir)?, &[]),
        })
    }
}

impl RawExchange {
    fn check(self) -> Result<Exchange, String> {
        let expect = self.expect.filter(|text| !text.is_empty());
        let expect = expect.map(|text| regex("expect", &text)).transpose()?;
        if expect.is_none() && !self.labels.is_empty() {
            return Err(".labels: they are taken from what `expect` finds, which is missing".to_owned());
        }
        if let Some(bad) = self.labels.iter().find(|label| !is_legacy_label_name(&label.name)) {
            return Err(format!(".labels: {:?} is no name of a label", bad.name));
        }
        let labels = self.labels.into_iter().map(|label| (label.name, label.value)).collect();
        Ok(Exchange { expect, labels, send: self.send, starts_tls: self.starttls })
    }
}
