//! What of a pipeline the store can decide, and what is left to do with each entry that it finds.

use binnacle_model::log::LogEntry;
use binnacle_model::log_query::{LineTest, LogQuery, Test};
use binnacle_model::{MatchOp, Matcher};

use super::ast::{LabelFilter, LineFilter, LogExpr, Needle, Stage};
use super::row::{ERROR, ERROR_DETAILS, Row};
use super::stages;

/// A log selection, divided.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Never leaves out an entry that the stages would keep.
    pub query: LogQuery,
    stages: Vec<Stage>,
}

impl Plan {
    /// Divides a selection.
    pub fn new(logs: &LogExpr) -> Self {
        let mut parts: Vec<LogQuery> = logs.matchers.iter().cloned().map(LogQuery::Label).collect();
        let mut left = Vec::new();
        // Whether the line, and the labels, are still those that are stored, or labels were only added from the line.
        let (mut is_line, mut is_labels, mut is_parsed) = (true, true, true);
        for stage in &logs.stages {
            let is_done = match stage {
                Stage::Line(filter) if is_line => {
                    parts.extend(of_line(filter));
                    decides(filter)
                }
                Stage::Filter(filter) if is_labels => {
                    let exact = of_labels(filter);
                    parts.extend(exact.clone());
                    exact.is_some()
                }
                Stage::Filter(filter) if is_parsed && is_line => {
                    parts.extend(hint(filter));
                    false
                }
                _ => false,
            };
            if !is_done {
                left.push(stage.clone());
            }
            is_line &= !stage.changes_line();
            is_labels &= stage.leaves_labels();
            is_parsed &= stage.leaves_labels() || stage.only_parses();
        }
        let query = match parts.pop() {
            None => LogQuery::All,
            Some(only) if parts.is_empty() => only,
            Some(last) => {
                parts.push(last);
                LogQuery::And(parts)
            }
        };
        Self { query, stages: left }
    }

    /// Whether the store decides all of it, and entries stay what they are.
    pub fn is_pushed(&self) -> bool {
        self.stages.is_empty()
    }

    /// Whether every entry that the store finds is kept.
    pub fn keeps_all(&self) -> bool {
        !self.stages.iter().any(|stage| matches!(stage, Stage::Line(_) | Stage::Filter(_)))
    }

    /// What becomes of an entry that satisfies the query; `None` if it is not kept.
    pub fn run<'e>(&self, entry: &'e LogEntry) -> Option<Row<'e>> {
        stages::run(&self.stages, entry)
    }
}

/// Whether [`of_line`] says all that the filter says.
fn decides(filter: &LineFilter) -> bool {
    !filter.needles.iter().any(|needle| matches!(needle, Needle::Pattern(_)))
}

/// The filter, or what follows from it.
fn of_line(filter: &LineFilter) -> Option<LogQuery> {
    // A pattern says more than its texts do: what is left over must not be negated.
    if filter.op.is_negative() && !decides(filter) {
        return None;
    }
    let needles = filter.needles.iter().map(|needle| match needle {
        Needle::Text(_, bytes) => LogQuery::Line(LineTest::Contains(bytes.clone())),
        Needle::Regex(regex) => LogQuery::Line(LineTest::Regex(regex.clone())),
        Needle::Ip(_, range) => {
            LogQuery::Value { field: binnacle_model::log::Field::Message, test: Test::Ip(*range) }
        }
        Needle::Pattern(pattern) => {
            let texts = pattern.literals().map(|text| LogQuery::Line(LineTest::Contains(text.to_vec())));
            LogQuery::And(texts.collect())
        }
    });
    let any = one_or(needles.collect());
    Some(if filter.op.is_negative() { LogQuery::Not(Box::new(any)) } else { any })
}

fn one_or(mut parts: Vec<LogQuery>) -> LogQuery {
    if parts.len() == 1 { parts.remove(0) } else { LogQuery::Or(parts) }
}

/// The filter in the store's words, if it has words for all of it.
fn of_labels(filter: &LabelFilter) -> Option<LogQuery> {
    match filter {
        LabelFilter::Text(matcher) => is_stored(&matcher.name).then(|| LogQuery::Label(matcher.clone())),
        LabelFilter::And(parts) => parts.iter().map(of_labels).collect::<Option<_>>().map(LogQuery::And),
        LabelFilter::Or(parts) => parts.iter().map(of_labels).collect::<Option<_>>().map(LogQuery::Or),
        LabelFilter::Amount { .. } | LabelFilter::Ip { .. } => None,
    }
}

fn is_stored(name: &str) -> bool {
    name != ERROR && name != ERROR_DETAILS
}

/// What follows from a filter of labels that parsers took from the line: a value stands in it, unless it is escaped, or
/// the label was there before.
fn hint(filter: &LabelFilter) -> Option<LogQuery> {
    match filter {
        LabelFilter::Text(matcher) if matcher.op == MatchOp::Equal && is_stored(&matcher.name) => {
            is_never_escaped(&matcher.value).then(|| value_hint(matcher))
        }
        LabelFilter::And(parts) => {
            let hints: Vec<LogQuery> = parts.iter().filter_map(hint).collect();
            (!hints.is_empty()).then_some(LogQuery::And(hints))
        }
        LabelFilter::Or(parts) => parts.iter().map(hint).collect::<Option<_>>().map(LogQuery::Or),
        _ => None,
    }
}

fn value_hint(matcher: &Matcher) -> LogQuery {
    let contains = |text: &[u8]| LogQuery::Line(LineTest::Contains(text.to_vec()));
    // `\u0041` is the only other way to write a letter.
    LogQuery::Or(vec![contains(matcher.value.as_bytes()), contains(b"\\u"), LogQuery::Label(matcher.clone())])
}

/// Whether JSON and logfmt write the value as it is, or with `\u`.
fn is_never_escaped(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'-' | b'_' | b'.' | b':'))
}
