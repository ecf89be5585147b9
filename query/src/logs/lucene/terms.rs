//! Words of a query: as they stand, with wildcards, with edits.

use binnacle_model::log::{Field, LEVELS};
use binnacle_model::log_query::{IpRange, LogQuery, Phrase, Test, Wildcard};
use binnacle_model::meaning::level_of_word;
use binnacle_model::tokens::words;

use super::Failure;
use super::moments::Moment;
use super::parser::{Parser, Target, compiled, joined};
use super::scanner::{Piece, Word};

/// Lucene's default, and the most it allows.
const MAX_EDITS: u8 = 2;

impl Word {
    /// Only a star.
    pub(super) fn is_star(&self) -> bool {
        self.pieces.iter().all(|piece| *piece == Piece::Sign('*')) && self.fuzzy.is_none()
    }

    fn has_signs(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Sign(_)))
    }

    /// The text of a word without wildcards and edits.
    pub(super) fn plain(&self) -> Option<String> {
        (!self.has_signs() && self.fuzzy.is_none()).then(|| self.text())
    }

    fn text(&self) -> String {
        let char_of = |piece: &Piece| match piece {
            Piece::Plain(c) | Piece::Escaped(c) | Piece::Sign(c) => *c,
        };
        self.pieces.iter().map(char_of).collect()
    }

    fn wildcard(&self) -> Wildcard {
        Wildcard::new(self.pieces.iter().map(|piece| match piece {
            Piece::Plain(c) | Piece::Escaped(c) => Ok(*c),
            Piece::Sign(c) => Err(*c),
        }))
    }

    /// Whether nothing in it ends a word of a message.
    fn is_one_word(&self) -> bool {
        self.pieces.iter().all(|piece| match piece {
            Piece::Plain(c) | Piece::Escaped(c) => c.is_alphanumeric() || *c == '_',
            Piece::Sign(_) => true,
        })
    }
}

impl Parser<'_> {
    pub(super) fn word(&mut self, target: &Target, word: &Word) -> Result<LogQuery, Failure> {
        if word.has_boost {
            self.note_boost(word.at);
        }
        if word.has_backslash {
            self.note(word.at, "a backslash before a letter or digit stands for itself");
        }
        if let Some(edits) = &word.fuzzy {
            return self.fuzzy(target, word, edits);
        }
        if word.has_signs() {
            return self.wildcard(target, word);
        }
        let text = word.text();
        if *target == Target::Words {
            self.note_operators(&text, word.at);
        }
        Ok(self.text(target, &text, false, word.at))
    }

    /// Signs that others read as operators, and that are only text here.
    fn note_operators(&mut self, text: &str, at: usize) {
        if text.contains("&&") || text.contains("||") {
            self.note(at, format!("{text:?} is searched as a phrase: operators need spaces around them"));
        }
        let name = text.find(['<', '>']).or_else(|| text.find("!=")).map(|end| &text[..end]);
        if name.is_some_and(|name| name.starts_with(|c: char| c.is_alphabetic() || c == '_')) {
            self.note(
                at,
                format!("{text:?} is searched as a phrase; comparisons are written key:>=5, -key:5"),
            );
        }
        if text.contains('/') && IpRange::parse(text).is_some() {
            self.note(at, format!("{text:?} is searched as a phrase; addresses are found by message:{text}"));
        }
    }

    /// Text without wildcards, of a word or a quote.
    pub(super) fn text(&mut self, target: &Target, text: &str, is_quoted: bool, at: usize) -> LogQuery {
        if let Target::Time(name) = target {
            if let Some(moment) = Moment::parse_any(text, self.now) {
                return Self::at_time(moment);
            }
            self.note(at, format!("{text:?} is no time; searched in a field {name:?}"));
        }
        let field = target.field();
        if field == Field::Stream("level") {
            let level = level_of_word(text);
            if !level.is_empty() && !LEVELS.contains(&text.to_lowercase().as_str()) {
                self.note(at, format!("the level {text:?} is searched as {level:?}"));
                return self.phrase(field, Phrase::new(level), at);
            }
        }
        let may_be_range = *target != Target::Words && !is_quoted && text.contains(['/', '-']);
        if may_be_range && let Some(range) = IpRange::parse(text) {
            return LogQuery::Value { field, test: Test::Ip(range) };
        }
        self.phrase(field, Phrase::new(text), at)
    }

    /// A word that is a few edits away. Of text with several words, each.
    fn fuzzy(&mut self, target: &Target, word: &Word, edits: &str) -> Result<LogQuery, Failure> {
        if word.has_signs() {
            return Err(Failure::syntax(word.at, "a wildcard and a ~ cannot be in one word"));
        }
        let (text, field) = (word.text(), target.field());
        let distance = self.distance(&text, edits, word.at);
        if distance == 0 {
            return Ok(self.text(target, &text, false, word.at));
        }
        let fuzzy =
            |word: String| LogQuery::Value { field: field.clone(), test: Test::Fuzzy { word, distance } };
        if matches!(field, Field::Stream(_)) {
            return Ok(fuzzy(text.to_lowercase()));
        }
        let parts: Vec<LogQuery> = words(&text).map(|word| fuzzy(word.text)).collect();
        self.count(parts.len())?;
        if parts.len() > 1 {
            self.note(word.at, format!("{text:?} is several words, each of which may differ"));
        }
        if parts.is_empty() {
            return Ok(self.phrase(field, Phrase::new(&text), word.at));
        }
        Ok(joined(parts, LogQuery::And))
    }

    fn distance(&mut self, text: &str, edits: &str, at: usize) -> u8 {
        if edits.is_empty() {
            return MAX_EDITS;
        }
        let Ok(number) = edits.parse::<f64>() else {
            self.note(at, format!("~{edits} is no number of edits; {MAX_EDITS} are allowed"));
            return MAX_EDITS;
        };
        if number > 0.0 && number < 1.0 {
            // As Lucene reads what once was a similarity.
            let distance = ((1.0 - number) * text.chars().count() as f64).min(f64::from(MAX_EDITS)) as u8;
            self.note(at, format!("the similarity ~{edits} is taken as {distance} edits"));
            return distance;
        }
        if number > f64::from(MAX_EDITS) || number.fract() != 0.0 {
            self.note(at, format!("{MAX_EDITS} edits are the most; ~{edits} is taken as that"));
            return MAX_EDITS;
        }
        number as u8
    }

    fn wildcard(&mut self, target: &Target, word: &Word) -> Result<LogQuery, Failure> {
        if word.pieces.last() == Some(&Piece::Sign('?')) && *target == Target::Words {
            self.note(word.at, "a ? stands for one character");
        }
        let field = target.field();
        if field != Field::Message || word.is_one_word() {
            return Ok(LogQuery::Value { field, test: Test::Wildcard(word.wildcard()) });
        }
        // A pattern with signs in it spans words. A star at the end alone can still be decided by them.
        let (last, before) = word.pieces.split_last().expect("a word has a piece");
        let is_prefix =
            *last == Piece::Sign('*') && !before.iter().any(|piece| matches!(piece, Piece::Sign(_)));
        let is_word_char = |piece: &Piece| matches!(piece, Piece::Plain(c) | Piece::Escaped(c) if c.is_alphanumeric() || *c == '_');
        if is_prefix && before.iter().any(is_word_char) {
            let mut text = word.text();
            text.pop();
            let phrase = Phrase::new(&text);
            // Behind a sign the star stands for whatever comes.
            let goes_on = before.last().is_some_and(is_word_char);
            return Ok(self.phrase(field, if goes_on { phrase.with_prefix() } else { phrase }, word.at));
        }
        if !before.iter().chain([last]).any(is_word_char) {
            return Ok(self.phrase(field, Phrase::new(&word.text()), word.at));
        }
        self.note(word.at, "a pattern with signs in it is searched as a regular expression, which is slow");
        let pattern = pattern_of(&word.pieces, is_word_char);
        Ok(LogQuery::Value { field, test: Test::Regex(compiled(&pattern, word.at)?) })
    }
}

/// A regular expression that finds what a wildcard stands for, without regard to case. A star stands for no space.
fn pattern_of(pieces: &[Piece], is_word_char: impl Fn(&Piece) -> bool) -> String {
    let mut pattern = String::from("(?i)");
    if pieces.first().is_some_and(&is_word_char) {
        pattern.push_str(r"\b");
    }
    for piece in pieces {
        match piece {
            Piece::Sign('*') => pattern.push_str(r"\S*"),
            Piece::Sign(_) => pattern.push_str(r"\S"),
            Piece::Plain(c) | Piece::Escaped(c) => {
                pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
            }
        }
    }
    if pieces.last().is_some_and(&is_word_char) {
        pattern.push_str(r"\b");
    }
    pattern
}
