//! Targets of objects, and the labels `__meta_kubernetes_…` that Prometheus gives them.
//!
//! Names and meanings follow its documentation of `kubernetes_sd_config`; a test compares with what Prometheus itself says of
//! the same cluster.

use binnacle_model::Labels;
use binnacle_model::log::loki_name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::{ADDRESS, TargetGroup};
use crate::kubernetes::views::{
    Container, ContainerPort, Endpoint, EndpointAddress, EndpointPort, EndpointSlice, Endpoints, Ingress,
    IngressRule, Node, ObjectReference, Pod, Service,
};
use crate::kubernetes::watch::key_of;

/// What objects refer to.
pub(super) trait Neighbours {
    /// A pod of a namespace.
    fn pod(&self, namespace: &str, name: &str) -> Option<&Pod>;
    /// A service of a namespace.
    fn service(&self, namespace: &str, name: &str) -> Option<&Service>;
    /// A node, if its labels are wanted.
    fn node(&self, name: &str) -> Option<&Node>;
    /// A namespace, if its labels are wanted.
    fn namespace(&self, name: &str) -> Option<&ObjectMeta>;
}

/// Names without `__meta_kubernetes_`, and values, in any order; the last one of a name counts, and empty ones are none.
#[derive(Debug, Clone, Default)]
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((format!("__meta_kubernetes_{name}"), value.into()));
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.set(name, if value { "true" } else { "false" });
    }

    fn address(&mut self, address: String) {
        self.0.push((ADDRESS.to_owned(), address));
    }

    fn extend(&mut self, others: Pairs) {
        self.0.extend(others.0);
    }

    /// Name, labels and annotations of an object of that role.
    fn object(&mut self, role: &str, meta: &ObjectMeta) {
        self.set(&format!("{role}_name"), meta.name.clone().unwrap_or_default());
        self.labels(role, meta);
    }

    fn labels(&mut self, role: &str, meta: &ObjectMeta) {
        for (kind, pairs) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
            for (name, value) in pairs.iter().flatten() {
                let name = loki_name(name);
                self.set(&format!("{role}_{kind}_{name}"), value);
                self.set(&format!("{role}_{kind}present_{name}"), "true");
            }
        }
    }

    fn labels_of(self) -> Labels {
        let mut all = self.0;
        // Stable: of one name the last one stays.
        all.reverse();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|next, first| next.0 == first.0);
        // No name is empty or twice.
        Labels::new(all).unwrap_or_default()
    }
}

fn group(kind: &str, key: &str, labels: Pairs, targets: Vec<Pairs>) -> TargetGroup {
    let targets = targets.into_iter().map(Pairs::labels_of).collect();
    TargetGroup { source: format!("{kind}/{key}"), labels: labels.labels_of(), targets }
}

fn namespace_of(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// The namespace, and its labels where they are wanted.
fn in_namespace(meta: &ObjectMeta, beside: &dyn Neighbours) -> Pairs {
    let mut pairs = Pairs::default();
    let name = namespace_of(meta);
    pairs.set("namespace", name);
    if let Some(namespace) = beside.namespace(name) {
        pairs.labels("namespace", namespace);
    }
    pairs
}

/// As Go joins them: an address of IPv6 stands in brackets.
fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The address of a node: the first kind that it has.
const ADDRESS_KINDS: [&str; 6] =
    ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

pub(super) fn of_node(node: &Node) -> TargetGroup {
    let (mut labels, mut target) = (Pairs::default(), Pairs::default());
    labels.object("node", &node.metadata);
    labels.set("node_provider_id", &node.spec.provider_id);
    let of_kind = |kind: &&str| node.status.addresses.iter().find(|one| one.kind == **kind);
    let Some(address) = ADDRESS_KINDS.iter().find_map(of_kind) else {
        return group("node", &key_of(node), labels, Vec::new());
    };
    let name = node.metadata.name.clone().unwrap_or_default();
    target.address(joined(&address.address, node.status.daemon_endpoints.kubelet_endpoint.port));
    target.0.push(("instance".to_owned(), name));
    // Of each kind the first one.
    for one in node.status.addresses.iter().rev() {
        target.set(&format!("node_address_{}", loki_name(&one.kind)), &one.address);
    }
    group("node", &key_of(node), labels, vec![target])
}

fn of_its_node(name: &str, beside: &dyn Neighbours) -> Pairs {
    let mut pairs = Pairs::default();
    if let Some(node) = beside.node(name) {
        pairs.object("node", &node.metadata);
    }
    pairs
}

fn pod_labels(pod: &Pod) -> Pairs {
    let mut pairs = Pairs::default();
    let ready = pod.status.conditions.iter().find(|condition| condition.kind == "Ready");
    pairs.set("pod_ip", &pod.status.pod_ip);
    pairs.set("pod_ready", ready.map_or("unknown".to_owned(), |ready| ready.status.to_lowercase()));
    pairs.set("pod_phase", &pod.status.phase);
    pairs.set("pod_node_name", &pod.spec.node_name);
    pairs.set("pod_host_ip", &pod.status.host_ip);
    pairs.set("pod_uid", pod.metadata.uid.clone().unwrap_or_default());
    pairs.object("pod", &pod.metadata);
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) {
        pairs.set("pod_controller_kind", &owner.kind);
        pairs.set("pod_controller_name", &owner.name);
    }
    pairs
}

pub(super) fn of_pod(pod: &Pod, beside: &dyn Neighbours) -> TargetGroup {
    let key = key_of(pod);
    // Nobody can reach it yet, or any more.
    if pod.status.pod_ip.is_empty() {
        return group("pod", &key, Pairs::default(), Vec::new());
    }
    let mut labels = pod_labels(pod);
    labels.extend(in_namespace(&pod.metadata, beside));
    labels.extend(of_its_node(&pod.spec.node_name, beside));
    let mut targets = Vec::new();
    let all = pod.spec.containers.iter().map(|one| (one, false));
    for (container, is_init) in all.chain(pod.spec.init_containers.iter().map(|one| (one, true))) {
        let statuses =
            if is_init { &pod.status.init_container_statuses } else { &pod.status.container_statuses };
        let status = statuses.iter().find(|status| status.name == container.name);
        let mut of_container = Pairs::default();
        of_container.set("pod_container_name", &container.name);
        of_container.set("pod_container_id", status.map_or("", |status| &status.container_id));
        of_container.set("pod_container_image", &container.image);
        of_container.flag("pod_container_init", is_init);
        if container.ports.is_empty() {
            of_container.address(pod.status.pod_ip.clone());
            targets.push(of_container);
            continue;
        }
        for port in &container.ports {
            let mut target = of_container.clone();
            target.address(joined(&pod.status.pod_ip, port.number));
            container_port(&mut target, port);
            targets.push(target);
        }
    }
    group("pod", &key, labels, targets)
}

fn container_port(target: &mut Pairs, port: &ContainerPort) {
    target.set("pod_container_port_number", port.number.to_string());
    target.set("pod_container_port_name", &port.name);
    target.set("pod_container_port_protocol", &port.protocol);
}

pub(super) fn of_service(service: &Service, beside: &dyn Neighbours) -> TargetGroup {
    let mut labels = in_namespace(&service.metadata, beside);
    labels.object("service", &service.metadata);
    let host = format!(
        "{}.{}.svc",
        service.metadata.name.as_deref().unwrap_or_default(),
        namespace_of(&service.metadata)
    );
    let target = |port: &crate::kubernetes::views::ServicePort| {
        let mut target = Pairs::default();
        target.address(joined(&host, port.port));
        target.set("service_port_name", &port.name);
        target.set("service_port_number", port.port.to_string());
        target.set("service_port_protocol", &port.protocol);
        target.set("service_type", &service.spec.kind);
        match service.spec.kind.as_str() {
            "ExternalName" => target.set("service_external_name", &service.spec.external_name),
            _ => target.set("service_cluster_ip", &service.spec.cluster_ip),
        }
        if service.spec.kind == "LoadBalancer" {
            target.set("service_loadbalancer_ip", &service.spec.load_balancer_ip);
        }
        target
    };
    group("svc", &key_of(service), labels, service.spec.ports.iter().map(target).collect())
}

fn service_labels(namespace: &str, name: &str, beside: &dyn Neighbours) -> Pairs {
    let mut pairs = Pairs::default();
    if let Some(service) = beside.service(namespace, name) {
        pairs.object("service", &service.metadata);
    }
    pairs
}

/// Pods that endpoints led to, with the ports that they name.
#[derive(Default)]
struct Seen<'p>(Vec<(&'p Pod, Vec<u16>)>);

impl<'p> Seen<'p> {
    /// The labels of the pod that an endpoint refers to, and of its container that has the port.
    fn pod(
        &mut self,
        reference: Option<&ObjectReference>,
        namespace: &str,
        port: Option<u16>,
        beside: &'p dyn Neighbours,
    ) -> Pairs {
        let reference = reference.filter(|reference| reference.kind == "Pod");
        let of = |reference: &ObjectReference| {
            let namespace = if reference.namespace.is_empty() { namespace } else { &reference.namespace };
            beside.pod(namespace, &reference.name)
        };
        let Some(pod) = reference.and_then(of) else { return Pairs::default() };
        let known = self.0.iter().position(|(known, _)| std::ptr::eq(*known, pod));
        let at = known.unwrap_or_else(|| {
            self.0.push((pod, Vec::new()));
            self.0.len() - 1
        });
        self.0[at].1.extend(port);
        let mut pairs = pod_labels(pod);
        let matching = ports_of(pod).find(|(_, known, _)| Some(known.number) == port);
        if let Some((container, port, is_init)) = matching {
            of_container_port(&mut pairs, container, port, is_init);
        }
        pairs
    }

    /// Targets for ports of these pods that no endpoint names.
    fn others(self) -> Vec<Pairs> {
        let mut targets = Vec::new();
        for (pod, ports) in self.0 {
            if pod.status.pod_ip.is_empty() {
                continue;
            }
            for (container, port, is_init) in
                ports_of(pod).filter(|(_, port, _)| !ports.contains(&port.number))
            {
                let mut target = pod_labels(pod);
                target.address(joined(&pod.status.pod_ip, port.number));
                of_container_port(&mut target, container, port, is_init);
                targets.push(target);
            }
        }
        targets
    }
}

fn ports_of(pod: &Pod) -> impl Iterator<Item = (&Container, &ContainerPort, bool)> {
    let containers = pod.spec.containers.iter().map(|one| (one, false));
    // Of those that run first, only the ones that go on running have ports for others.
    let sidecars = pod.spec.init_containers.iter().filter(|one| one.restart_policy == "Always");
    let all = containers.chain(sidecars.map(|one| (one, true)));
    all.flat_map(|(container, is_init)| container.ports.iter().map(move |port| (container, port, is_init)))
}

fn of_container_port(target: &mut Pairs, container: &Container, port: &ContainerPort, is_init: bool) {
    target.set("pod_container_name", &container.name);
    target.set("pod_container_image", &container.image);
    target.flag("pod_container_init", is_init);
    container_port(target, port);
}

pub(super) fn of_endpoints(endpoints: &Endpoints, beside: &dyn Neighbours) -> TargetGroup {
    let meta = &endpoints.metadata;
    let namespace = namespace_of(meta);
    let mut labels = in_namespace(meta, beside);
    labels.object("endpoints", meta);
    labels.extend(service_labels(namespace, meta.name.as_deref().unwrap_or_default(), beside));
    let (mut targets, mut seen) = (Vec::new(), Seen::default());
    let mut add = |address: &EndpointAddress, port: &EndpointPort, is_ready: bool| {
        let mut target = Pairs::default();
        let number = port.port.unwrap_or_default();
        target.extend(of_its_node(&address.node_name, beside));
        target.extend(seen.pod(address.target_ref.as_ref(), namespace, port.port, beside));
        target.address(joined(&address.ip, number));
        target.set("endpoint_port_name", &port.name);
        target.set("endpoint_port_protocol", &port.protocol);
        target.flag("endpoint_ready", is_ready);
        if let Some(reference) = &address.target_ref {
            target.set("endpoint_address_target_kind", &reference.kind);
            target.set("endpoint_address_target_name", &reference.name);
        }
        target.set("endpoint_node_name", &address.node_name);
        target.set("endpoint_hostname", &address.hostname);
        targets.push(target);
    };
    for subset in &endpoints.subsets {
        for port in &subset.ports {
            subset.addresses.iter().for_each(|address| add(address, port, true));
            subset.not_ready_addresses.iter().for_each(|address| add(address, port, false));
        }
    }
    targets.extend(seen.others());
    group("endpoints", &key_of(endpoints), labels, targets)
}

pub(super) fn of_slice(slice: &EndpointSlice, beside: &dyn Neighbours) -> TargetGroup {
    let meta = &slice.metadata;
    let namespace = namespace_of(meta);
    let mut labels = in_namespace(meta, beside);
    labels.object("endpointslice", meta);
    labels.set("endpointslice_address_type", &slice.address_type);
    let service = meta.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
    labels.extend(service_labels(namespace, service.map_or("", String::as_str), beside));
    let (mut targets, mut seen) = (Vec::new(), Seen::default());
    for port in &slice.ports {
        for endpoint in &slice.endpoints {
            for address in &endpoint.addresses {
                let mut target = of_its_node(&endpoint.node_name, beside);
                target.extend(seen.pod(endpoint.target_ref.as_ref(), namespace, port.port, beside));
                target.address(port.port.map_or_else(|| address.clone(), |port| joined(address, port)));
                slice_labels(&mut target, endpoint, port);
                targets.push(target);
            }
        }
    }
    targets.extend(seen.others());
    group("endpointslice", &key_of(slice), labels, targets)
}

fn slice_labels(target: &mut Pairs, endpoint: &Endpoint, port: &EndpointPort) {
    target.set("endpointslice_port_name", &port.name);
    target.set("endpointslice_port_protocol", &port.protocol);
    target.set("endpointslice_port", port.port.map(|port| port.to_string()).unwrap_or_default());
    target.set("endpointslice_port_app_protocol", &port.app_protocol);
    let conditions = [
        ("ready", endpoint.conditions.ready),
        ("serving", endpoint.conditions.serving),
        ("terminating", endpoint.conditions.terminating),
    ];
    for (name, value) in conditions {
        if let Some(value) = value {
            target.flag(&format!("endpointslice_endpoint_conditions_{name}"), value);
        }
    }
    target.set("endpointslice_endpoint_hostname", &endpoint.hostname);
    target.set("endpointslice_endpoint_node_name", &endpoint.node_name);
    target.set("endpointslice_endpoint_zone", &endpoint.zone);
    if let Some(reference) = &endpoint.target_ref {
        target.set("endpointslice_address_target_kind", &reference.kind);
        target.set("endpointslice_address_target_name", &reference.name);
    }
    for (name, value) in &endpoint.deprecated_topology {
        let name = loki_name(name);
        target.set(&format!("endpointslice_endpoint_topology_{name}"), value);
        target.set(&format!("endpointslice_endpoint_topology_present_{name}"), "true");
    }
}

pub(super) fn of_ingress(ingress: &Ingress, beside: &dyn Neighbours) -> TargetGroup {
    let mut labels = in_namespace(&ingress.metadata, beside);
    labels.object("ingress", &ingress.metadata);
    labels.set("ingress_class_name", &ingress.spec.ingress_class_name);
    let mut targets = Vec::new();
    for rule in &ingress.spec.rules {
        let hosts = ingress.spec.tls.iter().flat_map(|tls| &tls.hosts);
        let has_tls = hosts.into_iter().any(|pattern| covers(pattern, &rule.host));
        for path in paths_of(rule) {
            let mut target = Pairs::default();
            target.address(rule.host.clone());
            target.set("ingress_scheme", if has_tls { "https" } else { "http" });
            target.set("ingress_host", &rule.host);
            target.set("ingress_path", path);
            targets.push(target);
        }
    }
    group("ingress", &key_of(ingress), labels, targets)
}

fn paths_of(rule: &IngressRule) -> Vec<&str> {
    let paths = rule.http.iter().flat_map(|http| &http.paths);
    let paths: Vec<&str> = paths.map(|one| if one.path.is_empty() { "/" } else { &one.path }).collect();
    if paths.is_empty() { vec!["/"] } else { paths }
}

/// Whether a host of a certificate, in which `*` stands for one label, is the host of a rule.
fn covers(pattern: &str, host: &str) -> bool {
    if pattern == host {
        return true;
    }
    let (pattern, host): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    let is_same = |(at, (one, other)): (usize, (&&str, &&str))| one == other || (at == 0 && *one == "*");
    pattern.first() == Some(&"*")
        && pattern.len() == host.len()
        && pattern.iter().zip(&host).enumerate().all(is_same)
}
