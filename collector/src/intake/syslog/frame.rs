//! Where one line ends in a stream of bytes (RFC 6587): its length stands before it, or a line end behind it.

/// Longest line; of a longer one the beginning is kept.
pub(super) const LINE_MAX_BYTES: usize = 256 * 1024;

/// Digits of the longest length that is believed to be one.
const MAX_DIGITS: usize = 8;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Whether there was more of it.
    pub(super) is_cut: bool,
}

/// A stream in pieces as they come.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    rest: Rest,
}

/// What is still to come of a line that was cut.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Rest {
    #[default]
    Nothing,
    Bytes(usize),
    Line,
}

/// How a line begins.
enum Start {
    /// With its length, which stands in the first bytes.
    Counted { digits: usize, length: usize },
    /// Without.
    Plain,
    /// More bytes will tell.
    Unknown,
}

impl Frames {
    /// Whether no line has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.rest == Rest::Nothing
    }

    /// Adds a piece, and the lines that it ends to `lines`.
    pub(super) fn feed(&mut self, piece: &[u8], lines: &mut Vec<Line>) {
        self.buffer.extend_from_slice(piece);
        let mut at = 0;
        while let Some(used) = self.step(at, lines) {
            at += used;
        }
        self.buffer.drain(..at);
        if self.buffer.is_empty() {
            self.buffer.shrink_to(LINE_MAX_BYTES / 8);
        }
    }

    /// What came last, without a line end.
    pub(super) fn finish(&mut self) -> Option<Line> {
        let rest = std::mem::take(&mut self.rest);
        let bytes = std::mem::take(&mut self.buffer);
        let is_rest = rest != Rest::Nothing || bytes.trim_ascii().is_empty();
        (!is_rest).then(|| line(&bytes, false))
    }

    /// Bytes that were used, and perhaps a line; `None` if more must come.
    fn step(&mut self, at: usize, lines: &mut Vec<Line>) -> Option<usize> {
        let rest = &self.buffer[at..];
        if rest.is_empty() {
            return None;
        }
        match self.rest {
            Rest::Nothing => {}
            Rest::Bytes(count) => {
                let used = count.min(rest.len());
                self.rest = if used == count { Rest::Nothing } else { Rest::Bytes(count - used) };
                return Some(used);
            }
            Rest::Line => {
                let end = memchr::memchr(b'\n', rest);
                if end.is_some() {
                    self.rest = Rest::Nothing;
                }
                return Some(end.map_or(rest.len(), |end| end + 1));
            }
        }
        // Some count a line and end it, too.
        if matches!(rest[0], b'\n' | b'\r' | 0) {
            return Some(1);
        }
        match start(rest) {
            Start::Unknown => None,
            Start::Counted { digits, length } => {
                let kept = length.min(LINE_MAX_BYTES);
                let from = digits + 1;
                let bytes = rest.get(from..from + kept)?;
                lines.push(line(bytes, kept < length));
                if kept < length {
                    self.rest = Rest::Bytes(length - kept);
                }
                Some(from + kept)
            }
            Start::Plain => match memchr::memchr(b'\n', rest) {
                Some(end) if end <= LINE_MAX_BYTES => {
                    lines.push(line(&rest[..end], false));
                    Some(end + 1)
                }
                _ if rest.len() > LINE_MAX_BYTES => {
                    lines.push(line(&rest[..LINE_MAX_BYTES], true));
                    self.rest = Rest::Line;
                    Some(LINE_MAX_BYTES)
                }
                _ => None,
            },
        }
    }
}

fn line(bytes: &[u8], is_cut: bool) -> Line {
    Line { bytes: without_end(bytes).to_vec(), is_cut }
}

/// Without the end that senders put behind a line.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let [rest @ .., b'\n' | b'\r' | 0] = line {
        line = rest;
    }
    line
}

/// A length is one only before a `<`: a plain line may begin with a number.
fn start(rest: &[u8]) -> Start {
    let digits = rest.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > MAX_DIGITS || rest[0] == b'0' {
        return Start::Plain;
    }
    match (rest.get(digits), rest.get(digits + 1)) {
        (Some(b' '), Some(b'<')) => {
            let length = rest[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            Start::Counted { digits, length }
        }
        (None, _) | (Some(b' '), None) => Start::Unknown,
        _ => Start::Plain,
    }
}
