//! The texts and ids of a page, each with a number.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::logs::split::{Lookup, Tables};

/// Texts one behind the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    pub(crate) bytes: Vec<u8>,
    /// Where each ends.
    pub(crate) ends: Vec<u32>,
}

/// Whether some of the bytes may say something else than they are: escapes of JSON and logfmt, colours.
pub(crate) fn has_escape(bytes: &[u8]) -> bool {
    memchr::memchr2(b'\\', 0x1b, bytes).is_some()
}

impl Texts {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)? as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] as usize };
        self.bytes.get(start..end)
    }

    /// The text that has the byte at a place in [`Self::bytes`].
    pub(crate) fn at(&self, place: usize) -> usize {
        self.ends.partition_point(|end| *end as usize <= place)
    }

    pub(crate) fn push(&mut self, text: &[u8]) -> u32 {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
        self.ends.len() as u32 - 1
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|number| self.get(number))
    }

    /// Bytes of the longest run of hex digits in lower case and dashes.
    pub(super) fn longest_hex(&self) -> usize {
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        // What lies across two texts makes it too long, never too short.
        self.bytes.split(|byte| !is_hex(byte)).map(<[u8]>::len).max().unwrap_or(0)
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + 4 * self.ends.len()
    }
}

/// [`Texts`] as they are where letter case does not count.
#[derive(Debug)]
pub(crate) struct Folded {
    /// ASCII letters in lower case, in the same places; none if all of them are.
    bytes: Option<Vec<u8>>,
    /// Texts with other characters, ascending: their letters may be anywhere.
    pub(crate) odd: Vec<u32>,
}

impl Folded {
    pub(super) fn of(texts: &Texts) -> Self {
        let has_upper = texts.bytes.iter().any(u8::is_ascii_uppercase);
        let bytes = has_upper.then(|| texts.bytes.to_ascii_lowercase());
        let is_odd = |text: &[u8]| !text.is_ascii();
        let odd = if texts.bytes.is_ascii() {
            Vec::new()
        } else {
            (0..).zip(texts.iter()).filter(|(_, text)| is_odd(text)).map(|(number, _)| number).collect()
        };
        Self { bytes, odd }
    }

    /// All of them, one behind the other.
    pub(crate) fn bytes<'a>(&'a self, texts: &'a Texts) -> &'a [u8] {
        self.bytes.as_deref().unwrap_or(&texts.bytes)
    }

    /// Bytes of memory.
    pub(super) fn weight(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len) + 4 * self.odd.len()
    }
}

/// All that the cells of an open page refer to.
#[derive(Debug, Default)]
pub(crate) struct OpenTables {
    pub(crate) texts: Texts,
    pub(crate) bodies: Texts,
    pub(crate) id16: Vec<u64>,
    pub(crate) id32: Vec<u128>,
    by_text: HashTable<u32>,
    by_id16: HashTable<u32>,
    by_id32: HashTable<u32>,
}

fn mix(id: u64) -> u64 {
    let product = u128::from(id ^ 0x9e37_79b9_7f4a_7c15) * 0xff51_afd7_ed55_8ccd;
    product as u64 ^ (product >> 64) as u64
}

impl Tables for OpenTables {
    fn text(&mut self, text: &[u8]) -> u32 {
        let (texts, by_text) = (&mut self.texts, &mut self.by_text);
        let hash = xxh3_64(text);
        if let Some(number) = by_text.find(hash, |number| texts.get(*number as usize) == Some(text)) {
            return *number;
        }
        let number = texts.push(text);
        by_text
            .insert_unique(hash, number, |number| xxh3_64(texts.get(*number as usize).unwrap_or_default()));
        number
    }

    fn body(&mut self, text: &[u8]) -> u32 {
        self.bodies.push(text)
    }

    fn id16(&mut self, id: u64) -> u32 {
        let (ids, by_id) = (&mut self.id16, &mut self.by_id16);
        if let Some(number) = by_id.find(mix(id), |number| ids[*number as usize] == id) {
            return *number;
        }
        let number = ids.len() as u32;
        ids.push(id);
        by_id.insert_unique(mix(id), number, |number| mix(ids[*number as usize]));
        number
    }

    fn id32(&mut self, id: u128) -> u32 {
        let (ids, by_id) = (&mut self.id32, &mut self.by_id32);
        let hash = |id: u128| mix(id as u64 ^ mix((id >> 64) as u64));
        if let Some(number) = by_id.find(hash(id), |number| ids[*number as usize] == id) {
            return *number;
        }
        let number = ids.len() as u32;
        ids.push(id);
        by_id.insert_unique(hash(id), number, |number| hash(ids[*number as usize]));
        number
    }
}

impl Lookup for OpenTables {
    fn text(&self, number: usize) -> Option<&[u8]> {
        self.texts.get(number)
    }

    fn body(&self, number: usize) -> Option<&[u8]> {
        self.bodies.get(number)
    }

    fn id16(&self, number: usize) -> Option<u64> {
        self.id16.get(number).copied()
    }

    fn id32(&self, number: usize) -> Option<u128> {
        self.id32.get(number).copied()
    }
}
