//! What follows a selector: `offset`, `@`, `[range]`, `anchored`, and the arithmetic of durations.

use std::time::Duration;

use binnacle_model::Timestamp;

use super::super::ast::{
    At, BinaryOp, Borders, DurationExpr, Expr, Kind, Notation, Reach, Selector, Span, Subquery,
};
use super::super::lexer::{Token, named_number};
use super::{Deep, Modified, ParseError, Parser};

/// Longest duration; sums of several still fit a moment's number.
const SECONDS_MAX: f64 = 9.2e9;

impl Parser<'_> {
    /// A primary expression with all that stands behind it.
    pub(super) fn postfix(&mut self) -> Result<Deep, ParseError> {
        let start = self.place();
        let (mut expr, mut depth) = self.primary()?;
        loop {
            if self.is_word("offset") {
                self.next();
                let offset = self.offset()?;
                self.set_offset(&mut expr, offset)?;
            } else if self.takes("@") {
                let at = self.at_modifier()?;
                self.set_at(&mut expr, at)?;
            } else if self.is_word("anchored") || self.is_word("smoothed") {
                let borders = if self.is_word("anchored") { Borders::Anchored } else { Borders::Smoothed };
                self.next();
                self.set_borders(&mut expr, borders)?;
            } else if self.is_sign("[") {
                expr = self.range(expr)?;
                depth += 1;
            } else {
                return Ok((expr, depth));
            }
            expr.span = self.since(start);
        }
    }

    fn modified(expr: &mut Expr) -> Option<Modified<'_>> {
        match &mut expr.kind {
            Kind::Vector(Selector { offset, at, .. }) | Kind::Matrix(Selector { offset, at, .. }, _) => {
                Some(Modified { offset, at })
            }
            Kind::Subquery(subquery) => Some(Modified { offset: &mut subquery.offset, at: &mut subquery.at }),
            _ => None,
        }
    }

    fn set_offset(&self, expr: &mut Expr, offset: Reach) -> Result<(), ParseError> {
        let span = expr.span;
        let Some(modified) = Self::modified(expr) else {
            let reason = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.error_at(span, reason.to_owned()));
        };
        if *modified.offset != Reach::default() {
            return Err(self.error_at(span, "offset may not be set multiple times".to_owned()));
        }
        *modified.offset = offset;
        Ok(())
    }

    fn set_at(&self, expr: &mut Expr, at: At) -> Result<(), ParseError> {
        let span = expr.span;
        let Some(modified) = Self::modified(expr) else {
            let reason = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.error_at(span, reason.to_owned()));
        };
        if modified.at.is_some() {
            return Err(self.error_at(span, "@ <timestamp> may not be set multiple times".to_owned()));
        }
        *modified.at = Some(at);
        Ok(())
    }

    fn set_borders(&self, expr: &mut Expr, borders: Borders) -> Result<(), ParseError> {
        let span = expr.span;
        let word = if borders == Borders::Anchored { "anchored" } else { "smoothed" };
        match &mut expr.kind {
            Kind::Vector(selector) | Kind::Matrix(selector, _) => {
                if !matches!(selector.borders, Borders::Strict) && selector.borders != borders {
                    let reason = "anchored and smoothed modifiers cannot be used together".to_owned();
                    return Err(self.error_at(span, reason));
                }
                selector.borders = borders;
                Ok(())
            }
            Kind::Subquery(_) => {
                Err(self.error_at(span, format!("{word} modifier is not supported for subqueries")))
            }
            _ => Err(self.error_at(span, format!("{word} modifier not implemented"))),
        }
    }

    /// `[range]` or `[range:step]`
    fn range(&mut self, expr: Expr) -> Result<Expr, ParseError> {
        let bracket = self.place();
        self.expect("[")?;
        let range = self.positive_duration()?;
        if self.takes(":") {
            let step = if self.is_sign("]") { None } else { Some(self.positive_duration()?) };
            self.expect("]")?;
            let span = self.since(expr.span);
            let subquery = Subquery { expr, range, step, offset: Reach::default(), at: None };
            return Ok(Expr { kind: Kind::Subquery(Box::new(subquery)), span });
        }
        self.expect("]")?;
        let span = self.since(expr.span);
        let refuse = |reason: &str| Err(self.error_at(bracket, reason.to_owned()));
        match expr.kind {
            Kind::Vector(selector) if selector.offset != Reach::default() => {
                refuse("no offset modifiers allowed before range")
            }
            Kind::Vector(selector) if selector.at.is_some() => refuse("no @ modifiers allowed before range"),
            Kind::Vector(selector) => Ok(Expr { kind: Kind::Matrix(selector, range), span }),
            _ => refuse("ranges only allowed for vector selectors"),
        }
    }

    fn at_modifier(&mut self) -> Result<At, ParseError> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.takes_word(word) {
                self.expect("(")?;
                self.expect(")")?;
                return Ok(at);
            }
        }
        let place = self.place();
        let seconds = self.signed_number()?;
        let time = Timestamp::from_secs_f64(seconds);
        let out = || self.error_at(place, format!("timestamp out of bounds for @ modifier: {seconds}"));
        Ok(At::Time(time.ok_or_else(out)?))
    }

    /// A number or a duration, with or without a sign.
    pub(super) fn signed_number(&mut self) -> Result<f64, ParseError> {
        let negative = self.takes("-");
        if !negative {
            self.takes("+");
        }
        let place = self.place();
        let value = match self.next() {
            Token::Number(value) => value,
            Token::Duration(span) => span.as_secs_f64(),
            Token::Name(word) => match named_number(&word) {
                Some(value) => value,
                None => return Err(self.error_at(place, "expected a number".to_owned())),
            },
            _ => return Err(self.error_at(place, "expected a number".to_owned())),
        };
        Ok(if negative { -value } else { value })
    }

    fn offset(&mut self) -> Result<Reach, ParseError> {
        let place = self.place();
        let negative = self.takes("-");
        if !negative {
            self.takes("+");
        }
        // An offset takes a single term: `x offset 1 + 2` adds two to what was an hour ago.
        let term = self.duration_term()?;
        let expr = if negative { DurationExpr::Negate(Box::new(term)) } else { term };
        self.reach(expr, place)
    }

    fn positive_duration(&mut self) -> Result<Reach, ParseError> {
        let place = self.place();
        let expr = self.duration_expr(0)?;
        let reach = self.reach(expr, place)?;
        if matches!(reach, Reach::Fixed(..=0)) {
            return Err(self.error_at(place, "duration must be greater than 0".to_owned()));
        }
        Ok(reach)
    }

    /// A plain number becomes milliseconds at once.
    fn reach(&self, expr: DurationExpr, place: Span) -> Result<Reach, ParseError> {
        let seconds = match &expr {
            DurationExpr::Seconds(seconds, _) => *seconds,
            DurationExpr::Negate(inner) => match **inner {
                DurationExpr::Seconds(seconds, _) => -seconds,
                _ => return Ok(Reach::Calculated(Box::new(expr))),
            },
            _ => return Ok(Reach::Calculated(Box::new(expr))),
        };
        if seconds.is_nan() || seconds.abs() > SECONDS_MAX {
            return Err(self.error_at(place, "duration out of range".to_owned()));
        }
        Ok(Reach::Fixed((seconds * 1000.0).round() as i64))
    }

    /// Arithmetic of operators that bind as tightly as `least` or tighter.
    fn duration_expr(&mut self, least: u8) -> Result<DurationExpr, ParseError> {
        self.deeper(|parser| parser.duration_expr_inner(least))
    }

    fn duration_expr_inner(&mut self, least: u8) -> Result<DurationExpr, ParseError> {
        let mut left = if self.takes("-") {
            DurationExpr::Negate(Box::new(self.duration_expr(BinaryOp::Pow.precedence())?))
        } else {
            self.takes("+");
            self.duration_term()?
        };
        let mut operands = 1;
        while let Some(op) = self.operator() {
            let is_arithmetic = op.changes_meaning() && op != BinaryOp::Atan2;
            if !is_arithmetic || op.precedence() < least {
                break;
            }
            operands += 1;
            if operands > super::MAX_DEPTH {
                return Err(self.error("duration expression is too long".to_owned()));
            }
            let place = self.place();
            self.next();
            let binds = op.precedence() + u8::from(op != BinaryOp::Pow);
            let right = self.duration_expr(binds)?;
            let is_zero = matches!(right, DurationExpr::Seconds(0.0, _));
            if is_zero && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
                let what = if op == BinaryOp::Div { "division" } else { "modulo" };
                return Err(self.error_at(place, format!("{what} by zero")));
            }
            left = DurationExpr::Binary(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn duration_term(&mut self) -> Result<DurationExpr, ParseError> {
        let place = self.place();
        match self.next() {
            Token::Duration(span) => Ok(seconds(span)),
            Token::Number(value) => Ok(DurationExpr::Seconds(value, Notation::Number)),
            Token::Sign("(") => {
                let inner = self.duration_expr(0)?;
                self.expect(")")?;
                Ok(DurationExpr::Paren(Box::new(inner)))
            }
            Token::Name(word) => {
                let word = word.to_ascii_lowercase();
                let is_pair = matches!(word.as_str(), "min_of" | "max_of");
                if !is_pair && !matches!(word.as_str(), "step" | "range") {
                    return Err(self.error_at(place, expected_duration()));
                }
                self.expect("(")?;
                if !is_pair {
                    self.expect(")")?;
                    return Ok(if word == "step" { DurationExpr::Step } else { DurationExpr::Range });
                }
                let left = Box::new(self.duration_expr(0)?);
                self.expect(",")?;
                let right = Box::new(self.duration_expr(0)?);
                self.expect(")")?;
                let is_min = word == "min_of";
                Ok(if is_min { DurationExpr::MinOf(left, right) } else { DurationExpr::MaxOf(left, right) })
            }
            _ => Err(self.error_at(place, expected_duration())),
        }
    }
}

fn expected_duration() -> String {
    "expected a number, a duration such as 5m, step() or range()".to_owned()
}

fn seconds(span: Duration) -> DurationExpr {
    DurationExpr::Seconds(span.as_secs_f64(), Notation::Duration)
}
