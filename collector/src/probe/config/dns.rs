//! `dns:` of a module.

use std::net::IpAddr;
use std::path::Path;

use binnacle_model::yaml::null_is_default;
use hickory_resolver::proto::rr::{DNSClass, Name, RecordType};
use regex::bytes::Regex;
use serde::Deserialize;

use super::super::net::Family;
use super::super::tls::Tls;
use super::{family, regexes, source_address, tls_way};
use binnacle_outgoing::RawTls;

/// Response codes by their names in blackbox exporter.
const RCODES: [(&str, u16); 20] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
    ("BADSIG", 16),
    ("BADVERS", 16),
    ("BADKEY", 17),
    ("BADTIME", 18),
    ("BADMODE", 19),
    ("BADNAME", 20),
    ("BADALG", 21),
    ("BADTRUNC", 22),
    ("BADCOOKIE", 23),
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDns {
    preferred_ip_protocol: Option<String>,
    ip_protocol_fallback: Option<bool>,
    source_ip_address: Option<String>,
    transport_protocol: Option<String>,
    dns_over_tls: bool,
    #[serde(deserialize_with = "null_is_default")]
    tls_config: RawTls,
    query_name: String,
    query_type: Option<String>,
    query_class: Option<String>,
    recursion_desired: Option<bool>,
    valid_rcodes: Option<Vec<String>>,
    #[serde(deserialize_with = "null_is_default")]
    validate_answer_rrs: RawValidator,
    #[serde(deserialize_with = "null_is_default")]
    validate_authority_rrs: RawValidator,
    #[serde(deserialize_with = "null_is_default")]
    validate_additional_rrs: RawValidator,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_field_names, reason = "the names are blackbox exporter's")]
struct RawValidator {
    #[serde(deserialize_with = "null_is_default")]
    fail_if_matches_regexp: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    fail_if_all_match_regexp: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    fail_if_not_matches_regexp: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    fail_if_none_matches_regexp: Vec<String>,
}

/// A module that asks a DNS server.
#[derive(Debug)]
pub(in crate::probe) struct DnsModule {
    pub(in crate::probe) family: Family,
    pub(in crate::probe) source: Option<IpAddr>,
    pub(in crate::probe) is_tcp: bool,
    pub(in crate::probe) tls: Option<Tls>,
    pub(in crate::probe) name: Name,
    pub(in crate::probe) kind: RecordType,
    pub(in crate::probe) class: DNSClass,
    pub(in crate::probe) recursion: bool,
    pub(in crate::probe) rcodes: Vec<u16>,
    /// Of the sections answer, authority and additional.
    pub(in crate::probe) validators: [Validator; 3],
}

/// When the records of a section make a probe fail, by the keys `fail_if_…`.
#[derive(Debug)]
pub(in crate::probe) struct Validator {
    pub(in crate::probe) any: Vec<Regex>,
    pub(in crate::probe) all: Vec<Regex>,
    pub(in crate::probe) not: Vec<Regex>,
    pub(in crate::probe) none: Vec<Regex>,
}

impl RawDns {
    pub(super) fn check(self, dir: &Path) -> Result<DnsModule, String> {
        if self.query_name.is_empty() {
            return Err(".query_name is missing".to_owned());
        }
        let name = Name::from_utf8(&self.query_name);
        let mut name = name.map_err(|error| format!(".query_name: {:?}: {error}", self.query_name))?;
        name.set_fqdn(true);
        let kind = self.query_type.as_deref().filter(|text| !text.is_empty()).unwrap_or("ANY");
        let kind = kind.parse().map_err(|_| format!(".query_type: {kind:?} is no type of records"))?;
        let class = self.query_class.as_deref().filter(|text| !text.is_empty()).unwrap_or("IN");
        let class = class.parse().map_err(|_| format!(".query_class: {class:?} is no class of records"))?;
        let is_tcp = match self.transport_protocol.as_deref() {
            None | Some("" | "udp") => false,
            Some("tcp") => true,
            Some(other) => return Err(format!(".transport_protocol: {other:?} is neither udp nor tcp")),
        };
        if self.dns_over_tls && !is_tcp {
            return Err(".dns_over_tls needs `transport_protocol: tcp`".to_owned());
        }
        let rcode = |name: &String| {
            let known = RCODES.iter().find(|(known, _)| known == name).map(|(_, code)| *code);
            known.ok_or_else(|| format!(".valid_rcodes: {name:?} is no response code, such as NOERROR"))
        };
        let rcodes = self.valid_rcodes.map(|names| names.iter().map(rcode).collect()).transpose()?;
        let way = tls_way(self.tls_config, dir)?;
        Ok(DnsModule {
            family: family(self.preferred_ip_protocol.as_deref(), self.ip_protocol_fallback)?,
            source: source_address(self.source_ip_address.as_deref())?,
            is_tcp,
            tls: self.dns_over_tls.then(|| Tls::new(way, &[])),
            name,
            kind,
            class,
            recursion: self.recursion_desired.unwrap_or(true),
            rcodes: rcodes.unwrap_or_else(|| vec![0]),
            validators: [
                self.validate_answer_rrs.check("validate_answer_rrs")?,
                self.validate_authority_rrs.check("validate_authority_rrs")?,
                self.validate_additional_rrs.check("validate_additional_rrs")?,
            ],
        })
    }
}

impl RawValidator {
    fn check(self, section: &str) -> Result<Validator, String> {
        let read = |key: &str, texts: &[String]| regexes(&format!("{section}.{key}"), texts);
        Ok(Validator {
            any: read("fail_if_matches_regexp", &self.fail_if_matches_regexp)?,
            all: read("fail_if_all_match_regexp", &self.fail_if_all_match_regexp)?,
            not: read("fail_if_not_matches_regexp", &self.fail_if_not_matches_regexp)?,
            none: read("fail_if_none_matches_regexp", &self.fail_if_none_matches_regexp)?,
        })
    }
}
