//! Listings of directories as they stand on nodes.

use super::*;

#[test]
fn workloads_are_guessed_from_pod_names() {
    assert_eq!(app_of("payment-7d9f8b6c5-x2x4z"), "payment");
    assert_eq!(app_of("node-exporter-x2x4z"), "node-exporter");
    assert_eq!(app_of("db-0"), "db");
    assert_eq!(app_of("etcd"), "etcd");
    assert_eq!(app_of("my-app"), "my-app");
}

#[test]
fn patterns_fit() {
    assert!(fits("*.log", "a.log"));
    assert!(fits("a*b*c", "aXbYc"));
    assert!(!fits("*.log", "a.log.1"));
    assert!(fits("app.log", "app.log"));
    assert!(!fits("app.log", "app.log2"));
    let rotated_name = |wanted: &str, name: &'static str| {
        plain::rotated_name(wanted, name).map(|(base, rest)| (base.into_owned(), rest))
    };
    let some = |base: &str, rest| Some((base.to_owned(), rest));
    assert_eq!(rotated_name("*.log", "app.log"), some("app.log", ""));
    assert_eq!(rotated_name("*.log", "app.log.1"), some("app.log", ".1"));
    assert_eq!(rotated_name("*.log", "app.log-20261121.gz"), some("app.log", "-20261121.gz"));
    assert_eq!(rotated_name("*.log", "app-1.log"), some("app-1.log", ""));
    assert_eq!(rotated_name("*.log", "app.log.bak"), None);
    assert_eq!(rotated_name("app", "app.1.2"), some("app", ".1.2"));
    assert_eq!(rotated_name("app*", "app.log.2"), some("app.log", ".2"));
    for (name, base, rest) in [
        ("kube-apiserver-20261121.log.gz", "kube-apiserver.log", "-20261121.log.gz"),
        ("kube-apiserver.log-20261121-1795255200.gz", "kube-apiserver.log", "-20261121-1795255200.gz"),
        ("kube-apiserver-20261121-1795255200.log", "kube-apiserver.log", "-20261121-1795255200.log"),
        ("audit-2026-11-21T10-00-00.000.log", "audit.log", "-2026-11-21T10-00-00.000.log"),
        ("audit-2026-11-21T10-00-00.000.log.gz", "audit.log", "-2026-11-21T10-00-00.000.log.gz"),
        ("node-12345678.log", "node-12345678.log", ""),
        ("-20261121.log", "-20261121.log", ""),
    ] {
        assert_eq!(rotated_name("*.log", name), some(base, rest), "{name}");
    }
}

#[test]
fn a_checkpoint_lies_where_its_input_says() {
    let files = |pattern: &str| Input::Files { pattern: pattern.into(), service: "s".into() }.dir_name();
    let containers = Input::Containers("/var/log/containers".into()).dir_name();
    assert!(containers.starts_with("containers-var-log-containers-"), "{containers}");
    assert_ne!(files("/a/b"), files("/a-b"));
    assert_eq!(files("/a/b"), files("/a/b"));
    assert!(files(&"/é/x".repeat(500)).len() < 80);
}
