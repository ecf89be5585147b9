//! `key=value key="quoted value" key`

use std::borrow::Cow;

use super::super::row::Row;

/// Makes labels of pairs.
#[derive(Debug, Clone)]
pub(in crate::logql) struct Logfmt {
    /// Whether what is malformed is an error.
    pub(in crate::logql) strict: bool,
    /// Whether a key without a value makes a label; it would be empty, and nobody sees such a label.
    pub(in crate::logql) keep_empty: bool,
    /// Labels and the keys they are made of; all keys if there is none.
    pub(in crate::logql) wanted: Vec<(String, String)>,
}

impl Logfmt {
    pub(super) fn apply(&self, row: &mut Row<'_>) {
        let text = row.text().into_owned();
        let mut rest = text.as_str();
        loop {
            match next_pair(&mut rest) {
                None => return,
                Some(Ok((key, value))) => self.take(row, key, &value),
                Some(Err(reason)) if self.strict => {
                    row.fail("LogfmtParserErr", reason.to_owned());
                    return;
                }
                Some(Err(_)) => {}
            }
        }
    }

    fn take(&self, row: &mut Row<'_>, key: &str, value: &str) {
        if self.wanted.is_empty() {
            row.extract(key, value);
        }
        for (label, _) in self.wanted.iter().filter(|(_, wanted)| wanted == key) {
            row.extract(label, value);
        }
    }
}

/// Takes a pair off the front.
fn next_pair<'t>(rest: &mut &'t str) -> Option<Result<(&'t str, Cow<'t, str>), &'static str>> {
    let text = rest.trim_start_matches(|c: char| c <= ' ');
    if text.is_empty() {
        return None;
    }
    let end = text.find(|c: char| c <= ' ' || matches!(c, '=' | '"')).unwrap_or(text.len());
    let (key, behind) = text.split_at(end);
    *rest = behind;
    if behind.starts_with('"') || key.is_empty() {
        // Passes over the sign, so that there is an end.
        let word = behind.find(|c: char| c <= ' ').unwrap_or(behind.len());
        *rest = &behind[word.max(1).min(behind.len())..];
        return Some(Err(if key.is_empty() { "unexpected '='" } else { "unexpected '\"'" }));
    }
    let Some(value) = behind.strip_prefix('=') else { return Some(Ok((key, Cow::Borrowed("")))) };
    if let Some(quoted) = value.strip_prefix('"') {
        let Some((value, behind)) = unquoted(quoted) else {
            *rest = "";
            return Some(Err("unterminated quoted value"));
        };
        *rest = behind;
        return Some(Ok((key, value)));
    }
    let end = value.find(|c: char| c <= ' ').unwrap_or(value.len());
    let (value, behind) = value.split_at(end);
    *rest = behind;
    if value.contains(['=', '"']) {
        // As the library that Loki uses: this is an error, and the pair is lost.
        return Some(Err("unexpected '='"));
    }
    Some(Ok((key, Cow::Borrowed(value))))
}

/// The text up to the closing quote, and what stands behind it.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let plain = text.find(['"', '\\'])?;
    if text[plain..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..plain]), &text[plain + 1..]));
    }
    let mut out = text[..plain].to_owned();
    let mut chars = text[plain..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(out), &text[plain + at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                'u' => {
                    let hex: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    let c = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                    out.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[Result<(&str, &str), ()>]) {
        let mut rest = text;
        let mut found = Vec::new();
        while let Some(pair) = next_pair(&mut rest) {
            found.push(pair.map(|(key, value)| (key.to_owned(), value.into_owned())).map_err(|_| ()));
        }
        let want: Vec<_> =
            want.iter().map(|one| one.map(|(key, value)| (key.to_owned(), value.to_owned()))).collect();
        assert_eq!(found, want, "{text}");
    }

    #[test]
    fn pairs_are_read_as_loki_reads_them() {
        check("a=1 b=\"x y\" c", &[Ok(("a", "1")), Ok(("b", "x y")), Ok(("c", ""))]);
        check(r#"a="\"q\"\u0041" b="#, &[Ok(("a", "\"q\"A")), Ok(("b", ""))]);
        check("=x a=1", &[Err(()), Ok(("a", "1"))]);
        check("a\"b c=1", &[Err(()), Ok(("c", "1"))]);
        check("a=\"open", &[Err(())]);
        check("a=b=c d=1", &[Err(()), Ok(("d", "1"))]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-c=\"\\\\ué \n]{0,40}") {
            let mut rest = text.as_str();
            while next_pair(&mut rest).is_some() {}
        }
    }
}
