//! Patterns with `*` and `?`.

/// A pattern in lower case: `*` stands for any characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wildcard {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    One,
    Any,
}

impl Wildcard {
    /// From pieces of plain text and signs: `Err('*')`, `Err('?')`. A backslash has been resolved by the parser.
    pub fn new(pieces: impl IntoIterator<Item = Result<char, char>>) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for piece in pieces {
            match (piece, parts.last_mut()) {
                (Ok(c), Some(Part::Text(text))) => text.extend(c.to_lowercase()),
                (Ok(c), _) => parts.push(Part::Text(c.to_lowercase().collect())),
                (Err('?'), _) => parts.push(Part::One),
                (Err(_), Some(Part::Any)) => {}
                (Err(_), _) => parts.push(Part::Any),
            }
        }
        Self { parts }
    }

    /// Text that stands at the beginning, with anything behind it.
    pub fn prefix(text: &str) -> Self {
        Self::new(text.chars().map(Ok).chain([Err('*')]))
    }

    /// What [`Self::new`] makes it of.
    pub fn pieces(&self) -> impl Iterator<Item = Result<char, char>> {
        self.parts.iter().flat_map(|part| {
            let (text, sign) = match part {
                Part::Text(text) => (text.as_str(), None),
                Part::One => ("", Some('?')),
                Part::Any => ("", Some('*')),
            };
            text.chars().map(Ok).chain(sign.map(Err))
        })
    }

    /// What every match begins with.
    pub fn literal_prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Pieces that every match contains, in order.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::One | Part::Any => None,
        })
    }

    /// The longest piece that every match contains.
    pub fn longest_literal(&self) -> Option<&str> {
        self.literals().max_by_key(|text| text.len())
    }

    /// Whether the whole of `text`, which is in lower case, fits. Time is `O(text * pattern)` at worst.
    pub fn matches(&self, text: &str) -> bool {
        let (mut part, mut rest) = (0, text);
        // Where to go on if what follows the last `*` does not fit.
        let mut retry: Option<(usize, &str)> = None;
        loop {
            let fits = match self.parts.get(part) {
                None if rest.is_empty() => return true,
                None => None,
                Some(Part::Any) => {
                    part += 1;
                    retry = Some((part, rest));
                    continue;
                }
                Some(Part::One) => skip_char(rest),
                Some(Part::Text(text)) => rest.strip_prefix(text.as_str()),
            };
            if let Some(left) = fits {
                (part, rest) = (part + 1, left);
                continue;
            }
            let Some((from, left)) = retry.and_then(|(from, at)| Some((from, skip_char(at)?))) else {
                return false;
            };
            retry = Some((from, left));
            (part, rest) = (from, left);
        }
    }
}

fn skip_char(text: &str) -> Option<&str> {
    let first = text.chars().next()?;
    Some(&text[first.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wildcard(pattern: &str) -> Wildcard {
        Wildcard::new(pattern.chars().map(|c| if matches!(c, '*' | '?') { Err(c) } else { Ok(c) }))
    }

    #[test]
    fn stars_and_question_marks_stand_for_what_they_should() {
        for (pattern, text, want) in [
            ("conn*", "connection", true),
            ("conn*", "con", false),
            ("*fused", "refused", true),
            ("con?ection", "connection", true),
            ("con?ection", "conection", false),
            ("*a*b*c*", "xxaxxbxxc", true),
            ("*a*b*c", "abcabx", false),
            ("?", "é", true),
            ("??", "é", false),
            ("*", "", true),
            ("É*", "école", true),
            ("a*a*a*a*a*a*b", &"a".repeat(200), false),
        ] {
            assert_eq!(wildcard(pattern).matches(text), want, "{pattern} on {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn it_matches_what_a_regex_matches(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            let want = regex::Regex::new(&regex).unwrap().is_match(&text);
            proptest::prop_assert_eq!(wildcard(&pattern).matches(&text), want);
        }
    }
}
