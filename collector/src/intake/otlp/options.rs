//! `otlp:` of prometheus.yml: how names are translated, and what of a resource its series get.

use std::collections::BTreeSet;

use serde::Deserialize;

/// By Prometheus's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TranslationStrategy {
    /// Underscores for what Prometheus did not take before 3.0; units and `_total` as endings.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Underscores, and no endings.
    UnderscoreEscapingWithoutSuffixes,
    /// Names as they are, with endings.
    NoUTF8EscapingWithSuffixes,
    /// Names as they are.
    NoTranslation,
}

impl TranslationStrategy {
    pub(super) fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    pub(super) fn has_endings(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUTF8EscapingWithSuffixes)
    }
}

/// What becomes of OTLP's names and resources.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpOptions {
    /// Of metrics and labels.
    pub translation_strategy: TranslationStrategy,
    /// Attributes of the resource that all of its series get as labels.
    pub promote_resource_attributes: BTreeSet<String>,
    /// Whether they get all of them.
    pub promote_all_resource_attributes: bool,
    /// But for these.
    pub ignore_resource_attributes: BTreeSet<String>,
    /// Whether `target_info` also has those of which `job` and `instance` are made.
    pub keep_identifying_resource_attributes: bool,
    /// Not used.
    pub convert_histograms_to_nhcb: Option<bool>,
    /// Not used.
    pub promote_scope_metadata: Option<bool>,
    /// Not used.
    pub label_name_underscore_sanitization: Option<bool>,
    /// Not used.
    pub label_name_preserve_multiple_underscores: Option<bool>,
}

impl OtlpOptions {
    /// Says what contradicts itself.
    pub fn check(&self) -> Result<(), String> {
        if self.promote_all_resource_attributes && !self.promote_resource_attributes.is_empty() {
            return Err("promote_all_resource_attributes and promote_resource_attributes exclude each other"
                .to_owned());
        }
        if !self.promote_all_resource_attributes && !self.ignore_resource_attributes.is_empty() {
            return Err("ignore_resource_attributes goes with promote_all_resource_attributes".to_owned());
        }
        let empty = self.promote_resource_attributes.iter().chain(&self.ignore_resource_attributes);
        if empty.into_iter().any(String::is_empty) {
            return Err("an attribute without a name".to_owned());
        }
        Ok(())
    }

    /// Keys that were set and change nothing.
    pub fn unused(&self) -> impl Iterator<Item = &'static str> + use<> {
        let keys = [
            ("convert_histograms_to_nhcb", self.convert_histograms_to_nhcb == Some(true)),
            ("promote_scope_metadata", self.promote_scope_metadata == Some(true)),
            ("label_name_underscore_sanitization", self.label_name_underscore_sanitization.is_some()),
            (
                "label_name_preserve_multiple_underscores",
                self.label_name_preserve_multiple_underscores.is_some(),
            ),
        ];
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key)
    }

    pub(super) fn promotes(&self, key: &str) -> bool {
        if self.promote_all_resource_attributes {
            !self.ignore_resource_attributes.contains(key)
        } else {
            self.promote_resource_attributes.contains(key)
        }
    }
}
