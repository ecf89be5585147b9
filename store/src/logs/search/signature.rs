//! What a stream decides of a query, and what it leaves.

use binnacle_model::Labels;
use binnacle_model::log::{Field, loki_alias};
use binnacle_model::log_query::LogQuery;

use super::leaves::Node;
use super::plan::Plan;

/// What each condition says of a stream; `None` where the stream does not decide it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Signature(pub(super) Vec<Option<bool>>);

impl Signature {
    pub(super) fn of(plan: &Plan, stream: &Labels) -> Self {
        Self(plan.leaves.iter().map(|leaf| of_stream(&leaf.query, stream)).collect())
    }
}

fn of_stream(query: &LogQuery, stream: &Labels) -> Option<bool> {
    match query {
        LogQuery::Label(matcher) => match loki_alias(&matcher.name) {
            "level" => None,
            name => stream.get(name).map(|value| matcher.matches(value)),
        },
        LogQuery::Value { field: Field::Stream(name), test } if *name != "level" => {
            let value = stream.value(name);
            Some(!value.is_empty() && test.of_keyword(value))
        }
        LogQuery::Exists(Field::Stream(name)) if *name != "level" => Some(!stream.value(name).is_empty()),
        LogQuery::Value { field: Field::Parsed(name), test } => {
            let value = stream.value(name);
            (!value.is_empty() && test.of_text_value(value)).then_some(true)
        }
        LogQuery::Exists(Field::Parsed(name)) => (!stream.value(name).is_empty()).then_some(true),
        _ => None,
    }
}

/// What is left of a query for a kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Known(bool),
    /// One condition that is open.
    Leaf(usize),
    Tree,
}

pub(super) fn left_of(node: &Node, signature: &Signature) -> Left {
    let among = |parts: &[Node], decisive: bool| {
        let mut left = Left::Known(!decisive);
        for part in parts {
            left = match (left, left_of(part, signature)) {
                (_, Left::Known(holds)) if holds == decisive => return Left::Known(decisive),
                (left, Left::Known(_)) => left,
                (Left::Known(_), one) => one,
                _ => Left::Tree,
            };
        }
        left
    };
    match node {
        Node::All => Left::Known(true),
        Node::Leaf(leaf) => signature.0[*leaf].map_or(Left::Leaf(*leaf), Left::Known),
        Node::And(parts) => among(parts, false),
        Node::Or(parts) => among(parts, true),
        Node::Not(part) => match left_of(part, signature) {
            Left::Known(holds) => Left::Known(!holds),
            _ => Left::Tree,
        },
    }
}
