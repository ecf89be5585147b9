//! The conditions of a query, each with a number.

use std::sync::Arc;

use binnacle_model::log::Field;
use binnacle_model::log_query::{LineTest, LogQuery, LogRegex, Test};

use super::any::{AnyOf, is_one_of_many};
use super::narrow::probes;
use super::needle::Needle;
use super::probe::Probe;
use super::regexes::Needs;

/// A query whose conditions are numbers.
#[derive(Debug)]
pub(super) enum Node {
    All,
    Leaf(usize),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
}

/// A condition.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) query: LogQuery,
    /// What must stand in a message that the expression matches.
    pub(super) needs: Option<Needs>,
    /// The bytes that the condition asks for, or of which its expression needs one.
    pub(super) needles: Vec<Needle>,
    /// What it may ask of single variables, and the number of the first of these among those of all conditions.
    pub(super) probes: Vec<Probe>,
    /// Bits of the kinds of cells that may hold each of these.
    pub(super) kinds: Vec<u16>,
    pub(super) first_probe: usize,
}

/// The query with its conditions numbered, which come to `leaves`.
pub(super) fn number(query: &LogQuery, leaves: &mut Vec<Leaf>) -> Node {
    match query {
        LogQuery::All => Node::All,
        LogQuery::And(parts) => {
            // Not this and not that is not one of them.
            let (mut tests, mut others) = (Vec::new(), Vec::new());
            for part in parts {
                match part {
                    LogQuery::Not(not) if is_one_of_many(not) => tests.push(&**not),
                    other => others.push(other),
                }
            }
            if tests.len() < 2 {
                return Node::And(parts.iter().map(|part| number(part, leaves)).collect());
            }
            let mut nodes: Vec<Node> = others.into_iter().map(|part| number(part, leaves)).collect();
            nodes.push(Node::Not(Box::new(one_of(&tests, leaves))));
            Node::And(nodes)
        }
        LogQuery::Or(parts) => {
            let (tests, others): (Vec<&LogQuery>, Vec<_>) =
                parts.iter().partition(|part| is_one_of_many(part));
            if tests.len() < 2 {
                return Node::Or(parts.iter().map(|part| number(part, leaves)).collect());
            }
            let one = one_of(&tests, leaves);
            if others.is_empty() {
                return one;
            }
            Node::Or([one].into_iter().chain(others.into_iter().map(|part| number(part, leaves))).collect())
        }
        LogQuery::Not(part) => Node::Not(Box::new(number(part, leaves))),
        leaf => {
            let needs = regex_of(leaf).and_then(Needs::of);
            let one_of = needs.as_ref().map_or(&[][..], |needs| &needs.one_of);
            let needles = match leaf {
                LogQuery::Line(LineTest::Contains(needle)) => vec![Needle::new(needle)],
                _ => one_of.iter().map(|needle| Needle::new(needle)).collect(),
            };
            let probes = probes(leaf, one_of);
            add_leaf(leaves, Leaf { query: leaf.clone(), needs, needles, ..Leaf::with(probes) })
        }
    }
}

/// Conditions of which one has to hold, and that words decide one by one, as a single one.
fn one_of(parts: &[&LogQuery], leaves: &mut Vec<Leaf>) -> Node {
    let test = |part: &&LogQuery| match part {
        LogQuery::Value { test, .. } => Some(test.clone()),
        _ => None,
    };
    let any = AnyOf::new(parts.iter().filter_map(test).collect());
    let query = LogQuery::Or(parts.iter().map(|part| (*part).clone()).collect());
    add_leaf(leaves, Leaf { query, ..Leaf::with(vec![Probe::AnyWord(Arc::new(any))]) })
}

fn add_leaf(leaves: &mut Vec<Leaf>, leaf: Leaf) -> Node {
    let first_probe = leaves.last().map_or(0, |last: &Leaf| last.first_probe + last.probes.len());
    leaves.push(Leaf { first_probe, ..leaf });
    Node::Leaf(leaves.len() - 1)
}

impl Leaf {
    fn with(probes: Vec<Probe>) -> Self {
        let kinds = probes.iter().map(Probe::kinds).collect();
        Self { query: LogQuery::All, needs: None, needles: Vec::new(), probes, kinds, first_probe: 0 }
    }

    /// How many conditions it is.
    pub(super) fn tests(&self) -> usize {
        match &self.query {
            LogQuery::Or(parts) => parts.len(),
            _ => 1,
        }
    }
}

/// The expression over the message that a condition is.
pub(super) fn regex_of(query: &LogQuery) -> Option<&LogRegex> {
    match query {
        LogQuery::Line(LineTest::Regex(regex))
        | LogQuery::Value { field: Field::Message, test: Test::Regex(regex) } => Some(regex),
        _ => None,
    }
}
