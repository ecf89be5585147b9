//! What both text formats are made of: names, quoted texts, labels.

use memchr::memchr;

use super::Failure;

#[inline]
pub(super) fn skip_blanks(page: &[u8], mut at: usize) -> usize {
    while matches!(page.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// What a byte may be part of.
const START: u8 = 1;
const PART: u8 = 2;
const COLON: u8 = 4;

/// Looked up once a byte: names and labels are most of a page.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_alphabetic() || byte == b'_' {
            classes[b] = START | PART;
        } else if byte.is_ascii_digit() {
            classes[b] = PART;
        } else if byte == b':' {
            classes[b] = COLON;
        }
        b += 1;
    }
    classes
};

#[inline]
fn is(b: u8, classes: u8) -> bool {
    CLASSES[usize::from(b)] & classes != 0
}

#[inline]
pub(super) fn is_name_part(b: u8) -> bool {
    is(b, PART | COLON)
}

/// Where a metric's name that begins at `start` ends; `None` if it is none.
#[inline]
pub(super) fn name_end(page: &[u8], start: usize) -> Option<usize> {
    page.get(start).filter(|b| is(**b, START | COLON))?;
    let more = page[start + 1..].iter().position(|b| !is_name_part(*b));
    Some(more.map_or(page.len(), |more| start + 1 + more))
}

/// Where the metric's name behind `# TYPE` and its like ends; it may be quoted.
pub(super) fn metadata_name_end(page: &[u8], start: usize) -> Result<usize, Failure> {
    if page.get(start) == Some(&b'"') {
        return quoted_name_end(page, start, true);
    }
    name_end(page, start).ok_or((start, "a metric's name was expected"))
}

#[inline]
fn label_name_end(page: &[u8], start: usize) -> usize {
    let more = page[start + 1..].iter().position(|b| !is(*b, PART));
    more.map_or(page.len(), |more| start + 1 + more)
}

/// How many bytes come before the first quote, backslash or newline. Eight at a time: of a word, the lowest byte that
/// became zero is found exactly (Mycroft's test).
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let zeroes = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let of = |b: u8| zeroes(word ^ u64::from_ne_bytes([b; 8]));
        let found = of(b'"') | of(b'\\') | of(b'\n');
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n')).unwrap_or(rest.len())
}

/// Where the value of a label that begins with a quote at `start` ends. NULs may stand in it.
#[inline]
fn value_end(page: &[u8], start: usize, has_newlines: bool) -> Result<usize, Failure> {
    let mut at = start + 1;
    loop {
        at += plain_length(&page[at.min(page.len())..]);
        match page.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => {
                at += 1;
                while page.get(at) == Some(&0) {
                    at += 1;
                }
                if page.get(at) == Some(&b'\n') {
                    return Err((at, "a line ends behind a backslash"));
                }
            }
            Some(_) if !has_newlines => return Err((at, "a quote is not closed")),
            Some(_) => {}
            None => return Err((start, "a quote is not closed")),
        }
        at += 1;
    }
}

/// Where a quoted name that begins at `start` ends.
fn quoted_name_end(page: &[u8], start: usize, has_newlines: bool) -> Result<usize, Failure> {
    let end = value_end(page, start, has_newlines)?;
    match memchr(0, &page[start..end]) {
        Some(at) => Err((start + at, "a name holds a NUL")),
        None => Ok(end),
    }
}

/// How labels are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Blanks anywhere, newlines in values, commas where one likes.
    Text,
    /// None of these.
    OpenMetrics,
    /// As before, without newlines in names.
    Exemplar,
}

/// Where the labels that begin with a brace at `open` end. With `named`, one quoted text without a value is the metric's
/// name and must be there.
#[inline]
pub(super) fn labels_end(page: &[u8], open: usize, named: bool, style: Style) -> Result<usize, Failure> {
    let blanks = |at| if style == Style::Text { skip_blanks(page, at) } else { at };
    let mut at = blanks(open + 1);
    let mut needs_name = named;
    loop {
        let start = at;
        let is_quoted = match page.get(at) {
            Some(b'}') => break,
            Some(b'"') => {
                at = quoted_name_end(page, at, style != Style::Exemplar)?;
                true
            }
            Some(b) if is(*b, START) => {
                at = label_name_end(page, at);
                false
            }
            Some(_) => return Err((at, "a label's name was expected")),
            None => return Err((at, "the labels are not closed")),
        };
        at = blanks(at);
        if is_quoted && matches!(page.get(at), Some(b',' | b'}')) {
            if !needs_name {
                return Err((start, "a label has no value"));
            }
            needs_name = false;
            if page[at] == b'}' {
                break;
            }
            at = blanks(at + 1);
            continue;
        }
        if page.get(at) != Some(&b'=') {
            return Err((at, "a label has no value"));
        }
        at = blanks(at + 1);
        if page.get(at) != Some(&b'"') {
            return Err((at, "a label's value must be quoted"));
        }
        at = blanks(value_end(page, at, style == Style::Text)?);
        match page.get(at) {
            Some(b',') => at = blanks(at + 1),
            Some(b'}') => break,
            _ if style == Style::Text => {}
            _ => return Err((at, "a comma or a closing brace was expected")),
        }
    }
    if needs_name {
        return Err((open, "the metric has no name"));
    }
    check_text(page, open, at)?;
    Ok(at + 1)
}

/// Text of others is UTF-8.
#[inline]
fn check_text(page: &[u8], from: usize, to: usize) -> Result<(), Failure> {
    let text = &page[from..to];
    if text.is_ascii() {
        return Ok(());
    }
    std::str::from_utf8(text).map(drop).map_err(|error| (from + error.valid_up_to(), "invalid UTF-8"))
}

/// Where name and labels end that begin at `start`.
#[inline]
pub(super) fn series_end(page: &[u8], start: usize, style: Style) -> Result<usize, Failure> {
    if page.get(start) == Some(&b'{') {
        return labels_end(page, start, true, style);
    }
    let reason = "a metric's name begins with a letter, an underscore or a colon";
    let end = name_end(page, start).ok_or((start, reason))?;
    let brace = if style == Style::Text { skip_blanks(page, end) } else { end };
    if page.get(brace) == Some(&b'{') { labels_end(page, brace, false, style) } else { Ok(end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn eight_bytes_at_a_time_find_what_one_does(bytes in proptest::collection::vec(0u8..=255, 0..40)) {
            let want = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n')).unwrap_or(bytes.len());
            proptest::prop_assert_eq!(plain_length(&bytes), want);
        }

        #[test]
        fn stops_are_found_among_their_neighbours(bytes in proptest::collection::vec(
            proptest::sample::select(b"\"\\\n!#[]\x0b\x09\xa2\xdc\x8aa".to_vec()), 0..40,
        )) {
            let want = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n')).unwrap_or(bytes.len());
            proptest::prop_assert_eq!(plain_length(&bytes), want);
        }
    }
}
