//! Matchers of routes, inhibitions and silences, as Alertmanager 0.33 reads them.
//!
//! There are two readers. The newer one takes any name, quoted or not, and no loose ends. The classic one takes
//! Prometheus's names and values without quotes up to the next comma. A text that both take is read as the classic one
//! does, one that only one of them takes as that one does.

use binnacle_model::{MatchOp, Matcher};

/// Most bytes that a matcher's regular expression may take.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// Reads `a="b"`, `a=~b`, or several with commas between them, in braces or not.
///
/// # Errors
/// What neither reader takes.
pub fn parse_matchers(text: &str) -> Result<Vec<Matcher>, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("matchers are longer than {MAX_TEXT} bytes"));
    }
    let newer = Reader { text, rest: text.trim() }.matchers();
    let triples = match (classic(text), newer) {
        (Ok(triples), _) | (Err(_), Ok(triples)) => triples,
        (Err(_), Err(reason)) => return Err(reason),
    };
    triples.into_iter().map(|(name, op, value)| Matcher::new(&name, op, &value)).collect()
}

type Triple = (String, MatchOp, String);

const OPS: [(&str, MatchOp); 4] =
    [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)];

fn classic(text: &str) -> Result<Vec<Triple>, String> {
    let inner = text.strip_prefix('{').unwrap_or(text);
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut found, mut begin) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in inner.char_indices() {
        match c {
            ',' if !is_quoted => {
                found.push(classic_one(&inner[begin..at])?);
                begin = at + 1;
            }
            '"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    // A comma may stand behind the last one.
    if !inner[begin..].trim().is_empty() {
        found.push(classic_one(&inner[begin..])?);
    }
    Ok(found)
}

fn classic_one(text: &str) -> Result<Triple, String> {
    let bad = || format!("bad matcher format: {text}");
    let trimmed = text.trim();
    let is_part = |(at, c): (usize, char)| {
        c.is_ascii_alphabetic() || matches!(c, '_' | ':') || (at > 0 && c.is_ascii_digit())
    };
    let end = trimmed.char_indices().find(|part| !is_part(*part)).map_or(trimmed.len(), |(at, _)| at);
    let (name, behind) = trimmed.split_at(end);
    let behind = behind.trim_start();
    let (sign, op) = OPS.into_iter().find(|(sign, _)| behind.starts_with(sign)).ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let raw = behind[sign.len()..].trim();
    let (raw, is_quoted) = match raw.strip_prefix('"') {
        Some(raw) => (raw, true),
        None => (raw, false),
    };
    let (mut value, mut is_escaped, mut is_closed) = (String::new(), false, false);
    for (at, c) in raw.char_indices() {
        if is_escaped {
            is_escaped = false;
            match c {
                'n' => value.push('\n'),
                '"' | '\\' => value.push(c),
                // An escape that means nothing stands for itself.
                c => value.extend(['\\', c]),
            }
            continue;
        }
        match c {
            '\\' if at + 1 < raw.len() => is_escaped = true,
            '"' if is_quoted && at + 1 == raw.len() => is_closed = true,
            '"' => return Err(format!("matcher value contains unescaped double quote: {raw}")),
            c => value.push(c),
        }
    }
    if is_quoted != is_closed {
        return Err(format!("matcher value contains unescaped double quote: {raw}"));
    }
    Ok((name.to_owned(), op, value))
}

struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
}

impl Reader<'_> {
    fn fail<T>(&self, reason: &str) -> Result<T, String> {
        let at = self.text.len() - self.rest.len();
        Err(format!("bad matcher format: {}: at {at}: {reason}", self.text))
    }

    fn skip(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn matchers(mut self) -> Result<Vec<Triple>, String> {
        let in_braces = self.skip("{");
        let mut found = Vec::new();
        loop {
            if in_braces && self.skip("}") {
                break;
            }
            self.rest = self.rest.trim_start();
            if self.rest.is_empty() {
                if in_braces {
                    return self.fail("expected close brace");
                }
                break;
            }
            if !found.is_empty() && !self.skip(",") {
                return self.fail("expected a comma");
            }
            self.rest = self.rest.trim_start();
            let ends = if in_braces { self.rest.starts_with('}') } else { self.rest.is_empty() };
            if !ends {
                found.push(self.one()?);
            }
        }
        self.rest = self.rest.trim_start();
        if !self.rest.is_empty() {
            return self.fail("expected end of input");
        }
        if found.is_empty() && !in_braces {
            return self.fail("no matchers");
        }
        Ok(found)
    }

    fn one(&mut self) -> Result<Triple, String> {
        let name = self.word("label name")?;
        self.rest = self.rest.trim_start();
        let Some((sign, op)) = OPS.into_iter().find(|(sign, _)| self.rest.starts_with(sign)) else {
            return self.fail("expected an operator such as '=', '!=', '=~' or '!~'");
        };
        self.rest = &self.rest[sign.len()..];
        let value = self.word("label value")?;
        Ok((name, op, value))
    }

    /// Quoted, or up to a character that means something.
    fn word(&mut self, what: &str) -> Result<String, String> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            let mut is_escaped = false;
            let end = self.rest[1..].find(|c| {
                let ends = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                ends
            });
            let Some(end) = end else { return self.fail("missing end \"") };
            let quoted = &self.rest[..end + 2];
            let Ok(value) = serde_json::from_str(quoted) else { return self.fail("invalid input") };
            self.rest = &self.rest[end + 2..];
            return Ok(value);
        }
        let means = |c: char| c.is_whitespace() || ",{}!=~\"'`\\".contains(c);
        let end = self.rest.find(means).unwrap_or(self.rest.len());
        if end == 0 {
            return self.fail(&format!("expected {what}"));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        let found = parse_matchers(text)?;
        Ok(found.iter().map(|m| format!("{} {:?} {}", m.name, m.op, m.value)).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn matchers_are_read_as_by_alertmanager() {
        let table = [
            ("a=b", "a Equal b"),
            ("{a=\"b\",c=~\"d|e\"}", "a Equal b; c Regex d|e"),
            (" a != \"b, c\" , d!~e ", "a NotEqual b, c; d NotRegex e"),
            ("a=b c", "a Equal b c"),
            ("a=", "a Equal "),
            ("a=\"\\\"x\\\\\\n\"", "a Equal \"x\\\n"),
            ("\"a b\"=\"c\"", "a b Equal c"),
            ("{🙂=🙃}", "🙂 Equal 🙃"),
            ("{a=b,}", "a Equal b"),
            ("{}", ""),
            ("a=\"b\\q\"", "a Equal b\\q"),
        ];
        for (text, want) in table {
            assert_eq!(shown(text).as_deref(), Ok(want), "{text}");
        }
        for text in ["a", "=b", "a=\"b", "a=b\"", "{a=b", "a==\"", "a=~(", "{🙂=🙃,,}"] {
            let found = shown(text);
            let is_classic = matches!(text, "{a=b");
            assert_eq!(found.is_ok(), is_classic, "{text}: {found:?}");
        }
    }
}
