//! The seam for what Kubernetes says of pods.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::AppendError;
use crate::labels::Labels;
use crate::time::LogTime;

/// The label of a log stream that names the pod: the identity in the path of its files.
pub const POD_UID: &str = "pod_uid";

/// Begins the names of the pod's own labels, in which all but letters, digits and `_` is `_`: as kube-state-metrics has
/// them in `kube_pod_labels`.
pub const POD_LABEL_PREFIX: &str = "label_";

/// Names of a pod's metadata besides its own labels.
///
/// `app` and `service` are guessed from a pod's name where nothing else is known; what is said here goes before that.
pub const POD_FIELDS: [&str; 9] =
    ["app", "owner", "region", "runbook", "service", "team", "workload", "workload_kind", "zone"];

/// Labels of one pod at most, and bytes of one of their values and names.
const LABELS_MAX: usize = 128;
const TEXT_MAX_BYTES: usize = 4096;

/// Whether a name may be one of pods' metadata.
pub fn is_pod_name(name: &str) -> bool {
    POD_FIELDS.contains(&name) || name.starts_with(POD_LABEL_PREFIX)
}

/// Whether a pod may have this identity. Queries join them to a regular expression: no character may mean anything there.
pub fn is_pod_uid(uid: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=128).contains(&uid.len()) && uid.bytes().all(is_plain)
}

/// What is known of a pod beside the names that its log files carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodMetadata {
    /// The value of [`POD_UID`] of its streams.
    pub uid: String,
    /// [`POD_FIELDS`], and its labels behind [`POD_LABEL_PREFIX`].
    #[serde(with = "as_map")]
    pub labels: Labels,
}

impl PodMetadata {
    /// # Errors
    /// A sentence about what is too long, or has a name that nobody gave it.
    pub fn check(&self) -> Result<(), String> {
        if !is_pod_uid(&self.uid) {
            return Err(format!(
                "{:?} is no identity of a pod",
                self.uid.chars().take(200).collect::<String>()
            ));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(format!("pod {}: more than {LABELS_MAX} labels", self.uid));
        }
        for label in &self.labels {
            if label.name.len() > TEXT_MAX_BYTES || label.value.len() > TEXT_MAX_BYTES {
                return Err(format!("pod {}: a label has more than {TEXT_MAX_BYTES} bytes", self.uid));
            }
            if !is_pod_name(&label.name) {
                return Err(format!("pod {}: {:?} is no name of pods' metadata", self.uid, label.name));
            }
        }
        Ok(())
    }
}

mod as_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::labels::Labels;

    pub(super) fn serialize<S: Serializer>(labels: &Labels, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(labels.iter().map(|label| (&*label.name, &*label.value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(from)?;
        Labels::new(map).map_err(de::Error::custom)
    }
}

/// Where metadata of pods goes.
pub trait PodSink: Send + Sync {
    /// Keeps what is known of some pods, in place of what was known of them. Blocks.
    fn save_pods(&self, pods: &[PodMetadata]) -> Result<(), AppendError>;
}

/// The name that a pod's own label has among its metadata.
pub fn pod_label(name: &str) -> String {
    format!("{POD_LABEL_PREFIX}{}", crate::log::loki_name(name))
}

/// A stream's labels with what is known of its pod, which goes before what the stream says itself.
pub fn extended(stream: &Labels, known: &Labels) -> Labels {
    let own = stream.iter().filter(|label| known.get(&label.name).is_none());
    Labels::from_vec(own.chain(known).cloned().collect()).unwrap_or_else(|_| stream.clone())
}

/// Pods of which the same is known, and whose lines say the same of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodGroup {
    /// What is known of them.
    pub known: Labels,
    /// What their lines say under names of metadata, all the same; `None` if they may say anything.
    pub own: Option<Labels>,
    /// Their identities.
    pub pods: Vec<Arc<str>>,
}

/// What is known of all pods whose lines may be stored.
pub trait PodCatalog: Send + Sync {
    /// Another number once something is known that was not before.
    fn generation(&self) -> u64;

    /// What is known of a pod.
    fn pod(&self, uid: &str) -> Option<Labels>;

    /// The pods of which something is known and that may have lines from `start` until before `end`: a copy, so that whoever
    /// looks at it holds up nobody.
    fn pods_between(&self, start: LogTime, end: LogTime) -> Vec<PodGroup>;
}

/// Says what is known of pods, where a store groups entries by it.
#[derive(Clone)]
pub struct PodNames(pub Arc<dyn PodCatalog>);

impl PodNames {
    /// A stream's labels with what is known of its pod, if anything is.
    pub fn extended(&self, stream: &Labels) -> Option<Labels> {
        Some(extended(stream, &self.0.pod(stream.get(POD_UID)?)?))
    }
}

impl std::fmt::Debug for PodNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PodNames")
    }
}

impl PartialEq for PodNames {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PodNames {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_may_say_of_a_pod_is_refused() {
        let read = |text: &str| -> Result<PodMetadata, String> {
            let pod: PodMetadata = serde_json::from_str(text).map_err(|error| error.to_string())?;
            pod.check().map(|()| pod)
        };
        let pod = read(r#"{"uid":"a-1","labels":{"team":"pay","label_x_y":"z","zone":""}}"#).unwrap();
        assert_eq!(pod.labels.to_string(), r#"{label_x_y="z", team="pay"}"#);
        assert_eq!(read(&serde_json::to_string(&pod).unwrap()), Ok(pod));
        let long = format!(r#"{{"uid":"a","labels":{{"team":"{}"}}}}"#, "x".repeat(5000));
        for wrong in [
            r#"{"uid":"","labels":{}}"#,
            r#"{"uid":".*","labels":{}}"#,
            r#"{"uid":"a(b","labels":{}}"#,
            r#"{"uid":"a","labels":{"namespace":"other"}}"#,
            r#"{"uid":"a"}"#,
            &long,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
