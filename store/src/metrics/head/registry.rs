//! The head's series: found by the bytes that senders name them with, by labels, and by matchers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};

use binnacle_model::{Interner, Label, Labels, Matcher};
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::postings::Postings;
use super::series::MemSeries;
use super::symbols::{Symbol, Symbols};

/// Where a series is, while it is in the head. Places of series that are gone are given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(pub(super) u32);

/// Hash of the bytes that name a series, with the salt of whose bytes they are. 128 bits with a seed of
/// this process: no collision in practice, and none that a sender could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawHash(pub(crate) u128);

/// In pieces of four bytes, so that no space is lost between them.
#[derive(Debug, Clone, Copy)]
struct RawEntry {
    hash: [u32; 4],
    place: Place,
}

impl RawEntry {
    fn of(hash: RawHash, place: Place) -> Self {
        Self { hash: split(hash.0), place }
    }

    fn short(&self) -> u64 {
        u64::from(self.hash[0]) | u64::from(self.hash[1]) << 32
    }
}

fn split(hash: u128) -> [u32; 4] {
    [hash as u32, (hash >> 32) as u32, (hash >> 64) as u32, (hash >> 96) as u32]
}

/// No hash, of which there are too many for this one to be met.
const NOBODY: [u32; 4] = [0; 4];

/// One sender names a series in one way, and there are few ways.
const RAW_PER_SERIES: usize = 4;

#[derive(Debug)]
pub(super) struct Registry {
    series: Vec<Option<MemSeries>>,
    free: Vec<Place>,
    by_labels: HashTable<Place>,
    by_raw: HashTable<RawEntry>,
    /// By place, how it was named last.
    usual: Vec<[u32; 4]>,
    postings: Postings,
    symbols: Symbols,
    hasher: RandomState,
    /// The number of the next series.
    next: u64,
    /// Labels that a query asked for, by place, and in which round it did so last.
    decoded: Vec<Option<(Labels, u32)>>,
    round: u32,
    /// Series by the value of their label `job`.
    by_job: HashMap<Option<Symbol>, usize>,
}

impl Registry {
    pub(super) fn new(shared: Arc<Mutex<Interner>>) -> Self {
        Self {
            series: Vec::new(),
            free: Vec::new(),
            by_labels: HashTable::new(),
            by_raw: HashTable::new(),
            usual: Vec::new(),
            postings: Postings::default(),
            symbols: Symbols::new(shared),
            hasher: RandomState::default(),
            next: 1,
            decoded: Vec::new(),
            round: 0,
            by_job: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    pub(super) fn get(&self, place: Place) -> &MemSeries {
        self.series[place.0 as usize].as_ref().expect("a place in use has a series")
    }

    /// The series in a place, if it is still in use.
    pub(super) fn find(&self, place: Place) -> Option<&MemSeries> {
        self.series.get(place.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut MemSeries {
        self.series[place.0 as usize].as_mut().expect("a place in use has a series")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MemSeries> {
        self.series.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut MemSeries> {
        self.series.iter_mut().flatten()
    }

    /// The series that someone names so.
    pub(super) fn by_raw(&self, hash: RawHash) -> Option<Place> {
        let entry = RawEntry::of(hash, Place(0));
        self.by_raw.find(entry.short(), |known| known.hash == entry.hash).map(|known| known.place)
    }

    /// As [`Self::by_raw`], where the series before it in a batch is in `last`: senders name series in the order in which
    /// they were made, mostly.
    pub(super) fn by_raw_behind(&self, hash: RawHash, last: Option<Place>) -> Option<Place> {
        let next = last.and_then(|last| last.0.checked_add(1));
        let is_known = |next: &u32| self.usual.get(*next as usize) == Some(&split(hash.0));
        next.filter(is_known).map(Place).or_else(|| self.by_raw(hash))
    }

    /// Looks at what samples are added to, of several series at once: the memory of one need not come before that of the
    /// next is asked for.
    pub(super) fn touch(&self, places: &[Option<Place>]) {
        let ends = places.iter().flatten().map(|place| self.get(*place).open.end());
        std::hint::black_box(ends.fold(0, |all, end| all ^ end));
    }

    /// Remembers how someone names a series.
    pub(super) fn learn(&mut self, hash: RawHash, place: Place) {
        if self.usual.len() <= place.0 as usize {
            self.usual.resize(place.0 as usize + 1, NOBODY);
        }
        self.usual[place.0 as usize] = split(hash.0);
        if self.by_raw.len() > RAW_PER_SERIES * self.len() + 1024 {
            // Someone names the same series in ever new ways; all can be learnt again.
            self.by_raw.clear();
        }
        let entry = RawEntry::of(hash, place);
        self.by_raw.insert_unique(entry.short(), entry, RawEntry::short);
    }

    /// The series with these labels, made if there is none, and whether it was made.
    pub(super) fn by_labels(&mut self, labels: &Labels) -> (Place, bool) {
        let next = self.next;
        let (place, is_new) = self.with_number(labels, next);
        self.next += u64::from(is_new);
        (place, is_new)
    }

    /// Whether a series with these labels would be new and one too many of its job. Makes nothing: a flood of series
    /// that are refused leaves no trace.
    pub(super) fn is_beyond(&self, labels: &Labels, most: usize) -> bool {
        let job = match labels.get("job") {
            None => None,
            Some(job) => match self.symbols.find(job) {
                // Nobody has it.
                None => return most == 0,
                job => job,
            },
        };
        if self.by_job.get(&job).is_none_or(|count| *count < most) {
            return false;
        }
        self.find_labels(labels).is_none()
    }

    /// The series with these labels, if there is one.
    pub(super) fn find_labels(&self, labels: &Labels) -> Option<Place> {
        let pairs = labels.iter().flat_map(|label| [&label.name, &label.value]);
        let symbols: Box<[Symbol]> = pairs.map(|text| self.symbols.find(text)).collect::<Option<_>>()?;
        let hash = self.hasher.hash_one(&symbols);
        self.by_labels.find(hash, |place| self.get(*place).labels == symbols).copied()
    }

    fn job_of(&self, symbols: &[Symbol]) -> Option<Symbol> {
        let job = self.symbols.find("job")?;
        symbols.chunks_exact(2).find(|pair| pair[0] == job).map(|pair| pair[1])
    }

    /// As [`Self::by_labels`]; a series that is made has this number, and none after it a lower one.
    pub(super) fn replayed(&mut self, labels: &Labels, number: u64) -> Option<Place> {
        self.next = self.next.max(number.checked_add(1)?);
        Some(self.with_number(labels, number).0)
    }

    fn with_number(&mut self, labels: &Labels, number: u64) -> (Place, bool) {
        let pairs = labels.iter().flat_map(|label| [&label.name, &label.value]);
        let symbols: Box<[Symbol]> = pairs.map(|text| self.symbols.intern(text)).collect();
        self.with_symbols(symbols, number)
    }

    /// The number of a string, from now on.
    pub(super) fn intern(&mut self, text: &str) -> Symbol {
        self.symbols.intern(text)
    }

    /// The string of a number.
    pub(super) fn text(&self, symbol: Symbol) -> &str {
        self.symbols.get(symbol)
    }

    /// As [`Self::replayed`], of names and values by turns, ascending by name.
    pub(super) fn restored(&mut self, labels: Box<[Symbol]>, number: u64) -> Option<Place> {
        let is_sorted = labels.chunks(2).is_sorted_by(|a, b| self.text(a[0]) < self.text(b[0]));
        if !labels.len().is_multiple_of(2) || !is_sorted {
            return None;
        }
        self.next = self.next.max(number.checked_add(1)?);
        Some(self.with_symbols(labels, number).0)
    }

    fn with_symbols(&mut self, symbols: Box<[Symbol]>, number: u64) -> (Place, bool) {
        let hash = self.hasher.hash_one(&symbols);
        let known = self.by_labels.find(hash, |place| self.get(*place).labels == symbols);
        if let Some(place) = known {
            return (*place, false);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.series.push(None);
            Place(u32::try_from(self.series.len() - 1).expect("fewer series than four billion"))
        });
        self.postings.add(place.0, &symbols);
        *self.by_job.entry(self.job_of(&symbols)).or_default() += 1;
        let bytes: usize = symbols.iter().map(|symbol| self.text(*symbol).len() + 5).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.series[place.0 as usize] = Some(MemSeries::new(number, symbols, bytes));
        let Self { series, by_labels, hasher, .. } = self;
        let rehash = |place: &Place| {
            hasher.hash_one(&series[place.0 as usize].as_ref().expect("it is in the table").labels)
        };
        by_labels.insert_unique(hash, place, rehash);
        (place, true)
    }

    /// The labels of a series, as everyone else knows them.
    pub(super) fn labels(&self, series: &MemSeries) -> Labels {
        Labels::from_sorted(series.labels.chunks_exact(2).map(|pair| Label {
            name: Arc::clone(self.symbols.get(pair[0])),
            value: Arc::clone(self.symbols.get(pair[1])),
        }))
    }

    /// As [`Self::labels`], kept for the next query.
    pub(super) fn labels_again(&mut self, place: Place) -> Labels {
        let at = place.0 as usize;
        if self.decoded.len() <= at {
            self.decoded.resize(self.series.len().max(at + 1), None);
        }
        if let Some((labels, round)) = &mut self.decoded[at] {
            *round = self.round;
            return labels.clone();
        }
        let labels = self.labels(self.get(place));
        self.decoded[at] = Some((labels.clone(), self.round));
        labels
    }

    /// Forgets decoded labels that nobody asked for since the call before this one.
    pub(super) fn rest(&mut self) {
        let round = self.round;
        self.decoded.iter_mut().for_each(|one| {
            if one.as_ref().is_some_and(|(_, used)| *used != round) {
                *one = None;
            }
        });
        if self.decoded.iter().all(Option::is_none) {
            self.decoded = Vec::new();
        }
        self.round = self.round.wrapping_add(1);
    }

    /// Names of the labels of series that satisfy every matcher.
    pub(super) fn label_names(&self, matchers: &[Matcher]) -> BTreeSet<Arc<str>> {
        let symbols: HashSet<Symbol> = match matchers {
            [] => self.postings.names().collect(),
            _ => self
                .select(matchers)
                .into_iter()
                .flat_map(|place| self.get(place).labels.iter().step_by(2).copied())
                .collect(),
        };
        symbols.into_iter().map(|symbol| Arc::clone(self.symbols.get(symbol))).collect()
    }

    /// Values of a label of series that satisfy every matcher.
    pub(super) fn label_values(&self, name: &str, matchers: &[Matcher]) -> BTreeSet<Arc<str>> {
        let Some(name) = self.symbols.find(name) else { return BTreeSet::new() };
        let symbols: HashSet<Symbol> = if matchers.is_empty() {
            self.postings.values(name).collect()
        } else {
            let places = self.select(matchers).into_iter();
            let pairs = places.flat_map(|place| self.get(place).labels.chunks_exact(2));
            pairs.filter(|pair| pair[0] == name).map(|pair| pair[1]).collect()
        };
        symbols.into_iter().map(|symbol| Arc::clone(self.symbols.get(symbol))).collect()
    }

    /// Whether the series in a place has these names and values, in their order.
    pub(super) fn is_named(&self, place: Place, pairs: &[[&str; 2]]) -> bool {
        self.find(place).is_some_and(|series| self.pairs(series).eq(pairs.iter().copied()))
    }

    /// Names and values of a series, in their order.
    pub(super) fn pairs<'a>(&'a self, series: &'a MemSeries) -> impl ExactSizeIterator<Item = [&'a str; 2]> {
        let text = |symbol: Symbol| &**self.symbols.get(symbol);
        series.labels.chunks_exact(2).map(move |pair| [text(pair[0]), text(pair[1])])
    }

    /// Exactly the series that satisfy every matcher.
    pub(super) fn select(&self, matchers: &[Matcher]) -> Vec<Place> {
        let found: RoaringBitmap = self.postings.select(matchers, &self.symbols);
        found.iter().map(Place).collect()
    }

    /// All places in use, those of series made later not among them.
    pub(super) fn places(&self) -> Vec<Place> {
        let places = self.series.iter().zip(0..).filter(|(series, _)| series.is_some());
        places.map(|(_, place)| Place(place)).collect()
    }

    /// Forgets the series for which `keeps` does not hold, and what only they needed.
    pub(super) fn retain(&mut self, keeps: impl Fn(&MemSeries) -> bool) {
        let gone: Vec<Place> = self.places().into_iter().filter(|place| !keeps(self.get(*place))).collect();
        if gone.is_empty() {
            return;
        }
        for place in &gone {
            let series = self.series[place.0 as usize].take().expect("it was there just now");
            self.postings.remove(place.0, &series.labels);
            let job = self.job_of(&series.labels);
            if let Some(count) = self.by_job.get_mut(&job) {
                *count -= 1;
            }
            let hash = self.hasher.hash_one(&series.labels);
            if let Ok(entry) = self.by_labels.find_entry(hash, |known| known == place) {
                entry.remove();
            }
            if let Some(decoded) = self.decoded.get_mut(place.0 as usize) {
                *decoded = None;
            }
            if let Some(usual) = self.usual.get_mut(place.0 as usize) {
                *usual = NOBODY;
            }
            self.free.push(*place);
        }
        self.by_job.retain(|_, count| *count > 0);
        let Self { by_raw, series, .. } = self;
        by_raw.retain(|entry| series[entry.place.0 as usize].is_some());
        let mut used = vec![false; self.symbols.capacity()];
        for series in self.series.iter().flatten() {
            series.labels.iter().for_each(|symbol| used[*symbol as usize] = true);
        }
        self.symbols.sweep(|symbol| used[symbol as usize]);
    }
}
