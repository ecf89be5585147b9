//! What a query says.

use std::time::Duration;

use binnacle_model::{Matcher, Timestamp};

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

/// Selects series, and where in time to look at them.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// All must hold; the metric's name is one of them.
    pub matchers: Vec<Matcher>,
    /// How far back, in milliseconds; negative is forward.
    pub offset_ms: i64,
    /// A fixed moment instead of the step's.
    pub at: Option<At>,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// An instant vector selector.
    Vector(Selector),
    /// A range vector selector.
    Matrix(Selector, Duration),
    /// `expr[range:step]`
    Subquery {
        /// What is evaluated at each inner step.
        expr: Box<Expr>,
        /// How far back.
        range: Duration,
        /// Between inner steps; the default is the engine's.
        step: Option<Duration>,
        /// As in a selector.
        offset_ms: i64,
        /// As in a selector.
        at: Option<At>,
    },
    /// `-expr`
    Negate(Box<Expr>),
    /// `(expr)`
    Paren(Box<Expr>),
    /// Two operands.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Left of it.
        left: Box<Expr>,
        /// Right of it.
        right: Box<Expr>,
        /// Comparison yields 0 and 1 instead of filtering.
        returns_bool: bool,
        /// How series find their partners.
        matching: Matching,
    },
    /// `sum by (…) (expr)` and its like.
    Aggregate(Box<Aggregation>),
    /// A function.
    Call(Call),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    /// Which labels must be equal: `on`, or `ignoring`, of which none named means all.
    pub on: bool,
    /// The labels named.
    pub labels: Vec<String>,
    /// How many partners one may have.
    pub card: Card,
    /// Labels taken from the "one" side by `group_left` or `group_right`.
    pub include: Vec<String>,
}

impl Default for Matching {
    fn default() -> Self {
        Self { on: false, labels: Vec::new(), card: Card::OneToOne, include: Vec::new() }
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
}

impl AggregateOp {
    /// The operator of that name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "count" => Self::Count,
            "group" => Self::Group,
            "stddev" => Self::Stddev,
            "stdvar" => Self::Stdvar,
            "topk" => Self::Topk,
            "bottomk" => Self::Bottomk,
            "quantile" => Self::Quantile,
            "count_values" => Self::CountValues,
            _ => return None,
        })
    }

    /// Whether it takes a parameter before the vector.
    pub fn has_param(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::Quantile | Self::CountValues)
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

    /// How tightly it binds; more binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le => 3,
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
        }
    }
}

impl Expr {
    /// The kind of its value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) => ValueType::Scalar,
            Self::Text(_) => ValueType::String,
            Self::Vector(_) | Self::Aggregate(_) => ValueType::Vector,
            Self::Matrix(..) | Self::Subquery { .. } => ValueType::Matrix,
            Self::Negate(inner) | Self::Paren(inner) => inner.value_type(),
            Self::Binary { left, right, .. } => {
                let scalars =
                    left.value_type() == ValueType::Scalar && right.value_type() == ValueType::Scalar;
                if scalars { ValueType::Scalar } else { ValueType::Vector }
            }
            Self::Call(call) => super::functions::signature(call.name)
                .map_or(ValueType::Vector, |signature| signature.returns),
        }
    }
}
