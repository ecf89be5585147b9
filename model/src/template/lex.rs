//! From text to tokens: plain text, and what stands between `{{` and `}}`.

/// A token, where it begins, and whether blanks stand before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
    /// Blanks tell `.a .b`, two operands, from `.a.b`, one.
    pub(super) is_spaced: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Plain text, trimmed where an action asks for it.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$` or `$name`, with its sign.
    Variable(String),
    /// A function's name.
    Identifier(String),
    /// `if`, `range`, …
    Keyword(&'static str),
    /// `true` or `false`
    Bool(bool),
    /// As written.
    Number(String),
    /// A character's number, and as it is written.
    Char(i64, String),
    /// What a quoted text says, and as it is written.
    Quoted(String, String),
    /// `nil`
    Nil,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `|`
    Bar,
    /// `(`
    Left,
    /// `)`
    Right,
    /// `,`
    Comma,
    /// The end of the text.
    End,
}

const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// All tokens, the last of which is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, (usize, String)> {
    let mut lexer = Lexer { text, at: 0, found: Vec::new() };
    let mut trims = false;
    loop {
        let rest = &text[lexer.at..];
        let open = rest.find("{{");
        let plain = &rest[..open.unwrap_or(rest.len())];
        let trimmed = if trims { plain.trim_start_matches(BLANKS) } else { plain };
        let begin = lexer.at + plain.len() - trimmed.len();
        let trims_before = open.is_some_and(|open| is_trim(&rest[open + 2..]));
        let trimmed = if trims_before { trimmed.trim_end_matches(BLANKS) } else { trimmed };
        if !trimmed.is_empty() {
            lexer.found.push(Token { kind: Kind::Text(trimmed.to_owned()), at: begin, is_spaced: false });
        }
        let Some(open) = open else {
            lexer.at = text.len();
            lexer.push(Kind::End, lexer.at, false);
            return Ok(lexer.found);
        };
        let action = lexer.at + open;
        lexer.at = action + 2 + if trims_before { 2 } else { 0 };
        trims = if text[lexer.at..].starts_with("/*") { lexer.comment()? } else { lexer.action(action)? };
    }
}

/// Whether an action begins with `- `.
fn is_trim(action: &str) -> bool {
    action.strip_prefix('-').is_some_and(|rest| rest.starts_with(BLANKS))
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    found: Vec<Token>,
}

impl Lexer<'_> {
    fn push(&mut self, kind: Kind, at: usize, is_spaced: bool) {
        self.found.push(Token { kind, at, is_spaced });
    }

    /// Goes beyond a comment's `}}`; answers whether the text behind it is trimmed.
    fn comment(&mut self) -> Result<bool, (usize, String)> {
        let begin = self.at;
        let rest = &self.text[begin..];
        let end = rest.find("*/").ok_or_else(|| (begin, "unclosed comment".to_owned()))? + 2;
        let behind = &rest[end..];
        if behind.starts_with("}}") {
            self.at = begin + end + 2;
            return Ok(false);
        }
        let trimmed = behind.strip_prefix(BLANKS).and_then(|behind| behind.strip_prefix("-}}"));
        if trimmed.is_none() {
            return Err((begin, "comment ends before closing delimiter".to_owned()));
        }
        self.at = begin + end + 4;
        Ok(true)
    }

    /// Tokens up to `}}`; answers whether the text behind it is trimmed.
    fn action(&mut self, open: usize) -> Result<bool, (usize, String)> {
        self.push(Kind::Open, open, false);
        let mut depth = 0usize;
        loop {
            let blanks = self.at;
            let rest = &self.text[self.at..];
            let solid = rest.trim_start_matches(BLANKS);
            self.at += rest.len() - solid.len();
            let is_spaced = self.at > blanks;
            let at = self.at;
            let trims = is_spaced && solid.starts_with("-}}");
            if trims || solid.starts_with("}}") {
                if depth > 0 {
                    return Err((at, "unclosed left paren".to_owned()));
                }
                self.push(Kind::Close, at, is_spaced);
                self.at += if trims { 3 } else { 2 };
                return Ok(trims);
            }
            let kind = self.token(solid)?;
            match kind {
                Kind::Left => depth += 1,
                Kind::Right if depth == 0 => return Err((at, "unexpected right paren".to_owned())),
                Kind::Right => depth -= 1,
                _ => {}
            }
            self.push(kind, at, is_spaced);
        }
    }

    /// The token that `rest` begins with; goes beyond it.
    fn token(&mut self, rest: &str) -> Result<Kind, (usize, String)> {
        let at = self.at;
        let Some(first) = rest.chars().next() else {
            return Err((at, "unclosed action".to_owned()));
        };
        let single = match first {
            '=' => Some(Kind::Assign),
            '|' => Some(Kind::Bar),
            '(' => Some(Kind::Left),
            ')' => Some(Kind::Right),
            ',' => Some(Kind::Comma),
            _ => None,
        };
        if let Some(kind) = single {
            self.at += 1;
            return Ok(kind);
        }
        match first {
            ':' if rest.starts_with(":=") => {
                self.at += 2;
                Ok(Kind::Declare)
            }
            ':' => Err((at, "expected :=".to_owned())),
            '"' => self.quoted(rest),
            '`' => {
                let end = rest[1..].find('`').ok_or((at, "unterminated raw quoted string".to_owned()))?;
                self.at += end + 2;
                let inner = rest[1..=end].to_owned();
                Ok(Kind::Quoted(inner, rest[..end + 2].to_owned()))
            }
            '\'' => self.character(rest),
            '$' => {
                let end = word_end(&rest[1..]) + 1;
                self.word(rest, end, Kind::Variable(rest[..end].to_owned()))
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let end = word_end(&rest[1..]) + 1;
                let kind = if end == 1 { Kind::Dot } else { Kind::Field(rest[1..end].to_owned()) };
                self.word(rest, end, kind)
            }
            '+' | '-' | '.' | '0'..='9' => Ok(self.number(rest)),
            c if is_word(c) => {
                let end = word_end(rest);
                let kind = match &rest[..end] {
                    "true" => Kind::Bool(true),
                    "false" => Kind::Bool(false),
                    "nil" => Kind::Nil,
                    word => match KEYWORDS.iter().find(|keyword| **keyword == word) {
                        Some(keyword) => Kind::Keyword(keyword),
                        None => Kind::Identifier(word.to_owned()),
                    },
                };
                self.word(rest, end, kind)
            }
            other => Err((at, format!("unrecognized character in action: {}", code_point(other)))),
        }
    }

    /// A word, behind which only certain characters may stand.
    fn word(&mut self, rest: &str, end: usize, kind: Kind) -> Result<Kind, (usize, String)> {
        let behind = &rest[end..];
        let next = behind.chars().next();
        let ends = next.is_none_or(|c| BLANKS.contains(&c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '('));
        if !ends && !behind.starts_with("}}") && kind != Kind::Dot {
            let next = code_point(next.unwrap_or(' '));
            return Err((self.at, format!("bad character {next}")));
        }
        self.at += end;
        Ok(kind)
    }

    fn number(&mut self, rest: &str) -> Kind {
        let is_part = |(at, c): (usize, char)| {
            let before = &rest[..at];
            let is_hex =
                before.trim_start_matches(['+', '-']).starts_with(['0']) && before.contains(['x', 'X']);
            let exponent = if is_hex { before.ends_with(['p', 'P']) } else { before.ends_with(['e', 'E']) };
            c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_')
                || (matches!(c, '+' | '-') && (at == 0 || exponent))
        };
        let end = rest.char_indices().find(|part| !is_part(*part)).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        Kind::Number(rest[..end].to_owned())
    }

    fn quoted(&mut self, rest: &str) -> Result<Kind, (usize, String)> {
        let end = quote_end(rest, '"').ok_or((self.at, "unterminated quoted string".to_owned()))?;
        let written = &rest[..end];
        let text = unquote(&written[1..end - 1]).ok_or((self.at, "invalid syntax".to_owned()))?;
        self.at += end;
        Ok(Kind::Quoted(text, written.to_owned()))
    }

    fn character(&mut self, rest: &str) -> Result<Kind, (usize, String)> {
        let end = quote_end(rest, '\'').ok_or((self.at, "unterminated character constant".to_owned()))?;
        let malformed = || (self.at, format!("malformed character constant: {}", &rest[..end]));
        let text = unquote(&rest[1..end - 1]).ok_or_else(malformed)?;
        let mut chars = text.chars();
        let (Some(only), None) = (chars.next(), chars.next()) else { return Err(malformed()) };
        self.at += end;
        Ok(Kind::Char(i64::from(u32::from(only)), rest[..end].to_owned()))
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn word_end(text: &str) -> usize {
    text.find(|c: char| !is_word(c)).unwrap_or(text.len())
}

fn code_point(c: char) -> String {
    format!("U+{:04X} {c:?}", u32::from(c))
}

/// Behind the quote that ends the text which `rest` begins with; not over lines.
fn quote_end(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' => return None,
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Go's escapes.
fn unquote(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        let mut number = |digits: usize, radix: u32, first: &str| -> Option<u32> {
            let text = rest.get(..digits)?;
            let found = u32::from_str_radix(&format!("{first}{text}"), radix).ok();
            rest = &rest[digits..];
            found
        };
        let byte = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '\'' | '"' => escape as u8,
            'x' => number(2, 16, "")? as u8,
            '0'..='7' => u8::try_from(number(2, 8, &escape.to_string())?).ok()?,
            'u' | 'U' => {
                let c = char::from_u32(number(if escape == 'u' { 4 } else { 8 }, 16, "")?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        out.push(byte);
    }
    out.extend_from_slice(rest.as_bytes());
    Some(String::from_utf8_lossy(&out).into_owned())
}
