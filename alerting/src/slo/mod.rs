//! SLOs: an objective, what is good and what is all, as multi-window burn-rate alerts.
//!
//! After the SRE workbook, chapter 5, with its factors for a period of 30 days: a page when 2 % of the
//! budget burns in an hour or 5 % in six, a ticket when 10 % burns in a day or in three. An alert needs
//! both its long window and one of a twelfth, so that it ends soon after the errors do. No traffic is no
//! burn: the ratio is then NaN, which no comparison holds for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use binnacle_model::time::{format_duration, prometheus_duration};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::FileError;
use crate::rules::{RuleGroup, parse_rules};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    slos: Vec<RawSlo>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSlo {
    /// Unique within its service.
    name: Spanned<String>,
    service: String,
    #[serde(default)]
    description: String,
    /// In percent.
    objective: Spanned<f64>,
    /// Length of the budget's period. Default: `30d`.
    #[serde(default = "default_period", with = "prometheus_duration")]
    period: Duration,
    /// Divides every window, for demonstrations and tests. Default: 1.
    #[serde(default = "default_scale")]
    time_scale: Spanned<u32>,
    /// Query of good events; `{{.window}}` stands for the window.
    good: Spanned<String>,
    /// Query of all events.
    total: Spanned<String>,
    owner: Option<String>,
    runbook_url: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn default_period() -> Duration {
    Duration::from_hours(720)
}

fn default_scale() -> Spanned<u32> {
    Spanned {
        value: 1,
        referenced: serde_saphyr::Location::UNKNOWN,
        defined: serde_saphyr::Location::UNKNOWN,
    }
}

/// Windows of 30 days, shortest first.
const WINDOWS: [(&str, u64); 8] = [
    ("5m", 300),
    ("30m", 1800),
    ("1h", 3600),
    ("2h", 7200),
    ("6h", 21_600),
    ("1d", 86_400),
    ("3d", 259_200),
    ("30d", 2_592_000),
];

/// Severity, long window, short window, burn rate.
const ALERTS: [(&str, &str, &str, f64); 4] = [
    ("page", "1h", "5m", 14.4),
    ("page", "6h", "30m", 6.0),
    ("ticket", "1d", "2h", 3.0),
    ("ticket", "3d", "6h", 1.0),
];

/// The window that stands for the budget's whole period, under the name that Sloth gives it.
const PERIOD: &str = "30d";

const EVALUATE_EVERY: Duration = Duration::from_secs(30);

/// Reads an SLO file; answers a rule group for each SLO, series under Sloth's names.
pub fn parse_slos(file: &str, text: &str) -> Result<Vec<RuleGroup>, Vec<FileError>> {
    let raw: RawFile = serde_saphyr::from_str(text).map_err(|error| vec![FileError::yaml(file, &error)])?;
    let mut errors = Vec::new();
    let mut groups = Vec::new();
    for slo in &raw.slos {
        match check(file, slo) {
            Ok(()) => match parse_rules(file, &rules_of(slo)) {
                Ok(made) => groups.extend(made),
                // The queries are the only part of the text that is not ours.
                Err(made) => errors.extend(made.into_iter().take(1).map(|error| {
                    FileError::at(
                        file,
                        &slo.total.referenced,
                        format!("SLO {:?}: {}", slo.name.value, error.reason),
                    )
                })),
            },
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(groups) } else { Err(errors) }
}

fn check(file: &str, slo: &RawSlo) -> Result<(), FileError> {
    let objective = slo.objective.value;
    if !(objective > 0.0 && objective < 100.0) {
        let reason = format!("objective {objective} must lie between 0 and 100 percent, both excluded");
        return Err(FileError::at(file, &slo.objective.referenced, reason));
    }
    if !(1..=300).contains(&slo.time_scale.value) {
        let reason = "time_scale must lie between 1 and 300".to_owned();
        return Err(FileError::at(file, &slo.time_scale.referenced, reason));
    }
    for query in [&slo.good, &slo.total] {
        if !query.value.contains("{{.window}}") {
            let reason = "the query must say {{.window}} where its range is".to_owned();
            return Err(FileError::at(file, &query.referenced, reason));
        }
        let probe = query.value.replace("{{.window}}", "5m");
        if let Err(error) = binnacle_query::promql::parse(&probe) {
            return Err(FileError::at(file, &query.referenced, error.to_string()));
        }
    }
    Ok(())
}

/// The rules of an SLO as a rule file.
fn rules_of(slo: &RawSlo) -> String {
    let scale = slo.time_scale.value;
    let window = |seconds: u64| {
        let scaled = Duration::from_millis(seconds * 1000 / u64::from(scale));
        format_duration(scaled)
    };
    let budget = (100.0 - slo.objective.value) / 100.0;
    let interval = (EVALUATE_EVERY / scale).max(Duration::from_secs(1));
    let selector = format!("sloth_service={},sloth_slo={}", json(&slo.service), json(&slo.name.value));
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "groups:\n- name: {}\n  interval: {}\n  rules:",
        json(&format!("slo:{}:{}", slo.service, slo.name.value)),
        format_duration(interval)
    );
    let own = BTreeMap::from([
        ("sloth_service".to_owned(), slo.service.clone()),
        ("sloth_slo".to_owned(), slo.name.value.clone()),
    ]);
    for (name, seconds) in WINDOWS.iter().filter(|(name, _)| *name != PERIOD) {
        if Duration::from_secs(*seconds) <= slo.period {
            ratio(&mut out, slo, name, &window(*seconds), &own);
        }
    }
    let period_days = slo.period.as_secs_f64() / 86_400.0;
    record(&mut out, "slo:objective:ratio", &format!("vector({})", 1.0 - budget), &own);
    record(&mut out, "slo:error_budget:ratio", &format!("vector({budget})"), &own);
    record(&mut out, "slo:time_period:days", &format!("vector({period_days})"), &own);
    let burn = format!("slo:sli_error:ratio_rate5m{{{selector}}} / {budget}");
    record(&mut out, "slo:current_burn_rate:ratio", &burn, &own);
    for severity in ["page", "ticket"] {
        alert(&mut out, slo, severity, &selector, budget, &window);
    }
    // The whole period is slow to read, and must not delay the alerts: a group of its own, less often.
    let _ = writeln!(
        out,
        "- name: {}\n  interval: {}\n  rules:",
        json(&format!("slo:{}:{}:period", slo.service, slo.name.value)),
        format_duration(interval * 10)
    );
    let whole = Duration::from_millis(slo.period.as_millis() as u64 / u64::from(scale));
    ratio(&mut out, slo, PERIOD, &format_duration(whole), &own);
    out
}

/// The series of the error ratio over one window.
fn ratio(out: &mut String, slo: &RawSlo, name: &str, window: &str, own: &BTreeMap<String, String>) {
    let good = slo.good.value.replace("{{.window}}", window);
    let total = slo.total.value.replace("{{.window}}", window);
    let mut labels = own.clone();
    labels.insert("sloth_window".to_owned(), name.to_owned());
    // Where nothing is good there may be no good series at all: that is zero, not unknown.
    let expr = format!("1 - ((({good}) or ({total}) * 0) / ({total}))");
    record(out, &format!("slo:sli_error:ratio_rate{name}"), &expr, &labels);
}

fn record(out: &mut String, name: &str, expr: &str, labels: &BTreeMap<String, String>) {
    let _ =
        writeln!(out, "  - record: {}\n    expr: {}\n    labels: {}", json(name), json(expr), map(labels));
}

fn alert(
    out: &mut String,
    slo: &RawSlo,
    severity: &str,
    selector: &str,
    budget: f64,
    window: &dyn Fn(u64) -> String,
) {
    let seconds = |name: &str| WINDOWS.iter().find(|(known, _)| *known == name).map_or(0, |w| w.1);
    let ratio = |name: &str| format!("slo:sli_error:ratio_rate{name}{{{selector}}}");
    let ratio = |name: &str| format!("max without (sloth_window) ({})", ratio(name));
    let mut conditions = Vec::new();
    let mut spoken = Vec::new();
    for (_, long, short, factor) in ALERTS.iter().filter(|alert| alert.0 == severity) {
        if Duration::from_secs(seconds(long)) > slo.period {
            continue;
        }
        // Without the dust of adding floats: 0.072, not 0.07200000000000001.
        let limit = (factor * budget * 1e12).round() / 1e12;
        conditions.push(format!("({} > {limit} and {} > {limit})", ratio(long), ratio(short)));
        spoken.push(format!("{factor}x over {} and {}", window(seconds(long)), window(seconds(short))));
    }
    if conditions.is_empty() {
        return;
    }
    let name = slo.name.value.clone();
    let mut labels = slo.labels.clone();
    labels.extend([
        ("severity".to_owned(), severity.to_owned()),
        ("slo".to_owned(), name.clone()),
        ("service".to_owned(), slo.service.clone()),
    ]);
    if let Some(owner) = &slo.owner {
        labels.insert("owner".to_owned(), owner.clone());
    }
    let mut annotations = slo.annotations.clone();
    let summary = format!(
        "SLO {name} of {} burns its error budget too fast: {{{{ $value | humanizePercentage }}}} of requests fail",
        slo.service
    );
    annotations.entry("summary".to_owned()).or_insert(summary);
    let mut description = format!(
        "The objective is {} %. Fires at a burn rate of {}.",
        slo.objective.value,
        spoken.join(" or ")
    );
    if slo.time_scale.value > 1 {
        let _ = write!(description, " Windows are scaled 1:{}.", slo.time_scale.value);
    }
    if !slo.description.is_empty() {
        let _ = write!(description, " {}", slo.description);
    }
    annotations.entry("description".to_owned()).or_insert(description);
    if let Some(url) = &slo.runbook_url {
        annotations.entry("runbook_url".to_owned()).or_insert_with(|| url.clone());
    }
    let _ = writeln!(
        out,
        "  - alert: SLOBudgetBurn\n    expr: {}\n    labels: {}\n    annotations: {}",
        json(&conditions.join(" or ")),
        map(&labels),
        map(&annotations)
    );
}

/// JSON is YAML, and quotes everything.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn map(pairs: &BTreeMap<String, String>) -> String {
    serde_json::to_string(pairs).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleKind;

    const FILE: &str = "
slos:
- name: availability
  service: payment
  objective: 99.5
  time_scale: 60
  owner: team-pay
  good: sum(rate(http_requests_total{service=\"payment\",code!~\"5..\"}[{{.window}}]))
  total: sum(rate(http_requests_total{service=\"payment\"}[{{.window}}]))
";

    #[test]
    fn an_slo_becomes_recording_and_burn_rate_rules() {
        let groups = parse_slos("s.yml", FILE).unwrap();
        let group = &groups[0];
        assert_eq!(
            (group.name.as_str(), group.interval),
            ("slo:payment:availability", Some(Duration::from_secs(1)))
        );
        let hour = group.rules.iter().find(|rule| rule.name == "slo:sli_error:ratio_rate1h").unwrap();
        assert!(hour.query.contains("[1m]"), "{}", hour.query);
        let alerts: Vec<_> =
            group.rules.iter().filter(|rule| matches!(rule.kind, RuleKind::Alert { .. })).collect();
        assert_eq!(alerts.len(), 2);
        assert!(alerts[0].query.contains("> 0.072"), "{}", alerts[0].query);
        assert_eq!(alerts[0].labels["owner"], "team-pay");
    }

    #[test]
    fn errors_name_the_place() {
        let error =
            |from: &str, to: &str| parse_slos("s.yml", &FILE.replace(from, to)).unwrap_err()[0].to_string();
        assert!(error("99.5", "100").starts_with("s.yml:5:14: objective 100 must lie"));
        assert!(error("[{{.window}}]))\n  total", "[5m]))\n  total").contains("must say {{.window}}"));
        assert!(
            error(
                "sum(rate(http_requests_total{service=\"payment\"}[",
                "sum((http_requests_total{service=\"payment\"}["
            )
            .contains("parse error")
        );
        assert!(error("owner", "ovner").starts_with("s.yml:7:"));
    }
}
