//! `label_replace` and `label_join`.

use regex::Regex;

use super::super::ast::Expr;
use super::{Column, EvalError, Grid, Run, unique};

impl Run<'_> {
    pub(super) fn label_replace(&mut self, args: &[Expr], grid: Grid) -> Result<Vec<Column>, EvalError> {
        let [_, target, replacement, source, pattern] = args else {
            unreachable!("the parser checked the count")
        };
        let (target, replacement) = (Self::text(target)?, Self::text(replacement)?);
        let (source, pattern) = (Self::text(source)?, Self::text(pattern)?);
        let regex = Regex::new(&format!("^(?s:{pattern})$")).map_err(|_| {
            let reason = format!("invalid regular expression in label_replace(): {pattern}");
            EvalError::Execution(reason)
        })?;
        check_label("label_replace", target)?;
        let mut columns = self.columns(&args[0], grid)?;
        for column in &mut columns {
            let Some(found) = regex.captures(column.labels.value(source)) else { continue };
            let mut value = String::new();
            found.expand(replacement, &mut value);
            column.labels = column.labels.with(target, &value);
        }
        unique(columns)
    }

    pub(super) fn label_join(&mut self, args: &[Expr], grid: Grid) -> Result<Vec<Column>, EvalError> {
        let target = Self::text(&args[1])?;
        let separator = Self::text(&args[2])?;
        check_label("label_join", target)?;
        let sources: Vec<&str> = args[3..].iter().map(Self::text).collect::<Result<_, _>>()?;
        let mut columns = self.columns(&args[0], grid)?;
        for column in &mut columns {
            let parts: Vec<&str> = sources.iter().map(|name| column.labels.value(name)).collect();
            column.labels = column.labels.with(target, &parts.join(separator));
        }
        unique(columns)
    }
}

fn check_label(function: &str, name: &str) -> Result<(), EvalError> {
    if name.is_empty() {
        let reason = format!("invalid destination label name in {function}(): {name}");
        return Err(EvalError::Execution(reason));
    }
    Ok(())
}
