//! Go's `text/template` and `html/template`: the language of annotations, of notifications and of LogQL's
//! `line_format`.
//!
//! ```text
//! lex ─► tokens ─► parse ─► nodes (ast) ─► exec ─► text
//!                                            │  └─ html escapes what is printed, by where in a page it stands
//!                                            ├─ value, format (Go's fmt), time (Go's layouts): what is calculated with
//!                                            └─ builtins, and the Functions of whoever asks
//! ```
//!
//! Errors are worded as Go's, since they are shown to whoever wrote the template. A template is bounded in depth,
//! steps and bytes: it ends whatever it says. What is not there: complex numbers, channels, functions as values.
//!
//! Follows <https://pkg.go.dev/text/template> of Go 1.25.

mod ast;
mod builtins;
mod exec;
mod format;
mod html;
mod lex;
mod parse;
mod time;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use ast::Node;

pub use builtins::query_escape;
pub use format::{json, significant};
pub use time::in_zone;
pub use value::{ANY_LIST, ANY_MAP, Method, Safe, TEXT_MAP, TEXTS, Type, Value, text_arg};

/// Functions beyond Go's own.
pub trait Functions {
    /// Names, and how many arguments each takes at least and at most.
    fn names(&self) -> &[(&'static str, usize, usize)];

    /// Calls one of them; the number of arguments was checked.
    ///
    /// # Errors
    /// What the message says behind `error calling NAME:`.
    fn call(&self, name: &str, args: &[Value]) -> Result<Value, String>;
}

/// What is made of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Values as they are.
    Text,
    /// A page, or a part of one: values are escaped by where they stand.
    Html,
}

#[derive(Debug)]
struct Template {
    name: String,
    /// The name of the text that it was read from, for messages.
    parsed_as: String,
    text: Arc<str>,
    nodes: Vec<Node>,
}

/// Templates that know one another by name. Cheap to copy.
#[derive(Debug, Clone, Default)]
pub struct Set {
    templates: BTreeMap<String, Arc<Template>>,
}

impl Set {
    /// Reads a text under a name, with all that it defines; a later definition replaces an earlier one.
    ///
    /// # Errors
    /// `template: NAME:LINE: REASON`
    pub fn add(&mut self, name: &str, text: &str, functions: &dyn Functions) -> Result<(), String> {
        let is_function = |word: &str| {
            let own = functions.names().iter().any(|(known, ..)| *known == word);
            own || builtins::BUILTINS.iter().any(|(known, ..)| *known == word)
        };
        let parsed = parse::parse(text, &is_function).map_err(|(at, reason)| {
            let line = text[..at.min(text.len())].matches('\n').count() + 1;
            format!("template: {name}:{line}: {reason}")
        })?;
        let shared: Arc<str> = text.into();
        let own = (name.to_owned(), parsed.nodes);
        for (defined, nodes) in parsed.defined.into_iter().chain([own]) {
            let is_blank =
                nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()));
            // A file that only defines does not replace what has its name.
            if is_blank && self.templates.contains_key(&defined) {
                continue;
            }
            let template = Template {
                name: defined.clone(),
                parsed_as: name.to_owned(),
                text: Arc::clone(&shared),
                nodes,
            };
            self.templates.insert(defined, Arc::new(template));
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&Template> {
        self.templates.get(name).map(|template| &**template)
    }

    /// Names of templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(String::as_str)
    }

    /// What a template makes of `about`, at most `max_bytes` of it.
    ///
    /// # Errors
    /// `template: NAME:LINE:COLUMN: executing "NAME" at <WHAT>: REASON`
    pub fn execute(
        &self,
        name: &str,
        about: &Value,
        functions: &dyn Functions,
        mode: Mode,
        max_bytes: usize,
    ) -> Result<String, String> {
        let template = self.get(name).ok_or_else(|| format!("template: no template {name:?}"))?;
        exec::Run::new(self, functions, mode, template, max_bytes).run(about)
    }
}

#[cfg(test)]
mod tests;
