//! What a query says of templates, by their numbers: found out once by all threads of a search.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::plan::Judged;
use super::signature::Signature;
use crate::logs::page::NumberSet;

/// Kinds of streams and of pages for which answers are kept.
pub(super) const VERDICTS_MAX: usize = 32;

/// Answers about templates, for one kind of stream and what a page knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdicts {
    judged: Vec<Judged>,
    known: NumberSet,
    yes: NumberSet,
    look: NumberSet,
    held: NumberSet,
    probe: Option<u8>,
}

impl Verdicts {
    /// Those that are judged.
    pub(super) fn known(&self) -> &NumberSet {
        &self.known
    }

    /// Those of which every row is found.
    pub(super) fn yes(&self) -> &NumberSet {
        &self.yes
    }

    /// Those of which variables, or rows, have to be looked at.
    pub(super) fn look(&self) -> &NumberSet {
        &self.look
    }

    /// Those among the others of which nothing is found where no variable holds this probe.
    pub(super) fn held(&self) -> Option<(u8, &NumberSet)> {
        Some((self.probe?, &self.held))
    }

    pub(super) fn judged(&self, number: u32) -> Judged {
        self.judged.get(number as usize).copied().unwrap_or(Judged::Unknown)
    }

    pub(super) fn set(&mut self, number: u32, judged: Judged) {
        if self.judged.len() <= number as usize {
            self.judged.resize(number as usize + 1, Judged::Unknown);
        }
        self.judged[number as usize] = judged;
        self.known.insert(number);
        match judged {
            Judged::No | Judged::Unknown => {}
            Judged::Yes => self.yes.insert(number),
            Judged::OnlyIfHeld(probe) if *self.probe.get_or_insert(probe) == probe => {
                self.held.insert(number);
            }
            Judged::OnlyIfHeld(_) | Judged::Look => self.look.insert(number),
        }
    }

    /// Takes over what another knows of the next 64 numbers.
    fn learn(&mut self, other: &Self, at: u32) {
        let mut new = other.known.bits(at) & !self.known.bits(at);
        while new != 0 {
            let number = 64 * at + new.trailing_zeros();
            self.set(number, other.judged(number));
            new &= new - 1;
        }
    }
}

/// What each condition says of a kind of stream, and the bits of what a page knows of them.
pub(super) type Key = (Signature, Vec<u64>);

/// What all threads of a search have found out.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<HashMap<Key, Verdicts>>);

impl Pool {
    /// Tells `own` what is known of the next 64 numbers.
    pub(super) fn teach(&self, key: &Key, own: &mut Verdicts, at: u32) {
        if let Some(all) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            own.learn(all, at);
        }
    }

    /// Takes over what `own` knows of the next 64 numbers.
    pub(super) fn learn(&self, key: &Key, own: &Verdicts, at: u32) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = pool.get_mut(key) {
            return all.learn(own, at);
        }
        if pool.len() < VERDICTS_MAX {
            let mut all = Verdicts::default();
            all.learn(own, at);
            pool.insert(key.clone(), all);
        }
    }
}
