//! What the collector may take of its machine.
//!
//! ```text
//! cpu     logs wait until what all took of the processors is within the bound; scrapes never wait for that
//! memory  pack_bytes   lines of files on their way, a quarter of the bound
//!         pages        what is scraped at the same time, a quarter
//!         samples      what waits for our own store, an eighth
//!         refusal      beyond the bound, targets of which no series is known are not scraped
//! ```
//!
//! What a processor's bound of the system's own (a quota) would stop, stops as a whole, also scrapes in the middle of
//! their timeout. Here those wait that can: files keep what they have.

mod cpu;
mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use cpu::charged;
pub use cpu::{CpuShare, Meter};
pub(crate) use pages::{Held, PageRoom};

/// Where nothing bounds it.
const PACK_BYTES: usize = 4 * 1024 * 1024;
const PACK_BYTES_MIN: usize = 256 * 1024;

/// Packs of an input at the same time: one that grows, two on their way, and two that wait to be used again.
const PACKS: u64 = 5;

/// A sample that waits, with its part of what its series takes.
const SAMPLE_BYTES: u64 = 64;

/// How long it is believed how much memory there is in use.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A page may grow to this in any case: without that nothing could be scraped.
const PAGE_BYTES_MIN: usize = 4 * 1024 * 1024;

/// Bounds of all that the collector does.
#[derive(Debug)]
pub struct Bounds {
    /// Bytes of memory.
    memory: Option<u64>,
    /// Whether the process does nothing but collect, so that what it takes is the collector's.
    is_alone: bool,
    /// Of processors.
    pub cpu: Option<Arc<CpuShare>>,
    pub(crate) pages: PageRoom,
    began: Instant,
    looked_ms: AtomicU64,
    is_full: AtomicBool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new(None, None, false)
    }
}

impl Bounds {
    /// Bytes of memory and processors, in a process that does nothing else or does.
    pub fn new(memory: Option<u64>, cores: Option<f64>, is_alone: bool) -> Self {
        let meter = if is_alone { Meter::Process } else { Meter::Charged };
        Self {
            memory,
            is_alone,
            cpu: cores.map(|cores| Arc::new(CpuShare::new(cores, meter))),
            pages: PageRoom::new(memory.map(|bytes| usize::try_from(bytes / 4).unwrap_or(usize::MAX))),
            began: Instant::now(),
            looked_ms: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
        }
    }

    /// Bytes of lines that are sent at once, where so many inputs are read.
    pub fn pack_bytes(&self, inputs: usize) -> usize {
        let Some(memory) = self.memory else { return PACK_BYTES };
        let share = memory / 4 / PACKS / inputs.max(1) as u64;
        usize::try_from(share).unwrap_or(PACK_BYTES).clamp(PACK_BYTES_MIN, PACK_BYTES)
    }

    /// Samples that may wait for our own store, an eighth of the memory.
    pub fn samples(&self) -> Option<usize> {
        self.memory.map(|bytes| usize::try_from(bytes / 8 / SAMPLE_BYTES).unwrap_or(usize::MAX))
    }

    /// No page may be larger, if its scrape config lets it.
    pub(crate) fn page_bytes(&self) -> usize {
        let half = self.memory.map_or(usize::MAX, |bytes| usize::try_from(bytes / 2).unwrap_or(usize::MAX));
        half.max(PAGE_BYTES_MIN)
    }

    /// Says so if the process has more memory than it may, so that nothing new should be begun.
    pub(crate) fn refusal(&self) -> Option<String> {
        let memory = self.memory.filter(|_| self.is_alone)?;
        let now = self.began.elapsed().as_millis() as u64;
        let looked = self.looked_ms.load(Ordering::Relaxed);
        if looked == 0 || now.saturating_sub(looked) > LOOK_EVERY.as_millis() as u64 {
            self.looked_ms.store(now.max(1), Ordering::Relaxed);
            self.is_full.store(resident().is_some_and(|bytes| bytes > memory), Ordering::Relaxed);
        }
        let reason = || {
            format!(
                "the collector has more memory in use than collector.memory ({} MiB): a target whose series it does not know is not scraped",
                memory >> 20
            )
        };
        self.is_full.load(Ordering::Relaxed).then(reason)
    }
}

/// Bytes of memory that the process has.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_share_a_quarter_of_the_memory() {
        let pack = |memory, inputs| Bounds::new(memory, None, true).pack_bytes(inputs);
        assert_eq!(pack(None, 3), PACK_BYTES);
        assert_eq!(pack(Some(64 << 20), 1), (64 << 20) / 20);
        assert_eq!(pack(Some(64 << 20), 4), (64 << 20) / 80);
        assert_eq!(pack(Some(32 << 20), 1000), PACK_BYTES_MIN);
        assert_eq!(pack(Some(64 << 30), 1), PACK_BYTES);
    }

    #[test]
    fn beyond_its_memory_nothing_new_is_begun() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        let refuses = |memory, is_alone| Bounds::new(memory, None, is_alone).refusal().is_some();
        assert!(refuses(Some(1 << 20), true));
        assert!(!refuses(Some(1 << 40), true));
        assert!(!refuses(Some(1 << 20), false), "it may be the store's");
        assert!(!refuses(None, true));
    }
}
