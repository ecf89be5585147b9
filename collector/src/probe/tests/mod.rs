//! Probes of servers in this process.

mod servers;

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::Telemetry;
use servers::{Servers, identity};

/// The module `m` of this text, and whatever is said beside it.
fn probes(module: &str, others: &str) -> Result<Arc<Probes>, String> {
    let yaml = format!("{{modules: {{m: {module}}}{others}}}");
    let mut raw: RawProbes = serde_saphyr::from_str(&yaml).map_err(|error| error.to_string())?;
    raw.check(Path::new("/"), Vec::new(), &yaml).map(Arc::new)
}

/// What a probe came to: its samples, and its log.
struct Done {
    samples: BTreeMap<String, f64>,
    log: String,
}

async fn run(module: &str, target: &str) -> Done {
    let probes = probes(module, "").unwrap();
    let probe = probes.probe("m", target).unwrap();
    let outcome = probes.run(&probe.module, target, Duration::from_secs(20), Run::default()).await.unwrap();
    let samples = outcome.page.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    Done { samples: samples.collect(), log: outcome.log }
}

impl Done {
    fn success(&self) -> bool {
        self.samples["probe_success"] == 1.0
    }

    /// The series, without those of time alone.
    fn names(&self) -> Vec<&str> {
        self.samples.keys().map(String::as_str).collect()
    }

    fn check(&self, want: &[(&str, f64)]) {
        for (series, value) in want {
            assert_eq!(
                self.samples.get(*series),
                Some(value),
                "{series} of {:?}\n{}",
                self.samples,
                self.log
            );
        }
    }
}

const OF_NAMES: [&str; 3] = ["probe_dns_lookup_time_seconds", "probe_ip_addr_hash", "probe_ip_protocol"];

#[tokio::test]
async fn a_page_of_http_has_all_that_blackbox_exporter_says() {
    let mut servers = Servers::default();
    let address = servers.http().await;
    let done = run("{prober: http}", &format!("{address}/ok")).await;
    let phases = ["connect", "processing", "resolve", "tls", "transfer"];
    let phases = phases.map(|phase| format!("probe_http_duration_seconds{{phase=\"{phase}\"}}"));
    let mut want: Vec<&str> = OF_NAMES.to_vec();
    want.extend(phases.iter().map(String::as_str));
    want.extend([
        "probe_duration_seconds",
        "probe_failed_due_to_regex",
        "probe_http_content_length",
        "probe_http_last_modified_timestamp_seconds",
        "probe_http_redirects",
        "probe_http_ssl",
        "probe_http_status_code",
        "probe_http_uncompressed_body_length",
        "probe_http_version",
        "probe_success",
    ]);
    want.sort_unstable();
    assert_eq!(done.names(), want);
    done.check(&[
        ("probe_http_content_length", 5.0),
        ("probe_http_last_modified_timestamp_seconds", 784_111_777.0),
        ("probe_http_redirects", 0.0),
        ("probe_http_ssl", 0.0),
        ("probe_http_status_code", 200.0),
        ("probe_http_uncompressed_body_length", 5.0),
        ("probe_http_version", 1.1),
        ("probe_ip_protocol", 4.0),
        ("probe_success", 1.0),
    ]);
    assert!(done.samples[&phases[0]] > 0.0 && done.samples[&phases[1]] > 0.0, "{:?}", done.samples);
    let text = probes("{prober: http}", "").unwrap().probe("m", &format!("{address}/ok")).unwrap();
    let (text, _) = text.page(Duration::from_secs(20)).await.unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let family = line.split(['{', ' ']).next().unwrap();
        assert!(text.contains(&format!("# TYPE {family} gauge\n")), "{family}");
    }
}

/// Keys of a module, what is probed, whether it succeeds, and samples of the page.
type Case = (&'static str, &'static str, bool, &'static [(&'static str, f64)]);

const POSTS: &str = "method: POST, body: xxxxxxx, headers: {x-one: two, Host: shop.example}";

const CASES: [Case; 37] = [
    ("", "/chunked", true, &[("probe_http_content_length", -1.0)]),
    ("", "/none", false, &[("probe_http_status_code", 404.0)]),
    ("valid_status_codes: [404, 410]", "/none", true, &[]),
    ("valid_status_codes: [404]", "/ok", false, &[]),
    ("valid_http_versions: [HTTP/2.0]", "/ok", false, &[("probe_http_status_code", 200.0)]),
    ("valid_http_versions: [HTTP/1.1, HTTP/2.0]", "/ok", true, &[]),
    ("", "/old", true, &[("probe_http_version", 1.0), ("probe_http_content_length", 0.0)]),
    ("fail_if_ssl: true", "/ok", true, &[]),
    ("fail_if_not_ssl: true", "/ok", false, &[("probe_http_ssl", 0.0)]),
    ("", "/to", true, &[("probe_http_redirects", 2.0), ("probe_http_status_code", 200.0)]),
    ("follow_redirects: false", "/to", false, &[("probe_http_redirects", 1.0)]),
    ("no_follow_redirects: true, valid_status_codes: [302]", "/to", true, &[]),
    ("", "/loop", false, &[("probe_http_redirects", 11.0), ("probe_http_status_code", 302.0)]),
    ("", "/cloud", false, &[("probe_http_redirects", 1.0), ("probe_http_status_code", 0.0)]),
    ("", "/file", false, &[]),
    ("", "/cut", false, &[("probe_http_status_code", 200.0)]),
    ("fail_if_body_matches_regexp: [bye, hel+o]", "/ok", false, &[("probe_failed_due_to_regex", 1.0)]),
    ("fail_if_body_matches_regexp: [bye]", "/ok", true, &[("probe_failed_due_to_regex", 0.0)]),
    ("fail_if_body_not_matches_regexp: [hello, bye]", "/ok", false, &[("probe_failed_due_to_regex", 1.0)]),
    ("fail_if_body_not_matches_regexp: ['^hello$']", "/ok", true, &[]),
    (
        "fail_if_header_matches: [{header: X-Shop, regexp: day}]",
        "/ok",
        false,
        &[("probe_failed_due_to_regex", 1.0)],
    ),
    ("fail_if_header_matches: [{header: X-Shop, regexp: night}]", "/ok", true, &[]),
    ("fail_if_header_matches: [{header: X-None, regexp: x}]", "/ok", false, &[]),
    ("fail_if_header_matches: [{header: X-None, regexp: x, allow_missing: true}]", "/ok", true, &[]),
    ("fail_if_header_not_matches: [{header: x-shop, regexp: day}]", "/ok", true, &[]),
    ("fail_if_header_not_matches: [{header: x-shop, regexp: '^day'}]", "/ok", false, &[]),
    ("body_size_limit: 4B", "/ok", false, &[("probe_http_uncompressed_body_length", 4.0)]),
    ("body_size_limit: 5B", "/ok", true, &[]),
    ("compression: gzip", "/gzip", true, &[("probe_http_uncompressed_body_length", 1000.0)]),
    ("compression: gzip, body_size_limit: 100B", "/gzip", false, &[]),
    ("compression: gzip", "/ok", false, &[("probe_http_status_code", 200.0)]),
    ("compression: gzip, fail_if_body_not_matches_regexp: ['^z{1000}$']", "/gzip", true, &[]),
    (POSTS, "/echo", true, &[]),
    (
        "basic_auth: {username: me, password: hunter2}, fail_if_body_not_matches_regexp: ['authorization: Basic bWU6aHVudGVyMg==']",
        "/echo",
        true,
        &[],
    ),
    ("headers: {User-Agent: us}, fail_if_body_not_matches_regexp: ['user-agent: us\\r']", "/echo", true, &[]),
    ("fail_if_body_not_matches_regexp: ['user-agent: binnacle/']", "/echo", true, &[]),
    ("preferred_ip_protocol: ip6, ip_protocol_fallback: false", "/ok", false, &[("probe_ip_protocol", 0.0)]),
];

#[tokio::test]
async fn keys_of_http_decide_what_fails() {
    let mut servers = Servers::default();
    let address = servers.http().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (keys, path, success, want) in CASES {
        let done =
            run(&format!("{{prober: http, http: {{{keys}}}}}"), &format!("http://{address}{path}")).await;
        assert_eq!(done.success(), success, "{keys} at {path}: {}", done.log);
        done.check(want);
        assert!(!done.log.contains("hunter2"), "{}", done.log);
    }
    let rules =
        "fail_if_body_not_matches_regexp: ['^POST /echo', 'host: shop.example', 'x-one: two', 'xxxxxxx$']";
    let done =
        run(&format!("{{prober: http, http: {{{POSTS}, {rules}}}}}"), &format!("{address}/echo")).await;
    assert!(done.success(), "{}", done.log);
    let done = run("{prober: http, timeout: 100ms}", &format!("{address}/never")).await;
    assert!(!done.success() && done.log.contains("not finished within"), "{}", done.log);
    assert!(done.samples["probe_http_duration_seconds{phase=\"connect\"}"] > 0.0);
    let done = run("{prober: http}", &format!("http://{dead}/")).await;
    assert!(!done.success() && done.log.contains("cannot connect"), "{}", done.log);
}

const LEAF: &str = r#"subject="CN=localhost,O=Shop\\, Inc,C=CH",subjectalternative="localhost,b.example"}"#;

#[tokio::test]
async fn certificates_are_verified_and_shown() {
    let mut servers = Servers::default();
    let own = identity(&[b"h2", b"http/1.1"]);
    let port = servers.https(&own).await.port();
    let ca = serde_json::Value::from(own.ca.as_str());
    let module = |keys: &str| format!("{{prober: http, http: {{preferred_ip_protocol: ip4, {keys}}}}}");
    let https = format!("https://localhost:{port}");
    let done =
        run(&module(&format!("tls_config: {{ca: {ca}}}, enable_http2: false")), &format!("{https}/ok")).await;
    let (leaf, root) = (2_051_222_400.0, 2_051_222_400.0);
    done.check(&[
        ("probe_success", 1.0),
        ("probe_http_ssl", 1.0),
        ("probe_http_version", 1.1),
        ("probe_ssl_earliest_cert_expiry", leaf),
        ("probe_ssl_last_chain_expiry_timestamp_seconds", root),
        ("probe_tls_version_info{version=\"TLS 1.3\"}", 1.0),
    ]);
    let info = done.names().into_iter().find(|name| name.starts_with("probe_ssl_last_chain_info")).unwrap();
    assert!(info.contains(r#"issuer="CN=our CA",serialnumber="0aff","#) && info.ends_with(LEAF), "{info}");
    assert!(done.names().iter().any(|name| name.starts_with("probe_tls_cipher_info{cipher=\"TLS_")));
    assert!(done.samples["probe_http_duration_seconds{phase=\"tls\"}"] > 0.0);

    let two = format!(
        "tls_config: {{ca: {ca}, max_version: TLS12}}, headers: {{x-one: '1'}}, valid_http_versions: [HTTP/2.0], fail_if_body_not_matches_regexp: ['^https://localhost:{port}/a\\?b=c Some']"
    );
    let done = run(&module(&two), &format!("{https}/a?b=c")).await;
    done.check(&[
        ("probe_success", 1.0),
        ("probe_http_version", 2.0),
        ("probe_tls_version_info{version=\"TLS 1.2\"}", 1.0),
    ]);

    for (keys, target, success) in [
        ("", &*https, false),
        ("tls_config: {insecure_skip_verify: true}", &*https, true),
        (&*format!("tls_config: {{ca: {ca}}}"), &*format!("https://127.0.0.1:{port}/"), false),
        (
            &*format!("tls_config: {{ca: {ca}, server_name: b.example}}"),
            &*format!("https://127.0.0.1:{port}/"),
            true,
        ),
        (
            &*format!("tls_config: {{ca: {ca}}}, headers: {{Host: b.example}}"),
            &*format!("https://127.0.0.1:{port}/"),
            true,
        ),
        (&*format!("tls_config: {{ca: {ca}}}, fail_if_ssl: true"), &*https, false),
    ] {
        let done = run(&module(keys), target).await;
        assert_eq!(done.success(), success, "{keys}: {}", done.log);
        // What was not verified is not shown, as by blackbox exporter.
        let is_shown = done.samples.contains_key("probe_ssl_earliest_cert_expiry");
        assert_eq!(is_shown, success || keys.contains("fail_if_ssl"), "{keys}");
    }
    let done = run(&module("tls_config: {insecure_skip_verify: true}"), &https).await;
    done.check(&[
        ("probe_ssl_earliest_cert_expiry", leaf),
        ("probe_ssl_last_chain_expiry_timestamp_seconds", -62_135_596_800.0),
    ]);
}

#[tokio::test]
async fn a_proxy_stands_in_between() {
    let mut servers = Servers::default();
    let own = identity(&[b"http/1.1"]);
    let (proxy, https, http) = (servers.proxy().await, servers.https(&own).await, servers.http().await);
    let ca = serde_json::Value::from(own.ca.as_str());
    let module = |password: &str, keys: &str| {
        format!(
            "{{prober: http, http: {{preferred_ip_protocol: ip4, tls_config: {{ca: {ca}}}, proxy_url: 'http://me:{password}@{proxy}', {keys}}}}}"
        )
    };
    let done = run(&module("pass%20word", ""), &format!("https://localhost:{}/ok", https.port())).await;
    assert!(done.success(), "{}", done.log);
    let target = format!("http://{http}/x?y");
    let body = format!("fail_if_body_not_matches_regexp: ['^http://{http}/x\\?y$']");
    assert!(run(&module("pass%20word", &body), &target).await.success());
    let named =
        "skip_resolve_phase_with_proxy: true, fail_if_body_not_matches_regexp: ['^http://none.invalid/$']";
    assert!(run(&module("pass%20word", named), "http://none.invalid/").await.success());
    assert!(!run(&module("wrong", ""), &target).await.success());
}

#[tokio::test]
async fn tcp_talks_in_lines_and_turns_to_tls() {
    let mut servers = Servers::default();
    let own = identity(&[]);
    let (smtp, https) = (servers.smtp(&own).await.port(), servers.https(&own).await.port());
    let ca = serde_json::Value::from(own.ca.as_str());
    let module = |talk: &str, others: &str| {
        format!(
            "{{prober: tcp, timeout: 5s, tcp: {{preferred_ip_protocol: ip4, tls_config: {{ca: {ca}}}, query_response: [{talk}]{others}}}}}"
        )
    };
    let hello = "{expect: '^220 (?P<host>[^ ]+) (ESMTP)', send: 'EHLO ${2}.$1', labels: [{name: host, value: '${host}!'}]}";
    let tls = "{expect: '^250 hello EHLO ESMTP.mail.example$', send: STARTTLS}, {expect: '^220'}, {starttls: true}, {expect: secret}";
    let done = run(&module(&format!("{hello}, {tls}"), ""), &format!("localhost:{smtp}")).await;
    done.check(&[
        ("probe_success", 1.0),
        ("probe_failed_due_to_regex", 0.0),
        ("probe_expect_info{host=\"mail.example!\"}", 1.0),
        ("probe_ssl_earliest_cert_expiry", 2_051_222_400.0),
    ]);
    let done = run(
        &module("{expect: '^220', send: x}, {send: y}, {expect: never}", ""),
        &format!("localhost:{smtp}"),
    )
    .await;
    done.check(&[("probe_success", 0.0), ("probe_failed_due_to_regex", 1.0)]);
    let done = run(&module("", ", source_ip_address: 127.0.0.1"), &format!("127.0.0.1:{smtp}")).await;
    let mut want = vec!["probe_duration_seconds", "probe_failed_due_to_regex", "probe_success"];
    want.extend(OF_NAMES);
    want.sort_unstable();
    assert!(done.success() && done.names() == want, "{:?}", done.names());
    let done = run(&module("", ", tls: true"), &format!("localhost:{https}")).await;
    done.check(&[("probe_success", 1.0), ("probe_tls_version_info{version=\"TLS 1.3\"}", 1.0)]);
    let done = run(&module("{expect: '^SSH', send: x}", ", tls: true"), &format!("localhost:{smtp}")).await;
    assert!(!done.success(), "{}", done.log);
    assert!(run("{prober: tcp}", "localhost").await.log.contains("host:port"));
}

#[tokio::test]
async fn dns_servers_are_asked_and_their_records_looked_at() {
    let mut servers = Servers::default();
    let own = identity(&[]);
    let (dns, dot) = (servers.dns().await, servers.dot(&own).await);
    let ca = serde_json::Value::from(own.ca.as_str());
    let over_tls = format!(
        "query_name: a.example, transport_protocol: tcp, dns_over_tls: true, tls_config: {{ca: {ca}, server_name: localhost}}"
    );
    let rule = |section: &str, key: &str, pattern: &str| {
        format!("query_name: a.example, query_type: A, validate_{section}_rrs: {{{key}: ['{pattern}']}}")
    };
    let one = r"^a\.example\.\t3600\tIN\tA\t127\.0\.0\.1$";
    let text = r#"\tTXT\t"say \\"hi\\"" "two"$"#;
    let cases = [
        ("query_name: a.example".to_owned(), dns, true),
        ("query_name: a.example, transport_protocol: tcp, recursion_desired: false".to_owned(), dns, true),
        (over_tls, dot, true),
        ("query_name: none.example".to_owned(), dns, false),
        ("query_name: none.example, valid_rcodes: [NXDOMAIN]".to_owned(), dns, true),
        (rule("answer", "fail_if_matches_regexp", one), dns, false),
        (rule("answer", "fail_if_matches_regexp", "10.0"), dns, true),
        (rule("answer", "fail_if_not_matches_regexp", one), dns, false),
        (rule("answer", "fail_if_not_matches_regexp", "127.0.0"), dns, true),
        (rule("answer", "fail_if_none_matches_regexp", one), dns, true),
        (rule("answer", "fail_if_none_matches_regexp", "10.0"), dns, false),
        (rule("answer", "fail_if_all_match_regexp", "127.0.0"), dns, true),
        (rule("answer", "fail_if_all_match_regexp", one), dns, false),
        (rule("additional", "fail_if_not_matches_regexp", text), dns, true),
        (rule("authority", "fail_if_not_matches_regexp", "."), dns, false),
    ];
    for (keys, server, success) in cases {
        let done = run(&format!("{{prober: dns, timeout: 5s, dns: {{{keys}}}}}"), &server.to_string()).await;
        assert_eq!(done.success(), success, "{keys}: {}", done.log);
        done.check(&[("probe_dns_query_succeeded", 1.0)]);
    }
    let done = run("{prober: dns, dns: {query_name: soa.example, query_type: SOA}}", &dns.to_string()).await;
    let mut want: Vec<&str> = OF_NAMES.to_vec();
    want.extend([
        "probe_dns_additional_rrs",
        "probe_dns_answer_rrs",
        "probe_dns_authority_rrs",
        "probe_dns_duration_seconds{phase=\"connect\"}",
        "probe_dns_duration_seconds{phase=\"request\"}",
        "probe_dns_duration_seconds{phase=\"resolve\"}",
        "probe_dns_query_succeeded",
        "probe_dns_serial",
        "probe_duration_seconds",
        "probe_success",
    ]);
    want.sort_unstable();
    assert_eq!(done.names(), want);
    done.check(&[
        ("probe_dns_serial", 2_026_112_301.0),
        ("probe_dns_answer_rrs", 1.0),
        ("probe_dns_authority_rrs", 1.0),
        ("probe_dns_additional_rrs", 0.0),
    ]);
}

#[tokio::test]
async fn grpc_servers_say_how_they_are() {
    let mut servers = Servers::default();
    let own = identity(&[b"h2"]);
    let (plain, secure) = (servers.grpc().await, servers.https(&own).await.port());
    let ca = serde_json::Value::from(own.ca.as_str());
    let response = |status: &str| format!("probe_grpc_healthcheck_response{{serving_status=\"{status}\"}}");
    for (service, success, code, status) in
        [("", true, 0.0, "SERVING"), ("ill", false, 0.0, "NOT_SERVING"), ("none", false, 5.0, "")]
    {
        let module = format!("{{prober: grpc, timeout: 5s, grpc: {{service: '{service}'}}}}");
        let done = run(&module, &plain.to_string()).await;
        assert_eq!(done.success(), success, "{}", done.log);
        done.check(&[("probe_grpc_status_code", code), ("probe_grpc_ssl", 0.0)]);
        for one in ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"] {
            done.check(&[(&response(one), f64::from(u8::from(one == status)))]);
        }
        assert!(done.samples["probe_grpc_duration_seconds{phase=\"check\"}"] > 0.0);
    }
    // What answers there is a server of HTTP, without a status of gRPC.
    let module = format!(
        "{{prober: grpc, timeout: 5s, grpc: {{tls: true, tls_config: {{ca: {ca}}}, preferred_ip_protocol: ip4}}}}"
    );
    let done = run(&module, &format!("localhost:{secure}")).await;
    assert!(done.log.contains("no grpc-status"), "{}", done.log);
    done.check(&[
        ("probe_success", 0.0),
        ("probe_grpc_ssl", 1.0),
        ("probe_grpc_status_code", 14.0),
        ("probe_ssl_earliest_cert_expiry", 2_051_222_400.0),
    ]);
}

#[test]
fn wrong_modules_are_named() {
    for (module, want) in [
        ("{}", "probes.modules[\"m\"].prober is missing"),
        ("{prober: ftp}", ".prober: \"ftp\" is none of"),
        ("{prober: icmp, icmp: {ttl: 5}}", "icmp is not supported by this release"),
        ("{prober: grpc, grpc: {svc: x}}", "svc"),
        ("{prober: http, tcp: {}}", ".tcp: the prober is http"),
        ("{prober: http, http: {methd: GET}}", "methd"),
        ("{prober: http, http: {method: 'G T'}}", ".http.method: \"G T\""),
        ("{prober: http, http: {preferred_ip_protocol: ip5}}", ".http.preferred_ip_protocol: \"ip5\""),
        (
            "{prober: http, http: {fail_if_body_matches_regexp: [a, '(']}}",
            ".http.fail_if_body_matches_regexp[1]: ",
        ),
        (
            "{prober: http, http: {fail_if_header_matches: [{regexp: a}]}}",
            ".http.fail_if_header_matches[0].header is missing",
        ),
        ("{prober: http, http: {fail_if_header_matches: [{header: a}]}}", "[0].regexp is missing"),
        ("{prober: http, http: {compression: br}}", ".http.compression: \"br\" is none of gzip"),
        (
            "{prober: http, http: {compression: gzip, headers: {accept-encoding: 'deflate, gzip;q=0'}}}",
            "does not accept what",
        ),
        ("{prober: http, http: {fail_if_body_json_matches_cel: x}}", "cel is not supported"),
        ("{prober: http, http: {oauth2: {a: b}}}", ".http.oauth2 is not supported"),
        ("{prober: http, http: {proxy_url: 'https://p'}}", "must begin with http://"),
        (
            "{prober: http, http: {basic_auth: {password: hunter2, password_file: b}}}",
            ".http: basic_auth.password and",
        ),
        ("{prober: http, http: {body: a, body_file: b}}", "body and body_file must not both"),
        ("{prober: tcp, tcp: {query_response: [{}, {expect: '('}]}}", ".tcp.query_response[1].expect: "),
        (
            "{prober: tcp, tcp: {query_response: [{labels: [{name: a}]}]}}",
            "query_response[0].labels: they are taken",
        ),
        ("{prober: tcp, tcp: {source_ip_address: here}}", ".tcp.source_ip_address: \"here\""),
        ("{prober: dns}", ".dns.query_name is missing"),
        ("{prober: dns, dns: {query_name: a, query_type: AX}}", ".dns.query_type: \"AX\""),
        ("{prober: dns, dns: {query_name: a, valid_rcodes: [OK]}}", ".dns.valid_rcodes: \"OK\""),
        ("{prober: dns, dns: {query_name: a, dns_over_tls: true}}", "dns_over_tls needs"),
        (
            "{prober: dns, dns: {query_name: a, validate_answer_rrs: {fail_if_matches_regexp: ['(']}}}",
            ".dns.validate_answer_rrs.fail_if_matches_regexp[0]: ",
        ),
    ] {
        let error = probes(module, "").unwrap_err();
        assert!(error.contains(want) && !error.contains("hunter2"), "{module}: {error}");
    }
}

#[test]
fn a_probe_is_over_before_the_scrape_is() {
    let timeout = |module: &str, ms: u64| {
        let probes = probes(module, "").unwrap();
        probes.modules["m"].timeout_of(Duration::from_millis(ms)).as_millis()
    };
    assert_eq!(timeout("{prober: tcp}", 10_000), 9500);
    assert_eq!(timeout("{prober: tcp, timeout: 2s}", 10_000), 2000);
    assert_eq!(timeout("{prober: tcp, timeout: 20s}", 10_000), 9500);
    assert_eq!(timeout("{prober: tcp}", 600), 300);
}

#[tokio::test]
async fn more_than_may_run_at_once_wait_in_their_own_time() {
    let mut servers = Servers::default();
    let address = servers.http().await;
    let probes = probes("{prober: http}", ", max_concurrent: 1").unwrap();
    let probe = probes.probe("m", &format!("{address}/ok")).unwrap();
    let place = probes.places.acquire().await.unwrap();
    let error = probe.page(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.contains("probes.max_concurrent"), "{error}");
    drop(place);
    assert!(probe.page(Duration::from_secs(20)).await.unwrap().1);
}

#[tokio::test]
async fn the_endpoint_is_closed_until_it_is_opened_and_leads_nowhere_else() {
    let mut servers = Servers::default();
    let address = servers.http().await;
    let endpoint =
        |others: &str| Endpoint::new(Some(probes("{prober: http}", others).unwrap()), Telemetry::default());
    let ask = async |endpoint: &Arc<Endpoint>, query: &str| {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned().collect::<BTreeMap<_, _>>();
        let asked: Asked = serde_json::from_value(serde_json::json!(pairs)).unwrap();
        match endpoint.answer(asked, Some("20")).await {
            Ok(page) => (200, page),
            Err(Refusal::Bad(reason)) => (400, reason),
            Err(Refusal::Forbidden(reason)) => (403, reason.to_owned()),
            Err(Refusal::Busy(reason)) => (503, reason),
        }
    };
    let ok = format!("module=m&target=http://{address}/ok");
    let off = endpoint("");
    assert_eq!(ask(&off, &ok).await.0, 403);
    assert_eq!(off.telemetry.probes_refused.get(), 1);
    let open = endpoint(
        ", endpoint: {targets: ['http://127\\.0\\.0\\.1:\\d+/.*', 'http://(169|\\[).*'], modules: [m]}",
    );
    let (status, page) = ask(&open, &ok).await;
    assert!(status == 200 && page.contains("probe_success 1\n"), "{page}");
    assert_eq!((open.telemetry.probes.get(), open.telemetry.probes_failed.get()), (1, 0));
    let (_, page) = ask(&open, &format!("{ok}&debug=true")).await;
    assert!(page.contains("Logs for the probe:") && page.contains("probe succeeded"), "{page}");
    for target in
        ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/"]
    {
        let (status, page) = ask(&open, &format!("module=m&debug=true&target={target}")).await;
        assert!(status == 200 && page.contains("probe_success 0\n"), "{target}: {page}");
        assert!(page.contains("is a link-local or metadata address"), "{target}: {page}");
    }
    for (query, want) in [
        ("module=m", 400),
        ("target=x", 400),
        ("module=none&target=http://127.0.0.1:1/", 400),
        ("module=m&target=https://127.0.0.1:1/", 403),
        ("module=m&target=http://10.0.0.1:1/http://127.0.0.1:1/", 403),
    ] {
        assert_eq!(ask(&open, query).await.0, want, "{query}");
    }
    open.reload(None);
    assert_eq!(ask(&open, &ok).await.0, 403);
}

/// Clients of scrapes, beside servers that are there for probes.
#[tokio::test]
async fn a_certificate_may_have_another_name_than_the_address() {
    use binnacle_outgoing::{ClientOptions, Guarded, RawWay, Redirects};

    let mut servers = Servers::default();
    let identity = identity(&[b"http/1.1"]);
    let address = servers.https(&identity).await;
    let options = ClientOptions {
        redirects: Redirects::None,
        timeout: Duration::from_secs(20),
        gzip: true,
        http2: true,
        guarded: Guarded::Nothing,
    };
    let ask = async |server_name: &str, skip: bool| {
        let tls =
            serde_json::json!({"ca": identity.ca, "server_name": server_name, "insecure_skip_verify": skip});
        let raw = RawWay { tls_config: serde_json::from_value(tls).unwrap(), ..RawWay::default() };
        let client = raw.check(&BTreeMap::new(), Path::new("/"))?.client(options)?;
        let answer = client.get(format!("https://{address}/")).send().await;
        answer.map(|_| ()).map_err(|error| format!("{:?}", error.without_url()))
    };
    ask("b.example", false).await.unwrap();
    for other in ["a.example", ""] {
        let error = ask(other, false).await.unwrap_err();
        assert!(error.contains("NotValidForName"), "{other:?}: {error}");
    }
    ask("a.example", true).await.unwrap();
    let error = ask("a b", false).await.unwrap_err();
    assert!(error.contains("tls_config.server_name: \"a b\" is no name"), "{error}");
}
