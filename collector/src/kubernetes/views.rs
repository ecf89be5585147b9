//! What is read of the API's objects: the fields that labels are made of. All others are passed over while an answer is
//! decoded, so that a cluster's pods take little room.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use binnacle_model::yaml::null_is_default;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// An object of which something is read.
pub(crate) trait View:
    Resource<DynamicType = (), Scope = DynamicResourceScope>
    + Clone
    + DeserializeOwned
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// As requests and messages name it.
    const RESOURCE: &'static str;
}

macro_rules! view {
    ($view:ident, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl View for $view {
            const RESOURCE: &'static str = $plural;
        }

        impl Resource for $view {
            type DynamicType = ();
            type Scope = DynamicResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use view;

/// A type of the API of which fields are read; lists and maps may be `null`, as Go writes those that are empty.
macro_rules! fields {
    ($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub(crate) struct $name {
            $(
                $(#[$attribute])*
                #[serde(deserialize_with = "null_is_default")]
                pub(crate) $field: $type,
            )*
        }
    };
}
pub(crate) use fields;

fields! { Pod { metadata: ObjectMeta, spec: PodSpec, status: PodStatus, } }
view!(Pod, "", "v1", "Pod", "pods");

fields! { PodSpec { node_name: String, containers: Vec<Container>, init_containers: Vec<Container>, } }

fields! { Container { name: String, image: String, ports: Vec<ContainerPort>, restart_policy: String, } }

fields! { ContainerPort { name: String, #[serde(rename = "containerPort")] number: u16, protocol: String, } }

fields! {
    PodStatus {
        phase: String,
        #[serde(rename = "podIP")]
        pod_ip: String,
        #[serde(rename = "hostIP")]
        host_ip: String,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
    }
}

fields! { Condition { #[serde(rename = "type")] kind: String, status: String, } }

fields! { ContainerStatus { name: String, #[serde(rename = "containerID")] container_id: String, } }

fields! { Namespace { metadata: ObjectMeta, } }
view!(Namespace, "", "v1", "Namespace", "namespaces");

fields! { Node { metadata: ObjectMeta, spec: NodeSpec, status: NodeStatus, } }
view!(Node, "", "v1", "Node", "nodes");

fields! { NodeSpec { #[serde(rename = "providerID")] provider_id: String, } }

fields! { NodeStatus { addresses: Vec<NodeAddress>, daemon_endpoints: DaemonEndpoints, } }

fields! { NodeAddress { #[serde(rename = "type")] kind: String, address: String, } }

fields! { DaemonEndpoints { kubelet_endpoint: DaemonEndpoint, } }

fields! { DaemonEndpoint { #[serde(rename = "Port")] port: u16, } }

fields! { Service { metadata: ObjectMeta, spec: ServiceSpec, } }
view!(Service, "", "v1", "Service", "services");

fields! {
    ServiceSpec {
        #[serde(rename = "type")]
        kind: String,
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        external_name: String,
        #[serde(rename = "loadBalancerIP")]
        load_balancer_ip: String,
        ports: Vec<ServicePort>,
    }
}

fields! { ServicePort { name: String, port: u16, protocol: String, } }

fields! { Endpoints { metadata: ObjectMeta, subsets: Vec<Subset>, } }
view!(Endpoints, "", "v1", "Endpoints", "endpoints");

fields! {
    Subset { addresses: Vec<EndpointAddress>, not_ready_addresses: Vec<EndpointAddress>, ports: Vec<EndpointPort>, }
}

fields! {
    EndpointAddress { ip: String, hostname: String, node_name: String, target_ref: Option<ObjectReference>, }
}

fields! { ObjectReference { kind: String, namespace: String, name: String, uid: String, field_path: String, } }

fields! { EndpointPort { name: String, port: Option<u16>, protocol: String, app_protocol: String, } }

fields! {
    EndpointSlice {
        metadata: ObjectMeta,
        address_type: String,
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointPort>,
    }
}
view!(EndpointSlice, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");

fields! {
    Endpoint {
        addresses: Vec<String>,
        conditions: EndpointConditions,
        hostname: String,
        node_name: String,
        zone: String,
        target_ref: Option<ObjectReference>,
        deprecated_topology: BTreeMap<String, String>,
    }
}

fields! { EndpointConditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>, } }

fields! { Ingress { metadata: ObjectMeta, spec: IngressSpec, } }
view!(Ingress, "networking.k8s.io", "v1", "Ingress", "ingresses");

fields! { IngressSpec { ingress_class_name: String, tls: Vec<IngressTls>, rules: Vec<IngressRule>, } }

fields! { IngressTls { hosts: Vec<String>, } }

fields! { IngressRule { host: String, http: Option<IngressHttp>, } }

fields! { IngressHttp { paths: Vec<IngressPath>, } }

fields! { IngressPath { path: String, } }

fields! {
    Event {
        metadata: ObjectMeta,
        involved_object: ObjectReference,
        reason: String,
        message: String,
        #[serde(rename = "type")]
        kind: String,
        source: EventSource,
        count: i64,
        series: Option<EventSeries>,
        first_timestamp: Option<Time>,
        last_timestamp: Option<Time>,
        #[serde(rename = "eventTime")]
        time: Option<MicroTime>,
        action: String,
        reporting_component: String,
    }
}
view!(Event, "", "v1", "Event", "events");

fields! { EventSource { component: String, host: String, } }

fields! { EventSeries { count: i64, last_observed_time: Option<MicroTime>, } }

impl Pod {
    /// The identity under which the kubelet keeps its logs: of a pod from a file on the node, the API shows a mirror with
    /// another one.
    ///
    /// Whoever may create a pod may annotate it: the identity of a file is believed only of what can be no identity that
    /// the API gave, and of pods that no more than a node controls.
    pub(crate) fn log_uid(&self) -> &str {
        let annotation = |name: &str| self.metadata.annotations.as_ref()?.get(name);
        let is_hash = |text: &&String| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let of_file = annotation("kubernetes.io/config.hash").filter(is_hash);
        let of_file = of_file.filter(|hash| annotation("kubernetes.io/config.mirror") == Some(hash));
        let mut owners = self.metadata.owner_references.iter().flatten();
        let of_file = of_file.filter(|_| owners.all(|owner| owner.kind == "Node"));
        of_file.or(self.metadata.uid.as_ref()).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_real_kubelets_are_read() {
        for version in ["1.31", "1.35"] {
            let path =
                format!("{}/../../shared/real/kubelet-api/{version}/pods.json", env!("CARGO_MANIFEST_DIR"));
            let Ok(text) = std::fs::read_to_string(&path) else {
                eprintln!("SKIPPED: {path} is not there");
                return;
            };
            let list: serde_json::Value = serde_json::from_str(&text).unwrap();
            let pods: Vec<Pod> = serde_json::from_value(list["items"].clone()).unwrap();
            assert!(pods.len() > 10);
            for pod in &pods {
                assert!(!pod.spec.containers.is_empty() && !pod.status.phase.is_empty(), "{pod:?}");
                assert!(!pod.log_uid().is_empty());
            }
            let is_mirror = |pod: &&Pod| pod.metadata.uid.as_deref() != Some(pod.log_uid());
            assert!(pods.iter().any(|pod| pod.spec.containers[0].ports.len() == 1));
            println!("{} of {} are mirrors", pods.iter().filter(is_mirror).count(), pods.len());
        }
    }

    #[test]
    fn what_go_leaves_out_or_writes_as_null_is_empty() {
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":null,"ports":[{"port":null}]}"#,
        )
        .unwrap();
        assert_eq!((slice.endpoints.len(), slice.ports[0].port), (0, None));
        let pod: Pod = serde_json::from_str(r#"{"metadata":{},"spec":{"containers":null}}"#).unwrap();
        assert_eq!(pod.log_uid(), "");
    }
}
