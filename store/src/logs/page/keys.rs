//! What the words of a sealed page are, for the index of its partition.

use super::fuse::key_of;
use super::reader::PageReader;
use super::seal::{note_ids, note_keys, note_words};
use super::{PageError, PageView};
use crate::logs::split::write_id16;

impl PageReader {
    /// The keys that its filter was made of, some of them more than once.
    pub(crate) fn keys(&self) -> Result<Vec<u64>, PageError> {
        let (short, long) = self.ids()?;
        let mut forms = vec![0u8; long.len()];
        let mut keys = Vec::new();
        for (number, one) in self.templates().iter().enumerate() {
            for hole in 0..one.template.holes() {
                note_keys(self.cells(number, hole)?, &mut keys, &mut forms);
            }
        }
        note_ids(long, &forms, &mut keys);
        let mut text = Vec::new();
        for id in short {
            text.clear();
            write_id16(*id, &mut text);
            keys.push(key_of(&text));
        }
        self.each_text(&mut |text| note_words(text, &mut keys))?;
        Ok(keys)
    }

    /// Visits all texts that variables and attributes have.
    pub(crate) fn each_text(&self, visit: &mut dyn FnMut(&[u8])) -> Result<(), PageError> {
        self.texts()?.iter().for_each(&mut *visit);
        if self.has_bodies() {
            self.bodies()?.each(&self.page, visit)?;
        }
        Ok(())
    }
}
