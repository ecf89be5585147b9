//! Go's templates, as far as `line_format` and `label_format` need them.
//!
//! ```text
//! {{.label}}  {{ .a | ToUpper }}  {{ if eq .a "x" }}…{{ else }}…{{ end }}  {{ $x := .a }}{{ $x }}  {{- trimmed -}}
//! ```
//!
//! A label that is absent is empty text. Functions are those that Loki's documentation names for texts, numbers,
//! sizes, durations and Unix times; a template that uses another one is refused when it is read.

mod functions;
mod reader;

use super::row::Row;
use reader::read;

/// Longest text that a template makes of one line.
const MAX_BYTES: usize = 256 * 1024;

/// A template that was read.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// As written.
    pub(super) text: String,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Pipe),
    /// `$name := pipe`
    Assign(String, Pipe),
    /// Conditions with what they guard, and what stands behind `else`.
    If(Vec<(Pipe, Vec<Node>)>, Vec<Node>),
}

/// Commands, each of which has the value of the one before as its last argument.
type Pipe = Vec<Command>;

/// A value, or a function and its arguments.
#[derive(Debug, Clone, PartialEq)]
struct Command {
    function: Option<&'static str>,
    args: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Field(String),
    Variable(String),
    Value(Value),
    Pipe(Pipe),
}

/// What a template calculates with.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Value {
    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Bool(value) => *value,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => general(*number),
            Self::Bool(value) => value.to_string(),
        }
    }

    /// As the functions of numbers take it: text is read, and what is none is zero.
    fn float(&self) -> f64 {
        match self {
            Self::Text(text) => text.trim().parse().unwrap_or(0.0),
            Self::Int(number) => *number as f64,
            Self::Float(number) => *number,
            Self::Bool(value) => f64::from(u8::from(*value)),
        }
    }

    fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => other.float() as i64,
        }
    }
}

/// As Go prints a float: with an exponent where it is very large or very small.
fn general(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && value.is_finite() && !(1e-4..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    crate::http::format_value(value)
}

/// What a template sees of a line.
struct Run<'r, 'e> {
    row: &'r Row<'e>,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Template {
    /// Reads a template.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let nodes =
            read(text).map_err(|reason| format!("invalid line template: template: line:1: {reason}"))?;
        Ok(Self { text: text.to_owned(), nodes })
    }

    /// What it makes of a line.
    pub(super) fn run(&self, row: &Row<'_>) -> Result<String, String> {
        let mut run = Run { row, variables: Vec::new(), out: String::new() };
        run.nodes(&self.nodes)?;
        Ok(run.out)
    }
}

impl Run<'_, '_> {
    fn nodes(&mut self, nodes: &[Node]) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipe) => {
                    let value = self.pipe(pipe)?.text();
                    self.out.push_str(&value);
                }
                Node::Assign(name, pipe) => {
                    let value = self.pipe(pipe)?;
                    match self.variables.iter_mut().find(|(known, _)| known == name) {
                        Some((_, known)) => *known = value,
                        None => self.variables.push((name.clone(), value)),
                    }
                }
                Node::If(branches, otherwise) => self.branch(branches, otherwise)?,
            }
            if self.out.len() > MAX_BYTES {
                return Err(format!("template makes more than {MAX_BYTES} bytes of a line"));
            }
        }
        Ok(())
    }

    fn branch(&mut self, branches: &[(Pipe, Vec<Node>)], otherwise: &[Node]) -> Result<(), String> {
        for (condition, nodes) in branches {
            if self.pipe(condition)?.is_true() {
                return self.nodes(nodes);
            }
        }
        self.nodes(otherwise)
    }

    fn pipe(&mut self, pipe: &[Command]) -> Result<Value, String> {
        let mut value = None;
        for command in pipe {
            let mut args = Vec::with_capacity(command.args.len() + 1);
            for term in &command.args {
                args.push(self.term(term)?);
            }
            args.extend(value.take());
            value = Some(match command.function {
                Some(name) => functions::call(name, &args, self.row)?,
                None => args.into_iter().next().unwrap_or(Value::Text(String::new())),
            });
        }
        Ok(value.unwrap_or(Value::Text(String::new())))
    }

    fn term(&mut self, term: &Term) -> Result<Value, String> {
        Ok(match term {
            Term::Field(name) => Value::Text(self.row.get(name).into_owned()),
            Term::Variable(name) => {
                let known = self.variables.iter().find(|(known, _)| known == name);
                known
                    .map(|(_, value)| value.clone())
                    .ok_or_else(|| format!("undefined variable \"${name}\""))?
            }
            Term::Value(value) => value.clone(),
            Term::Pipe(pipe) => self.pipe(pipe)?,
        })
    }
}

#[cfg(test)]
mod tests;
