//! `kubernetes`: what is read from the API of a cluster.

use std::path::{Path, PathBuf};

use anyhow::bail;
use binnacle_collector::kubernetes::Access;
use serde::Deserialize;

/// The section as the operator wrote it. That it is there switches it on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKubernetes {
    /// A file as `kubectl` has it. Default: the service account of the pod.
    kubeconfig: Option<PathBuf>,
    /// The name under which Kubernetes knows this node. Default: `store.node`, `NODE_NAME` in the environment, or the host's name.
    node: Option<String>,
}

/// What is read from the API of a cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct KubernetesConfig {
    pub(crate) access: Access,
    pub(crate) node: Option<String>,
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
        Ok(KubernetesConfig { access, node: self.node })
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
    }
}
