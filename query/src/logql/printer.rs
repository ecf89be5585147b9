//! Queries as text again, as Loki writes them.

use std::fmt::{self, Display, Formatter};

use binnacle_model::labels::quoted;

use super::ast::{
    Binary, Convert, LabelFilter, LineFilter, LogExpr, Metric, MetricExpr, NamedMatcher, Needle, NewLabel,
    Query, RangeAggregation, Stage, Unwrap, VectorAggregation,
};
use super::units::format_go_duration;
use crate::http::format_value;
use crate::promql::{Grouping, matching};

/// A longer expression than this is broken into lines.
const LINE_MAX: usize = 100;

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logs(logs) => logs.fmt(f),
            Self::Metric(Metric(expr)) => expr.fmt(f),
        }
    }
}

impl Display for LogExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&selector(self))?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

fn selector(logs: &LogExpr) -> String {
    let matchers: Vec<String> = logs.matchers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", matchers.join(", "))
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(filter) => filter.fmt(f),
            Self::Json(paths) => write!(f, "| json{}", extractions(&paths.wanted)),
            Self::Logfmt(logfmt) => {
                f.write_str("| logfmt")?;
                f.write_str(if logfmt.strict { " --strict" } else { "" })?;
                f.write_str(if logfmt.keep_empty { " --keep-empty" } else { "" })?;
                f.write_str(&extractions(&logfmt.wanted))
            }
            Self::Pattern(pattern) => write!(f, "| pattern {}", quoted(&pattern.text)),
            Self::Regexp(regexp) => write!(f, "| regexp {}", quoted(&regexp.pattern)),
            Self::Unpack => f.write_str("| unpack"),
            Self::LineFormat(format) => write!(f, "| line_format {}", quoted(&format.0.text)),
            Self::LabelFormat(labels) => {
                let labels = labels.iter().map(|(name, label)| match label {
                    NewLabel::Rename(from) => format!("{name}={from}"),
                    NewLabel::Template(template) => format!("{name}={}", quoted(&template.text)),
                });
                write!(f, "| label_format {}", labels.collect::<Vec<_>>().join(","))
            }
            Self::Decolorize => f.write_str("| decolorize"),
            Self::Drop(labels) => write!(f, "| drop {}", named(labels)),
            Self::Keep(labels) => write!(f, "| keep {}", named(labels)),
            Self::Filter(filter) => write!(f, "| {filter}"),
        }
    }
}

fn extractions(wanted: &[(String, String)]) -> String {
    let shown: Vec<String> = wanted.iter().map(|(name, text)| format!("{name}={}", quoted(text))).collect();
    if shown.is_empty() { String::new() } else { format!(" {}", shown.join(",")) }
}

fn named(labels: &[NamedMatcher]) -> String {
    let shown = labels.iter().map(|label| match &label.matcher {
        Some(matcher) => matcher.to_string(),
        None => label.name.clone(),
    });
    shown.collect::<Vec<_>>().join(",")
}

impl Display for LineFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let needles = self.needles.iter().map(|needle| match needle {
            Needle::Text(text, _) => quoted(text),
            Needle::Regex(regex) => quoted(regex.pattern()),
            Needle::Ip(written, _) => format!("ip({})", quoted(written)),
            Needle::Pattern(pattern) => quoted(&pattern.text),
        });
        write!(f, "{} {}", self.op.as_str(), needles.collect::<Vec<_>>().join(" or "))
    }
}

impl Display for LabelFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(matcher) => matcher.fmt(f),
            Self::Amount { name, compare, written, .. } => write!(f, "{name}{}{written}", compare.as_str()),
            Self::Ip { name, is_equal, written, .. } => {
                write!(f, "{name}{}ip({})", if *is_equal { "=" } else { "!=" }, quoted(written))
            }
            Self::And(parts) => list(f, parts, " , "),
            Self::Or(parts) => list(f, parts, " or "),
        }
    }
}

fn list(f: &mut Formatter<'_>, parts: &[LabelFilter], between: &str) -> fmt::Result {
    let shown: Vec<String> = parts.iter().map(ToString::to_string).collect();
    write!(f, "( {} )", shown.join(between))
}

impl Display for Unwrap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.convert {
            Convert::Number => write!(f, "| unwrap {}", self.label)?,
            Convert::Duration => write!(f, "| unwrap duration({})", self.label)?,
            Convert::DurationSeconds => write!(f, "| unwrap duration_seconds({})", self.label)?,
            Convert::Bytes => write!(f, "| unwrap bytes({})", self.label)?,
        }
        self.filters.iter().try_for_each(|filter| write!(f, " | {filter}"))
    }
}

impl Display for MetricExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => {
                write!(f, "{}({}", range.op.as_str(), parameter(range.param))?;
                range.logs.fmt(f)?;
                if let Some(unwrap) = &range.unwrap {
                    write!(f, " {unwrap}")?;
                }
                write!(f, " {}){}", window(range), behind(range))
            }
            Self::Vector(vector) => {
                write!(f, "{}({}{})", head(vector), parameter(vector.param), vector.expr)
            }
            Self::Binary(binary) => {
                write!(
                    f,
                    "{} {}{} {}",
                    side(&binary.left),
                    binary.op.as_str(),
                    between(binary),
                    side(&binary.right)
                )
            }
            Self::LabelReplace { expr, texts } => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "label_replace({expr},{})", texts.join(","))
            }
            Self::Number(value) => f.write_str(&format_value(*value)),
            Self::VectorOf(value) => write!(f, "vector({value:.6})"),
        }
    }
}

/// An operand: another operation stands in parentheses, so that nobody need know which one binds tighter.
fn side(expr: &MetricExpr) -> String {
    if matches!(expr, MetricExpr::Binary(_)) { format!("({expr})") } else { expr.to_string() }
}

fn between(binary: &Binary) -> String {
    matching(binary.returns_bool, &binary.matching)
}

fn parameter(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format_value(value) + ",")
}

/// `[5m] offset 1h`
fn window(range: &RangeAggregation) -> String {
    let offset = range.offset_ns;
    let offset = if offset == 0 { String::new() } else { format!(" offset {}", short(offset)) };
    format!("[{}]{offset}", short(range.range_ns))
}

/// Without the zeros that Go writes behind minutes and hours.
fn short(ns: i64) -> String {
    let text = format_go_duration(ns);
    let text = text.strip_suffix("m0s").map_or(text.clone(), |rest| format!("{rest}m"));
    text.strip_suffix("h0m").map_or(text.clone(), |rest| format!("{rest}h"))
}

fn behind(range: &RangeAggregation) -> String {
    range.grouping.as_ref().map_or_else(String::new, |grouping| format!(" {}", group(grouping)))
}

fn group(grouping: &Grouping) -> String {
    match grouping {
        Grouping::By(labels) => format!("by ({})", labels.join(", ")),
        Grouping::Without(labels) => format!("without ({})", labels.join(", ")),
    }
}

/// The operator and its grouping.
fn head(vector: &VectorAggregation) -> String {
    let name = vector.op.as_str();
    vector
        .grouping
        .as_ref()
        .map_or_else(|| name.to_owned(), |grouping| format!("{name} {} ", group(grouping)))
}

/// The query in lines, as Loki's `format_query` and `logcli fmt` write it.
pub fn pretty(query: &Query) -> String {
    match query {
        Query::Logs(logs) => pretty_logs(logs, None, "", 0),
        Query::Metric(Metric(expr)) => pretty_metric(expr, 0),
    }
}

fn indent(level: usize) -> String {
    "  ".repeat(level)
}

/// A selection with what stands behind its last line.
fn pretty_logs(logs: &LogExpr, unwrap: Option<&Unwrap>, tail: &str, level: usize) -> String {
    let unwrapped = unwrap.map_or_else(String::new, |unwrap| format!(" {unwrap}"));
    let line = format!("{}{logs}{unwrapped}{tail}", indent(level));
    if line.len() <= LINE_MAX {
        return line;
    }
    let mut lines = vec![format!("{}{}", indent(level), selector(logs))];
    lines.extend(logs.stages.iter().map(|stage| format!("{}{stage}", indent(level + 1))));
    lines.extend(unwrap.map(|unwrap| format!("{}{unwrap}", indent(level + 1))));
    lines.join("\n") + tail
}

fn pretty_metric(expr: &MetricExpr, level: usize) -> String {
    let line = format!("{}{expr}", indent(level));
    if line.len() <= LINE_MAX {
        return line;
    }
    let pad = indent(level);
    match expr {
        MetricExpr::Range(range) => {
            let param = range.param.map(|param| format!("{}{},\n", indent(level + 1), format_value(param)));
            let tail = format!(" {}", window(range));
            let inner = pretty_logs(&range.logs, range.unwrap.as_ref(), &tail, level + 1);
            let param = param.unwrap_or_default();
            format!("{pad}{}(\n{param}{inner}\n{pad}){}", range.op.as_str(), behind(range))
        }
        MetricExpr::Vector(vector) => {
            let param = vector.param.map(|param| format!("{}{},\n", indent(level + 1), format_value(param)));
            let inner = pretty_metric(&vector.expr, level + 1);
            format!("{pad}{}(\n{}{inner}\n{pad})", head(vector), param.unwrap_or_default())
        }
        MetricExpr::Binary(binary) => {
            let side = |expr: &MetricExpr| match expr {
                MetricExpr::Binary(_) => format!("{pad}  (\n{}\n{pad}  )", pretty_metric(expr, level + 2)),
                _ => pretty_metric(expr, level + 1),
            };
            let op = format!("{pad}{}{}", binary.op.as_str(), between(binary));
            format!("{}\n{op}\n{}", side(&binary.left), side(&binary.right))
        }
        MetricExpr::LabelReplace { expr, texts } => {
            let mut args = vec![pretty_metric(expr, level + 1)];
            args.extend(texts.iter().map(|text| format!("{}{}", indent(level + 1), quoted(text))));
            format!("{pad}label_replace(\n{}\n{pad})", args.join(",\n"))
        }
        MetricExpr::Number(_) | MetricExpr::VectorOf(_) => line,
    }
}
