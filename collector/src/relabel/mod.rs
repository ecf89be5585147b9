//! Relabelling as in Prometheus: rules that change labels, or say that what has them goes.
//!
//! ```text
//! labels ─► rule ─► rule ─► … ─► labels, or nothing
//!            └ joins the values of `source_labels`, matches `regex` against all of it, acts
//! ```
//!
//! Follows `model/relabel/relabel.go` of Prometheus 3: defaults, checks, the order of labels in `labelmap`, and Go's
//! references (`$1`, `${name}`, `$$`) in `replacement` and `target_label`.

mod expand;

use binnacle_model::Labels;
use binnacle_model::regexes::anchored;
use binnacle_model::yaml::null_is_default;
use md5::{Digest, Md5};
use regex::Regex;
use serde::{Deserialize, Serialize, Serializer};

use expand::expand;

/// Compiled size of one regular expression.
const REGEX_MAX_BYTES: usize = 4 * 1024 * 1024;

const SEPARATOR: &str = ";";
const REGEX: &str = "(.*)";
const REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Action {
    /// Sets the target to the replacement where the regex matches.
    #[default]
    Replace,
    /// Goes on with what matches.
    Keep,
    /// Goes on with what does not match.
    Drop,
    /// Goes on with what equals the target.
    KeepEqual,
    /// Goes on with what differs from the target.
    DropEqual,
    /// Sets the target to a hash of the sources, below the modulus.
    HashMod,
    /// Copies labels whose names match to names that the replacement says.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Sets the target to the sources in lower case.
    Lowercase,
    /// Sets the target to the sources in upper case.
    Uppercase,
}

const ACTIONS: [Action; 11] = [
    Action::Replace,
    Action::Keep,
    Action::Drop,
    Action::KeepEqual,
    Action::DropEqual,
    Action::HashMod,
    Action::LabelMap,
    Action::LabelDrop,
    Action::LabelKeep,
    Action::Lowercase,
    Action::Uppercase,
];

/// In any case, as Prometheus reads it.
impl TryFrom<String> for Action {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = ACTIONS.into_iter().find(|action| action.name().eq_ignore_ascii_case(&text));
        known.ok_or_else(|| format!("unknown relabel action {text:?}"))
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    fn needs_target(self) -> bool {
        use Action::{DropEqual, HashMod, KeepEqual, Lowercase, Replace, Uppercase};
        matches!(self, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual)
    }
}

/// A rule as the operator wrote it. Nothing here has been checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRule {
    #[serde(deserialize_with = "null_is_default")]
    source_labels: Vec<String>,
    separator: Option<String>,
    target_label: String,
    regex: Option<String>,
    modulus: u64,
    replacement: Option<String>,
    action: Action,
}

/// A rule. As JSON it has the keys of Prometheus's API, which leaves out what is empty.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_labels: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    separator: String,
    #[serde(rename = "regex")]
    pattern: String,
    #[serde(skip)]
    regex: Regex,
    #[serde(skip_serializing_if = "is_zero")]
    modulus: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    target_label: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    replacement: String,
    action: Action,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The regular expression.
    #[error("regex {pattern:?} cannot be used: {reason}")]
    Regex {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Keys that do not go together.
    #[error("action {action}: {reason}")]
    Keys {
        /// Of the rule.
        action: &'static str,
        /// Which keys, and what to do.
        reason: String,
    },
}

impl TryFrom<RawRule> for Rule {
    type Error = RuleError;

    fn try_from(raw: RawRule) -> Result<Self, RuleError> {
        check(&raw).map_err(|reason| RuleError::Keys { action: raw.action.name(), reason })?;
        let RawRule { source_labels, separator, target_label, regex, modulus, replacement, action } = raw;
        let pattern = regex.unwrap_or_else(|| REGEX.to_owned());
        let regex = anchored(&pattern, REGEX_MAX_BYTES)
            .map_err(|reason| RuleError::Regex { pattern: pattern.clone(), reason })?;
        Ok(Self {
            source_labels,
            separator: separator.unwrap_or_else(|| SEPARATOR.to_owned()),
            target_label,
            pattern,
            regex,
            modulus,
            replacement: replacement.unwrap_or_else(|| REPLACEMENT.to_owned()),
            action,
        })
    }
}

/// The rules below `key`; an error names the one that is none.
pub fn read_rules(key: &str, raw: Vec<RawRule>) -> Result<Vec<Rule>, String> {
    let read = |(at, raw)| Rule::try_from(raw).map_err(|error| format!("{key}[{at}]: {error}"));
    raw.into_iter().enumerate().map(read).collect()
}

/// Prometheus's own checks of what goes together.
fn check(raw: &RawRule) -> Result<(), String> {
    use Action::{DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Uppercase};
    let action = raw.action;
    let differs = |written: Option<&String>, default: &str| written.is_some_and(|written| written != default);
    let (regex, separator, replacement) = (
        differs(raw.regex.as_ref(), REGEX),
        differs(raw.separator.as_ref(), SEPARATOR),
        differs(raw.replacement.as_ref(), REPLACEMENT),
    );
    if action == HashMod && raw.modulus == 0 {
        return Err("modulus is missing or zero; say how many values there may be".to_owned());
    }
    if action.needs_target() && raw.target_label.is_empty() {
        return Err("target_label is missing".to_owned());
    }
    if raw.source_labels.iter().any(String::is_empty) {
        return Err("source_labels has an empty name".to_owned());
    }
    if matches!(action, Lowercase | Uppercase | KeepEqual | DropEqual) && replacement {
        return Err("replacement cannot be set; remove it".to_owned());
    }
    if action == LabelMap && raw.replacement.as_ref().is_some_and(String::is_empty) {
        return Err("replacement is no label name".to_owned());
    }
    if matches!(action, KeepEqual | DropEqual) && (regex || separator || raw.modulus != 0) {
        return Err("takes source_labels and target_label alone; remove the others".to_owned());
    }
    let others = !raw.source_labels.is_empty() || !raw.target_label.is_empty();
    if matches!(action, LabelDrop | LabelKeep) && (others || raw.modulus != 0 || separator || replacement) {
        return Err("takes regex alone; remove the others".to_owned());
    }
    Ok(())
}

impl Rule {
    fn apply(&self, labels: Labels) -> Option<Labels> {
        let values: Vec<&str> = self.source_labels.iter().map(|name| labels.value(name)).collect();
        let value = values.join(&self.separator);
        let keep = |holds: bool| holds.then(|| labels.clone());
        match self.action {
            Action::Drop => keep(!self.regex.is_match(&value)),
            Action::Keep => keep(self.regex.is_match(&value)),
            Action::DropEqual => keep(labels.value(&self.target_label) != value),
            Action::KeepEqual => keep(labels.value(&self.target_label) == value),
            Action::Replace => Some(self.replace(labels, &value)),
            Action::Lowercase => Some(labels.with(&self.target_label, &value.to_lowercase())),
            Action::Uppercase => Some(labels.with(&self.target_label, &value.to_uppercase())),
            Action::HashMod => {
                // As in Prometheus: the last eight bytes of the MD5, most significant first.
                let digest = Md5::digest(value.as_bytes());
                let number = digest[8..].iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
                let rest = number % self.modulus;
                Some(labels.with(&self.target_label, &rest.to_string()))
            }
            Action::LabelMap => {
                let mut mapped = labels.clone();
                for label in &labels {
                    if let Some(found) = self.regex.captures(&label.name) {
                        let name = expand(&self.replacement, &found, &self.regex);
                        if !name.is_empty() {
                            mapped = mapped.with(&name, &label.value);
                        }
                    }
                }
                Some(mapped)
            }
            Action::LabelDrop => Some(labels.filtered(|label| !self.regex.is_match(&label.name))),
            Action::LabelKeep => Some(labels.filtered(|label| self.regex.is_match(&label.name))),
        }
    }

    fn replace(&self, labels: Labels, value: &str) -> Labels {
        // What most rules without a source are; the regex matches anything.
        let is_constant = !self.target_label.contains('$') && !self.replacement.contains('$');
        if value.is_empty() && self.pattern == REGEX && is_constant {
            return labels.with(&self.target_label, &self.replacement);
        }
        let Some(found) = self.regex.captures(value) else { return labels };
        let target = expand(&self.target_label, &found, &self.regex);
        if target.is_empty() {
            return labels;
        }
        labels.with(&target, &expand(&self.replacement, &found, &self.regex))
    }
}

/// Labels after all rules, in order; `None` if one of them lets what has them go.
pub fn relabel(labels: &Labels, rules: &[Rule]) -> Option<Labels> {
    rules.iter().try_fold(labels.clone(), |labels, rule| rule.apply(labels))
}

/// Labels after each of the rules; `None` from the first that lets what has them go.
pub fn steps(labels: &Labels, rules: &[Rule]) -> Vec<Option<Labels>> {
    let mut left = Some(labels.clone());
    let after = rules.iter().map(|rule| {
        left = left.take().and_then(|labels| rule.apply(labels));
        left.clone()
    });
    after.collect()
}

#[cfg(test)]
mod tests;
