//! Receivers: who is told, and by what.
//!
//! `sections` has the keys, `checks` what must hold between them; a section that was checked is an [`Integration`].

mod checks;
mod sections;

use std::path::Path;

use binnacle_outgoing::Source;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::global::RawGlobal;
use super::http::{Http, RawHttp};
use crate::FileError;

pub(super) use checks::host_port;
pub(in crate::notify) use sections::{
    Discord, Email, Mattermost, Ntfy, Opsgenie, PagerDuty, Pushover, Slack, Teams, Telegram,
};

use sections::{IncidentIo, Jira, RocketChat, Sns, VictorOps, WeChat, Webex, Webhook};

type Sections<S> = Option<Vec<Spanned<Option<S>>>>;

/// A receiver as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawReceiver {
    pub(super) name: Option<Spanned<String>>,
    discord_configs: Sections<Discord>,
    email_configs: Sections<Email>,
    incidentio_configs: Sections<IncidentIo>,
    jira_configs: Sections<Jira>,
    mattermost_configs: Sections<Mattermost>,
    msteams_configs: Sections<Teams>,
    msteamsv2_configs: Sections<Teams>,
    ntfy_configs: Sections<Ntfy>,
    opsgenie_configs: Sections<Opsgenie>,
    pagerduty_configs: Sections<PagerDuty>,
    pushover_configs: Sections<Pushover>,
    rocketchat_configs: Sections<RocketChat>,
    slack_configs: Sections<Slack>,
    sns_configs: Sections<Sns>,
    telegram_configs: Sections<Telegram>,
    victorops_configs: Sections<VictorOps>,
    webex_configs: Sections<Webex>,
    webhook_configs: Sections<Webhook>,
    wechat_configs: Sections<WeChat>,
}

/// One of a receiver's sections, checked.
#[derive(Debug, Clone)]
pub(in crate::notify) struct Integration {
    /// As API v2 and metrics name it: `webhook`, `slack`.
    pub(in crate::notify) kind: &'static str,
    /// Among those of its kind.
    pub(in crate::notify) number: usize,
    pub(in crate::notify) send_resolved: bool,
    pub(in crate::notify) http: Http,
    pub(in crate::notify) what: What,
}

/// What a section is for.
#[derive(Debug, Clone)]
pub(in crate::notify) enum What {
    Webhook {
        url: Source,
        max_alerts: usize,
        timeout: std::time::Duration,
    },
    /// Where nothing can be sent by this release.
    None,
}

/// What a section answers once it was checked.
struct Checked {
    what: What,
    /// Where the section says nothing.
    send_resolved: bool,
}

/// A section that can be checked.
trait Section: Default {
    /// Its own two common keys.
    fn common(&mut self) -> (Option<bool>, Option<RawHttp>);

    fn check(self, has_authorization: bool, global: &RawGlobal, dir: &Path) -> Result<Checked, String>;
}

/// Checks the sections of all receivers in the order of the file.
pub(super) struct Checker<'c> {
    pub(super) file: &'c str,
    pub(super) dir: &'c Path,
    pub(super) global: &'c RawGlobal,
    pub(super) http: Http,
    pub(super) warnings: Vec<String>,
}

impl Checker<'_> {
    /// A receiver's integrations.
    pub(super) fn check(&mut self, raw: RawReceiver) -> Result<(String, Vec<Integration>), FileError> {
        let Some(name) = raw.name.filter(|name| !name.value.is_empty()) else {
            let reason = "missing name in receiver".to_owned();
            return Err(FileError { file: self.file.to_owned(), line: 0, column: 0, reason });
        };
        let mut found = Vec::new();
        self.sections(&mut found, &name.value, "webhook", raw.webhook_configs)?;
        self.sections(&mut found, &name.value, "email", raw.email_configs)?;
        self.sections(&mut found, &name.value, "pagerduty", raw.pagerduty_configs)?;
        self.sections(&mut found, &name.value, "opsgenie", raw.opsgenie_configs)?;
        self.sections(&mut found, &name.value, "wechat", raw.wechat_configs)?;
        self.sections(&mut found, &name.value, "slack", raw.slack_configs)?;
        self.sections(&mut found, &name.value, "victorops", raw.victorops_configs)?;
        self.sections(&mut found, &name.value, "pushover", raw.pushover_configs)?;
        self.sections(&mut found, &name.value, "sns", raw.sns_configs)?;
        self.sections(&mut found, &name.value, "telegram", raw.telegram_configs)?;
        self.sections(&mut found, &name.value, "discord", raw.discord_configs)?;
        self.sections(&mut found, &name.value, "webex", raw.webex_configs)?;
        self.sections(&mut found, &name.value, "msteams", raw.msteams_configs)?;
        self.sections(&mut found, &name.value, "msteamsv2", raw.msteamsv2_configs)?;
        self.sections(&mut found, &name.value, "jira", raw.jira_configs)?;
        self.sections(&mut found, &name.value, "rocketchat", raw.rocketchat_configs)?;
        self.sections(&mut found, &name.value, "mattermost", raw.mattermost_configs)?;
        self.sections(&mut found, &name.value, "incidentio", raw.incidentio_configs)?;
        self.sections(&mut found, &name.value, "ntfy", raw.ntfy_configs)?;
        Ok((name.value, found))
    }

    fn sections<S: Section>(
        &mut self,
        found: &mut Vec<Integration>,
        receiver: &str,
        kind: &'static str,
        sections: Sections<S>,
    ) -> Result<(), FileError> {
        for (number, section) in sections.unwrap_or_default().into_iter().enumerate() {
            let place = section.referenced;
            let refuse = |reason: String| {
                FileError::at(self.file, &place, format!("receiver {receiver:?}: {kind}_configs: {reason}"))
            };
            let Some(mut section) = section.value else {
                return Err(refuse(format!("missing {kind} config")));
            };
            let (send_resolved, http) = section.common();
            let has_authorization = http.as_ref().is_some_and(RawHttp::has_authorization);
            let (http, unknown) = match http {
                Some(http) => {
                    http.check(self.dir).map_err(|reason| refuse(format!("http_config: {reason}")))?
                }
                None => (self.http.clone(), None),
            };
            let checked = section.check(has_authorization, self.global, self.dir).map_err(refuse)?;
            if let Some(key) = unknown {
                self.warnings.push(format!(
                    "{}: receiver {receiver:?}: {kind}_configs: http_config.{key} is not followed by this release",
                    self.file
                ));
            }
            if matches!(checked.what, What::None) {
                self.warnings.push(format!(
                    "{}: receiver {receiver:?}: {kind}_configs cannot be sent to by this release; alerts routed there are shown on the page only",
                    self.file
                ));
            }
            let send_resolved = send_resolved.unwrap_or(checked.send_resolved);
            found.push(Integration { kind, number, send_resolved, http, what: checked.what });
        }
        Ok(())
    }
}
