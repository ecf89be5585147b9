use std::path::Path;

use super::*;

fn check(yaml: &str) -> Result<Arc<dyn Discovery>, String> {
    let raw: RawKubernetesSd = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    raw.check(Path::new("/etc/b"))
}

#[test]
fn what_a_config_gets_wrong_is_named() {
    for (yaml, want) in [
        ("{}", "role missing"),
        ("{role: pods}", "unknown Kubernetes SD role \"pods\""),
        ("{role: pod, selectors: [{role: service, label: a}]}", "supports only the selectors"),
        ("{role: pod, selectors: [{role: pod}, {role: pod}]}", "duplicated selector role"),
        ("{role: pod, api_server: ':'}", "api_server cannot be read"),
        ("{role: pod, api_server: 'http://a', kubeconfig_file: b}", "simultaneously"),
        ("{role: pod, api_server: 'http://a', proxy_url: 'http://p'}", "proxies"),
        ("{role: pod, oauth2: {client_id: a}}", "oauth2 is not supported"),
        (
            "{role: pod, api_server: 'http://a', basic_auth: {username: a, password_file: b}}",
            "cannot be in files",
        ),
        ("{role: pod, namespaces: {own_namespace: true}}", "own_namespace is only known within a pod"),
        ("{role: pod, roles: a}", "roles"),
    ] {
        let error = check(yaml).unwrap_err();
        assert!(error.contains(want), "{yaml}: {error}");
    }
}

#[test]
fn credentials_reach_the_client_and_nobody_else() {
    let shown = |yaml: &str| format!("{:?}", check(yaml).unwrap());
    for yaml in [
        "{role: node, api_server: 'https://a:6443', bearer_token: hush, tls_config: {ca_file: ca.crt}}",
        "{role: node, api_server: 'https://a:6443', basic_auth: {username: u, password: hush}}",
        "{role: node, api_server: 'https://a', authorization: {credentials_file: hush-not}, tls_config: {cert: c, key: hush}}",
    ] {
        assert!(!shown(yaml).replace("hush-not", "").contains("hush"), "{}", shown(yaml));
    }
    assert!(
        shown("{role: node, api_server: 'https://a', tls_config: {ca_file: ca.crt}}")
            .contains("/etc/b/ca.crt")
    );
}
