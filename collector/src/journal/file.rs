//! Entries of a journal file, by their numbers.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use super::bytes::{Bad, Bytes};
use super::header::{HEADER_BYTES, Header, u32_at, u64_at};
use super::unpack::Unpacker;

/// Longest value that is kept of a field; of a longer one the beginning is.
pub(crate) const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

/// Longest name of a field; journald takes no longer ones.
const NAME_MAX_BYTES: usize = 64;

/// Fields of an entry; journald takes no more.
const FIELDS_MAX: usize = 1024;

/// Bytes of all fields of an entry.
const ENTRY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Largest payload that is read to be unpacked.
const PACKED_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Entry arrays in one chain. Each is twice as large as the one before it.
const ARRAYS_MAX: usize = 4096;

/// Larger data is not kept in memory, even if many entries have it.
const CACHED_DATA_MAX_BYTES: usize = 256;
const CACHE_MAX_BYTES: usize = 512 * 1024;

// Types of objects.
const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;

/// Bytes before what an object holds.
const OBJECT_BYTES: usize = 16;

/// One field of an entry: where its name and value stand in the entry's bytes.
#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    name_end: usize,
    end: usize,
    /// Bytes of the value in all, if they are known.
    full: Option<u64>,
}

/// An entry, in memory that is used for one after the other.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// When journald received it, in microseconds since 1970.
    pub(crate) realtime_us: u64,
    pub(crate) boot_id: [u8; 16],
    /// Fields that could not be read, or were too many.
    pub(crate) unreadable: u32,
    fields: Vec<Field>,
    bytes: Vec<u8>,
}

impl Entry {
    /// Names and values, in the order of the file; a name may come more than once.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let text = |field: &Field| {
            (&self.bytes[field.start..field.name_end], &self.bytes[field.name_end + 1..field.end])
        };
        self.fields.iter().map(text)
    }

    /// The first value of a field, and how long it is in all, if that is known.
    pub(crate) fn value(&self, name: &str) -> Option<(&[u8], Option<u64>)> {
        let fits = |field: &&Field| &self.bytes[field.start..field.name_end] == name.as_bytes();
        let field = self.fields.iter().find(fits)?;
        Some((&self.bytes[field.name_end + 1..field.end], field.full))
    }

    /// Bytes of its fields.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Gives back memory that one odd entry needed.
    pub(crate) fn rest(&mut self) {
        if self.bytes.capacity() > 64 * 1024 {
            self.bytes = Vec::new();
        }
    }

    fn clear(&mut self) {
        self.fields.clear();
        self.bytes.clear();
        self.unreadable = 0;
    }

    /// Takes `NAME=value`, of which `full` bytes may be there in all.
    fn take(&mut self, payload: &[u8], full: Option<u64>) {
        let name_end = memchr::memchr(b'=', &payload[..payload.len().min(NAME_MAX_BYTES + 1)]);
        let is_full = self.bytes.len() + payload.len() > ENTRY_MAX_BYTES;
        let Some(name_end) = name_end.filter(|end| *end > 0 && !is_full) else {
            self.unreadable += 1;
            return;
        };
        let start = self.bytes.len();
        let kept = payload.len().min(name_end + 1 + MESSAGE_MAX_BYTES);
        self.bytes.extend_from_slice(&payload[..kept]);
        let full = full.map(|full| full.saturating_sub(name_end as u64 + 1));
        self.fields.push(Field { start, name_end: start + name_end, end: start + kept, full });
    }
}

/// What there is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Entry,
    /// It contradicts the format.
    Damaged,
    /// It is not written yet; if nobody writes to the file any more, it is damaged.
    Later,
}

/// A journal file.
#[derive(Debug)]
pub(crate) struct JournalFile {
    bytes: Bytes,
    header: Header,
    chain: Chain,
    cache: Cache,
    unpacker: Unpacker,
    /// Offsets of an entry's data.
    items: Vec<u64>,
}

/// The entry array that was looked into last.
#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    /// Zero is none.
    array: u64,
    /// Number of the first entry that it names, and how many it has room for.
    first: u64,
    room: u64,
    /// Arrays before it.
    number: usize,
}

/// Data that several entries have, by its offset: journald writes each only once.
#[derive(Debug, Default)]
struct Cache {
    places: HashMap<u64, (u32, u32)>,
    bytes: Vec<u8>,
}

impl Cache {
    fn get(&self, offset: u64) -> Option<&[u8]> {
        let (start, end) = *self.places.get(&offset)?;
        self.bytes.get(start as usize..end as usize)
    }

    fn put(&mut self, offset: u64, payload: &[u8]) {
        if self.bytes.len() + payload.len() > CACHE_MAX_BYTES {
            self.bytes.clear();
            self.places.clear();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.places.insert(offset, (start as u32, self.bytes.len() as u32));
    }
}

impl JournalFile {
    /// Reads the header.
    ///
    /// # Errors
    /// `NotFound` while journald has not written it; anything else says why the file is not read.
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let mut bytes = Bytes::new(file);
        let header = Self::read_header(&mut bytes)?;
        let (chain, cache, unpacker) = (Chain::default(), Cache::default(), Unpacker::default());
        Ok(Self { bytes, header, chain, cache, unpacker, items: Vec::new() })
    }

    fn read_header(bytes: &mut Bytes) -> io::Result<Header> {
        use std::os::unix::fs::FileExt;
        let size = bytes.file.metadata()?.len();
        let mut read = [0; HEADER_BYTES];
        // What the header counts is there: journald writes it last. Its size is asked for before, and may be too small.
        let length = bytes.file.read_at(&mut read, 0)?;
        bytes.size = size.max(bytes.file.metadata()?.len());
        Header::parse(&read[..length], bytes.size)
    }

    /// Looks how many entries there are by now. Answers whether it is still the same file.
    pub(crate) fn refresh(&mut self) -> io::Result<bool> {
        let header = Self::read_header(&mut self.bytes)?;
        let is_same = header.file_id == self.header.file_id;
        if header != self.header {
            self.bytes.forget();
            self.header = header;
        }
        if !is_same {
            self.rest();
        }
        Ok(is_same)
    }

    pub(crate) fn file(&self) -> &File {
        &self.bytes.file
    }

    /// The file's name for good, in hexadecimal digits: it keeps it when it is renamed.
    pub(crate) fn id(&self) -> String {
        hex(&self.header.file_id)
    }

    /// How many entries there were at the last look.
    pub(crate) fn entries(&self) -> u64 {
        self.header.entries
    }

    /// Gives memory back.
    pub(crate) fn rest(&mut self) {
        self.bytes.rest();
        self.unpacker.rest();
        (self.chain, self.cache, self.items) = (Chain::default(), Cache::default(), Vec::new());
    }

    /// Reads the entry with number `at`, counted from zero. If nobody writes to the file any more (`is_final`), a field
    /// that is not written costs itself alone.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn read(&mut self, at: u64, entry: &mut Entry, is_final: bool) -> io::Result<Found> {
        entry.clear();
        let read = self.offset_of(at).and_then(|offset| self.read_entry(offset, entry, is_final));
        match read {
            Ok(()) => Ok(Found::Entry),
            Err(Bad::Corrupt) => Ok(Found::Damaged),
            Err(Bad::Later) => {
                // Bytes that were read before they were written.
                self.bytes.forget();
                Ok(Found::Later)
            }
            Err(Bad::Io(error)) => Err(error),
        }
    }

    /// Type, flags and size of an object: within the file, and not smaller than `least`.
    fn object(&mut self, offset: u64, least: usize) -> Result<(u8, u8, u64), Bad> {
        if offset < self.header.objects_from || !offset.is_multiple_of(8) {
            return Err(if offset == 0 { Bad::Later } else { Bad::Corrupt });
        }
        let bytes = self.bytes.get(offset, OBJECT_BYTES)?;
        let (kind, flags, size) = (bytes[0], bytes[1], u64_at(bytes, 8));
        if kind == 0 && size == 0 {
            return Err(Bad::Later);
        }
        let end = offset.checked_add(size).ok_or(Bad::Corrupt)?;
        if size < least as u64 {
            return Err(Bad::Corrupt);
        }
        if end > self.bytes.size { Err(Bad::Later) } else { Ok((kind, flags, size)) }
    }

    /// Where the entry with number `at` lies.
    fn offset_of(&mut self, at: u64) -> Result<u64, Bad> {
        if at >= self.header.entries {
            return Err(Bad::Later);
        }
        if self.chain.array == 0 || at < self.chain.first {
            self.chain = Chain::default();
            self.enter(self.header.entry_array, Chain::default())?;
        }
        while at >= self.chain.first + self.chain.room {
            let next = u64_at(self.bytes.get(self.chain.array + 16, 8)?, 0);
            // They are made one after the other, so that a loop cannot be.
            if next != 0 && next <= self.chain.array {
                return Err(Bad::Corrupt);
            }
            self.enter(next, self.chain)?;
        }
        let width = self.header.offset_bytes();
        let place = self.chain.array + 24 + (at - self.chain.first) * width;
        let bytes = self.bytes.get(place, width as usize)?;
        Ok(if width == 4 { u64::from(u32_at(bytes, 0)) } else { u64_at(bytes, 0) })
    }

    /// Goes on to the array that follows another one.
    fn enter(&mut self, array: u64, before: Chain) -> Result<(), Bad> {
        let (kind, _, size) = self.object(array, 24)?;
        let room = (size - 24) / self.header.offset_bytes();
        if kind != ENTRY_ARRAY || room == 0 || before.number >= ARRAYS_MAX {
            return Err(Bad::Corrupt);
        }
        let first = before.first + before.room;
        self.chain = Chain { array, first, room, number: before.number + 1 };
        Ok(())
    }

    fn read_entry(&mut self, offset: u64, entry: &mut Entry, is_final: bool) -> Result<(), Bad> {
        let (kind, _, size) = self.object(offset, 64)?;
        if kind != ENTRY {
            return Err(Bad::Corrupt);
        }
        let width = self.header.item_bytes();
        let items = (size as usize - 64) / width;
        let kept = items.min(FIELDS_MAX);
        entry.unreadable += u32::try_from(items - kept).unwrap_or(u32::MAX);
        let bytes = self.bytes.get(offset, 64 + kept * width)?;
        entry.realtime_us = u64_at(bytes, 24);
        entry.boot_id.copy_from_slice(&bytes[40..56]);
        self.items.clear();
        let offset = |item: &[u8]| if width == 4 { u64::from(u32_at(item, 0)) } else { u64_at(item, 0) };
        self.items.extend(bytes[64..].chunks_exact(width).map(offset));
        let items = std::mem::take(&mut self.items);
        let read = items.iter().try_for_each(|data| match self.read_data(*data, entry) {
            Err(Bad::Io(error)) => Err(Bad::Io(error)),
            Err(Bad::Later) if !is_final => Err(Bad::Later),
            Err(_) => {
                entry.unreadable += 1;
                Ok(())
            }
            Ok(()) => Ok(()),
        });
        self.items = items;
        read
    }

    fn read_data(&mut self, offset: u64, entry: &mut Entry) -> Result<(), Bad> {
        if let Some(payload) = self.cache.get(offset) {
            entry.take(payload, Some(payload.len() as u64));
            return Ok(());
        }
        let before = self.header.data_bytes();
        let (kind, flags, size) = self.object(offset, before)?;
        if kind != DATA {
            return Err(Bad::Corrupt);
        }
        let most = NAME_MAX_BYTES + 1 + MESSAGE_MAX_BYTES;
        let full = size - before as u64;
        let is_packed = flags & 7 != 0;
        if is_packed && full > PACKED_MAX_BYTES as u64 {
            return Err(Bad::Corrupt);
        }
        let kept = if is_packed { full as usize } else { full.min(most as u64) as usize };
        let bytes = self.bytes.get(offset, before + kept)?;
        let (entries, payload) = (u64_at(bytes, 56), &bytes[before..]);
        if is_packed {
            match self.unpacker.unpack(flags, payload, most) {
                Some((plain, full)) => entry.take(plain, full),
                None => entry.unreadable += 1,
            }
            return Ok(());
        }
        entry.take(payload, Some(full));
        if entries > 1 && payload.len() <= CACHED_DATA_MAX_BYTES {
            self.cache.put(offset, payload);
        }
        Ok(())
    }
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digits = String::with_capacity(bytes.len() * 2);
    bytes.iter().fold(digits, |mut digits, byte| {
        // Writing to a text cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
