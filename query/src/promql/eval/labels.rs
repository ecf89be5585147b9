//! `label_replace` and `label_join`.

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::regexes::anchored;
use binnacle_model::text::lossy;
use regex::Regex;

use super::super::ast::Expr;
use super::super::lexer::is_label_name;
use super::column::{Column, unique};
use super::{EvalError, Grid, Run};

/// Compiled size of the regular expression.
const REGEX_MAX_BYTES: usize = 1024 * 1024;

impl Run<'_> {
    pub(super) fn label_replace(&mut self, args: &[Expr], grid: Grid) -> Result<Vec<Column>, EvalError> {
        let [_, target, replacement, source, pattern] = args else {
            unreachable!("the parser checked the count")
        };
        let (target, replacement) = (Self::text(target)?, Self::text(replacement)?);
        let (source, pattern) = (Self::text(source)?, Self::text(pattern)?);
        let regex = compile(pattern)?;
        check_label("destination", "label_replace", target)?;
        let mut columns = self.columns(&args[0], grid)?;
        for column in &mut columns {
            let Some(found) = regex.captures(column.labels.value(source)) else { continue };
            let mut value = String::new();
            found.expand(replacement, &mut value);
            set(column, target, &lossy(&value));
        }
        unique(columns)
    }

    pub(super) fn label_join(&mut self, args: &[Expr], grid: Grid) -> Result<Vec<Column>, EvalError> {
        let target = Self::text(&args[1])?;
        let separator = Self::text(&args[2])?;
        let sources: Vec<&str> = args[3..].iter().map(Self::text).collect::<Result<_, _>>()?;
        for source in &sources {
            check_label("source", "label_join", source)?;
        }
        check_label("destination", "label_join", target)?;
        let mut columns = self.columns(&args[0], grid)?;
        for column in &mut columns {
            let parts: Vec<&str> = sources.iter().map(|name| column.labels.value(name)).collect();
            let joined = parts.join(separator);
            set(column, target, &lossy(&joined));
        }
        unique(columns)
    }
}

/// A name that was set on purpose stays.
fn set(column: &mut Column, label: &str, value: &str) {
    column.labels = column.labels.with(label, value);
    if label == METRIC_NAME {
        column.drop_name = false;
    }
}

fn compile(pattern: &str) -> Result<Regex, EvalError> {
    anchored(pattern, REGEX_MAX_BYTES).map_err(|_| {
        let reason = format!("invalid regular expression in label_replace(): {pattern}");
        EvalError::Execution(reason)
    })
}

fn check_label(which: &str, function: &str, name: &str) -> Result<(), EvalError> {
    if !is_label_name(name) {
        let name = lossy(name);
        return EvalError::execution(format!("invalid {which} label name in {function}(): {name}"));
    }
    Ok(())
}
