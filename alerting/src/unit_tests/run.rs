//! Plays the tests of a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::histogram::Histogram;
use binnacle_model::storage::Deadline;
use binnacle_model::time::Clock;
use binnacle_model::{Labels, LogTime, Timestamp};
use binnacle_query::promql::{self, Engine, Limits, Output};

use super::file::{AlertTest, ExprTest, TestFile, TestGroup};
use super::memory::Memory;
use super::notation::{self, Value};
use crate::notify::{AlertSink, SentAlert};
use crate::rules::{AlertState, Evaluator, RuleGroup, RuleHealth, RuleKind, Settings, parse_rules};
use crate::state::AlertDb;
use crate::{FileError, Telemetry};

/// Most evaluations of one test: two months by the minute.
const MAX_EVALUATIONS: u128 = 100_000;

/// What became of a file's tests.
#[derive(Debug, Default)]
pub struct TestReport {
    /// Tests that were played.
    pub tests: usize,
    /// A sentence or more for each that failed, with its place.
    pub failures: Vec<String>,
}

/// Answers the files that a pattern names, with their texts.
pub type ReadFiles<'r> = dyn Fn(&Path) -> Result<Vec<(PathBuf, String)>, String> + 'r;

struct Nobody;

impl AlertSink for Nobody {
    fn receive(&self, _: Vec<SentAlert>) {}
}

struct Zero;

impl Clock for Zero {
    fn now_ns(&self) -> LogTime {
        LogTime(0)
    }
}

/// Plays the tests of a file.
///
/// # Errors
/// The file, or a file of rules that it names, cannot be read.
pub fn run_tests(file: &str, text: &str, read: &ReadFiles<'_>) -> Result<TestReport, String> {
    let tests: TestFile =
        serde_saphyr::from_str(text).map_err(|error| FileError::yaml(file, &error).to_string())?;
    let dir = Path::new(file).parent().unwrap_or_else(|| Path::new(""));
    let mut groups = Vec::new();
    for pattern in &tests.rule_files {
        for (path, text) in read(&dir.join(pattern))? {
            let name = path.display().to_string();
            let parsed = parse_rules(&name, &text);
            groups.extend(
                parsed.map_err(|errors| {
                    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
                })?,
            );
        }
    }
    order(&mut groups, &tests.group_eval_order)?;
    let every = tests.evaluation_interval.filter(|every| !every.is_zero()).unwrap_or(Duration::from_mins(1));
    let mut report = TestReport::default();
    for group in &tests.tests {
        report.tests += 1;
        let bed = Bed { groups: &groups, every, is_fuzzy: tests.fuzzy_compare };
        let failures = bed.play(&group.value).unwrap_or_else(|error| vec![error]);
        let place = format!("{file}:{}", group.referenced.line());
        let name = group.value.name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
        report.failures.extend(failures.iter().map(|failure| format!("{place}: test{name}: {failure}")));
    }
    Ok(report)
}

/// Those groups first that are named, in that order.
fn order(groups: &mut [RuleGroup], names: &[String]) -> Result<(), String> {
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(format!("group name repeated in evaluation order: {name}"));
        }
    }
    groups.sort_by_key(|group| names.iter().position(|name| *name == group.name).unwrap_or(usize::MAX));
    Ok(())
}

struct Bed<'b> {
    groups: &'b [RuleGroup],
    every: Duration,
    is_fuzzy: bool,
}

fn at(after: Option<Duration>) -> Timestamp {
    Timestamp(0).plus(after.unwrap_or_default())
}

impl Bed<'_> {
    /// What is not as expected.
    fn play(&self, test: &TestGroup) -> Result<Vec<String>, String> {
        let memory = Arc::new(Memory::new());
        let interval = test.interval.filter(|interval| !interval.is_zero()).unwrap_or(self.every);
        for input in &test.input_series {
            let labels = notation::labels(&input.series)?;
            for (number, value) in notation::values(&input.values)?.into_iter().enumerate() {
                let at = Timestamp(interval.as_millis() as i64 * number as i64);
                match value {
                    Value::Gap => {}
                    Value::Number(value) => memory.put(&labels, at, value),
                    Value::Histogram(histogram) => memory.put_histogram(&labels, at, histogram),
                }
            }
        }
        let evaluator = self.evaluator(test, &memory)?;
        let alert_times = test.alert_rule_test.iter().map(|one| at(one.value.eval_time));
        let expr_times = test.promql_expr_test.iter().map(|one| at(one.value.eval_time));
        let last = alert_times.chain(expr_times).max().unwrap_or(Timestamp(0));
        let step = self.every.as_millis() as i64;
        if last.0 as u128 / self.every.as_millis().max(1) > MAX_EVALUATIONS {
            return Err(format!(
                "more than {MAX_EVALUATIONS} evaluations; take a longer evaluation_interval"
            ));
        }
        let mut failures = Vec::new();
        let mut now = Timestamp(0);
        while now <= last {
            memory.show_until(now);
            for number in 0..self.groups.len() {
                evaluator.evaluate(number, now, &Deadline::default());
            }
            errors_of(&evaluator, now, &mut failures);
            if !failures.is_empty() {
                return Ok(failures);
            }
            for alert in &test.alert_rule_test {
                let wanted = at(alert.value.eval_time);
                if now <= wanted && wanted.0 < now.0 + step {
                    failures.extend(check_alerts(&evaluator, &alert.value)?);
                }
            }
            now = Timestamp(now.0 + step);
        }
        for expr in &test.promql_expr_test {
            failures.extend(self.check_expr(&memory, &expr.value));
        }
        Ok(failures)
    }

    fn evaluator(&self, test: &TestGroup, memory: &Arc<Memory>) -> Result<Evaluator, String> {
        let external_labels =
            test.external_labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings = Settings {
            interval: self.every,
            external_labels: Labels::new(external_labels).map_err(|error| error.to_string())?,
            external_url: test.external_url.clone().unwrap_or_default(),
            limits: Limits::default(),
        };
        let db = AlertDb::in_memory().map_err(|error| error.to_string())?;
        Evaluator::new(
            self.groups.to_vec(),
            settings,
            memory.clone(),
            memory.clone(),
            Arc::new(db),
            Arc::new(Nobody),
            Arc::new(Zero),
            Telemetry::default(),
        )
        .map_err(|error| error.to_string())
    }

    fn check_expr(&self, memory: &Memory, test: &ExprTest) -> Option<String> {
        let what = format!("expr {:?}, time {}", test.expr, shown(test.eval_time));
        let found = match evaluate(memory, &test.expr, at(test.eval_time)) {
            Ok(found) => found,
            Err(error) => return Some(format!("{what}: {error}")),
        };
        let mut wanted = Vec::new();
        for sample in &test.exp_samples {
            let labels = notation::labels(&sample.labels);
            let histogram = sample.histogram.as_deref().map(notation::histogram).transpose();
            match (labels, histogram) {
                (Ok(labels), Ok(histogram)) => {
                    wanted.push((labels, sample.value, histogram.map(|(histogram, _)| Arc::new(histogram))));
                }
                (Err(error), _) | (_, Err(error)) => return Some(format!("{what}: {error}")),
            }
        }
        let sorted = |mut samples: Vec<Answer>| {
            samples.sort_by(|a, b| a.0.cmp(&b.0));
            samples
        };
        let (found, wanted) = (sorted(found), sorted(wanted));
        let is_same = found.len() == wanted.len()
            && found.iter().zip(&wanted).all(|(found, wanted)| self.is_same(found, wanted));
        (!is_same).then(|| format!("{what}:\n  exp: {}\n  got: {}", list(&wanted), list(&found)))
    }

    fn is_same(&self, found: &Answer, wanted: &Answer) -> bool {
        let values = match (&found.2, &wanted.2) {
            (Some(found), Some(wanted)) => found == wanted && found.hint == wanted.hint,
            (None, None) => {
                let (a, b) = (found.1, wanted.1);
                let is_near = || {
                    let size = a.abs() + b.abs();
                    (a - b).abs() <= 1e-6 * size.max(f64::MIN_POSITIVE)
                };
                a == b || (a.is_nan() && b.is_nan()) || (self.is_fuzzy && is_near())
            }
            _ => false,
        };
        found.0 == wanted.0 && values
    }
}

/// Labels, a number, or a histogram.
type Answer = (Labels, f64, Option<Arc<Histogram>>);

fn evaluate(memory: &Memory, expr: &str, at: Timestamp) -> Result<Vec<Answer>, String> {
    let expr = promql::parse(expr).map_err(|error| error.to_string())?;
    let engine = Engine::new(memory, Limits::default());
    let output = engine.instant(&expr, at, &Deadline::default()).map_err(|error| error.to_string())?;
    match output.output {
        Output::Vector(_, series) => {
            Ok(series.into_iter().map(|one| (one.labels, one.value, one.histogram)).collect())
        }
        Output::Scalar(_, value) => Ok(vec![(Labels::default(), value, None)]),
        Output::Text(..) | Output::Matrix(_) => Err("answer is not a vector or scalar".to_owned()),
    }
}

fn list(samples: &[Answer]) -> String {
    let one = |(labels, value, histogram): &Answer| match histogram {
        Some(histogram) => format!("{labels} {histogram} ({:?})", histogram.hint),
        None => format!("{labels} {value}"),
    };
    if samples.is_empty() {
        "nil".to_owned()
    } else {
        samples.iter().map(one).collect::<Vec<_>>().join("\n       ")
    }
}

fn shown(after: Option<Duration>) -> String {
    binnacle_model::time::format_duration(after.unwrap_or_default())
}

fn errors_of(evaluator: &Evaluator, now: Timestamp, failures: &mut Vec<String>) {
    for group in evaluator.status() {
        for (rule, status) in group.group.rules.iter().zip(&group.rules) {
            if status.health == RuleHealth::Err {
                let after = Duration::from_millis(now.0 as u64);
                failures.push(format!(
                    "rule {}, time {}: {}",
                    rule.name,
                    shown(Some(after)),
                    status.last_error
                ));
            }
        }
    }
}

type Said = (BTreeMap<String, String>, BTreeMap<String, String>);

fn check_alerts(evaluator: &Evaluator, test: &AlertTest) -> Result<Option<String>, String> {
    if test.alertname.is_empty() {
        return Err("an item under alert_rule_test misses required attribute alertname".to_owned());
    }
    let map = |labels: &Labels| -> BTreeMap<String, String> {
        labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect()
    };
    let mut found: Vec<Said> = Vec::new();
    for group in evaluator.status() {
        if test.groupname.as_ref().is_some_and(|name| *name != group.group.name) {
            continue;
        }
        for (rule, status) in group.group.rules.iter().zip(&group.rules) {
            if rule.name == test.alertname && matches!(rule.kind, RuleKind::Alert { .. }) {
                let firing = status.alerts.iter().filter(|alert| alert.state == AlertState::Firing);
                found.extend(firing.map(|alert| (map(&alert.labels), map(&alert.annotations))));
            }
        }
    }
    let mut wanted: Vec<Said> = Vec::new();
    for alert in &test.exp_alerts {
        let mut labels = alert.exp_labels.clone();
        labels.insert("alertname".to_owned(), test.alertname.clone());
        wanted.push((labels, alert.exp_annotations.clone()));
    }
    // An empty label is none.
    let clean = |mut all: Vec<Said>| {
        for (labels, _) in &mut all {
            labels.retain(|_, value| !value.is_empty());
        }
        all.sort();
        all
    };
    let (found, wanted) = (clean(found), clean(wanted));
    if found == wanted {
        return Ok(None);
    }
    let list = |all: &[Said]| {
        let one = |(labels, annotations): &Said| format!("Labels:{labels:?} Annotations:{annotations:?}");
        if all.is_empty() {
            "[]".to_owned()
        } else {
            all.iter().map(one).collect::<Vec<_>>().join("\n       ")
        }
    };
    let what = format!("alertname: {}, time: {}", test.alertname, shown(test.eval_time));
    Ok(Some(format!("{what}:\n  exp: {}\n  got: {}", list(&wanted), list(&found))))
}
