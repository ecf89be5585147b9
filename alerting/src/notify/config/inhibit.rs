//! Inhibition: alerts that say nothing while others of which they are a consequence fire.

use std::collections::BTreeMap;

use binnacle_model::matcher::all_match;
use binnacle_model::yaml::null_is_default;
use binnacle_model::{Labels, Matcher};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::route::{Wrong, matchers_of};
use crate::FileError;

/// A rule as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawInhibit {
    name: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    source_match: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "null_is_default")]
    source_match_re: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "null_is_default")]
    source_matchers: Vec<Spanned<String>>,
    #[serde(deserialize_with = "null_is_default")]
    target_match: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "null_is_default")]
    target_match_re: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "null_is_default")]
    target_matchers: Vec<Spanned<String>>,
    #[serde(deserialize_with = "null_is_default")]
    equal: Vec<String>,
}

/// Which alerts keep which others silent.
#[derive(Debug, Clone)]
pub(in crate::notify) struct Inhibit {
    source: Vec<Matcher>,
    target: Vec<Matcher>,
    /// Labels that must be the same in both; what neither has is the same.
    equal: Vec<String>,
}

impl RawInhibit {
    pub(super) fn check(raw: Spanned<Self>, file: &str) -> Result<Inhibit, FileError> {
        let place = raw.referenced;
        let raw = raw.value;
        let called = raw.name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
        let at = |error: Wrong| match error {
            Wrong::Here(reason) => FileError::at(file, &place, format!("inhibit rule{called}: {reason}")),
            Wrong::There(error) => error,
        };
        Ok(Inhibit {
            source: matchers_of(file, &raw.source_match, &raw.source_match_re, &raw.source_matchers)
                .map_err(at)?,
            target: matchers_of(file, &raw.target_match, &raw.target_match_re, &raw.target_matchers)
                .map_err(at)?,
            equal: raw.equal,
        })
    }
}

impl Inhibit {
    /// Whether such an alert keeps others silent.
    pub(in crate::notify) fn is_source(&self, labels: &Labels) -> bool {
        all_match(&self.source, labels)
    }

    /// Whether such an alert is kept silent.
    pub(in crate::notify) fn is_target(&self, labels: &Labels) -> bool {
        all_match(&self.target, labels)
    }

    /// What both must have the same of.
    pub(in crate::notify) fn key(&self, labels: &Labels) -> Vec<String> {
        self.equal.iter().map(|name| labels.value(name).to_owned()).collect()
    }
}
