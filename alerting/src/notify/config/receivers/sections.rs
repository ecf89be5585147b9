//! The sections of receivers as the operator wrote them: the keys of Alertmanager 0.33, and `ntfy_configs`, which is ours.

use std::collections::BTreeMap;
use std::path::PathBuf;

use binnacle_outgoing::{RawTls, Secret};
use serde::Deserialize;
use serde_json::Value;

use super::super::http::RawHttp;

type Text = Option<String>;
type Hidden = Option<Secret>;
type File = Option<PathBuf>;
type Texts = Option<Vec<String>>;
type Map = Option<BTreeMap<String, String>>;

/// A section with its keys, and the two that all have.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(in crate::notify) struct $name {
            pub(in crate::notify::config) send_resolved: Option<bool>,
            pub(in crate::notify::config) http_config: Option<RawHttp>,
            $(pub(in crate::notify) $field: $kind,)*
        }
    };
}

section! {
    /// `webhook_configs`
    Webhook { url: Hidden, url_file: File, max_alerts: Option<usize>, timeout: Text, payload: Option<Value> }
}

section! {
    /// `slack_configs`
    Slack {
        api_url: Hidden, api_url_file: File, app_token: Hidden, app_token_file: File, app_url: Text, channel: Text,
        username: Text, color: Text, title: Text, title_link: Text, pretext: Text, text: Text, message_text: Text,
        fields: Option<Vec<Field>>, short_fields: Option<bool>, footer: Text, fallback: Text, callback_id: Text,
        icon_emoji: Text, icon_url: Text, image_url: Text, thumb_url: Text, link_names: Option<bool>, mrkdwn_in: Texts,
        actions: Option<Vec<SlackAction>>, update_message: Option<bool>, timeout: Text,
    }
}

/// A field of an attachment.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct Field {
    pub(in crate::notify) title: Text,
    pub(in crate::notify) value: Text,
    pub(in crate::notify) short: Option<bool>,
}

/// A button of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct SlackAction {
    #[serde(rename = "type")]
    pub(in crate::notify) kind: Text,
    pub(in crate::notify) text: Text,
    pub(in crate::notify) url: Text,
    pub(in crate::notify) style: Text,
    pub(in crate::notify) name: Text,
    pub(in crate::notify) value: Text,
    pub(in crate::notify) confirm: Option<SlackConfirm>,
}

/// What is asked before a button does something.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct SlackConfirm {
    pub(in crate::notify) text: Text,
    pub(in crate::notify) title: Text,
    pub(in crate::notify) ok_text: Text,
    pub(in crate::notify) dismiss_text: Text,
}

section! {
    /// `pagerduty_configs`
    PagerDuty {
        service_key: Hidden, service_key_file: File, routing_key: Hidden, routing_key_file: File, url: Text, client: Text,
        client_url: Text, description: Text, details: Option<BTreeMap<String, Value>>, images: Option<Vec<PagerDutyImage>>,
        links: Option<Vec<PagerDutyLink>>, source: Text, severity: Text, class: Text, component: Text, group: Text,
        timeout: Text,
    }
}

/// An image of an incident.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct PagerDutyImage {
    pub(in crate::notify) src: Text,
    pub(in crate::notify) alt: Text,
    pub(in crate::notify) href: Text,
}

/// A link of an incident.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct PagerDutyLink {
    pub(in crate::notify) href: Text,
    pub(in crate::notify) text: Text,
}

section! {
    /// `opsgenie_configs`
    Opsgenie {
        api_key: Hidden, api_key_file: File, api_url: Text, message: Text, description: Text, source: Text, details: Map,
        entity: Text, responders: Option<Vec<Responder>>, actions: Text, tags: Text, note: Text, priority: Text,
        update_alerts: Option<bool>,
    }
}

/// Who is told by Opsgenie.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct Responder {
    pub(in crate::notify) id: Text,
    pub(in crate::notify) name: Text,
    pub(in crate::notify) username: Text,
    #[serde(rename = "type")]
    pub(in crate::notify) kind: Text,
}

section! {
    /// `msteams_configs` and `msteamsv2_configs`
    Teams { webhook_url: Hidden, webhook_url_file: File, title: Text, summary: Text, text: Text }
}

section! {
    /// `telegram_configs`
    Telegram {
        api_url: Text, bot_token: Hidden, bot_token_file: File, chat_id: Option<i64>, chat_id_file: File,
        message_thread_id: Option<i64>, message: Text, disable_notifications: Option<bool>, parse_mode: Text,
    }
}

section! {
    /// `discord_configs`
    Discord {
        webhook_url: Hidden, webhook_url_file: File, content: Text, title: Text, message: Text, username: Text,
        avatar_url: Text,
    }
}

section! {
    /// `mattermost_configs`
    Mattermost {
        webhook_url: Hidden, webhook_url_file: File, channel: Text, username: Text, text: Text, fallback: Text, color: Text,
        pretext: Text, author_name: Text, author_link: Text, author_icon: Text, title: Text, title_link: Text,
        fields: Option<Vec<Field>>, thumb_url: Text, footer: Text, footer_icon: Text, image_url: Text, icon_url: Text,
        icon_emoji: Text, attachments: Option<Vec<Value>>, props: Option<Value>, priority: Option<Value>,
        short_fields: Option<bool>, link_names: Option<bool>, type_: Text,
    }
}

section! {
    /// `ntfy_configs`
    Ntfy {
        url: Text, topic: Text, token: Hidden, token_file: File, title: Text, message: Text, priority: Text, tags: Texts,
        click: Text, attach: Text,
    }
}

section! {
    /// `pushover_configs`
    Pushover {
        user_key: Hidden, user_key_file: File, token: Hidden, token_file: File, title: Text, message: Text, url: Text,
        url_title: Text, device: Text, sound: Text, priority: Text, retry: Text, expire: Text, ttl: Text,
        html: Option<bool>, monospace: Option<bool>,
    }
}

/// `email_configs`; it has no HTTP.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct Email {
    pub(in crate::notify::config) send_resolved: Option<bool>,
    pub(in crate::notify) to: Text,
    pub(in crate::notify) from: Text,
    pub(in crate::notify) hello: Text,
    pub(in crate::notify) smarthost: Text,
    pub(in crate::notify) auth_username: Text,
    pub(in crate::notify) auth_password: Hidden,
    pub(in crate::notify) auth_password_file: File,
    pub(in crate::notify) auth_secret: Hidden,
    pub(in crate::notify) auth_secret_file: File,
    pub(in crate::notify) auth_identity: Text,
    pub(in crate::notify) headers: Map,
    pub(in crate::notify) html: Text,
    pub(in crate::notify) text: Text,
    pub(in crate::notify) require_tls: Option<bool>,
    pub(in crate::notify) tls_config: Option<RawTls>,
    pub(in crate::notify) force_implicit_tls: Option<bool>,
    pub(in crate::notify) threading: Option<Threading>,
}

/// Whether mails of one group are one conversation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::notify) struct Threading {
    pub(in crate::notify) enabled: Option<bool>,
    pub(in crate::notify) thread_by_date: Text,
}

section! {
    /// `wechat_configs`
    WeChat {
        api_secret: Hidden, api_secret_file: File, corp_id: Text, message: Text, api_url: Text, to_user: Text,
        to_party: Text, to_tag: Text, agent_id: Text, message_type: Text,
    }
}

section! {
    /// `victorops_configs`
    VictorOps {
        api_key: Hidden, api_key_file: File, api_url: Text, routing_key: Text, message_type: Text, state_message: Text,
        entity_display_name: Text, monitoring_tool: Text, custom_fields: Map,
    }
}

section! {
    /// `sns_configs`
    Sns {
        api_url: Text, sigv4: Option<Value>, topic_arn: Text, phone_number: Text, target_arn: Text, subject: Text,
        message: Text, attributes: Map, use_aws_http_client: Option<bool>,
    }
}

section! {
    /// `webex_configs`
    Webex { api_url: Text, message: Text, room_id: Text }
}

section! {
    /// `jira_configs`
    Jira {
        api_url: Text, api_type: Text, project: Text, summary: Option<Value>, description: Option<Value>, labels: Texts,
        priority: Text, issue_type: Text, reopen_transition: Text, resolve_transition: Text, wont_fix_resolution: Text,
        reopen_duration: Text, fields: Option<BTreeMap<String, Value>>, custom_fields: Option<BTreeMap<String, Value>>,
    }
}

section! {
    /// `rocketchat_configs`
    RocketChat {
        api_url: Text, token_id: Hidden, token_id_file: File, token: Hidden, token_file: File, channel: Text, color: Text,
        title: Text, title_link: Text, text: Text, fields: Option<Vec<Field>>, short_fields: Option<bool>, emoji: Text,
        icon_url: Text, image_url: Text, thumb_url: Text, link_names: Option<bool>, actions: Option<Vec<Value>>,
    }
}

section! {
    /// `incidentio_configs`
    IncidentIo {
        url: Hidden, url_file: File, alert_source_token: Hidden, alert_source_token_file: File,
        max_alerts: Option<usize>, timeout: Text, metadata: Option<Value>,
    }
}
