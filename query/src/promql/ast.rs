//! What a query says.

use binnacle_model::{Matcher, Timestamp};

use super::functions;

/// Where something stands in the query, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last one.
    pub end: usize,
}

impl Span {
    /// From the beginning of this to the end of another one.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// The kind of an expression's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// One number per step.
    Scalar,
    /// Series with one sample per step.
    Vector,
    /// Series with all samples of a window per step.
    Matrix,
    /// Text.
    String,
}

impl ValueType {
    /// As Prometheus's messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::String => "string",
        }
    }
}

/// Where `@` moves a selector to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum At {
    /// A moment.
    Time(Timestamp),
    /// The first step.
    Start,
    /// The last step.
    End,
}

/// How far a range or an offset reaches.
#[derive(Debug, Clone, PartialEq)]
pub enum Reach {
    /// Milliseconds.
    Fixed(i64),
    /// To be calculated once the query's steps are known.
    Calculated(Box<DurationExpr>),
}

impl Default for Reach {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

/// Arithmetic of durations, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    /// A number, or a duration such as `5m`.
    Seconds(f64, Notation),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `-a`
    Negate(Box<DurationExpr>),
    /// `(a)`
    Paren(Box<DurationExpr>),
    /// `a + b`
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
}

/// How a number was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// `300`
    Number,
    /// `5m`
    Duration,
}

/// Whether a selector looks beyond its range's borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Borders {
    /// It does not.
    #[default]
    Strict,
    /// The last sample at or before the beginning counts as one at the beginning.
    Anchored,
    /// Values at the borders are interpolated.
    Smoothed,
}

/// Selects series, and where in time to look at them.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// All must hold; the metric's name is one of them.
    pub matchers: Vec<Matcher>,
    /// The metric's name, where it stands before the braces.
    pub name: Option<String>,
    /// How far back; negative is forward.
    pub offset: Reach,
    /// A fixed moment instead of the step's.
    pub at: Option<At>,
    /// Whether it looks further.
    pub borders: Borders,
}

/// An expression and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it says.
    pub kind: Kind,
    /// Where it stands.
    pub span: Span,
}

/// What an expression says.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A number.
    Number(f64, Notation),
    /// Text.
    Text(String),
    /// An instant vector selector.
    Vector(Selector),
    /// A range vector selector.
    Matrix(Selector, Reach),
    /// `expr[range:step]`
    Subquery(Box<Subquery>),
    /// `-expr` or `+expr`
    Unary {
        /// Whether it is `-`.
        minus: bool,
        /// Its operand.
        expr: Box<Expr>,
    },
    /// `(expr)`
    Paren(Box<Expr>),
    /// Two operands.
    Binary(Box<Binary>),
    /// `sum by (…) (expr)` and its like.
    Aggregate(Box<Aggregation>),
    /// A function.
    Call(Call),
}

/// `expr[range:step]`
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated at each inner step.
    pub expr: Expr,
    /// How far back.
    pub range: Reach,
    /// Between inner steps; the default is the engine's.
    pub step: Option<Reach>,
    /// As in a selector.
    pub offset: Reach,
    /// As in a selector.
    pub at: Option<At>,
}

/// Two operands and what is between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left of it.
    pub left: Expr,
    /// Right of it.
    pub right: Expr,
    /// Comparison yields 0 and 1 instead of filtering.
    pub returns_bool: bool,
    /// How series find their partners.
    pub matching: Matching,
}

/// A function call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its name, one of those in the table of functions.
    pub name: &'static str,
    /// As the function's signature wants them.
    pub args: Vec<Expr>,
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregation {
    /// Which.
    pub op: AggregateOp,
    /// Over what.
    pub expr: Expr,
    /// `k`, the quantile, or the label of `count_values`.
    pub param: Option<Expr>,
    /// Which labels stay.
    pub grouping: Grouping,
}

/// Which labels an aggregation keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grouping {
    /// Only these.
    By(Vec<String>),
    /// All but these and the name.
    Without(Vec<String>),
}

/// How the series of two vectors find each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    /// Which labels must be equal: `on`, or `ignoring`, of which none named means all.
    pub on: bool,
    /// The labels named.
    pub labels: Vec<String>,
    /// How many partners one may have.
    pub card: Card,
    /// Labels taken from the "one" side by `group_left` or `group_right`.
    pub include: Vec<String>,
    /// Value of a series that is missing on the left.
    pub fill_left: Option<f64>,
    /// Value of a series that is missing on the right.
    pub fill_right: Option<f64>,
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            on: false,
            labels: Vec::new(),
            card: Card::OneToOne,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        }
    }
}

/// How many partners a series may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// One each.
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// `and`, `or`, `unless`
    ManyToMany,
}

/// An aggregation's operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "PromQL's own names")]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
    Limitk,
    LimitRatio,
}

/// Operators and their names.
const AGGREGATES: [(AggregateOp, &str); 14] = [
    (AggregateOp::Sum, "sum"),
    (AggregateOp::Avg, "avg"),
    (AggregateOp::Min, "min"),
    (AggregateOp::Max, "max"),
    (AggregateOp::Count, "count"),
    (AggregateOp::Group, "group"),
    (AggregateOp::Stddev, "stddev"),
    (AggregateOp::Stdvar, "stdvar"),
    (AggregateOp::Topk, "topk"),
    (AggregateOp::Bottomk, "bottomk"),
    (AggregateOp::Quantile, "quantile"),
    (AggregateOp::CountValues, "count_values"),
    (AggregateOp::Limitk, "limitk"),
    (AggregateOp::LimitRatio, "limit_ratio"),
];

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = {
        let mut all = [Self::Sum; 14];
        let mut at = 0;
        while at < all.len() {
            all[at] = AGGREGATES[at].0;
            at += 1;
        }
        all
    };

    /// The operator of that name.
    pub fn named(name: &str) -> Option<Self> {
        AGGREGATES.iter().find(|(_, known)| *known == name).map(|(op, _)| *op)
    }

    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        AGGREGATES.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    /// Whether it takes a parameter before the vector.
    pub fn has_param(self) -> bool {
        matches!(self, Self::Quantile | Self::CountValues) || self.selects()
    }

    /// Whether it answers some of its series as they are.
    pub fn selects(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::Limitk | Self::LimitRatio)
    }
}

/// An operator between two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "PromQL's own operators")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    And,
    Or,
    Unless,
    TrimUpper,
    TrimLower,
}

impl BinaryOp {
    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le)
    }

    /// Whether it works on sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Whether its result means something else than its operands, so that their name goes.
    pub fn changes_meaning(self) -> bool {
        !self.is_comparison() && !self.is_set() && !matches!(self, Self::TrimUpper | Self::TrimLower)
    }

    /// How tightly it binds; more binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eq
            | Self::Ne
            | Self::Gt
            | Self::Lt
            | Self::Ge
            | Self::Le
            | Self::TrimUpper
            | Self::TrimLower => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }

    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }
}

impl Expr {
    /// The expression within any parentheses around it.
    pub fn bare(&self) -> &Self {
        match &self.kind {
            Kind::Paren(inner) => inner.bare(),
            _ => self,
        }
    }

    /// The kind of its value.
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            Kind::Number(..) => ValueType::Scalar,
            Kind::Text(_) => ValueType::String,
            Kind::Vector(_) | Kind::Aggregate(_) => ValueType::Vector,
            Kind::Matrix(..) | Kind::Subquery(_) => ValueType::Matrix,
            Kind::Unary { expr: inner, .. } | Kind::Paren(inner) => inner.value_type(),
            Kind::Binary(binary) => {
                let is_scalar = |side: &Self| side.value_type() == ValueType::Scalar;
                let scalars = is_scalar(&binary.left) && is_scalar(&binary.right);
                if scalars { ValueType::Scalar } else { ValueType::Vector }
            }
            Kind::Call(call) => {
                functions::signature(call.name).map_or(ValueType::Vector, |signature| signature.returns)
            }
        }
    }

    /// Visits its selectors, wherever they stand in it.
    pub fn each_selector(&self, visit: &mut dyn FnMut(&Selector)) {
        if let Kind::Vector(selector) | Kind::Matrix(selector, _) = &self.kind {
            visit(selector);
        }
        self.parts().into_iter().for_each(|part| part.each_selector(visit));
    }

    /// Its direct parts, in the order in which they stand.
    pub fn parts(&self) -> Vec<&Self> {
        match &self.kind {
            Kind::Number(..) | Kind::Text(_) | Kind::Vector(_) | Kind::Matrix(..) => Vec::new(),
            Kind::Subquery(subquery) => vec![&subquery.expr],
            Kind::Unary { expr: inner, .. } | Kind::Paren(inner) => vec![inner],
            Kind::Binary(binary) => vec![&binary.left, &binary.right],
            Kind::Aggregate(aggregation) => aggregation.param.iter().chain([&aggregation.expr]).collect(),
            Kind::Call(call) => call.args.iter().collect(),
        }
    }
}
