//! From text to nodes: linear, and bounded in depth.

use super::functions::function;
use super::{Command, Node, Pipe, Term, Value};
use crate::promql::quoted_text;

/// Deepest `if` or pair of parentheses.
const MAX_DEPTH: usize = 32;

/// A piece of a template: text, or what stands between braces.
enum Piece<'t> {
    Text(&'t str),
    Action(&'t str),
}

pub(super) fn read(text: &str) -> Result<Vec<Node>, String> {
    let pieces = pieces(text)?;
    let mut reader = Reader { pieces: pieces.into_iter(), depth: 0 };
    let (nodes, end) = reader.nodes()?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(format!("unexpected {{{{{}}}}}", word.split(' ').next().unwrap_or_default())),
    }
}

/// Cuts a template at its braces; `{{-` and `-}}` take the space beside them away.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut trims_left = false;
    loop {
        let trimmed =
            |text: &'_ str, trims: bool| if trims { text.len() - text.trim_start().len() } else { 0 };
        let Some(open) = rest.find("{{") else {
            found.push(Piece::Text(&rest[trimmed(rest, trims_left)..]));
            return Ok(found);
        };
        let (before, behind) = (&rest[..open], &rest[open + 2..]);
        let before = &before[trimmed(before, trims_left)..];
        let is_trimmed =
            |text: &str| text.strip_prefix('-').is_some_and(|rest| rest.starts_with(char::is_whitespace));
        let trims_right = is_trimmed(behind);
        found.push(Piece::Text(if trims_right { before.trim_end() } else { before }));
        let behind = if trims_right { &behind[1..] } else { behind };
        let close = end_of_action(behind).ok_or("unclosed action")?;
        let action = &behind[..close];
        trims_left = action.ends_with('-') && action[..action.len() - 1].ends_with(char::is_whitespace);
        let action = if trims_left { &action[..action.len() - 1] } else { action }.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            found.push(Piece::Action(action));
        }
        rest = &behind[close + 2..];
    }
}

/// Where `}}` stands outside of any text.
fn end_of_action(text: &str) -> Option<usize> {
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'`' => at = quoted_text(text, at).ok()?.1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => at += 1,
        }
    }
    None
}

struct Reader<'t> {
    pieces: std::vec::IntoIter<Piece<'t>>,
    depth: usize,
}

impl<'t> Reader<'t> {
    /// Nodes up to an `else` or `end`, which is answered, too.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<&'t str>), String> {
        let mut found = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let action = match piece {
                Piece::Text("") => continue,
                Piece::Text(text) => {
                    found.push(Node::Text(text.to_owned()));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let word = action.split_whitespace().next().unwrap_or_default();
            match word {
                "else" | "end" => return Ok((found, Some(action))),
                "if" => found.push(self.branches(&action[2..])?),
                "range" | "with" | "define" | "template" | "block" | "break" | "continue" => {
                    return Err(format!("{word:?} is not supported in templates here"));
                }
                _ => found.push(statement(action)?),
            }
        }
        Ok((found, None))
    }

    fn branches(&mut self, condition: &str) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("template is nested deeper than {MAX_DEPTH} levels"));
        }
        let mut branches = Vec::new();
        let mut condition = pipe(condition)?;
        let otherwise = loop {
            let (nodes, end) = self.nodes()?;
            branches.push((condition, nodes));
            let end = end.ok_or("unexpected EOF")?;
            if end == "end" {
                break Vec::new();
            }
            let rest = end["else".len()..].trim();
            if rest.is_empty() {
                let (nodes, end) = self.nodes()?;
                if end != Some("end") {
                    return Err("expected end after else".to_owned());
                }
                break nodes;
            }
            let rest = rest.strip_prefix("if").ok_or_else(|| format!("unexpected {rest:?} behind else"))?;
            condition = pipe(rest)?;
        };
        self.depth -= 1;
        Ok(Node::If(branches, otherwise))
    }
}

fn statement(action: &str) -> Result<Node, String> {
    if let Some(rest) = action.strip_prefix('$') {
        let (name, behind) = name(rest);
        let value = behind.trim_start();
        if let Some(value) = value.strip_prefix(":=").or_else(|| value.strip_prefix('=')) {
            return Ok(Node::Assign(name.to_owned(), pipe(value)?));
        }
    }
    Ok(Node::Print(pipe(action)?))
}

/// A name at the beginning, perhaps an empty one, and what stands behind it.
fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len()))
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let (pipe, rest) = commands(text, 0)?;
    if !rest.is_empty() {
        return Err(format!("unexpected {rest:?} in operand"));
    }
    if pipe.is_empty() {
        return Err("missing value for command".to_owned());
    }
    Ok(pipe)
}

/// Commands up to the end or a closing parenthesis.
fn commands(text: &str, depth: usize) -> Result<(Pipe, &str), String> {
    if depth > MAX_DEPTH {
        return Err(format!("template is nested deeper than {MAX_DEPTH} levels"));
    }
    let mut found: Pipe = Vec::new();
    let mut rest = text.trim_start();
    loop {
        let (command, behind) = command(rest, depth)?;
        if command.function.is_none() && (command.args.len() != 1 || !found.is_empty()) {
            let reason = if command.args.is_empty() {
                "missing value for command"
            } else {
                "can't give argument to non-function"
            };
            return Err(reason.to_owned());
        }
        found.push(command);
        let Some(next) = behind.strip_prefix('|') else { return Ok((found, behind)) };
        rest = next.trim_start();
    }
}

fn command(text: &str, depth: usize) -> Result<(Command, &str), String> {
    let mut command = Command { function: None, args: Vec::new() };
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(c) = rest.chars().next().filter(|c| !matches!(c, '|' | ')')) else {
            return Ok((command, rest));
        };
        let is_word = c.is_alphabetic() || c == '_';
        let (word, behind) = name(rest);
        if is_word && !matches!(word, "true" | "false") {
            let known = function(word).ok_or_else(|| format!("function {word:?} not defined"))?;
            if command.function.is_none() && command.args.is_empty() {
                command.function = Some(known);
            } else {
                // Without arguments of its own: `add __timestamp__ 1`.
                let alone = Command { function: Some(known), args: Vec::new() };
                command.args.push(Term::Pipe(vec![alone]));
            }
            rest = behind;
            continue;
        }
        let (term, behind) = term(rest, depth)?;
        command.args.push(term);
        rest = behind;
    }
}

fn term(text: &str, depth: usize) -> Result<(Term, &str), String> {
    let c = text.chars().next().unwrap_or(' ');
    match c {
        '.' => {
            let (name, rest) = name(&text[1..]);
            if name.is_empty() {
                return Err("unexpected <.> in operand; name a label as in {{.label}}".to_owned());
            }
            Ok((Term::Field(name.to_owned()), rest))
        }
        '$' => {
            let (name, rest) = name(&text[1..]);
            // `$.label` is the same as `.label`.
            if name.is_empty() && rest.starts_with('.') {
                return term(rest, depth);
            }
            Ok((Term::Variable(name.to_owned()), rest))
        }
        '"' | '`' => {
            let (value, end) = quoted_text(text, 0).map_err(|error| error.reason)?;
            Ok((Term::Value(Value::Text(value)), &text[end..]))
        }
        '(' => {
            let (pipe, rest) = commands(&text[1..], depth + 1)?;
            let rest = rest.strip_prefix(')').ok_or("unclosed left paren")?;
            Ok((Term::Pipe(pipe), rest))
        }
        _ => {
            let end = text.find(|c: char| c.is_whitespace() || matches!(c, '|' | ')')).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            let value = match (word, word.parse::<i64>(), word.parse::<f64>()) {
                ("true", ..) => Value::Bool(true),
                ("false", ..) => Value::Bool(false),
                (_, Ok(number), _) => Value::Int(number),
                (_, _, Ok(number)) if c.is_ascii_digit() || c == '-' => Value::Float(number),
                _ => return Err(format!("unexpected {word:?} in operand")),
            };
            Ok((Term::Value(value), rest))
        }
    }
}
