//! What is read of ServiceMonitors, PodMonitors and Probes.
//!
//! Their `spec` is kept as it came: one that cannot be read costs itself, and not the list that it came in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use binnacle_model::yaml::null_is_default;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::Deserialize;
use serde_json::Value;

use super::Kind;
use crate::kubernetes::views::{View, fields, view};

/// One of the three kinds.
pub(super) trait Monitor: View {
    const KIND: Kind;

    fn spec(&self) -> &Value;
}

macro_rules! monitor {
    ($name:ident, $kind:literal, $plural:literal, $of:expr) => {
        fields! { $name { metadata: ObjectMeta, spec: Value, } }
        view!($name, "monitoring.coreos.com", "v1", $kind, $plural);

        impl Monitor for $name {
            const KIND: Kind = $of;

            fn spec(&self) -> &Value {
                &self.spec
            }
        }
    };
}

monitor!(ServiceMonitor, "ServiceMonitor", "servicemonitors", Kind::Service);
monitor!(PodMonitor, "PodMonitor", "podmonitors", Kind::Pod);
monitor!(Probe, "Probe", "probes", Kind::Probe);

/// A spec, with the limits that all three have.
macro_rules! limited {
    ($name:ident { $($rest:tt)* }) => {
        fields! {
            $name {
                $($rest)*
                sample_limit: Option<u64>,
                target_limit: Option<u64>,
                label_limit: Option<u64>,
                label_name_length_limit: Option<u64>,
                label_value_length_limit: Option<u64>,
                keep_dropped_targets: Option<u64>,
                scrape_protocols: Vec<String>,
                fallback_scrape_protocol: Option<String>,
                scrape_native_histograms: Option<bool>,
                native_histogram_bucket_limit: Option<u64>,
                native_histogram_min_bucket_factor: Option<Value>,
                scrape_classic_histograms: Option<bool>,
                #[serde(rename = "convertClassicHistogramsToNHCB")]
                convert_classic_histograms: Option<bool>,
                #[serde(rename = "scrapeClass")]
                scrape_class: Option<String>,
            }
        }
    };
}

limited! {
    MonitorSpec {
        job_label: String,
        target_labels: Vec<String>,
        pod_target_labels: Vec<String>,
        // A PodMonitor calls them otherwise.
        #[serde(alias = "podMetricsEndpoints")]
        endpoints: Vec<Endpoint>,
        selector: LabelSelector,
        selector_mechanism: String,
        namespace_selector: NamespaceSelector,
        service_discovery_role: String,
        attach_metadata: Option<AttachMetadata>,
        body_size_limit: Option<String>,
    }
}

fields! { NamespaceSelector { any: bool, match_names: Vec<String>, } }

fields! { AttachMetadata { node: bool, } }

fields! {
    Endpoint {
        port: String,
        target_port: Option<IntOrString>,
        port_number: Option<u16>,
        path: String,
        scheme: Option<String>,
        params: Option<BTreeMap<String, Vec<String>>>,
        interval: String,
        scrape_timeout: String,
        honor_labels: bool,
        honor_timestamps: Option<bool>,
        track_timestamps_staleness: Option<bool>,
        filter_running: Option<bool>,
        follow_redirects: Option<bool>,
        enable_http2: Option<bool>,
        relabelings: Vec<Relabeling>,
        metric_relabelings: Vec<Relabeling>,
        bearer_token_file: String,
        bearer_token_secret: Option<KeyRef>,
        basic_auth: Option<BasicAuth>,
        authorization: Option<Authorization>,
        oauth2: Option<Value>,
        tls_config: Option<TlsConfig>,
        proxy_url: Option<String>,
        no_proxy: Option<String>,
        proxy_from_environment: Option<bool>,
        proxy_connect_header: Option<Value>,
    }
}

limited! {
    ProbeSpec {
        job_name: String,
        module: String,
        params: Vec<Param>,
        prober: Prober,
        targets: Targets,
        interval: String,
        scrape_timeout: String,
        metric_relabelings: Vec<Relabeling>,
        bearer_token_secret: Option<KeyRef>,
        basic_auth: Option<BasicAuth>,
        authorization: Option<Authorization>,
        oauth2: Option<Value>,
        tls_config: Option<TlsConfig>,
    }
}

fields! { Param { name: String, values: Vec<String>, } }

fields! {
    Prober {
        url: String,
        scheme: Option<String>,
        path: String,
        proxy_url: Option<String>,
        no_proxy: Option<String>,
        proxy_from_environment: Option<bool>,
        proxy_connect_header: Option<Value>,
    }
}

fields! { Targets { static_config: Option<StaticTargets>, ingress: Option<IngressTargets>, } }

fields! {
    StaticTargets {
        #[serde(rename = "static")]
        targets: Vec<String>,
        labels: BTreeMap<String, String>,
        #[serde(rename = "relabelingConfigs")]
        relabelings: Vec<Relabeling>,
    }
}

fields! {
    IngressTargets {
        selector: LabelSelector,
        namespace_selector: NamespaceSelector,
        #[serde(rename = "relabelingConfigs")]
        relabelings: Vec<Relabeling>,
    }
}

fields! {
    Relabeling {
        source_labels: Vec<String>,
        separator: Option<String>,
        target_label: String,
        regex: String,
        modulus: u64,
        replacement: Option<String>,
        action: String,
    }
}

fields! { BasicAuth { username: KeyRef, password: KeyRef, } }

fields! { Authorization { #[serde(rename = "type")] kind: String, credentials: Option<KeyRef>, } }

fields! {
    TlsConfig {
        ca: SecretOrConfigMap,
        cert: SecretOrConfigMap,
        key_secret: Option<KeyRef>,
        ca_file: String,
        cert_file: String,
        key_file: String,
        server_name: Option<String>,
        insecure_skip_verify: Option<bool>,
        min_version: Option<String>,
        max_version: Option<String>,
    }
}

fields! { SecretOrConfigMap { secret: Option<KeyRef>, config_map: Option<KeyRef>, } }

fields! { KeyRef { name: String, key: String, } }
