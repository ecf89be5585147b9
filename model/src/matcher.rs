//! Matchers: what a selector says of one label.

use std::fmt;

use regex::Regex;

use crate::labels::{Labels, is_legacy_label_name, quoted};
use crate::regexes::anchored;

/// Compiled size of one regular expression. A query may hold many.
const REGEX_MAX_BYTES: usize = 1024 * 1024;

/// So many words with gaps are looked for one by one.
const WORDS_MAX: usize = 16;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchOp {
    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// One condition on one label. A label that is absent has the value `""`.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label it looks at.
    pub name: String,
    /// How it compares.
    pub op: MatchOp,
    /// What it compares with, as written.
    pub value: String,
    pattern: Pattern,
}

/// Most regular expressions in dashboards are lists of words, or of what they begin or end with; these need no
/// automaton.
#[derive(Debug, Clone)]
enum Pattern {
    /// Ascending.
    Literals(Vec<String>),
    Everything,
    NotEmpty,
    Words(Vec<Word>),
    Regex(Regex),
}

/// One of the alternatives of a regular expression: some text with a gap at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    before: Gap,
    text: String,
    after: Gap,
}

/// What may stand beside a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    Nothing,
    /// `.*`
    Anything,
    /// `.+`
    Something,
}

impl Word {
    fn matches(&self, value: &str) -> bool {
        let mut rest = value.chars();
        // A gap with something in it has any character and then anything.
        if self.before == Gap::Something && rest.next().is_none() {
            return false;
        }
        if self.after == Gap::Something && rest.next_back().is_none() {
            return false;
        }
        let rest = rest.as_str();
        match (self.before, self.after) {
            (Gap::Nothing, Gap::Nothing) => rest == self.text,
            (Gap::Nothing, _) => rest.starts_with(&self.text),
            (_, Gap::Nothing) => rest.ends_with(&self.text),
            _ => rest.contains(&self.text),
        }
    }
}

impl Matcher {
    /// Compiles the matcher.
    ///
    /// # Errors
    /// The text of the regular expression's error; show it to whoever wrote the query.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, String> {
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => Pattern::Literals(vec![value.to_owned()]),
            MatchOp::Regex | MatchOp::NotRegex => compile(value)?,
        };
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), pattern })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            op: MatchOp::Equal,
            value: value.to_owned(),
            pattern: Pattern::Literals(vec![value.to_owned()]),
        }
    }

    /// Whether a label of this value is selected.
    pub fn matches(&self, value: &str) -> bool {
        let found = match &self.pattern {
            Pattern::Literals(words) => words.binary_search_by(|word| (**word).cmp(value)).is_ok(),
            Pattern::Everything => true,
            Pattern::NotEmpty => !value.is_empty(),
            Pattern::Words(words) => words.iter().any(|word| word.matches(value)),
            Pattern::Regex(regex) => regex.is_match(value),
        };
        found == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }

    /// Whether `labels` satisfy the matcher.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.value(&self.name))
    }

    /// The values of which one must be there, if the matcher names them all and none is empty.
    pub fn literals(&self) -> Option<&[String]> {
        match (&self.pattern, self.op) {
            (Pattern::Literals(words), MatchOp::Equal | MatchOp::Regex)
                if words.iter().all(|word| !word.is_empty()) =>
            {
                Some(words)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, value) = (self.op.as_str(), quoted(&self.value));
        if is_legacy_label_name(&self.name) {
            write!(f, "{}{op}{value}", self.name)
        } else {
            write!(f, "{}{op}{value}", quoted(&self.name))
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

/// Whether every one of `matchers` holds.
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches_labels(labels))
}

fn compile(pattern: &str) -> Result<Pattern, String> {
    match pattern {
        ".*" => return Ok(Pattern::Everything),
        ".+" => return Ok(Pattern::NotEmpty),
        _ => {}
    }
    if let Some(words) = words(pattern) {
        let is_whole = |word: &Word| word.before == Gap::Nothing && word.after == Gap::Nothing;
        if words.iter().all(is_whole) {
            let mut literals: Vec<String> = words.into_iter().map(|word| word.text).collect();
            literals.sort_unstable();
            literals.dedup();
            return Ok(Pattern::Literals(literals));
        }
        // One automaton looks for many at once.
        if words.len() <= WORDS_MAX {
            return Ok(Pattern::Words(words));
        }
    }
    anchored(pattern, REGEX_MAX_BYTES)
        .map(Pattern::Regex)
        .map_err(|reason| format!("error parsing regexp {pattern:?}: {reason}"))
}

/// The alternatives of a pattern, perhaps all of them in parentheses, if each is a word with or without gaps.
fn words(pattern: &str) -> Option<Vec<Word>> {
    let inner = pattern.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(pattern);
    let mut words = Vec::new();
    let mut rest = inner;
    loop {
        let (word, behind) = word(rest)?;
        words.push(word);
        match behind.strip_prefix('|') {
            Some(next) => rest = next,
            None => return behind.is_empty().then_some(words),
        }
    }
}

/// The alternative at the beginning of a pattern, and what stands behind it.
fn word(pattern: &str) -> Option<(Word, &str)> {
    let gap = |text: &mut &str| {
        for (written, gap) in [(".*", Gap::Anything), (".+", Gap::Something)] {
            if let Some(behind) = text.strip_prefix(written) {
                *text = behind;
                return gap;
            }
        }
        Gap::Nothing
    };
    let mut rest = pattern;
    let before = gap(&mut rest);
    let mut text = String::new();
    while let Some(c) = rest.chars().next().filter(|c| !"|.".contains(*c)) {
        rest = &rest[c.len_utf8()..];
        if c == '\\' {
            // Before a mark it means the mark, as in Go; before a letter it means something else.
            let mark = rest.chars().next().filter(char::is_ascii_punctuation)?;
            text.push(mark);
            rest = &rest[1..];
        } else if r"+*?()[]{}^$".contains(c) {
            return None;
        } else {
            text.push(c);
        }
    }
    let after = gap(&mut rest);
    // `.*?` is lazy, and `a.b` something else again.
    let is_over = rest.is_empty() || rest.starts_with('|');
    is_over.then_some((Word { before, text, after }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: MatchOp, pattern: &str, value: &str, want: bool) {
        let matcher = Matcher::new("l", op, pattern).unwrap();
        assert_eq!(matcher.matches(value), want, "{matcher} on {value:?}");
    }

    #[test]
    fn regexes_are_anchored() {
        check(MatchOp::Regex, "a.c", "abc", true);
        check(MatchOp::Regex, "a.c", "xabc", false);
        check(MatchOp::Regex, "a.c", "a\nc", true);
        check(MatchOp::Regex, "a|bc", "bc", true);
        check(MatchOp::Regex, "a|b.", "abc", false);
        check(MatchOp::NotRegex, "a|bc", "bc", false);
        check(MatchOp::Regex, ".*", "", true);
        check(MatchOp::Regex, ".+", "", false);
        check(MatchOp::NotRegex, ".+", "", true);
    }

    #[test]
    fn words_need_no_automaton() {
        let is_plain = |pattern: &str| words(pattern).is_some();
        for pattern in ["a-.*|b-.*", "(a|b)", ".*", ".+x.+", r"a\.b.*", "", "a|", "é.+", r"a\|b", ".*.+"] {
            assert!(is_plain(pattern), "{pattern}");
        }
        check(MatchOp::Regex, r"\<b.*", "<bc", true);
        let many: Vec<String> = (0..100).map(|n| format!("a{n}.*")).collect();
        check(MatchOp::Regex, &many.join("|"), "a77b", true);
        check(MatchOp::Regex, &many.join("|"), "b", false);
        for pattern in
            ["a.b", "a+", "a.*?", "(?i)a", "(a)(b)", "a.*b", r"\d", "[a]", "^a", "a$", "x{2}", "a.**"]
        {
            assert!(!is_plain(pattern), "{pattern}");
        }
    }

    proptest::proptest! {
        /// Words match what the regular expression matches.
        #[test]
        fn words_are_regexes(pattern in r"\(?(\.[*+])?[a-cé\\.|)]{0,3}(\.[*+])?(\|(\.[*+])?[ab\n]{0,2}(\.[*+])?)?\)?", value in "[a-cé.|)\n]{0,5}") {
            if let (Some(words), Ok(regex)) = (words(&pattern), anchored(&pattern, 1 << 20)) {
                let found = words.iter().any(|word| word.matches(&value));
                proptest::prop_assert_eq!(found, regex.is_match(&value), "{} on {:?}", pattern, value);
            }
        }
    }

    #[test]
    fn absent_labels_are_empty() {
        let labels = Labels::new([("a", "1")]).unwrap();
        assert!(Matcher::equal("b", "").matches_labels(&labels));
        assert!(!Matcher::equal("a", "").matches_labels(&labels));
    }

    #[test]
    fn literals_are_known_only_where_they_decide() {
        let literals = |op, value| Matcher::new("l", op, value).unwrap().literals().map(<[String]>::to_vec);
        assert_eq!(literals(MatchOp::Regex, "a|b"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(literals(MatchOp::Regex, "a|"), None);
        assert_eq!(literals(MatchOp::NotEqual, "a"), None);
        assert_eq!(literals(MatchOp::Regex, "a.*"), None);
    }

    #[test]
    fn bad_regexes_say_why() {
        let error = Matcher::new("l", MatchOp::Regex, "a(b").unwrap_err();
        assert!(error.contains("unclosed group"), "{error}");
    }
}
