//! Which variables have each text of a page, and in how many rows: a search that knows which texts it is after need not
//! look at any other variable.
//!
//! Texts are numbered in the order in which the holes have them, so that those of one hole lie together. So are ids, of
//! which most are in one hole alone: it is enough to say how many each hole brings, and which older ones it has, too.

use super::seal::HolePlace;
use super::{PageError, PageTemplate};
use crate::bytes::{Reader, put_varint, put_zigzag};
use crate::logs::split::{Cell, Kind};

/// Bits of the kinds that have texts.
pub(crate) const TEXTS: u16 = 1 << Kind::Text as u16 | 1 << Kind::Prefixed as u16;

/// A text's place among [`Uses`]: as a whole variable, or before a number.
pub(crate) fn slot_of(text: usize, is_prefix: bool) -> usize {
    2 * text + usize::from(is_prefix)
}

/// Rows of a hole that have a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) template: u32,
    pub(crate) hole: u32,
    pub(crate) rows: u32,
}

/// By [`slot_of`], where each text is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    starts: Vec<u32>,
    uses: Vec<Use>,
}

impl Uses {
    /// Where a text is, in the order of templates and holes.
    pub(crate) fn of(&self, slot: usize) -> &[Use] {
        match (self.starts.get(slot), self.starts.get(slot + 1)) {
            (Some(start), Some(end)) => &self.uses[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// Bytes of memory.
    pub(super) fn weight(&self) -> usize {
        4 * self.starts.len() + size_of::<Use>() * self.uses.len()
    }

    /// Reads what [`UsesWriter`] wrote for these holes.
    pub(super) fn decode(
        plain: &[u8],
        templates: &[PageTemplate],
        places: &[Vec<HolePlace>],
        texts: usize,
    ) -> Result<Self, PageError> {
        let contradicts = PageError::Damaged("the places of texts");
        let slots = Self::slots(plain, templates, places, texts).ok_or(contradicts)?;
        let mut starts = vec![0u32; 2 * texts + 1];
        for (slot, _) in &slots {
            starts[*slot as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut uses = vec![Use { template: 0, hole: 0, rows: 0 }; slots.len()];
        for (slot, one) in slots {
            let place = &mut next[slot as usize];
            uses[*place as usize] = one;
            *place += 1;
        }
        Ok(Self { starts, uses })
    }

    fn slots(
        plain: &[u8],
        templates: &[PageTemplate],
        places: &[Vec<HolePlace>],
        texts: usize,
    ) -> Option<Vec<(u32, Use)>> {
        let reader = &mut Reader::new(plain);
        let length = reader.count()?;
        let counts = &mut Reader::new(reader.bytes(length)?);
        let length = reader.count()?;
        let steps = &mut Reader::new(reader.bytes(length)?);
        let mut slots = Vec::new();
        let mut slot = 0i64;
        for (template, holes) in places.iter().enumerate() {
            let most = templates.get(template)?.rows;
            for (hole, _) in holes.iter().enumerate().filter(|(_, place)| place.kinds & TEXTS != 0) {
                for _ in 0..counts.varint()? {
                    slot = slot.checked_add(steps.zigzag()?)?;
                    let sound = u32::try_from(slot).ok().filter(|slot| (*slot as usize) < 2 * texts)?;
                    let rows = u32::try_from(reader.varint()?).ok().filter(|rows| *rows <= most)?;
                    slots.push((sound, Use { template: template as u32, hole: hole as u32, rows }));
                }
            }
        }
        (reader.is_empty() && counts.is_empty() && steps.is_empty()).then_some(slots)
    }
}

/// Numbers the texts of a page anew, and notes which holes have them.
pub(super) struct UsesWriter {
    /// The new number of each text; `u32::MAX` before it has one.
    numbers: Vec<u32>,
    /// The texts in their new order.
    order: Vec<u32>,
    /// Rows of the hole that is under way, by slot; and the slots that it has.
    rows: Vec<u32>,
    touched: Vec<u32>,
    last: i64,
    counts: Vec<u8>,
    steps: Vec<u8>,
    of_rows: Vec<u8>,
}

impl UsesWriter {
    /// For a page with so many texts.
    pub(super) fn new(texts: usize) -> Self {
        Self {
            numbers: vec![u32::MAX; texts],
            order: Vec::with_capacity(texts),
            rows: vec![0; 2 * texts],
            touched: Vec::new(),
            last: 0,
            counts: Vec::new(),
            steps: Vec::new(),
            of_rows: Vec::new(),
        }
    }

    /// Gives the texts of a hole their new numbers, and notes them.
    pub(super) fn take(&mut self, column: &mut [u64]) {
        for cell in column.iter_mut() {
            let is_prefix = match Cell(*cell).kind() {
                Some(Kind::Text) => false,
                Some(Kind::Prefixed) => true,
                _ => continue,
            };
            let old = if is_prefix { Cell(*cell).prefix() } else { Cell(*cell).value() as usize };
            let Some(number) = self.numbers.get_mut(old) else { continue };
            if *number == u32::MAX {
                *number = self.order.len() as u32;
                self.order.push(old as u32);
            }
            let number = *number as usize;
            *cell = *cell - old as u64 + number as u64;
            let slot = slot_of(number, is_prefix);
            if self.rows[slot] == 0 {
                self.touched.push(slot as u32);
            }
            self.rows[slot] += 1;
        }
        if self.touched.is_empty() {
            return;
        }
        put_varint(&mut self.counts, self.touched.len() as u64);
        self.touched.sort_unstable();
        for slot in self.touched.drain(..) {
            put_zigzag(&mut self.steps, i64::from(slot) - self.last);
            self.last = i64::from(slot);
            put_varint(&mut self.of_rows, u64::from(std::mem::take(&mut self.rows[slot as usize])));
        }
    }

    /// The texts in their new order, and what was noted.
    pub(super) fn finish(self) -> (Vec<u32>, Vec<u8>) {
        let mut plain = Vec::with_capacity(self.counts.len() + self.steps.len() + self.of_rows.len() + 8);
        for part in [&self.counts, &self.steps] {
            put_varint(&mut plain, part.len() as u64);
            plain.extend_from_slice(part);
        }
        plain.extend_from_slice(&self.of_rows);
        (self.order, plain)
    }
}

/// The number of a hole: of a template, and in it.
pub(crate) type HoleNumber = (u32, u32);

/// Numbers the ids of one length in a page anew, and notes which holes have them.
#[derive(Default)]
pub(super) struct IdUsesWriter {
    /// The new number of each id; `u32::MAX` before it has one.
    numbers: Vec<u32>,
    /// The ids in their new order.
    order: Vec<u32>,
    older: Vec<u32>,
    out: Vec<u8>,
}

impl IdUsesWriter {
    /// For a page with so many ids of the length.
    pub(super) fn new(ids: usize) -> Self {
        Self { numbers: vec![u32::MAX; ids], ..Self::default() }
    }

    /// Gives the ids of a hole their new numbers, and notes them.
    fn take(&mut self, column: &mut [u64], is_of_length: impl Fn(Kind) -> bool) {
        let first_new = self.order.len() as u32;
        for cell in column.iter_mut() {
            if !Cell(*cell).kind().is_some_and(&is_of_length) {
                continue;
            }
            let old = Cell(*cell).value();
            let Some(number) = self.numbers.get_mut(old as usize) else { continue };
            if *number == u32::MAX {
                *number = self.order.len() as u32;
                self.order.push(old as u32);
            } else if *number < first_new {
                self.older.push(*number);
            }
            *cell = *cell - old + u64::from(*number);
        }
        self.older.sort_unstable();
        self.older.dedup();
        put_varint(&mut self.out, self.order.len() as u64 - u64::from(first_new));
        put_varint(&mut self.out, self.older.len() as u64);
        let mut last = 0;
        for number in self.older.drain(..) {
            put_varint(&mut self.out, u64::from(number - last));
            last = number;
        }
    }

    /// The ids in their new order, and what was noted. What no hole has comes last.
    pub(super) fn finish(mut self) -> (Vec<u32>, Vec<u8>) {
        let unused = (0u32..).zip(&self.numbers).filter(|(_, number)| **number == u32::MAX);
        self.order.extend(unused.map(|(old, _)| old));
        (self.order, self.out)
    }
}

fn is_short(kind: Kind) -> bool {
    kind == Kind::Id16
}

fn is_long(kind: Kind) -> bool {
    matches!(kind, Kind::Id32 | Kind::Uuid)
}

/// Bits of the kinds that have ids.
const SHORT: u16 = 1 << Kind::Id16 as u16;
const LONG: u16 = 1 << Kind::Id32 as u16 | 1 << Kind::Uuid as u16;
pub(crate) const IDS: u16 = SHORT | LONG;

/// Both lengths.
pub(super) struct IdsWriter {
    pub(super) short: IdUsesWriter,
    pub(super) long: IdUsesWriter,
}

impl IdsWriter {
    /// Gives the ids of a hole with these kinds of cells their new numbers.
    pub(super) fn take(&mut self, column: &mut [u64], kinds: u16) {
        if kinds & SHORT != 0 {
            self.short.take(column, is_short);
        }
        if kinds & LONG != 0 {
            self.long.take(column, is_long);
        }
    }
}

/// The holes of a page that have an id of 16 (or else 32) digits of this number, as [`IdsWriter`] wrote them.
pub(super) fn holes_of_id(
    plain: &[u8],
    places: &[Vec<HolePlace>],
    wanted: u32,
    is_16: bool,
) -> Option<Vec<HoleNumber>> {
    let reader = &mut Reader::new(plain);
    let length = reader.count()?;
    let short = reader.bytes(length)?;
    let (bytes, kinds) = if is_16 { (short, SHORT) } else { (reader.rest(), LONG) };
    let reader = &mut Reader::new(bytes);
    let (mut found, mut next) = (Vec::new(), 0u32);
    for (template, holes) in places.iter().enumerate() {
        for (hole, _) in holes.iter().enumerate().filter(|(_, place)| place.kinds & kinds != 0) {
            let end = next.checked_add(u32::try_from(reader.varint()?).ok()?)?;
            let mut has_it = (next..end).contains(&wanted);
            next = end;
            let mut older = 0u32;
            for _ in 0..reader.varint()? {
                older = older.checked_add(u32::try_from(reader.varint()?).ok()?)?;
                has_it |= older == wanted;
            }
            if has_it {
                found.push((template as u32, hole as u32));
            }
        }
    }
    reader.is_empty().then_some(found)
}
