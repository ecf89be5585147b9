//! Queries as text again, as Prometheus writes them.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use binnacle_model::labels::{METRIC_NAME, is_legacy_label_name, quoted};
use binnacle_model::time::format_duration;

use super::ast::{
    Aggregation, At, Binary, BinaryOp, Borders, Card, DurationExpr, Expr, Grouping, Kind, Matching, Notation,
    Reach, Selector,
};
use crate::http::format_value;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Number(value, notation) => f.write_str(&number(*value, *notation)),
            Kind::Text(text) => f.write_str(&quoted(text)),
            Kind::Vector(selector) => {
                series(f, selector)?;
                modifiers(f, selector)
            }
            Kind::Matrix(selector, range) => {
                series(f, selector)?;
                write!(f, "[{range}]")?;
                modifiers(f, selector)
            }
            Kind::Subquery(subquery) => {
                write!(f, "{}[{}:", subquery.expr, subquery.range)?;
                if let Some(step) = &subquery.step {
                    write!(f, "{step}")?;
                }
                f.write_str("]")?;
                moved(f, subquery.at, &subquery.offset)
            }
            Kind::Unary { minus, expr } => write!(f, "{}{expr}", if *minus { '-' } else { '+' }),
            Kind::Paren(inner) => write!(f, "({inner})"),
            Kind::Binary(binary) => write_binary(f, binary),
            Kind::Aggregate(aggregation) => write_aggregation(f, aggregation),
            Kind::Call(call) => {
                write!(f, "{}(", call.name)?;
                list(f, &call.args)?;
                f.write_str(")")
            }
        }
    }
}

fn list(f: &mut Formatter<'_>, exprs: &[Expr]) -> fmt::Result {
    for (i, expr) in exprs.iter().enumerate() {
        write!(f, "{}{expr}", if i == 0 { "" } else { ", " })?;
    }
    Ok(())
}

fn number(value: f64, notation: Notation) -> String {
    match notation {
        Notation::Duration if value >= 0.0 => format_duration(Duration::from_secs_f64(value)),
        Notation::Duration => format!("-{}", format_duration(Duration::from_secs_f64(-value))),
        Notation::Number => format_value(value),
    }
}

fn series(f: &mut Formatter<'_>, selector: &Selector) -> fmt::Result {
    let name = selector.name.as_deref().unwrap_or_default();
    f.write_str(name)?;
    let said = |matcher: &&binnacle_model::Matcher| selector.name.is_none() || matcher.name != METRIC_NAME;
    let matchers: Vec<String> = selector.matchers.iter().filter(said).map(ToString::to_string).collect();
    if matchers.is_empty() && !name.is_empty() {
        return Ok(());
    }
    write!(f, "{{{}}}", matchers.join(","))
}

fn modifiers(f: &mut Formatter<'_>, selector: &Selector) -> fmt::Result {
    moved(f, selector.at, &selector.offset)?;
    f.write_str(match selector.borders {
        Borders::Strict => "",
        Borders::Anchored => " anchored",
        Borders::Smoothed => " smoothed",
    })
}

fn moved(f: &mut Formatter<'_>, at: Option<At>, offset: &Reach) -> fmt::Result {
    match at {
        None => {}
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        Some(At::Time(time)) => write!(f, " @ {:.3}", time.as_secs_f64())?,
    }
    if *offset == Reach::default() { Ok(()) } else { write!(f, " offset {offset}") }
}

impl Display for Reach {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(ms) => {
                let sign = if *ms < 0 { "-" } else { "" };
                write!(f, "{sign}{}", format_duration(Duration::from_millis(ms.unsigned_abs())))
            }
            Self::Calculated(expr) => Display::fmt(expr, f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(value, notation) => f.write_str(&number(*value, *notation)),
            Self::Step => f.write_str("step()"),
            Self::Range => f.write_str("range()"),
            Self::Negate(inner) => write!(f, "-{inner}"),
            Self::Paren(inner) => write!(f, "({inner})"),
            Self::Binary(op, left, right) => write!(f, "{left} {} {right}", op.as_str()),
            Self::MinOf(left, right) => write!(f, "min_of({left}, {right})"),
            Self::MaxOf(left, right) => write!(f, "max_of({left}, {right})"),
        }
    }
}

fn write_binary(f: &mut Formatter<'_>, binary: &Binary) -> fmt::Result {
    let (op, matching) = (binary.op.as_str(), matching(binary.returns_bool, &binary.matching));
    match bare_base(binary) {
        Some(base) => write!(f, "{base} {op}{matching} {}", binary.right),
        None => write!(f, "{} {op}{matching} {}", binary.left, binary.right),
    }
}

/// The left side where it must not have a sign: `+Inf ^ 2` would read as `+(Inf ^ 2)`.
fn bare_base(binary: &Binary) -> Option<&'static str> {
    let is_infinite = matches!(binary.left.kind, Kind::Number(value, _) if value == f64::INFINITY);
    (binary.op == BinaryOp::Pow && is_infinite).then_some("Inf")
}

/// What stands between an operator and its right side.
pub(crate) fn matching(returns_bool: bool, matching: &Matching) -> String {
    let mut out = String::new();
    if returns_bool {
        out.push_str(" bool");
    }
    // `group_left` stands behind one of the two only.
    let is_grouped = matches!(matching.card, Card::ManyToOne | Card::OneToMany);
    if matching.on || !matching.labels.is_empty() || is_grouped {
        let word = if matching.on { "on" } else { "ignoring" };
        out.push_str(&format!(" {word} ({})", names(&matching.labels)));
    }
    match matching.card {
        Card::ManyToOne => out.push_str(&format!(" group_left ({})", names(&matching.include))),
        Card::OneToMany => out.push_str(&format!(" group_right ({})", names(&matching.include))),
        Card::OneToOne | Card::ManyToMany => {}
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            out.push_str(&format!(" fill ({})", format_value(left)));
        }
        (left, right) => {
            if let Some(left) = left {
                out.push_str(&format!(" fill_left ({})", format_value(left)));
            }
            if let Some(right) = right {
                out.push_str(&format!(" fill_right ({})", format_value(right)));
            }
        }
    }
    out
}

/// Labels in a list; those that are no plain words in quotes.
fn names(labels: &[String]) -> String {
    let shown =
        labels.iter().map(|name| if is_legacy_label_name(name) { name.clone() } else { quoted(name) });
    shown.collect::<Vec<_>>().join(", ")
}

fn write_aggregation(f: &mut Formatter<'_>, aggregation: &Aggregation) -> fmt::Result {
    f.write_str(&head(aggregation))?;
    f.write_str("(")?;
    if let Some(param) = &aggregation.param {
        write!(f, "{param}, ")?;
    }
    write!(f, "{})", aggregation.expr)
}

/// The operator and its grouping.
pub(super) fn head(aggregation: &Aggregation) -> String {
    let name = aggregation.op.as_str();
    match &aggregation.grouping {
        Grouping::By(labels) if labels.is_empty() => name.to_owned(),
        Grouping::By(labels) => format!("{name} by ({}) ", names(labels)),
        Grouping::Without(labels) => format!("{name} without ({}) ", names(labels)),
    }
}

/// A longer expression than this is broken into lines.
const LINE_MAX: usize = 100;

/// The query in lines, as `promtool promql format` writes it.
pub fn pretty(expr: &Expr) -> String {
    indented(expr, 0)
}

fn indented(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let line = expr.to_string();
    if line.len() <= LINE_MAX {
        return format!("{indent}{line}");
    }
    match &expr.kind {
        Kind::Binary(binary) => {
            let left = bare_base(binary)
                .map_or_else(|| indented(&binary.left, level + 1), |base| format!("{indent}  {base}"));
            let right = indented(&binary.right, level + 1);
            format!(
                "{left}\n{indent}{}{}\n{right}",
                binary.op.as_str(),
                matching(binary.returns_bool, &binary.matching)
            )
        }
        Kind::Aggregate(aggregation) => {
            let param = aggregation.param.iter().map(|param| indented(param, level + 1) + ",\n");
            let param: String = param.collect();
            let inner = indented(&aggregation.expr, level + 1);
            format!("{indent}{}(\n{param}{inner}\n{indent})", head(aggregation))
        }
        Kind::Call(call) if !call.args.is_empty() => {
            let args: Vec<String> = call.args.iter().map(|arg| indented(arg, level + 1)).collect();
            format!("{indent}{}(\n{}\n{indent})", call.name, args.join(",\n"))
        }
        Kind::Paren(inner) => format!("{indent}(\n{}\n{indent})", indented(inner, level + 1)),
        Kind::Unary { minus, expr } => {
            let inner = indented(expr, level);
            format!("{indent}{}{}", if *minus { '-' } else { '+' }, inner.trim_start())
        }
        Kind::Subquery(subquery) => {
            let inner = indented(&subquery.expr, level);
            let rest = line.strip_prefix(&subquery.expr.to_string()).unwrap_or_default();
            format!("{inner}{rest}")
        }
        Kind::Number(..) | Kind::Text(_) | Kind::Vector(_) | Kind::Matrix(..) | Kind::Call(_) => {
            format!("{indent}{line}")
        }
    }
}
