//! `probes:` of the configuration, with modules as `blackbox.yml` has them.

mod dns;
mod grpc;
mod http;
mod tcp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::regexes::{anchored, unanchored};
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use regex::bytes::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_64;

pub(super) use dns::{DnsModule, Validator};
pub(super) use grpc::GrpcModule;
pub(super) use http::{Body, Compression, HeaderRule, HttpModule, Proxy};
pub(super) use tcp::{Exchange, TcpModule};

use super::net::Family;
use super::{Module, Probes};
use crate::scrape::ScrapeConfig;
use binnacle_outgoing::{RawTls, RawWay, Way};

/// Probes at once where nothing is said; each has a few sockets.
const CONCURRENT: usize = 100;
const CONCURRENT_MAX: usize = 10_000;

/// A compiled expression at most.
const REGEX_MAX_BYTES: usize = 1024 * 1024;

/// `probes:` as the operator wrote it. Nothing here has been checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawProbes {
    /// As in `blackbox.yml`.
    #[serde(deserialize_with = "null_is_default")]
    modules: BTreeMap<String, RawModule>,
    /// Files as blackbox exporter reads them.
    #[serde(deserialize_with = "null_is_default")]
    pub module_files: Vec<String>,
    /// Probes that run at once. Default: 100.
    max_concurrent: Option<usize>,
    /// Who may ask for probes over HTTP. Without it nobody.
    endpoint: Option<RawAccess>,
    /// What is probed: as a scrape config, with the name of a module.
    #[serde(deserialize_with = "null_is_default")]
    pub jobs: Vec<ScrapeConfig>,
}

/// A `blackbox.yml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawModuleFile {
    #[serde(deserialize_with = "null_is_default")]
    modules: BTreeMap<String, RawModule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawModule {
    prober: String,
    #[serde(with = "optional_duration")]
    timeout: Option<Duration>,
    http: Option<http::RawHttp>,
    tcp: Option<tcp::RawTcp>,
    dns: Option<dns::RawDns>,
    icmp: Option<IgnoredAny>,
    grpc: Option<grpc::RawGrpc>,
    unix: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAccess {
    /// Patterns, of which one must match all of the target.
    #[serde(deserialize_with = "null_is_default")]
    targets: Vec<String>,
    /// Modules that may be asked for. Default: all.
    modules: Option<Vec<String>>,
}

/// What may be asked for over HTTP.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) targets: Vec<regex::Regex>,
    /// `None` is all.
    pub(super) modules: Option<Vec<String>>,
}

/// What a module does.
#[derive(Debug)]
pub(super) enum Prober {
    Http(Box<HttpModule>),
    Tcp(Box<TcpModule>),
    Dns(Box<DnsModule>),
    Grpc(Box<GrpcModule>),
}

impl RawProbes {
    /// Checks all modules; files are relative to `dir`, those of `files`, each with its name and text, to their own.
    ///
    /// # Errors
    /// A sentence that names the module and its key.
    pub fn check(
        &mut self,
        dir: &Path,
        files: Vec<(String, RawModuleFile)>,
        written: &str,
    ) -> Result<Probes, String> {
        let mut modules = BTreeMap::new();
        let own = (String::new(), dir.to_path_buf(), std::mem::take(&mut self.modules));
        let of_files = files.into_iter().map(|(name, file)| {
            let dir = Path::new(&name).parent().unwrap_or(dir).to_path_buf();
            (format!("{name}: "), dir, file.modules)
        });
        for (place, dir, raw) in std::iter::once(own).chain(of_files) {
            for (name, raw) in raw {
                let section = if place.is_empty() { "probes.modules" } else { "modules" };
                let told = |reason: String| format!("{place}{section}[{name:?}]{reason}");
                let module = raw.check(&name, &dir).map_err(told)?;
                if modules.insert(name.clone(), Arc::new(module)).is_some() {
                    return Err(told(": a module of this name is there already".to_owned()));
                }
            }
        }
        let places = self.max_concurrent.unwrap_or(CONCURRENT);
        if !(1..=CONCURRENT_MAX).contains(&places) {
            return Err(format!("probes.max_concurrent must be between 1 and {CONCURRENT_MAX}"));
        }
        let access = self.endpoint.take().map(|raw| raw.check(&modules)).transpose();
        Ok(Probes {
            modules,
            places: Semaphore::new(places),
            access: access.map_err(|reason| format!("probes.endpoint.{reason}"))?,
            print: xxh3_64(written.as_bytes()),
        })
    }
}

impl RawAccess {
    fn check(self, modules: &BTreeMap<String, Arc<Module>>) -> Result<Access, String> {
        if self.targets.is_empty() {
            return Err(
                "targets is missing: say which targets may be asked for, such as `targets: ['https://.*\\.example\\.com/.*']`"
                    .to_owned(),
            );
        }
        let target = |(at, text): (usize, &String)| {
            anchored(text, REGEX_MAX_BYTES).map_err(|error| format!("targets[{at}]: {error}"))
        };
        let targets = self.targets.iter().enumerate().map(target).collect::<Result<_, _>>()?;
        let unknown = self.modules.iter().flatten().find(|name| !modules.contains_key(*name));
        if let Some(unknown) = unknown {
            return Err(format!("modules: there is no module {unknown:?}"));
        }
        Ok(Access { targets, modules: self.modules })
    }
}

impl RawModule {
    fn check(self, name: &str, dir: &Path) -> Result<Module, String> {
        let sections = [
            ("http", self.http.is_some()),
            ("tcp", self.tcp.is_some()),
            ("dns", self.dns.is_some()),
            ("icmp", self.icmp.is_some()),
            ("grpc", self.grpc.is_some()),
            ("unix", self.unix.is_some()),
        ];
        let under = |key: &'static str| move |reason: String| format!(".{key}{reason}");
        let prober = match self.prober.as_str() {
            "http" => {
                let checked = self.http.unwrap_or_default().check(dir);
                Prober::Http(Box::new(checked.map_err(under("http"))?))
            }
            "tcp" => Prober::Tcp(Box::new(self.tcp.unwrap_or_default().check(dir).map_err(under("tcp"))?)),
            "dns" => Prober::Dns(Box::new(self.dns.unwrap_or_default().check(dir).map_err(under("dns"))?)),
            "grpc" => {
                Prober::Grpc(Box::new(self.grpc.unwrap_or_default().check(dir).map_err(under("grpc"))?))
            }
            "" => return Err(".prober is missing: say http, tcp, dns or grpc".to_owned()),
            known @ ("icmp" | "unix") => {
                return Err(format!(
                    ".prober: {known} is not supported by this release; leave these targets to blackbox exporter"
                ));
            }
            other => return Err(format!(".prober: {other:?} is none of http, tcp, dns, grpc")),
        };
        // Blackbox exporter takes sections of other probers, and leaves them alone; these are mistakes.
        let stray = sections.iter().find(|(key, is_there)| *is_there && *key != self.prober);
        if let Some((key, _)) = stray {
            return Err(format!(".{key}: the prober is {}, and would not look at it", self.prober));
        }
        Ok(Module { name: name.to_owned(), prober, timeout: self.timeout.filter(|span| !span.is_zero()) })
    }
}

/// `preferred_ip_protocol` and `ip_protocol_fallback`.
fn family(preferred: Option<&str>, fallback: Option<bool>) -> Result<Family, String> {
    let prefers_6 = match preferred {
        None | Some("" | "ip6") => true,
        Some("ip4") => false,
        Some(other) => return Err(format!(".preferred_ip_protocol: {other:?} is neither ip4 nor ip6")),
    };
    Ok(Family { prefers_6, falls_back: fallback.unwrap_or(true) })
}

fn source_address(text: Option<&str>) -> Result<Option<IpAddr>, String> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| format!(".source_ip_address: {text:?} is no address")))
        .transpose()
}

fn regex(key: &str, text: &str) -> Result<Regex, String> {
    unanchored(text, REGEX_MAX_BYTES).map_err(|error| format!(".{key}: {error}"))
}

fn regexes(key: &str, texts: &[String]) -> Result<Vec<Regex>, String> {
    texts.iter().enumerate().map(|(at, text)| regex(&format!("{key}[{at}]"), text)).collect()
}

/// What `tls_config` alone says.
fn tls_way(tls_config: RawTls, dir: &Path) -> Result<Way, String> {
    checked(&RawWay { tls_config, ..RawWay::default() }, dir)
}

fn checked(raw: &RawWay, dir: &Path) -> Result<Way, String> {
    if let Some(key) = raw.unknown() {
        return Err(format!(".{key} is not supported by this release"));
    }
    raw.check(&BTreeMap::new(), dir).map_err(|reason| format!(": {reason}"))
}
