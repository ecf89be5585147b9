//! What a pipeline does to a line: filters keep it or not, parsers add labels, formats change it.
//!
//! A line that a parser cannot read is kept, and says so in its label `__error__`.

mod filter;
mod json;
mod logfmt;
mod pattern;

use binnacle_model::regexes::unanchored;
use binnacle_model::tokens::colour_code;

use super::ast::{NamedMatcher, NewLabel, Stage};
use super::row::{ERROR, ERROR_DETAILS, Row};
use super::template::Template;
pub(super) use json::JsonPaths;
pub(super) use logfmt::Logfmt;
pub(super) use pattern::{LinePattern, PatternParser};

/// Compiled size of one regular expression.
const REGEX_MAX_BYTES: usize = 1024 * 1024;

/// A line's parser of a regular expression with names.
#[derive(Debug, Clone)]
pub(super) struct RegexpParser {
    pub(super) pattern: String,
    regex: regex::bytes::Regex,
}

impl RegexpParser {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let regex = unanchored(pattern, REGEX_MAX_BYTES);
        let regex = regex.map_err(|reason| format!("error parsing regexp: {reason}"))?;
        if regex.capture_names().flatten().next().is_none() {
            return Err("at least one named capture must be supplied".to_owned());
        }
        Ok(Self { pattern: pattern.to_owned(), regex })
    }

    fn apply(&self, row: &mut Row<'_>) {
        let Some(found) = self.regex.captures(row.line()) else { return };
        let groups = self.regex.capture_names().flatten().filter_map(|name| {
            let value = found.name(name)?.as_bytes();
            Some((name, String::from_utf8_lossy(value).into_owned()))
        });
        for (name, value) in groups.collect::<Vec<_>>() {
            row.extract(name, &value);
        }
    }
}

/// A template that makes the line.
#[derive(Debug, Clone)]
pub(super) struct LineFormat(pub(super) Template);

impl LineFormat {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        Template::new(text).map(Self)
    }

    fn apply(&self, row: &mut Row<'_>) {
        match self.0.run(row) {
            Ok(line) => row.set_line(line.into_bytes()),
            Err(reason) => row.fail("TemplateFormatErr", reason),
        }
    }
}

impl Stage {
    /// Does its work; whether the line is kept.
    pub(super) fn apply(&self, row: &mut Row<'_>) -> bool {
        match self {
            Self::Line(filter) => return filter.keeps(row.line()),
            Self::Filter(filter) => return filter.keeps(row),
            Self::Json(paths) => paths.apply(row),
            Self::Logfmt(logfmt) => logfmt.apply(row),
            Self::Pattern(pattern) => pattern.apply(row),
            Self::Regexp(regexp) => regexp.apply(row),
            Self::Unpack => json::unpack(row),
            Self::LineFormat(format) => format.apply(row),
            Self::LabelFormat(labels) => format_labels(labels, row),
            Self::Decolorize => {
                if let Some(plain) = without_colour(row.line()) {
                    row.set_line(plain);
                }
            }
            Self::Drop(labels) => drop_labels(labels, row),
            Self::Keep(labels) => keep_labels(labels, row),
        }
        true
    }

    /// Whether the line may be another one behind it.
    pub(super) fn changes_line(&self) -> bool {
        matches!(self, Self::LineFormat(_) | Self::Unpack | Self::Decolorize)
    }

    /// Whether it neither changes nor reads labels.
    pub(super) fn leaves_labels(&self) -> bool {
        matches!(self, Self::Line(_) | Self::Decolorize | Self::Filter(_))
    }

    /// Whether it only adds labels with values that stand in the line, where they may be escaped.
    pub(super) fn only_parses(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Logfmt(_) | Self::Pattern(_) | Self::Regexp(_))
    }
}

/// Sends an entry through all stages; `None` if one of them does not keep it.
pub(super) fn run<'e>(stages: &[Stage], entry: &'e binnacle_model::log::LogEntry) -> Option<Row<'e>> {
    let mut row = Row::new(entry);
    stages.iter().all(|stage| stage.apply(&mut row)).then_some(row)
}

fn format_labels(labels: &[(String, NewLabel)], row: &mut Row<'_>) {
    for (name, label) in labels {
        match label {
            NewLabel::Rename(from) => {
                let value = row.get(from).into_owned();
                if !value.is_empty() {
                    row.set(name, value);
                    row.remove(from);
                }
            }
            NewLabel::Template(template) => match template.run(row) {
                Ok(value) => row.set(name, value),
                Err(reason) => row.fail("TemplateFormatErr", reason),
            },
        }
    }
}

fn fits(label: &NamedMatcher, row: &Row<'_>) -> bool {
    label.matcher.as_ref().is_none_or(|matcher| matcher.matches(&row.get(&label.name)))
}

fn drop_labels(labels: &[NamedMatcher], row: &mut Row<'_>) {
    for label in labels {
        if fits(label, row) {
            row.remove(&label.name);
        }
    }
}

fn keep_labels(labels: &[NamedMatcher], row: &mut Row<'_>) {
    for name in row.names() {
        // What went wrong is kept in any case, as in Loki.
        let is_error = name == ERROR || name == ERROR_DETAILS;
        if !is_error && !labels.iter().any(|label| label.name == name && fits(label, row)) {
            row.remove(&name);
        }
    }
}

/// The line without a terminal's colour codes, if it has any.
fn without_colour(line: &[u8]) -> Option<Vec<u8>> {
    line.iter().position(|byte| *byte == 0x1b)?;
    let mut plain = Vec::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        let code = if line[at] == 0x1b { colour_code(&line[at..]) } else { 0 };
        if code == 0 {
            plain.push(line[at]);
        }
        at += code.max(1);
    }
    Some(plain)
}
