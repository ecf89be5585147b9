//! Feeds it: scraping, probes, host metrics, log tailing, intake and forwarding; and sends on what is stored.
//!
//! ```text
//! discovery ► scrape ─┐ (a page, or a probe's)     ┌─ a store in this process
//! this host ─► host ─┼─► Appender, LogAppender ───┤
//! log files ─► tail ─┘                            ├─ forward: a store across the network ─► intake
//!                                                 └─ foreign, remote_write::Direct: stores of others
//!
//! the store's log ─► remote_write ─► other servers
//! ```

pub mod bounds;
pub mod completeness;
pub mod discovery;
pub mod exposition;
pub mod foreign;
pub mod forward;
pub mod host;
pub mod http;
pub mod intake;
pub mod journal;
pub mod kubernetes;
pub mod monitors;
pub mod probe;
pub mod relabel;
pub mod remote_write;
pub mod scrape;
pub mod tail;
mod telemetry;

pub use telemetry::Telemetry;

/// From 0 to 1: so that not all agents of a cluster do the same at once.
fn random() -> f64 {
    use std::hash::BuildHasher;
    (std::hash::RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

/// An HTTP client with our bounds: no redirects unless asked, no proxies from the environment.
///
/// A machine without CA certificates still gets a client; it can then reach plain HTTP only.
///
/// # Panics
/// If no TLS provider was installed before; the program does so first of all.
pub fn http_client(timeout: std::time::Duration) -> Result<reqwest::Client, reqwest::Error> {
    let builder = || {
        reqwest::Client::builder()
            .connect_timeout(timeout.min(std::time::Duration::from_secs(5)))
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("binnacle/", env!("CARGO_PKG_VERSION")))
    };
    builder().build().or_else(|_| builder().tls_certs_only([]).build())
}
