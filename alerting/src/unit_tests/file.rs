//! A file of tests as promtool has it.

use std::collections::BTreeMap;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use serde::Deserialize;
use serde_saphyr::Spanned;

/// A file of tests.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TestFile {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) rule_files: Vec<String>,
    #[serde(with = "optional_duration")]
    pub(super) evaluation_interval: Option<Duration>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) group_eval_order: Vec<String>,
    pub(super) fuzzy_compare: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) tests: Vec<Spanned<TestGroup>>,
}

/// Series, and what is expected of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TestGroup {
    pub(super) name: Option<String>,
    #[serde(with = "optional_duration")]
    pub(super) interval: Option<Duration>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) input_series: Vec<InputSeries>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) alert_rule_test: Vec<Spanned<AlertTest>>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) promql_expr_test: Vec<Spanned<ExprTest>>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) external_labels: BTreeMap<String, String>,
    pub(super) external_url: Option<String>,
}

/// A series with its values.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InputSeries {
    pub(super) series: String,
    pub(super) values: String,
}

/// Which alerts of one name fire at a moment.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertTest {
    #[serde(with = "optional_duration")]
    pub(super) eval_time: Option<Duration>,
    pub(super) groupname: Option<String>,
    pub(super) alertname: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) exp_alerts: Vec<ExpectedAlert>,
}

/// An alert that must fire.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpectedAlert {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) exp_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) exp_annotations: BTreeMap<String, String>,
}

/// What an expression answers at a moment.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExprTest {
    pub(super) expr: String,
    #[serde(with = "optional_duration")]
    pub(super) eval_time: Option<Duration>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) exp_samples: Vec<ExpectedSample>,
}

/// A sample that must be in the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpectedSample {
    pub(super) labels: String,
    pub(super) value: f64,
    pub(super) histogram: Option<String>,
}
