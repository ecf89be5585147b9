//! An entry as a line of text.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

/// How entries are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EntryFormat {
    /// Time, level, source and message.
    Table,
    /// The line as it was written.
    Raw,
    /// All that is known of it, an object in a line.
    Json,
    /// `time=… level=… msg=…`, with all fields.
    Logfmt,
}

/// Prints entries.
pub(super) struct Printer {
    pub(super) format: EntryFormat,
    pub(super) has_colour: bool,
    /// A person looks: nothing may move the cursor or change the title.
    pub(super) is_terminal: bool,
}

impl Printer {
    /// Colours are for people who want them.
    pub(super) fn new(format: EntryFormat, is_terminal: bool, no_colour: bool) -> Self {
        let is_unwanted = no_colour || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, has_colour: is_terminal && !is_unwanted, is_terminal }
    }

    /// Writes a line.
    pub(super) fn print(&self, out: &mut impl Write, entry: &Value) -> anyhow::Result<()> {
        self.print_marked(out, entry, "")
    }

    /// Writes a line with a mark before it, where the format has a place for marks.
    pub(super) fn print_marked(&self, out: &mut impl Write, entry: &Value, mark: &str) -> anyhow::Result<()> {
        let message = entry["message"].as_str().unwrap_or_default();
        match self.format {
            EntryFormat::Json => writeln!(out, "{entry}")?,
            EntryFormat::Raw => writeln!(out, "{mark}{}", self.shown(message))?,
            EntryFormat::Logfmt => writeln!(out, "{mark}{}", self.shown(&logfmt(entry)))?,
            EntryFormat::Table => {
                let time = entry["time"].as_str().unwrap_or_default();
                let time = time.get(..23).unwrap_or(time);
                let level = entry["level"].as_str().unwrap_or_default();
                let stream = &entry["stream"];
                let source = stream["pod"].as_str().or_else(|| stream["service"].as_str()).unwrap_or("-");
                let (on, off) = if self.has_colour { (colour_of(level), "\x1b[0m") } else { ("", "") };
                let (source, message) = (self.shown(source), self.shown(message));
                writeln!(out, "{mark}{time} {on}{level:<5}{off} {source}: {message}")?;
            }
        }
        Ok(())
    }

    fn shown(&self, text: &str) -> String {
        if !self.is_terminal {
            return text.to_owned();
        }
        text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
    }
}

fn colour_of(level: &str) -> &'static str {
    match level {
        "fatal" | "error" => "\x1b[31m",
        "warn" => "\x1b[33m",
        "info" => "\x1b[32m",
        _ => "\x1b[2m",
    }
}

/// Time, level, stream, message, then the fields of the message.
fn logfmt(entry: &Value) -> String {
    let mut out = String::new();
    let mut push = |name: &str, value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if text.is_empty() {
            return;
        }
        let is_plain =
            !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '='));
        let text = if is_plain { text } else { Value::from(text).to_string() };
        let separator = if out.is_empty() { "" } else { " " };
        out.push_str(&format!("{separator}{name}={text}"));
    };
    push("time", &entry["time"]);
    push("level", &entry["level"]);
    for (name, value) in entry["stream"].as_object().into_iter().flatten() {
        push(name, value);
    }
    push("msg", &entry["message"]);
    for (name, value) in entry["fields"].as_object().into_iter().flatten() {
        push(name, value);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(format: EntryFormat, is_terminal: bool, entry: &Value) -> String {
        let mut out = Vec::new();
        let printer = Printer { format, has_colour: is_terminal, is_terminal };
        printer.print_marked(&mut out, entry, "> ").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn entries_are_lines_in_each_format() {
        let entry = json!({
            "time": "2026-11-20T10:11:12.123456789Z", "level": "error", "message": "it \"broke\"\x1b[2J",
            "stream": {"pod": "web-1", "namespace": "shop"}, "fields": {"took": 5, "path": "/a b"},
        });
        let check = |format, is_terminal, want: &str| assert_eq!(printed(format, is_terminal, &entry), want);
        check(EntryFormat::Raw, false, "> it \"broke\"\x1b[2J\n");
        check(EntryFormat::Raw, true, "> it \"broke\"\u{fffd}[2J\n");
        check(
            EntryFormat::Table,
            true,
            "> 2026-11-20T10:11:12.123 \x1b[31merror\x1b[0m web-1: it \"broke\"\u{fffd}[2J\n",
        );
        check(
            EntryFormat::Logfmt,
            false,
            "> time=2026-11-20T10:11:12.123456789Z level=error pod=web-1 namespace=shop \
             msg=\"it \\\"broke\\\"\\u001b[2J\" took=5 path=\"/a b\"\n",
        );
        assert_eq!(printed(EntryFormat::Json, false, &entry), format!("{entry}\n"));
    }
}
