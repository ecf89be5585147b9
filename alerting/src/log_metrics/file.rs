//! Files of rules that make metrics of logs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::labels::{METRIC_NAME, is_legacy_label_name};
use binnacle_model::log::Field;
use binnacle_model::log_query::LogQuery;
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use binnacle_query::logql::{self, Plan};
use binnacle_query::logs;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};

use crate::FileError;

/// Set on the one series that counts what is beyond a rule's limit; OpenTelemetry's name for it.
pub(super) const OVERFLOW_LABEL: &str = "otel_metric_overflow";

/// Series of a rule that names no limit.
const DEFAULT_LIMIT: usize = 1000;
/// Series of a rule, with all of its buckets: so many samples are written at once.
const MAX_SERIES: usize = 1_000_000;
/// Labels of a rule.
const MAX_LABELS: usize = 32;
/// Buckets of a histogram.
const MAX_BUCKETS: usize = 200;
/// Rules of a file.
const MAX_RULES: usize = 1000;
/// Shortest time between two samples.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Of histograms that name none; those of Prometheus's clients, for seconds.
const DEFAULT_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    groups: Option<Vec<RawGroup>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    name: Spanned<String>,
    #[serde(default, with = "optional_duration")]
    interval: Option<Duration>,
    rules: Option<Vec<RawRule>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    metric: Spanned<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    help: String,
    query: Option<Spanned<String>>,
    logql: Option<Spanned<String>>,
    #[serde(default, rename = "type")]
    kind: Kind,
    value: Option<Spanned<String>>,
    buckets: Option<Spanned<Vec<f64>>>,
    #[serde(default, deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    constant_labels: BTreeMap<String, String>,
    limit: Option<Spanned<usize>>,
}

/// Rules that are written at one moment.
#[derive(Debug, Clone)]
pub struct LogMetricGroup {
    /// Unique within its file.
    pub name: String,
    /// Where it stands.
    pub file: String,
    /// Between two samples; the configuration's `evaluation_interval` if the file says none.
    pub interval: Option<Duration>,
    /// In the order of the file.
    pub rules: Vec<LogMetricRule>,
}

/// A rule: which entries make which series.
#[derive(Debug, Clone)]
pub struct LogMetricRule {
    /// The metric's name, without `_bucket` and the like.
    pub metric: String,
    /// A sentence, or empty.
    pub help: String,
    /// Which entries.
    pub selection: Selection,
    /// What of them.
    pub measure: Measure,
    /// By which labels series differ, and where their values come from. Ascending by name.
    pub labels: Vec<(String, Source)>,
    /// Labels of all series of the rule.
    pub constant_labels: BTreeMap<String, String>,
    /// Series at most, not counting a histogram's buckets, nor the one for what is beyond.
    pub limit: usize,
    place: Location,
}

/// Which entries a rule is about.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Lucene's syntax, as on the page.
    Lucene(LogQuery),
    /// A selector and a pipeline.
    LogQl(Plan),
}

/// Where a value is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A label of the stream, an attribute, or a field within the message.
    Field(Field),
    /// A label behind the pipeline.
    Label(String),
}

/// What a rule makes of the entries that it finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// A counter of entries.
    Entries,
    /// A counter: the sum of a value that is never negative.
    Sum(Source),
    /// A gauge: the sum of a value that may be negative.
    Balance(Source),
    /// A classic histogram of a value.
    Histogram {
        /// Of which.
        value: Source,
        /// Upper bounds, strictly ascending, without the infinite one.
        buckets: Vec<f64>,
    },
}

impl Measure {
    /// The type, as Prometheus names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Entries | Self::Sum(_) => "counter",
            Self::Balance(_) => "gauge",
            Self::Histogram { .. } => "histogram",
        }
    }

    /// How many series each combination of labels has.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Histogram { buckets, .. } => buckets.len() + 3,
            _ => 1,
        }
    }
}

impl LogMetricRule {
    /// Names of all metrics that the rule writes.
    pub fn metrics(&self) -> Vec<String> {
        match &self.measure {
            Measure::Histogram { .. } => {
                ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", self.metric)).into()
            }
            _ => vec![self.metric.clone()],
        }
    }

    /// Whether series of the rule may have a label of this name.
    pub(super) fn has_label(&self, name: &str) -> bool {
        [METRIC_NAME, OVERFLOW_LABEL, "le"].contains(&name)
            || self.constant_labels.contains_key(name)
            || self.labels.iter().any(|(own, _)| own == name)
    }

    /// What to ask a store for; it never leaves out an entry that the rule would count.
    pub fn query(&self) -> &LogQuery {
        match &self.selection {
            Selection::Lucene(query) => query,
            Selection::LogQl(plan) => &plan.query,
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub struct ReadLogMetrics {
    /// In order.
    pub groups: Vec<LogMetricGroup>,
    /// What is allowed, and unwise; with file, line and column.
    pub warnings: Vec<FileError>,
}

/// Whether a file is one of these, and not one of Prometheus's rule files: one of its rules has a `metric`.
pub fn is_log_metrics(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Loose {
        groups: Option<Vec<LooseGroup>>,
    }
    #[derive(Deserialize)]
    struct LooseGroup {
        rules: Option<Vec<BTreeMap<String, IgnoredAny>>>,
    }
    let Ok(loose) = serde_saphyr::from_str::<Loose>(text) else { return false };
    let groups = loose.groups.into_iter().flatten();
    groups.filter_map(|group| group.rules).flatten().any(|rule| rule.contains_key("metric"))
}

/// Reads a file.
///
/// # Errors
/// All that is wrong with it, not only the first; what YAML itself refuses, alone.
pub fn parse_log_metrics(file: &str, text: &str) -> Result<ReadLogMetrics, Vec<FileError>> {
    if text.trim().is_empty() {
        return Ok(ReadLogMetrics::default());
    }
    let raw: RawFile = serde_saphyr::from_str(text).map_err(|error| vec![FileError::yaml(file, &error)])?;
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let mut groups: Vec<LogMetricGroup> = Vec::new();
    for RawGroup { name, interval, rules } in raw.groups.unwrap_or_default() {
        let mut refuse = |reason: String| errors.push(FileError::at(file, &name.referenced, reason));
        if name.value.is_empty() {
            refuse("a group's name must not be empty".to_owned());
        }
        if groups.iter().any(|group| group.name == name.value) {
            refuse(format!("group {:?} is there twice; give each a name of its own", name.value));
        }
        if interval.is_some_and(|interval| interval < MIN_INTERVAL) {
            refuse(format!("group {:?}: interval must be 1s at least", name.value));
        }
        let mut checked = Vec::new();
        for rule in rules.unwrap_or_default() {
            let of_rule = Checked { file, metric: rule.metric.value.clone(), warnings: &mut warnings };
            match of_rule.rule(rule) {
                Ok(rule) => checked.push(rule),
                Err(error) => errors.push(error),
            }
        }
        groups.push(LogMetricGroup { name: name.value, file: file.to_owned(), interval, rules: checked });
    }
    if groups.iter().map(|group| group.rules.len()).sum::<usize>() > MAX_RULES {
        let reason = format!("has more than {MAX_RULES} rules; each is asked about each line");
        errors.push(FileError { file: file.to_owned(), line: 0, column: 0, reason });
    }
    errors.extend(check_disjoint(&groups));
    if errors.is_empty() { Ok(ReadLogMetrics { groups, warnings }) } else { Err(errors) }
}

/// Says which rules would write the same series, for then neither were right. Two rules may share a metric if they make the
/// same kind of it and a constant label of both has different values.
pub fn check_disjoint(groups: &[LogMetricGroup]) -> Vec<FileError> {
    let mut errors = Vec::new();
    let mut seen: BTreeMap<String, Vec<&LogMetricRule>> = BTreeMap::new();
    for (file, rule) in groups.iter().flat_map(|group| group.rules.iter().map(|rule| (&group.file, rule))) {
        let meets = |other: &&LogMetricRule| {
            let differs = |(name, value): (&String, &String)| {
                rule.constant_labels.get(name).is_some_and(|own| own != value)
            };
            other.measure.kind() != rule.measure.kind() || !other.constant_labels.iter().any(differs)
        };
        let names = rule.metrics();
        if names.iter().any(|name| seen.get(name).is_some_and(|others| others.iter().any(meets))) {
            let reason = format!(
                "rule {:?}: another rule writes this metric; give it another name, or both of them one type and a \
                 constant label that differs",
                rule.metric
            );
            errors.push(FileError::at(file, &rule.place, reason));
        }
        for name in names {
            seen.entry(name).or_default().push(rule);
        }
    }
    errors
}

/// A rule that is being checked.
struct Checked<'a> {
    file: &'a str,
    metric: String,
    warnings: &'a mut Vec<FileError>,
}

impl Checked<'_> {
    fn error(&self, place: &Location, reason: impl std::fmt::Display) -> FileError {
        FileError::at(self.file, place, format!("rule {:?}: {reason}", self.metric))
    }

    fn rule(mut self, raw: RawRule) -> Result<LogMetricRule, FileError> {
        let RawRule { metric, help, query, logql, kind, value, buckets, labels, constant_labels, limit } =
            raw;
        let place = metric.referenced;
        if !is_metric_name(&metric.value) {
            let reason = "is no name of a metric: letters, digits, underscores and colons, no digit first";
            return Err(self.error(&place, reason));
        }
        if kind == Kind::Counter && !metric.value.ends_with("_total") {
            let warning = self.error(&place, "the name of a counter should end in _total");
            self.warnings.push(warning);
        }
        let is_logql = logql.is_some();
        let selection = match (query, logql) {
            (Some(query), None) => self.lucene(&query)?,
            (None, Some(logql)) => self.logql(&logql)?,
            (None, None) => {
                return Err(self.error(&place, "one of query and logql must be there; \"*\" is all lines"));
            }
            (Some(_), Some(both)) => {
                return Err(self.error(&both.referenced, "only one of query and logql may be there"));
            }
        };
        let value = match value {
            Some(value) if value.value.is_empty() => {
                return Err(self.error(&value.referenced, "value must name a field"));
            }
            value => value.map(|value| source(is_logql, &value.value)),
        };
        let measure = self.measure(&place, kind, value, buckets)?;
        self.labels(&place, &labels, &constant_labels, &measure)?;
        let (limit, limit_place) =
            limit.map_or((DEFAULT_LIMIT, place), |limit| (limit.value, limit.referenced));
        if limit == 0 || limit.saturating_mul(measure.width()) > MAX_SERIES {
            let reason = format!("limit must lie between 1 and {}", MAX_SERIES / measure.width());
            return Err(self.error(&limit_place, reason));
        }
        let labels: Vec<(String, Source)> =
            labels.into_iter().map(|(name, from)| (name, source(is_logql, &from))).collect();
        if labels.iter().any(|(_, from)| *from == Source::Field(Field::Message)) {
            return Err(self.error(&place, "a label of the whole message would make a series of each line"));
        }
        Ok(LogMetricRule {
            metric: metric.value,
            help,
            selection,
            measure,
            labels,
            constant_labels,
            limit,
            place,
        })
    }

    fn lucene(&mut self, query: &Spanned<String>) -> Result<Selection, FileError> {
        // No moment of the query may depend on the present: see below.
        let parsed = logs::parse(&query.value, LogTime(0));
        let parsed = parsed.map_err(|error| self.error(&query.referenced, error))?;
        if asks_for_time(&parsed.query) {
            let reason = "query asks for times; a rule counts entries as they come, so leave the times out";
            return Err(self.error(&query.referenced, reason));
        }
        if let Some(hint) = parsed.hint() {
            let warning = self.error(&query.referenced, format!("query: {hint}"));
            self.warnings.push(warning);
        }
        Ok(Selection::Lucene(parsed.query))
    }

    fn logql(&self, text: &Spanned<String>) -> Result<Selection, FileError> {
        match logql::parse(&text.value)
            .map_err(|error| self.error(&text.referenced, format!("logql: {error}")))?
        {
            logql::Query::Logs(selected) => Ok(Selection::LogQl(Plan::new(&selected))),
            logql::Query::Metric(_) => {
                let reason = "logql must be a selector and a pipeline; the rule itself says what is counted";
                Err(self.error(&text.referenced, reason))
            }
        }
    }

    fn measure(
        &self,
        place: &Location,
        kind: Kind,
        value: Option<Source>,
        buckets: Option<Spanned<Vec<f64>>>,
    ) -> Result<Measure, FileError> {
        if let Some(buckets) = buckets.as_ref().filter(|_| kind != Kind::Histogram) {
            return Err(self.error(&buckets.referenced, "only a histogram has buckets"));
        }
        match (kind, value) {
            (Kind::Counter, None) => Ok(Measure::Entries),
            (Kind::Counter, Some(value)) => Ok(Measure::Sum(value)),
            (Kind::Gauge, Some(value)) => Ok(Measure::Balance(value)),
            (Kind::Histogram, Some(value)) => {
                let (buckets, place) = match buckets {
                    None => (DEFAULT_BUCKETS.to_vec(), *place),
                    Some(buckets) => (buckets.value, buckets.referenced),
                };
                let is_ascending =
                    buckets.is_sorted_by(|a, b| a < b) && buckets.iter().all(|one| one.is_finite());
                if buckets.is_empty() || buckets.len() > MAX_BUCKETS || !is_ascending {
                    let reason = format!(
                        "buckets must be 1 to {MAX_BUCKETS} numbers, strictly ascending; the infinite one is added"
                    );
                    return Err(self.error(&place, reason));
                }
                Ok(Measure::Histogram { value, buckets })
            }
            (Kind::Gauge | Kind::Histogram, None) => {
                Err(self.error(place, "value must name the field that is measured"))
            }
        }
    }

    fn labels(
        &self,
        place: &Location,
        labels: &BTreeMap<String, String>,
        constant: &BTreeMap<String, String>,
        measure: &Measure,
    ) -> Result<(), FileError> {
        let names: BTreeSet<&String> = labels.keys().chain(constant.keys()).collect();
        if names.len() > MAX_LABELS {
            return Err(self.error(place, format!("has more than {MAX_LABELS} labels")));
        }
        if let Some(name) = labels.keys().find(|name| constant.contains_key(*name)) {
            return Err(self.error(place, format!("label {name:?} is in labels and in constant_labels")));
        }
        let is_ours = |name: &str| {
            let is_bucket = matches!(measure, Measure::Histogram { .. }) && name == "le";
            is_bucket || name == OVERFLOW_LABEL
        };
        if let Some(name) = names.iter().find(|name| is_ours(name)) {
            return Err(self.error(place, format!("label {name:?} is set by the rule itself")));
        }
        if let Some(name) = names.iter().find(|name| !is_legacy_label_name(name) || name.starts_with("__")) {
            let reason = "letters, digits and underscores, no digit first, nor two underscores";
            return Err(self.error(place, format!("{name:?} is no name of a label: {reason}")));
        }
        if let Some((name, _)) = labels.iter().find(|(_, from)| from.is_empty()) {
            return Err(self.error(place, format!("label {name:?} must name a field")));
        }
        Ok(())
    }
}

fn source(is_logql: bool, name: &str) -> Source {
    if is_logql { Source::Label(name.to_owned()) } else { Source::Field(Field::named(name)) }
}

fn is_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let is_first = |b: u8| b == b'_' || b == b':' || b.is_ascii_alphabetic();
    bytes.next().is_some_and(is_first) && bytes.all(|b| is_first(b) || b.is_ascii_digit())
}

fn asks_for_time(query: &LogQuery) -> bool {
    match query {
        LogQuery::Time { .. } => true,
        LogQuery::And(parts) | LogQuery::Or(parts) => parts.iter().any(asks_for_time),
        LogQuery::Not(part) => asks_for_time(part),
        _ => false,
    }
}
