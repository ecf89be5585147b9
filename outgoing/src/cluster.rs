//! The same way, to the API of a Kubernetes cluster: in the form of a kubeconfig, as its client wants it.

use base64::Engine;
use serde_json::{Map, Value, json};

use super::auth::Auth;
use super::transport::ProxyChoice;
use super::{Source, Way};

impl Way {
    /// A kubeconfig for the API at this URL. Files of tokens and authorities are read again by the client.
    ///
    /// # Errors
    /// A sentence about a key that such a client has nothing for.
    pub fn kubeconfig(&self, server: &str) -> Result<Value, String> {
        let (mut cluster, mut user) = (Map::new(), Map::new());
        let put = |to: &mut Map<String, Value>, key: &str, source: &Source| match source {
            Source::File(path) => _ = to.insert(key.to_owned(), json!(path)),
            Source::Text(text) => {
                let data = base64::engine::general_purpose::STANDARD.encode(text.reveal());
                to.insert(format!("{key}-data"), json!(data));
            }
        };
        cluster.insert("server".to_owned(), json!(server));
        cluster.insert("insecure-skip-tls-verify".to_owned(), json!(self.tls.insecure_skip_verify));
        if let Some(name) = &self.tls.server_name {
            cluster.insert("tls-server-name".to_owned(), json!(name));
        }
        if let Some(ca) = &self.tls.ca {
            put(&mut cluster, "certificate-authority", ca);
        }
        if let Some((certificate, key)) = &self.tls.identity {
            put(&mut user, "client-certificate", certificate);
            put(&mut user, "client-key", key);
        }
        match &self.auth {
            Auth::None => {}
            Auth::Header { kind, credentials } if kind.eq_ignore_ascii_case("bearer") => {
                let (key, value) = match credentials {
                    Source::File(path) => ("tokenFile", json!(path)),
                    Source::Text(text) => ("token", json!(text.reveal())),
                };
                user.insert(key.to_owned(), value);
            }
            Auth::Basic { username: Source::Text(name), password: Source::Text(password) } => {
                user.insert("username".to_owned(), json!(name.reveal()));
                user.insert("password".to_owned(), json!(password.reveal()));
            }
            Auth::Basic { .. } => {
                return Err("basic_auth of a cluster's API cannot be in files; use authorization".to_owned());
            }
            Auth::Header { kind, .. } => {
                return Err(format!("authorization.type {kind:?} is not known to a cluster's API"));
            }
        }
        if !matches!(self.proxy, ProxyChoice::None) || self.has_headers() {
            return Err("proxies and http_headers are not supported for a cluster's API".to_owned());
        }
        Ok(json!({
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "here", "user": user}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
        }))
    }
}
