//! `kubernetes_sd_configs`: objects of a cluster as targets.
//!
//! Objects of the role and those that they refer to are watched. What changed within a moment becomes groups together: one for
//! each object, as Prometheus has them.

mod labels;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::yaml::null_is_default;
use futures_util::future::select_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use reqwest::Url;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Context, Discoverer, Discovery, Running, TargetGroup, Updates};
use crate::kubernetes::Access;
use crate::kubernetes::views::{EndpointSlice, Endpoints, Ingress, Namespace, Node, Pod, Service, View};
use crate::kubernetes::watch::{Key, Selection, Watch};
use binnacle_outgoing::{RawAuthorization, RawBasicAuth, RawHeader, RawTls, RawWay, Secret, way_of};
use labels::Neighbours;

/// Changes of a while become groups together.
const GATHER: Duration = Duration::from_secs(1);

/// A client that cannot be made is tried again after this.
const RETRY: Duration = Duration::from_secs(30);

/// Namespaces and selectors of one config at most; each is a watch.
const NAMESPACES_MAX: usize = 200;

/// Where a pod's service account says in which namespace it is.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// One of `kubernetes_sd_configs` as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawKubernetesSd {
    role: String,
    api_server: Option<String>,
    kubeconfig_file: Option<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    namespaces: RawNamespaces,
    #[serde(deserialize_with = "null_is_default")]
    selectors: Vec<RawSelector>,
    #[serde(deserialize_with = "null_is_default")]
    attach_metadata: RawAttach,
    follow_redirects: Option<IgnoredAny>,
    enable_http2: Option<IgnoredAny>,
    basic_auth: Option<RawBasicAuth>,
    authorization: Option<RawAuthorization>,
    bearer_token: Option<Secret>,
    bearer_token_file: Option<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    tls_config: RawTls,
    proxy_url: Option<Secret>,
    no_proxy: Option<String>,
    proxy_from_environment: bool,
    #[serde(deserialize_with = "null_is_default")]
    http_headers: BTreeMap<String, RawHeader>,
    oauth2: Option<IgnoredAny>,
    proxy_connect_header: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNamespaces {
    own_namespace: bool,
    #[serde(deserialize_with = "null_is_default")]
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSelector {
    role: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    field: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAttach {
    node: bool,
    namespace: bool,
}

/// Whose objects become targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
}

impl Role {
    const ALL: [(&'static str, Self); 6] = [
        ("node", Self::Node),
        ("pod", Self::Pod),
        ("service", Self::Service),
        ("endpoints", Self::Endpoints),
        ("endpointslice", Self::EndpointSlice),
        ("ingress", Self::Ingress),
    ];

    fn named(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, role)| *role).ok_or_else(|| format!("unknown Kubernetes SD role {name:?}"))
    }

    /// Roles whose objects are watched for it.
    fn needs(self) -> &'static [Self] {
        match self {
            Self::Node => &[Self::Node],
            Self::Pod => &[Self::Pod],
            Self::Service => &[Self::Service],
            Self::Endpoints => &[Self::Endpoints, Self::Service, Self::Pod],
            Self::EndpointSlice => &[Self::EndpointSlice, Self::Service, Self::Pod],
            Self::Ingress => &[Self::Ingress],
        }
    }
}

/// Objects of a cluster as targets.
#[derive(Debug, Clone)]
pub(crate) struct KubernetesDiscovery {
    pub(crate) access: Access,
    pub(crate) role: Role,
    /// None is all.
    pub(crate) namespaces: Vec<String>,
    /// Labels and fields that are asked for, by role.
    pub(crate) selectors: BTreeMap<Role, (String, String)>,
    attach: RawAttach,
}

impl RawKubernetesSd {
    /// Files are relative to `dir`.
    pub(crate) fn check(mut self, dir: &Path) -> Result<Arc<dyn Discovery>, String> {
        if self.role.is_empty() {
            return Err(
                "role missing (one of: pod, service, endpoints, endpointslice, node, ingress)".to_owned()
            );
        }
        let role = Role::named(&self.role)?;
        let mut selectors = BTreeMap::new();
        for raw in std::mem::take(&mut self.selectors) {
            let of = Role::named(&raw.role)?;
            if !role.needs().contains(&of) {
                return Err(format!("{} role supports only the selectors of {:?}", self.role, role.needs()));
            }
            if selectors.insert(of, (raw.label, raw.field)).is_some() {
                return Err(format!("duplicated selector role: {}", raw.role));
            }
        }
        let mut namespaces = std::mem::take(&mut self.namespaces.names);
        if self.namespaces.own_namespace {
            let own = std::fs::read_to_string(OWN_NAMESPACE).map_err(|error| {
                format!("own_namespace is only known within a pod: {OWN_NAMESPACE}: {error}")
            })?;
            namespaces.push(own.trim().to_owned());
        }
        if namespaces.len() > NAMESPACES_MAX {
            return Err(format!("more than {NAMESPACES_MAX} namespaces; leave them out to watch all"));
        }
        let access = self.access(dir)?;
        Ok(Arc::new(KubernetesDiscovery {
            access,
            role,
            namespaces,
            selectors,
            attach: self.attach_metadata,
        }))
    }

    /// Asks by `access`, unless it says how itself.
    pub(crate) fn ask(&mut self, access: &Access) {
        if let (Access::Kubeconfig(path), None, None) = (access, &self.api_server, &self.kubeconfig_file) {
            self.kubeconfig_file = Some(path.clone());
        }
    }

    fn access(&mut self, dir: &Path) -> Result<Access, String> {
        let way: RawWay = way_of!(self);
        if let Some(key) = way.unknown() {
            return Err(format!("{key} is not supported by this release"));
        }
        let way = way.check(&BTreeMap::new(), dir)?;
        match (&self.kubeconfig_file, &self.api_server) {
            (Some(_), Some(_)) => {
                Err("cannot use 'kubeconfig_file' and 'api_server' simultaneously".to_owned())
            }
            (Some(path), None) => Ok(Access::Kubeconfig(dir.join(path))),
            (None, None) => Ok(Access::InCluster),
            (None, Some(server)) => {
                let url =
                    Url::parse(server).map_err(|error| format!("api_server cannot be read: {error}"))?;
                // What is wrong with it must not show what is in it.
                let config = serde_json::from_value(way.kubeconfig(url.as_str())?);
                let config = config.map_err(|_| "the keys make no kubeconfig".to_owned())?;
                Ok(Access::Server(Arc::new(config)))
            }
        }
    }
}

impl Discovery for KubernetesDiscovery {
    fn discoverer(&self, context: &Context) -> Box<dyn Discoverer> {
        Box::new(Narrowed { of: self.clone(), context: context.clone() })
    }

    fn print(&self) -> Option<String> {
        // What is secret in the others is not shown, and would be equal.
        let is_shown = matches!(self.access, Access::InCluster | Access::Kubeconfig(_));
        is_shown.then(|| format!("{self:?}"))
    }
}

/// Discovery of what one agent has of a cluster.
#[derive(Debug)]
struct Narrowed {
    of: KubernetesDiscovery,
    context: Context,
}

impl Narrowed {
    /// Whether nothing that is found could be this agent's.
    fn is_idle(&self) -> bool {
        matches!(self.of.role, Role::Pod | Role::Node) && self.context.share.node() == Some("")
    }

    /// What is watched of a kind in a namespace: of pods and nodes, only what is on the agent's own node.
    fn selection<K: View>(&self, role: Option<Role>, namespace: Option<&String>) -> Selection {
        let (label, field) = role.and_then(|role| self.of.selectors.get(&role)).cloned().unwrap_or_default();
        let own = match (K::RESOURCE, self.context.share.node()) {
            ("pods", Some(node)) => format!("spec.nodeName={node}"),
            ("nodes", Some(node)) => format!("metadata.name={node}"),
            _ => String::new(),
        };
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let fields: Vec<String> = [field, own].into_iter().filter_map(given).collect();
        Selection { namespace: namespace.cloned(), labels: given(label), fields: given(fields.join(",")) }
    }
}

impl Discoverer for Narrowed {
    fn run(self: Box<Self>, found: Updates, stop: CancellationToken) -> Running {
        Box::pin(async move {
            if self.is_idle() {
                found.set(Vec::new());
                return;
            }
            let mut has_said = false;
            let client = loop {
                match self.of.access.client().await {
                    Ok(client) => break client,
                    Err(reason) => {
                        if !std::mem::replace(&mut has_said, true) {
                            tracing::warn!(
                                reason,
                                "targets of a cluster are not known; tried again every 30 s"
                            );
                        }
                        found.fail();
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = Cluster::new(&self, &client).run(&found) => {}
            }
        })
    }
}

/// The watches of one kind of objects: one for each namespace, or one.
struct Kind<K: View>(Vec<Watch<K>>);

impl<K: View> Kind<K> {
    fn new(narrowed: &Narrowed, client: &Client, role: Option<Role>, is_wanted: bool) -> Self {
        let (of, context) = (&narrowed.of, &narrowed.context);
        let telemetry = &context.kubernetes.watches;
        let watch =
            |namespace| Watch::new(client.clone(), &narrowed.selection::<K>(role, namespace), telemetry);
        // Nodes and namespaces are in none.
        let is_in_one = !matches!(K::RESOURCE, "nodes" | "namespaces");
        let is_elsewhere = matches!(K::RESOURCE, "pods" | "nodes") && context.share.node() == Some("");
        Self(match is_wanted && !is_elsewhere {
            false => Vec::new(),
            true if of.namespaces.is_empty() || !is_in_one => vec![watch(None)],
            true => of.namespaces.iter().map(|namespace| watch(Some(namespace))).collect(),
        })
    }

    async fn changed(&mut self) -> Vec<Key> {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let all = self.0.iter_mut().map(|watch| Box::pin(watch.changed()));
        select_all(all).await.0
    }

    fn is_complete(&self) -> bool {
        self.0.iter().all(|watch| watch.objects().is_complete())
    }

    fn get(&self, key: &str) -> Option<&K> {
        self.0.iter().find_map(|watch| watch.objects().get(key)).map(|object| &**object)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().flat_map(|watch| watch.objects().keys())
    }
}

/// What is watched for one config.
struct Cluster {
    role: Role,
    nodes: Kind<Node>,
    namespaces: Kind<Namespace>,
    pods: Kind<Pod>,
    services: Kind<Service>,
    endpoints: Kind<Endpoints>,
    slices: Kind<EndpointSlice>,
    ingresses: Kind<Ingress>,
}

/// Of which objects of the role the groups are to be made anew.
#[derive(Default)]
struct Changed {
    keys: BTreeSet<Key>,
    namespaces: BTreeSet<String>,
    all: bool,
}

impl Cluster {
    fn new(narrowed: &Narrowed, client: &Client) -> Self {
        let of = &narrowed.of;
        let needs = |role: Role| of.role.needs().contains(&role);
        Self {
            role: of.role,
            nodes: Kind::new(narrowed, client, Some(Role::Node), needs(Role::Node) || of.attach.node),
            namespaces: Kind::new(narrowed, client, None, of.attach.namespace),
            pods: Kind::new(narrowed, client, Some(Role::Pod), needs(Role::Pod)),
            services: Kind::new(narrowed, client, Some(Role::Service), needs(Role::Service)),
            endpoints: Kind::new(narrowed, client, Some(Role::Endpoints), needs(Role::Endpoints)),
            slices: Kind::new(narrowed, client, Some(Role::EndpointSlice), needs(Role::EndpointSlice)),
            ingresses: Kind::new(narrowed, client, Some(Role::Ingress), needs(Role::Ingress)),
        }
    }

    async fn run(mut self, found: &Updates) {
        let mut changed = Changed::default();
        let mut due = None;
        let mut is_complete = false;
        loop {
            let (role, keys) = tokio::select! {
                keys = self.nodes.changed() => (Role::Node, keys),
                keys = self.pods.changed() => (Role::Pod, keys),
                keys = self.services.changed() => (Role::Service, keys),
                keys = self.endpoints.changed() => (Role::Endpoints, keys),
                keys = self.slices.changed() => (Role::EndpointSlice, keys),
                keys = self.ingresses.changed() => (Role::Ingress, keys),
                keys = self.namespaces.changed() => {
                    changed.namespaces.extend(keys.iter().map(ToString::to_string));
                    (self.role, Vec::new())
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    found.set(self.groups(std::mem::take(&mut changed)));
                    continue;
                }
            };
            changed.note(self.role, role, keys);
            if !is_complete && self.is_complete() {
                is_complete = true;
                changed.all = true;
                due = Some(Instant::now());
            } else if is_complete && due.is_none() && !changed.is_empty() {
                due = Some(Instant::now() + GATHER);
            }
        }
    }

    fn is_complete(&self) -> bool {
        let beside = self.nodes.is_complete() && self.namespaces.is_complete() && self.services.is_complete();
        let own = self.endpoints.is_complete() && self.slices.is_complete() && self.ingresses.is_complete();
        beside && own && self.pods.is_complete()
    }

    fn groups(&self, changed: Changed) -> Vec<TargetGroup> {
        match self.role {
            Role::Node => groups("node", &self.nodes, changed, labels::of_node),
            Role::Pod => groups("pod", &self.pods, changed, |pod| labels::of_pod(pod, self)),
            Role::Service => {
                groups("svc", &self.services, changed, |service| labels::of_service(service, self))
            }
            Role::Endpoints => groups("endpoints", &self.endpoints, changed, |endpoints| {
                labels::of_endpoints(endpoints, self)
            }),
            Role::EndpointSlice => {
                groups("endpointslice", &self.slices, changed, |slice| labels::of_slice(slice, self))
            }
            Role::Ingress => {
                groups("ingress", &self.ingresses, changed, |ingress| labels::of_ingress(ingress, self))
            }
        }
    }
}

impl Changed {
    /// Objects of the role changed, or some that it refers to.
    fn note(&mut self, wanted: Role, role: Role, keys: Vec<Key>) {
        if role == wanted {
            self.keys.extend(keys);
        } else if role == Role::Node {
            // Pods and endpoints of all namespaces are on it.
            self.all |= !keys.is_empty();
        } else {
            let namespaces = keys.iter().filter_map(|key| key.split_once('/'));
            self.namespaces.extend(namespaces.map(|(namespace, _)| namespace.to_owned()));
        }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.namespaces.is_empty() && !self.all
    }
}

/// Groups of what changed; those of objects that are gone have no targets.
fn groups<K: View>(
    kind: &str,
    objects: &Kind<K>,
    changed: Changed,
    make: impl Fn(&K) -> TargetGroup,
) -> Vec<TargetGroup> {
    let Changed { mut keys, namespaces, all } = changed;
    let is_affected =
        |key: &&Key| all || key.split_once('/').is_some_and(|(namespace, _)| namespaces.contains(namespace));
    keys.extend(objects.keys().filter(is_affected).cloned());
    let gone = |key: &Key| TargetGroup { source: format!("{kind}/{key}"), ..TargetGroup::default() };
    keys.iter().map(|key| objects.get(key).map_or_else(|| gone(key), &make)).collect()
}

impl Neighbours for Cluster {
    fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(&format!("{namespace}/{name}"))
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&format!("{namespace}/{name}"))
    }

    fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    fn namespace(&self, name: &str) -> Option<&ObjectMeta> {
        self.namespaces.get(name).map(|namespace| &namespace.metadata)
    }
}
