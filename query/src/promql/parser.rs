//! From tokens to an expression: a Pratt parser, bounded in depth, with types checked as it goes.

use std::time::Duration;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::{MatchOp, Matcher, Timestamp};

use super::ast::{
    AggregateOp, Aggregation, At, BinaryOp, Call, Card, Expr, Grouping, Matching, Selector, ValueType,
};
use super::functions::{self, Signature};
use super::lexer::{Placed, Token, parse_number, tokens};

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
        let before = &text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self { line, column, reason }
    }
}

/// Reads a query.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text)?;
    if parser.peek() == &Token::End {
        return Err(parser.error("no expression found in input".to_owned()));
    }
    let (expr, _) = parser.expr(0)?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected("expected an operator or the end of the query"));
    }
    Ok(expr)
}

/// Reads a series selector, as `match[]` parameters have it.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    match parse(text)? {
        Expr::Vector(selector) if selector.offset_ms == 0 && selector.at.is_none() => Ok(selector.matchers),
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

    fn place(&self) -> usize {
        self.tokens[self.at].at
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].token.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("expected {sign:?}"))) }
    }

    /// Whether a keyword, which may be in any case, is next; takes it if so.
    fn takes_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.next();
        }
        found
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(name) if name.eq_ignore_ascii_case(word))
    }

    fn error(&self, reason: String) -> ParseError {
        ParseError::new(self.text, self.place(), reason)
    }

    fn error_at(&self, at: usize, reason: String) -> ParseError {
        ParseError::new(self.text, at, reason)
    }

    fn unexpected(&self, expected: &str) -> ParseError {
        let found = match self.peek() {
            Token::Name(name) => format!("identifier {name:?}"),
            Token::Number(number) => format!("number {number}"),
            Token::Duration(_) => "duration".to_owned(),
            Token::Text(text) => format!("string {text:?}"),
            Token::Sign(sign) => format!("{sign:?}"),
            Token::End => "end of input".to_owned(),
        };
        self.error(format!("unexpected {found}, {expected}"))
    }

    fn too_deep(&self) -> ParseError {
        self.error(format!("expression is nested deeper than {MAX_DEPTH}"))
    }

    /// An expression whose operators all bind tighter than `loosest`.
    fn expr(&mut self, loosest: u8) -> Result<Deep, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        let start = self.place();
        let (mut left, mut depth) = self.unary()?;
        while let Some(op) = self.operator().filter(|op| op.precedence() > loosest) {
            self.next();
            let returns_bool = self.takes_word("bool");
            if returns_bool && !op.is_comparison() {
                let reason = "bool modifier can only be used on comparison operators".to_owned();
                return Err(self.error(reason));
            }
            let (matching, is_explicit) = self.matching(op)?;
            // `^` alone binds to the right.
            let binds = if op == BinaryOp::Pow { op.precedence() - 1 } else { op.precedence() };
            let (right, right_depth) = self.expr(binds)?;
            depth = depth.max(right_depth) + 1;
            if depth > MAX_DEPTH {
                return Err(self.too_deep());
            }
            let sides = (Box::new(left), Box::new(right));
            left = self.binary(start, op, sides, returns_bool, (matching, is_explicit))?;
        }
        self.depth -= 1;
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

    fn matching(&mut self, op: BinaryOp) -> Result<(Matching, bool), ParseError> {
        let mut matching = Matching::default();
        if op.is_set() {
            matching.card = Card::ManyToMany;
        }
        let on = self.is_word("on");
        if !on && !self.is_word("ignoring") {
            return Ok((matching, false));
        }
        self.next();
        matching.on = on;
        matching.labels = self.label_list()?;
        let card = if self.is_word("group_left") {
            Card::ManyToOne
        } else if self.is_word("group_right") {
            Card::OneToMany
        } else {
            return Ok((matching, true));
        };
        if op.is_set() {
            return Err(self.error(format!("no grouping allowed for {:?} operation", op.as_str())));
        }
        self.next();
        matching.card = card;
        if self.peek() == &Token::Sign("(") {
            matching.include = self.label_list()?;
        }
        let both = matching.include.iter().find(|label| on && matching.labels.contains(label));
        if let Some(label) = both {
            let reason = format!("label {label:?} must not occur in ON and GROUP clause at once");
            return Err(self.error(reason));
        }
        Ok((matching, true))
    }

    fn binary(
        &self,
        start: usize,
        op: BinaryOp,
        (left, right): (Box<Expr>, Box<Expr>),
        returns_bool: bool,
        (matching, is_explicit): (Matching, bool),
    ) -> Result<Expr, ParseError> {
        let types = (left.value_type(), right.value_type());
        let is_operand = |kind| matches!(kind, ValueType::Scalar | ValueType::Vector);
        let refuse = |reason: &str| Err(self.error_at(start, reason.to_owned()));
        if !is_operand(types.0) || !is_operand(types.1) {
            return refuse("binary expression must contain only scalar and instant vector types");
        }
        let has_scalar = types.0 == ValueType::Scalar || types.1 == ValueType::Scalar;
        if types == (ValueType::Scalar, ValueType::Scalar) && op.is_comparison() && !returns_bool {
            return refuse("comparisons between scalars must use BOOL modifier");
        }
        if has_scalar && op.is_set() {
            let name = op.as_str();
            return refuse(&format!("set operator {name:?} not allowed in binary scalar expression"));
        }
        if has_scalar && is_explicit && (!matching.labels.is_empty() || matching.on) {
            return refuse("vector matching only allowed between instant vectors");
        }
        Ok(Expr::Binary { op, left, right, returns_bool, matching })
    }

    fn unary(&mut self) -> Result<Deep, ParseError> {
        let start = self.place();
        let negative = match self.peek() {
            Token::Sign("-") => true,
            Token::Sign("+") => false,
            _ => return self.postfix(),
        };
        self.next();
        // Binds as tightly as multiplication: `-a ^ b` is `-(a ^ b)`.
        let (operand, depth) = self.expr(BinaryOp::Mul.precedence())?;
        if !matches!(operand.value_type(), ValueType::Scalar | ValueType::Vector) {
            let kind = operand.value_type().name();
            let reason = format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {kind:?}"
            );
            return Err(self.error_at(start, reason));
        }
        let expr = match operand {
            operand if !negative => operand,
            Expr::Number(number) => Expr::Number(-number),
            operand => Expr::Negate(Box::new(operand)),
        };
        Ok((expr, depth + 1))
    }

    /// A primary expression with `[…]`, `offset` and `@` after it.
    fn postfix(&mut self) -> Result<Deep, ParseError> {
        let start = self.place();
        let (mut expr, mut depth) = self.primary()?;
        loop {
            if self.takes("[") {
                expr = self.range(expr, start)?;
                depth += 1;
            } else if self.is_word("offset") {
                self.next();
                let negative = self.takes("-");
                let span = self.duration()?;
                let ms = binnacle_model::time::millis(span);
                let ms = if negative { -ms } else { ms };
                let (offset, _) = self.modifiers(&mut expr, start, "offset")?;
                if *offset != 0 {
                    return Err(self.error_at(start, "offset may not be set multiple times".into()));
                }
                *offset = ms;
            } else if self.takes("@") {
                let value = self.at_modifier()?;
                let (_, at) = self.modifiers(&mut expr, start, "@")?;
                if at.is_some() {
                    return Err(self.error_at(start, "@ <timestamp> may not be set multiple times".into()));
                }
                *at = Some(value);
            } else {
                return Ok((expr, depth));
            }
        }
    }

    fn modifiers<'e>(
        &self,
        expr: &'e mut Expr,
        start: usize,
        what: &str,
    ) -> Result<(&'e mut i64, &'e mut Option<At>), ParseError> {
        match expr {
            Expr::Vector(selector) | Expr::Matrix(selector, _) => {
                Ok((&mut selector.offset_ms, &mut selector.at))
            }
            Expr::Subquery { offset_ms, at, .. } => Ok((offset_ms, at)),
            _ => {
                let reason = format!(
                    "{what} modifier must be preceded by an instant vector selector or range vector selector or a subquery"
                );
                Err(self.error_at(start, reason))
            }
        }
    }

    fn range(&mut self, expr: Expr, start: usize) -> Result<Expr, ParseError> {
        let range = self.duration()?;
        if range.is_zero() {
            return Err(self.error("duration must be greater than 0".to_owned()));
        }
        if self.takes(":") {
            let step = if self.peek() == &Token::Sign("]") { None } else { Some(self.duration()?) };
            self.expect("]")?;
            if expr.value_type() != ValueType::Vector {
                let kind = expr.value_type().name();
                let reason = format!("subquery is only allowed on instant vector, got {kind} instead");
                return Err(self.error_at(start, reason));
            }
            return Ok(Expr::Subquery { expr: Box::new(expr), range, step, offset_ms: 0, at: None });
        }
        self.expect("]")?;
        match expr {
            Expr::Vector(selector) if selector.offset_ms == 0 && selector.at.is_none() => {
                Ok(Expr::Matrix(selector, range))
            }
            Expr::Vector(_) => {
                let reason = "no offset or @ modifiers allowed before range".to_owned();
                Err(self.error_at(start, reason))
            }
            _ => {
                let reason = "ranges only allowed for vector selectors".to_owned();
                Err(self.error_at(start, reason))
            }
        }
    }

    /// A duration; a bare number is seconds, as Prometheus has it since 3.0.
    fn duration(&mut self) -> Result<Duration, ParseError> {
        let place = self.place();
        match self.next() {
            Token::Duration(span) => Ok(span),
            Token::Number(seconds) if (0.0..1e12).contains(&seconds) => {
                Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
            }
            _ => Err(self.error_at(place, "expected a duration, such as 5m".to_owned())),
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
        let negative = self.takes("-");
        let place = self.place();
        let seconds = match self.next() {
            Token::Number(seconds) => seconds,
            Token::Duration(span) => span.as_secs_f64(),
            _ => {
                let reason = "expected a timestamp, start() or end() after @".to_owned();
                return Err(self.error_at(place, reason));
            }
        };
        let seconds = if negative { -seconds } else { seconds };
        let time = Timestamp::from_secs_f64(seconds);
        let time = time.ok_or_else(|| self.error_at(place, "timestamp out of bounds".into()))?;
        Ok(At::Time(time))
    }

    fn primary(&mut self) -> Result<Deep, ParseError> {
        match self.peek().clone() {
            Token::Number(number) => {
                self.next();
                Ok((Expr::Number(number), 1))
            }
            Token::Duration(span) => {
                self.next();
                Ok((Expr::Number(span.as_secs_f64()), 1))
            }
            Token::Text(text) => {
                self.next();
                Ok((Expr::Text(text), 1))
            }
            Token::Sign("(") => {
                self.next();
                let (inner, depth) = self.expr(0)?;
                self.expect(")")?;
                Ok((Expr::Paren(Box::new(inner)), depth + 1))
            }
            Token::Sign("{") => Ok((self.selector(None)?, 1)),
            Token::Name(name) => self.named(&name),
            Token::Sign(_) | Token::End => Err(self.unexpected("expected an expression")),
        }
    }

    fn named(&mut self, name: &str) -> Result<Deep, ParseError> {
        let start = self.place();
        let is_call = self.peek_second() == &Token::Sign("(");
        let lower = name.to_ascii_lowercase();
        if let Some(op) = AggregateOp::named(&lower) {
            let is_grouped = matches!(self.peek_second(), Token::Name(word)
                if word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("without"));
            if is_call || is_grouped {
                self.next();
                return self.aggregation(op, &lower, start);
            }
        }
        if is_call {
            let Some(signature) = functions::signature(name) else {
                return Err(self.error(format!("unknown function with name {name:?}")));
            };
            self.next();
            return self.call(signature, start);
        }
        if let Some(number) = parse_number(name) {
            self.next();
            return Ok((Expr::Number(number), 1));
        }
        self.next();
        Ok((self.selector(Some(name))?, 1))
    }

    fn aggregation(&mut self, op: AggregateOp, name: &str, start: usize) -> Result<Deep, ParseError> {
        let mut grouping = self.grouping()?;
        let (mut args, depth) = self.args()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let want = 1 + usize::from(op.has_param());
        if args.len() != want {
            let reason = format!(
                "wrong number of arguments for aggregate expression provided, expected {want}, got {}",
                args.len()
            );
            return Err(self.error_at(start, reason));
        }
        let expr = args.pop().expect("there is one at least");
        let param = args.pop();
        let check = |expr: &Expr, want: ValueType, what: &str| {
            if expr.value_type() == want {
                return Ok(());
            }
            let (want, got) = (want.name(), expr.value_type().name());
            let reason = format!("expected type {want} in {what}, got {got}");
            Err(self.error_at(start, reason))
        };
        check(&expr, ValueType::Vector, &format!("aggregation expression {name:?}"))?;
        if let Some(param) = &param {
            let want = if op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
            check(param, want, "aggregation parameter")?;
        }
        let grouping = grouping.unwrap_or(Grouping::By(Vec::new()));
        Ok((Expr::Aggregate(Box::new(Aggregation { op, expr, param, grouping })), depth + 1))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, ParseError> {
        if self.takes_word("by") {
            return Ok(Some(Grouping::By(self.label_list()?)));
        }
        if self.takes_word("without") {
            return Ok(Some(Grouping::Without(self.label_list()?)));
        }
        Ok(None)
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
            if !self.takes(",") && self.peek() != &Token::Sign(")") {
                return Err(self.unexpected("expected \",\" or \")\""));
            }
        }
        Ok(labels)
    }

    fn args(&mut self) -> Result<(Vec<Expr>, usize), ParseError> {
        self.expect("(")?;
        let mut args = Vec::new();
        let mut deepest = 0;
        while !self.takes(")") {
            let (arg, depth) = self.expr(0)?;
            deepest = deepest.max(depth);
            args.push(arg);
            if !self.takes(",") && self.peek() != &Token::Sign(")") {
                return Err(self.unexpected("expected \",\" or \")\""));
            }
        }
        Ok((args, deepest))
    }

    fn call(&mut self, signature: &'static Signature, start: usize) -> Result<Deep, ParseError> {
        let (args, depth) = self.args()?;
        let name = signature.name;
        let (least, most) = (signature.required, signature.args.len());
        if args.len() < least || (args.len() > most && !signature.variadic) {
            let expected = if least == most && !signature.variadic {
                format!("expected {least} argument(s)")
            } else if args.len() < least {
                format!("expected at least {least} argument(s)")
            } else {
                format!("expected at most {most} argument(s)")
            };
            let reason = format!("{expected} in call to {name:?}, got {}", args.len());
            return Err(self.error_at(start, reason));
        }
        for (i, arg) in args.iter().enumerate() {
            let want = signature.args[i.min(most - 1)];
            if arg.value_type() != want {
                let (want, got) = (want.name(), arg.value_type().name());
                let reason = format!("expected type {want} in call to function {name:?}, got {got}");
                return Err(self.error_at(start, reason));
            }
        }
        Ok((Expr::Call(Call { name, args }), depth + 1))
    }

    /// The selector whose name, if any, was just taken.
    fn selector(&mut self, name: Option<&str>) -> Result<Expr, ParseError> {
        let start = self.place();
        let mut matchers = Vec::new();
        if let Some(name) = name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        if self.takes("{") {
            while !self.takes("}") {
                let matcher = self.matcher()?;
                if matcher.name == METRIC_NAME && name.is_some() {
                    let reason = "metric name must not be set twice".to_owned();
                    return Err(self.error_at(start, reason));
                }
                matchers.push(matcher);
                if !self.takes(",") && self.peek() != &Token::Sign("}") {
                    return Err(self.unexpected("expected \",\" or \"}\" in label matching"));
                }
            }
        }
        if matchers.iter().all(|matcher| matcher.matches("")) {
            let reason = "vector selector must contain at least one non-empty matcher".to_owned();
            return Err(self.error_at(start, reason));
        }
        Ok(Expr::Vector(Selector { matchers, offset_ms: 0, at: None }))
    }

    fn matcher(&mut self) -> Result<Matcher, ParseError> {
        let place = self.place();
        let name = match self.next() {
            Token::Name(name) => name,
            Token::Text(name) => {
                if matches!(self.peek(), Token::Sign("," | "}")) {
                    return Ok(Matcher::equal(METRIC_NAME, &name));
                }
                name
            }
            _ => {
                return Err(self.error_at(place, "expected a label name in label matching".into()));
            }
        };
        let op = match self.next() {
            Token::Sign("=") => MatchOp::Equal,
            Token::Sign("!=") => MatchOp::NotEqual,
            Token::Sign("=~") => MatchOp::Regex,
            Token::Sign("!~") => MatchOp::NotRegex,
            _ => {
                self.at = self.at.saturating_sub(1);
                return Err(self.unexpected("expected label matching operator (=, !=, =~ or !~)"));
            }
        };
        let place = self.place();
        let Token::Text(value) = self.next() else {
            return Err(self.error_at(place, "expected a quoted label value".to_owned()));
        };
        Matcher::new(&name, op, &value).map_err(|reason| self.error_at(place, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn same(left: &str, right: &str) {
        let strip =
            |text: &str| format!("{:?}", parse(text).unwrap()).replace("Paren", "").replace(['(', ')'], "");
        assert_eq!(strip(left), strip(right));
    }

    #[test]
    fn operators_bind_as_in_prometheus() {
        same("1 + 2 * 3", "1 + (2 * 3)");
        same("2 ^ 3 ^ 2", "2 ^ (3 ^ 2)");
        same("a - b - c", "(a - b) - c");
        same("a or b and c", "a or (b and c)");
        assert_eq!(parse("-1 ^ 2").unwrap(), parse("-(1 ^ 2)").map(unparen).unwrap());
    }

    fn unparen(expr: Expr) -> Expr {
        match expr {
            Expr::Negate(inner) => match *inner {
                Expr::Paren(inner) => Expr::Negate(inner),
                other => Expr::Negate(Box::new(other)),
            },
            other => other,
        }
    }

    #[test]
    fn what_prometheus_accepts_is_accepted() {
        for text in [
            "up",
            "up{}",
            "{__name__=\"up\"}",
            "{\"my.metric\", \"a.b\"=\"c\"}",
            "sum by (a) (x)",
            "sum(x) by (a,)",
            "sum without() (x)",
            "SUM(x)",
            "rate(x[5m] offset 1h)",
            "x @ start()",
            "x @ 2m",
            "rate(x[5m:1m])",
            "max_over_time(rate(x[5m])[1h:])",
            "a * on(b) group_left(c) d",
            "a == bool 1",
            "1 < bool 2",
            "-x",
            "+x",
            "x offset -5m",
            "topk(3, x)",
            "job:a:sum",
            "quantile(0.9, x)",
            "count_values(\"v\", x)",
            "0x1f",
            "1e3",
            ".5",
            "Inf",
            "nan",
            "5m",
            "sum",
            "by",
            "offset",
            "x{by=\"1\"}",
            "# comment\nup",
            "x[300]",
            "time()",
            "vector(1)",
            "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)\")",
            "x{a=~\"b|c\",d!=\"\",}",
            "absent(x)",
        ] {
            assert!(parse(text).is_ok(), "{text}: {}", error(text));
        }
    }

    #[test]
    fn errors_name_the_place() {
        assert_eq!(
            error("sum(rate(x[5m])"),
            "1:16: parse error: unexpected end of input, expected \",\" or \")\""
        );
        assert_eq!(error(""), "1:1: parse error: no expression found in input");
        assert_eq!(error("a\n+ foo(b)"), "2:3: parse error: unknown function with name \"foo\"");
        assert!(
            error("rate(x)")
                .contains("expected type range vector in call to function \"rate\", got instant vector")
        );
        assert!(error("{}").contains("at least one non-empty matcher"));
        assert!(error("1 == 1").contains("must use BOOL modifier"));
        assert!(error("1 and x").contains("set operator \"and\" not allowed"));
        assert!(error("x{a=~\"(\"}").contains("error parsing regexp"));
        assert!(error("x[5m] offset 1m offset 2m").contains("multiple times"));
        for text in
            ["a b", "x{", "x{a}", "x[", "x[5m", "sum()", "@", "\"abc", "1h1h", "a ==", "((1)", "x[0]", "café"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bombs_are_refused_and_long_flat_queries_are_not() {
        for bomb in ["(".repeat(5000), "sum(".repeat(5000), "-".repeat(5000), "a+".repeat(5000) + "a"] {
            assert!(
                error(&bomb).contains("deeper") || error(&bomb).contains("unexpected"),
                "{}",
                &bomb[..20]
            );
        }
        let flat = format!("x{{a=~\"{}\"}}", "word|".repeat(5000));
        assert!(parse(&flat).is_ok());
        assert!(parse(&"a+".repeat(300).add("a")).is_ok());
    }

    use std::ops::Add;

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z(){}\\[\\]\"'@:+*/^=~! 0-9.\\\\\n]{0,60}") {
            let _ = parse(&text);
        }
    }
}
