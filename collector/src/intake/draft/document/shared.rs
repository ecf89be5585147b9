//! What documents of one stream say beside their messages, as far as they say the same.
//!
//! ```text
//! document ─┬─ names and values of one before      the number of that one's list
//!           ├─ its names, some values are others   a list with gaps there, and these values
//!           └─ other names                         a list of its own
//! ```

use binnacle_model::push::{PushField, PushValue, SharedFields};
use serde_json::Number;

use super::super::attributes::number_value;
use super::tree::{Held, Tree};

/// Lists of one stream that are tried; a new one takes the place of the oldest.
const LISTS_MAX: usize = 8;

/// In place of the shape of an attribute that stands beside the document.
const BESIDE: u32 = u32::MAX;

/// A value of an attribute as the document has it.
#[derive(Clone, Copy)]
enum Said<'a> {
    Text(&'a str),
    Number(&'a Number),
    Bool(bool),
}

impl<'a> Said<'a> {
    /// `None` for what is no value by itself.
    fn of(held: &'a Held<'_>) -> Option<Self> {
        match held {
            Held::Text(text) => Some(Self::Text(text)),
            Held::Number(number) => Some(Self::Number(number)),
            Held::Bool(flag) => Some(Self::Bool(*flag)),
            Held::Null | Held::List | Held::Object => None,
        }
    }

    fn is(self, value: &PushValue) -> bool {
        match (self, value) {
            (Self::Text(said), PushValue::Text(text)) => said == text,
            (Self::Bool(said), PushValue::Bool(flag)) => said == *flag,
            (Self::Number(said), PushValue::Int(whole)) => said.as_i64() == Some(*whole),
            // A zero may have a sign.
            (Self::Number(said), PushValue::Float(float)) => {
                matches!(number_value(said), PushValue::Float(said) if said.to_bits() == float.to_bits())
            }
            _ => false,
        }
    }

    fn to_value(self) -> PushValue {
        match self {
            Self::Text(text) => PushValue::Text(text.to_owned()),
            Self::Number(number) => number_value(number),
            Self::Bool(flag) => PushValue::Bool(flag),
        }
    }
}

/// Attributes that documents of a stream share.
#[derive(Debug, Default)]
pub(in super::super) struct Lists {
    known: Vec<List>,
    /// The one that was taken last, which is mostly the next one, too.
    last: usize,
    /// The one that goes next.
    oldest: usize,
}

#[derive(Debug)]
struct List {
    /// Of each attribute.
    shapes: Vec<u32>,
    fields: SharedFields,
    /// Its number in the push, counted from one; zero before it is there as it is now.
    number: u32,
}

/// All that a document says beside its message, in its order.
#[derive(Clone, Copy)]
pub(super) struct Leaves<'d> {
    pub(super) tree: &'d Tree<'d>,
    /// Values of the tree that are neither objects nor lists nor nothing.
    pub(super) nodes: &'d [u32],
    /// What stands behind them.
    pub(super) beside: &'d [(&'d str, &'d str)],
}

impl<'d> Leaves<'d> {
    fn len(&self) -> usize {
        self.nodes.len() + self.beside.len()
    }

    fn shapes(self) -> impl Iterator<Item = u32> {
        let of_tree = self.nodes.iter().map(move |node| self.tree.node(*node).shape);
        of_tree.chain(self.beside.iter().map(|_| BESIDE))
    }

    fn names(self) -> impl Iterator<Item = &'d str> {
        let of_tree = self.nodes.iter().map(move |node| &*self.tree.shape_of(*node).path);
        of_tree.chain(self.beside.iter().map(|(name, _)| *name))
    }

    fn values(self) -> impl Iterator<Item = Said<'d>> {
        let of_tree = self.nodes.iter().filter_map(move |node| Said::of(&self.tree.node(*node).held));
        of_tree.chain(self.beside.iter().map(|(_, text)| Said::Text(text)))
    }
}

impl Lists {
    /// The place of the list that a document has, good until the next one; and the values of its gaps.
    pub(super) fn take(&mut self, leaves: Leaves<'_>) -> (usize, Vec<PushField>) {
        let is_last = self.known.get(self.last).is_some_and(|list| list.has_names(leaves));
        if !is_last {
            let known = self.known.iter().position(|list| list.has_names(leaves));
            self.last = known.unwrap_or_else(|| self.learn(leaves));
        }
        let list = &mut self.known[self.last];
        list.widen(leaves);
        let mut gaps = list.fields.gaps.iter().peekable();
        let mut own = Vec::with_capacity(gaps.len());
        if gaps.peek().is_some() {
            for (at, value) in (0..).zip(leaves.values()) {
                if gaps.next_if(|gap| **gap == at).is_some() {
                    own.push(PushField { name: String::new(), value: Some(value.to_value()) });
                }
            }
        }
        (self.last, own)
    }

    fn learn(&mut self, leaves: Leaves<'_>) -> usize {
        let field = |(name, value): (&str, Said<'_>)| PushField {
            name: name.to_owned(),
            value: Some(value.to_value()),
        };
        let fields = leaves.names().zip(leaves.values()).map(field).collect();
        let list = List {
            shapes: leaves.shapes().collect(),
            fields: SharedFields { fields, gaps: Vec::new() },
            number: 0,
        };
        if self.known.len() < LISTS_MAX {
            self.known.push(list);
            return self.known.len() - 1;
        }
        let at = self.oldest;
        self.oldest = (at + 1) % LISTS_MAX;
        self.known[at] = list;
        at
    }

    /// The number of a list in a push, which gets it if it does not have it yet; and how many attributes it has.
    pub(in super::super) fn number(&mut self, at: usize, of_push: &mut Vec<SharedFields>) -> (u32, usize) {
        let list = &mut self.known[at];
        if list.number == 0 {
            of_push.push(list.fields.clone());
            list.number = of_push.len() as u32;
        }
        (list.number, list.shapes.len())
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn fields(&self, at: usize) -> &SharedFields {
        &self.known[at].fields
    }
}

impl List {
    fn has_names(&self, leaves: Leaves<'_>) -> bool {
        let behind = || self.fields.fields.iter().skip(leaves.nodes.len()).map(|field| field.name.as_str());
        self.shapes.len() == leaves.len()
            && leaves.shapes().eq(self.shapes.iter().copied())
            && behind().eq(leaves.beside.iter().map(|(name, _)| *name))
    }

    /// Makes gaps of the values that the document has otherwise.
    fn widen(&mut self, leaves: Leaves<'_>) {
        let mut is_wider = false;
        for (field, value) in self.fields.fields.iter_mut().zip(leaves.values()) {
            if field.value.as_ref().is_some_and(|known| !value.is(known)) {
                field.value = None;
                is_wider = true;
            }
        }
        if is_wider {
            let gaps = (0..).zip(&self.fields.fields).filter(|(_, field)| field.value.is_none());
            self.fields.gaps = gaps.map(|(at, _)| at).collect();
            self.number = 0;
        }
    }
}
