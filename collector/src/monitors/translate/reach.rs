//! How a monitor's targets are reached: credentials, TLS and proxies, with what the Secrets hold that it names.

use reqwest::Url;
use serde_json::{Map, Value, json};

use super::super::assets::Holder;
use super::super::views::{
    Authorization, BasicAuth, Endpoint, KeyRef, ProbeSpec, SecretOrConfigMap, TlsConfig,
};
use super::{Translator, put, put_text};
use binnacle_outgoing::Guarded;

/// Where the kubelet puts the agent's own account.
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount/";

/// What endpoints and probes say alike.
pub(super) struct Reach<'m> {
    tls: Option<&'m TlsConfig>,
    token_file: &'m str,
    token: Option<&'m KeyRef>,
    basic: Option<&'m BasicAuth>,
    authorization: Option<&'m Authorization>,
    has_oauth2: bool,
    proxy_url: Option<&'m str>,
    no_proxy: Option<&'m str>,
    proxy_from_environment: Option<bool>,
    has_proxy_header: bool,
}

impl<'m> Reach<'m> {
    pub(super) fn of_endpoint(of: &'m Endpoint) -> Self {
        Self {
            tls: of.tls_config.as_ref(),
            token_file: &of.bearer_token_file,
            token: of.bearer_token_secret.as_ref(),
            basic: of.basic_auth.as_ref(),
            authorization: of.authorization.as_ref(),
            has_oauth2: of.oauth2.is_some(),
            proxy_url: of.proxy_url.as_deref(),
            no_proxy: of.no_proxy.as_deref(),
            proxy_from_environment: of.proxy_from_environment,
            has_proxy_header: of.proxy_connect_header.is_some(),
        }
    }

    pub(super) fn of_probe(of: &'m ProbeSpec) -> Self {
        Self {
            tls: of.tls_config.as_ref(),
            token_file: "",
            token: of.bearer_token_secret.as_ref(),
            basic: of.basic_auth.as_ref(),
            authorization: of.authorization.as_ref(),
            has_oauth2: of.oauth2.is_some(),
            proxy_url: of.prober.proxy_url.as_deref(),
            no_proxy: of.prober.no_proxy.as_deref(),
            proxy_from_environment: of.prober.proxy_from_environment,
            has_proxy_header: of.prober.proxy_connect_header.is_some(),
        }
    }

    /// Whether anything is said.
    pub(super) fn is_said(&self) -> bool {
        self.tls.is_some()
            || self.token.is_some()
            || self.basic.is_some()
            || self.authorization.is_some()
            || self.has_oauth2
            || self.proxy_url.is_some()
    }
}

impl Translator<'_> {
    /// Adds the keys of Prometheus's `http_config`. `place` is where they stand in the monitor.
    pub(super) fn reach(
        &mut self,
        config: &mut Map<String, Value>,
        place: &str,
        reach: &Reach<'_>,
    ) -> Result<(), String> {
        if let Some(url) = reach.proxy_url {
            // The text is not repeated: it may hold a password.
            let parsed =
                Url::parse(url).map_err(|error| format!("{place}.proxyUrl cannot be read: {error}"))?;
            if Guarded::Metadata.has_host(&parsed) {
                return Err(format!("{place}.proxyUrl is {}", Guarded::Metadata.name()));
            }
            put(config, "proxy_url", json!(url));
        }
        put_text(config, "no_proxy", reach.no_proxy.unwrap_or_default());
        if let Some(is_wanted) = reach.proxy_from_environment {
            put(config, "proxy_from_environment", json!(is_wanted));
        }
        // Both are refused by name where the scrape config is checked.
        for (key, is_there) in
            [("proxy_connect_header", reach.has_proxy_header), ("oauth2", reach.has_oauth2)]
        {
            if is_there {
                put(config, key, json!({}));
            }
        }
        if let Some(tls) = reach.tls {
            let tls = self.tls(&format!("{place}.tlsConfig"), tls)?;
            put(config, "tls_config", tls);
        }
        if !reach.token_file.is_empty() {
            self.may_read(&format!("{place}.bearerTokenFile"), reach.token_file)?;
            put(config, "bearer_token_file", json!(reach.token_file));
        }
        if let Some(token) = reach.token.filter(|token| !token.name.is_empty()) {
            let token = self.value(&format!("{place}.bearerTokenSecret"), Holder::Secret, token)?;
            put(config, "bearer_token", json!(token));
        }
        if let Some(basic) = reach.basic {
            let mut one = |key: &str, of: &KeyRef| {
                if of.name.is_empty() {
                    Ok(String::new())
                } else {
                    self.value(&format!("{place}.basicAuth.{key}"), Holder::Secret, of)
                }
            };
            let (username, password) = (one("username", &basic.username)?, one("password", &basic.password)?);
            put(config, "basic_auth", json!({"username": username, "password": password}));
        }
        if let Some(authorization) = reach.authorization {
            let kind = Some(authorization.kind.trim()).filter(|kind| !kind.is_empty()).unwrap_or("Bearer");
            let mut said = json!({"type": kind});
            if let Some(credentials) = &authorization.credentials {
                let place = format!("{place}.authorization.credentials");
                said["credentials"] = json!(self.value(&place, Holder::Secret, credentials)?);
            }
            put(config, "authorization", said);
        }
        Ok(())
    }

    fn tls(&mut self, place: &str, tls: &TlsConfig) -> Result<Value, String> {
        let mut said = Map::new();
        if let Some(is_wanted) = tls.insecure_skip_verify {
            put(&mut said, "insecure_skip_verify", json!(is_wanted));
        }
        for (key, of) in [("ca", &tls.ca), ("cert", &tls.cert)] {
            if let Some(text) = self.secret_or_config_map(&format!("{place}.{key}"), of)? {
                put(&mut said, key, json!(text));
            }
        }
        if let Some(key) = &tls.key_secret {
            let text = self.value(&format!("{place}.keySecret"), Holder::Secret, key)?;
            put(&mut said, "key", json!(text));
        }
        let files = [("ca", &tls.ca_file), ("cert", &tls.cert_file), ("key", &tls.key_file)];
        for (key, path) in files.into_iter().filter(|(_, path)| !path.is_empty()) {
            self.may_read(&format!("{place}.{key}File"), path)?;
            put(&mut said, &format!("{key}_file"), json!(path));
        }
        let texts = [
            ("server_name", &tls.server_name),
            ("min_version", &tls.min_version),
            ("max_version", &tls.max_version),
        ];
        for (key, text) in texts {
            put_text(&mut said, key, text.as_deref().unwrap_or_default());
        }
        Ok(Value::Object(said))
    }

    fn secret_or_config_map(
        &mut self,
        place: &str,
        of: &SecretOrConfigMap,
    ) -> Result<Option<String>, String> {
        match (&of.secret, &of.config_map) {
            (Some(_), Some(_)) => Err(format!("{place}: secret and configMap must not both be there")),
            (Some(secret), None) => self.value(&format!("{place}.secret"), Holder::Secret, secret).map(Some),
            (None, Some(map)) => self.value(&format!("{place}.configMap"), Holder::ConfigMap, map).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Whether this monitor may name this file of the agent.
    fn may_read(&self, place: &str, path: &str) -> Result<(), String> {
        let files = self.files;
        let of_account = path.strip_prefix(ACCOUNT_DIR).is_some_and(|name| !name.contains(['/', '\\']));
        let of_account = of_account && !path.contains("..");
        let namespace = self.namespace;
        if files.any.contains(namespace) || (of_account && files.account.contains(namespace)) {
            return Ok(());
        }
        Err(format!(
            "{place}: {path:?} is a file of the agent; monitors of {namespace:?} may not read it: put the value into a Secret, or the namespace into kubernetes.monitors.file_access"
        ))
    }
}
