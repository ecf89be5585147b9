//! Whether all that stands in files has arrived: what collectors say of each container, and who asks.
//!
//! Every collector tells its store every few seconds how many bytes of each container's files there are, how many of
//! them were acknowledged, and what was lost. `GET /api/completeness` answers the last word of each node.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use binnacle_model::LogTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Nodes of which reports are kept.
const MAX_NODES: usize = 10_000;

/// Containers in one report.
const MAX_CONTAINERS: usize = 20_000;

/// A node that was silent for so long is left out.
const FORGET_AFTER_NS: i64 = 86_400_000_000_000;

/// A node whose last word is older is not heard of any more.
const SILENT_AFTER_NS: i64 = 60_000_000_000;

/// What one collector says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its node.
    pub node: String,
    /// Which of its inputs, counted from zero.
    #[serde(default)]
    pub input: u32,
    /// When it began; what was lost is counted since then. Unix nanoseconds.
    pub started_ns: i64,
    /// It ends, and says nothing more until it begins again.
    #[serde(default)]
    pub is_last: bool,
    /// Compressed bytes of deleted files that it keeps.
    pub spool_bytes: u64,
    /// Ascending by namespace, pod and container.
    pub containers: Vec<ContainerReport>,
    /// Of an input that reads systemd's journals. Their files are counted in entries, so that they are in no sum of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalReport>,
}

/// What stands in the journals of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalReport {
    /// Files that are there, or still held.
    pub files: u64,
    /// Entries in them.
    pub entries: u64,
    /// Entries of those that the store has acknowledged.
    pub acknowledged: u64,
    /// Entries that vanished before they were acknowledged.
    pub lost: u64,
    /// Entries that the store refused for good.
    #[serde(default)]
    pub refused: u64,
    /// How long ago the oldest entries that are not acknowledged were there.
    pub behind_seconds: f64,
}

/// What stands in the files of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Of the pod; empty of what is no container's.
    pub namespace: String,
    /// Empty of what is no container's, and of what was lost of pods that are gone.
    #[serde(default)]
    pub pod: String,
    /// Its name; of what is no container's, the service.
    pub container: String,
    /// Files that are there, or still held.
    pub files: u64,
    /// Bytes in them, unpacked.
    pub bytes: u64,
    /// Bytes of those that the store has acknowledged.
    pub acknowledged: u64,
    /// Bytes that vanished before they were acknowledged.
    pub lost: u64,
    /// Bytes that the store refused for good.
    #[serde(default)]
    pub refused: u64,
    /// How long ago the oldest bytes that are not acknowledged were there.
    pub behind_seconds: f64,
}

impl NodeReport {
    /// Whether all was acknowledged, and nothing lost.
    fn is_complete(&self) -> bool {
        let of_container =
            |one: &ContainerReport| one.acknowledged >= one.bytes && one.lost + one.refused == 0;
        let of_journal = |one: &JournalReport| one.acknowledged >= one.entries && one.lost + one.refused == 0;
        self.containers.iter().all(of_container) && self.journal.iter().all(of_journal)
    }
}

/// The last word of each node.
#[derive(Debug, Default)]
pub struct Reports(Mutex<BTreeMap<(String, u32), (LogTime, NodeReport)>>);

impl Reports {
    /// Keeps a report.
    ///
    /// # Errors
    /// It says too much, or too many nodes have reported.
    pub fn take(&self, report: NodeReport, now: LogTime) -> Result<(), String> {
        if report.containers.len() > MAX_CONTAINERS {
            return Err(format!("a report of more than {MAX_CONTAINERS} containers"));
        }
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reports.retain(|_, (at, _)| now.0.saturating_sub(at.0) < FORGET_AFTER_NS);
        let key = (report.node.clone(), report.input);
        // A node that was taken out of service, of which all is here.
        if report.is_last && report.is_complete() {
            reports.remove(&key);
            return Ok(());
        }
        if reports.len() >= MAX_NODES && !reports.contains_key(&key) {
            return Err(format!("more than {MAX_NODES} nodes have reported"));
        }
        reports.insert(key, (now, report));
        Ok(())
    }

    /// What `GET /api/completeness` answers: each container of each node, and sums by namespace.
    pub fn show(&self, now: LogTime) -> Value {
        let reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_namespace: BTreeMap<&str, Sums> = BTreeMap::new();
        let mut all = Sums::default();
        let mut nodes = Vec::new();
        for (at, report) in reports.values() {
            let age = now.0.saturating_sub(at.0);
            for container in &report.containers {
                of_namespace.entry(&container.namespace).or_default().add(container);
                all.add(container);
            }
            let containers: Vec<Value> = report.containers.iter().map(show_container).collect();
            nodes.push(json!({
                "node": report.node,
                "input": report.input,
                "age_seconds": age as f64 / 1e9,
                "is_silent": age > SILENT_AFTER_NS && !report.is_last,
                "is_stopped": report.is_last,
                "started": LogTime(report.started_ns).to_rfc3339(),
                "spool_bytes": report.spool_bytes,
                "containers": containers,
                "journal": report.journal.as_ref().map(show_journal),
            }));
        }
        let namespaces: Vec<Value> = of_namespace
            .into_iter()
            .map(|(namespace, sums)| {
                let mut shown = sums.show();
                shown["namespace"] = Value::from(namespace);
                shown
            })
            .collect();
        json!({ "status": "success", "data": { "total": all.show(), "namespaces": namespaces, "nodes": nodes } })
    }
}

fn show_journal(journal: &JournalReport) -> Value {
    json!({
        "files": journal.files,
        "entries": journal.entries,
        "acknowledged": journal.acknowledged,
        "gap": journal.entries.saturating_sub(journal.acknowledged),
        "lost": journal.lost,
        "refused": journal.refused,
        "behind_seconds": journal.behind_seconds,
    })
}

fn show_container(container: &ContainerReport) -> Value {
    json!({
        "namespace": container.namespace,
        "pod": container.pod,
        "container": container.container,
        "files": container.files,
        "bytes": container.bytes,
        "acknowledged": container.acknowledged,
        "gap": container.bytes.saturating_sub(container.acknowledged),
        "lost": container.lost,
        "refused": container.refused,
        "behind_seconds": container.behind_seconds,
    })
}

#[derive(Debug, Default)]
struct Sums {
    bytes: u64,
    acknowledged: u64,
    lost: u64,
    refused: u64,
    behind_seconds: f64,
}

impl Sums {
    fn add(&mut self, container: &ContainerReport) {
        self.bytes = self.bytes.saturating_add(container.bytes);
        self.acknowledged = self.acknowledged.saturating_add(container.acknowledged);
        self.lost = self.lost.saturating_add(container.lost);
        self.refused = self.refused.saturating_add(container.refused);
        self.behind_seconds = self.behind_seconds.max(container.behind_seconds);
    }

    fn show(&self) -> Value {
        json!({
            "bytes": self.bytes,
            "acknowledged": self.acknowledged,
            "gap": self.bytes.saturating_sub(self.acknowledged),
            "lost": self.lost,
            "refused": self.refused,
            "behind_seconds": self.behind_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_each_node_is_summed() {
        let reports = Reports::default();
        let container = |container: &str, bytes, acknowledged| ContainerReport {
            namespace: "shop".into(),
            pod: "cart-0".into(),
            container: container.into(),
            files: 2,
            bytes,
            acknowledged,
            lost: 5,
            refused: 1,
            behind_seconds: 1.5,
        };
        let report = |node: &str, bytes| NodeReport {
            node: node.into(),
            containers: vec![container("app", bytes, 90), container("proxy", 10, 10)],
            journal: (node == "b").then(|| JournalReport {
                entries: 9,
                acknowledged: 7,
                ..JournalReport::default()
            }),
            ..NodeReport::default()
        };
        reports.take(report("a", 90), LogTime(0)).unwrap();
        reports.take(report("a", 100), LogTime(1_000_000_000)).unwrap();
        reports.take(report("b", 90), LogTime(62_000_000_000)).unwrap();
        let shown = reports.show(LogTime(63_000_000_000));
        let data = &shown["data"];
        assert_eq!(data["total"]["gap"], 10);
        assert_eq!(data["namespaces"][0]["bytes"], 100 + 10 + 90 + 10);
        assert_eq!(data["namespaces"][0]["lost"], 20);
        assert_eq!(data["total"]["refused"], 4);
        assert_eq!(
            (&data["nodes"][0]["is_silent"], &data["nodes"][1]["is_silent"]),
            (&true.into(), &false.into())
        );
        assert_eq!(data["nodes"][0]["containers"][0]["gap"], 10);
        assert_eq!(
            (&data["nodes"][0]["journal"], &data["nodes"][1]["journal"]["gap"]),
            (&Value::Null, &2.into())
        );
        reports.take(report("b", 1), LogTime(FORGET_AFTER_NS + 2_000_000_000)).unwrap();
        assert_eq!(reports.show(LogTime(0))["data"]["nodes"].as_array().unwrap().len(), 1);
        let many =
            NodeReport { containers: vec![container("x", 1, 1); MAX_CONTAINERS + 1], ..report("c", 1) };
        assert!(reports.take(many, LogTime(0)).is_err());
    }

    #[test]
    fn a_node_that_says_that_it_ends_is_not_silent() {
        let reports = Reports::default();
        let report = |node: &str, acknowledged| NodeReport {
            node: node.into(),
            is_last: true,
            containers: vec![ContainerReport { bytes: 9, acknowledged, ..ContainerReport::default() }],
            ..NodeReport::default()
        };
        for node in ["all", "part"] {
            let report = NodeReport { is_last: false, ..report(node, 0) };
            reports.take(report, LogTime(0)).unwrap();
        }
        reports.take(report("all", 9), LogTime(0)).unwrap();
        reports.take(report("part", 8), LogTime(0)).unwrap();
        let shown = reports.show(LogTime(600_000_000_000));
        let nodes = shown["data"]["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 1, "of the other one there is nothing to say");
        let [silent, stopped] = ["is_silent", "is_stopped"].map(|key| nodes[0][key].as_bool());
        assert_eq!((&nodes[0]["node"], silent, stopped), (&"part".into(), Some(false), Some(true)));
        assert_eq!(shown["data"]["total"]["gap"], 1);
    }
}
