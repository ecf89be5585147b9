//! The steps behind a selector.

use binnacle_model::log_query::{IpRange, LogRegex};
use binnacle_model::text::foreign_byte;
use binnacle_model::{MatchOp, Matcher};

use super::super::ast::{
    Compare, Convert, LabelFilter, LineFilter, LineOp, NamedMatcher, Needle, NewLabel, Stage, Unit, Unwrap,
};
use super::super::lexer::Token;
use super::super::stages::{JsonPaths, LineFormat, LinePattern, Logfmt, PatternParser, RegexpParser};
use super::super::template::Template;
use super::{ParseError, Parser};

/// Steps of one pipeline: each costs every line something.
const MAX_STAGES: usize = 100;

/// Alternatives of one line filter, and regular expressions of one query are as many at most.
const MAX_NEEDLES: usize = 256;

impl Parser<'_> {
    /// All steps up to an `unwrap`, a range or the end.
    pub(super) fn pipeline(&mut self) -> Result<Vec<Stage>, ParseError> {
        let mut stages = Vec::new();
        loop {
            let stage = match self.peek() {
                Token::Sign("|=" | "|~" | "|>" | "!=" | "!~" | "!>") => Stage::Line(self.line_filter()?),
                Token::Sign("|") if !self.is_unwrap() => {
                    self.next();
                    self.stage()?
                }
                _ => return Ok(stages),
            };
            if stages.len() == MAX_STAGES {
                return Err(self.error(format!("a pipeline has more than {MAX_STAGES} stages")));
            }
            stages.push(stage);
        }
    }

    fn is_unwrap(&self) -> bool {
        matches!(self.peek_behind(1), Token::Name(name) if name == "unwrap") && !self.is_comparison(2)
    }

    /// Whether the token so far behind compares: then a word before it is a label's name and no keyword.
    fn is_comparison(&self, behind: usize) -> bool {
        let signs = ["=", "==", "!=", "=~", "!~", ">", ">=", "<", "<="];
        matches!(self.peek_behind(behind), Token::Sign(sign) if signs.contains(sign))
    }

    /// Whether the token so far behind may begin a filter of lines, and not of labels alone.
    fn is_line_filter(&self, behind: usize) -> bool {
        matches!(self.peek_behind(behind), Token::Sign("!=" | "!~"))
    }

    fn line_filter(&mut self) -> Result<LineFilter, ParseError> {
        let op = match self.next() {
            Token::Sign("|=") => LineOp::Contains,
            Token::Sign("!=") => LineOp::NotContains,
            Token::Sign("|~") => LineOp::Regex,
            Token::Sign("!~") => LineOp::NotRegex,
            Token::Sign("|>") => LineOp::Pattern,
            _ => LineOp::NotPattern,
        };
        let mut needles = vec![self.needle(op)?];
        while self.takes_word("or") {
            if needles.len() == MAX_NEEDLES {
                return Err(self.error(format!("a line filter has more than {MAX_NEEDLES} alternatives")));
            }
            needles.push(self.needle(op)?);
        }
        Ok(LineFilter { op, needles })
    }

    fn needle(&mut self, op: LineOp) -> Result<Needle, ParseError> {
        if self.is_word("ip") {
            if !matches!(op, LineOp::Contains | LineOp::NotContains) {
                return Err(ParseError::whole(
                    "unsupported IP line filter operation: only |= and != are allowed",
                ));
            }
            let (written, range) = self.ip()?;
            return Ok(Needle::Ip(written, range));
        }
        let text = self.expect_text()?;
        Ok(match op {
            LineOp::Contains | LineOp::NotContains => {
                let bytes = bytes(&text);
                Needle::Text(text, bytes)
            }
            LineOp::Regex | LineOp::NotRegex => {
                let refuse = |reason| ParseError::whole(format!("error parsing regexp: {reason}"));
                Needle::Regex(LogRegex::new(&text).map_err(refuse)?)
            }
            LineOp::Pattern | LineOp::NotPattern => {
                Needle::Pattern(LinePattern::new(&text).map_err(ParseError::whole)?)
            }
        })
    }

    /// `ip("10.0.0.0/8")`
    fn ip(&mut self) -> Result<(String, IpRange), ParseError> {
        self.next();
        self.expect("(")?;
        let written = self.expect_text()?;
        self.expect(")")?;
        let range = IpRange::parse(&written);
        let range = range.ok_or_else(|| ParseError::whole(format!("ip: invalid pattern {written:?}")))?;
        Ok((written, range))
    }

    /// What stands behind a `|`.
    fn stage(&mut self) -> Result<Stage, ParseError> {
        let word = match self.peek() {
            Token::Name(word) if !self.is_comparison(1) => word.clone(),
            // As in Loki, `| json != "x"` parses, and then filters lines.
            Token::Name(word) if stands_alone(word) && self.is_line_filter(1) => word.clone(),
            _ => String::new(),
        };
        let known = [
            "json",
            "logfmt",
            "pattern",
            "regexp",
            "unpack",
            "line_format",
            "label_format",
            "decolorize",
            "drop",
            "keep",
        ];
        if !known.contains(&word.as_str()) {
            return Ok(Stage::Filter(self.label_filter()?));
        }
        self.next();
        Ok(match word.as_str() {
            "json" => Stage::Json(JsonPaths::new(self.extractions()?).map_err(ParseError::whole)?),
            "logfmt" => self.logfmt()?,
            "pattern" => {
                let text = self.expect_text()?;
                Stage::Pattern(PatternParser::new(&text).map_err(ParseError::whole)?)
            }
            "regexp" => {
                let text = self.expect_text()?;
                Stage::Regexp(RegexpParser::new(&text).map_err(ParseError::whole)?)
            }
            "unpack" => Stage::Unpack,
            "line_format" => {
                let text = self.expect_text()?;
                Stage::LineFormat(LineFormat::new(&text).map_err(ParseError::whole)?)
            }
            "label_format" => Stage::LabelFormat(self.new_labels()?),
            "decolorize" => Stage::Decolorize,
            "drop" => Stage::Drop(self.named_matchers()?),
            _ => Stage::Keep(self.named_matchers()?),
        })
    }

    fn logfmt(&mut self) -> Result<Stage, ParseError> {
        let (mut strict, mut keep_empty) = (false, false);
        while let Token::Flag(flag) = self.peek() {
            match flag.as_str() {
                "strict" => strict = true,
                "keep-empty" => keep_empty = true,
                other => return Err(self.error(format!("syntax error: unexpected flag --{other}"))),
            }
            self.next();
        }
        Ok(Stage::Logfmt(Logfmt { strict, keep_empty, wanted: self.extractions()? }))
    }

    /// `name="expression", name`; perhaps none.
    fn extractions(&mut self) -> Result<Vec<(String, String)>, ParseError> {
        let mut found = Vec::new();
        while let Token::Name(name) = self.peek() {
            let name = name.clone();
            self.next();
            let expression = if self.takes("=") { self.expect_text()? } else { name.clone() };
            found.push((name, expression));
            if !self.takes(",") {
                return Ok(found);
            }
        }
        if found.is_empty() { Ok(found) } else { Err(self.unexpected("IDENTIFIER")) }
    }

    fn new_labels(&mut self) -> Result<Vec<(String, NewLabel)>, ParseError> {
        let mut found: Vec<(String, NewLabel)> = Vec::new();
        loop {
            let name = self.expect_name()?;
            self.expect("=")?;
            let label = match self.peek().clone() {
                Token::Name(from) => {
                    self.next();
                    NewLabel::Rename(from)
                }
                Token::Text(text) => {
                    self.next();
                    NewLabel::Template(Template::new(&text).map_err(ParseError::whole)?)
                }
                _ => return Err(self.unexpected("IDENTIFIER or STRING")),
            };
            if name == "__error__" || name == "__error_details__" {
                return Err(ParseError::whole(format!("{name} cannot be formatted")));
            }
            if found.iter().any(|(known, _)| *known == name) {
                let reason = format!("multiple label name '{name}' not allowed in a single format operation");
                return Err(ParseError::whole(reason));
            }
            found.push((name, label));
            if !self.takes(",") {
                return Ok(found);
            }
        }
    }

    fn named_matchers(&mut self) -> Result<Vec<NamedMatcher>, ParseError> {
        let mut found = Vec::new();
        loop {
            let matcher = if self.is_comparison(1) { Some(self.matcher()?) } else { None };
            let name = match &matcher {
                Some(matcher) => matcher.name.clone(),
                None => self.expect_name()?,
            };
            found.push(NamedMatcher { name, matcher });
            if !self.takes(",") {
                return Ok(found);
            }
        }
    }

    /// `unwrap` with what stands behind it, if one stands here.
    pub(super) fn unwrap(&mut self) -> Result<Option<Unwrap>, ParseError> {
        if !self.is_sign("|") || !self.is_unwrap() {
            return Ok(None);
        }
        self.next();
        self.next();
        let convert = match self.peek() {
            Token::Name(name) if matches!(self.peek_behind(1), Token::Sign("(")) => match name.as_str() {
                "duration" => Convert::Duration,
                "duration_seconds" => Convert::DurationSeconds,
                "bytes" => Convert::Bytes,
                _ => return Err(self.unexpected("duration, duration_seconds or bytes")),
            },
            _ => Convert::Number,
        };
        let label = if convert == Convert::Number {
            self.expect_name()?
        } else {
            self.next();
            self.next();
            let label = self.expect_name()?;
            self.expect(")")?;
            label
        };
        let mut filters = Vec::new();
        while self.takes("|") {
            filters.push(self.label_filter()?);
        }
        Ok(Some(Unwrap { label, convert, filters }))
    }

    /// Alternatives of conditions that stand together.
    fn label_filter(&mut self) -> Result<LabelFilter, ParseError> {
        self.deeper(|parser| {
            let mut parts = vec![parser.conditions()?];
            while parser.takes_word("or") {
                parts.push(parser.conditions()?);
            }
            Ok(single(parts, LabelFilter::Or))
        })
    }

    fn conditions(&mut self) -> Result<LabelFilter, ParseError> {
        let mut parts = vec![self.condition()?];
        loop {
            let is_next = self.takes_word("and") || self.takes(",");
            // Also side by side, as in Loki.
            let is_beside = matches!(self.peek(), Token::Name(name) if name != "or") && self.is_comparison(1);
            if !is_next && !is_beside && !self.is_sign("(") {
                return Ok(single(parts, LabelFilter::And));
            }
            parts.push(self.condition()?);
        }
    }

    fn condition(&mut self) -> Result<LabelFilter, ParseError> {
        if self.takes("(") {
            let inner = self.label_filter()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if !matches!(self.peek(), Token::Name(_)) {
            return Err(self.unexpected(""));
        }
        let name = self.expect_name()?;
        let Token::Sign(sign) = *self.peek() else { return Err(self.unexpected("")) };
        self.next();
        match (sign, self.peek()) {
            ("=" | "!=", Token::Name(word)) if word == "ip" => {
                let (written, range) = self.ip()?;
                Ok(LabelFilter::Ip { name, is_equal: sign == "=", range, written })
            }
            ("=" | "!=" | "=~" | "!~", Token::Text(text)) => {
                let op = match sign {
                    "=" => MatchOp::Equal,
                    "!=" => MatchOp::NotEqual,
                    "=~" => MatchOp::Regex,
                    _ => MatchOp::NotRegex,
                };
                let matcher = Matcher::new(&name, op, text).map_err(ParseError::whole)?;
                self.next();
                Ok(LabelFilter::Text(matcher))
            }
            _ => self.amount(name, sign),
        }
    }

    fn amount(&mut self, name: String, sign: &str) -> Result<LabelFilter, ParseError> {
        let compare = match sign {
            "=" | "==" => Compare::Eq,
            "!=" => Compare::Ne,
            ">" => Compare::Gt,
            ">=" => Compare::Ge,
            "<" => Compare::Lt,
            "<=" => Compare::Le,
            _ => {
                // It stands before the token that was taken.
                self.at = self.at.saturating_sub(1);
                return Err(self.unexpected(""));
            }
        };
        let minus = self.takes("-");
        let sign = |value: f64| if minus { -value } else { value };
        let (unit, value, written) = match self.peek().clone() {
            Token::Number(value) => (Unit::Number, sign(value), crate::http::format_value(sign(value))),
            Token::Duration(ns, written) => (Unit::Duration, sign(ns), written),
            Token::Bytes(size, written) if !minus => (Unit::Bytes, size, written),
            _ => return Err(self.unexpected("")),
        };
        self.next();
        let written = if minus && unit == Unit::Duration { format!("-{written}") } else { written };
        Ok(LabelFilter::Amount { name, compare, unit, value, written })
    }
}

/// The only one of the parts, or all of them.
fn single(mut parts: Vec<LabelFilter>, all: fn(Vec<LabelFilter>) -> LabelFilter) -> LabelFilter {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            all(parts)
        }
    }
}

/// The bytes of a text in which some characters stand for bytes that are no UTF-8.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match foreign_byte(c) {
            Some(byte) => out.push(byte),
            None => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out
}

/// Whether a stage of this name may have nothing behind it.
fn stands_alone(word: &str) -> bool {
    matches!(word, "json" | "logfmt" | "unpack" | "decolorize")
}
