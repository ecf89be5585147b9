//! From tokens to a query: recursive descent, linear in the text and bounded in depth.
//!
//! ```text
//! text ─► tokens ─► expr ─┬─► selector ─► pipeline      lines
//!                         └─► metric (Pratt) ─► primary  numbers
//! ```

mod metric;
mod pipeline;
#[cfg(test)]
mod tests;

use binnacle_model::{MatchOp, Matcher};

use super::ast::{LogExpr, Metric, Query};
use super::lexer::{Placed, Token, tokens};

/// Longest query.
const MAX_BYTES: usize = 16 * 1024;

/// Deepest expression: evaluating and dropping one recurses this often.
const MAX_DEPTH: usize = 64;

/// Why a query cannot be read, and where; in Loki's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// From 1; 0 if no place is to blame.
    pub line: usize,
    /// In characters, from 1; 0 if no place is to blame.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

impl std::error::Error for ParseError {}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 && self.column == 0 {
            return write!(f, "parse error : {}", self.reason);
        }
        write!(f, "parse error at line {}, col {}: {}", self.line, self.column, self.reason)
    }
}

impl ParseError {
    /// Blames a byte of the text.
    pub(super) fn at(text: &str, at: usize, reason: String) -> Self {
        let before = &text[..at.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self { line, column, reason }
    }

    /// Blames the query as a whole.
    pub(super) fn whole(reason: impl Into<String>) -> Self {
        Self { line: 0, column: 0, reason: reason.into() }
    }
}

/// Reads a query.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    let mut parser = Parser::new(text)?;
    let query = parser.query()?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected(""));
    }
    Ok(query)
}

/// Reads a bare selector, as `match[]` has it: it may select everything.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text)?;
    let matchers = parser.selector()?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected(""));
    }
    Ok(matchers)
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, ParseError> {
        if text.len() > MAX_BYTES {
            let reason = format!("input size too long ({} > {MAX_BYTES})", text.len());
            return Err(ParseError::whole(reason));
        }
        Ok(Self { text, tokens: tokens(text)?, at: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    /// The token so many places behind the next one.
    fn peek_behind(&self, count: usize) -> &Token {
        &self.tokens[(self.at + count).min(self.tokens.len() - 1)].token
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
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(sign)) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(name) if name == word)
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.next();
        }
        found
    }

    fn expect_name(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.clone();
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn expect_text(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::Text(text) => {
                let text = text.clone();
                self.next();
                Ok(text)
            }
            _ => Err(self.unexpected("STRING")),
        }
    }

    fn error(&self, reason: impl Into<String>) -> ParseError {
        ParseError::at(self.text, self.tokens[self.at].at, reason.into())
    }

    /// Blames the next token; `expected` may be empty.
    fn unexpected(&self, expected: &str) -> ParseError {
        let found = self.peek().name();
        let expected = if expected.is_empty() { String::new() } else { format!(", expecting {expected}") };
        self.error(format!("syntax error: unexpected {found}{expected}"))
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

    fn query(&mut self) -> Result<Query, ParseError> {
        // A selector may stand in parentheses, as a metric may.
        let mut open = 0;
        while matches!(self.peek_behind(open), Token::Sign("(")) {
            open += 1;
        }
        if matches!(self.peek_behind(open), Token::Sign("{")) {
            let logs = self.log_expr()?;
            return Ok(Query::Logs(logs));
        }
        if self.peek() == &Token::End {
            return Err(self.unexpected(""));
        }
        Ok(Query::Metric(Metric(self.metric()?)))
    }

    fn log_expr(&mut self) -> Result<LogExpr, ParseError> {
        self.deeper(|parser| {
            if parser.takes("(") {
                let inner = parser.log_expr()?;
                parser.expect(")")?;
                return Ok(inner);
            }
            let matchers = parser.selective()?;
            let stages = parser.pipeline()?;
            Ok(LogExpr { matchers, stages })
        })
    }

    /// A selector that does not select everything.
    fn selective(&mut self) -> Result<Vec<Matcher>, ParseError> {
        let matchers = self.selector()?;
        if matchers.iter().all(|matcher| matcher.matches("")) {
            let reason = "queries require at least one regexp or equality matcher that does not have an empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will";
            return Err(ParseError::whole(reason));
        }
        Ok(matchers)
    }

    fn selector(&mut self) -> Result<Vec<Matcher>, ParseError> {
        self.expect("{")?;
        let mut matchers = Vec::new();
        while !self.takes("}") {
            matchers.push(self.matcher()?);
            if self.is_sign("}") {
                continue;
            }
            if !self.takes(",") {
                return Err(self.unexpected("} or ,"));
            }
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Result<Matcher, ParseError> {
        let name = match self.peek() {
            // Grafana quotes names that are no plain words.
            Token::Text(name) if !name.is_empty() => name.clone(),
            Token::Name(name) => name.clone(),
            _ => return Err(self.unexpected("IDENTIFIER or }")),
        };
        self.next();
        let op = match self.peek() {
            Token::Sign("=") => MatchOp::Equal,
            Token::Sign("!=") => MatchOp::NotEqual,
            Token::Sign("=~") => MatchOp::Regex,
            Token::Sign("!~") => MatchOp::NotRegex,
            _ => return Err(self.unexpected("")),
        };
        self.next();
        let value = self.expect_text()?;
        Matcher::new(&name, op, &value).map_err(ParseError::whole)
    }
}
