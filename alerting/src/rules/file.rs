//! Rule files as Prometheus has them.

use std::collections::BTreeMap;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use binnacle_query::promql::{Expr, parse};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::{FileError, template};

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
    #[serde(default, with = "optional_duration")]
    query_offset: Option<Duration>,
    #[serde(default)]
    limit: usize,
    #[serde(default, deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    rules: Option<Vec<RawRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    record: Option<Spanned<String>>,
    alert: Option<Spanned<String>>,
    expr: Spanned<String>,
    #[serde(default, rename = "for", with = "optional_duration")]
    hold: Option<Duration>,
    #[serde(default, with = "optional_duration")]
    keep_firing_for: Option<Duration>,
    #[serde(default, deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

/// Rules that are evaluated one after the other, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleGroup {
    /// Unique within its file.
    pub name: String,
    /// Where it stands.
    pub file: String,
    /// Between evaluations; the configuration's if the file says none.
    pub interval: Option<Duration>,
    /// How far back in time the rules look.
    pub query_offset: Duration,
    /// Series or alerts that one rule may have; zero for no limit.
    pub limit: usize,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Of the series, or of the alert.
    pub name: String,
    /// As written.
    pub query: String,
    /// As understood.
    pub expr: Expr,
    /// Added to the series or alert; those of an alert are templates.
    pub labels: BTreeMap<String, String>,
    /// What it makes.
    pub kind: RuleKind,
}

/// What a rule makes.
#[derive(Debug, Clone, PartialEq)]
pub enum RuleKind {
    /// A series.
    Record,
    /// An alert.
    Alert {
        /// How long the condition must hold before it fires.
        hold: Duration,
        /// How long it goes on firing after the condition ends.
        keep_firing_for: Duration,
        /// Templates.
        annotations: BTreeMap<String, String>,
    },
}

/// Reads a rule file.
///
/// # Errors
/// All that is wrong with it, not only the first.
pub fn parse_rules(file: &str, text: &str) -> Result<Vec<RuleGroup>, Vec<FileError>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let raw: RawFile = serde_saphyr::from_str(text).map_err(|error| vec![FileError::yaml(file, &error)])?;
    let mut errors = Vec::new();
    let mut groups: Vec<RuleGroup> = Vec::new();
    for raw in raw.groups.unwrap_or_default() {
        let RawGroup { name, interval, query_offset, limit, labels, rules } = raw;
        if groups.iter().any(|group| group.name == name.value) {
            let reason = format!("groupname: {:?} is repeated in the same file", name.value);
            errors.push(FileError::at(file, &name.referenced, reason));
        }
        if name.value.is_empty() {
            errors.push(FileError::at(file, &name.referenced, "Groupname must not be empty"));
        }
        let mut checked = Vec::new();
        for rule in rules.unwrap_or_default() {
            match check_rule(file, &name.value, rule, &labels) {
                Ok(rule) => checked.push(rule),
                Err(error) => errors.push(error),
            }
        }
        groups.push(RuleGroup {
            name: name.value,
            file: file.to_owned(),
            interval,
            query_offset: query_offset.unwrap_or_default(),
            limit,
            rules: checked,
        });
    }
    if errors.is_empty() { Ok(groups) } else { Err(errors) }
}

fn check_rule(
    file: &str,
    group: &str,
    raw: RawRule,
    group_labels: &BTreeMap<String, String>,
) -> Result<Rule, FileError> {
    let RawRule { record, alert, expr, hold, keep_firing_for, labels, annotations } = raw;
    let place = expr.referenced;
    let refuse = |reason: String| Err(FileError::at(file, &place, reason));
    let parsed = parse(&expr.value).map_err(|error| {
        let name = record.as_ref().or(alert.as_ref()).map_or("", |name| name.value.as_str());
        let reason = format!("group {group:?}, rule {name:?}: could not parse expression: {error}");
        FileError::at(file, &place, reason)
    })?;
    let mut all_labels = group_labels.clone();
    all_labels.extend(labels);
    if let Some(name) = all_labels.keys().find(|name| name.is_empty() || *name == "__name__") {
        return refuse(format!("invalid label name: {name}"));
    }
    if let Some(alert) = &alert {
        for (what, texts) in [("label", &all_labels), ("annotation", &annotations)] {
            for (name, text) in texts {
                if let Err(error) = template::check(&alert.value, text) {
                    let reason = format!("group {group:?}, rule {:?}: {what} {name:?}: {error}", alert.value);
                    return refuse(reason);
                }
            }
        }
    }
    let (name, kind) = match (record, alert) {
        (Some(_), Some(_)) => return refuse("only one of 'record' and 'alert' must be set".to_owned()),
        (None, None) => return refuse("one of 'record' or 'alert' must be set".to_owned()),
        (Some(name), None) => {
            if !annotations.is_empty() {
                return refuse("invalid field 'annotations' in recording rule".to_owned());
            }
            if hold.is_some() {
                return refuse("invalid field 'for' in recording rule".to_owned());
            }
            if keep_firing_for.is_some() {
                return refuse("invalid field 'keep_firing_for' in recording rule".to_owned());
            }
            if name.value.is_empty() || name.value.contains(['{', '}', ' ']) {
                return refuse(format!("invalid recording rule name: {}", name.value));
            }
            (name.value, RuleKind::Record)
        }
        (None, Some(name)) => {
            let hold = hold.unwrap_or_default();
            let keep_firing_for = keep_firing_for.unwrap_or_default();
            (name.value, RuleKind::Alert { hold, keep_firing_for, annotations })
        }
    };
    Ok(Rule { name, query: expr.value.trim().to_owned(), expr: parsed, labels: all_labels, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
groups:
- name: g
  interval: 15s
  labels: {team: core}
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: Down
    expr: |
      up == 0
    for: 5m
    labels: {severity: page}
    annotations: {summary: '{{ $labels.job }} is down'}
";

    #[test]
    fn a_file_is_read() {
        let groups = parse_rules("r.yml", GOOD).unwrap();
        assert_eq!(groups[0].interval, Some(Duration::from_secs(15)));
        assert_eq!(groups[0].rules[0].kind, RuleKind::Record);
        let alert = &groups[0].rules[1];
        assert_eq!((alert.query.as_str(), alert.labels.len()), ("up == 0", 2));
        assert_eq!(parse_rules("r.yml", "").unwrap(), []);
    }

    fn error(text: &str) -> String {
        parse_rules("r.yml", text).unwrap_err()[0].to_string()
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let text = "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum(\n";
        assert_eq!(
            error(text),
            "r.yml:5:11: group \"g\", rule \"A\": could not parse expression: 1:5: parse error: unclosed left parenthesis"
        );
        assert!(error("groups:\n- name: g\n  typo: 1\n").starts_with("r.yml:3:"));
        assert!(
            error("groups:\n- name: g\n  rules:\n  - expr: up\n")
                .contains("one of 'record' or 'alert' must be set")
        );
        assert!(
            error("groups:\n- name: g\n- name: g\n").starts_with("r.yml:3:9: groupname: \"g\" is repeated")
        );
        assert!(
            error("groups:\n- name: g\n  rules:\n  - {record: a, expr: up, for: 1m}\n")
                .contains("'for' in recording rule")
        );
        assert!(error("groups:\n- name: g\n  interval: soon\n").contains("not a valid duration"));
    }

    /// Real rule files of many projects: every one that promtool takes is taken.
    #[test]
    fn real_rule_files_are_read() {
        let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(shared).join("real/rules");
        if !dir.is_dir() {
            println!("SKIPPED 1: no rule files at {}", dir.display());
            return;
        }
        let (mut rules, mut failures) = (0, Vec::new());
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|e| e.path().is_dir()) {
            if entry.file_name() == "rejected-by-promtool" {
                continue;
            }
            for file in std::fs::read_dir(entry.path()).unwrap().map(|e| e.unwrap().path()) {
                let text = std::fs::read_to_string(&file).unwrap();
                match parse_rules(&file.to_string_lossy(), &text) {
                    Ok(groups) => rules += groups.iter().map(|g| g.rules.len()).sum::<usize>(),
                    Err(errors) => failures.extend(errors.iter().map(ToString::to_string)),
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(rules > 1500, "{rules} rules");
    }
}
