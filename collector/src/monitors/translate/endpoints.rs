//! Endpoints of ServiceMonitors and PodMonitors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::super::views::{Endpoint, MonitorSpec};
use super::reach::Reach;
use super::rules::{Rules, sanitized, selector_text};
use super::{Config, ENDPOINTS_MAX, Translator, check_rules, put, put_limits, put_text};

const PORT_NAME: &str = "__meta_kubernetes_pod_container_port_name";
const PORT_NUMBER: &str = "__meta_kubernetes_pod_container_port_number";

/// How labels of role `endpoints` begin; those of its object have an `s` behind it.
const ENDPOINT: &str = "__meta_kubernetes_endpoint";

/// Makes the discovery, the rules and the first part of the name of an endpoint's scrape config.
type Make<'a> =
    fn(&Translator<'a>, &MonitorSpec, &Endpoint) -> Result<(Map<String, Value>, Rules, &'static str), String>;

impl<'a> Translator<'a> {
    /// A scrape config for each endpoint.
    pub(super) fn monitor(&mut self, spec: &MonitorSpec, make: Make<'a>) -> Result<Vec<Config>, String> {
        if spec.endpoints.len() > ENDPOINTS_MAX {
            return Err(format!("spec: more than {ENDPOINTS_MAX} endpoints"));
        }
        self.warn_of_class(spec.scrape_class.as_ref());
        let all = spec.endpoints.iter().enumerate();
        all.map(|(at, endpoint)| self.endpoint(spec, at, endpoint, make)).collect()
    }

    fn endpoint(
        &mut self,
        spec: &MonitorSpec,
        at: usize,
        endpoint: &Endpoint,
        make: Make<'a>,
    ) -> Result<Config, String> {
        let place = format!("spec.endpoints[{at}]");
        check_rules(&format!("{place}.relabelings"), &endpoint.relabelings)?;
        check_rules(&format!("{place}.metricRelabelings"), &endpoint.metric_relabelings)?;
        let (sd, mut rules, kind) = make(self, spec, endpoint)?;
        let job = format!("{kind}/{}/{}/{at}", self.namespace, self.name);
        let mut config = Map::new();
        let to = &mut config;
        put(to, "job_name", json!(job));
        put(to, "honor_labels", json!(endpoint.honor_labels));
        let flags = [
            ("honor_timestamps", endpoint.honor_timestamps),
            ("track_timestamps_staleness", endpoint.track_timestamps_staleness),
            ("follow_redirects", endpoint.follow_redirects),
            ("enable_http2", endpoint.enable_http2),
        ];
        for (key, flag) in flags {
            if let Some(flag) = flag {
                put(to, key, json!(flag));
            }
        }
        put(to, "kubernetes_sd_configs", json!([sd]));
        put_text(to, "scrape_interval", &endpoint.interval);
        put_text(to, "scrape_timeout", &endpoint.scrape_timeout);
        put_text(to, "metrics_path", &endpoint.path);
        put_text(to, "scheme", &endpoint.scheme.as_deref().unwrap_or_default().to_ascii_lowercase());
        if let Some(params) = &endpoint.params {
            put(to, "params", json!(params));
        }
        self.reach(to, &place, &Reach::of_endpoint(endpoint))?;
        rules.extend(&endpoint.relabelings);
        put(to, "relabel_configs", rules.into_value());
        put_limits!(to, spec);
        put_text(to, "body_size_limit", spec.body_size_limit.as_deref().unwrap_or_default());
        if !endpoint.metric_relabelings.is_empty() {
            let rules: Vec<Value> = endpoint.metric_relabelings.iter().map(super::rules::rule_of).collect();
            put(to, "metric_relabel_configs", json!(rules));
        }
        Ok(Config { job, value: Value::Object(config), is_probe: false })
    }

    /// Endpoints of services.
    pub(super) fn service(
        &self,
        spec: &MonitorSpec,
        endpoint: &Endpoint,
    ) -> Result<(Map<String, Value>, Rules, &'static str), String> {
        let role = spec.service_discovery_role.as_str();
        // The operator's default is Endpoints, which Kubernetes is giving up: slices serve all but those who name its labels.
        let role = if role.is_empty() && wants_endpoints(endpoint) { "Endpoints" } else { role };
        // The prefix of the labels of a port and of what an address leads to.
        let (role, prefix) = match role {
            "Endpoints" => ("endpoints", ENDPOINT),
            "" | "EndpointSlice" => ("endpointslice", "__meta_kubernetes_endpointslice"),
            other => {
                let known = "Endpoints nor EndpointSlice";
                return Err(format!("spec.serviceDiscoveryRole: {other:?} is neither {known}"));
            }
        };
        let mut sd = self.discovery(role, &spec.namespace_selector);
        let mut rules = Rules::new();
        select(spec, &[role, "service"], &mut sd, &mut rules)?;
        if endpoint.port.is_empty() {
            target_port(endpoint, &mut rules);
        } else {
            rules.keep(&format!("{prefix}_port_name"), &endpoint.port);
        }
        for (kind, label) in [("Node", "node"), ("Pod", "pod")] {
            rules.push(json!({
                "source_labels": [format!("{prefix}_address_target_kind"), format!("{prefix}_address_target_name")],
                "separator": ";", "regex": format!("{kind};(.*)"), "replacement": "${1}", "target_label": label,
            }));
        }
        rules.copy("__meta_kubernetes_namespace", "namespace");
        rules.copy("__meta_kubernetes_service_name", "service");
        rules.copy("__meta_kubernetes_pod_name", "pod");
        rules.copy("__meta_kubernetes_pod_container_name", "container");
        if endpoint.filter_running.unwrap_or(true) {
            rules.drop_ended();
        }
        let labels = spec.target_labels.iter().map(|name| ("service", name));
        labels_of(labels.chain(spec.pod_target_labels.iter().map(|name| ("pod", name))), &mut rules);
        rules.push(json!({
            "source_labels": ["__meta_kubernetes_service_name"], "target_label": "job", "replacement": "${1}",
        }));
        name_job("service", &spec.job_label, &mut rules);
        name_endpoint(endpoint, &mut rules);
        Ok((sd, rules, "serviceMonitor"))
    }

    /// Ports of pods.
    pub(super) fn pod(
        &self,
        spec: &MonitorSpec,
        endpoint: &Endpoint,
    ) -> Result<(Map<String, Value>, Rules, &'static str), String> {
        let mut sd = self.discovery("pod", &spec.namespace_selector);
        let mut rules = Rules::new();
        if endpoint.filter_running.unwrap_or(true) {
            rules.drop_ended();
        }
        select(spec, &["pod"], &mut sd, &mut rules)?;
        match endpoint.port_number.filter(|number| *number != 0) {
            _ if !endpoint.port.is_empty() => rules.keep(PORT_NAME, &endpoint.port),
            Some(number) => rules.keep(PORT_NUMBER, &number.to_string()),
            None => target_port(endpoint, &mut rules),
        }
        rules.copy("__meta_kubernetes_namespace", "namespace");
        rules.copy("__meta_kubernetes_pod_container_name", "container");
        rules.copy("__meta_kubernetes_pod_name", "pod");
        labels_of(spec.pod_target_labels.iter().map(|name| ("pod", name)), &mut rules);
        rules.set("job", &format!("{}/{}", self.namespace, self.name));
        name_job("pod", &spec.job_label, &mut rules);
        name_endpoint(endpoint, &mut rules);
        Ok((sd, rules, "podMonitor"))
    }
}

/// Whether a rule of the endpoint names labels that only role `endpoints` has.
fn wants_endpoints(endpoint: &Endpoint) -> bool {
    let names_one = |text: &String| {
        let mut after = text.split(ENDPOINT).skip(1);
        after.any(|rest| !rest.starts_with("slice"))
    };
    endpoint.relabelings.iter().any(|rule| {
        // Others look at values by theirs.
        let is_of_names = ["labelmap", "labeldrop", "labelkeep"]
            .iter()
            .any(|action| rule.action.eq_ignore_ascii_case(action));
        rule.source_labels.iter().any(names_one) || (is_of_names && names_one(&rule.regex))
    })
}

/// By rules over all there is, or by asking the API for those alone; the role of the labels is the last one.
fn select(
    spec: &MonitorSpec,
    roles: &[&str],
    sd: &mut Map<String, Value>,
    rules: &mut Rules,
) -> Result<(), String> {
    if let Some(attach) = &spec.attach_metadata {
        put(sd, "attach_metadata", json!({"node": attach.node}));
    }
    let selector: &LabelSelector = &spec.selector;
    match spec.selector_mechanism.as_str() {
        "" | "RelabelConfig" => rules.select(roles.last().unwrap_or(&""), selector),
        "RoleSelector" => {
            let text = selector_text(selector)?;
            let selectors: Vec<Value> =
                roles.iter().map(|role| json!({"role": role, "label": text})).collect();
            put(sd, "selectors", json!(selectors));
            Ok(())
        }
        other => Err(format!("spec.selectorMechanism: {other:?} is neither RelabelConfig nor RoleSelector")),
    }
}

/// Goes on with the port of a container that has this name or number.
fn target_port(endpoint: &Endpoint, rules: &mut Rules) {
    match &endpoint.target_port {
        Some(IntOrString::String(name)) if !name.is_empty() => rules.keep(PORT_NAME, name),
        Some(IntOrString::Int(number)) if *number != 0 => rules.keep(PORT_NUMBER, &number.to_string()),
        _ => {}
    }
}

fn labels_of<'n>(names: impl Iterator<Item = (&'static str, &'n String)>, rules: &mut Rules) {
    for (role, name) in names {
        let name = sanitized(name);
        rules.copy_if_there(&format!("__meta_kubernetes_{role}_label_{name}"), &name);
    }
}

fn name_job(role: &str, label: &str, rules: &mut Rules) {
    if !label.is_empty() {
        rules.copy_if_there(&format!("__meta_kubernetes_{role}_label_{}", sanitized(label)), "job");
    }
}

fn name_endpoint(endpoint: &Endpoint, rules: &mut Rules) {
    match &endpoint.target_port {
        _ if !endpoint.port.is_empty() => rules.set("endpoint", &endpoint.port),
        Some(IntOrString::String(name)) if !name.is_empty() => rules.set("endpoint", name),
        Some(IntOrString::Int(number)) => rules.set("endpoint", &number.to_string()),
        _ => {}
    }
}
