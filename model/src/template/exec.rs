//! Carries a template out.

use std::borrow::Cow;

use super::ast::{Branch, Command, Node, Operand, Pipe, Term};
use super::builtins::{self, BUILTINS};
use super::html::Escaper;
use super::value::Value;
use super::{Functions, Mode, Set, Template};

/// Deepest call of templates by templates.
const MAX_CALLS: usize = 64;

/// Most nodes that one text may be made of.
const MAX_STEPS: usize = 1_000_000;

/// Why nodes ended.
enum Flow {
    On,
    Break,
    Continue,
}

/// What a text is made with.
pub(super) struct Run<'r> {
    set: &'r Set,
    functions: &'r dyn Functions,
    escaper: Option<Escaper>,
    template: &'r Template,
    variables: Vec<(&'r str, Value)>,
    out: String,
    max_bytes: usize,
    calls: usize,
    steps: usize,
}

/// An error, worded as Go's; its place was said.
type Failure = String;

impl<'r> Run<'r> {
    pub(super) fn new(
        set: &'r Set,
        functions: &'r dyn Functions,
        mode: Mode,
        template: &'r Template,
        max_bytes: usize,
    ) -> Self {
        let escaper = (mode == Mode::Html).then(Escaper::default);
        let variables = Vec::new();
        Self {
            set,
            functions,
            escaper,
            template,
            variables,
            out: String::new(),
            max_bytes,
            calls: 0,
            steps: 0,
        }
    }

    pub(super) fn run(mut self, about: &Value) -> Result<String, Failure> {
        self.variables.push(("$", about.clone()));
        self.nodes(&self.template.nodes, about)?;
        Ok(self.out)
    }

    /// `template: name:line:column: executing "name" at <what>: why`
    fn fail(&self, at: usize, what: &dyn ToString, why: &str) -> Failure {
        let Template { name, parsed_as, text, .. } = self.template;
        let before = &text[..at.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rfind('\n').map_or(at, |newline| at - newline - 1);
        let what = what.to_string();
        let what = match what.char_indices().nth(20) {
            Some((end, _)) => Cow::Owned(format!("{}...", &what[..end])),
            None => Cow::Borrowed(what.as_str()),
        };
        format!("template: {parsed_as}:{line}:{column}: executing {name:?} at <{what}>: {why}")
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        if self.out.len() + text.len() > self.max_bytes {
            return Err(format!("template makes more than {} bytes", self.max_bytes));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn nodes(&mut self, nodes: &'r [Node], dot: &Value) -> Result<Flow, Failure> {
        for node in nodes {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("template takes more than {MAX_STEPS} steps"));
            }
            match node {
                Node::Text(text) => {
                    let shown = self.escaper.as_mut().map(|escaper| escaper.text(text));
                    self.write(shown.as_deref().unwrap_or(text))?;
                }
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.print(&value)?;
                    }
                }
                Node::If(branch) => match self.branch(branch, dot, false)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
                Node::With(branch) => match self.branch(branch, dot, true)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Template { at, name, pipe } => self.call(*at, name, pipe.as_ref(), dot)?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    fn print(&mut self, value: &Value) -> Result<(), Failure> {
        match &mut self.escaper {
            Some(escaper) => {
                let escaped = escaper.value(value);
                self.write(&escaped)
            }
            None => match value {
                Value::Text(text) => self.write(text),
                other => self.write(&other.to_text()),
            },
        }
    }

    fn branch(&mut self, branch: &'r Branch, dot: &Value, moves_dot: bool) -> Result<Flow, Failure> {
        let known = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = if value.is_true() {
            self.nodes(&branch.body, if moves_dot { &value } else { dot })
        } else {
            self.nodes(&branch.otherwise, dot)
        }?;
        self.variables.truncate(known);
        Ok(flow)
    }

    fn range(&mut self, branch: &'r Branch, dot: &Value) -> Result<(), Failure> {
        let known = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let pairs: Vec<(Value, Value)> = match &value {
            Value::List(_, items) => {
                items.iter().enumerate().map(|(at, item)| (Value::Int(at as i64), item.clone())).collect()
            }
            Value::Map(_, entries) => {
                entries.iter().map(|(key, value)| (Value::Text(key.clone()), value.clone())).collect()
            }
            Value::Int(count) => {
                if *count > MAX_STEPS as i64 {
                    return Err(format!("range over {count} is longer than {MAX_STEPS}"));
                }
                (0..*count).map(|at| (Value::Int(at), Value::Int(at))).collect()
            }
            Value::Missing | Value::Nil => Vec::new(),
            other => {
                let why = format!("range can't iterate over {}", other.to_text());
                let at = branch.pipe.commands.last().map_or(branch.pipe.at, |command| command.at);
                return Err(self.fail(at, &branch.pipe, &why));
            }
        };
        if pairs.is_empty() {
            self.nodes(&branch.otherwise, dot)?;
            self.variables.truncate(known);
            return Ok(());
        }
        let is_count = matches!(value, Value::Int(_));
        for (key, item) in pairs {
            let names = &branch.pipe.variables;
            match names.as_slice() {
                [] => {}
                // Of a count, the one variable is the number.
                [only] => self.set_variable(only, item.clone(), branch.pipe.is_assignment),
                [first, second, ..] => {
                    self.set_variable(first, key, branch.pipe.is_assignment);
                    if !is_count {
                        self.set_variable(second, item.clone(), branch.pipe.is_assignment);
                    }
                }
            }
            let flow = self.nodes(&branch.body, &item)?;
            self.variables.truncate(known);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(())
    }

    fn set_variable(&mut self, name: &'r str, value: Value, is_assignment: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        match known {
            Some((_, known)) if is_assignment => *known = value,
            _ => self.variables.push((name, value)),
        }
    }

    fn call(&mut self, at: usize, name: &'r str, pipe: Option<&'r Pipe>, dot: &Value) -> Result<(), Failure> {
        let what = match pipe {
            Some(pipe) => format!("{{{{template {name:?} {pipe}}}}}"),
            None => format!("{{{{template {name:?}}}}}"),
        };
        let Some(template) = self.set.get(name) else {
            return Err(self.fail(at, &what, &format!("template {name:?} not defined")));
        };
        if self.calls >= MAX_CALLS {
            return Err(self.fail(at, &what, &format!("exceeded maximum template depth ({MAX_CALLS})")));
        }
        let about = match pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Value::Missing,
        };
        let outside = std::mem::replace(&mut self.variables, vec![("$", about.clone())]);
        let caller = std::mem::replace(&mut self.template, template);
        self.calls += 1;
        self.nodes(&template.nodes, &about)?;
        self.calls -= 1;
        self.template = caller;
        self.variables = outside;
        Ok(())
    }

    fn pipe(&mut self, pipe: &'r Pipe, dot: &Value) -> Result<Value, Failure> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last.unwrap_or(Value::Missing);
        for name in &pipe.variables {
            // A range sets its own for each item.
            self.set_variable(name, value.clone(), pipe.is_assignment);
        }
        Ok(value)
    }

    fn command(&mut self, command: &'r Command, dot: &Value, last: Option<Value>) -> Result<Value, Failure> {
        let first = &command.args[0];
        let args = &command.args[1..];
        match &first.kind {
            Term::Function(name) => self.function(name, first.at, Some(command), args, dot, last),
            Term::Field(names) => self.fields(dot.clone(), names, first, args, dot, last),
            Term::Chain(inner, names) => {
                let value = self.operand(inner, dot)?;
                self.fields(value, names, first, args, dot, last)
            }
            Term::Variable(name, names) => {
                let value = self.variable(name);
                if names.is_empty() {
                    self.takes_none(first, args, last.as_ref())?;
                    return Ok(value);
                }
                self.fields(value, names, first, args, dot, last)
            }
            Term::Nil => Err(self.fail(first.at, first, "nil is not a command")),
            Term::Pipe(pipe) => {
                self.takes_none(first, args, last.as_ref())?;
                self.pipe(pipe, dot)
            }
            Term::Dot | Term::Constant(..) => {
                self.takes_none(first, args, last.as_ref())?;
                self.operand(first, dot)
            }
        }
    }

    fn takes_none(&self, first: &Operand, args: &[Operand], last: Option<&Value>) -> Result<(), Failure> {
        if args.is_empty() && last.is_none() {
            return Ok(());
        }
        Err(self.fail(first.at, first, &format!("can't give argument to non-function {first}")))
    }

    fn variable(&self, name: &str) -> Value {
        let found = self.variables.iter().rev().find(|(known, _)| *known == name);
        found.map_or(Value::Missing, |(_, value)| value.clone())
    }

    fn operand(&mut self, operand: &'r Operand, dot: &Value) -> Result<Value, Failure> {
        match &operand.kind {
            Term::Dot => Ok(dot.clone()),
            Term::Nil => Ok(Value::Nil),
            Term::Constant(value, _) => Ok(value.clone()),
            Term::Field(names) => self.fields(dot.clone(), names, operand, &[], dot, None),
            Term::Variable(name, names) => {
                let value = self.variable(name);
                if names.is_empty() {
                    return Ok(value);
                }
                self.fields(value, names, operand, &[], dot, None)
            }
            Term::Function(name) => self.function(name, operand.at, None, &[], dot, None),
            Term::Pipe(pipe) => self.pipe(pipe, dot),
            Term::Chain(inner, names) => {
                let value = self.operand(inner, dot)?;
                self.fields(value, names, operand, &[], dot, None)
            }
        }
    }

    fn function(
        &mut self,
        name: &'r str,
        at: usize,
        command: Option<&'r Command>,
        args: &'r [Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        let own = self.functions.names().iter().find(|(known, ..)| *known == name);
        let known = own.or_else(|| BUILTINS.iter().find(|(known, ..)| *known == name));
        let Some((_, least, most)) = known else {
            return Err(self.fail(at, &name, &format!("{name:?} is not a defined function")));
        };
        let count = args.len() + usize::from(last.is_some());
        if count < *least || count > *most {
            let want = if count < *least { *least } else { *most };
            let want = if least == most { format!("{want}") } else { format!("at least {least}") };
            let why = format!("wrong number of args for {name}: want {want} got {count}");
            return Err(self.fail(at, &name, &why));
        }
        if own.is_none() && matches!(name, "and" | "or") {
            return self.short_circuit(name == "or", args, dot, last);
        }
        let mut values = Vec::with_capacity(count);
        for arg in args {
            values.push(self.operand(arg, dot)?);
        }
        values.extend(last);
        let result = match own {
            Some(_) => self.functions.call(name, &values),
            None => builtins::call(name, &values),
        };
        result.map_err(|why| {
            let why = format!("error calling {name}: {why}");
            match command {
                Some(command) => self.fail(at, command, &why),
                None => self.fail(at, &name, &why),
            }
        })
    }

    /// `and` and `or`: the first argument that decides, or the last one.
    fn short_circuit(
        &mut self,
        wanted: bool,
        args: &'r [Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut value = Value::Missing;
        for arg in args {
            value = self.operand(arg, dot)?;
            if value.is_true() == wanted {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// `.a.b`, the last of which may be a method with arguments.
    fn fields(
        &mut self,
        value: Value,
        names: &'r [String],
        whole: &'r Operand,
        args: &'r [Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut value = value;
        let Some((end, path)) = names.split_last() else { return Ok(value) };
        for name in path {
            value = self.field(&value, name, whole, &[])?;
        }
        let mut given = Vec::with_capacity(args.len() + 1);
        for arg in args {
            given.push(self.operand(arg, dot)?);
        }
        given.extend(last);
        self.field(&value, end, whole, &given)
    }

    fn field(&self, value: &Value, name: &str, whole: &Operand, args: &[Value]) -> Result<Value, Failure> {
        let fail = |why: String| Err(self.fail(whole.at, whole, &why));
        if let Some((_, count, method)) = value.methods().iter().find(|(known, ..)| *known == name) {
            if args.len() != *count {
                return fail(format!("wrong number of args for {name}: want {count} got {}", args.len()));
            }
            return method(value, args).or_else(|why| fail(format!("error calling {name}: {why}")));
        }
        let found = match value {
            Value::Map(kind, entries) => {
                Some(entries.get(name).cloned().unwrap_or_else(|| Value::zero_of(kind)))
            }
            Value::Struct(_, fields) => {
                fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
            }
            Value::Missing | Value::Nil => {
                return fail(format!("nil data; no entry for key {name:?}"));
            }
            _ => None,
        };
        match found {
            Some(_) if !args.is_empty() => fail(format!("{name} is not a method but has arguments")),
            Some(found) => Ok(found),
            None => fail(format!("can't evaluate field {name} in type {}", value.type_name())),
        }
    }
}
