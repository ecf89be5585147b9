//! `dns_sd_configs`: the records of names, asked for again and again.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::Labels;
use binnacle_model::time::optional_duration;
use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{ADDRESS, Context, Discoverer, Discovery, Running, TARGETS_MAX, TargetGroup, Updates};

const REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// Names of one section; each is a question every time.
const NAMES_MAX: usize = 1000;

/// One of `dns_sd_configs` as the operator wrote it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawDnsSd {
    names: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    port: Option<u16>,
    #[serde(with = "optional_duration")]
    refresh_interval: Option<Duration>,
}

#[derive(Debug, Clone)]
struct DnsDiscovery {
    names: Vec<String>,
    kind: RecordType,
    port: u16,
    refresh: Duration,
    /// Of the machine, unless there is another one.
    servers: Option<ResolverConfig>,
}

impl RawDnsSd {
    pub(crate) fn check(self) -> Result<Arc<dyn Discovery>, String> {
        self.read().map(|read| Arc::new(read) as Arc<dyn Discovery>)
    }

    fn read(self) -> Result<DnsDiscovery, String> {
        if self.names.is_empty() {
            return Err("DNS-SD config must contain at least one SRV record name".to_owned());
        }
        if self.names.len() > NAMES_MAX {
            return Err(format!("more than {NAMES_MAX} names"));
        }
        let kind = self.kind.as_deref().unwrap_or("SRV").to_ascii_uppercase();
        let kind = match kind.as_str() {
            "SRV" => RecordType::SRV,
            "A" => RecordType::A,
            "AAAA" => RecordType::AAAA,
            "MX" => RecordType::MX,
            "NS" => RecordType::NS,
            other => {
                return Err(format!("invalid DNS-SD records type {other}: write SRV, A, AAAA, MX or NS"));
            }
        };
        if kind != RecordType::SRV && self.port.unwrap_or_default() == 0 {
            return Err("a port is required in DNS-SD configs for all record types except SRV".to_owned());
        }
        let refresh = self.refresh_interval.filter(|span| !span.is_zero()).unwrap_or(REFRESH_INTERVAL);
        let port = self.port.unwrap_or_default();
        Ok(DnsDiscovery { names: self.names, kind, port, refresh, servers: None })
    }
}

impl Discovery for DnsDiscovery {
    fn discoverer(&self, _: &Context) -> Box<dyn Discoverer> {
        Box::new(DnsDiscoverer { discovery: self.clone(), resolver: None })
    }
}

struct DnsDiscoverer {
    discovery: DnsDiscovery,
    resolver: Option<TokioResolver>,
}

impl fmt::Debug for DnsDiscoverer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.discovery.fmt(f)
    }
}

impl Discoverer for DnsDiscoverer {
    fn run(mut self: Box<Self>, found: Updates, stop: CancellationToken) -> Running {
        Box::pin(async move {
            let mut ticks = tokio::time::interval(self.discovery.refresh);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let groups = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    groups = self.ask() => groups,
                };
                found.set(groups);
            }
        })
    }
}

impl DnsDiscoverer {
    /// The groups of all names that could be asked for; an answer without records is a group without targets.
    async fn ask(&mut self) -> Vec<TargetGroup> {
        if self.resolver.is_none() {
            match self.discovery.resolver() {
                Ok(resolver) => self.resolver = Some(resolver),
                Err(reason) => tracing::warn!(reason, "no names can be resolved"),
            }
        }
        let Some(resolver) = &self.resolver else { return Vec::new() };
        let asked = self.discovery.names.iter().map(|name| self.discovery.ask(resolver, name));
        let mut groups = Vec::new();
        for (name, answer) in self.discovery.names.iter().zip(join_all(asked).await) {
            match answer {
                Ok(group) => groups.push(group),
                Err(reason) => {
                    tracing::warn!(name, reason, "a name cannot be resolved: its targets from before stay");
                }
            }
        }
        groups
    }
}

impl DnsDiscovery {
    fn resolver(&self) -> Result<TokioResolver, String> {
        let told = |error: &dyn fmt::Display| error.to_string();
        let mut builder = match &self.servers {
            Some(servers) => {
                TokioResolver::builder_with_config(servers.clone(), TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio().map_err(|error| told(&error))?,
        };
        let options: &mut ResolverOpts = builder.options_mut();
        // We ask as often as the operator wants.
        options.cache_size = 0;
        builder.build().map_err(|error| told(&error))
    }

    async fn ask(&self, resolver: &TokioResolver, name: &str) -> Result<TargetGroup, String> {
        let mut group = TargetGroup { source: name.to_owned(), ..TargetGroup::default() };
        let answer = match resolver.lookup(name, self.kind).await {
            Ok(answer) => answer,
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => return Ok(group),
            Err(error) => return Err(error.to_string()),
        };
        for record in answer.answers().iter().take(TARGETS_MAX) {
            if record.record_type() == self.kind {
                group.targets.extend(self.target(name, &record.data));
            }
        }
        Ok(group)
    }

    fn target(&self, name: &str, record: &RData) -> Option<Labels> {
        let labels = Labels::default().with("__meta_dns_name", name);
        let bare = |name: &dyn fmt::Display| name.to_string().trim_end_matches('.').to_owned();
        let named = |label: &str, host: &dyn fmt::Display, port: u16| {
            let host = bare(host);
            labels.with(label, &host).with(ADDRESS, &format!("{host}:{port}"))
        };
        let by_address = |address: IpAddr| {
            let address = match address {
                IpAddr::V4(address) => format!("{address}:{}", self.port),
                IpAddr::V6(address) => format!("[{address}]:{}", self.port),
            };
            labels.with(ADDRESS, &address)
        };
        Some(match record {
            RData::SRV(srv) => named("__meta_dns_srv_record_target", &srv.target, srv.port)
                .with("__meta_dns_srv_record_port", &srv.port.to_string()),
            RData::MX(mx) => named("__meta_dns_mx_record_target", &mx.exchange, self.port),
            RData::NS(ns) => named("__meta_dns_ns_record_target", &ns.0, self.port),
            RData::A(address) => by_address(address.0.into()),
            RData::AAAA(address) => by_address(address.0.into()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::Name;
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, MX, SRV};
    use tokio::net::UdpSocket;

    use super::*;

    /// Answers as the name wants it.
    async fn serve(socket: UdpSocket) {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let query = asked.queries[0].clone();
            let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.recursion_available = true;
            let name = query.name().clone();
            let target = |text: &str| Name::from_ascii(text).unwrap();
            let data = match name.to_string().split('.').next().unwrap() {
                "srv" => vec![
                    RData::SRV(SRV::new(1, 1, 9100, target("one.example."))),
                    RData::SRV(SRV::new(1, 1, 9200, target("two.example."))),
                ],
                "mx" => vec![RData::MX(MX::new(1, target("mail.example.")))],
                "a" => vec![RData::A(A("10.0.0.7".parse().unwrap()))],
                "broken" => {
                    answer.metadata.response_code = ResponseCode::ServFail;
                    Vec::new()
                }
                _ => {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                    Vec::new()
                }
            };
            answer.add_query(query);
            for one in data {
                answer.add_answer(Record::from_rdata(name.clone(), 60, one));
            }
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }

    #[tokio::test]
    async fn records_become_targets_and_an_error_keeps_what_was_there() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = tokio_util::task::AbortOnDropHandle::new(
            tokio_util::task::TaskTracker::new().spawn(serve(socket)),
        );
        let mut connection = ConnectionConfig::udp();
        connection.port = port;
        let name_server = NameServerConfig::new("127.0.0.1".parse().unwrap(), true, vec![connection]);
        let ask = async |yaml: &str| {
            let raw: RawDnsSd = serde_saphyr::from_str(yaml).unwrap();
            let servers = ResolverConfig::from_parts(None, Vec::new(), vec![name_server.clone()]);
            let discovery = DnsDiscovery { servers: Some(servers), ..raw.read().unwrap() };
            let groups = DnsDiscoverer { discovery, resolver: None }.ask().await;
            let show = |group: &TargetGroup| {
                let targets: Vec<String> = group.targets.iter().map(ToString::to_string).collect();
                format!("{} {}", group.source, targets.join(" "))
            };
            groups.iter().map(show).collect::<Vec<_>>()
        };
        let srv = ask("{names: [srv.example., none.example., broken.example.]}").await;
        assert_eq!(srv.len(), 2, "what is broken says nothing: {srv:?}");
        assert_eq!(
            srv[0],
            "srv.example. {__address__=\"one.example:9100\", __meta_dns_name=\"srv.example.\", __meta_dns_srv_record_port=\"9100\", __meta_dns_srv_record_target=\"one.example\"} {__address__=\"two.example:9200\", __meta_dns_name=\"srv.example.\", __meta_dns_srv_record_port=\"9200\", __meta_dns_srv_record_target=\"two.example\"}"
        );
        assert_eq!(srv[1], "none.example. ", "nothing there is an answer");
        let a = ask("{names: [a.example.], type: A, port: 80}").await;
        assert_eq!(a, ["a.example. {__address__=\"10.0.0.7:80\", __meta_dns_name=\"a.example.\"}"]);
        let mx = ask("{names: [mx.example.], type: MX, port: 25}").await;
        assert!(mx[0].contains("__address__=\"mail.example:25\""), "{mx:?}");
        drop(server);
    }

    #[test]
    fn sections_are_checked() {
        for (yaml, want) in [
            ("{names: []}", "at least one"),
            ("{names: [a], type: A}", "port is required"),
            ("{names: [a], type: TXT}", "invalid DNS-SD records type"),
        ] {
            let raw: RawDnsSd = serde_saphyr::from_str(yaml).unwrap();
            assert!(raw.read().unwrap_err().contains(want), "{yaml}");
        }
    }
}
