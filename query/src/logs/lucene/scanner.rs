//! The text, read from left to right: words, quotes, regular expressions, names before colons.

use super::Failure;

/// A place in the text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

/// A character of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Plain(char),
    /// A backslash stood before it.
    Escaped(char),
    /// `*` or `?`.
    Sign(char),
}

/// Text without spaces, with what hangs at its end.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) at: usize,
    pub(super) pieces: Vec<Piece>,
    /// What stands behind a `~`, if there is one.
    pub(super) fuzzy: Option<String>,
    /// A `^2` was left out.
    pub(super) has_boost: bool,
    /// A backslash stands for itself.
    pub(super) has_backslash: bool,
}

/// What stands before a colon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A field; the value follows.
    Field(String),
    /// `*:*`, which is everything.
    Everything,
    /// No field. The colon is part of the text, for this reason.
    Text(String),
    /// There is no value behind the colon, which stands here.
    Bare(usize),
}

/// Where words end besides at spaces.
const BRACKETS: [char; 7] = ['(', ')', '"', '[', ']', '{', '}'];

impl<'a> Scanner<'a> {
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn is_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    pub(super) fn next_is(&self, signs: &[char]) -> bool {
        self.rest().starts_with(signs)
    }

    pub(super) fn takes(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// Whether `AND`, `OR` or `NOT` stands there as a word of its own.
    pub(super) fn sees_word(&self, word: &str) -> bool {
        let after = self.rest().strip_prefix(word);
        after.is_some_and(|after| {
            after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || c == '(')
        })
    }

    pub(super) fn takes_word(&mut self, word: &str) -> bool {
        let found = self.sees_word(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Takes `TO`, in any case.
    pub(super) fn takes_to(&mut self) -> bool {
        let rest = self.rest();
        let found = rest.get(..2).is_some_and(|word| word.eq_ignore_ascii_case("to"))
            && rest[2..].starts_with(char::is_whitespace);
        if found {
            self.at += 2;
        }
        found
    }

    /// Takes `IN [`, in any case, with spaces or without.
    pub(super) fn takes_set(&mut self) -> bool {
        let rest = self.rest().trim_start();
        let Some((word, after)) = rest.split_at_checked(2) else { return false };
        let after = after.trim_start();
        let found = word.eq_ignore_ascii_case("in") && after.starts_with('[');
        if found {
            self.at = self.text.len() - after.len() + 1;
        }
        found
    }

    /// What stands before a colon, if the word has one. Takes the name and the colon of a field, and nothing else.
    pub(super) fn named(&mut self) -> Option<Named> {
        // A colon within a regular expression is part of it.
        if self.clone().regex().is_some() {
            return None;
        }
        let mut name = String::new();
        let mut is_name = true;
        let mut chars = self.rest().char_indices().peekable();
        let colon = loop {
            match chars.next()? {
                (at, ':') => break at,
                (_, c) if c.is_whitespace() || BRACKETS.contains(&c) => return None,
                (_, '\\') if chars.peek().is_some_and(|(_, c)| is_escapable(*c)) => {
                    name.extend(chars.next().map(|(_, c)| c));
                }
                (_, c) => {
                    let is_first = name.is_empty();
                    is_name &=
                        is_name_char(c) && !(is_first && !(c.is_alphabetic() || matches!(c, '_' | '@')));
                    name.push(c);
                }
            }
        };
        let value = &self.rest()[colon + 1..];
        if name == "*" && value.starts_with('*') {
            self.at += colon + 2;
            return Some(Named::Everything);
        }
        let is_set = self.clone_at(self.at + colon + 1).takes_set();
        let is_bare = value.is_empty()
            || value.starts_with(|c: char| c.is_whitespace() || matches!(c, ')' | ']' | '}'));
        if is_bare && !is_set {
            return Some(Named::Bare(self.at + colon));
        }
        // `C:\Windows`; before a sign the backslash escapes it.
        let is_drive = value.strip_prefix('\\').is_some_and(|path| !path.starts_with(is_escapable));
        let mut letters = name.chars();
        let is_letter = letters.next().is_some_and(|c| c.is_ascii_uppercase()) && letters.next().is_none();
        let reason = if name.is_empty() {
            "nothing stands before its colon".to_owned()
        } else if value.starts_with("//") {
            "it is a URL".to_owned()
        } else if value.starts_with(':') {
            "two colons name no field".to_owned()
        } else if is_drive && name.chars().count() == 1 || is_letter && value.starts_with('/') {
            "it is a path".to_owned()
        } else if !is_name {
            format!("{name:?} cannot be the name of a field")
        } else {
            self.at += colon + 1;
            return Some(Named::Field(name));
        };
        Some(Named::Text(reason))
    }

    fn clone_at(&self, at: usize) -> Self {
        Self { text: self.text, at }
    }

    /// Everything up to the next space, but for parentheses that were opened before it.
    pub(super) fn raw_word(&mut self) -> &'a str {
        let rest = self.rest();
        let mut end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let count = |sign: char| rest[..end].matches(sign).count();
        let mut closing = count(')').saturating_sub(count('('));
        while closing > 0 && rest[..end].ends_with(')') {
            (end, closing) = (end - 1, closing - 1);
        }
        self.at += end;
        &rest[..end]
    }

    /// The text within quotes. Only quotes and backslashes are escaped in it.
    pub(super) fn quoted(&mut self) -> Result<String, Failure> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' if chars.peek().is_some_and(|(_, c)| matches!(c, '"' | '\\')) => {
                    text.extend(chars.next().map(|(_, c)| c));
                }
                c => text.push(c),
            }
        }
        Err(Failure::syntax(start, "a quote is not closed"))
    }

    /// Digits behind a `~`, and a boost behind a `^`, of something quoted or in parentheses.
    pub(super) fn suffix(&mut self, sign: char) -> Option<&'a str> {
        let behind = self.rest().strip_prefix(sign)?;
        let length = behind.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        if length == 0 && sign == '^' {
            return None;
        }
        self.at += 1 + length;
        Some(&behind[..length])
    }

    /// The pattern between two slashes, if that is what stands there. A path is none: text goes on behind its second
    /// slash.
    pub(super) fn regex(&mut self) -> Option<String> {
        let rest = self.rest().strip_prefix('/')?;
        let mut pattern = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '/') => break at,
                (_, '\\') => match chars.next()? {
                    (_, '/') => pattern.push('/'),
                    (_, c) => pattern.extend(['\\', c]),
                },
                (_, c) => pattern.push(c),
            }
        };
        let after = &rest[end + 1..];
        let ends =
            after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || matches!(c, ')' | '^'));
        if !ends || pattern.is_empty() || pattern.starts_with(char::is_whitespace) {
            return None;
        }
        self.at += end + 2;
        Some(pattern)
    }

    /// A word with its signs and escapes. `ends` also end it.
    pub(super) fn word(&mut self, ends: &[char]) -> Result<Word, Failure> {
        let at = self.at;
        let mut pieces = Vec::new();
        let mut has_backslash = false;
        let mut chars = self.rest().char_indices().peekable();
        let mut end = self.rest().len();
        while let Some((place, c)) = chars.next() {
            if c.is_whitespace() || BRACKETS.contains(&c) || ends.contains(&c) {
                end = place;
                break;
            }
            match c {
                '\\' => {
                    let escaped = chars.next_if(|(_, c)| is_escapable(*c));
                    has_backslash |= escaped.is_none();
                    pieces.push(escaped.map_or(Piece::Plain(c), |(_, c)| Piece::Escaped(c)));
                }
                '*' | '?' => pieces.push(Piece::Sign(c)),
                c => pieces.push(Piece::Plain(c)),
            }
        }
        self.at += end;
        if pieces.is_empty() {
            return Err(Failure::syntax(at, "a word was expected"));
        }
        // `a"b"` or `f(x)`: pasted code, not a query.
        let is_cut = self.next_is(&BRACKETS) && !self.next_is(&[')']) && !self.next_is(ends);
        if is_cut {
            return Err(Failure::syntax(self.at, "a bracket or quote within a word"));
        }
        let has_boost = cut(&mut pieces, '^').is_some();
        let fuzzy = cut(&mut pieces, '~');
        Ok(Word { at, pieces, fuzzy, has_boost, has_backslash })
    }

    /// One end of a range: its text, and whether it was quoted.
    pub(super) fn edge(&mut self) -> Result<(String, bool), Failure> {
        if self.next_is(&['"']) {
            return Ok((self.quoted()?, true));
        }
        let at = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().peekable();
        let mut end = self.rest().len();
        while let Some((place, c)) = chars.next() {
            match c {
                c if c.is_whitespace() || matches!(c, ']' | '}' | ')') => {
                    end = place;
                    break;
                }
                '\\' if chars.peek().is_some_and(|(_, c)| is_escapable(*c)) => {
                    text.extend(chars.next().map(|(_, c)| c));
                }
                c => text.push(c),
            }
        }
        self.at += end;
        if text.is_empty() { Err(Failure::syntax(at, "a value is missing")) } else { Ok((text, false)) }
    }
}

/// Takes a `~` or `^` and the number behind it from the end of a word; a `~` needs none.
fn cut(pieces: &mut Vec<Piece>, sign: char) -> Option<String> {
    let at = pieces.iter().rposition(|piece| *piece == Piece::Plain(sign)).filter(|at| *at > 0)?;
    let mut number = String::new();
    for piece in &pieces[at + 1..] {
        match piece {
            Piece::Plain(c) if c.is_ascii_digit() || *c == '.' => number.push(*c),
            _ => return None,
        }
    }
    if number.is_empty() && sign == '^' {
        return None;
    }
    pieces.truncate(at);
    Some(number)
}

/// Signs lose their meaning behind a backslash; before a letter it stands for itself, as in `C:\Windows`.
pub(super) fn is_escapable(c: char) -> bool {
    c.is_whitespace() || c.is_ascii_punctuation() && c != '_'
}

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '/' | '$')
}
