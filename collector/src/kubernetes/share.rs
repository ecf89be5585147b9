//! Which targets of a cluster are scraped by which agent.
//!
//! ```text
//! it is on a node (a pod, its kubelet) ─► the agent of that node
//! it is at a loopback address          ─► each agent its own
//! everything else                      ─► one agent of the cluster: the one that was named, or holds the lease
//! ```
//!
//! Each agent decides for itself, by the labels of a target alone: nobody hands out work, so nothing is left undone while
//! somebody who would is away.

use std::net::IpAddr;
use std::sync::Arc;

use binnacle_model::Labels;
use tokio::sync::watch;

use crate::scrape::PageSource;

/// Each says on which node a target is; the first that is there counts.
const NODE_LABELS: [&str; 4] = [
    "__meta_kubernetes_pod_node_name",
    "__meta_kubernetes_endpointslice_endpoint_node_name",
    "__meta_kubernetes_endpoint_node_name",
    "__meta_kubernetes_node_name",
];

/// Which targets are this agent's.
#[derive(Debug, Clone)]
pub enum Share {
    /// All that it knows of.
    All,
    /// Its part of a cluster's.
    Part {
        /// What is on this node, if it is the agent of one.
        node: Option<Arc<str>>,
        /// Whether it has what is on no node, too; that may change.
        cluster: watch::Receiver<bool>,
    },
}

impl Share {
    /// The targets of a node, and those of no node as long as `cluster` holds.
    pub fn part(node: Option<&str>, cluster: watch::Receiver<bool>) -> Self {
        Self::Part { node: node.map(Arc::from), cluster }
    }

    /// Whether a target with these discovered labels is this agent's.
    pub(crate) fn takes(&self, discovered: &Labels, source: &PageSource) -> bool {
        let Self::Part { node, cluster } = self else { return true };
        let names = NODE_LABELS.iter().map(|label| discovered.value(label));
        if let Some(of) = names.into_iter().find(|name| !name.is_empty()) {
            return node.as_deref() == Some(of);
        }
        is_here(source) || *cluster.borrow()
    }

    /// The only node of which anything is to be known, if there is one; an empty name is none at all.
    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Part { node, .. } => Some(node.as_deref().unwrap_or_default()),
        }
    }

    /// Whether this agent has what is on no node.
    pub fn has_cluster(&self) -> bool {
        match self {
            Self::All => true,
            Self::Part { cluster, .. } => *cluster.borrow(),
        }
    }

    /// Waits until it has something else; for ever where that never happens.
    pub async fn changed(&mut self) {
        if let Self::Part { cluster, .. } = self
            && cluster.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Whether a page is on this machine.
fn is_here(source: &PageSource) -> bool {
    match source {
        PageSource::Local(..) => true,
        PageSource::Probe(_) => false,
        PageSource::Http(url) => {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_one_agents() {
        let (leads, leading) = watch::channel(false);
        let (_, never) = watch::channel(false);
        let agents = [
            Share::part(Some("a"), leading),
            Share::part(Some("b"), never),
            Share::part(None, watch::channel(true).1),
        ];
        let who = |label: &str, node: &str, url: &str| {
            let labels = Labels::default().with("__meta_kubernetes_namespace", "shop").with(label, node);
            let source = PageSource::Http(url.parse().unwrap());
            agents.iter().map(|agent| u8::from(agent.takes(&labels, &source))).collect::<Vec<_>>()
        };
        for label in NODE_LABELS {
            assert_eq!(who(label, "a", "http://10.0.0.1:80/metrics"), [1, 0, 0], "{label}");
            assert_eq!(who(label, "b", "http://127.0.0.1:80/metrics"), [0, 1, 0], "{label}");
            assert_eq!(who(label, "c", "http://10.0.0.1:80/metrics"), [0, 0, 0], "{label}");
        }
        for here in ["http://localhost:1/metrics", "http://127.0.0.9:1/metrics", "https://[::1]:1/metrics"] {
            assert_eq!(who("job", "x", here), [1, 1, 1], "{here}");
        }
        assert_eq!(who("job", "x", "http://db.example:1/metrics"), [0, 0, 1]);
        leads.send_replace(true);
        assert_eq!(who("job", "x", "http://db.example:1/metrics"), [1, 0, 1]);
        let source = PageSource::Http("http://db.example:1/".parse().unwrap());
        assert!(Share::All.takes(&Labels::default().with(NODE_LABELS[0], "c"), &source));
    }
}
