use std::fmt::Write;

use super::*;

/// Secrets and a `ConfigMap` of the namespace `shop`.
fn assets() -> Assets {
    let mut assets = Assets::default();
    for (holder, name, key, value) in [
        (Holder::Secret, "login", "user", Ok("me")),
        (Holder::Secret, "login", "password", Ok("hush")),
        (Holder::Secret, "tls", "key", Ok("KEY")),
        (Holder::ConfigMap, "trust", "ca", Ok("CA")),
        (Holder::Secret, "gone", "x", Err("Secret shop/gone: it is not there")),
    ] {
        let (namespace, name, key) = ("shop".to_owned(), name.to_owned(), key.to_owned());
        let value = value.map(|text| text.to_owned().into()).map_err(str::to_owned);
        assets.put(AssetRef { holder, namespace, name, key }, value);
    }
    assets
}

fn files() -> FileAccess {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    FileAccess { any: names(&["trusted"]), account: names(&["monitoring"]) }
}

fn done(kind: Kind, name: (&str, &str), spec: &Value) -> Translation {
    let modules = BTreeSet::from(["http_2xx".to_owned()]);
    let (assets, files) = (assets(), files());
    translate(
        kind,
        name,
        spec,
        Beside { assets: &assets, files: &files, kubeconfig: None, modules: Some(&modules) },
    )
}

fn of_yaml(kind: Kind, yaml: &str) -> Result<Vec<Config>, String> {
    done(kind, ("shop", "cart"), &serde_saphyr::from_str(yaml).unwrap()).configs
}

/// As `serde_json` writes it where the order of keys is not kept.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(keys) => {
            let mut all: Vec<(&String, &Value)> = keys.iter().collect();
            all.sort_by_key(|(key, _)| *key);
            Value::Object(all.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(all) => all.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A config with its rules in short: what they do, with what, in their order.
fn shown(config: &Config) -> String {
    let mut value = config.value.clone();
    let keys = value.as_object_mut().unwrap();
    let mut text = String::new();
    let lists = ["relabel_configs", "metric_relabel_configs"].map(|key| (key, keys.remove(key)));
    let value = sorted(&value);
    for (key, value) in value.as_object().unwrap() {
        writeln!(text, "{key}: {value}").unwrap();
    }
    for (key, list) in lists {
        for rule in list.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let part = |name: &str| match &rule[name] {
                Value::Null => String::new(),
                Value::Array(all) => {
                    let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
                    all.join(" ").replace("__meta_kubernetes_", "")
                }
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let action = if rule["action"].is_null() { "set".to_owned() } else { part("action") };
            let parts = [part("source_labels"), part("regex"), part("replacement"), part("target_label")];
            let more = if rule["separator"].is_null() { "" } else { " with a separator" };
            writeln!(text, "{}{action} {}{more}", &key[..1], parts.join(" | ")).unwrap();
        }
    }
    text
}

/// A `ServiceMonitor` with every key.
const SERVICE: &str = "
        jobLabel: app.kubernetes.io/name
        targetLabels: [team]
        podTargetLabels: [version/x]
        selector:
          matchLabels: {b: two, a.b/c: one}
          matchExpressions:
          - {key: tier, operator: In, values: [web, api]}
          - {key: env, operator: NotIn, values: [dev]}
          - {key: e, operator: Exists}
          - {key: f, operator: DoesNotExist}
        namespaceSelector: {any: true}
        attachMetadata: {node: true}
        sampleLimit: 1
        targetLimit: 2
        labelLimit: 3
        labelNameLengthLimit: 4
        labelValueLengthLimit: 5
        keepDroppedTargets: 6
        bodySizeLimit: 10MB
        scrapeProtocols: [PrometheusText0.0.4]
        fallbackScrapeProtocol: PrometheusText0.0.4
        scrapeClassicHistograms: true
        nativeHistogramBucketLimit: 7
        nativeHistogramMinBucketFactor: 1100m
        endpoints:
        - port: web
          path: /m
          scheme: HTTPS
          params: {a: [b]}
          interval: 30s
          scrapeTimeout: 5s
          honorLabels: true
          honorTimestamps: false
          trackTimestampsStaleness: true
          followRedirects: false
          enableHttp2: false
          proxyUrl: http://proxy:3128
          noProxy: a.example
          basicAuth: {username: {name: login, key: user}, password: {name: login, key: password}}
          tlsConfig:
            ca: {configMap: {name: trust, key: ca}}
            cert: {secret: {name: tls, key: key}}
            keySecret: {name: tls, key: key}
            serverName: name
            insecureSkipVerify: false
            minVersion: TLS12
            maxVersion: TLS13
          relabelings: [{action: Replace, sourceLabels: [x, w], separator: '', regex: (.*), targetLabel: z, replacement: ''}]
          metricRelabelings: [{action: drop, sourceLabels: [__name__], regex: a.*}]
        - {targetPort: http, filterRunning: false}
        ";

/// Its first endpoint.
const OF_SERVICE: &str = r#"always_scrape_classic_histograms: true
basic_auth: {"password":"hush","username":"me"}
body_size_limit: "10MB"
enable_http2: false
fallback_scrape_protocol: "PrometheusText0.0.4"
follow_redirects: false
honor_labels: true
honor_timestamps: false
job_name: "serviceMonitor/shop/cart/0"
keep_dropped_targets: 6
kubernetes_sd_configs: [{"attach_metadata":{"node":true},"role":"endpointslice"}]
label_limit: 3
label_name_length_limit: 4
label_value_length_limit: 5
metrics_path: "/m"
native_histogram_bucket_limit: 7
native_histogram_min_bucket_factor: 1.1
no_proxy: "a.example"
params: {"a":["b"]}
proxy_url: "http://proxy:3128"
sample_limit: 1
scheme: "https"
scrape_interval: "30s"
scrape_protocols: ["PrometheusText0.0.4"]
scrape_timeout: "5s"
target_limit: 2
tls_config: {"ca":"CA","cert":"KEY","insecure_skip_verify":false,"key":"KEY","max_version":"TLS13","min_version":"TLS12","server_name":"name"}
track_timestamps_staleness: true
rset job |  |  | __tmp_prometheus_job_name
rkeep service_label_a_b_c service_labelpresent_a_b_c | (one);true |  | 
rkeep service_label_b service_labelpresent_b | (two);true |  | 
rkeep service_label_tier service_labelpresent_tier | (web|api);true |  | 
rdrop service_label_env service_labelpresent_env | (dev);true |  | 
rkeep service_labelpresent_e | true |  | 
rdrop service_labelpresent_f | true |  | 
rkeep endpointslice_port_name | web |  | 
rset endpointslice_address_target_kind endpointslice_address_target_name | Node;(.*) | ${1} | node with a separator
rset endpointslice_address_target_kind endpointslice_address_target_name | Pod;(.*) | ${1} | pod with a separator
rset namespace |  |  | namespace
rset service_name |  |  | service
rset pod_name |  |  | pod
rset pod_container_name |  |  | container
rdrop pod_phase | (Failed|Succeeded) |  | 
rset service_label_team | (.+) | ${1} | team
rset pod_label_version_x | (.+) | ${1} | version_x
rset service_name |  | ${1} | job
rset service_label_app_kubernetes_io_name | (.+) | ${1} | job
rset  |  | web | endpoint
rreplace x w | (.*) |  | z with a separator
mdrop __name__ | a.* |  | 
"#;

#[test]
fn a_service_monitor_is_what_the_operator_makes_of_it() {
    let configs = of_yaml(Kind::Service, SERVICE).unwrap();
    let jobs: Vec<&str> = configs.iter().map(|config| config.job.as_str()).collect();
    assert_eq!(jobs, ["serviceMonitor/shop/cart/0", "serviceMonitor/shop/cart/1"]);
    assert_eq!(shown(&configs[0]), OF_SERVICE);
    let second = shown(&configs[1]);
    assert!(second.contains("rkeep pod_container_port_name | http |  | \n"), "{second}");
    assert!(second.contains("rset  |  | http | endpoint\n") && !second.contains("pod_phase"), "{second}");
}

#[test]
fn monitors_that_name_labels_of_endpoints_get_them() {
    let rule = |text: &str| format!("{{selector: {{}}, endpoints: [{{port: web, relabelings: [{text}]}}]}}");
    for (spec, role) in [
        (rule(""), "endpointslice"),
        (rule("{sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: to}"), "endpointslice"),
        (rule("{sourceLabels: [a, __meta_kubernetes_endpoint_node_name], targetLabel: to}"), "endpoints"),
        (
            rule(
                "{targetLabel: x1, replacement: y1}, {sourceLabels: [__meta_kubernetes_endpoints_name], targetLabel: to}",
            ),
            "endpoints",
        ),
        (
            rule("{sourceLabels: [__meta_kubernetes_endpointslice_endpoint_node_name], targetLabel: to}"),
            "endpointslice",
        ),
        (rule("{action: LabelMap, regex: __meta_kubernetes_endpoints_label_(.+)}"), "endpoints"),
        (rule("{action: labeldrop, regex: '__meta_kubernetes_(endpointslice|pod)_.*'}"), "endpointslice"),
        // A regular expression for a value.
        (rule("{sourceLabels: [a], regex: __meta_kubernetes_endpoint_x, targetLabel: to}"), "endpointslice"),
        (
            "{serviceDiscoveryRole: EndpointSlice, endpoints: [{port: web, relabelings: \
             [{sourceLabels: [__meta_kubernetes_endpoint_ready], targetLabel: to}]}]}"
                .to_owned(),
            "endpointslice",
        ),
        ("{serviceDiscoveryRole: Endpoints, endpoints: [{port: web}]}".to_owned(), "endpoints"),
    ] {
        let config = shown(&of_yaml(Kind::Service, &spec).unwrap()[0]);
        let prefix = if role == "endpoints" { "endpoint" } else { role };
        assert!(config.contains(&format!("\"role\":\"{role}\"}}]\n")), "{spec}: {config}");
        for kind in ["Node", "Pod"] {
            let rule =
                format!("rset {prefix}_address_target_kind {prefix}_address_target_name | {kind};(.*)");
            assert!(config.contains(&rule), "{spec}: {config}");
        }
        assert!(config.contains(&format!("rkeep {prefix}_port_name | web |")), "{spec}: {config}");
    }
}

#[test]
fn a_pod_monitor_is_what_the_operator_makes_of_it() {
    let configs = of_yaml(
        Kind::Pod,
        "
        jobLabel: app
        podTargetLabels: [team]
        selector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: In, values: [e, d]}, {key: b, operator: DoesNotExist}]}
        selectorMechanism: RoleSelector
        namespaceSelector: {matchNames: [x, z]}
        podMetricsEndpoints:
        - {port: web, bearerTokenSecret: {name: '', key: ''}}
        - {portNumber: 8080, bearerTokenSecret: {name: login, key: password}}
        - {targetPort: 9090, authorization: {credentials: {name: login, key: password}}}
        ",
    )
    .unwrap();
    let want = r#"honor_labels: false
job_name: "podMonitor/shop/cart/0"
kubernetes_sd_configs: [{"namespaces":{"names":["x","z"]},"role":"pod","selectors":[{"label":"a=b,!b,c in (d,e)","role":"pod"}]}]
rset job |  |  | __tmp_prometheus_job_name
rdrop pod_phase | (Failed|Succeeded) |  | 
rkeep pod_container_port_name | web |  | 
rset namespace |  |  | namespace
rset pod_container_name |  |  | container
rset pod_name |  |  | pod
rset pod_label_team | (.+) | ${1} | team
rset  |  | shop/cart | job
rset pod_label_app | (.+) | ${1} | job
rset  |  | web | endpoint
"#;
    assert_eq!(shown(&configs[0]), want);
    let (second, third) = (shown(&configs[1]), shown(&configs[2]));
    assert!(second.contains("bearer_token: \"hush\"") && second.contains("port_number | 8080 |"), "{second}");
    assert!(!second.contains("| endpoint"), "as the operator has it: {second}");
    assert!(third.contains(r#"authorization: {"credentials":"hush","type":"Bearer"}"#), "{third}");
    assert!(third.contains("port_number | 9090 |") && third.contains("| 9090 | endpoint"), "{third}");
}

#[test]
fn a_probe_is_for_its_prober_or_for_us() {
    let spec = |prober: &str| {
        format!(
            "{{jobName: web, module: http_2xx, interval: 1m, prober: {prober}, params: [{{name: a, values: [b]}}], sampleLimit: 9,
              targets: {{staticConfig: {{static: ['https://a.example'], labels: {{env: t}}, relabelingConfigs: [{{action: labeldrop, regex: env}}]}}}}}}"
        )
    };
    let remote = of_yaml(Kind::Probe, &spec("{url: 'exporter:9115', scheme: http}")).unwrap();
    let rules = "rset job |  |  | __tmp_prometheus_job_name
rset  |  | web | job
rset __address__ |  |  | __param_target
rset __param_target |  |  | instance
rset  |  | exporter:9115 | __address__
rlabeldrop  | env |  | 
";
    let common = r#"scrape_interval: "1m"
static_configs: [{"labels":{"env":"t","namespace":"shop"},"targets":["https://a.example"]}]
"#;
    let want = format!(
        r#"honor_timestamps: true
job_name: "probe/shop/cart"
metrics_path: "/probe"
params: {{"a":["b"],"module":["http_2xx"]}}
sample_limit: 9
scheme: "http"
{common}{rules}"#
    );
    assert_eq!((shown(&remote[0]), remote[0].is_probe), (want, false));
    for prober in ["{url: binnacle}", "{}"] {
        let ours = of_yaml(Kind::Probe, &spec(prober)).unwrap();
        let rules = rules.replace("rset  |  | exporter:9115 | __address__\n", "");
        let head =
            "honor_timestamps: true\njob_name: \"probe/shop/cart\"\nmodule: \"http_2xx\"\nsample_limit: 9\n";
        assert_eq!((shown(&ours[0]), ours[0].is_probe), (format!("{head}{common}{rules}"), true));
    }
    let ingress = "{module: http_2xx, targets: {ingress: {selector: {matchLabels: {a: b}}, namespaceSelector: {any: true}}}}";
    let ingress = shown(&of_yaml(Kind::Probe, ingress).unwrap()[0]);
    let want = r#"kubernetes_sd_configs: [{"role":"ingress"}]
module: "http_2xx"
rset job |  |  | __tmp_prometheus_job_name
rkeep ingress_label_a ingress_labelpresent_a | (b);true |  | 
rreplace ingress_scheme __address__ ingress_path | (.+);(.+);(.+) | ${1}://${2}${3} | __param_target with a separator
rset namespace |  |  | namespace
rset ingress_name |  |  | ingress
rreplace __address__ | (.*) | $1 | __tmp_ingress_address with a separator
rset __param_target |  |  | instance
"#;
    assert!(ingress.ends_with(want), "{ingress}");
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let endpoint = |text: &str| format!("{{endpoints: [{{}}, {text}]}}");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    for (kind, yaml, want) in [
        (
            Kind::Service,
            endpoint("{relabelings: [{}, {regex: '('}]}"),
            "spec.endpoints[1].relabelings[0]: action replace",
        ),
        (
            Kind::Pod,
            endpoint("{metricRelabelings: [{action: keep, regex: '('}]}"),
            "spec.endpoints[1].metricRelabelings[0]: regex",
        ),
        (
            Kind::Service,
            endpoint("{relabelings: [{action: odd}]}"),
            "relabelings[0]: unknown relabel action \"odd\"",
        ),
        (Kind::Service, endpoint("{interval: 5}"), "spec: invalid type"),
        (
            Kind::Service,
            "{serviceDiscoveryRole: Pods, endpoints: [{}]}".to_owned(),
            "spec.serviceDiscoveryRole: \"Pods\"",
        ),
        (Kind::Pod, "{selectorMechanism: x, podMetricsEndpoints: [{}]}".to_owned(), "spec.selectorMechanism"),
        (
            Kind::Pod,
            "{selector: {matchExpressions: [{key: a, operator: Is}]}, podMetricsEndpoints: [{}]}".to_owned(),
            "\"Is\" is none of",
        ),
        (Kind::Service, endpoint(&format!("{{bearerTokenFile: {token}}}")), "may not read it"),
        (
            Kind::Service,
            endpoint("{tlsConfig: {keyFile: /etc/key}}"),
            "spec.endpoints[1].tlsConfig.keyFile: \"/etc/key\"",
        ),
        (
            Kind::Service,
            endpoint("{bearerTokenSecret: {name: gone, key: x}}"),
            "spec.endpoints[1].bearerTokenSecret: Secret shop/gone: it is not",
        ),
        (
            Kind::Service,
            endpoint("{bearerTokenSecret: {name: '../x', key: x}}"),
            "name and key of what holds",
        ),
        (
            Kind::Service,
            endpoint("{tlsConfig: {ca: {secret: {name: a, key: b}, configMap: {name: a, key: b}}}}"),
            "must not both",
        ),
        (Kind::Service, endpoint("{proxyUrl: 'http://me:hush@169.254.169.254'}"), "proxyUrl is a link-local"),
        (Kind::Probe, "{module: http_2xx}".to_owned(), "spec.targets: staticConfig or ingress is missing"),
        (Kind::Probe, "{targets: {staticConfig: {}}}".to_owned(), "spec.module is missing"),
        (Kind::Probe, "{module: other}".to_owned(), "\"other\" is not among kubernetes.monitors.modules"),
        (
            Kind::Probe,
            "{prober: {url: 'http://a'}}".to_owned(),
            "spec.prober.url: \"http://a\" is no address",
        ),
    ] {
        let error = of_yaml(kind, &yaml).unwrap_err();
        assert!(error.contains(want) && !error.contains("hush"), "{yaml}: {error}");
    }
}

#[test]
fn files_of_the_agent_are_for_namespaces_that_may_read_them() {
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    for (namespace, file, may) in [
        ("monitoring", "token", true),
        ("monitoring", "../x/token", false),
        ("monitoring", "..", false),
        ("trusted", "../../etc/key", true),
        ("shop", "token", false),
    ] {
        let spec = json!({"endpoints": [{"bearerTokenFile": format!("{dir}/{file}")}]});
        assert_eq!(done(Kind::Service, (namespace, "m"), &spec).configs.is_ok(), may, "{namespace} {file}");
    }
}

#[test]
fn values_that_are_not_known_are_asked_for_together() {
    let spec = "{endpoints: [{basicAuth: {username: {name: new, key: u}, password: {name: new, key: p}}}]}";
    let spec: Value = serde_saphyr::from_str(spec).unwrap();
    let done = done(Kind::Service, ("shop", "cart"), &spec);
    let asked: Vec<String> =
        done.asked.iter().map(|one| format!("{}/{}.{}", one.namespace, one.name, one.key)).collect();
    assert!(done.waits && asked == ["shop/new.p", "shop/new.u"], "{asked:?}");
}

/// kube-prometheus's own.
#[test]
fn real_monitors_are_translated() {
    let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(shared).join("real/servicemonitors");
    let Ok(entries) = std::fs::read_dir(&dir) else {
        println!("SKIPPED 1: no monitors at {}", dir.display());
        return;
    };
    let mut jobs = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let object: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let configs = done(Kind::Service, ("monitoring", name), &object["spec"]).configs.unwrap();
        for config in configs {
            let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
            assert_eq!(config.value["bearer_token_file"], token, "{name}");
            let rules = config.value["relabel_configs"].as_array().unwrap().len();
            let namespaces = config.value["kubernetes_sd_configs"][0]["namespaces"]["names"].to_string();
            let tls = &config.value["tls_config"];
            jobs.push(format!("{} {rules} {namespaces} {tls}", config.job));
            let scrape: crate::scrape::ScrapeConfig = serde_json::from_value(config.value).unwrap();
            scrape.check(&crate::scrape::Global::default(), Path::new("/"), 0).unwrap();
        }
    }
    jobs.sort();
    let trusting = r#"{"insecure_skip_verify":true}"#;
    let api =
        r#"{"ca_file":"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt","server_name":"kubernetes"}"#;
    // Rules counted by hand: 11 of each, and one for each label that is selected, each label of a job, and each of its own.
    let want = [
        format!("serviceMonitor/monitoring/blackbox-exporter/0 14 [\"monitoring\"] {trusting}"),
        "serviceMonitor/monitoring/coredns/0 13 [\"kube-system\"] null".to_owned(),
        format!("serviceMonitor/monitoring/kube-apiserver/0 14 [\"default\"] {api}"),
        format!("serviceMonitor/monitoring/kube-apiserver/1 14 [\"default\"] {api}"),
        format!("serviceMonitor/monitoring/kube-state-metrics/0 16 [\"monitoring\"] {trusting}"),
        format!("serviceMonitor/monitoring/kube-state-metrics/1 15 [\"monitoring\"] {trusting}"),
        format!("serviceMonitor/monitoring/node-exporter/0 16 [\"monitoring\"] {trusting}"),
        format!("serviceMonitor/monitoring/prometheus-adapter/0 14 [\"monitoring\"] {trusting}"),
        format!("serviceMonitor/monitoring/prometheus-operator/0 15 [\"monitoring\"] {trusting}"),
    ];
    assert_eq!(jobs, want);
}
