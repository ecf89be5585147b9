//! Addresses to which nobody but the operator may send us: an answer that redirects there would have us read, and show,
//! what a cloud tells its machines (RELIABILITY X1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services that are not link-local: of AWS over IPv6, of Alibaba, of Oracle.
const METADATA_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Whether an address is link-local, or that of a metadata service.
pub(crate) fn is_guarded_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || METADATA_4.contains(&address),
        IpAddr::V6(address) => address.is_unicast_link_local() || address == METADATA_6,
    }
}

/// Whether the host of `url` is such an address. Names are looked at when they are resolved, by [`Guard`].
pub(crate) fn is_guarded(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.parse().is_ok_and(is_guarded_address)
}

/// Resolves names, but not to such addresses. What it answers is what is connected to, so that a name cannot change in
/// between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard;

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| is_guarded_address(address.ip())) {
                return Err(format!("{} is a link-local or metadata address", name.as_str()).into());
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
        let guarded = |host: &str| is_guarded(&Url::parse(&format!("http://{host}/x")).unwrap());
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
    }

    #[tokio::test]
    async fn names_that_lead_there_are_not_resolved() {
        let refused = Guard.resolve("169.254.169.254".parse().unwrap()).await;
        assert!(refused.err().unwrap().to_string().contains("metadata"));
        assert!(Guard.resolve("127.0.0.1".parse().unwrap()).await.is_ok());
    }
}
