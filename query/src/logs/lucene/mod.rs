//! Lucene's query syntax, from text to a [`LogQuery`].
//!
//! ```text
//! or      := and (("OR" | "||") and)*
//! and     := not (("AND" | "&&")? not)*         words side by side must all be there
//! not     := ("NOT" | "-" | "!")* "+"? primary
//! primary := "(" or ")" | field ":" value | value
//! value   := "(" or ")"                         the field holds for all within the parentheses
//!          | ("[" | "{") edge "TO" edge ("]" | "}") | (">" | ">=" | "<" | "<=") edge
//!          | "IN" "[" (quoted | word)* "]"
//!          | "/" regex "/" | quoted ("*" | "~" slop)? | word ("~" edits?)? | "*"
//! ```
//!
//! ```text
//! scanner ─► parser ─┬─► terms    words, wildcards, fuzzy words
//!                    └─► ranges   numbers, moments, addresses, text
//!                          └─► moments
//! ```
//!
//! Text that is no query, such as a line of a log, becomes a phrase. Whatever is read otherwise than it stands there has a
//! [`Note`], so that a meaning never changes in silence. [`print`] writes a query in a form that reads as the same query.

mod moments;
mod parser;
mod print;
mod ranges;
mod scanner;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt;

use binnacle_model::LogTime;
use binnacle_model::log_query::LogQuery;

pub use print::print;

use parser::Parser;

/// Longest query in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// Parentheses and negations within one another.
const MAX_DEPTH: usize = 64;
/// Conditions in one query.
const MAX_CLAUSES: usize = 1024;
/// Longest regular expression in bytes.
const MAX_REGEX_BYTES: usize = 256;
/// Notes of one query; a pasted page of text would have hundreds.
const MAX_NOTES: usize = 8;

/// A query as it was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedQuery {
    /// What to look for.
    pub query: LogQuery,
    /// What the writer should know of it.
    pub notes: Vec<Note>,
}

impl ParsedQuery {
    /// All notes in one sentence.
    pub fn hint(&self) -> Option<String> {
        let notes: Vec<String> = self.notes.iter().map(ToString::to_string).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

/// Something that was read otherwise than the writer may think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Of the text, in characters, from 1.
    pub column: usize,
    /// What, and why.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at column {}", self.text, self.column)
    }
}

/// A query that is refused, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log query {0}")]
pub struct QueryTooLarge(String);

/// Why text is no query, and where.
#[derive(Debug)]
enum Failure {
    Syntax { at: usize, reason: String },
    TooLarge(String),
}

impl Failure {
    fn syntax(at: usize, reason: impl Into<String>) -> Self {
        Self::Syntax { at, reason: reason.into() }
    }
}

/// Reads a query in which `now` is the present. Text without meaning as a query becomes a phrase, with a note.
///
/// # Errors
/// It is too long, too deep, or has too many conditions. Shorten it.
pub fn parse(text: &str, now: LogTime) -> Result<ParsedQuery, QueryTooLarge> {
    if text.len() > MAX_BYTES {
        return Err(QueryTooLarge(format!("is longer than {MAX_BYTES} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(ParsedQuery { query: LogQuery::All, notes: Vec::new() });
    }
    let mut parser = Parser::new(text, now);
    match parser.whole() {
        Ok(query) => Ok(ParsedQuery { query, notes: parser.notes() }),
        Err(Failure::TooLarge(reason)) => Err(QueryTooLarge(reason)),
        Err(Failure::Syntax { at, reason }) => {
            let text_of_note = format!("searched for the whole text as a phrase: {reason}");
            let notes = vec![Note { column: column(text, at), text: text_of_note }];
            Ok(ParsedQuery { query: LogQuery::phrase(text.trim()), notes })
        }
    }
}

/// A moment as it may stand in a query, or in Unix time; of a day and the like its beginning, or its end.
pub fn moment(text: &str, now: LogTime, is_end: bool) -> Option<LogTime> {
    let moment = moments::Moment::parse_any(text, now)?;
    Some(moment.end.filter(|_| is_end).unwrap_or(moment.start))
}

fn column(text: &str, at: usize) -> usize {
    text[..at].chars().count() + 1
}
