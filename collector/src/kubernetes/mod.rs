//! Kubernetes: what its API says of this node's pods, and what there is to scrape.
//!
//! ```text
//! views   the fields that are read of each kind of object
//! watch   all objects of a kind, kept up to date ─► node    pods of this node ─┬─► facts ─► PodSink: what is known of each
//!                                                   owners  whose they are     └─► PodRules: what their annotations say
//! events  what happens in the cluster, as log entries
//! share   whose a target is, of many agents                lease   which of them has what is on no node
//! ```
//!
//! Nothing here is waited for: lines and samples go their way while the API is away, and what is known of a pod is told when
//! it is known. One agent per node asks for its own pods only; namespaces and the node itself are small.

mod events;
mod facts;
mod lease;
mod node;
mod owners;
mod share;
pub(crate) mod telemetry;
pub(crate) mod views;
pub(crate) mod watch;

#[cfg(test)]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "tests of the whole program play with it, too"
)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

pub use events::EventWatch;
pub use lease::{Election, Timing};
pub use node::NodeWatch;
pub use share::Share;
pub use telemetry::KubernetesTelemetry;

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Without a byte. The API says once a minute that a watch is alive; a machine that died says nothing at all.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// How the API is reached.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// By the service account of the pod that this runs in.
    #[default]
    InCluster,
    /// By a file as `kubectl` has it, in its current context.
    Kubeconfig(PathBuf),
    /// As a configuration says it.
    Server(Arc<Kubeconfig>),
}

impl Access {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub async fn client(&self) -> Result<kube::Client, String> {
        let mut config = match self {
            Self::InCluster => kube::Config::incluster().map_err(|error| {
                format!(
                    "no service account is here ({}); outside of a cluster, say `kubernetes.kubeconfig`",
                    chain_of(&error)
                )
            })?,
            Self::Kubeconfig(path) => of_file(path).await?,
            Self::Server(config) => {
                let (config, options) = (Kubeconfig::clone(config), KubeConfigOptions::default());
                let config = kube::Config::from_custom_kubeconfig(config, &options);
                config.await.map_err(|error| chain_of(&error))?
            }
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        kube::Client::try_from(config).map_err(|error| chain_of(&error))
    }
}

async fn of_file(path: &Path) -> Result<kube::Config, String> {
    let read =
        Kubeconfig::read_from(path).map_err(|error| format!("{}: {}", path.display(), chain_of(&error)))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    config.map_err(|error| format!("{}: {}", path.display(), chain_of(&error)))
}

/// An error with its causes.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let reason = one.to_string();
        // Some say it again.
        if !text.ends_with(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = one.source();
    }
    text
}
