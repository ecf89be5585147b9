//! Whether the words of a phrase can stand in the messages of a template.

use binnacle_model::log_query::{Phrase, Test};
use binnacle_model::tokens::words;

use super::needle::Verdict;
use crate::logs::template::Template;

/// What a template's messages are made of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Word(String),
    /// Any words, or none.
    Hole,
}

/// The items of a template's messages.
pub(super) fn items(template: &Template) -> Vec<Item> {
    let mut items = Vec::new();
    for (at, piece) in template.pieces().enumerate() {
        if at > 0 {
            items.push(Item::Hole);
        }
        items.extend(words(&String::from_utf8_lossy(piece)).map(|word| Item::Word(word.text)));
    }
    items
}

/// Whether the test of words holds for all messages, for none, or for some. `may_vary` says of each word of a phrase
/// whether it may stand in a variable.
pub(super) fn judge(items: &[Item], test: &Test, may_vary: &dyn Fn(usize) -> bool) -> Verdict {
    let mut has_hole = false;
    for stretch in items.split(|item| *item == Item::Hole) {
        let words: Vec<&str> = stretch.iter().filter_map(Item::word).collect();
        if test.of_words(&words) == Some(true) {
            return Verdict::Yes;
        }
        has_hole |= stretch.len() < items.len();
    }
    if !has_hole {
        return Verdict::No;
    }
    match test {
        Test::Phrase(phrase) => Verdict::of(false).or_look(may_hold(items, phrase, may_vary)),
        Test::Wildcard(_) | Test::Fuzzy { .. } => Verdict::Look,
        _ => Verdict::No,
    }
}

impl Item {
    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Hole => None,
        }
    }
}

impl Verdict {
    fn or_look(self, may: bool) -> Self {
        if may { Self::Look } else { self }
    }
}

/// Whether the phrase fits if holes hold what they may.
fn may_hold(items: &[Item], phrase: &Phrase, may_vary: &dyn Fn(usize) -> bool) -> bool {
    let wanted = phrase.words();
    let count = wanted.len();
    if phrase.slop() > 0 {
        // Words that are in no variable must be constant ones; their places are left to the rows.
        let is_constant = |word: &String| items.iter().any(|item| item.word() == Some(word.as_str()));
        return wanted
            .iter()
            .enumerate()
            .all(|(at, word)| may_vary(at) || is_constant(word) || (phrase.is_prefix() && at + 1 == count));
    }
    // `reached[n]`: the first n words can end where we are.
    let mut reached = vec![false; count + 1];
    reached[0] = true;
    for item in items {
        match item {
            Item::Word(word) => {
                for at in (0..count).rev() {
                    let is_last = at + 1 == count;
                    let fits = if is_last && phrase.is_prefix() {
                        word.starts_with(&wanted[at])
                    } else {
                        *word == wanted[at]
                    };
                    reached[at + 1] = reached[at] && fits;
                }
            }
            Item::Hole => {
                for at in 0..count {
                    reached[at + 1] |= reached[at] && may_vary(at);
                }
            }
        }
        reached[0] = true;
        if reached[count] {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Item> {
        text.split(' ')
            .map(|word| if word == "<>" { Item::Hole } else { Item::Word(word.to_owned()) })
            .collect()
    }

    #[test]
    fn phrases_are_decided_where_they_can_be() {
        for (text, phrase, want) in [
            ("get <> took <> ms", "took", Verdict::Yes),
            ("get <> took <> ms", "took 12", Verdict::Look),
            ("get <> took <> ms", "took 12 ms", Verdict::Look),
            ("get <> took <> ms", "took ms", Verdict::Look),
            ("get <> took <> ms", "get it", Verdict::Look),
            ("get <> took <> ms", "reset peer", Verdict::No),
            ("reset by <>", "reset by peer", Verdict::No),
            ("reset by peer <>", "reset by peer", Verdict::Yes),
            ("reset", "peer", Verdict::No),
        ] {
            let phrase = Phrase::new(phrase);
            let may_vary = |at: usize| !matches!(phrase.words()[at].as_str(), "peer" | "reset");
            let found = judge(&parse(text), &Test::Phrase(phrase.clone()), &may_vary);
            assert_eq!(found, want, "{} in {text}", phrase.text());
        }
    }
}
