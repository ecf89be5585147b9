//! `kubernetes`: what is read from the API of a cluster.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use binnacle_collector::kubernetes::Access;
use binnacle_collector::monitors::{MonitorOptions, RawMonitors};
use binnacle_collector::scrape::{Global, preset};
use binnacle_collector::tail::edge::Redactor;
use binnacle_model::yaml::null_is_default;
use serde::Deserialize;

use super::Config;
use super::scrapes::{hash, take};
use super::tails::{RawRedaction, redactor};

/// Its name where the file says none.
const LEASE: &str = "binnacle";

/// The section as the operator wrote it. That it is there switches it on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKubernetes {
    /// A file as `kubectl` has it. Default: the service account of the pod.
    kubeconfig: Option<PathBuf>,
    /// Presets of what is scraped.
    #[serde(deserialize_with = "null_is_default")]
    scrape: Vec<String>,
    /// Whether events become log entries, and what is taken out of them. Default: they do.
    events: Option<RawEvents>,
    /// Which targets of the cluster are scraped here: `all`, those of this `node`, those of the `cluster` that are on no node, or
    /// the node's and, while it holds the lease, the cluster's: `elect`. Default: `elect` for `collect`, otherwise `all`.
    share: Option<String>,
    /// `NAME` or `NAMESPACE/NAME` of the lease. Default: `binnacle` where the agent's own pod is.
    lease: Option<String>,
    /// The name under which Kubernetes knows this node. Default: `store.node`, `NODE_NAME` in the environment, or the host's name.
    node: Option<String>,
    /// Whether ServiceMonitors, PodMonitors and Probes are read, and which. Default: `false`.
    monitors: Option<RawMonitors>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawEvents {
    Switch(bool),
    Rules(RawEventRules),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEventRules {
    #[serde(default)]
    redact: Vec<RawRedaction>,
}

/// What an agent has of a cluster's targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShareMode {
    All,
    Node,
    Cluster,
    Elect,
}

impl ShareMode {
    const NAMES: [(&'static str, Self); 4] =
        [("all", Self::All), ("node", Self::Node), ("cluster", Self::Cluster), ("elect", Self::Elect)];
}

/// What is read from the API of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct KubernetesConfig {
    pub(crate) access: Access,
    pub(crate) node: Option<String>,
    /// What is taken out of events; `None` reads none.
    pub(crate) events: Option<Arc<Redactor>>,
    pub(crate) share: Option<ShareMode>,
    /// Namespace, or an empty text, and name.
    pub(crate) lease: (String, String),
    pub(crate) monitors: Option<MonitorOptions>,
}

/// Adds what the section says, and the scrape configs of its presets.
pub(super) fn read_kubernetes(
    file: &str,
    dir: &Path,
    raw: Option<RawKubernetes>,
    global: &Global,
    config: &mut Config,
) -> anyhow::Result<()> {
    let Some(mut raw) = raw else { return Ok(()) };
    let presets: BTreeSet<String> = std::mem::take(&mut raw.scrape).into_iter().collect();
    let checked = raw.check(file, dir)?;
    // Presets have copies of the credentials in it.
    let kubeconfig = match &checked.access {
        Access::Kubeconfig(path) if !presets.is_empty() => std::fs::read(path).unwrap_or_default(),
        _ => Vec::new(),
    };
    for name in &presets {
        let told = |reason: String| anyhow::anyhow!("{file}: kubernetes.scrape: {reason}");
        for scrape in preset(name, &checked.access).map_err(told)? {
            let job = scrape.job_name.clone();
            if config.pools.iter().any(|pool| pool.job == job) {
                return Err(told(format!("a scrape config is named {job:?} already; give it another name")));
            }
            let print = hash(&(&job, format!("{global:?}{:?}", checked.access), &kubeconfig));
            take(file, scrape.check(global, dir, print).map_err(told)?, config);
        }
    }
    config.kubernetes = Some(checked);
    Ok(())
}

impl RawKubernetes {
    /// Paths are relative to `dir`.
    pub(super) fn check(self, file: &str, dir: &Path) -> anyhow::Result<KubernetesConfig> {
        let is_name = |name: &String| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        };
        if let Some(node) = self.node.as_ref().filter(|node| !is_name(node)) {
            bail!("{file}: kubernetes.node: {node:?} is no name of a node; `kubectl get nodes` lists them");
        }
        let access = self.kubeconfig.map_or(Access::InCluster, |path| Access::Kubeconfig(dir.join(path)));
        let events = match self.events {
            None | Some(RawEvents::Switch(true)) => Some(Arc::default()),
            Some(RawEvents::Switch(false)) => None,
            Some(RawEvents::Rules(rules)) => {
                Some(Arc::new(redactor(rules.redact, &format!("{file}: kubernetes.events"))?))
            }
        };
        let mode = |word: String| {
            let known = ShareMode::NAMES.iter().find(|(name, _)| *name == word).map(|(_, mode)| *mode);
            known.with_context(|| {
                format!("{file}: kubernetes.share: {word:?} is none of all, node, cluster, elect")
            })
        };
        let share = self.share.map(mode).transpose()?;
        let lease = self.lease.unwrap_or_else(|| LEASE.to_owned());
        let (namespace, name) = lease.split_once('/').unwrap_or(("", &lease));
        let is_whole = !lease.starts_with('/') && is_name(&name.to_owned());
        if !is_whole || !(namespace.is_empty() || is_name(&namespace.to_owned())) {
            bail!("{file}: kubernetes.lease: {lease:?} is no name; write NAME or NAMESPACE/NAME");
        }
        let lease = (namespace.to_owned(), name.to_owned());
        let monitors = self.monitors.map(RawMonitors::check).transpose();
        let monitors = monitors.map_err(|reason| anyhow::anyhow!("{file}: {reason}"))?.flatten();
        Ok(KubernetesConfig { access, node: self.node, events, share, lease, monitors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_name() {
        let check = |yaml: &str| {
            let raw: RawKubernetes = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
            raw.check("c.yml", Path::new("/etc/b")).map_err(|error| error.to_string())
        };
        let config = check("{kubeconfig: kube.yml, node: n-1.example}").unwrap();
        assert!(matches!(config.access, Access::Kubeconfig(path) if path == Path::new("/etc/b/kube.yml")));
        assert!(matches!(check("{}").unwrap().access, Access::InCluster));
        assert!(check("{node: 'a b'}").unwrap_err().contains("c.yml: kubernetes.node: \"a b\""));
        assert!(check("{nodes: a}").unwrap_err().contains("nodes"));
        assert!(check("{}").unwrap().events.is_some() && check("{events: false}").unwrap().events.is_none());
        assert!(check("{events: {redact: [keys]}}").unwrap().events.is_some());
        assert!(check("{events: {redact: [kees]}}").unwrap_err().contains("c.yml: kubernetes.events"));
        assert_eq!(check("{share: elect}").unwrap().share, Some(ShareMode::Elect));
        assert!(check("{share: some}").unwrap_err().contains("kubernetes.share: \"some\" is none of all"));
        let lease = |text: &str| check(&format!("{{lease: {text}}}")).map(|config| config.lease);
        assert_eq!(lease("a/b"), Ok(("a".to_owned(), "b".to_owned())));
        assert_eq!(lease("b"), Ok((String::new(), "b".to_owned())));
        for wrong in ["/b", "a/", "a/b/c", "''"] {
            assert!(lease(wrong).unwrap_err().contains("kubernetes.lease"), "{wrong}");
        }
        assert!(check("{monitors: false}").unwrap().monitors.is_none());
        assert!(check("{monitors: {kinds: [pod]}}").unwrap().monitors.is_some());
        let error = check("{monitors: {kinds: [pods]}}").unwrap_err();
        assert!(error.starts_with("c.yml: kubernetes.monitors.kinds[0]: \"pods\""), "{error}");
    }

    #[test]
    fn presets_become_scrape_configs() {
        let parse = |yaml: &str| {
            super::super::parse("c.yml", yaml, Path::new("/etc/b")).map_err(|error| error.to_string())
        };
        let config = parse("kubernetes: {scrape: [kubelet, annotations, kubelet]}").unwrap();
        let jobs: Vec<&str> = config.pools.iter().map(|pool| pool.job.as_str()).collect();
        assert_eq!(
            jobs,
            [
                "kubernetes/pods",
                "kubernetes/service-endpoints",
                "kubernetes/kubelet",
                "kubernetes/kubelet/probes"
            ]
        );
        assert!(config.warnings.is_empty());
        let error = parse("kubernetes: {scrape: [kublet]}").unwrap_err();
        assert!(
            error.contains("c.yml: kubernetes.scrape: \"kublet\" is no preset; there are kubelet,"),
            "{error}"
        );
        let outside = |preset: &str| {
            parse(&format!("kubernetes: {{kubeconfig: /nowhere/kube.yml, scrape: [{preset}]}}"))
        };
        let error = outside("kubelet").unwrap_err();
        assert!(
            error.contains("c.yml: kubernetes.scrape: preset kubelet: /nowhere/kube.yml: "),
            "it has no credentials: {error}"
        );
        assert!(outside("coredns").is_ok(), "it needs none");
        let twice = "scrape_configs: [{job_name: kubernetes/etcd}]\nkubernetes: {scrape: [etcd]}";
        assert!(parse(twice).unwrap_err().contains("named \"kubernetes/etcd\" already"));
    }
}
