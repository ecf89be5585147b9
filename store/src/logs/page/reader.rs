//! What one visit reads of a sealed page, and lets go at its end.

use std::cell::OnceCell;
use std::sync::Arc;

use binnacle_model::log::FileId;
use binnacle_model::{Labels, LogTime};
use xxhash_rust::xxh3::xxh3_64;

use super::bodies::Bodies;
use super::seal::{HolePlace, section};
use super::sealed::{SHORT, SealedPage, read_section};
use super::tables::{Folded, Texts};
use super::uses::{HoleNumber, Uses};
use super::{Brief, Fuse, Grams, PageError, PageTemplate, PageView, cells};
use crate::bytes::Reader;
use crate::logs::split::Lookup;

/// Cells of a hole, once they are read.
type Column = OnceCell<Vec<u64>>;

/// What one visit reads of a page, and what is let go at its end.
pub(crate) struct PageReader {
    pub(crate) page: Arc<SealedPage>,
    templates: OnceCell<Vec<u32>>,
    occurrences: OnceCell<Vec<u32>>,
    times: OnceCell<Vec<i64>>,
    streams: OnceCell<Vec<u32>>,
    files: OnceCell<Vec<u32>>,
    origins: OnceCell<(Vec<u64>, Vec<u32>)>,
    ids: OnceCell<(Vec<u64>, Vec<u128>)>,
    bodies: OnceCell<Bodies>,
    /// These two are made when the first cell is wanted, for many searches want none.
    frames: OnceCell<Vec<OnceCell<Vec<u8>>>>,
    /// By template and hole.
    cells: OnceCell<Vec<Box<[Column]>>>,
}

/// As [`OnceCell::get_or_init`], where reading may fail.
pub(super) fn once<T>(
    slot: &OnceCell<T>,
    read: impl FnOnce() -> Result<T, PageError>,
) -> Result<&T, PageError> {
    if let Some(known) = slot.get() {
        return Ok(known);
    }
    let value = read()?;
    Ok(slot.get_or_init(|| value))
}

impl PageReader {
    pub(crate) fn new(page: Arc<SealedPage>) -> Self {
        Self {
            page,
            templates: OnceCell::new(),
            occurrences: OnceCell::new(),
            times: OnceCell::new(),
            streams: OnceCell::new(),
            files: OnceCell::new(),
            origins: OnceCell::new(),
            ids: OnceCell::new(),
            bodies: OnceCell::new(),
            frames: OnceCell::new(),
            cells: OnceCell::new(),
        }
    }

    /// Reads all of the page, and puts every message together again.
    pub(crate) fn verify(&self) -> Result<(), PageError> {
        for place in &self.page.sections {
            read_section(&self.page.source, *place)?;
        }
        let (numbers, occurrences) = (self.template_column()?, self.occurrence_column()?);
        let times = self.time_column()?;
        self.offset_column()?;
        // Else a disk that refuses would look like a cell that leads nowhere.
        self.ids()?;
        self.bodies()?.each(&self.page, &mut |_| {})?;
        let (mut message, mut hash) = (Vec::new(), 0u64);
        for (row, number) in numbers.iter().enumerate() {
            message.clear();
            super::rebuild(self, *number as usize, occurrences[row] as usize, times[row], &mut message)?;
            hash = hash.wrapping_add(xxh3_64(&message));
        }
        (hash == self.page.hash)
            .then_some(())
            .ok_or(PageError::Damaged("the messages are not those that came"))
    }

    pub(super) fn bodies(&self) -> Result<&Bodies, PageError> {
        once(&self.bodies, || Bodies::open(&self.page))
    }

    fn frame(&self, number: u32) -> Result<&[u8], PageError> {
        let frames = self.frames.get_or_init(|| self.page.frames.iter().map(|_| OnceCell::new()).collect());
        let slot = frames.get(number as usize).ok_or(PageError::Damaged("a frame that is not there"))?;
        let frame = once(slot, || {
            let section = self.page.frames[number as usize];
            self.page.section(section::CELLS, section as usize)
        })?;
        Ok(frame)
    }
}

impl Lookup for PageReader {
    fn text(&self, number: usize) -> Option<&[u8]> {
        self.page.texts().ok()?.get(number)
    }
    fn body(&self, number: usize) -> Option<&[u8]> {
        self.bodies().ok()?.get(&self.page, number).ok()?
    }
    fn id16(&self, number: usize) -> Option<u64> {
        self.ids().ok()?.0.get(number).copied()
    }
    fn id32(&self, number: usize) -> Option<u128> {
        self.ids().ok()?.1.get(number).copied()
    }
}

impl PageView for PageReader {
    fn rows(&self) -> usize {
        self.page.rows
    }
    fn span(&self) -> (LogTime, LogTime) {
        self.page.span
    }
    fn templates(&self) -> &[PageTemplate] {
        &self.page.templates
    }
    fn brief(&self) -> Option<&Brief> {
        Some(&self.page.brief)
    }
    fn streams(&self) -> &[Labels] {
        &self.page.streams
    }
    fn files(&self) -> &[FileId] {
        &self.page.files
    }
    fn pushes(&self) -> &[LogTime] {
        &self.page.pushes
    }
    fn template_column(&self) -> Result<&[u32], PageError> {
        Ok(once(&self.templates, || self.page.template_column())?)
    }
    fn short_template_column(&self) -> Result<Option<&[u16]>, PageError> {
        self.page.short_template_column()
    }
    fn occurrence_column(&self) -> Result<&[u32], PageError> {
        Ok(once(&self.occurrences, || self.page.occurrences(self.template_column()?))?)
    }
    fn time_column(&self) -> Result<&[i64], PageError> {
        Ok(once(&self.times, || self.page.times())?)
    }
    fn runs(&self) -> Option<Vec<(u32, usize)>> {
        Some(self.page.runs.iter().map(|run| (run.stream, run.rows as usize)).collect())
    }
    fn bytes_by_stream(&self) -> Result<Option<Vec<u64>>, PageError> {
        self.page.bytes_by_stream()
    }
    fn stream_column(&self) -> &[u32] {
        self.streams.get_or_init(|| self.page.expand(|run| run.stream))
    }
    fn file_column(&self) -> &[u32] {
        self.files.get_or_init(|| self.page.expand(|run| run.file))
    }
    fn offset_column(&self) -> Result<&[u64], PageError> {
        Ok(&once(&self.origins, || self.page.origins())?.0)
    }
    fn push_column(&self) -> Result<&[u32], PageError> {
        Ok(&once(&self.origins, || self.page.origins())?.1)
    }

    fn cells(&self, template: usize, hole: usize) -> Result<&[u64], PageError> {
        let place =
            self.page.places[template].get(hole).ok_or(PageError::Damaged("a hole that is not there"))?;
        let all = self.cells.get_or_init(|| {
            let holes = |holes: &Vec<HolePlace>| holes.iter().map(|_| OnceCell::new()).collect();
            self.page.places.iter().map(holes).collect()
        });
        let slot = all[template].get(hole).ok_or(PageError::Damaged("a hole that is not there"))?;
        let cells = once(slot, || {
            let frame = self.frame(place.frame)?;
            let reader = &mut Reader::new(frame.get(place.offset as usize..).ok_or(SHORT)?);
            let rows = self.page.templates[template].rows as usize;
            cells::decode(reader, rows).ok_or(PageError::Damaged("a column of variables"))
        })?;
        Ok(cells)
    }
    fn all_kinds(&self, template: usize) -> u16 {
        self.page.brief.kinds[template]
    }
    fn kinds(&self, template: usize, hole: usize) -> u16 {
        self.page.places[template].get(hole).map_or(u16::MAX, |place| place.kinds)
    }

    fn tables(&self) -> Result<&dyn Lookup, PageError> {
        // Ids and bodies are read when the first cell asks for one.
        self.page.texts()?;
        Ok(self)
    }
    fn texts(&self) -> Result<&Texts, PageError> {
        self.page.texts()
    }
    fn uses(&self) -> Result<Option<(&Uses, &Folded)>, PageError> {
        let Some(uses) = self.page.uses()? else { return Ok(None) };
        Ok(Some((uses, self.page.folded()?)))
    }
    fn holes_of_id(&self, number: u32, is_16: bool) -> Result<Option<Vec<HoleNumber>>, PageError> {
        self.page.holes_of_id(number, is_16)
    }
    fn grams(&self) -> Result<Option<&Grams>, PageError> {
        self.page.grams()
    }
    fn longest_hex(&self) -> Result<usize, PageError> {
        self.page.longest_hex()
    }
    fn has_bodies(&self) -> bool {
        self.page.sections.iter().any(|place| matches!(place.kind, section::BODIES | section::PROSE))
    }
    fn ids(&self) -> Result<(&[u64], &[u128]), PageError> {
        let ids = once(&self.ids, || self.page.ids())?;
        Ok((&ids.0, &ids.1))
    }
    fn filter(&self) -> Result<Option<&Fuse>, PageError> {
        self.page.filter()
    }
}
