//! Members of an object of JSON, found without building anything.

/// Calls `on` with the name and the raw value of each member of an object, until it answers `false` or the text is no
/// JSON any more. Names with escapes are handed out as they are written; nothing within values is looked at.
pub(super) fn members<'a>(object: &'a [u8], on: &mut dyn FnMut(&'a [u8], &'a [u8]) -> bool) {
    let mut at = skip_blank(object, 0);
    if object.get(at) != Some(&b'{') {
        return;
    }
    loop {
        at = skip_blank(object, at + 1);
        let Some(name_end) = (object.get(at) == Some(&b'"')).then(|| text_end(object, at)).flatten() else {
            return;
        };
        let name = &object[at + 1..name_end - 1];
        at = skip_blank(object, name_end);
        if object.get(at) != Some(&b':') {
            return;
        }
        let start = skip_blank(object, at + 1);
        let Some(end) = value_end(object, start) else { return };
        if !on(name, &object[start..end]) {
            return;
        }
        at = skip_blank(object, end);
        if object.get(at) != Some(&b',') {
            return;
        }
    }
}

/// The text of a raw value that has no escapes.
pub(super) fn plain_text(value: &[u8]) -> Option<&[u8]> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    memchr::memchr(b'\\', inner).is_none().then_some(inner)
}

fn skip_blank(text: &[u8], at: usize) -> usize {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    at + text.get(at..).map_or(0, |rest| rest.iter().take_while(|b| blank(b)).count())
}

/// Behind the closing quote of the text that begins at `at`.
fn text_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Behind the value that begins at `start`.
fn value_end(text: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0u32);
    loop {
        let is_outside = depth == 0 && at > start;
        match text.get(at)? {
            b'"' => at = text_end(text, at)?,
            b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => {
                return is_outside.then_some(at);
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ => at += 1,
        }
        if depth == 0 && matches!(text[at - 1], b'"' | b'}' | b']') {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, String)> {
        let mut all = Vec::new();
        members(text.as_bytes(), &mut |name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            all.push((text(name), text(value)));
            true
        });
        all
    }

    #[test]
    fn members_are_those_of_the_outermost_object() {
        let text = r#" { "a" : "x\"}" , "b":{"c":[1,{"d":"]"}]},"e":-1.5e3 ,"f":[],"g":null}"#;
        let pairs = [
            ("a", r#""x\"}""#),
            ("b", r#"{"c":[1,{"d":"]"}]}"#),
            ("e", "-1.5e3"),
            ("f", "[]"),
            ("g", "null"),
        ];
        let want: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(found(text), want);
        for other in ["", "{", "{}", "[1]", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":"x"#, r#"{"a":{"b":1}"#] {
            assert!(found(other).len() <= usize::from(other.ends_with('}')), "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whole_objects_give_the_members_that_a_parser_finds(
            members in proptest::collection::btree_map("[a-z]{1,3}", "[a-z\"\\\\{}\\[\\],: ]{0,8}", 0..6),
        ) {
            let object: serde_json::Map<String, serde_json::Value> = members
                .iter()
                .map(|(name, text)| (name.clone(), serde_json::json!({ "x": [text, 1] })))
                .collect();
            let text = serde_json::Value::Object(object.clone()).to_string();
            let found = found(&text);
            proptest::prop_assert_eq!(found.len(), object.len());
            for (name, value) in found {
                proptest::prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&value).unwrap(), &object[&name]);
            }
        }

        #[test]
        fn nothing_panics(text in "[{}\\[\\]\":,a0\\\\ ]{0,40}") {
            found(&text);
        }
    }
}
