//! Which lines belong together: stack traces, without configuration, or whatever begins with a pattern.
//!
//! A line that may begin a trace is held until the next line of its stream says whether it does. All others pass at
//! once; that they do is decided by one search for a few words.

mod rules;

use std::sync::{Arc, LazyLock};

use aho_corasick::packed;
use regex::bytes::Regex;

use rules::{STARTS, State, Table};

/// How lines of a stream are joined.
#[derive(Debug, Clone, Default)]
pub enum Multiline {
    /// Each line is a record.
    Off,
    /// Traces of Java, Go, Python, Node, Ruby, .NET, Rust, PHP and Dart are records.
    #[default]
    Traces,
    /// A record begins with a line that fits; those that do not fit belong to it.
    Start(Arc<Regex>),
}

/// What a line is that continues nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A record of its own.
    Alone,
    /// The first line of several, perhaps.
    Begins(Trace),
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trace(State);

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// Words one of which is in each line that begins a trace.
static WORDS: LazyLock<Option<packed::Searcher>> = LazyLock::new(|| packed::Searcher::new(STARTS));

impl Multiline {
    /// A pattern for the first line of a record.
    ///
    /// # Errors
    /// What is wrong with the pattern, or that it is too large.
    pub fn start(pattern: &str) -> Result<Self, String> {
        let built = regex::bytes::RegexBuilder::new(pattern).size_limit(1 << 20).build();
        built.map(|regex| Self::Start(Arc::new(regex))).map_err(|error| error.to_string())
    }

    pub(super) fn begins(&self, line: &[u8]) -> Step {
        let state = match self {
            Self::Off => None,
            Self::Traces => {
                let may_begin = WORDS.as_ref().is_none_or(|words| words.find(line).is_some());
                may_begin.then(|| TABLE.next(State::Start, line)).flatten()
            }
            Self::Start(_) => Some(State::Start),
        };
        state.map_or(Step::Alone, |state| Step::Begins(Trace(state)))
    }

    /// What may come behind `line`, or `None` if the line does not belong to what came before it.
    pub(super) fn goes_on(&self, trace: Trace, line: &[u8]) -> Option<Trace> {
        match self {
            Self::Off => None,
            Self::Traces => TABLE.next(trace.0, line).map(Trace),
            Self::Start(start) => (!start.is_match(line)).then_some(trace),
        }
    }
}

#[cfg(test)]
mod tests;
