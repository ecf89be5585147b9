//! Texts of queries, which need not be UTF-8: Go's strings need not be either.

use std::borrow::Cow;

/// A byte that is no UTF-8 stands in a text as this character and its value more: of the last plane, which is for
/// private use.
const FOREIGN: u32 = 0x0010_ff00;

/// The text of bytes, whatever they are.
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(FOREIGN + u32::from(*byte))));
    }
    out
}

/// The byte that a character stands for, if it is none of UTF-8.
pub fn foreign_byte(c: char) -> Option<u8> {
    let byte = u32::from(c).checked_sub(FOREIGN).and_then(|byte| u8::try_from(byte).ok());
    byte.filter(|byte| !byte.is_ascii())
}

/// The text with what is no UTF-8 replaced, as Go writes it into JSON.
pub fn lossy(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| foreign_byte(c).is_some()) {
        let replaced = |c| if foreign_byte(c).is_some() { char::REPLACEMENT_CHARACTER } else { c };
        return text.chars().map(replaced).collect::<String>().into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_bytes_stay_what_they_are() {
        assert_eq!(from_bytes("é".as_bytes()), "é");
        let text = from_bytes(b"a\xffb");
        assert_eq!(text.chars().filter_map(foreign_byte).collect::<Vec<_>>(), [0xff]);
        assert_eq!(lossy(&text), "a\u{fffd}b");
        assert_eq!(lossy("plain"), "plain");
    }
}
