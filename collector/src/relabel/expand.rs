//! References to what a regular expression found, as Go's `regexp.Expand` reads them.

use regex::{Captures, Regex};

/// `template` with `$1`, `$name` and `${name}` replaced by what was found, and `$$` by `$`.
///
/// A name is as long as letters, digits and `_` go: `$1x` is `${1x}`. What was not found, or is no group, is empty; a `$`
/// that begins no reference stands for itself.
pub(super) fn expand(template: &str, found: &Captures<'_>, regex: &Regex) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some((name, behind)) = reference(rest) {
            out.push_str(group(name, found, regex));
            rest = behind;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The name behind a `$`, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let bare = text.strip_prefix('{');
    let inner = bare.unwrap_or(text);
    let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len());
    let (name, behind) = inner.split_at(end);
    if name.is_empty() {
        return None;
    }
    if bare.is_some() { Some((name, behind.strip_prefix('}')?)) } else { Some((name, behind)) }
}

fn group<'f>(name: &str, found: &Captures<'f>, regex: &Regex) -> &'f str {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = name.len() > 1 && name.starts_with('0');
    let taken = if is_number && !has_leading_zero {
        name.parse().ok().and_then(|at: usize| found.get(at))
    } else {
        let is_known = regex.capture_names().flatten().any(|known| known == name);
        if is_known { found.name(name) } else { None }
    };
    taken.map_or("", |taken| taken.as_str())
}
