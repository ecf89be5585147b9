//! The thread that puts durable lines into pages, and seals these.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use binnacle_model::LogTime;
use binnacle_model::log::LogEntry;
use binnacle_model::push::LogPush;

use super::class::ClassName;
use super::page::{Miner, offset_of, seal};
use super::partition::{Day, Partition, PartitionId};
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

/// Bytes of messages in all pages that take lines. With more, the largest is sealed: each class has one.
const OPEN_MAX_BYTES: usize = 48 * 1024 * 1024;

/// At the end, a page with fewer rows is left to the log.
const SEAL_AT_END_MIN_ROWS: usize = 4096;

/// State of the thread.
pub(super) struct Indexer {
    shared: Arc<Shared>,
    miner: Miner,
    /// The partitions that take pages.
    partitions: HashMap<ClassName, Arc<Partition>>,
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
        Self { shared, miner: Miner::default(), partitions: HashMap::new(), taken, retry: None }
    }

    /// Runs until the queue is stopped and empty.
    pub(super) fn run(self) {
        let _guard = StopOnDrop(Arc::clone(&self.shared));
        self.work();
    }

    fn work(mut self) {
        loop {
            let waiting = self.shared.open_pages().iter().filter(|one| one.is_over()).count();
            let is_blocked = waiting >= WAITING_MAX;
            let until = self.retry.unwrap_or_else(|| Instant::now() + LOOK_EVERY);
            match self.shared.queue.next(until, is_blocked) {
                Next::Take(batch) => {
                    if !self.wait_durable(batch.sequence) {
                        return;
                    }
                    self.take(&batch);
                }
                Next::Seal => self.end_pages(),
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

    /// Takes the lines of one record that is durable: into the open pages, then to whoever listens.
    fn take(&mut self, batch: &Batch) {
        let day = Day::of(batch.received);
        for class in batch.missing_classes() {
            let mut open = self.shared.open_pages_mut();
            let begins = batch.begins_page.contains(&class);
            let at = page_of(&mut open, &mut self.miner, &class, day, begins);
            let page =
                Arc::get_mut(&mut open[at].page).expect("searches share pages that are over, and no others");
            page.push(&mut self.miner, batch.of_class(&class), batch.received, batch.sequence);
            end_largest(&mut open);
        }
        self.taken = batch.sequence;
        // What is told can be found: whoever listens may look for what came before.
        self.shared.publish(&batch.push, batch.received, batch.sequence);
        self.shared.queue.taken(batch.sequence, batch.bytes);
    }

    /// Lets the pages that take lines be sealed.
    fn end_pages(&mut self) {
        let mut open = self.shared.open_pages_mut();
        open.iter_mut().for_each(OpenPages::end);
    }

    /// Seals the pages that take no more lines.
    fn seal_full(&mut self) {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        self.retry = None;
        loop {
            // The oldest one comes first.
            let over = self.shared.open_pages().iter().position(OpenPages::is_over);
            let Some(at) = over else { break };
            if let Err(error) = self.seal_page(at) {
                tracing::error!(%error, "a log page cannot be written; will try again, the log has its lines");
                self.shared.queue.count_failure();
                self.retry = Some(Instant::now() + RETRY_AFTER);
                self.partitions.clear();
                break;
            }
        }
        let through = self.through();
        self.shared.queue.set_sealed(through);
    }

    /// The last record of which all lines are in sealed pages, with those of all before it.
    fn through(&self) -> Sequence {
        let open = self.shared.open_pages();
        let first = open.iter().filter_map(|open| open.page.sequences()).map(|(first, _)| first).min();
        first.map_or(self.taken, |first| Sequence(first.0.saturating_sub(1)))
    }

    /// Writes an open page that is over, and puts the sealed one in its place.
    fn seal_page(&mut self, at: usize) -> std::io::Result<()> {
        let (day, class, page) = {
            let open = self.shared.open_pages();
            (open[at].day, ClassName::clone(&open[at].class), Arc::clone(&open[at].page))
        };
        let bytes = seal(&page)?;
        loop {
            let partition = self.partition_of(day, &class)?;
            let is_over = partition.is_over();
            if *is_over {
                // It was closed meanwhile.
                self.partitions.remove(&class);
                continue;
            }
            let sealed = partition.write(&*self.shared.disk, &self.shared.interned, &bytes)?;
            // Under the lock, so that no search sees both of them, or none.
            let mut open = self.shared.open_pages_mut();
            partition.add(sealed);
            open.remove(at);
            self.shared.telemetry.log_commits.inc();
            return Ok(());
        }
    }

    /// The partition of a day and a class that takes pages, made if there is none.
    fn partition_of(&mut self, day: Day, class: &ClassName) -> std::io::Result<Arc<Partition>> {
        let takes = |one: &Partition| {
            one.id.day == day && one.raw_bytes() < self.shared.partition_max_bytes && !*one.is_over()
        };
        if let Some(partition) = self.partitions.get(class).filter(|partition| takes(partition)) {
            return Ok(Arc::clone(partition));
        }
        let of_day: Vec<Arc<Partition>> =
            self.shared.partitions().into_iter().filter(|partition| partition.id.day == day).collect();
        let last = of_day.iter().rfind(|partition| partition.class == *class);
        let partition = if let Some(last) = last.filter(|last| takes(last)) {
            Arc::clone(last)
        } else {
            let id = PartitionId { day, part: of_day.last().map_or(0, |last| last.id.part + 1) };
            let class = ClassName::clone(class);
            let made = Partition::create(&*self.shared.disk, &self.shared.dir, id, class)?;
            let made = Arc::new(made);
            self.shared.add_partition(Arc::clone(&made));
            made
        };
        self.partitions.insert(ClassName::clone(class), Arc::clone(&partition));
        Ok(partition)
    }

    /// Small pages are left to the log, from which the next start takes their lines again.
    fn seal_at_end(&mut self) {
        use super::page::PageView;
        let is_large = |one: &OpenPages| one.page.rows() >= SEAL_AT_END_MIN_ROWS;
        let mut open = self.shared.open_pages_mut();
        open.iter_mut().filter(|one| is_large(one)).for_each(OpenPages::end);
        drop(open);
        self.retry = None;
        self.seal_full();
    }
}

/// The page that takes lines of a class, made if there is none.
fn page_of(
    open: &mut Vec<OpenPages>,
    miner: &mut Miner,
    class: &ClassName,
    day: Day,
    begins_page: bool,
) -> usize {
    let taking = open.iter().position(|one| one.class == *class && !one.is_over());
    if let Some(at) = taking {
        if open[at].day == day && !begins_page {
            return at;
        }
        open[at].end();
    }
    if miner.is_full() {
        open.iter_mut().for_each(OpenPages::end);
        miner.forget();
    }
    open.push(OpenPages::new(day, ClassName::clone(class)));
    open.len() - 1
}

/// Has the largest page sealed where all together are too large.
fn end_largest(open: &mut [OpenPages]) {
    let taking = || open.iter().enumerate().filter(|(_, one)| !one.is_over());
    if taking().map(|(_, one)| one.page.raw_bytes()).sum::<usize>() > OPEN_MAX_BYTES
        && let Some((at, _)) = taking().max_by_key(|(_, one)| one.page.raw_bytes())
    {
        open[at].end();
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
