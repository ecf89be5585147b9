//! From a target's name to a connection: which address, of which family, and whether we may go there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};

use super::Run;

/// Which addresses of a name are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// IPv6 before IPv4.
    pub(super) prefers_6: bool,
    /// Whether the other one will do.
    pub(super) falls_back: bool,
}

/// Splits `host:port`; brackets around an address of IPv6 come off. `None` where there is no port.
pub(super) fn split_port(target: &str) -> Option<(&str, u16)> {
    let (host, port) = target.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?, port)),
        None if host.contains(':') => None,
        None => Some((host, port)),
    }
}

/// A name without the brackets of an address of IPv6.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl Run {
    /// The address of the target, which is said on the page with the time that it took.
    pub(super) async fn resolve(&mut self, host: &str, family: Family) -> Result<IpAddr, String> {
        for name in ["probe_ip_protocol", "probe_ip_addr_hash", "probe_dns_lookup_time_seconds"] {
            self.page.set(name, 0.0);
        }
        let began = Instant::now();
        let found = self.addresses(host).await;
        self.lookup = began.elapsed();
        self.page.set("probe_dns_lookup_time_seconds", self.lookup.as_secs_f64());
        let found = found?;
        let preferred = found.iter().find(|address| address.is_ipv6() == family.prefers_6);
        let other = found.last().filter(|_| family.falls_back);
        let Some(address) = preferred.or(other).copied() else {
            let wanted = if family.prefers_6 { "IPv6" } else { "IPv4" };
            return Err(format!("{host} has no address of {wanted}, and ip_protocol_fallback is off"));
        };
        self.page.set("probe_ip_protocol", if address.is_ipv6() { 6.0 } else { 4.0 });
        self.page.set("probe_ip_addr_hash", f64::from(hash_of(address)));
        self.log.say(&format!("resolved {host} to {address}"));
        Ok(address)
    }

    /// All addresses of a name. Guarded ones are refused as a whole: a name that has one may lead there the next time.
    pub(super) async fn addresses(&mut self, host: &str) -> Result<Vec<IpAddr>, String> {
        let found: Vec<IpAddr> = if let Ok(address) = host.parse() {
            vec![address]
        } else {
            let found = tokio::net::lookup_host((host, 0)).await;
            let found = found.map_err(|error| format!("cannot resolve {host}: {error}"))?;
            found.map(|address| address.ip()).collect()
        };
        if found.iter().any(|address| self.guarded.has(*address)) {
            return Err(format!("{host} is {}", self.guarded.name()));
        }
        if found.is_empty() { Err(format!("{host} has no address")) } else { Ok(found) }
    }

    /// Connects, from an address of our own if the module names one.
    pub(super) async fn connect(
        &mut self,
        address: SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<TcpStream, String> {
        let told = |error: std::io::Error| format!("cannot connect to {address}: {error}");
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
        let socket = socket.map_err(told)?;
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0)).map_err(told)?;
        }
        let stream = socket.connect(address).await.map_err(told)?;
        // What is measured is the other side.
        stream.set_nodelay(true).map_err(told)?;
        self.log.say(&format!("connected to {address}"));
        Ok(stream)
    }
}

/// FNV-1a over the bytes of the address.
fn hash_of(address: IpAddr) -> u32 {
    let hash = |bytes: &[u8]| {
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    };
    match address {
        IpAddr::V6(address) => hash(&address.octets()),
        IpAddr::V4(address) => hash(&address.octets()),
    }
}

/// Seconds since a moment, and that moment moved to now.
pub(super) fn lap(since: &mut Instant) -> f64 {
    let now = Instant::now();
    let span: Duration = now.duration_since(*since);
    *since = now;
    span.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_host_and_a_port() {
        assert_eq!(split_port("a.example:80"), Some(("a.example", 80)));
        assert_eq!(split_port("[::1]:53"), Some(("::1", 53)));
        for none in ["a.example", "::1", "[::1]", "a:b", "a:70000", "[::1:53"] {
            assert_eq!(split_port(none), None, "{none}");
        }
        assert_eq!((bare("[::1]"), bare("a")), ("::1", "a"));
    }

    #[test]
    fn hashes_are_those_of_fnv() {
        // As blackbox exporter 0.23 says it.
        assert_eq!(hash_of("127.0.0.1".parse().unwrap()), 3_668_918_509);
    }
}
