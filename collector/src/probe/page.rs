//! What a probe found, as a page of metrics, and what it did, as lines for whoever debugs it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

/// All that a probe may say; names and meaning are blackbox exporter's. Ascending by name.
const METRICS: [(&str, &str); 32] = [
    ("probe_dns_additional_rrs", "Resource records in the additional section of the answer"),
    ("probe_dns_answer_rrs", "Resource records in the answer section of the answer"),
    ("probe_dns_authority_rrs", "Resource records in the authority section of the answer"),
    ("probe_dns_duration_seconds", "Time of each phase of the DNS query"),
    ("probe_dns_lookup_time_seconds", "Time in which the name of the target was resolved"),
    ("probe_dns_query_succeeded", "Whether the DNS server answered the query"),
    ("probe_dns_serial", "Serial number of the zone, from the SOA record of the answer"),
    ("probe_duration_seconds", "Time of the probe as a whole"),
    ("probe_expect_info", "Parts of the line that was expected"),
    ("probe_failed_due_to_regex", "Whether a regular expression was why the probe failed"),
    ("probe_grpc_duration_seconds", "Time of each phase of the gRPC call"),
    ("probe_grpc_healthcheck_response", "What the health service said of itself"),
    ("probe_grpc_ssl", "Whether the gRPC call went over TLS"),
    ("probe_grpc_status_code", "Status code of the gRPC call"),
    ("probe_http_content_length", "Length of the body by the response's header, -1 if it says none"),
    ("probe_http_duration_seconds", "Time of each phase of HTTP, added up over all redirects"),
    ("probe_http_last_modified_timestamp_seconds", "The header Last-Modified in Unix seconds"),
    ("probe_http_redirects", "Redirects that were met"),
    ("probe_http_ssl", "Whether the last response came over TLS"),
    ("probe_http_status_code", "Status code of the last response"),
    ("probe_http_uncompressed_body_length", "Bytes of the body that were read, unpacked"),
    ("probe_http_version", "HTTP version of the last response"),
    ("probe_icmp_duration_seconds", "Time of each phase of the ICMP echo"),
    ("probe_icmp_reply_hop_limit", "Hop limit of the ICMP reply, of IPv4 its TTL"),
    ("probe_ip_addr_hash", "Hash of the target's address, which changes when the address does"),
    ("probe_ip_protocol", "Version of IP by which the target was reached, 4 or 6"),
    ("probe_ssl_earliest_cert_expiry", "When the first of the certificates shown expires, in Unix seconds"),
    (
        "probe_ssl_last_chain_expiry_timestamp_seconds",
        "When the verified chain that holds longest expires, in Unix seconds",
    ),
    ("probe_ssl_last_chain_info", "What the target's own certificate says"),
    ("probe_success", "Whether the probe succeeded"),
    ("probe_tls_cipher_info", "Cipher suite of the TLS connection"),
    ("probe_tls_version_info", "Version of the TLS connection"),
];

/// Lines of a log, and bytes of each: a probe that fails in a new way at each turn fills no memory.
const LOG_LINES_MAX: usize = 500;
const LOG_LINE_MAX_BYTES: usize = 1000;

/// Label pairs of a sample.
type Pairs = Vec<(String, String)>;

/// The metrics of one probe.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: BTreeMap<&'static str, BTreeMap<Pairs, f64>>,
}

impl Page {
    /// A gauge without labels.
    pub(super) fn set(&mut self, name: &'static str, value: f64) {
        self.set_with(name, &[], value);
    }

    /// One that is true or false.
    pub(super) fn flag(&mut self, name: &'static str, is_set: bool) {
        self.set(name, f64::from(u8::from(is_set)));
    }

    pub(super) fn set_with(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        *self.sample(name, labels) = value;
    }

    /// Adds to what the gauge has, or to zero.
    pub(super) fn add(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        *self.sample(name, labels) += value;
    }

    fn sample(&mut self, name: &'static str, labels: &[(&str, &str)]) -> &mut f64 {
        debug_assert!(help(name).is_some(), "{name} has no description");
        let pairs = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.families.entry(name).or_default().entry(pairs).or_default()
    }

    /// In Prometheus's text format.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (name, samples) in &self.families {
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} gauge", help(name).unwrap_or_default());
            for (pairs, value) in samples {
                text.push_str(name);
                for (at, (label, value)) in pairs.iter().enumerate() {
                    let open = if at == 0 { '{' } else { ',' };
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    let _ = write!(text, "{open}{label}=\"{value}\"");
                }
                let close = if pairs.is_empty() { "" } else { "}" };
                let _ = writeln!(text, "{close} {value}");
            }
        }
        text
    }
}

fn help(name: &str) -> Option<&'static str> {
    METRICS.iter().find(|(known, _)| *known == name).map(|(_, help)| *help)
}

/// What a probe did, line by line.
#[derive(Debug)]
pub(super) struct Log {
    began: Instant,
    lines: Vec<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self { began: Instant::now(), lines: Vec::new() }
    }
}

impl Log {
    pub(super) fn say(&mut self, line: &str) {
        if self.lines.len() >= LOG_LINES_MAX {
            return;
        }
        let shown: String = line.chars().take(LOG_LINE_MAX_BYTES).collect();
        let after = self.began.elapsed().as_secs_f64();
        self.lines.push(format!("{after:.6} {}", shown.replace(['\n', '\r'], " ")));
    }

    pub(super) fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_type_for_each_family_and_escapes_labels() {
        let mut page = Page::default();
        page.flag("probe_success", true);
        page.add("probe_http_duration_seconds", &[("phase", "tls")], 0.25);
        page.add("probe_http_duration_seconds", &[("phase", "tls")], 0.5);
        page.set_with("probe_ssl_last_chain_info", &[("subject", "CN=a\"b\\\n")], 1.0);
        let help = |name: &str| help(name).unwrap();
        let want = format!(
            "# HELP probe_http_duration_seconds {}\n# TYPE probe_http_duration_seconds gauge\n\
             probe_http_duration_seconds{{phase=\"tls\"}} 0.75\n\
             # HELP probe_ssl_last_chain_info {}\n# TYPE probe_ssl_last_chain_info gauge\n\
             probe_ssl_last_chain_info{{subject=\"CN=a\\\"b\\\\\\n\"}} 1\n\
             # HELP probe_success {}\n# TYPE probe_success gauge\nprobe_success 1\n",
            help("probe_http_duration_seconds"),
            help("probe_ssl_last_chain_info"),
            help("probe_success"),
        );
        assert_eq!(page.text(), want);
        assert!(METRICS.is_sorted());
    }

    #[test]
    fn a_log_is_bounded() {
        let mut log = Log::default();
        (0..2000).for_each(|_| log.say(&"x\n".repeat(2000)));
        assert_eq!(log.text().lines().count(), LOG_LINES_MAX);
        assert!(log.text().len() < LOG_LINES_MAX * (LOG_LINE_MAX_BYTES + 20));
    }
}
