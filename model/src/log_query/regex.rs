//! A regular expression over bytes that need not be UTF-8.

use std::fmt;

use crate::regexes::unanchored;

/// Compiled size of one expression.
const MAX_BYTES: usize = 1024 * 1024;

/// An expression that may be found anywhere in a text, in RE2's syntax.
#[derive(Clone)]
pub struct LogRegex {
    pattern: String,
    regex: regex::bytes::Regex,
}

impl LogRegex {
    /// Compiles the pattern.
    ///
    /// # Errors
    /// What is wrong with it, or that it needs more than a megabyte.
    pub fn new(pattern: &str) -> Result<Self, String> {
        Ok(Self { pattern: pattern.to_owned(), regex: unanchored(pattern, MAX_BYTES)? })
    }

    /// As written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The pattern in the syntax of the regex crates.
    pub fn translated(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether it is found in `text`.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for LogRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl fmt::Debug for LogRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.pattern)
    }
}
