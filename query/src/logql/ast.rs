//! What a query says.

use binnacle_model::Matcher;
use binnacle_model::log_query::{IpRange, LogRegex};

use super::stages::{JsonPaths, LineFormat, Logfmt, PatternParser, RegexpParser};
use super::template::Template;
use crate::promql::{AggregateOp, BinaryOp, Grouping, Matching};

/// A query of either kind.
#[derive(Debug, Clone)]
pub enum Query {
    /// Asks for lines.
    Logs(LogExpr),
    /// Asks for numbers.
    Metric(Metric),
}

/// Streams, and what becomes of their lines.
#[derive(Debug, Clone)]
pub struct LogExpr {
    /// All must hold.
    pub matchers: Vec<Matcher>,
    pub(super) stages: Vec<Stage>,
}

/// One step of a pipeline.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    Line(LineFilter),
    Json(JsonPaths),
    Logfmt(Logfmt),
    Pattern(PatternParser),
    Regexp(RegexpParser),
    Unpack,
    LineFormat(LineFormat),
    LabelFormat(Vec<(String, NewLabel)>),
    Decolorize,
    Drop(Vec<NamedMatcher>),
    Keep(Vec<NamedMatcher>),
    Filter(LabelFilter),
}

/// What a line filter asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineOp {
    Contains,
    NotContains,
    Regex,
    NotRegex,
    Pattern,
    NotPattern,
}

impl LineOp {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Contains => "|=",
            Self::NotContains => "!=",
            Self::Regex => "|~",
            Self::NotRegex => "!~",
            Self::Pattern => "|>",
            Self::NotPattern => "!>",
        }
    }

    pub(super) fn is_negative(self) -> bool {
        matches!(self, Self::NotContains | Self::NotRegex | Self::NotPattern)
    }
}

/// Keeps lines by their bytes: those in which one of the needles is found, or none of them.
#[derive(Debug, Clone)]
pub(super) struct LineFilter {
    pub(super) op: LineOp,
    pub(super) needles: Vec<Needle>,
}

#[derive(Debug, Clone)]
pub(super) enum Needle {
    /// As written, and its bytes.
    Text(String, Vec<u8>),
    Regex(LogRegex),
    Ip(String, IpRange),
    Pattern(super::stages::LinePattern),
}

/// What `label_format` makes a label of.
#[derive(Debug, Clone)]
pub(super) enum NewLabel {
    Rename(String),
    Template(Template),
}

/// A label that `drop` and `keep` mean: by name, and perhaps only where the value fits.
#[derive(Debug, Clone)]
pub(super) struct NamedMatcher {
    pub(super) name: String,
    pub(super) matcher: Option<Matcher>,
}

/// How a label filter compares numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

impl Compare {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Lt => "<",
            Self::Le => "<=",
        }
    }

    pub(super) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Eq => left == right,
            Self::Ne => left != right,
            Self::Gt => left > right,
            Self::Ge => left >= right,
            Self::Lt => left < right,
            Self::Le => left <= right,
        }
    }
}

/// What unit a label's value is compared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Number,
    /// Nanoseconds.
    Duration,
    Bytes,
}

/// Keeps lines by their labels.
#[derive(Debug, Clone)]
pub(super) enum LabelFilter {
    Text(Matcher),
    Amount { name: String, compare: Compare, unit: Unit, value: f64, written: String },
    Ip { name: String, is_equal: bool, range: IpRange, written: String },
    And(Vec<LabelFilter>),
    Or(Vec<LabelFilter>),
}

/// What makes a number of a label.
#[derive(Debug, Clone)]
pub(super) struct Unwrap {
    pub(super) label: String,
    pub(super) convert: Convert,
    /// Behind it; they see what went wrong.
    pub(super) filters: Vec<LabelFilter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Convert {
    Number,
    /// To seconds; `duration_seconds` is the same.
    Duration,
    DurationSeconds,
    Bytes,
}

/// A query for numbers.
#[derive(Debug, Clone)]
pub struct Metric(pub(super) MetricExpr);

#[derive(Debug, Clone)]
pub(super) enum MetricExpr {
    Range(Box<RangeAggregation>),
    Vector(Box<VectorAggregation>),
    Binary(Box<Binary>),
    LabelReplace {
        expr: Box<MetricExpr>,
        texts: [String; 4],
    },
    Number(f64),
    /// `vector(n)`
    VectorOf(f64),
}

#[derive(Debug, Clone)]
pub(super) struct RangeAggregation {
    pub(super) op: RangeOp,
    /// The quantile.
    pub(super) param: Option<f64>,
    pub(super) logs: LogExpr,
    pub(super) unwrap: Option<Unwrap>,
    pub(super) range_ns: i64,
    pub(super) offset_ns: i64,
    pub(super) grouping: Option<Grouping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RangeOp {
    Count,
    Rate,
    RateCounter,
    Bytes,
    BytesRate,
    Sum,
    Avg,
    Min,
    Max,
    Stddev,
    Stdvar,
    Quantile,
    First,
    Last,
    Absent,
}

/// Operators and their names.
const RANGE_OPS: [(RangeOp, &str); 15] = [
    (RangeOp::Count, "count_over_time"),
    (RangeOp::Rate, "rate"),
    (RangeOp::RateCounter, "rate_counter"),
    (RangeOp::Bytes, "bytes_over_time"),
    (RangeOp::BytesRate, "bytes_rate"),
    (RangeOp::Sum, "sum_over_time"),
    (RangeOp::Avg, "avg_over_time"),
    (RangeOp::Min, "min_over_time"),
    (RangeOp::Max, "max_over_time"),
    (RangeOp::Stddev, "stddev_over_time"),
    (RangeOp::Stdvar, "stdvar_over_time"),
    (RangeOp::Quantile, "quantile_over_time"),
    (RangeOp::First, "first_over_time"),
    (RangeOp::Last, "last_over_time"),
    (RangeOp::Absent, "absent_over_time"),
];

impl RangeOp {
    pub(super) fn named(name: &str) -> Option<Self> {
        RANGE_OPS.iter().find(|(_, known)| *known == name).map(|(op, _)| *op)
    }

    pub(super) fn as_str(self) -> &'static str {
        RANGE_OPS.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    /// Whether it may be grouped, as in Loki.
    pub(super) fn may_group(self) -> bool {
        matches!(
            self,
            Self::Avg
                | Self::Min
                | Self::Max
                | Self::Stddev
                | Self::Stdvar
                | Self::Quantile
                | Self::First
                | Self::Last
        )
    }

    /// Whether it works on numbers: it must, it must not, or it may.
    pub(super) fn unwraps(self) -> Option<bool> {
        match self {
            Self::Rate | Self::Absent => None,
            Self::Count | Self::Bytes | Self::BytesRate => Some(false),
            _ => Some(true),
        }
    }
}

/// Operators of vectors: those of PromQL that Loki has, and two that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VectorOp {
    Aggregate(AggregateOp),
    Sort,
    SortDesc,
}

impl VectorOp {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "sort" => return Some(Self::Sort),
            "sort_desc" => return Some(Self::SortDesc),
            // Approximate in Loki, exact here.
            "approx_topk" => return Some(Self::Aggregate(AggregateOp::Topk)),
            _ => {}
        }
        let known = ["sum", "avg", "min", "max", "count", "stddev", "stdvar", "topk", "bottomk"];
        known.contains(&name).then(|| AggregateOp::named(name)).flatten().map(Self::Aggregate)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Aggregate(op) => op.as_str(),
            Self::Sort => "sort",
            Self::SortDesc => "sort_desc",
        }
    }

    pub(super) fn has_param(self) -> bool {
        matches!(self, Self::Aggregate(op) if op.has_param())
    }
}

#[derive(Debug, Clone)]
pub(super) struct VectorAggregation {
    pub(super) op: VectorOp,
    pub(super) param: Option<f64>,
    pub(super) grouping: Option<Grouping>,
    pub(super) expr: MetricExpr,
}

#[derive(Debug, Clone)]
pub(super) struct Binary {
    pub(super) op: BinaryOp,
    pub(super) left: MetricExpr,
    pub(super) right: MetricExpr,
    pub(super) returns_bool: bool,
    pub(super) matching: Matching,
}
