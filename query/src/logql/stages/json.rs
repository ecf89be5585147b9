//! JSON: all of a line's fields as labels, some of them by path, and what Promtail packed.

use std::borrow::Cow;

use super::super::row::Row;

/// Deepest object or list; what lies deeper is an error of the line.
const MAX_DEPTH: usize = 64;

const ERROR_KIND: &str = "JSONParserErr";

/// What cannot be read.
type Bad = &'static str;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Which fields become labels; all of them if none is named.
#[derive(Debug, Clone)]
pub(in crate::logql) struct JsonPaths {
    /// As written.
    pub(in crate::logql) wanted: Vec<(String, String)>,
    paths: Vec<Vec<Step>>,
}

impl JsonPaths {
    pub(in crate::logql) fn new(wanted: Vec<(String, String)>) -> Result<Self, String> {
        let parsed = wanted.iter().map(|(_, expression)| {
            path(expression).ok_or_else(|| format!("cannot parse expression [{expression}]: syntax error"))
        });
        let paths = parsed.collect::<Result<_, _>>()?;
        Ok(Self { wanted, paths })
    }

    pub(super) fn apply(&self, row: &mut Row<'_>) {
        let text = row.text().into_owned();
        if self.paths.is_empty() {
            let mut scanner = Scanner::new(&text);
            let mut prefix = String::new();
            if let Err(reason) =
                scanner.begin_object().and_then(|()| flatten(&mut scanner, &mut prefix, 1, row))
            {
                row.fail(ERROR_KIND, reason.to_owned());
            }
            return;
        }
        for ((name, _), path) in self.wanted.iter().zip(&self.paths) {
            match find(&text, path) {
                Ok(Some(value)) => row.extract(name, &value),
                Ok(None) => {}
                Err(reason) => {
                    row.fail(ERROR_KIND, reason.to_owned());
                    return;
                }
            }
        }
    }
}

/// `servers[0].name`, `request["User-Agent"]`
fn path(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            if let Some(quoted) = inner.strip_prefix('"') {
                let (key, behind) = quoted.split_once("\"]")?;
                steps.push(Step::Key(key.replace("\\\"", "\"")));
                rest = behind;
            } else {
                let (index, behind) = inner.split_once(']')?;
                steps.push(Step::Index(index.trim().parse().ok()?));
                rest = behind;
            }
            continue;
        }
        if !steps.is_empty() {
            rest = rest.strip_prefix('.')?;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let is_key = !key.is_empty() && !key.contains([' ', '"', ']']);
        steps.push(Step::Key(Some(key).filter(|_| is_key)?.to_owned()));
        rest = behind;
    }
    (!steps.is_empty() && steps.len() <= MAX_DEPTH).then_some(steps)
}

/// Adds the fields of an object that has begun.
fn flatten(
    scanner: &mut Scanner<'_>,
    prefix: &mut String,
    depth: usize,
    row: &mut Row<'_>,
) -> Result<(), Bad> {
    if depth > MAX_DEPTH {
        return Err("too deep");
    }
    while let Some(key) = scanner.next_key()? {
        let before = prefix.len();
        if !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push_str(&key);
        match scanner.peek() {
            Some(b'{') => {
                scanner.begin_object()?;
                flatten(scanner, prefix, depth + 1, row)?;
            }
            Some(b'[') => scanner.skip_value(depth)?,
            Some(b'"') => row.extract(prefix, &scanner.string()?),
            _ => {
                let word = scanner.word()?;
                if word != "null" {
                    row.extract(prefix, word);
                }
            }
        }
        prefix.truncate(before);
    }
    Ok(())
}

/// The value at a path: text without its quotes, anything else as it stands.
fn find(text: &str, path: &[Step]) -> Result<Option<String>, Bad> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != Some(b'{') {
        return Err("the line is no JSON object");
    }
    for step in path {
        let found = match (step, scanner.peek()) {
            (Step::Key(wanted), Some(b'{')) => {
                scanner.begin_object()?;
                scanner.goes_to_key(wanted)?
            }
            (Step::Index(wanted), Some(b'[')) => scanner.goes_to_index(*wanted)?,
            _ => false,
        };
        if !found {
            return Ok(None);
        }
    }
    Ok(match scanner.peek() {
        Some(b'"') => Some(scanner.string()?.into_owned()),
        Some(b'{' | b'[') => {
            let start = scanner.at;
            scanner.skip_value(0)?;
            Some(text[start..scanner.at].to_owned())
        }
        _ => Some(scanner.word()?).filter(|word| *word != "null").map(str::to_owned),
    })
}

/// Puts back what Promtail's `pack` stage packed: labels, and the line as `_entry`.
pub(super) fn unpack(row: &mut Row<'_>) {
    let text = row.text().into_owned();
    let mut scanner = Scanner::new(&text);
    let mut line = None;
    let mut read = || -> Result<Vec<(String, String)>, Bad> {
        let mut found = Vec::new();
        scanner.begin_object()?;
        while let Some(key) = scanner.next_key()? {
            if scanner.peek() != Some(b'"') {
                scanner.skip_value(0)?;
                continue;
            }
            let value = scanner.string()?;
            if key == "_entry" {
                line = Some(value.into_owned());
            } else {
                found.push((key.into_owned(), value.into_owned()));
            }
        }
        Ok(found)
    };
    match read() {
        // Only what was packed is taken apart.
        Ok(labels) => {
            if let Some(line) = line {
                labels.iter().for_each(|(name, value)| row.extract(name, value));
                row.set_line(line.into_bytes());
            }
        }
        Err(reason) => row.fail(ERROR_KIND, reason.to_owned()),
    }
}

/// Walks JSON without building it.
struct Scanner<'t> {
    text: &'t str,
    at: usize,
    /// Whether nothing of the present object or list was read.
    is_first: bool,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0, is_first: true }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, reason: Bad) -> Result<(), Bad> {
        if self.peek() != Some(byte) {
            return Err(reason);
        }
        self.at += 1;
        Ok(())
    }

    fn begin_object(&mut self) -> Result<(), Bad> {
        self.is_first = true;
        self.expect(b'{', "the line is no JSON object")
    }

    /// The next key of the present object; at its end nothing.
    fn next_key(&mut self) -> Result<Option<Cow<'t, str>>, Bad> {
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.is_first = false;
            return Ok(None);
        }
        if !std::mem::replace(&mut self.is_first, false) {
            self.expect(b',', "a comma is missing")?;
        }
        if self.peek() != Some(b'"') {
            return Err("a key is missing");
        }
        let key = self.string()?;
        self.expect(b':', "a colon is missing")?;
        Ok(Some(key))
    }

    /// Stops before the value of a key of the present object.
    fn goes_to_key(&mut self, wanted: &str) -> Result<bool, Bad> {
        while let Some(key) = self.next_key()? {
            if key == wanted {
                return Ok(true);
            }
            self.skip_value(0)?;
        }
        Ok(false)
    }

    /// Stops before a value of the list that begins here.
    fn goes_to_index(&mut self, wanted: usize) -> Result<bool, Bad> {
        self.expect(b'[', "a list is missing")?;
        for at in 0.. {
            if self.peek() == Some(b']') {
                return Ok(false);
            }
            if at > 0 {
                self.expect(b',', "a comma is missing")?;
            }
            if at == wanted {
                return Ok(true);
            }
            self.skip_value(0)?;
        }
        Ok(false)
    }

    /// The text that begins with a quote here.
    fn string(&mut self) -> Result<Cow<'t, str>, Bad> {
        self.expect(b'"', "a quote is missing")?;
        let rest = &self.text[self.at..];
        let plain = rest.find(['"', '\\']).ok_or("text without an end")?;
        if rest[plain..].starts_with('"') {
            self.at += plain + 1;
            return Ok(Cow::Borrowed(&rest[..plain]));
        }
        let mut out = rest[..plain].to_owned();
        let mut at = plain;
        while let Some(c) = rest[at..].chars().next() {
            at += c.len_utf8();
            match c {
                '"' => {
                    self.at += at;
                    return Ok(Cow::Owned(out));
                }
                '\\' => {
                    let kind = rest[at..].chars().next().ok_or("text without an end")?;
                    at += kind.len_utf8();
                    match kind {
                        'n' => out.push('\n'),
                        't' => out.push('\t'),
                        'r' => out.push('\r'),
                        'b' => out.push('\u{8}'),
                        'f' => out.push('\u{c}'),
                        'u' => out.push(escaped(rest, &mut at)?),
                        '"' | '\\' | '/' => out.push(kind),
                        _ => return Err("an unknown escape"),
                    }
                }
                c => out.push(c),
            }
        }
        Err("text without an end")
    }

    /// A number, `true`, `false` or `null`, as it stands.
    fn word(&mut self) -> Result<&'t str, Bad> {
        self.peek();
        let rest = &self.text[self.at..];
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
        let length = rest.bytes().take_while(|b| is_part(b)).count();
        let word = &rest[..length];
        let is_number =
            word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && word.parse::<f64>().is_ok();
        if !is_number && !matches!(word, "true" | "false" | "null") {
            return Err("a value is missing");
        }
        self.at += length;
        Ok(word)
    }

    /// Passes over a value, however deep: brackets are counted, and texts passed over as a whole.
    fn skip_value(&mut self, depth: usize) -> Result<(), Bad> {
        let mut open = 0usize;
        loop {
            match self.peek().ok_or("it ends too soon")? {
                b'{' | b'[' => {
                    open += 1;
                    if depth + open > MAX_DEPTH {
                        return Err("too deep");
                    }
                    self.at += 1;
                }
                b'}' | b']' if open > 0 => {
                    open -= 1;
                    self.at += 1;
                }
                b',' | b':' if open > 0 => self.at += 1,
                b'"' => self.skip_string()?,
                _ => {
                    self.word()?;
                }
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), Bad> {
        self.at += 1;
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
        Err("text without an end")
    }
}

/// The character of four hexadecimal digits, or of two such where the first is half of one.
fn escaped(rest: &str, at: &mut usize) -> Result<char, Bad> {
    let digits = |at: usize| {
        let hex = rest.get(at..at + 4).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        hex.and_then(|hex| u32::from_str_radix(hex, 16).ok())
    };
    let first = digits(*at).ok_or("an unknown escape")?;
    *at += 4;
    if (0xd800..0xdc00).contains(&first)
        && rest[*at..].starts_with("\\u")
        && let Some(second @ 0xdc00..0xe000) = digits(*at + 2)
    {
        *at += 6;
        let both = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return Ok(char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let text = r#" {"a":{"b":[1,{"c":"x\u00e9\ud83d\ude00"}],"d e":null}, "n":1.10,"t":true}"#;
        for (expression, want) in [
            ("a.b[1].c", Some("xé😀")),
            ("a.b[0]", Some("1")),
            ("a.b", Some(r#"[1,{"c":"x\u00e9\ud83d\ude00"}]"#)),
            (r#"a["d e"]"#, None),
            ("n", Some("1.10")),
            ("t", Some("true")),
            ("a.b[7]", None),
            ("n.x", None),
        ] {
            assert_eq!(find(text, &path(expression).unwrap()), Ok(want.map(str::to_owned)), "{expression}");
        }
        for bad in ["", "a.", ".a", "a[", "a[x]", "a b", "a[0]b"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[{}\\[\\]\":,a\\\\u0é tfnrue1-]{0,50}") {
            let _ = find(&text, &[Step::Key("a".to_owned()), Step::Index(0)]);
            let mut scanner = Scanner::new(&text);
            let _ = scanner.begin_object();
            while let Ok(Some(_)) = scanner.next_key() {
                if scanner.skip_value(0).is_err() { break; }
            }
        }
    }
}
