//! The thread that puts durable lines into pages, and seals these.

use std::sync::Arc;
use std::time::{Duration, Instant};

use binnacle_model::LogTime;
use binnacle_model::log::LogEntry;
use binnacle_model::push::LogPush;

use super::page::{Miner, OpenPage, offset_of, seal};
use super::partition::{Day, PARTITION_MAX_BYTES, Partition, PartitionId};
use super::queue::{Batch, Next};
use super::{OpenPages, Shared};
use crate::wal::Sequence;

/// Pause between two looks at what is to be done.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pause before a page that could not be written is tried again; the disk may be full for a while.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Pause before a log that failed is asked again whether it goes on.
const WAL_RETRY_AFTER: Duration = Duration::from_millis(250);

/// Full pages that may wait for the disk. With more, nothing is taken out of the queue.
const WAITING_MAX: usize = 3;

/// At the end, a page with fewer rows is left to the log.
const SEAL_AT_END_MIN_ROWS: usize = 4096;

/// State of the thread.
pub(super) struct Indexer {
    shared: Arc<Shared>,
    miner: Miner,
    /// The partition that takes pages.
    partition: Option<Arc<Partition>>,
    /// The last record that was taken.
    taken: Sequence,
    /// When a page that could not be written is tried again.
    retry: Option<Instant>,
}

/// Tells the queue that its thread is gone, however it went: nobody may wait for it.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.queue.stop();
    }
}

impl Indexer {
    pub(super) fn new(shared: Arc<Shared>, taken: Sequence) -> Self {
        Self { shared, miner: Miner::default(), partition: None, taken, retry: None }
    }

    /// Runs until the queue is stopped and empty.
    pub(super) fn run(self) {
        let _guard = StopOnDrop(Arc::clone(&self.shared));
        self.work();
    }

    fn work(mut self) {
        loop {
            let waiting = self.shared.open_pages().len();
            let is_blocked = waiting > WAITING_MAX;
            let until = self.retry.unwrap_or_else(|| Instant::now() + LOOK_EVERY);
            match self.shared.queue.next(until, is_blocked) {
                Next::Take(batch) => {
                    if !self.wait_durable(batch.sequence) {
                        return;
                    }
                    self.take(&batch);
                }
                Next::Seal => self.end_page(),
                Next::Wait => self.retry = None,
                Next::Stop => {
                    self.seal_at_end();
                    return;
                }
            }
            self.shared.telemetry.lines_queued.set(self.shared.queue.bytes() as i64);
            self.seal_full();
        }
    }

    /// Waits until a record is durable. A log that failed keeps it and may go on later. `false`: the queue was stopped
    /// before that, and the lines were never acknowledged.
    fn wait_durable(&self, sequence: Sequence) -> bool {
        while self.shared.wal.commit(sequence).is_err() {
            self.shared.queue.count_failure();
            if !self.shared.queue.pause(WAL_RETRY_AFTER) {
                return false;
            }
        }
        true
    }

    /// Takes the lines of one record that is durable: into the open page, then to whoever listens.
    fn take(&mut self, batch: &Batch) {
        let day = Day::of(batch.received);
        {
            let mut open = self.shared.open_pages_mut();
            let is_other = |last: &OpenPages| last.day != day || last.page.is_full() || batch.begins_page;
            let begins = open.last().is_none_or(is_other);
            if begins {
                open.push(OpenPages { day, page: OpenPage::default() });
            }
            let last = open.last_mut().expect("pushed above if there was none");
            last.page.push(&mut self.miner, &batch.push.batches, batch.received, batch.sequence);
        }
        self.taken = batch.sequence;
        // What is told can be found: whoever listens may look for what came before.
        self.shared.publish(&batch.push, batch.received, batch.sequence);
        self.shared.queue.taken(batch.sequence, batch.bytes);
    }

    /// Lets the page that takes lines be sealed.
    fn end_page(&mut self) {
        let mut open = self.shared.open_pages_mut();
        if let Some(last) = open.last()
            && !last.page.is_empty()
        {
            let day = last.day;
            open.push(OpenPages { day, page: OpenPage::default() });
        }
    }

    /// Seals the pages that take no more lines.
    fn seal_full(&mut self) {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        self.retry = None;
        while self.is_first_full() {
            if let Err(error) = self.seal_first() {
                tracing::error!(%error, "a log page cannot be written; will try again, the log has its lines");
                self.shared.queue.count_failure();
                self.retry = Some(Instant::now() + RETRY_AFTER);
                self.partition = None;
                break;
            }
        }
        let through = self.through();
        self.shared.queue.set_sealed(through);
    }

    fn is_first_full(&self) -> bool {
        let open = self.shared.open_pages();
        open.first().is_some_and(|first| open.len() > 1 || first.page.is_full())
    }

    /// The last record of which all lines are in sealed pages, with those of all before it.
    fn through(&self) -> Sequence {
        let open = self.shared.open_pages();
        let first = open.iter().find_map(|open| open.page.sequences());
        first.map_or(self.taken, |(first, _)| Sequence(first.0.saturating_sub(1)))
    }

    /// Writes the oldest open page, and puts the sealed one in its place.
    fn seal_first(&mut self) -> std::io::Result<()> {
        let (day, bytes) = {
            let open = self.shared.open_pages();
            let Some(first) = open.first() else { return Ok(()) };
            let bytes = if first.page.is_empty() { None } else { Some(seal(&first.page)?) };
            (first.day, bytes)
        };
        if let Some(bytes) = bytes {
            let partition = self.partition_of(day)?;
            let page = partition.write(&*self.shared.disk, &self.shared.interned, &bytes)?;
            // Under the lock, so that no search sees both of them, or none.
            let mut open = self.shared.open_pages_mut();
            partition.add(page);
            open.remove(0);
            self.shared.telemetry.log_commits.inc();
        } else {
            self.shared.open_pages_mut().remove(0);
        }
        Ok(())
    }

    /// The partition of a day that takes pages, made if there is none.
    fn partition_of(&mut self, day: Day) -> std::io::Result<Arc<Partition>> {
        if let Some(partition) = &self.partition {
            if partition.id.day == day && partition.raw_bytes() < PARTITION_MAX_BYTES {
                return Ok(Arc::clone(partition));
            }
            partition.close(&*self.shared.disk)?;
        }
        let last = self.shared.partitions().into_iter().filter(|partition| partition.id.day == day).last();
        let part = match last {
            Some(last) if last.raw_bytes() < PARTITION_MAX_BYTES => {
                self.partition = Some(Arc::clone(&last));
                return Ok(last);
            }
            last => last.map_or(0, |last| last.id.part + 1),
        };
        let id = PartitionId { day, part };
        let partition = Arc::new(Partition::create(&*self.shared.disk, &self.shared.dir, id)?);
        self.shared.add_partition(Arc::clone(&partition));
        self.partition = Some(Arc::clone(&partition));
        Ok(partition)
    }

    /// Small pages are left to the log, from which the next start takes their lines again.
    fn seal_at_end(&mut self) {
        use super::page::PageView;
        if self.shared.open_pages().last().is_some_and(|last| last.page.rows() >= SEAL_AT_END_MIN_ROWS) {
            self.end_page();
        }
        self.retry = None;
        self.seal_full();
    }
}

impl Shared {
    /// Tells the lines of a record to whoever listens.
    fn publish(&self, push: &LogPush, received: LogTime, sequence: Sequence) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if subscribers.is_empty() {
            return;
        }
        let entries = entries_of(push, received, sequence);
        subscribers.retain(|subscriber| subscriber.entries(&entries));
    }
}

/// The entries of a record, as a search would find them.
pub(super) fn entries_of(push: &LogPush, received: LogTime, sequence: Sequence) -> Vec<Arc<LogEntry>> {
    let (mut entries, mut unnamed) = (Vec::new(), 0);
    for batch in &push.batches {
        let Ok(stream) = batch.stream_labels() else { continue };
        for one in &batch.entries {
            let mut entry = batch.to_entry(&stream, one, received);
            if batch.file.is_empty() {
                entry.origin.offset = offset_of(sequence, unnamed);
                unnamed += 1;
            }
            entries.push(Arc::new(entry));
        }
    }
    entries
}
