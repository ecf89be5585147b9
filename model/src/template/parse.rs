//! From tokens to nodes: linear, and bounded in depth. Errors are worded as Go's.

use super::ast::{Branch, Command, Node, Operand, Pipe, Term};
use super::lex::{Kind, Token, tokens};
use super::value::Value;

/// Deepest nesting of actions and parentheses.
const MAX_DEPTH: usize = 64;

/// What a text holds: its own nodes, and what it defines.
pub(super) struct Parsed {
    pub(super) nodes: Vec<Node>,
    pub(super) defined: Vec<(String, Vec<Node>)>,
}

/// An error, and where in the text.
pub(super) type Failure = (usize, String);

/// Reads a text; `is_function` says which names are functions.
pub(super) fn parse(text: &str, is_function: &dyn Fn(&str) -> bool) -> Result<Parsed, Failure> {
    let tokens = tokens(text)?;
    let mut parser = Parser {
        tokens,
        next: 0,
        variables: vec!["$".to_owned()],
        loops: 0,
        depth: 0,
        defined: Vec::new(),
        is_function,
    };
    let (nodes, end) = parser.list(true)?;
    match end {
        None => Ok(Parsed { nodes, defined: parser.defined }),
        Some(word) => parser.fail(format!("unexpected {{{{{word}}}}}")),
    }
}

struct Parser<'f> {
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    loops: usize,
    depth: usize,
    defined: Vec<(String, Vec<Node>)>,
    is_function: &'f dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        // The last token is the end, beyond which nothing goes.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    /// At the token that was taken last.
    fn fail<T>(&self, reason: String) -> Result<T, Failure> {
        let last = self.next.saturating_sub(1).min(self.tokens.len() - 1);
        Err((self.tokens[last].at, reason))
    }

    /// Nodes up to `end` or `else`, which is answered; at the top also up to the end of the text.
    fn list(&mut self, is_top: bool) -> Result<(Vec<Node>, Option<&'static str>), Failure> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::End if is_top => return Ok((nodes, None)),
                Kind::End => return self.fail("unexpected EOF".to_owned()),
                _ => match self.peek().kind {
                    Kind::Keyword(word @ ("end" | "else")) => {
                        self.next += 1;
                        return Ok((nodes, Some(word)));
                    }
                    Kind::Keyword(word) => {
                        self.next += 1;
                        nodes.extend(self.keyword(word, is_top)?);
                    }
                    _ => nodes.push(Node::Action(self.statement()?)),
                },
            }
        }
    }

    fn statement(&mut self) -> Result<Pipe, Failure> {
        self.pipe("command", &Kind::Close)
    }

    fn keyword(&mut self, word: &str, is_top: bool) -> Result<Option<Node>, Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(format!("template is nested deeper than {MAX_DEPTH} levels"));
        }
        let node = match word {
            "if" => Some(Node::If(self.branch("if")?)),
            "with" => Some(Node::With(self.branch("with")?)),
            "range" => Some(Node::Range(self.branch("range")?)),
            "break" | "continue" => {
                self.close(&format!("{{{{{word}}}}}"))?;
                if self.loops == 0 {
                    return self.fail(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                Some(if word == "break" { Node::Break } else { Node::Continue })
            }
            "template" => Some(self.call()?),
            "block" => {
                let at = self.peek().at;
                let name = self.name("block clause")?;
                let pipe = self.pipe("block clause", &Kind::Close)?;
                self.definition(name.clone())?;
                Some(Node::Template { at, name, pipe: Some(pipe) })
            }
            "define" if is_top => {
                let name = self.name("define clause")?;
                self.close("define clause")?;
                self.definition(name)?;
                None
            }
            other => return self.fail(format!("unexpected <{other}> in command")),
        };
        self.depth -= 1;
        Ok(node)
    }

    fn close(&mut self, context: &str) -> Result<(), Failure> {
        let token = self.take();
        if token.kind == Kind::Close { Ok(()) } else { unexpected(&token, context) }
    }

    fn name(&mut self, context: &str) -> Result<String, Failure> {
        let token = self.take();
        match token.kind {
            Kind::Quoted(name, _) => Ok(name),
            _ => unexpected(&token, context),
        }
    }

    /// `{{template "name" pipe}}`
    fn call(&mut self) -> Result<Node, Failure> {
        let at = self.peek().at;
        let name = self.name("template clause")?;
        if self.peek().kind == Kind::Close {
            self.next += 1;
            return Ok(Node::Template { at, name, pipe: None });
        }
        let pipe = self.pipe("template clause", &Kind::Close)?;
        Ok(Node::Template { at, name, pipe: Some(pipe) })
    }

    /// The body of a template of its own: no variable from outside is known in it.
    fn definition(&mut self, name: String) -> Result<(), Failure> {
        let outside = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, end) = self.list(false)?;
        if end != Some("end") {
            return self.fail("unexpected {{else}} in define clause".to_owned());
        }
        self.close("define clause")?;
        self.variables = outside;
        self.loops = loops;
        if !is_empty(&nodes) && self.defined.iter().any(|(known, old)| *known == name && !is_empty(old)) {
            return self.fail(format!("template: multiple definition of template {name:?}"));
        }
        self.defined.push((name, nodes));
        Ok(())
    }

    fn branch(&mut self, word: &'static str) -> Result<Branch, Failure> {
        let known = self.variables.len();
        let pipe = self.pipe(word, &Kind::Close)?;
        self.loops += usize::from(word == "range");
        let (body, end) = self.list(false)?;
        self.loops -= usize::from(word == "range");
        let mut otherwise = Vec::new();
        if end == Some("else") {
            let again = match self.peek().kind {
                Kind::Keyword("if") if word == "if" => Some("if"),
                Kind::Keyword("with") if word == "with" => Some("with"),
                _ => None,
            };
            if let Some(word) = again {
                // `{{else if}}` has the same `{{end}}` as the `if` before it.
                self.next += 1;
                otherwise.extend(self.keyword(word, false)?);
                self.variables.truncate(known);
                return Ok(Branch { pipe, body, otherwise });
            }
            self.close("else")?;
            let (nodes, end) = self.list(false)?;
            if end != Some("end") {
                return self.fail("expected end; found {{else}}".to_owned());
            }
            otherwise = nodes;
        }
        self.close("end")?;
        self.variables.truncate(known);
        Ok(Branch { pipe, body, otherwise })
    }

    fn pipe(&mut self, context: &str, end: &Kind) -> Result<Pipe, Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(format!("template is nested deeper than {MAX_DEPTH} levels"));
        }
        let at = self.peek().at;
        let mut pipe = Pipe { at, variables: Vec::new(), is_assignment: false, commands: Vec::new() };
        self.declarations(context, &mut pipe)?;
        loop {
            let token = self.peek();
            if token.kind == *end {
                self.next += 1;
                break;
            }
            match token.kind {
                Kind::Close
                | Kind::Right
                | Kind::Bar
                | Kind::Comma
                | Kind::Assign
                | Kind::Declare
                | Kind::Keyword(_)
                | Kind::End => {
                    let token = self.take();
                    return unexpected(&token, context);
                }
                _ => {
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
            }
        }
        self.check(&pipe, context)?;
        self.depth -= 1;
        Ok(pipe)
    }

    fn declarations(&mut self, context: &str, pipe: &mut Pipe) -> Result<(), Failure> {
        let mut names = Vec::new();
        while let Kind::Variable(name) = &self.peek().kind {
            let name = name.clone();
            match self.tokens.get(self.next + 1).map(|token| &token.kind) {
                Some(sign @ (Kind::Declare | Kind::Assign)) => {
                    pipe.is_assignment = *sign == Kind::Assign;
                    self.next += 2;
                    names.push(name);
                    break;
                }
                Some(Kind::Comma) if context == "range" && names.is_empty() => {
                    self.next += 2;
                    names.push(name);
                    if !matches!(self.peek().kind, Kind::Variable(_)) {
                        return self.fail("range can only initialize variables".to_owned());
                    }
                }
                _ if names.is_empty() => return Ok(()),
                _ => {
                    self.next += 1;
                    let token = self.take();
                    return unexpected(&token, context);
                }
            }
        }
        if pipe.is_assignment {
            if let Some(name) = names.iter().find(|name| !self.variables.contains(name)) {
                return self.fail(format!("undefined variable {name:?}"));
            }
        } else {
            self.variables.extend(names.iter().cloned());
        }
        pipe.variables = names;
        Ok(())
    }

    fn check(&self, pipe: &Pipe, context: &str) -> Result<(), Failure> {
        if pipe.commands.is_empty() {
            return self.fail(format!("missing value for {context}"));
        }
        for (at, command) in pipe.commands.iter().enumerate().skip(1) {
            if matches!(command.args[0].kind, Term::Dot | Term::Nil | Term::Constant(..)) {
                return self.fail(format!("non executable command in pipeline stage {}", at + 1));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command, Failure> {
        let mut command = Command { at: self.peek().at, args: Vec::new() };
        while let Some(operand) = self.operand()? {
            command.args.push(operand);
            let next = self.peek().clone();
            match next.kind {
                Kind::Bar => {
                    self.next += 1;
                    if matches!(self.peek().kind, Kind::Close | Kind::Right) {
                        return self.fail("missing value for command".to_owned());
                    }
                    break;
                }
                Kind::Close | Kind::Right => break,
                _ if next.is_spaced => {}
                _ => return unexpected(&next, "operand"),
            }
        }
        if command.args.is_empty() {
            return self.fail("empty command".to_owned());
        }
        Ok(command)
    }

    /// A term and the fields behind it.
    fn operand(&mut self) -> Result<Option<Operand>, Failure> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        let mut names = Vec::new();
        let behind = self.peek().at;
        while let Token { kind: Kind::Field(name), is_spaced: false, .. } = self.peek() {
            names.push(name.clone());
            self.next += 1;
        }
        if names.is_empty() {
            return Ok(Some(operand));
        }
        match &mut operand.kind {
            Term::Field(known) | Term::Variable(_, known) => known.extend(names),
            Term::Constant(..) | Term::Nil | Term::Dot => {
                return self.fail(format!("unexpected . after term {:?}", operand.to_string()));
            }
            _ => operand = Operand { at: behind, kind: Term::Chain(Box::new(operand), names) },
        }
        // Go points at the first field behind the term.
        operand.at = behind;
        Ok(Some(operand))
    }

    fn term(&mut self) -> Result<Option<Operand>, Failure> {
        let token = self.peek().clone();
        let kind = match token.kind {
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Bool(value) => Term::Constant(Value::Bool(value), value.to_string()),
            Kind::Char(number, written) => Term::Constant(Value::Int(number), written),
            Kind::Quoted(text, written) => Term::Constant(Value::from(text), written),
            Kind::Field(name) => Term::Field(vec![name]),
            Kind::Number(written) => match number(&written) {
                Some(value) => Term::Constant(value, written),
                None => return Err((token.at, format!("bad number syntax: {written:?}"))),
            },
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err((token.at, format!("undefined variable {name:?}")));
                }
                Term::Variable(name, Vec::new())
            }
            Kind::Identifier(name) => {
                if !(self.is_function)(&name) {
                    return Err((token.at, format!("function {name:?} not defined")));
                }
                Term::Function(name)
            }
            Kind::Left => {
                self.next += 1;
                let pipe = self.pipe("parenthesized pipeline", &Kind::Right)?;
                return Ok(Some(Operand { at: token.at, kind: Term::Pipe(Box::new(pipe)) }));
            }
            _ => return Ok(None),
        };
        self.next += 1;
        Ok(Some(Operand { at: token.at, kind }))
    }
}

fn unexpected<T>(token: &Token, context: &str) -> Result<T, Failure> {
    let shown = match &token.kind {
        Kind::End => "EOF".to_owned(),
        Kind::Close => "\"}}\"".to_owned(),
        Kind::Open => "\"{{\"".to_owned(),
        Kind::Bar => "\"|\"".to_owned(),
        Kind::Left => "\"(\"".to_owned(),
        Kind::Right => "\")\"".to_owned(),
        Kind::Comma => "\",\"".to_owned(),
        Kind::Assign => "\"=\"".to_owned(),
        Kind::Declare => "\":=\"".to_owned(),
        Kind::Keyword(word) => format!("<{word}>"),
        Kind::Field(name) => format!("<.{name}>"),
        Kind::Dot => "<.>".to_owned(),
        Kind::Nil => "<nil>".to_owned(),
        Kind::Bool(value) => format!("{:?}", value.to_string()),
        Kind::Number(text) | Kind::Char(_, text) | Kind::Quoted(_, text) | Kind::Text(text) => {
            format!("{text:?}")
        }
        Kind::Variable(name) | Kind::Identifier(name) => format!("{name:?}"),
    };
    Err((token.at, format!("unexpected {shown} in {context}")))
}

fn is_empty(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}

/// A constant of Go: an integer unless it is written with a point or an exponent.
fn number(written: &str) -> Option<Value> {
    let clean = written.replace('_', "");
    let unsigned = clean.trim_start_matches(['+', '-']);
    let sign = if clean.starts_with('-') { "-" } else { "" };
    let radix = match unsigned.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    if let Some(radix) = radix {
        return i64::from_str_radix(&format!("{sign}{}", &unsigned[2..]), radix).ok().map(Value::Int);
    }
    if unsigned.contains(['.', 'e', 'E']) {
        let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        return clean.parse().ok().filter(|_| is_number).map(Value::Float);
    }
    if unsigned.len() > 1 && unsigned.starts_with('0') {
        return i64::from_str_radix(&format!("{sign}{unsigned}"), 8).ok().map(Value::Int);
    }
    clean.parse().ok().map(Value::Int)
}
