//! A template that was read.

use std::fmt::{self, Display};

use super::value::Value;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    /// Of another template, with what it is about.
    Template {
        at: usize,
        name: String,
        pipe: Option<Pipe>,
    },
    Break,
    Continue,
}

/// A condition, and what it guards.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each of which has the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipe {
    pub(super) at: usize,
    /// Names with their signs.
    pub(super) variables: Vec<String>,
    /// `=`, not `:=`.
    pub(super) is_assignment: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) args: Vec<Operand>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) kind: Term,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    Dot,
    Nil,
    /// A constant, and as it is written.
    Constant(Value, String),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Box<Pipe>),
    /// `(…).a.b`
    Chain(Box<Operand>, Vec<String>),
}

impl Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.is_assignment { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        for (at, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if at == 0 { "" } else { " | " })?;
        }
        Ok(())
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, arg) in self.args.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            match &arg.kind {
                Term::Pipe(pipe) => write!(f, "{blank}({pipe})")?,
                _ => write!(f, "{blank}{arg}")?,
            }
        }
        Ok(())
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, names: &[String]| {
            names.iter().try_for_each(|name| write!(f, ".{name}"))
        };
        match &self.kind {
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Constant(_, written) => f.write_str(written),
            Term::Field(names) => fields(f, names),
            Term::Variable(name, names) => {
                f.write_str(name)?;
                fields(f, names)
            }
            Term::Function(name) => f.write_str(name),
            Term::Pipe(pipe) => write!(f, "{pipe}"),
            Term::Chain(operand, names) => {
                match &operand.kind {
                    Term::Pipe(pipe) => write!(f, "({pipe})")?,
                    _ => write!(f, "{operand}")?,
                }
                fields(f, names)
            }
        }
    }
}
