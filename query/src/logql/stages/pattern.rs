//! Patterns: `<ip> - <_> "<method> <_>"`, as a parser and as a line filter.

use super::super::row::Row;

/// Parts of one pattern.
const MAX_PARTS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    /// `None` for `<_>`.
    Capture(Option<String>),
}

/// Parts in their order, no two captures side by side.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut found: Vec<Part> = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((name, behind)) = capture(rest) {
            if !literal.is_empty() {
                found.push(Part::Literal(std::mem::take(&mut literal).into_bytes()));
            }
            if matches!(found.last(), Some(Part::Capture(_))) {
                return Err(format!(
                    "found consecutive capture \"<{name}>\": literals must be between captures"
                ));
            }
            found.push(Part::Capture((name != "_").then(|| name.to_owned())));
            rest = behind;
        } else {
            literal.push(c);
            rest = &rest[c.len_utf8()..];
        }
        if found.len() > MAX_PARTS {
            return Err(format!("pattern has more than {MAX_PARTS} parts"));
        }
    }
    if !literal.is_empty() {
        found.push(Part::Literal(literal.into_bytes()));
    }
    Ok(found)
}

/// The name in `<name>`, and what stands behind it.
fn capture(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('<')?;
    let length = inner.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (name, rest) = inner.split_at(length);
    let is_name = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    Some((name, rest.strip_prefix('>')?)).filter(|_| is_name)
}

fn find(line: &[u8], literal: &[u8]) -> Option<usize> {
    memchr::memmem::find(line, literal)
}

/// Makes labels of what stands between literals.
#[derive(Debug, Clone)]
pub(in crate::logql) struct PatternParser {
    pub(in crate::logql) text: String,
    parts: Vec<Part>,
}

impl PatternParser {
    pub(in crate::logql) fn new(text: &str) -> Result<Self, String> {
        let parts = parts(text)?;
        let names: Vec<&String> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Capture(name) => name.as_ref(),
                Part::Literal(_) => None,
            })
            .collect();
        if names.is_empty() {
            return Err("at least one capture is required".to_owned());
        }
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(format!("duplicate capture name {:?}", twice.1));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    pub(super) fn apply(&self, row: &mut Row<'_>) {
        for (name, value) in self.captures(row.line()) {
            row.extract(&name, &value);
        }
    }

    fn captures(&self, line: &[u8]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let (mut rest, mut parts) = (line, self.parts.as_slice());
        if let Some(Part::Literal(literal)) = parts.first() {
            let Some(behind) = rest.strip_prefix(literal.as_slice()) else { return found };
            (rest, parts) = (behind, &parts[1..]);
        }
        let mut keep = |name: &Option<String>, value: &[u8]| {
            found.extend(
                name.as_ref().map(|name| (name.clone(), String::from_utf8_lossy(value).into_owned())),
            );
        };
        while let Some(Part::Capture(name)) = parts.first() {
            let Some(Part::Literal(literal)) = parts.get(1) else {
                keep(name, rest);
                break;
            };
            // As in Loki: where the literal is missing, the rest is the capture, and nothing comes behind it.
            let Some(end) = find(rest, literal) else {
                keep(name, rest);
                break;
            };
            keep(name, &rest[..end]);
            (rest, parts) = (&rest[end + literal.len()..], &parts[2..]);
        }
        found
    }
}

/// Tests whether all of a line looks like a pattern (`|>`).
#[derive(Debug, Clone)]
pub(in crate::logql) struct LinePattern {
    pub(in crate::logql) text: String,
    parts: Vec<Part>,
}

impl LinePattern {
    pub(in crate::logql) fn new(text: &str) -> Result<Self, String> {
        let parts = parts(text)?;
        if parts.iter().any(|part| matches!(part, Part::Capture(Some(_)))) {
            return Err("named captures are not allowed in a line filter; write <_>".to_owned());
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The texts that must stand in a line, in this order.
    pub(in crate::logql) fn literals(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(literal) => Some(literal.as_slice()),
            Part::Capture(_) => None,
        })
    }

    pub(in crate::logql) fn is_match(&self, line: &[u8]) -> bool {
        if line.is_empty() || self.parts.is_empty() {
            return line.is_empty() && self.parts.is_empty();
        }
        let mut rest = line;
        for (at, part) in self.parts.iter().enumerate() {
            let Part::Literal(literal) = part else { continue };
            match find(rest, literal) {
                // What `<_>` stands for is not empty, and a literal at the beginning has nothing before it.
                Some(start) if (start == 0) == (at == 0) => rest = &rest[start + literal.len()..],
                _ => return false,
            }
        }
        let is_open = matches!(self.parts.last(), Some(Part::Capture(_)));
        is_open != rest.is_empty()
    }
}
