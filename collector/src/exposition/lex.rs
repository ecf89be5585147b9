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

#[inline]
pub(super) fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b':'
}

#[inline]
pub(super) fn is_name_part(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b':'
}

/// Where a metric's name that begins at `start` ends; `None` if it is none.
#[inline]
pub(super) fn name_end(page: &[u8], start: usize) -> Option<usize> {
    page.get(start).filter(|b| is_name_start(**b))?;
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
    let more = page[start + 1..].iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_'));
    more.map_or(page.len(), |more| start + 1 + more)
}

/// Where the value of a label that begins with a quote at `start` ends. NULs may stand in it.
#[inline]
fn value_end(page: &[u8], start: usize, has_newlines: bool) -> Result<usize, Failure> {
    let mut at = start + 1;
    loop {
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
            Some(b'\n') if !has_newlines => return Err((at, "a quote is not closed")),
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
            Some(b) if b.is_ascii_alphabetic() || *b == b'_' => {
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
