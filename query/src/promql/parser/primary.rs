//! What an expression begins with: numbers, names, calls, aggregations, selectors.

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::{MatchOp, Matcher};

use super::super::ast::{
    AggregateOp, Aggregation, Borders, Call, Expr, Grouping, Kind, Notation, Reach, Selector, Span,
};
use super::super::functions;
use super::super::lexer::{Token, named_number};
use super::{Deep, ParseError, Parser};

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Result<Deep, ParseError> {
        let start = self.place();
        let simple = |kind: Kind| Ok((Expr { kind, span: start }, 1));
        match self.peek().clone() {
            Token::Number(number) => {
                self.next();
                simple(Kind::Number(number, Notation::Number))
            }
            Token::Duration(span) => {
                self.next();
                simple(Kind::Number(span.as_secs_f64(), Notation::Duration))
            }
            Token::Text(text) => {
                self.next();
                simple(Kind::Text(text))
            }
            Token::Sign("(") => {
                self.next();
                let (inner, depth) = self.expr(0)?;
                self.expect(")")?;
                Ok((Expr { kind: Kind::Paren(Box::new(inner)), span: self.since(start) }, depth + 1))
            }
            Token::Sign("{") => Ok((self.selector(None, start)?, 1)),
            Token::Name(name) => self.named(&name, start),
            Token::Sign(_) | Token::End => Err(self.unexpected("expected an expression")),
        }
    }

    fn named(&mut self, name: &str, start: Span) -> Result<Deep, ParseError> {
        let is_call = self.peek_second() == &Token::Sign("(");
        let lower = name.to_ascii_lowercase();
        if let Some(op) = AggregateOp::named(&lower) {
            let is_grouped = matches!(self.peek_second(), Token::Name(word)
                if word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("without"));
            if is_call || is_grouped {
                self.next();
                return self.aggregation(op, start);
            }
        }
        if is_call {
            let Some(signature) = functions::signature(name) else {
                return Err(self.error(format!("unknown function with name {name:?}")));
            };
            self.next();
            let (args, depth) = self.args()?;
            let call = Call { name: signature.name, args };
            return Ok((Expr { kind: Kind::Call(call), span: self.since(start) }, depth + 1));
        }
        self.next();
        if let Some(number) = named_number(name) {
            return Ok((Expr { kind: Kind::Number(number, Notation::Number), span: start }, 1));
        }
        Ok((self.selector(Some(name), start)?, 1))
    }

    fn aggregation(&mut self, op: AggregateOp, start: Span) -> Result<Deep, ParseError> {
        let mut grouping = self.grouping()?;
        let (mut args, depth) = self.args()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        if args.is_empty() {
            let reason = "no arguments for aggregate expression provided".to_owned();
            return Err(self.error_at(start, reason));
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
        let grouping = grouping.unwrap_or(Grouping::By(Vec::new()));
        let kind = Kind::Aggregate(Box::new(Aggregation { op, expr, param, grouping }));
        Ok((Expr { kind, span: self.since(start) }, depth + 1))
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

    fn args(&mut self) -> Result<(Vec<Expr>, usize), ParseError> {
        self.expect("(")?;
        let mut args = Vec::new();
        let mut deepest = 0;
        if self.takes(")") {
            return Ok((args, deepest));
        }
        loop {
            let (arg, depth) = self.expr(0)?;
            deepest = deepest.max(depth);
            args.push(arg);
            if self.takes(")") {
                return Ok((args, deepest));
            }
            if !self.takes(",") {
                return Err(self.unexpected("expected \",\" or \")\""));
            }
            if self.is_sign(")") {
                let reason = "trailing commas not allowed in function call args".to_owned();
                return Err(self.error(reason));
            }
        }
    }

    /// The selector whose name, if any, was just taken.
    fn selector(&mut self, name: Option<&str>, start: Span) -> Result<Expr, ParseError> {
        let mut matchers = Vec::new();
        if let Some(name) = name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        if self.takes("{") {
            while !self.takes("}") {
                let matcher = self.matcher()?;
                if matcher.name == METRIC_NAME
                    && let Some(name) = name
                {
                    let reason =
                        format!("metric name must not be set twice: {name:?} or {:?}", matcher.value);
                    return Err(self.error_at(start, reason));
                }
                matchers.push(matcher);
                if !self.takes(",") && !self.is_sign("}") {
                    return Err(self.unexpected("expected \",\" or \"}\" in label matching"));
                }
            }
        }
        let selector = Selector {
            matchers,
            name: name.map(str::to_owned),
            offset: Reach::default(),
            at: None,
            borders: Borders::Strict,
        };
        Ok(Expr { kind: Kind::Vector(selector), span: self.since(start) })
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
            Token::End => return Err(self.unexpected("")),
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
