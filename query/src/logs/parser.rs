//! From text in Lucene's syntax to a [`LogQuery`].
//!
//! ```text
//! or      := and (("OR" | "||") and)*
//! and     := not (("AND" | "&&")? not)*         words side by side must all be there
//! not     := ("NOT" | "-" | "!")* primary
//! primary := "(" or ")" | field ":" value | text | "*"
//! value   := "(" or ")" | range | text | "*"    the field holds for all within the parentheses
//! range   := ("[" | "{") bound "TO" bound ("]" | "}") | (">" | ">=" | "<" | "<=") number
//! text    := "\"" … "\"" | word | word"*"
//! ```

use std::ops::Bound;

use binnacle_model::log::Field;
use binnacle_model::log_query::LogQuery;
use binnacle_model::tokens::words;

/// Longest query in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// Parentheses and negations within one another.
const MAX_DEPTH: usize = 64;
/// Conditions in one query.
const MAX_CLAUSES: usize = 1024;

/// A query as it was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedQuery {
    /// What to look for.
    pub query: LogQuery,
    /// What the writer should know: that their text was taken as a phrase, and why.
    pub hint: Option<String>,
}

/// A query that is refused, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log query {0}")]
pub struct QueryTooLarge(String);

/// Why text is no query, and where.
enum Failure {
    Syntax { at: usize, reason: String },
    TooLarge(String),
}

/// Reads a query. Text without meaning as a query becomes a phrase, with a hint.
pub fn parse(text: &str) -> Result<ParsedQuery, QueryTooLarge> {
    if text.len() > MAX_BYTES {
        return Err(QueryTooLarge(format!("is longer than {MAX_BYTES} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(ParsedQuery { query: LogQuery::All, hint: None });
    }
    let mut parser = Parser { text, at: 0, depth: 0, clauses: 0, field: None };
    let parsed = parser.or().and_then(|query| {
        parser.skip_spaces();
        if parser.at < text.len() { Err(parser.fail("unexpected closing bracket")) } else { Ok(query) }
    });
    match parsed {
        Ok(query) => {
            let wordless = wordless(&query).map(|text| {
                format!("{text:?} holds no letter or digit to search for; it matches every message")
            });
            Ok(ParsedQuery { query, hint: wordless })
        }
        Err(Failure::TooLarge(reason)) => Err(QueryTooLarge(reason)),
        Err(Failure::Syntax { at, reason }) => {
            let column = text[..at].chars().count() + 1;
            let query = LogQuery::Text { field: Field::Message, text: text.trim().to_owned(), prefix: false };
            let hint = format!("searched for the whole text as a phrase: {reason} at column {column}");
            Ok(ParsedQuery { query, hint: Some(hint) })
        }
    }
}

/// A text without a word that the query wants in messages: the index holds no signs to decide by.
fn wordless(query: &LogQuery) -> Option<&str> {
    match query {
        LogQuery::Text { field: Field::Message, text, .. } => {
            words(text).next().is_none().then_some(text.as_str())
        }
        LogQuery::And(parts) | LogQuery::Or(parts) => parts.iter().find_map(wordless),
        LogQuery::Not(part) => wordless(part),
        LogQuery::All | LogQuery::Text { .. } | LogQuery::Range { .. } | LogQuery::Exists(_) => None,
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    clauses: usize,
    /// The field that holds within the parentheses after `field:`.
    field: Option<Field>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn fail(&self, reason: &str) -> Failure {
        Failure::Syntax { at: self.at, reason: reason.to_owned() }
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// Takes `AND`, `OR` or `NOT`, if it stands there as a word of its own.
    fn takes_word(&mut self, word: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let ends = after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || c == '(');
        if ends {
            self.at += word.len();
        }
        ends
    }

    fn deeper(&mut self) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Failure::TooLarge(format!("is nested deeper than {MAX_DEPTH}")));
        }
        Ok(())
    }

    fn or(&mut self) -> Result<LogQuery, Failure> {
        self.deeper()?;
        let mut parts = vec![self.and()?];
        loop {
            self.skip_spaces();
            if !self.takes_word("OR") && !self.takes("||") {
                break;
            }
            parts.push(self.and()?);
        }
        self.depth -= 1;
        Ok(joined(parts, LogQuery::Or))
    }

    fn and(&mut self) -> Result<LogQuery, Failure> {
        let mut parts = vec![self.not()?];
        loop {
            self.skip_spaces();
            let is_end = self.rest().is_empty() || self.rest().starts_with([')', ']', '}']);
            let before = self.at;
            let is_or = self.takes_word("OR") || self.takes("||");
            self.at = before;
            if is_end || is_or {
                break;
            }
            if !self.takes_word("AND") {
                self.takes("&&");
            }
            parts.push(self.not()?);
        }
        Ok(joined(parts, LogQuery::And))
    }

    fn not(&mut self) -> Result<LogQuery, Failure> {
        self.skip_spaces();
        let is_sign = |rest: &str| {
            let mut chars = rest.chars();
            matches!(chars.next(), Some('-' | '!')) && chars.next().is_some_and(|c| !c.is_whitespace())
        };
        if self.takes_word("NOT") || (is_sign(self.rest()) && (self.takes("-") || self.takes("!"))) {
            self.deeper()?;
            let inner = self.not()?;
            self.depth -= 1;
            return Ok(LogQuery::Not(Box::new(inner)));
        }
        let is_plus = self.rest().starts_with('+') && self.rest().len() > 1;
        if is_plus {
            self.takes("+");
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<LogQuery, Failure> {
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES {
            return Err(Failure::TooLarge(format!("has more than {MAX_CLAUSES} conditions")));
        }
        self.skip_spaces();
        if self.takes("(") {
            return self.closed_group();
        }
        if self.field.is_none()
            && let Some((name, after)) = field_name(self.rest())
        {
            self.at += after;
            let field = if name == "_exists_" { None } else { Some(Field::named(name)) };
            return match field {
                Some(field) => self.value(field),
                None => Ok(LogQuery::Exists(Field::named(&self.plain_word()?))),
            };
        }
        let field = self.field.clone();
        match field {
            Some(field) => self.value(field),
            None => self.text_of(Field::Message),
        }
    }

    fn closed_group(&mut self) -> Result<LogQuery, Failure> {
        let inner = self.or()?;
        self.skip_spaces();
        if self.takes(")") { Ok(inner) } else { Err(self.fail("an open parenthesis is not closed")) }
    }

    fn value(&mut self, field: Field) -> Result<LogQuery, Failure> {
        if self.field.is_none() && self.takes("(") {
            self.field = Some(field);
            let group = self.closed_group();
            self.field = None;
            return group;
        }
        for (sign, low, inclusive) in
            [(">=", true, true), ("<=", false, true), (">", true, false), ("<", false, false)]
        {
            if self.takes(sign) {
                self.skip_spaces();
                let number = self.number()?;
                let bound = if inclusive { Bound::Included(number) } else { Bound::Excluded(number) };
                let (low, high) = if low { (bound, Bound::Unbounded) } else { (Bound::Unbounded, bound) };
                return Ok(LogQuery::Range { field, low, high });
            }
        }
        if self.rest().starts_with(['[', '{']) {
            return self.range(field);
        }
        self.text_of(field)
    }

    fn range(&mut self, field: Field) -> Result<LogQuery, Failure> {
        let low_inclusive = self.rest().starts_with('[');
        self.at += 1;
        let low = self.bound(low_inclusive)?;
        self.skip_spaces();
        if !self.takes_word("TO") {
            return Err(self.fail("a range is written [1 TO 5]; TO is missing"));
        }
        self.skip_spaces();
        let place = self.at;
        let high = self.bound(true)?;
        self.skip_spaces();
        let high = match (self.takes("]"), high) {
            (true, high) => high,
            (false, Bound::Included(high)) if self.takes("}") => Bound::Excluded(high),
            (false, Bound::Unbounded) if self.takes("}") => Bound::Unbounded,
            _ => return Err(Failure::Syntax { at: place, reason: "a range is not closed".to_owned() }),
        };
        Ok(LogQuery::Range { field, low, high })
    }

    fn bound(&mut self, inclusive: bool) -> Result<Bound<f64>, Failure> {
        self.skip_spaces();
        if self.takes("*") {
            return Ok(Bound::Unbounded);
        }
        let number = self.number()?;
        Ok(if inclusive { Bound::Included(number) } else { Bound::Excluded(number) })
    }

    fn number(&mut self) -> Result<f64, Failure> {
        let place = self.at;
        let length = self
            .rest()
            .find(|c: char| c.is_whitespace() || matches!(c, ')' | ']' | '}'))
            .unwrap_or(self.rest().len());
        let word = &self.rest()[..length];
        self.at += length;
        let refuse = || Failure::Syntax {
            at: place,
            reason: format!("{word:?} is no number, and ranges compare numbers"),
        };
        word.parse::<f64>().ok().filter(|number| !number.is_nan()).ok_or_else(refuse)
    }

    fn text_of(&mut self, field: Field) -> Result<LogQuery, Failure> {
        if self.rest().starts_with('"') {
            let text = self.quoted()?;
            return Ok(LogQuery::Text { field, text, prefix: false });
        }
        let place = self.at;
        let word = self.word()?;
        if word.text.is_empty() && !word.prefix {
            return Err(Failure::Syntax { at: place, reason: "a word is missing".to_owned() });
        }
        if word.text.is_empty() {
            return Ok(match field {
                Field::Message => LogQuery::All,
                field => LogQuery::Exists(field),
            });
        }
        Ok(LogQuery::Text { field, text: word.text, prefix: word.prefix })
    }

    fn quoted(&mut self) -> Result<String, Failure> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        Err(Failure::Syntax { at: start, reason: "a quote is not closed".to_owned() })
    }

    fn plain_word(&mut self) -> Result<String, Failure> {
        let word = self.word()?;
        if word.text.is_empty() || word.prefix {
            return Err(self.fail("a field's name is missing"));
        }
        Ok(word.text)
    }

    fn word(&mut self) -> Result<Word, Failure> {
        let mut word = Word { text: String::new(), prefix: false };
        let mut chars = self.rest().char_indices().peekable();
        let mut end = self.rest().len();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c.is_whitespace() => {
                    end = at;
                    break;
                }
                '(' | ')' | '"' | '[' | ']' | '{' | '}' => {
                    end = at;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, c)) => word.text.push(c),
                    None => word.text.push('\\'),
                },
                '*' if chars.peek().is_none_or(|(_, c)| c.is_whitespace() || *c == ')') => {
                    word.prefix = true;
                }
                '*' | '?' => {
                    let reason = "a wildcard may only stand at a word's end (conn*)".to_owned();
                    return Err(Failure::Syntax { at: self.at + at, reason });
                }
                c => word.text.push(c),
            }
        }
        if end == 0 {
            return Err(self.fail("a word was expected"));
        }
        // `a"b"` or `f(x)`: pasted code, not a query.
        if self.rest()[end..].starts_with(['(', '"', '[', '{', '}', ']']) {
            return Err(Failure::Syntax {
                at: self.at + end,
                reason: "a bracket or quote within a word".to_owned(),
            });
        }
        self.at += end;
        Ok(word)
    }
}

struct Word {
    text: String,
    prefix: bool,
}

/// The field before a colon, and where its value begins. Addresses, URLs and drives are no fields.
fn field_name(text: &str) -> Option<(&str, usize)> {
    let colon = text.find(':')?;
    let name = &text[..colon];
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '/');
    let begins = name.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '@');
    let value = &text[colon + 1..];
    let is_url = value.starts_with("//");
    let is_drive = name.len() == 1 && value.starts_with('\\');
    let is_time = value.is_empty() || value.starts_with(char::is_whitespace);
    (begins && name.chars().all(is_part) && !is_url && !is_drive && !is_time).then_some((name, colon + 1))
}

fn joined(mut parts: Vec<LogQuery>, join: impl FnOnce(Vec<LogQuery>) -> LogQuery) -> LogQuery {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints a query so that a test can say what it wants.
    fn show(query: &LogQuery) -> String {
        let field = |field: &Field| match field {
            Field::Message => String::new(),
            Field::Stream(name) => format!("{name}="),
            Field::Parsed(name) => format!("{name}:"),
        };
        let list = |parts: &[LogQuery]| parts.iter().map(show).collect::<Vec<_>>().join(" ");
        match query {
            LogQuery::All => "*".to_owned(),
            LogQuery::Text { field: of, text, prefix } => {
                format!("{}'{text}'{}", field(of), if *prefix { "*" } else { "" })
            }
            LogQuery::Range { field: of, low, high } => format!("{}{low:?}..{high:?}", field(of)),
            LogQuery::Exists(of) => format!("{}exists", field(of)),
            LogQuery::And(parts) => format!("(and {})", list(parts)),
            LogQuery::Or(parts) => format!("(or {})", list(parts)),
            LogQuery::Not(part) => format!("(not {})", show(part)),
        }
    }

    fn check(text: &str, want: &str) {
        let parsed = parse(text).unwrap();
        assert_eq!(show(&parsed.query), want, "{text}");
        assert_eq!(parsed.hint, None, "{text}");
    }

    #[test]
    fn queries_mean_what_lucene_means() {
        check("", "*");
        check("*", "*");
        check("error", "'error'");
        check("conn*", "'conn'*");
        check("\"health check\"", "'health check'");
        check("a b", "(and 'a' 'b')");
        check("a AND b OR c", "(or (and 'a' 'b') 'c')");
        check("a || b && c", "(or 'a' (and 'b' 'c'))");
        check("a OR (b c)", "(or 'a' (and 'b' 'c'))");
        check("NOT a -b !c", "(and (not 'a') (not 'b') (not 'c'))");
        check("level:error", "level='error'");
        check("k8s.namespace.name:shop", "namespace='shop'");
        check("status:>=500", "status:Included(500.0)..Unbounded");
        check("status:[500 TO 599}", "status:Included(500.0)..Excluded(599.0)");
        check("status:{* TO 5]", "status:Unbounded..Included(5.0)");
        check("user.name:*", "user.name:exists");
        check("_exists_:trace_id", "trace_id:exists");
        check(
            "log:(WARN OR ERROR) AND namespace:shop -\"health check\"",
            "(and (or 'WARN' 'ERROR') namespace='shop' (not 'health check'))",
        );
        check("path:/var/log/app", "path:'/var/log/app'");
        check("10.0.0.1:8080", "'10.0.0.1:8080'");
        check("http://foo/bar", "'http://foo/bar'");
        check("foo-bar", "'foo-bar'");
        check("or", "'or'");
        check("pod:web\\ 1", "pod='web 1'");
    }

    #[test]
    fn pasted_text_is_a_phrase_with_a_hint() {
        for text in [
            "{\"json\":1}",
            "\"unclosed",
            "(a",
            "a)",
            "con?ection",
            "c*n",
            "f(x)",
            "a[0]",
            "status:[1 5]",
            "latency:>fast",
            "x = \"y",
            "-",
            "level:",
            "AND",
        ] {
            let parsed = parse(text).unwrap();
            if let LogQuery::Text { text: phrase, .. } = &parsed.query {
                assert_eq!(phrase, text);
            }
        }
        let hint = parse("(a").unwrap().hint.unwrap();
        assert_eq!(
            hint,
            "searched for the whole text as a phrase: an open parenthesis is not closed at column 3"
        );
        assert!(parse("a - b").unwrap().hint.unwrap().contains("no letter or digit"));
        assert!(parse("NOT \u{1f980}").unwrap().hint.is_some());
        assert!(parse("C:\\Windows\\x").unwrap().hint.is_none());
    }

    #[test]
    fn bombs_are_refused() {
        assert!(parse(&"(".repeat(5000)).is_err());
        assert!(parse(&"NOT ".repeat(3000)).is_err());
        assert!(parse(&"a ".repeat(2000)).is_err());
        assert!(parse(&"x".repeat(17_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-c()\\[\\]{}\"\\\\:*?<>=&|!+ \\-TORANDé]{0,40}") {
            let _ = parse(&text);
        }
    }
}
