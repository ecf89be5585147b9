//! Queries for numbers: a Pratt parser over range and vector aggregations.

use super::super::ast::{
    Binary, LogExpr, MetricExpr, RangeAggregation, RangeOp, VectorAggregation, VectorOp,
};
use super::super::lexer::Token;
use super::{MAX_DEPTH, ParseError, Parser};
use crate::promql::{BinaryOp, Card, Grouping, Matching};

/// An expression and how deep it is.
type Deep = (MetricExpr, usize);

/// Range aggregations of one query: each is asked of the store alone.
const MAX_RANGES: usize = 64;

impl Parser<'_> {
    pub(super) fn metric(&mut self) -> Result<MetricExpr, ParseError> {
        let (expr, _) = self.operators(0)?;
        let mut ranges = 0;
        expr.each_range(&mut |_| ranges += 1);
        if ranges > MAX_RANGES {
            return Err(ParseError::whole(format!("a query has more than {MAX_RANGES} range aggregations")));
        }
        Ok(expr)
    }

    fn operators(&mut self, least: u8) -> Result<Deep, ParseError> {
        self.deeper(|parser| parser.operators_inner(least))
    }

    fn operators_inner(&mut self, least: u8) -> Result<Deep, ParseError> {
        let (mut left, mut depth) = self.primary()?;
        while let Some(op) = self.operator() {
            let precedence = op.precedence();
            if precedence < least {
                break;
            }
            self.next();
            let (returns_bool, matching) = self.matching(op)?;
            let binds = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
            let (right, right_depth) = self.operators(binds)?;
            depth = depth.max(right_depth) + 1;
            if depth > MAX_DEPTH {
                return Err(self.error(format!("expression is deeper than {MAX_DEPTH} levels")));
            }
            check_sides(op, &left, &right)?;
            left = MetricExpr::Binary(Box::new(Binary { op, left, right, returns_bool, matching }));
        }
        Ok((left, depth))
    }

    fn operator(&self) -> Option<BinaryOp> {
        let ops = [
            BinaryOp::Add,
            BinaryOp::Sub,
            BinaryOp::Mul,
            BinaryOp::Div,
            BinaryOp::Mod,
            BinaryOp::Pow,
            BinaryOp::Eq,
            BinaryOp::Ne,
            BinaryOp::Gt,
            BinaryOp::Lt,
            BinaryOp::Ge,
            BinaryOp::Le,
            BinaryOp::And,
            BinaryOp::Or,
            BinaryOp::Unless,
        ];
        let word = match self.peek() {
            Token::Sign(sign) => sign,
            Token::Name(name) => name.as_str(),
            _ => return None,
        };
        ops.into_iter().find(|op| op.as_str() == word)
    }

    fn matching(&mut self, op: BinaryOp) -> Result<(bool, Matching), ParseError> {
        let returns_bool = op.is_comparison() && self.takes_word("bool");
        let card = if op.is_set() { Card::ManyToMany } else { Card::OneToOne };
        let mut matching = Matching { card, ..Matching::default() };
        let is_on = self.is_word("on");
        if !is_on && !self.is_word("ignoring") {
            return Ok((returns_bool, matching));
        }
        self.next();
        matching.on = is_on;
        matching.labels = self.label_list()?;
        for (word, card) in [("group_left", Card::ManyToOne), ("group_right", Card::OneToMany)] {
            if !self.is_word(word) {
                continue;
            }
            if op.is_set() {
                let reason = format!("no grouping allowed for {:?} operation", op.as_str());
                return Err(ParseError::whole(reason));
            }
            self.next();
            matching.card = card;
            if self.is_sign("(") {
                matching.include = self.label_list()?;
            }
            break;
        }
        Ok((returns_bool, matching))
    }

    fn label_list(&mut self) -> Result<Vec<String>, ParseError> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.takes(")") {
            labels.push(self.expect_name()?);
            if !self.takes(",") && !self.is_sign(")") {
                return Err(self.unexpected(", or )"));
            }
        }
        Ok(labels)
    }

    fn primary(&mut self) -> Result<Deep, ParseError> {
        match self.peek().clone() {
            Token::Sign("(") => {
                self.next();
                let (inner, depth) = self.operators(0)?;
                self.expect(")")?;
                Ok((inner, depth + 1))
            }
            Token::Sign(sign @ ("-" | "+")) => {
                self.next();
                let Token::Number(value) = *self.peek() else { return Err(self.unexpected("NUMBER")) };
                self.next();
                Ok((MetricExpr::Number(if sign == "-" { -value } else { value }), 1))
            }
            Token::Number(value) => {
                self.next();
                Ok((MetricExpr::Number(value), 1))
            }
            Token::Name(name) => self.call(&name),
            _ => Err(self.unexpected("")),
        }
    }

    fn call(&mut self, name: &str) -> Result<Deep, ParseError> {
        if let Some(op) = RangeOp::named(name) {
            self.next();
            let range = self.deeper(|parser| parser.range_aggregation(op))?;
            return Ok((MetricExpr::Range(Box::new(range)), 1));
        }
        if let Some(op) = VectorOp::named(name) {
            self.next();
            return self.vector_aggregation(op);
        }
        match name {
            "vector" => {
                self.next();
                self.expect("(")?;
                let value = self.number()?;
                self.expect(")")?;
                Ok((MetricExpr::VectorOf(value), 1))
            }
            "label_replace" => {
                self.next();
                self.label_replace()
            }
            _ => Err(self.unexpected("")),
        }
    }

    fn number(&mut self) -> Result<f64, ParseError> {
        let minus = self.takes("-");
        let Token::Number(value) = *self.peek() else { return Err(self.unexpected("NUMBER")) };
        self.next();
        Ok(if minus { -value } else { value })
    }

    fn label_replace(&mut self) -> Result<Deep, ParseError> {
        self.expect("(")?;
        let (inner, depth) = self.operators(0)?;
        check_series("label_replace", &inner)?;
        let mut texts: [String; 4] = Default::default();
        for text in &mut texts {
            self.expect(",")?;
            *text = self.expect_text()?;
        }
        self.expect(")")?;
        if let Err(reason) = binnacle_model::regexes::anchored(&texts[3], 1 << 20) {
            let reason = format!("invalid regex in label_replace: {reason}");
            return Err(ParseError::whole(reason));
        }
        Ok((MetricExpr::LabelReplace { expr: Box::new(inner), texts }, depth + 1))
    }

    fn vector_aggregation(&mut self, op: VectorOp) -> Result<Deep, ParseError> {
        let mut grouping = self.grouping()?;
        self.expect("(")?;
        let param = if op.has_param() || matches!(self.peek_behind(1), Token::Sign(",")) {
            let refuse = |_| ParseError::whole(format!("parameter required for operation {}", op.as_str()));
            let value = self.number().map_err(refuse)?;
            self.expect(",")?;
            Some(value)
        } else {
            None
        };
        match param {
            Some(_) if !op.has_param() => {
                let reason =
                    format!("unsupported parameter for operation {}({}", op.as_str(), param.unwrap_or(0.0));
                return Err(ParseError::whole(reason + ",)"));
            }
            Some(value) if value < 1.0 => {
                let reason = format!("invalid parameter (must be greater than 0) {}({value}", op.as_str());
                return Err(ParseError::whole(reason));
            }
            _ => {}
        }
        let (inner, depth) = self.operators(0)?;
        check_series(op.as_str(), &inner)?;
        self.expect(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        if grouping.is_some() && matches!(op, VectorOp::Sort | VectorOp::SortDesc) {
            return Err(ParseError::whole(format!("grouping not allowed for {} aggregation", op.as_str())));
        }
        let aggregation = VectorAggregation { op, param, grouping, expr: inner };
        Ok((MetricExpr::Vector(Box::new(aggregation)), depth + 1))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, ParseError> {
        let kind = match self.peek() {
            Token::Name(word) if word == "by" => Grouping::By as fn(_) -> _,
            Token::Name(word) if word == "without" => Grouping::Without as fn(_) -> _,
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(kind(self.label_list()?)))
    }

    fn range_aggregation(&mut self, op: RangeOp) -> Result<RangeAggregation, ParseError> {
        self.expect("(")?;
        let mut param = None;
        if let Token::Number(value) = *self.peek() {
            if op != RangeOp::Quantile {
                return Err(ParseError::whole(format!(
                    "parameter {value} not supported for operation {}",
                    op.as_str()
                )));
            }
            self.next();
            self.expect(",")?;
            param = Some(value);
        }
        if op == RangeOp::Quantile && param.is_none() {
            return Err(ParseError::whole(format!("parameter required for operation {}", op.as_str())));
        }
        let mut range = self.log_range(op)?;
        range.param = param;
        self.expect(")")?;
        range.grouping = self.grouping()?;
        check_range(&range)?;
        Ok(range)
    }

    /// A selector with its pipeline and its range, which may stand before the pipeline or behind it.
    fn log_range(&mut self, op: RangeOp) -> Result<RangeAggregation, ParseError> {
        if self.takes("(") {
            let mut inner = self.deeper(|parser| parser.log_range(op))?;
            self.expect(")")?;
            // `({…} | json)[5m]`
            if inner.range_ns == 0 {
                (inner.range_ns, inner.offset_ns) = self.range()?.ok_or_else(|| self.unexpected("RANGE"))?;
            }
            return Ok(inner);
        }
        let matchers = self.selective()?;
        let mut range = self.range()?;
        let stages = self.pipeline()?;
        let unwrap = self.unwrap()?;
        if range.is_none() {
            range = self.range()?;
        }
        // Within parentheses it may stand behind them.
        let may_follow = self.is_sign(")") && matches!(self.peek_behind(1), Token::Range(_));
        let (range_ns, offset_ns) = match range {
            Some(range) => range,
            None if may_follow => (0, 0),
            None => return Err(self.unexpected("RANGE")),
        };
        let logs = LogExpr { matchers, stages };
        Ok(RangeAggregation { op, param: None, logs, unwrap, range_ns, offset_ns, grouping: None })
    }

    /// `[5m] offset 1h`
    fn range(&mut self) -> Result<Option<(i64, i64)>, ParseError> {
        let Token::Range(range) = *self.peek() else { return Ok(None) };
        self.next();
        if !self.takes_word("offset") {
            return Ok(Some((range, 0)));
        }
        let minus = self.takes("-");
        let Token::Duration(offset, _) = *self.peek() else { return Err(self.unexpected("DURATION")) };
        self.next();
        Ok(Some((range, if minus { -(offset as i64) } else { offset as i64 })))
    }
}

/// What works on series has nothing to do with a number alone.
fn check_series(name: &str, expr: &MetricExpr) -> Result<(), ParseError> {
    if expr.is_number() {
        return Err(ParseError::whole(format!("{name} takes series, not a number; write vector(1)")));
    }
    Ok(())
}

/// As in Loki, sets are made of series alone.
fn check_sides(op: BinaryOp, left: &MetricExpr, right: &MetricExpr) -> Result<(), ParseError> {
    for (side, expr) in [("left", left), ("right", right)] {
        if op.is_set() && expr.is_number() {
            let reason = format!(
                "unexpected literal for {side} side of logical/set binary operation ({}): {expr}",
                op.as_str()
            );
            return Err(ParseError::whole(reason));
        }
    }
    Ok(())
}

fn check_range(range: &RangeAggregation) -> Result<(), ParseError> {
    let name = range.op.as_str();
    if range.range_ns == 0 {
        return Err(ParseError::whole(format!("a range such as [5m] is missing in {name}")));
    }
    if range.grouping.is_some() && !range.op.may_group() {
        return Err(ParseError::whole(format!("grouping not allowed for {name} aggregation")));
    }
    match (range.op.unwraps(), &range.unwrap) {
        (Some(true), None) => Err(ParseError::whole(format!("invalid aggregation {name} without unwrap"))),
        (Some(false), Some(_)) => Err(ParseError::whole(format!("invalid aggregation {name} with unwrap"))),
        _ => Ok(()),
    }
}

impl MetricExpr {
    /// Whether it is one number and no series.
    fn is_number(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Binary(binary) => binary.left.is_number() && binary.right.is_number(),
            Self::Range(_) | Self::Vector(_) | Self::LabelReplace { .. } | Self::VectorOf(_) => false,
        }
    }

    /// Visits its range aggregations, from left to right.
    pub(in crate::logql) fn each_range<'e>(&'e self, visit: &mut dyn FnMut(&'e RangeAggregation)) {
        match self {
            Self::Range(range) => visit(range),
            Self::Vector(vector) => vector.expr.each_range(visit),
            Self::Binary(binary) => {
                binary.left.each_range(visit);
                binary.right.each_range(visit);
            }
            Self::LabelReplace { expr, .. } => expr.each_range(visit),
            Self::Number(_) | Self::VectorOf(_) => {}
        }
    }
}
