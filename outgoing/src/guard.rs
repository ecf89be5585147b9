//! Addresses to which nobody but the operator may send us: an answer that redirects there would have us read, and show,
//! what a cloud tells its machines (RELIABILITY X1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services that are not link-local: of AWS over IPv6, of Alibaba, of Oracle.
const METADATA_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Addresses that are not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarded {
    /// None: the operator names them.
    #[default]
    Nothing,
    /// Link-local ones, and those of metadata services.
    Metadata,
    /// Those of this machine, too: what listens there trusts whoever is on it.
    Machine,
}

impl Guarded {
    /// Whether an address is one of them.
    pub fn has(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_of_cloud = || match address {
            IpAddr::V4(address) => address.is_link_local() || METADATA_4.contains(&address),
            IpAddr::V6(address) => address.is_unicast_link_local() || address == METADATA_6,
        };
        let is_of_machine = || address.is_loopback() || address.is_unspecified();
        match self {
            Self::Nothing => false,
            Self::Metadata => is_of_cloud(),
            Self::Machine => is_of_cloud() || is_of_machine(),
        }
    }

    /// Whether the host of `url` is one of them. Names are looked at when they are resolved, by [`Guard`].
    pub fn has_host(self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host.parse().is_ok_and(|address| self.has(address))
    }

    /// What they are called in an error.
    pub fn name(self) -> &'static str {
        if self == Self::Machine {
            "a loopback, link-local or metadata address"
        } else {
            "a link-local or metadata address"
        }
    }
}

/// Resolves names, but not to such addresses. What it answers is what is connected to, so that a name cannot change in
/// between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard(pub(crate) Guarded);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guarded = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| guarded.has(address.ip())) {
                return Err(format!("{} is {}", name.as_str(), guarded.name()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_clouds_are_guarded() {
        let has = |guarded: Guarded, host: &str| {
            guarded.has_host(&Url::parse(&format!("http://{host}/x")).unwrap())
        };
        let guarded = |host: &str| has(Guarded::Metadata, host);
        for host in [
            "169.254.169.254",
            "169.254.0.1:80",
            "[fe80::1]",
            "[fd00:ec2::254]:80",
            "[::ffff:169.254.169.254]",
            "100.100.100.200",
            "2852039166",
        ] {
            assert!(guarded(host), "{host}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "[::1]", "[fd00::1]", "metadata.example"] {
            assert!(!guarded(host), "{host}");
        }
        for host in
            ["127.0.0.1", "127.8.0.1:80", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "169.254.1.1"]
        {
            assert!(has(Guarded::Machine, host) && !has(Guarded::Nothing, host), "{host}");
        }
        assert!(!has(Guarded::Machine, "10.0.0.1"));
    }

    #[tokio::test]
    async fn names_that_lead_there_are_not_resolved() {
        let refused = Guard(Guarded::Metadata).resolve("169.254.169.254".parse().unwrap()).await;
        assert!(refused.err().unwrap().to_string().contains("metadata"));
        let of_machine = |guarded| Guard(guarded).resolve("localhost".parse().unwrap());
        assert!(of_machine(Guarded::Metadata).await.is_ok());
        assert!(of_machine(Guarded::Machine).await.err().unwrap().to_string().contains("loopback"));
    }
}
