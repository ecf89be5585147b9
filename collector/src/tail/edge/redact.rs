//! Secrets, taken out of messages before they leave the node.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::packed;
use regex::bytes::{Captures, Regex, RegexBuilder};

/// What is known without a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Keys of clouds and services by their shapes, and private keys in PEM.
    Keys,
    /// JSON web tokens, what follows `Bearer` and `Basic`, and values of passwords and secrets.
    Tokens,
    /// Numbers of payment cards, by shape and check digit.
    Cards,
    /// Addresses of e-mail.
    Emails,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Keys, Self::Tokens, Self::Cards, Self::Emails];

    /// By its name in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Its name in the configuration, and in what stands for what was taken out.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Tokens => "tokens",
            Self::Cards => "cards",
            Self::Emails => "emails",
        }
    }

    /// Of its group `secret`, or all that fits.
    fn pattern(self) -> &'static str {
        match self {
            Self::Keys => {
                r"(?x)\b(?:AKIA|ASIA)[0-9A-Z]{16}\b | \bAIza[0-9A-Za-z_-]{35} | \bgh[pousr]_[0-9A-Za-z]{36,255}
                | \bgithub_pat_[0-9A-Za-z_]{22,255} | \bglpat-[0-9A-Za-z_-]{20,255} | \bxox[abposr]-[0-9A-Za-z-]{10,255}
                | \b[sr]k_(?:live|test)_[0-9A-Za-z]{16,255} | \bSG\.[0-9A-Za-z_-]{16,64}\.[0-9A-Za-z_-]{16,128}
                | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----[^-]*(?:-----END\ [A-Z\ ]*PRIVATE\ KEY-----)?"
            }
            Self::Tokens => {
                r#"(?xi-u)\beyJ[0-9a-z_-]{8,}\.[0-9a-z_-]{8,}\.[0-9a-z_-]* | \b(?:bearer|basic)\ +(?P<secret>[0-9a-z._~+/=-]{8,})
                | \b[a-z0-9_.-]*(?:password|passwd|secret|token|api_?key|apikey|private_?key|credential)s?["']?\s*[:=]\s*
                  (?:"(?P<quoted>[^"]{1,4096})"|'(?P<single>[^']{1,4096})'|(?P<bare>[^\s"',;&}\]<]{1,4096}))"#
            }
            Self::Cards => r"\b[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}\b|\b3[47]\d{2}[ -]?\d{6}[ -]?\d{5}\b",
            Self::Emails => r"(?i)\b[a-z0-9][a-z0-9._%+-]{0,63}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}\b",
        }
    }

    /// One of these is in each message that the pattern fits, in whatever case; none says that it must be tried.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Keys => &[
                "AKIA",
                "ASIA",
                "AIza",
                "ghp_",
                "gho_",
                "ghu_",
                "ghs_",
                "ghr_",
                "github_pat_",
                "glpat-",
                "xox",
                "k_live_",
                "k_test_",
                "SG.",
                "PRIVATE KEY",
            ],
            Self::Emails => &["@"],
            Self::Tokens | Self::Cards => &[],
        }
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Redaction {
    regex: Regex,
    words: Option<packed::Searcher>,
    /// What stands in the place; `$1` and `${name}` are groups.
    replacement: Vec<u8>,
    builtin: Option<Builtin>,
}

/// Rules, in their order.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    rules: Vec<Redaction>,
}

/// Largest compiled pattern of a user.
const PATTERN_MAX_BYTES: usize = 1 << 20;

static BUILTINS: LazyLock<Vec<(Builtin, Regex)>> = LazyLock::new(|| {
    // A test builds them all.
    let built = |one: Builtin| Some((one, Regex::new(one.pattern()).ok()?));
    Builtin::ALL.into_iter().filter_map(built).collect()
});

impl Redaction {
    /// A rule that is built in; what it finds becomes `<redacted:NAME>`.
    pub fn builtin(one: Builtin) -> Option<Self> {
        let regex = BUILTINS.iter().find(|(known, _)| *known == one)?.1.clone();
        let words = packed::Searcher::new(one.words()).filter(|_| !one.words().is_empty());
        let replacement = format!("<redacted:{}>", one.name()).into_bytes();
        Some(Self { regex, words, replacement, builtin: Some(one) })
    }

    /// A rule of the configuration.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn rule(pattern: &str, replacement: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(pattern).size_limit(PATTERN_MAX_BYTES).build();
        let regex = regex.map_err(|error| error.to_string())?;
        if regex.is_match(b"") {
            return Err("it fits an empty text, and so everywhere".to_owned());
        }
        let replacement = replacement.as_bytes().to_vec();
        Ok(Self { regex, words: None, replacement, builtin: None })
    }

    /// What of a match is taken out, or `None` if it only looks like a secret.
    fn place(&self, found: &Captures<'_>) -> Option<Range<usize>> {
        let whole = found.get(0)?;
        match self.builtin {
            Some(Builtin::Tokens) => {
                let groups = ["secret", "quoted", "single", "bare"];
                let inner = groups.iter().find_map(|group| found.name(group));
                let place = inner.map_or(whole.range(), |inner| inner.range());
                // What another rule took out already, and values that hide themselves.
                let text = inner.map_or(whole.as_bytes(), |inner| inner.as_bytes());
                let hides = text.starts_with(b"<redacted") || text.iter().all(|b| *b == b'*');
                (!hides && !matches!(text, b"null" | b"true" | b"false" | b"nil" | b"none")).then_some(place)
            }
            Some(Builtin::Cards) => has_check_digit(whole.as_bytes()).then(|| whole.range()),
            _ => Some(whole.range()),
        }
    }

    fn apply<'a>(&self, message: Cow<'a, [u8]>) -> (Cow<'a, [u8]>, u64) {
        if self.words.as_ref().is_some_and(|words| words.find(&*message).is_none()) {
            return (message, 0);
        }
        let (mut out, mut at, mut count) = (Vec::new(), 0, 0);
        for found in self.regex.captures_iter(&message) {
            let Some(place) = self.place(&found) else { continue };
            out.extend_from_slice(&message[at..place.start]);
            match self.builtin {
                Some(_) => out.extend_from_slice(&self.replacement),
                None => found.expand(&self.replacement, &mut out),
            }
            (at, count) = (place.end, count + 1);
        }
        if count == 0 {
            return (message, 0);
        }
        out.extend_from_slice(&message[at..]);
        (Cow::Owned(out), count)
    }
}

impl Redactor {
    /// These rules, one after the other.
    pub fn new(rules: Vec<Redaction>) -> Self {
        Self { rules }
    }

    /// The message as it may leave, and how much was taken out.
    pub fn redact<'a>(&self, message: &'a [u8]) -> (Cow<'a, [u8]>, u64) {
        let mut count = 0;
        let mut kept = Cow::Borrowed(message);
        for rule in &self.rules {
            let (next, found) = rule.apply(kept);
            (kept, count) = (next, count + found);
        }
        (kept, count)
    }
}

/// Luhn's check, over 13 to 19 digits.
fn has_check_digit(text: &[u8]) -> bool {
    let digits: Vec<u32> = text.iter().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0')).collect();
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(at, d)| if at % 2 == 1 { doubled(*d) } else { *d }).sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Redactor {
        Redactor::new(Builtin::ALL.into_iter().map(|one| Redaction::builtin(one).unwrap()).collect())
    }

    fn redacted(message: &str) -> String {
        String::from_utf8(all().redact(message.as_bytes()).0.into_owned()).unwrap()
    }

    #[test]
    fn secrets_of_known_shapes_are_taken_out() {
        for (message, want) in [
            ("key AKIAIOSFODNN7EXAMPLE used", "key <redacted:keys> used"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nx", "<redacted:keys>\nx"),
            ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer <redacted:tokens>"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig", "jwt <redacted:tokens>"),
            (
                r#"{"user":"a","password":"s3cret, x","n":1}"#,
                r#"{"user":"a","password":"<redacted:tokens>","n":1}"#,
            ),
            ("db_password=hunter2&x=1", "db_password=<redacted:tokens>&x=1"),
            ("paid with 4111 1111 1111 1111 today", "paid with <redacted:cards> today"),
            ("amex 378282246310005.", "amex <redacted:cards>."),
            ("mail to Jane.Doe+x@example.co.uk now", "mail to <redacted:emails> now"),
        ] {
            assert_eq!(redacted(message), want);
        }
    }

    #[test]
    fn other_messages_are_not_even_copied() {
        for message in [
            "order 4111 1111 1111 1112 shipped",
            "trace 1234567890123456789012345",
            "password: ****",
            "token=null",
            "user@localhost",
            "GET /tokens 200",
            "",
            "\u{0}\u{fffd}",
        ] {
            let redactor = all();
            let (kept, count) = redactor.redact(message.as_bytes());
            assert!(matches!(kept, Cow::Borrowed(_)) && count == 0, "{message}");
        }
        assert_eq!(all().redact(b"\xff AKIAIOSFODNN7EXAMPLE \xfe").0, &b"\xff <redacted:keys> \xfe"[..]);
    }

    #[test]
    fn rules_of_users_may_keep_groups() {
        let rule = Redaction::rule(r"(customer=)\w+", "${1}…").unwrap();
        let redactor = Redactor::new(vec![rule]);
        let (kept, count) = redactor.redact(b"a customer=bob customer=eve");
        assert_eq!((String::from_utf8_lossy(&kept).as_ref(), count), ("a customer=… customer=…", 2));
        assert!(Redaction::rule("(", "").is_err());
        assert!(Redaction::rule("x*", "").unwrap_err().contains("empty text"));
        assert_eq!(Builtin::named("cards"), Some(Builtin::Cards));
        assert_eq!(Builtin::named("x"), None);
    }
}
