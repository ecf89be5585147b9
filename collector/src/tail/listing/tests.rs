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
    assert_eq!(rotated_name("*.log", "app.log"), Some(("app.log", "")));
    assert_eq!(rotated_name("*.log", "app.log.1"), Some(("app.log", ".1")));
    assert_eq!(rotated_name("*.log", "app.log-20261121.gz"), Some(("app.log", "-20261121.gz")));
    assert_eq!(rotated_name("*.log", "app-1.log"), Some(("app-1.log", "")));
    assert_eq!(rotated_name("*.log", "app.log.bak"), None);
    assert_eq!(rotated_name("app", "app.1.2"), Some(("app", ".1.2")));
    assert_eq!(rotated_name("app*", "app.log.2"), Some(("app.log", ".2")));
}
