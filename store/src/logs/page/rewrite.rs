//! Pages written anew: small ones as one, or one without some of its entries.

use std::sync::Arc;

use binnacle_model::log::LogEntry;

use super::open::{Miner, OpenPage};
use super::reader::PageReader;
use super::sealed::SealedPage;
use super::{PageError, PageView, entry};

/// The entries of pages that `keeps` wants, as one page that stands for all their records of the log.
///
/// # Errors
/// A page cannot be read, or what was read is not what was written into it.
pub(crate) fn rewrite(
    pages: &[Arc<SealedPage>],
    keeps: &mut dyn FnMut(&LogEntry) -> bool,
) -> Result<OpenPage, PageError> {
    let (mut out, mut miner) = (OpenPage::default(), Miner::default());
    for page in pages {
        let reader = PageReader::new(Arc::clone(page));
        reader.verify()?;
        for row in 0..reader.rows() {
            let entry = entry(&reader, row)?;
            if keeps(&entry) {
                out.push_entry(&mut miner, &entry);
            }
        }
        out.cover(page.sequences());
    }
    Ok(out)
}
