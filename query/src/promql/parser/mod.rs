//! From tokens to an expression: a Pratt parser, linear in the text and bounded in depth.
//!
//! ```text
//! text ─► tokens ─► expr(precedence) ─► primary ─► postfix: offset, @, [range], anchored …
//!                        └ operator, its matching, expr(higher)
//!                                                      └► check: types, counts, names
//! ```

mod check;
mod modifiers;
mod primary;
#[cfg(test)]
mod tests;

use binnacle_model::Matcher;

use super::ast::{At, Binary, BinaryOp, Card, Expr, Kind, Matching, Span};
use super::lexer::{Placed, Token, tokens};

/// Longest query; dashboards stay far below.
const MAX_BYTES: usize = 256 * 1024;

/// Deepest expression: evaluating and dropping one recurses this often.
const MAX_DEPTH: usize = 400;

/// Why a query cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {reason}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

impl ParseError {
    pub(super) fn new(text: &str, at: usize, reason: String) -> Self {
        let (line, column) = line_and_column(text, at);
        Self { line, column, reason }
    }
}

/// Where a byte stands, both from 1.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Reads a query, experimental parts included; [`super::Features::check`] says whether they are on.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text)?;
    if parser.peek() == &Token::End {
        return Err(parser.error("no expression found in input".to_owned()));
    }
    let (expr, _) = parser.expr(0)?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected("expected an operator or the end of the query"));
    }
    check::check(text, &expr)?;
    Ok(expr)
}

/// Reads a series selector, as `match[]` parameters have it.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    match parse(text)?.kind {
        Kind::Vector(selector)
            if selector.offset == super::ast::Reach::default() && selector.at.is_none() =>
        {
            Ok(selector.matchers)
        }
        _ => Err(ParseError::new(text, 0, "expected a series selector".to_owned())),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

/// An expression and how deep it is.
type Deep = (Expr, usize);

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, ParseError> {
        if text.len() > MAX_BYTES {
            let reason = format!("query is longer than {MAX_BYTES} bytes");
            return Err(ParseError::new(text, 0, reason));
        }
        Ok(Self { text, tokens: tokens(text)?, at: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token
    }

    /// Of the next token.
    fn place(&self) -> Span {
        self.tokens[self.at].span
    }

    /// Where the token before the next one ends.
    fn end(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |before| self.tokens[before].span.end)
    }

    /// From `start` to the last token taken.
    fn since(&self, start: Span) -> Span {
        Span { start: start.start, end: self.end() }
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].token.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("expected {sign:?}"))) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(name) if name.eq_ignore_ascii_case(word))
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.next();
        }
        found
    }

    fn error(&self, reason: String) -> ParseError {
        self.error_at(self.place(), reason)
    }

    fn error_at(&self, span: Span, reason: String) -> ParseError {
        ParseError::new(self.text, span.start, reason)
    }

    fn unexpected(&self, expected: &str) -> ParseError {
        let found = match self.peek() {
            // As Prometheus says it, which looks for what is open before it looks for what is missing.
            Token::End if self.opened("{", "}") => {
                return self.error("unexpected end of input inside braces".to_owned());
            }
            Token::End if self.opened("(", ")") => return self.error("unclosed left parenthesis".to_owned()),
            Token::End => "unexpected end of input".to_owned(),
            Token::Name(name) => format!("unexpected identifier {name:?}"),
            Token::Number(_) => "unexpected number".to_owned(),
            Token::Duration(_) => "unexpected duration".to_owned(),
            Token::Text(_) => "unexpected string".to_owned(),
            Token::Sign(sign) => format!("unexpected {sign:?}"),
        };
        self.error(format!("{found}, {expected}"))
    }

    /// Whether more of one sign than of the other were read.
    fn opened(&self, open: &str, close: &str) -> bool {
        let count = |sign: &str| {
            self.tokens.iter().filter(|one| matches!(one.token, Token::Sign(found) if found == sign)).count()
        };
        count(open) > count(close)
    }

    /// Bounds the depth of what `parse` reads.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("expression is nested deeper than {MAX_DEPTH} levels")));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// An expression of operators that bind as tightly as `least` or tighter.
    fn expr(&mut self, least: u8) -> Result<Deep, ParseError> {
        self.deeper(|parser| parser.expr_inner(least))
    }

    fn expr_inner(&mut self, least: u8) -> Result<Deep, ParseError> {
        let (mut left, mut depth) = self.unary()?;
        while let Some(op) = self.operator() {
            let precedence = op.precedence();
            if precedence < least {
                break;
            }
            self.next();
            let (returns_bool, matching) = self.matching(op)?;
            let binds = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
            let (right, right_depth) = self.expr(binds)?;
            depth = depth.max(right_depth) + 1;
            if depth > MAX_DEPTH {
                return Err(self.error(format!("expression is deeper than {MAX_DEPTH} levels")));
            }
            let span = left.span.to(right.span);
            let binary = Binary { op, left, right, returns_bool, matching };
            left = Expr { kind: Kind::Binary(Box::new(binary)), span };
        }
        Ok((left, depth))
    }

    fn operator(&self) -> Option<BinaryOp> {
        Some(match self.peek() {
            Token::Sign("+") => BinaryOp::Add,
            Token::Sign("-") => BinaryOp::Sub,
            Token::Sign("*") => BinaryOp::Mul,
            Token::Sign("/") => BinaryOp::Div,
            Token::Sign("%") => BinaryOp::Mod,
            Token::Sign("^") => BinaryOp::Pow,
            Token::Sign("==") => BinaryOp::Eq,
            Token::Sign("!=") => BinaryOp::Ne,
            Token::Sign(">") => BinaryOp::Gt,
            Token::Sign("<") => BinaryOp::Lt,
            Token::Sign(">=") => BinaryOp::Ge,
            Token::Sign("<=") => BinaryOp::Le,
            Token::Sign("</") => BinaryOp::TrimUpper,
            Token::Sign(">/") => BinaryOp::TrimLower,
            Token::Name(name) => match name.to_ascii_lowercase().as_str() {
                "and" => BinaryOp::And,
                "or" => BinaryOp::Or,
                "unless" => BinaryOp::Unless,
                "atan2" => BinaryOp::Atan2,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// What stands between an operator and its right side.
    fn matching(&mut self, op: BinaryOp) -> Result<(bool, Matching), ParseError> {
        let returns_bool = self.takes_word("bool");
        let mut matching = Matching::default();
        if op.is_set() {
            matching.card = Card::ManyToMany;
        }
        let is_on = self.is_word("on");
        if (is_on || self.is_word("ignoring")) && self.peek_second() == &Token::Sign("(") {
            self.next();
            matching.on = is_on;
            matching.labels = self.label_list()?;
            for (word, card) in [("group_left", Card::ManyToOne), ("group_right", Card::OneToMany)] {
                if self.takes_word(word) {
                    matching.card = card;
                    if self.is_sign("(") {
                        matching.include = self.label_list()?;
                    }
                    break;
                }
            }
        }
        while self.peek_second() == &Token::Sign("(") {
            let (left, right) = match self.peek() {
                Token::Name(name) if name.eq_ignore_ascii_case("fill") => (true, true),
                Token::Name(name) if name.eq_ignore_ascii_case("fill_left") => (true, false),
                Token::Name(name) if name.eq_ignore_ascii_case("fill_right") => (false, true),
                _ => break,
            };
            self.next();
            self.expect("(")?;
            let value = self.signed_number()?;
            self.expect(")")?;
            if left {
                matching.fill_left = Some(value);
            }
            if right {
                matching.fill_right = Some(value);
            }
        }
        Ok((returns_bool, matching))
    }

    fn unary(&mut self) -> Result<Deep, ParseError> {
        let start = self.place();
        let minus = self.is_sign("-");
        if !minus && !self.is_sign("+") {
            return self.postfix();
        }
        self.next();
        // Tighter than `*`, looser than `^`.
        let (inner, depth) = self.expr(BinaryOp::Pow.precedence())?;
        let span = start.to(inner.span);
        if let Kind::Number(value, notation) = inner.kind {
            let value = if minus { -value } else { value };
            return Ok((Expr { kind: Kind::Number(value, notation), span }, depth));
        }
        Ok((Expr { kind: Kind::Unary { minus, expr: Box::new(inner) }, span }, depth + 1))
    }

    fn label_list(&mut self) -> Result<Vec<String>, ParseError> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.takes(")") {
            match self.next() {
                Token::Name(name) if !name.contains(':') => labels.push(name),
                Token::Text(name) if !name.is_empty() => labels.push(name),
                _ => {
                    self.at = self.at.saturating_sub(1);
                    return Err(self.unexpected("expected a label name"));
                }
            }
            if !self.takes(",") && !self.is_sign(")") {
                return Err(self.unexpected("expected \",\" or \")\""));
            }
        }
        Ok(labels)
    }
}

/// Where a selector or subquery keeps its modifiers.
struct Modified<'e> {
    offset: &'e mut super::ast::Reach,
    at: &'e mut Option<At>,
}
