//! What a node's own services write: journald's files, klog's, audit events; found by the real binary, and once after
//! a restart.

use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Server, get, poll};

/// A journal that systemd wrote, of which so many entries are there.
fn put_journal(path: &Path, entries: u64) {
    let packed =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../collector/testdata/journal/compact-zstd.journal.zst");
    let mut bytes = zstd::decode_all(std::fs::File::open(packed).unwrap()).unwrap();
    bytes[152..160].copy_from_slice(&entries.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

async fn search(server: &Server, query: &str) -> Value {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let url = format!("{}/api/logs/search?limit=100&start=2015-01-01T00:00:00Z&q={query}", server.url);
    let (status, answer) = get(&url).await;
    assert_eq!(status, 200, "{query}: {answer}");
    answer["data"].clone()
}

/// Waits until so many lines are found, and answers them.
async fn found(server: &Server, query: &str, count: u64) -> Value {
    let what = format!("{count} lines of {query}");
    poll(&what, async || {
        let found = search(server, query).await;
        (found["total"] == count).then_some(found)
    })
    .await
}

#[tokio::test]
async fn a_journal_is_read_once_over_restarts_and_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal/3c1f0e6a8b5d4c7f9a2b1d0e4f6a8c7b");
    std::fs::create_dir_all(&journal).unwrap();
    let live = journal.join("system.journal");
    put_journal(&live, 30);
    let config = dir.path().join("c.yml");
    std::fs::write(&config, "logs:\n- journal: journal\n  exclude_units: [liar]\n").unwrap();
    let (data, args) = (dir.path().join("data"), ["--config", config.to_str().unwrap()]);
    let server = Server::start(&data, &args);
    found(&server, "service:kubelet", 3).await;
    found(&server, "service:kubelet AND level:error", 1).await;
    found(&server, "service:kernel", 3).await;
    found(&server, "unit:\"ssh.service\" AND pid:901 AND uid:<1", 1).await;
    assert_eq!(search(&server, "service:liar").await["total"], 0);
    let total = found(&server, "*", 29).await;
    assert_eq!(total["total"], 29);
    server.kill();
    // It goes on, is archived and begun anew while nobody looks.
    let file = std::fs::OpenOptions::new().write(true).open(&live).unwrap();
    file.write_all_at(&46u64.to_le_bytes(), 152).unwrap();
    std::fs::rename(&live, journal.join("system@0000000000000000000000000000000a-01-02.journal")).unwrap();
    put_journal(&live, 5);
    let file = std::fs::OpenOptions::new().write(true).open(&live).unwrap();
    file.write_all_at(&[7; 16], 24).unwrap();
    let server = Server::start(&data, &args);
    found(&server, "*", 45 + 5).await;
    found(&server, "service:noisy", 24).await;
    found(&server, "service:kubelet", 3 + 2).await;
    let report = poll("a report", async || {
        let (_, answer) = get(&format!("{}/api/completeness", server.url)).await;
        let journal = answer["data"]["nodes"][0]["journal"].clone();
        (journal["gap"] == 0 && journal["entries"] == 51).then_some(journal)
    })
    .await;
    assert_eq!((&report["lost"], &report["files"]), (&json!(0), &json!(2)));
}

/// An audit event of today, as one line.
fn event(verb: &str, resource: &str, user: &str, code: u16) -> String {
    let event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": format!("id-{verb}-{code}"),
        "stage": "ResponseComplete", "verb": verb, "user": { "username": user, "groups": ["system:authenticated"] },
        "sourceIPs": ["192.0.2.7"], "objectRef": { "resource": resource, "namespace": "shop", "name": "cart-0" },
        "responseStatus": { "metadata": {}, "code": code },
        "requestReceivedTimestamp": "2025-11-21T10:00:00.100000Z", "stageTimestamp": "2025-11-21T10:00:00.200000Z",
    });
    format!("{event}\n")
}

#[tokio::test]
async fn files_of_a_node_have_their_services_times_and_fields() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("log");
    std::fs::create_dir_all(logs.join("kubernetes/audit")).unwrap();
    let apiserver = "E1121 10:00:00.123456       1 status.go:71] \"not found\"\nI1121 10:00:01.000000       1 a.go:1] fine\n";
    std::fs::write(logs.join("kube-apiserver.log"), apiserver).unwrap();
    let rotated = "W1120 09:00:00.000000       1 a.go:1] yesterday\n";
    std::fs::write(logs.join("kube-apiserver-20261120.log"), rotated).unwrap();
    std::fs::write(logs.join("containerd.log"), "time=\"2025-11-21T10:00:00Z\" level=warning msg=\"x y\"\n")
        .unwrap();
    std::fs::write(logs.join("syslog"), "Nov 21 10:00:00 node-1 cron[7]: asked for\n").unwrap();
    std::fs::write(logs.join("dpkg.log"), "2025-11-21 10:00:00 nobody asked for it\n").unwrap();
    let audit = [
        event("delete", "pods", "alice", 200),
        event("get", "secrets", "bob", 403),
        event("list", "nodes", "alice", 500),
    ];
    std::fs::write(logs.join("kubernetes/audit/audit.log"), audit.concat()).unwrap();
    let config = dir.path().join("c.yml");
    std::fs::write(&config, "logs:\n- node: log\n  also: [syslog]\n").unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let server = Server::start(&dir.path().join("data"), &args);
    found(&server, "*", 8).await;
    found(&server, "service:\"kube-apiserver\"", 3).await;
    found(&server, "service:\"kube-apiserver\" AND level:error", 1).await;
    found(&server, "service:containerd AND level:warn AND timestamp:\"2025-11-21T10:00:00Z\"", 1).await;
    found(&server, "service:syslog", 1).await;
    found(&server, "service:audit AND verb:delete AND resource:pods AND user:alice", 1).await;
    found(&server, "service:audit AND level:warn AND user:bob AND code:>=400", 1).await;
    found(
        &server,
        "service:audit AND level:error AND objectRef.namespace:shop AND sourceIPs:\"192.0.2.7\"",
        1,
    )
    .await;
    found(
        &server,
        "service:audit AND @timestamp:[\"2025-11-21T10:00:00.2Z\" TO \"2025-11-21T10:00:00.2Z\"]",
        3,
    )
    .await;
    // klog says no year: the last one in which it is not to come.
    let klog = found(&server, "service:\"kube-apiserver\" AND \"not found\"", 1).await;
    assert!(klog.to_string().contains("-11-21T10:00:00.123456"), "{klog}");
}

/// Events that others recorded lie beside this repository.
#[tokio::test]
async fn real_audit_events_are_found_by_their_fields() {
    let Some(folder) = crate::real::real("logs/kubernetes-audit") else { return };
    let text = std::fs::read_to_string(folder.join("audit.log")).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("audit")).unwrap();
    std::fs::write(dir.path().join("audit/audit.log"), &text).unwrap();
    let config = dir.path().join("c.yml");
    std::fs::write(&config, "logs:\n- node: .\n").unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    found(&server, "service:audit", events.len() as u64).await;
    let mut asked = std::collections::BTreeMap::new();
    for event in &events {
        let (verb, resource) = (event["verb"].as_str(), event["objectRef"]["resource"].as_str());
        let (Some(verb), Some(resource), Some(user)) = (verb, resource, event["user"]["username"].as_str())
        else {
            continue;
        };
        *asked
            .entry(format!("verb:\"{verb}\" AND resource:\"{resource}\" AND user:\"{user}\""))
            .or_insert(0) += 1;
    }
    assert!(asked.len() > 5);
    for (query, count) in asked {
        found(&server, &format!("service:audit AND {query}"), count).await;
    }
    let codes = |range: std::ops::Range<i64>| {
        let code = |event: &&Value| {
            event["responseStatus"]["code"].as_i64().is_some_and(|code| range.contains(&code))
        };
        events.iter().filter(code).count() as u64
    };
    found(&server, "service:audit AND level:warn", codes(400..500)).await;
    found(&server, "service:audit AND level:error", codes(500..600)).await;
}
