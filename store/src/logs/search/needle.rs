//! Whether bytes can stand in the messages of a template: surely, surely not, or depending on its variables.

use crate::logs::split::is_token_byte;
use crate::logs::template::Template;

/// An answer about all messages of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    No,
    /// It depends on the variables: rows have to be looked at.
    Look,
}

impl Verdict {
    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Look => Self::Look,
        }
    }
}

/// Longer needles are always looked for in the rows of a template that has a hole.
const NEEDLE_MAX_BYTES: usize = 120;

/// Bytes that stand in timestamps besides those of tokens. Names of months have strokes around them.
fn is_time_byte(byte: u8, has_stroke: bool) -> bool {
    byte.is_ascii_digit()
        || matches!(byte, b':' | b'.' | b',' | b' ' | b'+' | b'-' | b'/' | b'T' | b'Z')
        || (has_stroke && byte.is_ascii_alphabetic())
}

/// Longest timestamp.
const TIME_MAX_BYTES: usize = 40;

/// The tokens of a needle that have something of it on both sides: where they begin and end.
pub(in crate::logs) fn inner_tokens(needle: &[u8]) -> Vec<(usize, usize)> {
    let mut tokens = Vec::new();
    let mut start = None;
    for (at, byte) in needle.iter().enumerate() {
        match (is_token_byte(*byte), start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                tokens.push((begin, at));
                start = None;
            }
            _ => {}
        }
    }
    tokens.retain(|(start, _)| *start > 0);
    tokens
}

/// Bytes that are looked for in many templates.
#[derive(Debug)]
pub(super) struct Needle {
    bytes: Vec<u8>,
    finder: memchr::memmem::Finder<'static>,
    /// See [`stays_within`].
    stays_within: bool,
    /// For each byte, where in the needle it stands.
    places: Vec<u128>,
    /// What [`through_holes`] says for the bits that were asked for last.
    through_holes: Option<(u64, Vec<u128>)>,
}

impl Needle {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut places = Vec::new();
        if bytes.len() <= NEEDLE_MAX_BYTES {
            places.resize(256, 0);
            bytes.iter().enumerate().for_each(|(at, byte)| places[usize::from(*byte)] |= 1 << at);
        }
        Self {
            bytes: bytes.to_vec(),
            finder: memchr::memmem::Finder::new(bytes).into_owned(),
            stays_within: stays_within(bytes),
            places,
            through_holes: None,
        }
    }

    /// Whether it stands in messages of the template. The lowest bit says whether a variable may have it in it, each other
    /// one whether one may be the next of its [`inner_tokens`].
    pub(super) fn judge(&mut self, template: &Template, bits: u64) -> Verdict {
        let has_it = |text: &[u8]| self.finder.find(text).is_some();
        // All pieces at once first: mostly none has it.
        if has_it(&template.text) && template.pieces().any(has_it) {
            return Verdict::Yes;
        }
        if template.cuts.is_empty() {
            return Verdict::No;
        }
        // Behind a colour code, which ends in a letter, a variable may begin.
        if bits & 1 == 0 && self.stays_within && memchr::memchr(0x1b, &template.text).is_none() {
            return Verdict::No;
        }
        let is_certain = self.stays_within || template.is_whole() || self.places.is_empty();
        if is_certain || self.may_straddle(template, bits) { Verdict::Look } else { Verdict::No }
    }

    /// Whether it fits if holes hold what they may.
    ///
    /// Bit `p` of `reached` is whether its first `p` bytes can end where we are.
    fn may_straddle(&mut self, template: &Template, bits: u64) -> bool {
        let whole = 1u128 << self.bytes.len();
        if self.through_holes.as_ref().is_none_or(|(of, _)| *of != bits) {
            self.through_holes = Some((bits, through_holes(&self.bytes, bits)));
        }
        let Some((_, through_holes)) = &self.through_holes else { return true };
        let mut reached = 1u128;
        for (number, piece) in template.pieces().enumerate() {
            if number > 0 {
                let mut left = reached;
                reached = 1;
                while left != 0 {
                    reached |= through_holes[left.trailing_zeros() as usize];
                    left &= left - 1;
                }
                if reached & whole != 0 {
                    return true;
                }
            }
            let mut at = 0;
            while at < piece.len() {
                // Once nothing is under way, only a beginning near the end of the piece matters.
                if reached == 1 {
                    at = at.max(piece.len().saturating_sub(self.bytes.len()));
                }
                reached = 1 | (reached & self.places[usize::from(piece[at])]) << 1;
                if reached & whole != 0 {
                    return true;
                }
                at += 1;
            }
        }
        false
    }
}

/// For each place in the needle: up to where a hole may bring it from there. For `bits` see [`Needle::judge`].
fn through_holes(needle: &[u8], bits: u64) -> Vec<u128> {
    let may_vary = |token: usize| token >= 62 || bits >> (token + 1) & 1 == 1;
    let tokens = inner_tokens(needle);
    let has_stroke = needle.contains(&b'/');
    let ends = |start: usize| {
        let rest = &needle[start..];
        let of_token = rest.iter().take_while(|byte| is_token_byte(**byte)).count();
        // A timestamp begins with a digit; of one in which the needle begins, any part may come first.
        let may_be_time = start == 0 || rest[0].is_ascii_digit();
        let of_time =
            rest.iter().take(TIME_MAX_BYTES).take_while(|byte| is_time_byte(**byte, has_stroke)).count();
        let most = if may_be_time { of_token.max(of_time) } else { of_token };
        // A hole has a byte at least.
        let mut ends = (1..=most).fold(0u128, |ends, length| ends | 1 << (start + length));
        for (number, (_, end)) in tokens.iter().enumerate().filter(|(_, token)| token.0 == start) {
            if !may_vary(number) {
                ends &= !(1 << end);
            }
        }
        ends
    };
    (0..needle.len()).map(ends).collect()
}

/// Whether a byte may be part of a key of one token.
pub(super) fn is_key_byte(byte: u8) -> bool {
    is_token_byte(byte) && byte != b'.'
}

/// As [`stays_within`], in messages of a template: behind a colour code, which ends in a letter, a variable may begin.
pub(super) fn stays_within_of(needle: &[u8], template: &Template) -> bool {
    stays_within(needle) && !template.text.contains(&0x1b)
}

/// Whether an occurrence of the needle lies within one variable, or in none.
pub(super) fn stays_within(needle: &[u8]) -> bool {
    needle.iter().all(|byte| is_token_byte(*byte)) && needle.last().is_some_and(|byte| *byte != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        let pieces: Vec<&str> = text.split("<>").collect();
        let mut cuts = Vec::new();
        let mut all = String::new();
        for (at, piece) in pieces.iter().enumerate() {
            all.push_str(piece);
            if at + 1 < pieces.len() {
                cuts.push(all.len() as u32);
            }
        }
        Template { text: all.into_bytes().into(), cuts: cuts.into(), level: 0, attributes: [].into() }
    }

    #[test]
    fn tokens_that_no_variable_is_must_be_constant() {
        let judged = |text: &str| Needle::new(b"connection reset by peer").judge(&template(text), !0b10);
        assert_eq!(judged("<> <> <> <>"), Verdict::No);
        assert_eq!(judged("<> reset <> <>"), Verdict::Look);
        assert_eq!(inner_tokens(b"a b c"), [(2, 3)]);
    }

    #[test]
    fn constants_decide_and_holes_may() {
        for (text, needle, want) in [
            ("GET <> took <> ms", "took", Verdict::Yes),
            ("GET <> took <> ms", "took 12", Verdict::Look),
            ("GET <> took <> ms", "took x ms", Verdict::Look),
            ("GET <> took <> ms", "T /cart/1 to", Verdict::Look),
            ("GET <> took <> ms", "took  ms", Verdict::No),
            ("GET <> took <> ms", "took [1] ms", Verdict::No),
            ("GET <> took <> ms", "connection reset by peer", Verdict::No),
            ("GET <> took <> ms", "error", Verdict::Look),
            ("plain", "plain", Verdict::Yes),
            ("plain", "plain ", Verdict::No),
            ("at <>", "at 10:11:12", Verdict::Look),
            ("at <>", "at 10:11:12]", Verdict::No),
            ("<> <>", "12 34", Verdict::Look),
            ("<>, <>", "12 34", Verdict::Look),
            ("<>; <>", "12, 34", Verdict::Look),
            ("<>; <>", "x, y{", Verdict::No),
            ("aab<>", "ab1", Verdict::Look),
            ("<> <> <>", "reset by peer", Verdict::Look),
        ] {
            let judged = Needle::new(needle.as_bytes()).judge(&template(text), u64::MAX);
            assert_eq!(judged, want, "{needle} in {text}");
        }
    }
}
