//! What must hold within a section, and between it and `global`. Worded as by Alertmanager, where it words it.

use std::path::Path;
use std::time::Duration;

use binnacle_model::time::parse_duration;
use binnacle_outgoing::Secret;

use super::super::global::RawGlobal;
use super::super::http::{RawHttp, check_url, go_duration, source, url_source};
use super::sections::{
    Discord, Email, Field, IncidentIo, Jira, Mattermost, Ntfy, Opsgenie, PagerDuty, Pushover, RocketChat,
    Slack, Sns, Teams, Telegram, VictorOps, WeChat, Webex, Webhook,
};
use super::{Checked, Section, What};

/// Without an answer in this time an attempt has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, String>;

/// The two keys that sections share.
macro_rules! common {
    () => {
        fn common(&mut self) -> (Option<bool>, Option<RawHttp>) {
            (self.send_resolved, self.http_config.take())
        }
    };
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(reason.into())
}

fn is_there(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

fn is_secret(text: Option<&Secret>) -> bool {
    text.is_some_and(|text| !text.reveal().is_empty())
}

/// Nothing can be sent there yet.
fn unsent(send_resolved: bool) -> Checked {
    Checked { what: What::None, send_resolved }
}

fn checked_url(key: &str, url: Option<&String>) -> Result<()> {
    match url.filter(|url| !url.is_empty() && !url.contains("{{")) {
        Some(url) => check_url(key, url).map(|_| ()),
        None => Ok(()),
    }
}

/// `host:port`
pub(in crate::notify::config) fn host_port(text: &str) -> Result<(String, u16)> {
    let (host, port) =
        text.rsplit_once(':').ok_or_else(|| format!("address {text}: missing port in address"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if port.is_empty() {
        return refuse(format!("address {text:?}: port cannot be empty"));
    }
    let port = port.parse().map_err(|_| format!("address {text:?}: port {port:?} is no number"))?;
    Ok((host.to_owned(), port))
}

fn timeout(text: Option<&String>) -> Result<Duration> {
    let given = text.map(|text| go_duration("timeout", text)).transpose()?;
    Ok(given.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT))
}

impl Section for Webhook {
    common!();

    fn check(self, _: bool, _: &RawGlobal, dir: &Path) -> Result<Checked> {
        let url = url_source("url", self.url, self.url_file, dir)?;
        let Some(url) = url else { return refuse("one of url or url_file must be configured") };
        let timeout = timeout(self.timeout.as_ref())?;
        let what = What::Webhook { url, max_alerts: self.max_alerts.unwrap_or(0), timeout };
        Ok(Checked { what, send_resolved: true })
    }
}

impl Section for Email {
    fn common(&mut self) -> (Option<bool>, Option<RawHttp>) {
        (self.send_resolved, None)
    }

    fn check(self, _: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        if !is_there(self.to.as_ref()) {
            return refuse("missing to address in email config");
        }
        match self.smarthost.as_ref().filter(|host| !host.is_empty()) {
            Some(host) => _ = host_port(host)?,
            None if is_there(global.smtp_smarthost.as_ref()) => {}
            None => return refuse("no global SMTP smarthost set"),
        }
        if !is_there(self.from.as_ref()) && !is_there(global.smtp_from.as_ref()) {
            return refuse("no global SMTP from set");
        }
        let mut names: Vec<String> = Vec::new();
        for name in self.headers.iter().flatten().map(|(name, _)| name.to_ascii_lowercase()) {
            if names.contains(&name) {
                return refuse(format!("duplicate header {name:?} in email config"));
            }
            names.push(name);
        }
        if let Some(threading) = self.threading.filter(|threading| threading.enabled == Some(true)) {
            for header in ["References", "In-Reply-To"] {
                if names.contains(&header.to_ascii_lowercase()) {
                    return refuse(format!(
                        "conflicting configuration: threading.enabled conflicts with custom {header} header"
                    ));
                }
            }
            if !matches!(threading.thread_by_date.as_deref(), Some("none" | "daily")) {
                return refuse("threading.thread_by_date must be either 'none' or 'daily'");
            }
        }
        source("auth_password", self.auth_password, self.auth_password_file, dir)?;
        source("auth_secret", self.auth_secret, self.auth_secret_file, dir)?;
        Ok(unsent(false))
    }
}

fn titled(fields: Option<&Vec<Field>>, where_: &str) -> Result<()> {
    for field in fields.into_iter().flatten() {
        for (key, text) in [("title", &field.title), ("value", &field.value)] {
            if !is_there(text.as_ref()) {
                return refuse(format!("missing {key} in {where_} field configuration"));
            }
        }
    }
    Ok(())
}

impl Section for Slack {
    common!();

    fn check(self, has_authorization: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        const APP_URL: &str = "https://slack.com/api/chat.postMessage";
        let is_bot = self.api_url.as_ref().is_some_and(|url| url.reveal() == APP_URL);
        let has_url = is_secret(self.api_url.as_ref()) || self.api_url_file.is_some();
        let has_token = is_secret(self.app_token.as_ref()) || self.app_token_file.is_some();
        url_source("api_url", self.api_url, self.api_url_file, dir)?;
        source("app_token", self.app_token, self.app_token_file, dir)?;
        checked_url("app_url", self.app_url.as_ref())?;
        if has_url && has_token {
            return refuse(
                "at most one of api_url/api_url_file & app_token/app_token_file must be configured",
            );
        }
        if self.update_message == Some(true) && !is_bot {
            return refuse(format!(
                "update_message can only be used with bot tokens. api_url must be set to {APP_URL}"
            ));
        }
        let global_token =
            is_secret(global.slack_app_token.as_ref()) || global.slack_app_token_file.is_some();
        let global_url = is_secret(global.slack_api_url.as_ref()) || global.slack_api_url_file.is_some();
        if !(has_url || has_token || global_url || (global_token && !has_authorization)) {
            return refuse("no Slack API URL nor App token set either inline or in a file");
        }
        if has_token && has_authorization {
            return refuse("http authorization can't be set when using Slack App tokens");
        }
        titled(self.fields.as_ref(), "Slack")?;
        for action in self.actions.iter().flatten() {
            for (key, text) in [("type", &action.kind), ("text", &action.text)] {
                if !is_there(text.as_ref()) {
                    return refuse(format!("missing {key} in Slack action configuration"));
                }
            }
            if !is_there(action.url.as_ref()) && !is_there(action.name.as_ref()) {
                return refuse("missing name or url in Slack action configuration");
            }
            if action.confirm.as_ref().is_some_and(|confirm| !is_there(confirm.text.as_ref())) {
                return refuse("missing text in Slack confirmation configuration");
            }
        }
        timeout(self.timeout.as_ref())?;
        Ok(unsent(false))
    }
}

impl Section for PagerDuty {
    common!();

    fn check(self, _: bool, _: &RawGlobal, dir: &Path) -> Result<Checked> {
        let routing = source("routing_key", self.routing_key, self.routing_key_file, dir)?;
        let service = source("service_key", self.service_key, self.service_key_file, dir)?;
        if routing.is_none() && service.is_none() {
            return refuse("missing service or routing key in PagerDuty config");
        }
        checked_url("url", self.url.as_ref())?;
        timeout(self.timeout.as_ref())?;
        Ok(unsent(true))
    }
}

impl Section for Opsgenie {
    common!();

    fn check(self, _: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        let key = source("api_key", self.api_key, self.api_key_file, dir)?;
        if key.is_none()
            && !is_secret(global.opsgenie_api_key.as_ref())
            && global.opsgenie_api_key_file.is_none()
        {
            return refuse("no global OpsGenie API Key set either inline or in a file");
        }
        checked_url("api_url", self.api_url.as_ref())?;
        for responder in self.responders.iter().flatten() {
            let names = [&responder.id, &responder.name, &responder.username];
            if !names.iter().any(|name| is_there(name.as_ref())) {
                return refuse(
                    "opsGenieConfig responder has to have at least one of id, username or name specified",
                );
            }
            let kind = responder.kind.as_deref().unwrap_or_default();
            let known = ["team", "teams", "user", "escalation", "schedule"];
            if !kind.contains("{{") && !known.contains(&kind.to_ascii_lowercase().as_str()) {
                return refuse(format!(
                    "opsGenieConfig responder type {kind:?} does not match valid options {}",
                    known.join(", ")
                ));
            }
        }
        Ok(unsent(true))
    }
}

impl Section for Teams {
    common!();

    fn check(self, _: bool, _: &RawGlobal, dir: &Path) -> Result<Checked> {
        match url_source("webhook_url", self.webhook_url, self.webhook_url_file, dir)? {
            Some(_) => Ok(unsent(true)),
            None => refuse("one of webhook_url or webhook_url_file must be configured"),
        }
    }
}

impl Section for Discord {
    common!();

    fn check(self, _: bool, _: &RawGlobal, dir: &Path) -> Result<Checked> {
        match url_source("webhook_url", self.webhook_url, self.webhook_url_file, dir)? {
            Some(_) => Ok(unsent(true)),
            None => refuse("one of webhook_url or webhook_url_file must be configured"),
        }
    }
}

impl Section for Telegram {
    common!();

    fn check(self, _: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        let token = source("bot_token", self.bot_token, self.bot_token_file, dir)?;
        if token.is_none()
            && !is_secret(global.telegram_bot_token.as_ref())
            && global.telegram_bot_token_file.is_none()
        {
            return refuse("missing bot_token or bot_token_file on telegram_config");
        }
        let has_chat = self.chat_id.is_some_and(|id| id != 0);
        match (has_chat, self.chat_id_file.is_some()) {
            (false, false) => return refuse("missing chat_id or chat_id_file on telegram_config"),
            (true, true) => return refuse("at most one of chat_id & chat_id_file must be configured"),
            _ => {}
        }
        if !matches!(self.parse_mode.as_deref(), None | Some("" | "Markdown" | "MarkdownV2" | "HTML")) {
            return refuse(
                "unknown parse_mode on telegram_config, must be Markdown, MarkdownV2, HTML or empty string",
            );
        }
        checked_url("api_url", self.api_url.as_ref())?;
        Ok(unsent(true))
    }
}

impl Section for Mattermost {
    common!();

    fn check(self, _: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        let url = url_source("webhook_url", self.webhook_url, self.webhook_url_file, dir)?;
        let has_global =
            is_secret(global.mattermost_webhook_url.as_ref()) || global.mattermost_webhook_url_file.is_some();
        if url.is_none() && !has_global {
            return refuse("missing webhook_url or webhook_url_file on mattermost_config");
        }
        titled(self.fields.as_ref(), "Mattermost")?;
        Ok(unsent(true))
    }
}

impl Section for Ntfy {
    common!();

    fn check(self, _: bool, _: &RawGlobal, dir: &Path) -> Result<Checked> {
        if !is_there(self.topic.as_ref()) {
            return refuse("missing topic on ntfy_config");
        }
        source("token", self.token, self.token_file, dir)?;
        checked_url("url", self.url.as_ref())?;
        Ok(unsent(true))
    }
}

impl Section for Pushover {
    common!();

    fn check(self, _: bool, _: &RawGlobal, dir: &Path) -> Result<Checked> {
        if source("user_key", self.user_key, self.user_key_file, dir)?.is_none() {
            return refuse("one of user_key or user_key_file must be configured");
        }
        if source("token", self.token, self.token_file, dir)?.is_none() {
            return refuse("one of token or token_file must be configured");
        }
        if self.html == Some(true) && self.monospace == Some(true) {
            return refuse("at most one of monospace & html must be configured");
        }
        for (key, text) in [("retry", &self.retry), ("expire", &self.expire), ("ttl", &self.ttl)] {
            text.as_ref().map(|text| go_duration(key, text)).transpose()?;
        }
        Ok(unsent(true))
    }
}

impl Section for WeChat {
    common!();

    fn check(self, _: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        let kind = self.message_type.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("text");
        if !matches!(kind, "text" | "markdown") {
            return refuse(format!(
                "weChat message type {kind:?} does not match valid options ^(text|markdown)$"
            ));
        }
        let secret = source("api_secret", self.api_secret, self.api_secret_file, dir)?;
        if secret.is_none()
            && !is_secret(global.wechat_api_secret.as_ref())
            && global.wechat_api_secret_file.is_none()
        {
            return refuse("no global Wechat Api Secret set either inline or in a file");
        }
        if !is_there(self.corp_id.as_ref()) && !is_there(global.wechat_api_corp_id.as_ref()) {
            return refuse("no global Wechat CorpID set");
        }
        checked_url("api_url", self.api_url.as_ref())?;
        Ok(unsent(false))
    }
}

impl Section for VictorOps {
    common!();

    fn check(self, _: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        const RESERVED: [&str; 7] = [
            "routing_key",
            "message_type",
            "state_message",
            "entity_display_name",
            "monitoring_tool",
            "entity_id",
            "entity_state",
        ];
        if !is_there(self.routing_key.as_ref()) {
            return refuse("missing Routing key in VictorOps config");
        }
        if let Some((field, _)) =
            self.custom_fields.iter().flatten().find(|(key, _)| RESERVED.contains(&key.as_str()))
        {
            return refuse(format!(
                "victorOps config contains custom field {field} which cannot be used as it conflicts with the fixed/static fields"
            ));
        }
        let key = source("api_key", self.api_key, self.api_key_file, dir)?;
        if key.is_none()
            && !is_secret(global.victorops_api_key.as_ref())
            && global.victorops_api_key_file.is_none()
        {
            return refuse("no global VictorOps API Key set");
        }
        checked_url("api_url", self.api_url.as_ref())?;
        Ok(unsent(true))
    }
}

impl Section for Sns {
    common!();

    fn check(self, _: bool, _: &RawGlobal, _: &Path) -> Result<Checked> {
        let given = [&self.target_arn, &self.topic_arn, &self.phone_number];
        // Alertmanager takes all three, too.
        if given.iter().filter(|text| is_there(text.as_ref())).count() % 2 == 0 {
            return refuse("must provide either a Target ARN, Topic ARN, or Phone Number for SNS config");
        }
        Ok(unsent(true))
    }
}

impl Section for Webex {
    common!();

    fn check(self, has_authorization: bool, _: &RawGlobal, _: &Path) -> Result<Checked> {
        if !is_there(self.room_id.as_ref()) {
            return refuse("missing room_id on webex_config");
        }
        if !has_authorization {
            return refuse("missing webex_configs.http_config.authorization");
        }
        checked_url("api_url", self.api_url.as_ref())?;
        Ok(unsent(true))
    }
}

impl Section for Jira {
    common!();

    fn check(self, _: bool, global: &RawGlobal, _: &Path) -> Result<Checked> {
        for (key, text) in [("project", &self.project), ("issue_type", &self.issue_type)] {
            if !is_there(text.as_ref()) {
                return refuse(format!("missing {key} on jira_config"));
            }
        }
        if !is_there(self.api_url.as_ref()) && !is_there(global.jira_api_url.as_ref()) {
            return refuse("no global Jira Cloud URL set");
        }
        if !matches!(self.api_type.as_deref(), None | Some("" | "auto" | "cloud" | "datacenter")) {
            return refuse("unknown api_type on jira_config, must be auto, cloud or datacenter");
        }
        self.reopen_duration.as_deref().map(parse_duration).transpose()?;
        checked_url("api_url", self.api_url.as_ref())?;
        Ok(unsent(true))
    }
}

impl Section for RocketChat {
    common!();

    fn check(self, _: bool, global: &RawGlobal, dir: &Path) -> Result<Checked> {
        let token = source("token", self.token, self.token_file, dir)?;
        let id = source("token_id", self.token_id, self.token_id_file, dir)?;
        let has = |text: &Option<Secret>, file: bool| is_secret(text.as_ref()) || file;
        if id.is_none() && !has(&global.rocketchat_token_id, global.rocketchat_token_id_file.is_some()) {
            return refuse("no global Rocketchat TokenID set either inline or in a file");
        }
        if token.is_none() && !has(&global.rocketchat_token, global.rocketchat_token_file.is_some()) {
            return refuse("no global Rocketchat Token set either inline or in a file");
        }
        checked_url("api_url", self.api_url.as_ref())?;
        Ok(unsent(false))
    }
}

impl Section for IncidentIo {
    common!();

    fn check(self, has_authorization: bool, _: &RawGlobal, dir: &Path) -> Result<Checked> {
        if url_source("url", self.url, self.url_file, dir)?.is_none() {
            return refuse("one of url or url_file must be configured");
        }
        let token = source("alert_source_token", self.alert_source_token, self.alert_source_token_file, dir)?;
        if token.is_some() && has_authorization {
            return refuse(
                "cannot specify alert_source_token or alert_source_token_file when using http_config.authorization",
            );
        }
        timeout(self.timeout.as_ref())?;
        Ok(unsent(true))
    }
}
