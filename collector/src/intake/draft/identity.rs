//! Who wrote a line, under the names by which senders say it.

use binnacle_model::push::Pair;

use crate::tail::app_of;

/// Longest value of a label; names of Kubernetes have 253 bytes at most. A longer one is an attribute.
const MAX_VALUE_BYTES: usize = 1024;

/// What Loki and OpenTelemetry call a service of which nothing is known.
pub(in super::super) const UNKNOWN_SERVICE: &str = "unknown_service";

/// Labels of a stream, in the order of [`Identity`]'s values.
const LABELS: [&str; 7] = ["namespace", "pod", "container", "node", "app", "service", "iostream"];

const NAMESPACE: usize = 0;
const POD: usize = 1;
const CONTAINER: usize = 2;
const NODE: usize = 3;
const APP: usize = 4;
const SERVICE: usize = 5;
const IOSTREAM: usize = 6;

/// A sender's name for a label. Of several, the one that comes first here wins.
struct Name {
    said: &'static str,
    label: usize,
    /// It says more than the label does, and is an attribute, too.
    stays: bool,
}

const fn only(said: &'static str, label: usize) -> Name {
    Name { said, label, stays: false }
}

const fn also(said: &'static str, label: usize) -> Name {
    Name { said, label, stays: true }
}

/// OpenTelemetry's.
const SEMANTIC: [Name; 12] = [
    only("k8s.namespace.name", NAMESPACE),
    only("k8s.pod.name", POD),
    only("k8s.container.name", CONTAINER),
    only("k8s.node.name", NODE),
    only("host.name", NODE),
    also("k8s.deployment.name", APP),
    also("k8s.statefulset.name", APP),
    also("k8s.daemonset.name", APP),
    also("k8s.cronjob.name", APP),
    only("service.name", SERVICE),
    only("log.iostream", IOSTREAM),
    also("container.name", CONTAINER),
];

/// Those of Filebeat, Fluent Bit, Vector, Logstash and rsyslog, and the labels' own.
const SHIPPERS: [Name; 29] = [
    only("kubernetes.namespace", NAMESPACE),
    only("kubernetes.namespace_name", NAMESPACE),
    only("kubernetes.pod_namespace", NAMESPACE),
    only("namespace", NAMESPACE),
    only("kubernetes.pod.name", POD),
    only("kubernetes.pod_name", POD),
    only("pod", POD),
    only("kubernetes.container.name", CONTAINER),
    only("kubernetes.container_name", CONTAINER),
    only("container", CONTAINER),
    only("kubernetes.node.name", NODE),
    only("kubernetes.pod_node_name", NODE),
    only("kubernetes.host", NODE),
    only("node", NODE),
    only("hostname", NODE),
    only("host", NODE),
    only("fromhost", NODE),
    also("kubernetes.deployment.name", APP),
    also("kubernetes.statefulset.name", APP),
    also("kubernetes.daemonset.name", APP),
    also("kubernetes.labels.app_kubernetes_io/name", APP),
    also("kubernetes.labels.app.kubernetes.io/name", APP),
    also("kubernetes.labels.app", APP),
    only("app", APP),
    only("service_name", SERVICE),
    only("service", SERVICE),
    only("iostream", IOSTREAM),
    only("stream", IOSTREAM),
    also("programname", SERVICE),
];

/// Which names a door knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Names {
    /// OpenTelemetry's alone: among attributes of a record the others are what its program means by them.
    Semantic,
    /// All.
    Any,
}

/// The label that a name means, its rank, and whether it stays an attribute.
pub(super) fn known(names: Names, name: &str) -> Option<(usize, u8, bool)> {
    let others = if names == Names::Any { &SHIPPERS[..] } else { &[] };
    let found = SEMANTIC.iter().chain(others).zip(0u8..).find(|(one, _)| one.said == name);
    found.map(|(one, rank)| (one.label, rank, one.stays))
}

fn is_label(value: &str) -> bool {
    !value.is_empty() && value.len() <= MAX_VALUE_BYTES
}

/// Labels of a stream in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(in super::super) struct Identity {
    values: [Option<Box<str>>; LABELS.len()],
    /// By which name each was found; less is better.
    ranks: [u8; LABELS.len()],
    /// Labels that the sender has chosen, sorted.
    chosen: Vec<(String, String)>,
}

impl Identity {
    /// Offers what `name` says. Once all was offered, [`Self::holds`] tells what need not be an attribute.
    pub(in super::super) fn offer(&mut self, names: Names, name: &str, value: &str) {
        let Some((label, rank, _)) = known(names, name) else { return };
        let is_one = label != IOSTREAM || matches!(value, "stdout" | "stderr");
        let is_better = self.values[label].is_none() || rank < self.ranks[label];
        if is_label(value) && is_one && is_better {
            (self.values[label], self.ranks[label]) = (Some(value.into()), rank);
        }
    }

    /// Whether a label says all that `name` does.
    pub(in super::super) fn holds(&self, names: Names, name: &str, value: &str) -> bool {
        let label = known(names, name).filter(|(_, _, stays)| !stays).map(|(label, ..)| label);
        label.is_some_and(|label| self.values[label].as_deref() == Some(value))
            || self.chosen.iter().any(|(key, chosen)| key == name && chosen == value)
    }

    /// Sets a label as a request wishes, whatever was offered.
    pub(in super::super) fn choose(&mut self, name: &str, value: &str) {
        if !is_label(value) {
            return;
        }
        if let Some((label, ..)) = known(Names::Any, name) {
            (self.values[label], self.ranks[label]) = (Some(value.into()), 0);
            return;
        }
        let at = self.chosen.partition_point(|(key, _)| key.as_str() < name);
        self.chosen.insert(at, (name.to_owned(), value.to_owned()));
        self.chosen.dedup_by(|a, b| a.0 == b.0);
    }

    /// What is kept with the line instead of with its stream.
    pub(super) fn take_iostream(&mut self) -> String {
        // How a stream's labels were found does not tell it from another.
        self.ranks = [0; LABELS.len()];
        self.values[IOSTREAM].take().map(String::from).unwrap_or_default()
    }

    /// The labels, sorted. The app is what owns the pod, and the service what the sender says, or the app.
    pub(super) fn labels(&self) -> Vec<Pair> {
        let value = |label: usize| self.values[label].as_deref();
        let service = value(SERVICE);
        let known = service.filter(|name| !name.starts_with(UNKNOWN_SERVICE));
        let app = value(APP).or_else(|| value(POD).map(app_of)).or(known);
        let service = known.or(app).or(service).or(value(CONTAINER)).unwrap_or(UNKNOWN_SERVICE);
        let pair = |name: &str, value: &str| Pair { name: name.to_owned(), value: value.to_owned() };
        let of = |label: usize| value(label).map(|value| pair(LABELS[label], value));
        let mut labels: Vec<Pair> = [NAMESPACE, POD, CONTAINER, NODE].into_iter().filter_map(of).collect();
        labels.extend(app.map(|app| pair("app", app)));
        labels.push(pair("service", service));
        labels.extend(self.chosen.iter().map(|(name, value)| pair(name, value)));
        labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        labels
    }
}
