//! Symbols: numbers for strings, so that a label takes eight bytes and not two strings.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::Interner;
use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// A string's number.
pub(super) type Symbol = u32;

/// The strings of the head's labels.
#[derive(Debug)]
pub(super) struct Symbols {
    strings: Vec<Option<Arc<str>>>,
    numbers: HashTable<Symbol>,
    free: Vec<Symbol>,
    hasher: RandomState,
    /// One copy of each string for the head and all blocks.
    shared: Arc<Mutex<Interner>>,
}

impl Symbols {
    pub(super) fn new(shared: Arc<Mutex<Interner>>) -> Self {
        let (strings, free) = (Vec::new(), Vec::new());
        Self { strings, numbers: HashTable::new(), free, hasher: RandomState::default(), shared }
    }

    /// The number of `text`, if it has one.
    pub(super) fn find(&self, text: &str) -> Option<Symbol> {
        let hash = self.hasher.hash_one(text);
        self.numbers.find(hash, |symbol| **self.get(*symbol) == *text).copied()
    }

    /// The number of `text`, from now on.
    pub(super) fn intern(&mut self, text: &str) -> Symbol {
        if let Some(known) = self.find(text) {
            return known;
        }
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).intern(text);
        let symbol = self.free.pop().unwrap_or_else(|| {
            self.strings.push(None);
            Symbol::try_from(self.strings.len() - 1).expect("fewer strings than four billion")
        });
        self.strings[symbol as usize] = Some(shared);
        let Self { strings, numbers, hasher, .. } = self;
        let rehash = |symbol: &Symbol| hasher.hash_one(text_of(strings, *symbol));
        numbers.insert_unique(hasher.hash_one(text), symbol, rehash);
        symbol
    }

    /// The string of a number that was given out and not swept.
    pub(super) fn get(&self, symbol: Symbol) -> &Arc<str> {
        self.strings[symbol as usize].as_ref().expect("symbols in use are not swept")
    }

    /// Forgets the strings of which `is_used` does not hold; their numbers are given out again.
    pub(super) fn sweep(&mut self, is_used: impl Fn(Symbol) -> bool) {
        let Self { strings, numbers, free, .. } = self;
        numbers.retain(|symbol| {
            let keeps = is_used(*symbol);
            if !keeps {
                strings[*symbol as usize] = None;
                free.push(*symbol);
            }
            keeps
        });
    }

    /// How many numbers were given out, those of swept strings included.
    pub(super) fn capacity(&self) -> usize {
        self.strings.len()
    }
}

fn text_of(strings: &[Option<Arc<str>>], symbol: Symbol) -> &str {
    strings[symbol as usize].as_deref().expect("symbols in use are not swept")
}
