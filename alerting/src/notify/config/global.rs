//! `global`: what receivers take where they say nothing themselves.

use std::path::PathBuf;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_outgoing::{RawTls, Secret};
use serde::Deserialize;

use super::http::RawHttp;

/// `global` as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGlobal {
    #[serde(with = "optional_duration")]
    pub(super) resolve_timeout: Option<Duration>,
    pub(super) http_config: Option<RawHttp>,
    pub(super) jira_api_url: Option<String>,
    pub(super) smtp_from: Option<String>,
    pub(super) smtp_hello: Option<String>,
    pub(super) smtp_smarthost: Option<String>,
    pub(super) smtp_auth_username: Option<String>,
    pub(super) smtp_auth_password: Option<Secret>,
    pub(super) smtp_auth_password_file: Option<PathBuf>,
    pub(super) smtp_auth_secret: Option<Secret>,
    pub(super) smtp_auth_secret_file: Option<PathBuf>,
    pub(super) smtp_auth_identity: Option<String>,
    pub(super) smtp_require_tls: Option<bool>,
    pub(super) smtp_tls_config: Option<RawTls>,
    pub(super) smtp_force_implicit_tls: Option<bool>,
    pub(super) slack_api_url: Option<Secret>,
    pub(super) slack_api_url_file: Option<PathBuf>,
    pub(super) slack_app_token: Option<Secret>,
    pub(super) slack_app_token_file: Option<PathBuf>,
    pub(super) slack_app_url: Option<String>,
    pub(super) pagerduty_url: Option<String>,
    pub(super) opsgenie_api_url: Option<String>,
    pub(super) opsgenie_api_key: Option<Secret>,
    pub(super) opsgenie_api_key_file: Option<PathBuf>,
    pub(super) wechat_api_url: Option<String>,
    pub(super) wechat_api_secret: Option<Secret>,
    pub(super) wechat_api_secret_file: Option<PathBuf>,
    pub(super) wechat_api_corp_id: Option<String>,
    pub(super) victorops_api_url: Option<String>,
    pub(super) victorops_api_key: Option<Secret>,
    pub(super) victorops_api_key_file: Option<PathBuf>,
    pub(super) telegram_api_url: Option<String>,
    pub(super) telegram_bot_token: Option<Secret>,
    pub(super) telegram_bot_token_file: Option<PathBuf>,
    pub(super) webex_api_url: Option<String>,
    pub(super) rocketchat_api_url: Option<String>,
    pub(super) rocketchat_token: Option<Secret>,
    pub(super) rocketchat_token_file: Option<PathBuf>,
    pub(super) rocketchat_token_id: Option<Secret>,
    pub(super) rocketchat_token_id_file: Option<PathBuf>,
    pub(super) mattermost_webhook_url: Option<Secret>,
    pub(super) mattermost_webhook_url_file: Option<PathBuf>,
}

impl RawGlobal {
    /// What may be said in one way only.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_there = |text: &Option<Secret>| text.as_ref().is_some_and(|text| !text.reveal().is_empty());
        let pairs = [
            ("smtp_auth_password", &self.smtp_auth_password, &self.smtp_auth_password_file),
            ("smtp_auth_secret", &self.smtp_auth_secret, &self.smtp_auth_secret_file),
            ("slack_api_url", &self.slack_api_url, &self.slack_api_url_file),
            ("slack_app_token", &self.slack_app_token, &self.slack_app_token_file),
            ("opsgenie_api_key", &self.opsgenie_api_key, &self.opsgenie_api_key_file),
            ("victorops_api_key", &self.victorops_api_key, &self.victorops_api_key_file),
            ("telegram_bot_token", &self.telegram_bot_token, &self.telegram_bot_token_file),
            ("rocketchat_token", &self.rocketchat_token, &self.rocketchat_token_file),
            ("rocketchat_token_id", &self.rocketchat_token_id, &self.rocketchat_token_id_file),
            ("wechat_api_secret", &self.wechat_api_secret, &self.wechat_api_secret_file),
            ("mattermost_webhook_url", &self.mattermost_webhook_url, &self.mattermost_webhook_url_file),
        ];
        if let Some((key, ..)) = pairs.iter().find(|(_, text, file)| is_there(text) && file.is_some()) {
            return Err(format!("at most one of {key} & {key}_file must be configured"));
        }
        let has_token = is_there(&self.slack_app_token) || self.slack_app_token_file.is_some();
        let has_url = is_there(&self.slack_api_url) || self.slack_api_url_file.is_some();
        if has_token && has_url {
            let tokens = "slack_app_token/slack_app_token_file";
            return Err(format!(
                "at most one of {tokens} & slack_api_url/slack_api_url_file must be configured"
            ));
        }
        if let Some(host) = self.smtp_smarthost.as_deref().filter(|host| !host.is_empty()) {
            super::receivers::host_port(host).map_err(|reason| format!("smtp_smarthost: {reason}"))?;
        }
        Ok(())
    }
}
