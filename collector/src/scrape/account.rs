//! Who presets say that they are outside of a pod: the user of a kubeconfig's current context, in place of the files of a
//! service account that their text names.

use std::path::Path;

use base64::Engine;
use kube::config::Kubeconfig;
use serde_json::{Map, Value, json};

/// Keys of users that are for the API server alone, or that this process has no way to send to others.
const UNUSABLE: [&str; 4] = ["exec", "auth-provider", "username", "as"];

/// What a context says, in the keys of scrape configs.
struct Account {
    authorization: Option<Value>,
    /// Of `tls_config`: who we are.
    identity: Map<String, Value>,
    /// Of `tls_config`: whom to believe that it is the API server.
    trust: Map<String, Value>,
}

/// Puts the credentials of the file's current context into scrape configs that have some.
pub(super) fn lend(configs: &mut [Value], path: &Path) -> Result<(), String> {
    let told = |reason: String| format!("{}: {reason}", path.display());
    // Its files are relative to it, and not to the configuration.
    let whole = std::path::absolute(path).map_err(|error| told(error.to_string()))?;
    let config = Kubeconfig::read_from(whole).map_err(|error| told(error.to_string()))?;
    let account = Account::of(&config).map_err(told)?;
    configs.iter_mut().for_each(|config| account.put_into(config));
    Ok(())
}

impl Account {
    fn of(config: &Kubeconfig) -> Result<Self, String> {
        // What is wrong with it must not show what is in it.
        let config = serde_json::to_value(config).map_err(|_| "it is no kubeconfig".to_owned())?;
        let current = text(&config, "current-context").ok_or("current-context is missing")?;
        let context = named(&config["contexts"], current, "context")
            .ok_or_else(|| format!("current-context {current:?} is not among its contexts"))?;
        let of_context = |list: &str, key: &str| {
            let name = text(context, key).unwrap_or_default();
            let found = named(&config[list], name, key);
            found
                .cloned()
                .ok_or_else(|| format!("{key} {name:?} of context {current:?} is not among its {list}"))
        };
        let (cluster, user) = (of_context("clusters", "cluster")?, of_context("users", "user")?);
        let cure = "give it a token, tokenFile or client-certificate, or leave out the preset";
        if let Some(key) = UNUSABLE.into_iter().find(|key| !user[*key].is_null()) {
            return Err(format!(
                "the user of context {current:?} has {key:?}, which is not for targets: {cure}"
            ));
        }
        let authorization = match (text(&user, "tokenFile"), text(&user, "token")) {
            (Some(file), _) => Some(json!({"credentials_file": file})),
            (None, Some(token)) => Some(json!({"credentials": token})),
            (None, None) => None,
        };
        let (mut identity, mut trust) = (Map::new(), Map::new());
        put(&mut identity, &user, "client-certificate", "cert")?;
        put(&mut identity, &user, "client-key", "key")?;
        if authorization.is_none() && identity.is_empty() {
            return Err(format!("the user of context {current:?} has no credentials: {cure}"));
        }
        if cluster["insecure-skip-tls-verify"].as_bool() == Some(true) {
            trust.insert("insecure_skip_verify".to_owned(), json!(true));
        } else {
            put(&mut trust, &cluster, "certificate-authority", "ca")?;
        }
        Ok(Self { authorization, identity, trust })
    }

    fn put_into(&self, config: &mut Value) {
        let Some(config) = config.as_object_mut() else { return };
        if config.remove("authorization").is_none() {
            return;
        }
        if let Some(authorization) = &self.authorization {
            config.insert("authorization".to_owned(), authorization.clone());
        }
        let tls = config.entry("tls_config").or_insert_with(|| json!({}));
        let Some(tls) = tls.as_object_mut() else { return };
        tls.extend(self.identity.clone());
        if tls.remove("ca_file").is_some() {
            tls.extend(self.trust.clone());
        }
    }
}

/// What a list of named objects holds below `key` under that name.
fn named<'v>(list: &'v Value, name: &str, key: &str) -> Option<&'v Value> {
    let found = list.as_array()?.iter().find(|one| one["name"].as_str() == Some(name))?;
    Some(&found[key])
}

/// Empty text is none.
fn text<'v>(of: &'v Value, key: &str) -> Option<&'v str> {
    of[key].as_str().filter(|text| !text.is_empty())
}

/// A value that is there as it is, or as the name of a file.
fn put(to: &mut Map<String, Value>, from: &Value, key: &str, name: &str) -> Result<(), String> {
    if let Some(data) = text(from, &format!("{key}-data")) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok();
        let pem = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let pem = pem.ok_or_else(|| format!("{key}-data is no PEM in base64"))?;
        to.insert(name.to_owned(), json!(pem));
    } else if let Some(file) = text(from, key) {
        to.insert(format!("{name}_file"), json!(file));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the keys of an API server's and a kubelet's config, and of one that says nobody who we are.
    fn lent(cluster: &str, user: &str) -> Result<Value, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kube.yml");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: here,
              clusters: [{{name: c, cluster: {{server: 'https://a:6443', {cluster}}}}}],
              users: [{{name: u, user: {{{user}}}}}], contexts: [{{name: here, context: {{cluster: c, user: u}}}}]}}"
        );
        std::fs::write(&path, text).unwrap();
        let account = json!({"credentials_file": "/token"});
        let mut configs = [
            json!({"authorization": account, "tls_config": {"ca_file": "/ca", "server_name": "kubernetes"}}),
            json!({"authorization": account, "tls_config": {"insecure_skip_verify": true}}),
            json!({"job_name": "x"}),
        ];
        lend(&mut configs, &path)?;
        let shown = json!(configs).to_string().replace(&*dir.path().to_string_lossy(), "DIR");
        Ok(serde_json::from_str(&shown).unwrap())
    }

    #[test]
    fn the_context_of_a_kubeconfig_says_who_we_are() {
        for (cluster, user, want) in [
            (
                "certificate-authority-data: Q0E=",
                "token: abc",
                json!([
                    {"authorization": {"credentials": "abc"}, "tls_config": {"ca": "CA", "server_name": "kubernetes"}},
                    {"authorization": {"credentials": "abc"}, "tls_config": {"insecure_skip_verify": true}},
                    {"job_name": "x"},
                ]),
            ),
            (
                "certificate-authority: ca.crt",
                "token: abc, tokenFile: token",
                json!([
                    {"authorization": {"credentials_file": "DIR/token"},
                     "tls_config": {"ca_file": "DIR/ca.crt", "server_name": "kubernetes"}},
                    {"authorization": {"credentials_file": "DIR/token"}, "tls_config": {"insecure_skip_verify": true}},
                    {"job_name": "x"},
                ]),
            ),
            (
                "insecure-skip-tls-verify: true",
                "client-certificate: a.crt, client-key-data: S0VZ",
                json!([
                    {"tls_config": {"cert_file": "DIR/a.crt", "key": "KEY", "insecure_skip_verify": true,
                     "server_name": "kubernetes"}},
                    {"tls_config": {"cert_file": "DIR/a.crt", "key": "KEY", "insecure_skip_verify": true}},
                    {"job_name": "x"},
                ]),
            ),
        ] {
            assert_eq!(lent(cluster, user), Ok(want), "{cluster} {user}");
        }
    }

    #[test]
    fn users_that_cannot_be_shown_to_targets_are_refused() {
        for (cluster, user, want) in [
            (
                "tls-server-name: a",
                "",
                "kube.yml: the user of context \"here\" has no credentials: give it a token",
            ),
            (
                "tls-server-name: a",
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: aws}",
                "the user of context \"here\" has \"exec\", which is not for targets: give it a token",
            ),
            ("tls-server-name: a", "username: me, password: hush", "has \"username\""),
            (
                "certificate-authority-data: '!'",
                "token: hush",
                "certificate-authority-data is no PEM in base64",
            ),
        ] {
            let error = lent(cluster, user).unwrap_err();
            assert!(error.contains(want) && !error.contains("hush"), "{error}");
        }
        let error = lend(&mut [], Path::new("/nowhere/kube.yml")).unwrap_err();
        assert!(error.starts_with("/nowhere/kube.yml: "), "{error}");
    }
}
