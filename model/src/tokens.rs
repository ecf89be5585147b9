//! Words: how a log message is cut, in the index and in a query alike.
//!
//! A word is a run of letters, digits and underscores, in lower case. What stands between words does
//! not count, so `10.0.0.1:8080` is the phrase `10 0 0 1 8080`.

use std::ops::Range;

/// Longest word in bytes; a longer run is cut into words of this size.
pub const MAX_WORD_BYTES: usize = 256;

/// One word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// In lower case.
    pub text: String,
    /// Where it stood, in bytes.
    pub span: Range<usize>,
}

/// The words of `text` in order.
pub fn words(text: &str) -> Words<'_> {
    Words { text, at: 0 }
}

/// Iterator of [`words`].
#[derive(Debug, Clone)]
pub struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl Words<'_> {
    /// Where the next word stands, without building it. `None` at the end of the text.
    pub fn next_span(&mut self) -> Option<Range<usize>> {
        let bytes = self.text.as_bytes();
        let mut start = self.at;
        loop {
            match bytes.get(start) {
                None => {
                    self.at = start;
                    return None;
                }
                Some(b) if b.is_ascii() => {
                    if is_ascii_word(*b) {
                        break;
                    }
                    start += colour_code(&bytes[start..]).max(1);
                }
                Some(_) => {
                    let c = self.text[start..].chars().next()?;
                    if c.is_alphanumeric() {
                        break;
                    }
                    start += c.len_utf8();
                }
            }
        }
        let end = self.word_end(start);
        self.at = end;
        Some(start..end)
    }

    fn word_end(&self, start: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut end = start;
        while let Some(b) = bytes.get(end) {
            let width = if b.is_ascii() {
                if !is_ascii_word(*b) {
                    break;
                }
                1
            } else {
                let Some(c) = self.text[end..].chars().next() else { break };
                if !c.is_alphanumeric() {
                    break;
                }
                c.len_utf8()
            };
            if end + width - start > MAX_WORD_BYTES {
                break;
            }
            end += width;
        }
        end
    }
}

/// Length of the terminal's colour code (`ESC [ 31 ; 1 m`) that the bytes begin with, or zero.
///
/// Its letters are no part of the word behind it.
pub fn colour_code(bytes: &[u8]) -> usize {
    let Some(rest) = bytes.strip_prefix(b"\x1b[") else { return 0 };
    let digits = rest.iter().take(COLOUR_CODE_MAX).take_while(|b| b.is_ascii_digit() || **b == b';').count();
    if rest.get(digits) == Some(&b'm') { digits + 3 } else { 0 }
}

/// Longest list of numbers in a colour code.
const COLOUR_CODE_MAX: usize = 32;

fn is_ascii_word(b: u8) -> bool {
    b == b'_' || b.is_ascii_alphanumeric()
}

impl Iterator for Words<'_> {
    type Item = Word;
    fn next(&mut self) -> Option<Word> {
        let span = self.next_span()?;
        Some(Word { text: self.text[span.clone()].to_lowercase(), span })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[&str]) {
        let found: Vec<String> = words(text).map(|word| word.text).collect();
        assert_eq!(found, want, "{text:?}");
    }

    #[test]
    fn words_are_runs_of_letters_digits_and_underscores() {
        check("GET /cart/8813 took 12ms", &["get", "cart", "8813", "took", "12ms"]);
        check("10.0.0.1:8080", &["10", "0", "0", "1", "8080"]);
        check("Größe_1 — naïve", &["größe_1", "naïve"]);
        check("  \u{2028}!!", &[]);
        check("", &[]);
        check("\x1b[31;1mERROR\x1b[0m done \x1b[2Kx \x1b[31", &["error", "done", "2kx", "31"]);
    }

    #[test]
    fn long_runs_are_cut() {
        let sizes: Vec<usize> = words(&"x".repeat(600)).map(|word| word.text.len()).collect();
        assert_eq!(sizes, [256, 256, 88]);
        assert!(words(&"é".repeat(300)).all(|word| word.span.len() <= MAX_WORD_BYTES));
    }
}
