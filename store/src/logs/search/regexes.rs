//! What must stand in a text that a regular expression matches.

use binnacle_model::log_query::LogRegex;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind};

/// With more alternatives it is as well to look at the rows.
const ALTERNATIVES_MAX: usize = 32;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    /// One of these stands in each match; empty if nothing is known.
    pub(super) one_of: Vec<Vec<u8>>,
    /// Whether it looks at what is around a match: line ends, borders of words.
    pub(super) looks_around: bool,
}

impl Needs {
    pub(super) fn of(regex: &LogRegex) -> Option<Self> {
        let hir = ParserBuilder::new().utf8(false).build().parse(regex.translated()).ok()?;
        let looks_around = !hir.properties().look_set().is_empty();
        Some(Self { one_of: required(&hir).unwrap_or_default(), looks_around })
    }
}

/// Texts of which one stands in each match.
fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Concat(parts) => parts
            .iter()
            .filter_map(required)
            .max_by_key(|texts| texts.iter().map(Vec::len).min().unwrap_or(0)),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(required(part)?);
                if all.len() > ALTERNATIVES_MAX {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found() {
        let needs = |pattern: &str| Needs::of(&LogRegex::new(pattern).unwrap()).unwrap();
        let texts = |pattern: &str| -> Vec<String> {
            needs(pattern).one_of.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
        };
        assert_eq!(texts("SKU-12[0-9]+"), ["SKU-12"]);
        assert_eq!(texts("timeout|refused"), ["timeout", "refused"]);
        assert_eq!(texts("a(bc|de)f{2}"), ["bc", "de"]);
        assert!(texts("(abc)?").is_empty() && texts("a|[bc]").is_empty() && texts("(?i)error").is_empty());
        assert!(needs("^a").looks_around && needs(r"\ba").looks_around && !needs("a.b").looks_around);
    }
}
