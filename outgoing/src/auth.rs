//! Who we say that we are.

use std::path::{Path, PathBuf};

use base64::Engine;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{RawWay, Secret, Source};

/// `basic_auth`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBasicAuth {
    username: String,
    username_file: Option<PathBuf>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    pub(crate) username_ref: Option<IgnoredAny>,
    pub(crate) password_ref: Option<IgnoredAny>,
}

/// `authorization`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAuthorization {
    #[serde(rename = "type")]
    kind: String,
    credentials: Option<Secret>,
    credentials_file: Option<PathBuf>,
    pub(crate) credentials_ref: Option<IgnoredAny>,
}

/// Who we say that we are.
#[derive(Debug, Clone, Default)]
pub(crate) enum Auth {
    #[default]
    None,
    Basic {
        username: Source,
        password: Source,
    },
    Header {
        kind: String,
        credentials: Source,
    },
}

impl RawWay {
    pub(crate) fn auth(&self, dir: &Path) -> Result<Auth, String> {
        let ways = [
            self.basic_auth.is_some(),
            self.authorization.is_some(),
            self.bearer_token.is_some(),
            self.bearer_token_file.is_some(),
        ];
        if ways.iter().filter(|there| **there).count() > 1 {
            return Err(
                "at most one of basic_auth, authorization, bearer_token and bearer_token_file may be there"
                    .to_owned(),
            );
        }
        let one = |key: &str, text: Option<&Secret>, file: Option<&PathBuf>| match (text, file) {
            (Some(_), Some(_)) => Err(format!("{key} and {key}_file must not both be there")),
            (Some(text), None) => Ok(Some(Source::Text(text.clone()))),
            (None, Some(file)) => Ok(Some(Source::File(dir.join(file)))),
            (None, None) => Ok(None),
        };
        if let Some(basic) = &self.basic_auth {
            let username =
                Some(Secret::from(basic.username.clone())).filter(|name| !name.reveal().is_empty());
            let username = one("basic_auth.username", username.as_ref(), basic.username_file.as_ref())?;
            let password = one("basic_auth.password", basic.password.as_ref(), basic.password_file.as_ref())?;
            let nothing = || Source::Text(Secret::default());
            return Ok(Auth::Basic {
                username: username.unwrap_or_else(nothing),
                password: password.unwrap_or_else(nothing),
            });
        }
        let bearer = one("bearer_token", self.bearer_token.as_ref(), self.bearer_token_file.as_ref())?;
        if let Some(credentials) = bearer {
            return Ok(Auth::Header { kind: "Bearer".to_owned(), credentials });
        }
        let Some(raw) = &self.authorization else { return Ok(Auth::None) };
        let credentials =
            one("authorization.credentials", raw.credentials.as_ref(), raw.credentials_file.as_ref())?;
        let kind = if raw.kind.trim().is_empty() { "Bearer" } else { raw.kind.trim() };
        if kind.eq_ignore_ascii_case("basic") {
            return Err("authorization.type cannot be basic; say basic_auth instead".to_owned());
        }
        let Some(credentials) = credentials else {
            return Err("authorization.credentials or credentials_file is missing".to_owned());
        };
        Ok(Auth::Header { kind: kind.to_owned(), credentials })
    }
}

impl Auth {
    /// The value of the header, with what files hold by now.
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>, String> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Basic { username, password } => {
                let pair = format!("{}:{}", username.read().await?, password.read().await?);
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Self::Header { kind, credentials } => format!("{kind} {}", credentials.read().await?),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| "the credentials hold bytes that cannot stand in a header".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
