//! Templates of annotations and labels: the part of Go's that rule files use most.
//!
//! ```text
//! text     := (plain | "{{" pipeline "}}")*          "{{-" and "-}}" trim the blanks beside them
//! pipeline := command ("|" command)*                 the value goes on as the last argument
//! command  := operand | function operand*
//! operand  := $labels.name | $value | $externalLabels.name | .Labels.name | .Value | "text" | number
//! ```
//!
//! What is beyond it (`if`, `range`, `query`, …) is an error that the annotation then shows, as
//! Prometheus shows its own; the alert itself is never lost to a template.

mod functions;

use binnacle_model::Labels;

/// What a template may speak of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// `$labels`: of the sample that fires.
    pub labels: &'a Labels,
    /// `$externalLabels`
    pub external_labels: &'a Labels,
    /// `$value`
    pub value: f64,
}

/// A value on its way through a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(f64),
}

impl Value {
    fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => functions::shortest(*number),
        }
    }

    fn to_number(&self) -> Result<f64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => text.trim().parse().map_err(|_| format!("{text:?} is no number")),
        }
    }
}

/// The text with its actions carried out, or with a note of what went wrong in their place.
pub fn expand(text: &str, ctx: Context<'_>) -> String {
    try_expand(text, ctx).unwrap_or_else(|error| format!("<error expanding template: {error}>"))
}

/// As [`expand`], for whoever checks templates.
pub fn try_expand(text: &str, ctx: Context<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, after) = rest.split_at(start);
        let after = &after[2..];
        let end = action_end(after).ok_or("an action {{ is not closed")?;
        let (action, mut tail) = (&after[..end], &after[end + 2..]);
        let trims_before = action.starts_with("- ") || action == "-";
        out.push_str(if trims_before { before.trim_end() } else { before });
        let action = action.strip_prefix('-').unwrap_or(action);
        let trims_after = action.ends_with(" -");
        let action = action.strip_suffix('-').filter(|_| trims_after).unwrap_or(action).trim();
        if !action.starts_with("/*") {
            out.push_str(&pipeline(action, ctx)?.to_text());
        }
        if trims_after {
            tail = tail.trim_start();
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the `}}` stands that is in no quote.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            None if text[at..].starts_with("}}") => return Some(at),
            None if c == '"' || c == '`' => quote = Some(c),
            Some(open) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = quote == Some('"') && c == '\\' && !escaped;
    }
    None
}

fn pipeline(action: &str, ctx: Context<'_>) -> Result<Value, String> {
    let words = words(action)?;
    let mut value = None;
    for command in words.split(|word| word == "|") {
        let Some((first, args)) = command.split_first() else {
            return Err("a command is missing".to_owned());
        };
        let mut args = args.iter().map(|arg| operand(arg, ctx)).collect::<Result<Vec<_>, _>>()?;
        let is_function = first.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_function {
            args.extend(value.take());
            value = Some(functions::call(first, &args)?);
        } else if args.is_empty() && value.is_none() {
            value = Some(operand(first, ctx)?);
        } else {
            return Err(format!("{first:?} is no function"));
        }
    }
    value.ok_or_else(|| "a command is missing".to_owned())
}

/// Words and quoted texts; a bar is a word of its own.
fn words(action: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '|' => 1,
            '"' | '`' => {
                let mut escaped = false;
                let close = rest[1..].char_indices().find(|(_, c)| {
                    let closes = *c == first && !escaped;
                    escaped = first == '"' && *c == '\\' && !escaped;
                    closes
                });
                close.map(|(at, _)| at + 2).ok_or("a quote is not closed")?
            }
            '(' | ')' => return Err("parentheses are not supported in templates here".to_owned()),
            _ => rest.find(|c: char| c.is_whitespace() || matches!(c, '|' | '(' | ')')).unwrap_or(rest.len()),
        };
        found.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    Ok(found)
}

fn operand(word: &str, ctx: Context<'_>) -> Result<Value, String> {
    let label = |labels: &Labels, name: &str| Ok(Value::Text(labels.value(name).to_owned()));
    for (prefix, labels) in [
        ("$labels.", ctx.labels),
        (".Labels.", ctx.labels),
        ("$externalLabels.", ctx.external_labels),
        (".ExternalLabels.", ctx.external_labels),
    ] {
        if let Some(name) = word.strip_prefix(prefix) {
            return label(labels, name);
        }
    }
    match word {
        "$value" | ".Value" => return Ok(Value::Number(ctx.value)),
        "$labels" | ".Labels" => return Ok(Value::Text(go_map(ctx.labels))),
        "$externalLabels" | ".ExternalLabels" => return Ok(Value::Text(go_map(ctx.external_labels))),
        _ => {}
    }
    if let Some(raw) = word.strip_prefix('`') {
        return Ok(Value::Text(raw.trim_end_matches('`').to_owned()));
    }
    if word.starts_with('"') {
        let text: Result<String, _> = serde_json::from_str(word);
        return text.map(Value::Text).map_err(|error| format!("{word}: {error}"));
    }
    word.parse().map(Value::Number).map_err(|_| format!("{word:?} is not supported in templates here"))
}

/// Labels as Go prints a map.
fn go_map(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|l| format!("{}:{}", l.name, l.value)).collect();
    format!("map[{}]", pairs.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, value: f64, want: &str) {
        let labels = Labels::new([("job", "a"), ("instance", "h:1")]).unwrap();
        let external = Labels::new([("cluster", "c")]).unwrap();
        let ctx = Context { labels: &labels, external_labels: &external, value };
        assert_eq!(expand(text, ctx), want, "{text}");
    }

    #[test]
    fn templates_expand_as_in_prometheus() {
        check("plain", 1.0, "plain");
        check("{{ $labels.job }} on {{$labels.instance}}: {{ $value }}", 0.25, "a on h:1: 0.25");
        check("{{ $labels.absent }}|{{ $externalLabels.cluster }}", 0.0, "|c");
        check("{{ $value | humanize }}", 1_234_567.0, "1.235M");
        check("{{ humanize $value }}", 0.001_234, "1.234m");
        check("{{ $value | humanize1024 }}B", 2048.0, "2kiB");
        check("{{ $value | humanizePercentage }}", 0.123_456, "12.35%");
        check("{{ $value | humanizeDuration }}", 3661.0, "1h 1m 1s");
        check("{{ $value | humanizeDuration }}", 0.0123, "12.3ms");
        check("{{ $value | printf \"%.2f\" }} {{ printf \"%s=%d\" \"x\" 3 }}", 2.0, "2.00 x=3");
        check("{{ .Value }} {{ .Labels.job | toUpper | title }}", 1e21, "1e+21 A");
        check("a {{- \" b \" -}} c", 0.0, "a b c");
        check("{{ `}}` }}", 0.0, "}}");
        check("{{ $labels }}", 0.0, "map[instance:h:1 job:a]");
    }

    #[test]
    fn what_goes_wrong_is_shown() {
        check(
            "{{ if true }}x{{ end }}",
            0.0,
            "<error expanding template: \"true\" is not supported in templates here>",
        );
        check("{{ $value", 0.0, "<error expanding template: an action {{ is not closed>");
        check("{{ \"x\" | humanize }}", 0.0, "<error expanding template: \"x\" is no number>");
        check("{{ nothing 1 }}", 0.0, "<error expanding template: function \"nothing\" not defined>");
    }
}
