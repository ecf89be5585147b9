//! Probes: by a blackbox exporter that they name, or by this process.

use serde_json::{Map, Value, json};

use super::super::views::ProbeSpec;
use super::reach::Reach;
use super::rules::{Rules, rule_of};
use super::{Config, Translator, check_rules, put, put_limits, put_text};

/// In place of the URL of a prober: this process. So is nothing.
const OURSELVES: &str = "binnacle";

impl Translator<'_> {
    pub(super) fn probe(&mut self, spec: &ProbeSpec) -> Result<Config, String> {
        self.warn_of_class(spec.scrape_class.as_ref());
        check_rules("spec.metricRelabelings", &spec.metric_relabelings)?;
        let is_ours = matches!(spec.prober.url.as_str(), "" | OURSELVES);
        let job = format!("probe/{}/{}", self.namespace, self.name);
        let mut config = Map::new();
        let to = &mut config;
        put(to, "job_name", json!(job));
        put(to, "honor_timestamps", json!(true));
        put_text(to, "scrape_interval", &spec.interval);
        put_text(to, "scrape_timeout", &spec.scrape_timeout);
        if is_ours {
            self.by_ourselves(to, spec)?;
        } else {
            self.by_prober(to, spec)?;
        }
        let rules = self.targets(to, spec, is_ours)?;
        put(to, "relabel_configs", rules.into_value());
        if !spec.metric_relabelings.is_empty() {
            let rules: Vec<Value> = spec.metric_relabelings.iter().map(rule_of).collect();
            put(to, "metric_relabel_configs", json!(rules));
        }
        Ok(Config { job, value: Value::Object(config), is_probe: is_ours })
    }

    /// How the page is fetched from a blackbox exporter.
    fn by_prober(&mut self, to: &mut Map<String, Value>, spec: &ProbeSpec) -> Result<(), String> {
        let prober = &spec.prober;
        if prober.url.contains('/') {
            return Err(format!("spec.prober.url: {:?} is no address; write host or host:port", prober.url));
        }
        put(to, "metrics_path", json!(if prober.path.is_empty() { "/probe" } else { &prober.path }));
        put_text(to, "scheme", &prober.scheme.as_deref().unwrap_or_default().to_ascii_lowercase());
        let mut params = Map::new();
        for param in &spec.params {
            put(&mut params, &param.name, json!(param.values));
        }
        if !spec.module.is_empty() {
            put(&mut params, "module", json!([spec.module]));
        }
        if !params.is_empty() {
            put(to, "params", Value::Object(params));
        }
        put_limits!(to, spec);
        self.reach(to, "spec", &Reach::of_probe(spec))
    }

    /// Which of our modules probes.
    fn by_ourselves(&mut self, to: &mut Map<String, Value>, spec: &ProbeSpec) -> Result<(), String> {
        if spec.module.is_empty() {
            return Err("spec.module is missing: say which of probes.modules probes the targets".to_owned());
        }
        if self.modules.is_some_and(|modules| !modules.contains(&spec.module)) {
            return Err(format!("spec.module: {:?} is not among kubernetes.monitors.modules", spec.module));
        }
        if Reach::of_probe(spec).is_said() {
            let text = "spec: credentials, TLS and proxies are for a prober that is named by its URL";
            self.warnings.push(text.to_owned());
        }
        put(to, "module", json!(spec.module));
        for (key, limit) in [
            ("sample_limit", spec.sample_limit),
            ("target_limit", spec.target_limit),
            ("label_limit", spec.label_limit),
            ("label_name_length_limit", spec.label_name_length_limit),
            ("label_value_length_limit", spec.label_value_length_limit),
            ("keep_dropped_targets", spec.keep_dropped_targets),
        ] {
            if let Some(limit) = limit {
                put(to, key, json!(limit));
            }
        }
        Ok(())
    }

    /// What is probed. Static targets go before ingresses, if both are there.
    fn targets(
        &mut self,
        to: &mut Map<String, Value>,
        spec: &ProbeSpec,
        is_ours: bool,
    ) -> Result<Rules, String> {
        let mut rules = Rules::new();
        if !spec.job_name.is_empty() {
            rules.set("job", &spec.job_name);
        }
        let prober = |rules: &mut Rules| {
            rules.copy("__param_target", "instance");
            if !is_ours {
                rules.set("__address__", &spec.prober.url);
            }
        };
        match (&spec.targets.static_config, &spec.targets.ingress) {
            (Some(statics), _) => {
                check_rules("spec.targets.staticConfig.relabelingConfigs", &statics.relabelings)?;
                let mut labels = statics.labels.clone();
                labels.entry("namespace".to_owned()).or_insert_with(|| self.namespace.to_owned());
                put(to, "static_configs", json!([{"targets": statics.targets, "labels": labels}]));
                rules.copy("__address__", "__param_target");
                prober(&mut rules);
                rules.extend(&statics.relabelings);
            }
            (None, Some(ingress)) => {
                check_rules("spec.targets.ingress.relabelingConfigs", &ingress.relabelings)?;
                rules.select("ingress", &ingress.selector)?;
                let sd = self.discovery("ingress", &ingress.namespace_selector);
                put(to, "kubernetes_sd_configs", json!([sd]));
                rules.push(json!({
                    "source_labels": ["__meta_kubernetes_ingress_scheme", "__address__", "__meta_kubernetes_ingress_path"],
                    "separator": ";", "regex": "(.+);(.+);(.+)", "target_label": "__param_target",
                    "replacement": "${1}://${2}${3}", "action": "replace",
                }));
                rules.copy("__meta_kubernetes_namespace", "namespace");
                rules.copy("__meta_kubernetes_ingress_name", "ingress");
                rules.push(json!({
                    "source_labels": ["__address__"], "separator": ";", "regex": "(.*)",
                    "target_label": "__tmp_ingress_address", "replacement": "$1", "action": "replace",
                }));
                prober(&mut rules);
                rules.extend(&ingress.relabelings);
            }
            (None, None) => return Err("spec.targets: staticConfig or ingress is missing".to_owned()),
        }
        Ok(rules)
    }
}
