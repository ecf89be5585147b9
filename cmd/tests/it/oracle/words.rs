//! What the documentation says of words, values, patterns and edits, read once more: on strings, one thing at a time.

use serde_json::Value;

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Held {
    Text(String),
    /// And how it is written.
    Number(f64, String),
    Bool(bool),
}

impl Held {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Number(_, text) => text.clone(),
            Self::Bool(flag) => flag.to_string(),
        }
    }
}

/// Runs of letters, digits and underscores, in lower case; a terminal's colour codes are no part of them.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let code = colour_code(rest);
        rest = &rest[code.max(c.len_utf8())..];
        let is_part = code == 0 && (c.is_alphanumeric() || c == '_');
        let is_long = found.last().is_some_and(|word| word.len() + c.len_utf8() > 256);
        if !is_part || is_long {
            found.push(String::new());
        }
        if is_part {
            found.last_mut().unwrap().push(c);
        }
    }
    found.retain(|word| !word.is_empty());
    found.iter().map(|word| word.to_lowercase()).collect()
}

/// Length of `ESC [ 1 ; 31 m` at the beginning, or zero.
fn colour_code(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\u{1b}[") else { return 0 };
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ';')).unwrap_or(rest.len());
    if end <= 32 && rest[end..].starts_with('m') { 2 + end + 1 } else { 0 }
}

/// Whether the wanted words stand in the text, each at a place of its own, moved by amounts that differ by `slop` at most.
pub(super) fn has_phrase(found: &[String], wanted: &[String], slop: usize, is_prefix: bool) -> bool {
    let Some(last) = wanted.len().checked_sub(1) else { return true };
    let fits = |number: usize, place: usize| {
        found[place] == wanted[number]
            || is_prefix && number == last && found[place].starts_with(&wanted[number])
    };
    let (places, words) = (found.len() as i64, wanted.len() as i64);
    // All ways to begin: no word is moved by less than this.
    (-words..places)
        .any(|least| can_place(wanted.len(), found.len(), least, slop as i64, &fits, &mut Vec::new()))
}

/// Tries all places for the words that have none yet.
fn can_place(
    words: usize,
    places: usize,
    least: i64,
    slop: i64,
    fits: &dyn Fn(usize, usize) -> bool,
    taken: &mut Vec<usize>,
) -> bool {
    let number = taken.len();
    if number == words {
        return true;
    }
    let first = least + number as i64;
    (first.max(0)..(first + slop + 1).min(places as i64)).any(|place| {
        let place = place as usize;
        if taken.contains(&place) || !fits(number, place) {
            return false;
        }
        taken.push(place);
        let can = can_place(words, places, least, slop, fits, taken);
        taken.pop();
        can
    })
}

/// Whether all of a text fits a pattern with `*` and `?`.
pub(super) fn is_like(pattern: &[char], text: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some('*'), _) => is_like(&pattern[1..], text) || !text.is_empty() && is_like(pattern, &text[1..]),
        (Some(sign), Some(c)) if *sign == '?' || sign == c => is_like(&pattern[1..], &text[1..]),
        _ => false,
    }
}

/// Insertions, deletions, substitutions and swaps of neighbours that make one text of another.
pub(super) fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let other = usize::from(a[i - 1] != b[j - 1]);
                let mut best =
                    (table[i - 1][j] + 1).min(table[i][j - 1] + 1).min(table[i - 1][j - 1] + other);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    table[a.len()][b.len()]
}

/// Addresses of version 4 in a text, with a port or without.
pub(super) fn addresses(text: &str) -> Vec<u32> {
    let runs = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'));
    let address = |run: &str| {
        let run = run.trim_end_matches(['.', ':']);
        let host = match run.split_once(':') {
            Some((host, port)) if !port.is_empty() && !port.contains(':') => host,
            None => run,
            Some(_) => return None,
        };
        let parts: Vec<&str> = host.split('.').collect();
        let is_plain = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_digit())
                && (*part == "0" || !part.starts_with('0'))
        };
        if parts.len() != 4 || !parts.iter().all(is_plain) {
            return None;
        }
        parts.iter().try_fold(0u32, |all, part| Some(all << 8 | u32::from(part.parse::<u8>().ok()?)))
    };
    runs.filter_map(address).collect()
}

/// The number that a text is, as people write one.
pub(super) fn number(text: &str) -> Option<f64> {
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    text.parse().ok().filter(|_| begins)
}

/// Fields of a message that is an object of JSON, or made of `key=value`.
pub(super) fn fields(message: &str) -> Vec<(String, Held)> {
    let mut plain = String::new();
    let mut rest = message;
    while let Some(c) = rest.chars().next() {
        let code = colour_code(rest);
        if code == 0 {
            plain.push(c);
        }
        rest = &rest[code.max(c.len_utf8())..];
    }
    let text = plain.trim();
    let mut found = Vec::new();
    if text.starts_with('{') {
        if let Ok(Value::Object(object)) = serde_json::from_str(text) {
            object.iter().for_each(|(name, value)| flatten(name, value, &mut found));
        }
    } else {
        found = pairs(text);
    }
    found
}

fn flatten(path: &str, value: &Value, found: &mut Vec<(String, Held)>) {
    let held = match value {
        Value::Null => return,
        Value::Object(object) => {
            return object.iter().for_each(|(name, value)| flatten(&format!("{path}.{name}"), value, found));
        }
        Value::Array(values) => return values.iter().for_each(|value| flatten(path, value, found)),
        Value::Bool(flag) => Held::Bool(*flag),
        Value::Number(number) => Held::Number(number.as_f64().unwrap(), number.to_string()),
        Value::String(text) => Held::Text(text.clone()),
    };
    if !path.is_empty() {
        found.push((path.to_owned(), held));
    }
}

/// `key=value key="quoted value"`, two at least.
fn pairs(text: &str) -> Vec<(String, Held)> {
    let pair = regex::Regex::new(r#"(?s)^([^=\s]*)=(?:"((?:[^"\\]|\\.)*)(?:"|\\?$)|(\S*))"#).unwrap();
    let is_name = regex::Regex::new(r"^[a-zA-Z_][a-zA-Z0-9_./@-]*$").unwrap();
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some(groups) = pair.captures(rest) else {
            rest = rest.trim_start_matches(|c: char| !c.is_whitespace()).trim_start();
            continue;
        };
        let held = match (groups.get(2), groups.get(3)) {
            (Some(quoted), _) => Held::Text(unescaped(quoted.as_str())),
            (None, word) => plain_value(word.map_or("", |word| word.as_str())),
        };
        if is_name.is_match(&groups[1]) {
            found.push((groups[1].to_owned(), held));
        }
        rest = rest[groups[0].len()..].trim_start();
    }
    if found.len() < 2 { Vec::new() } else { found }
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match if c == '\\' { chars.next().map(|c| (true, c)) } else { Some((false, c)) } {
            Some((true, 'n')) => out.push('\n'),
            Some((true, 't')) => out.push('\t'),
            Some((_, c)) => out.push(c),
            None => {}
        }
    }
    out
}

fn plain_value(word: &str) -> Held {
    match word {
        "true" => Held::Bool(true),
        "false" => Held::Bool(false),
        _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') && word.parse::<f64>().is_ok() => {
            let value: f64 = word.parse().unwrap();
            let shown = word.parse::<i64>().map_or_else(|_| value.to_string(), |whole| whole.to_string());
            Held::Number(value, shown)
        }
        _ => Held::Text(word.to_owned()),
    }
}
