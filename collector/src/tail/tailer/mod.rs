//! The loop.

mod hinted;
mod packing;
mod reporting;
mod vanished;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use binnacle_model::LogTime;
use binnacle_model::time::Clock;

use super::checkpoint::{Checkpoint, Checkpoints};
use super::edge::Edge;
use super::entries::Entries;
use super::file::{Kind, LogFile, Phase, ReadError};
use super::hints::Hints;
use super::identity::Inode;
use super::listing::{Listing, Scanner};
use super::origin::Origin;
use super::pack::Pack;
use super::records::{Cutter, LineFormat};
use super::sender::{Answer, LogSink, Sender};
use super::spool::Spool;
use super::{Input, Options};
use crate::Telemetry;
use crate::bounds::charged;
use crate::completeness::NodeReport;
use reporting::{Shown, show};

/// Between two looks at the directories; longer if a look takes long, never longer than [`SCAN_MAX`].
const SCAN_MIN: Duration = Duration::from_millis(250);
const SCAN_MAX: Duration = Duration::from_secs(1);

/// Of its time a look takes no more than one part in so many; if the kernel hints at a change, one in so many.
const SCAN_REST: u32 = 20;
const HINTED_REST: u32 = 8;

/// Between two looks at files that are being written to.
const POLL: Duration = Duration::from_millis(50);

/// So long after it was read last a file counts as idle.
const IDLE_NS: i64 = 10_000_000_000;

/// Checkpoints are a cache of what the store knows, so that they need not be written at each batch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Where the store does not know it, they are all there is: what came since is sent again after a crash.
const CHECKPOINT_ALONE_EVERY: Duration = Duration::from_secs(1);

/// After a start, so long until files that are not there count as gone: their directory may be mounted late.
const FIND_LOST_AFTER: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });

/// The store is told this often how much stands in files.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// However little of the processors there is, files have a turn after this.
const TURN_AT_LEAST: Duration = Duration::from_secs(1);

/// Open files that nothing is read of.
const IDLE_OPEN_MAX: usize = 256;

/// Open files in all. Those over it are opened for each turn.
const OPEN_MAX: usize = 4096;

/// The store is asked for all files this often: it forgets those of which nobody speaks for weeks.
const ASK_ALL_EVERY: Duration = Duration::from_hours(24);

/// Names of files in one question to the store.
const ASK_MAX: usize = 10_000;

/// The tailer. Runs on a thread of its own, and has another one that sends.
pub struct Tailer {
    options: Options,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    sender: Sender,
    /// Whether the store says how far it has files; otherwise the checkpoint does.
    keeps_marks: bool,
    scanner: Scanner,
    hints: Hints,
    checkpoints: Checkpoints,
    spool: Spool,
    /// In the order in which they have their turns.
    origins: BTreeMap<u64, Origin>,
    by_name: HashMap<String, u64>,
    /// What was lost of origins that are no more, by namespace and container.
    lost_of_gone: BTreeMap<(String, String), u64>,
    by_file: HashMap<u64, u64>,
    /// The origin that was read last.
    turn: u64,
    numbers: u64,
    started: LogTime,
    /// Files of which the store is to be asked.
    to_ask: Vec<String>,
    /// Files that are gone, and of which the store may not have all.
    perhaps_lost: HashMap<String, Checkpoint>,
    refused: BTreeSet<PathBuf>,
    pack: Pack,
    /// Raised when files are read anew from where the store has them.
    reading: u64,
    cutter: Cutter,
    entries: Entries,
    shown: Shown,
    edge: Edge,
    buffer: Vec<u8>,
    /// A pack that is no longer needed, for its memory.
    spare: Vec<Pack>,
}

impl Tailer {
    /// A tailer; reads its checkpoint and finds its spool.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn new(
        options: Options,
        sink: Arc<dyn LogSink>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> std::io::Result<Self> {
        let is_journal = matches!(options.input, Input::Journal { .. });
        let telemetry = if is_journal { telemetry.of_journal() } else { telemetry };
        let mut tailer = Self {
            keeps_marks: sink.keeps_marks(),
            sender: Sender::start(sink, telemetry.clone())?,
            scanner: Scanner::new(options.input.clone(), &options.node),
            hints: Hints::new(),
            checkpoints: Checkpoints::open(&options.state_dir),
            spool: Spool::open(options.state_dir.join("spool"), options.spool),
            started: clock.now_ns(),
            clock,
            telemetry,
            origins: BTreeMap::new(),
            by_name: HashMap::new(),
            lost_of_gone: BTreeMap::new(),
            by_file: HashMap::new(),
            turn: 0,
            numbers: 0,
            to_ask: Vec::new(),
            perhaps_lost: HashMap::new(),
            refused: BTreeSet::new(),
            pack: Pack::default(),
            reading: 0,
            cutter: Cutter::default(),
            entries: Entries::default(),
            shown: Shown::default(),
            edge: Edge::new(options.edge.clone()),
            buffer: Vec::new(),
            spare: Vec::new(),
            options,
        };
        tailer.find_spooled();
        Ok(tailer)
    }

    /// Tails until `stop` is set. What was read is acknowledged or read again next time.
    pub fn run(mut self, stop: &AtomicBool) {
        let (mut saved, mut scan_at, mut poll_at) = (Instant::now(), Instant::now(), Instant::now());
        let (mut hinted_at, mut filled) = (scan_at, scan_at);
        let mut ask_all_at = scan_at + ASK_ALL_EVERY;
        let mut report_at = Instant::now() + SCAN_MAX;
        let lost_at = Instant::now() + FIND_LOST_AFTER;
        let mut has_found_lost = false;
        let checkpoint_every = if self.keeps_marks { CHECKPOINT_EVERY } else { CHECKPOINT_ALONE_EVERY };
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= scan_at {
                self.scan();
                if now >= lost_at && !std::mem::replace(&mut has_found_lost, true) {
                    self.find_lost();
                }
                if now >= report_at {
                    let report = self.report();
                    self.sender.report(report);
                    report_at = now + REPORT_EVERY;
                }
                let took = now.elapsed();
                scan_at = now + (took * SCAN_REST).clamp(SCAN_MIN, SCAN_MAX);
                hinted_at = now + (took * HINTED_REST).clamp(POLL, SCAN_MAX);
            }
            if now >= poll_at {
                if self.heed() {
                    scan_at = scan_at.min(hinted_at);
                }
                self.poll();
                poll_at = now + POLL;
            }
            if now >= ask_all_at {
                self.ask_for_all();
                ask_all_at = now + ASK_ALL_EVERY;
            }
            self.ask();
            let has_more = self.fill_within_bounds(&mut filled);
            self.send();
            if saved.elapsed() >= checkpoint_every {
                self.save();
                saved = Instant::now();
            }
            // With one pack on its way and one waiting there is nothing to do until an answer comes.
            let is_blocked = !self.pack.is_empty();
            let wait = if has_more && !is_blocked { Duration::ZERO } else { POLL };
            self.hear(wait.min(scan_at.saturating_duration_since(Instant::now())));
        }
        self.finish();
    }

    /// Waits for what is on its way, and remembers what came of it.
    pub(super) fn finish(&mut self) {
        self.sender.stop();
        while let Some(answer) = self.sender.answer(Duration::ZERO) {
            self.take(answer);
        }
        self.save();
        let report = NodeReport { is_last: true, ..self.report() };
        self.sender.report_last(&report);
    }

    pub(super) fn save(&mut self) {
        for origin in self.origins.values() {
            for file in &origin.files {
                let Some(identity) =
                    file.identity.as_ref().filter(|_| file.phase == Phase::Placed && !file.is_copy())
                else {
                    continue;
                };
                let checkpoint = Checkpoint {
                    offset: file.acknowledged,
                    size: file.size,
                    passing: file.passing_acknowledged,
                    origin: origin.name.clone(),
                    first: identity.first,
                    inode: file.inode.number(),
                    generation: origin.generations.get(&file.inode).copied().unwrap_or_default(),
                    born_ns: file.inode.born_ns().and_then(|born| born.try_into().ok()).unwrap_or_default(),
                };
                self.checkpoints.set(&identity.key, checkpoint);
            }
        }
        if let Err(error) = self.checkpoints.save() {
            tracing::warn!(%error, "checkpoint of log files was not saved; the store's marks still hold");
        }
    }

    /// Looks at the directories.
    pub(super) fn scan(&mut self) {
        let now = self.clock.now_ns();
        let scan = self.scanner.scan();
        for (path, reason) in scan.refused {
            self.refuse(path, &reason);
        }
        for name in scan.gone {
            let origin = self.by_name.get(&name).and_then(|number| self.origins.get_mut(number));
            let Some(origin) = origin else { continue };
            origin.generations.clear();
            let files = origin.files.iter_mut().filter(|file| !file.is_spooled());
            files.for_each(|file| _ = file.gone.get_or_insert(now));
        }
        for listing in scan.changed {
            if self.is_excluded(&listing) {
                continue;
            }
            let number = self.origin_of(&listing);
            if let Some(origin) = self.origins.get_mut(&number) {
                origin.update(&listing, now, &mut self.numbers);
            }
        }
        for number in self.origins.keys().copied().collect::<Vec<_>>() {
            self.look_at(number, now);
        }
        self.forget_gone();
        for path in self.spool.expired(now) {
            self.give_up_spooled(&path);
        }
        self.close_idle();
        self.listen(now);
        self.measure(now);
    }

    /// Whether the operator does not want it to be read.
    fn is_excluded(&self, listing: &Listing) -> bool {
        let label =
            |name| listing.stream.iter().find(|pair| pair.name == name).map_or("", |pair| &pair.value);
        // Whose an entry of a journal is says nothing but itself.
        let container = if label("container").is_empty() { label("service") } else { label("container") };
        listing.format != LineFormat::Journal && self.edge.excludes(label("namespace"), container)
    }

    /// Of files that were truncated before the last listing of their directory: those that no copy has.
    fn let_go_of_truncated(&mut self, number: u64) {
        let Some(origin) = self.origins.get(&number) else { return };
        let is_due = self.scanner.is_fresh(&origin.name);
        let cut = (0..origin.files.len()).rev().filter(|at| origin.files[*at].is_cut_short());
        let cut: Vec<usize> = cut.collect();
        if cut.is_empty() {
            return;
        }
        if !is_due {
            self.scanner.forget(&origin.name);
            return;
        }
        cut.into_iter().for_each(|at| self.truncated(number, at));
    }

    fn refuse(&mut self, path: PathBuf, reason: &str) {
        if !self.refused.contains(&path) {
            tracing::warn!(path = %path.display(), reason, "log file is not read");
            self.refused.insert(path);
        }
    }

    fn origin_of(&mut self, listing: &Listing) -> u64 {
        if let Some(number) = self.by_name.get(&listing.name) {
            return *number;
        }
        self.numbers += 1;
        self.origins.insert(self.numbers, Origin::new(listing));
        self.by_name.insert(listing.name.clone(), self.numbers);
        self.numbers
    }

    /// Sizes, new files, and those that vanished.
    fn look_at(&mut self, number: u64, now: LogTime) {
        let Some(origin) = self.origins.get_mut(&number) else { return };
        for file in &mut origin.files {
            file.is_unreadable = false;
            if file.is_compressed() || file.gone.is_some() {
                continue;
            }
            if file.kind == Kind::Journal && file.order.is_live && file.identity.is_some() {
                // Nothing but its own header says that it grew. If it cannot be opened now, reading it says why.
                let _ = file.open_source(&origin.root);
            }
            let size = match &mut file.source {
                Some(source) => source.size().map(|(size, _)| size),
                None if file.kind == Kind::Journal => continue,
                // Another file may have its name by now.
                None => std::fs::symlink_metadata(&file.path).map(|metadata| {
                    if Inode::of(&metadata) == file.inode { metadata.len() } else { file.size }
                }),
            };
            if let Ok(size) = size {
                file.saw(size);
            }
        }
        let (unknown, refused) = origin.identify(&self.options.node, &self.checkpoints, self.started);
        self.to_ask.extend(unknown);
        // Opened before they lose their names, those that will soon are kept.
        let root = Arc::clone(&origin.root);
        for at in 0..origin.files.len() {
            let is_leaving = origin.takes_no_more(at) && origin.files[at].gone.is_none();
            let file = &mut origin.files[at];
            if is_leaving && file.identity.is_some() && !file.is_copy() && file.lag() > 0 {
                // If it cannot be opened now, reading it says why.
                let _ = file.open_source(&root);
            }
            self.by_file.insert(file.number, number);
        }
        for (path, reason) in refused {
            self.refuse(path, &reason);
        }
        self.let_go_of_truncated(number);
        self.let_go(number, now);
    }

    /// Sizes of files that are being written to.
    fn poll(&mut self) {
        let now = self.clock.now_ns();
        for origin in self.origins.values_mut() {
            for file in &mut origin.files {
                if is_hot(file, now)
                    && !file.is_compressed()
                    && let Some(Ok((size, _))) = file.source.as_mut().map(super::source::Source::size)
                {
                    file.saw(size);
                }
            }
        }
    }

    /// Has the store asked for files of which it is known how far it has them.
    pub(in crate::tail) fn ask_for_all(&mut self) {
        if !self.keeps_marks {
            return;
        }
        let files = self.origins.values().flat_map(|origin| &origin.files);
        let placed = files.filter(|file| file.phase == Phase::Placed && !file.is_copy());
        self.to_ask.extend(placed.filter_map(|file| Some(file.identity.as_ref()?.key.clone())));
    }

    /// Asks the store how far it has files of which nothing is remembered here.
    pub(super) fn ask(&mut self) {
        if self.to_ask.is_empty() {
            return;
        }
        let rest = self.to_ask.split_off(self.to_ask.len().min(ASK_MAX));
        let files = std::mem::replace(&mut self.to_ask, rest);
        if !self.keeps_marks {
            let mark = |key: String| {
                let mark = self.checkpoints.get(&key).map_or(0, |known| known.offset);
                (key, mark)
            };
            let marks = files.into_iter().map(mark).collect();
            self.take(Answer::Marks(marks));
            return;
        }
        if let Some(back) = self.sender.ask(files) {
            self.to_ask.extend(back);
        }
    }

    /// Fills the pack, unless others took more of the processors than there is for all.
    fn fill_within_bounds(&mut self, filled: &mut Instant) -> bool {
        let Some(cpu) = self.options.cpu.clone() else { return self.fill() };
        if !cpu.pause().is_zero() && filled.elapsed() < TURN_AT_LEAST {
            self.telemetry.turns_put_off.inc();
            return false;
        }
        *filled = Instant::now();
        charged(Some(&cpu), || self.fill())
    }

    /// Reads until the pack is full or nothing is left. Answers whether there may be more to read at once.
    pub(super) fn fill(&mut self) -> bool {
        let mut has_more = true;
        while has_more && self.pack.wire.len() < self.options.pack_bytes {
            has_more = false;
            let after: Vec<u64> = self.origins.range(self.turn + 1..).map(|(number, _)| *number).collect();
            let before = self.origins.range(..=self.turn).map(|(number, _)| *number);
            for number in after.into_iter().chain(before).collect::<Vec<_>>() {
                has_more |= self.read(number);
                if self.pack.wire.len() >= self.options.pack_bytes {
                    self.turn = number;
                    return true;
                }
            }
        }
        has_more
    }

    /// Lets an origin have its turn. Answers whether something came of it.
    fn read(&mut self, number: u64) -> bool {
        let now = self.clock.now_ns();
        let Some(origin) = self.origins.get_mut(&number) else { return false };
        let Some(at) = origin.next(now) else { return false };
        let takes_no_more = origin.takes_no_more(at);
        let root = Arc::clone(&origin.root);
        if let Some(pods) = &self.options.pods {
            origin.obey(pods);
        }
        let own = origin.rules.as_ref().and_then(|rules| rules.multiline.as_ref());
        let how = (origin.format, own.unwrap_or(&self.options.multiline), self.options.zone_seconds);
        let is_journal = origin.format == LineFormat::Journal;
        let file = &mut origin.files[at];
        let read = if is_journal {
            file.read_entries(&root, takes_no_more, now, (&mut self.buffer, &mut self.entries))
        } else {
            file.read(&root, how, takes_no_more, now, (&mut self.buffer, &mut self.cutter))
        };
        let turn = match read {
            Ok(turn) => turn,
            Err(ReadError::Truncated) => {
                // The next look lists its directory, so that a copy is known before it is decided what is lost.
                self.scanner.forget(&origin.name);
                return false;
            }
            Err(ReadError::Io(error)) => {
                let path = file.path.clone();
                // It vanished between the listing and now, or will be found under its new name (L10).
                if error.kind() == std::io::ErrorKind::NotFound {
                    file.gone.get_or_insert(now);
                } else {
                    file.is_unreadable = true;
                    self.refuse(path, &error.to_string());
                }
                return false;
            }
        };
        if is_journal {
            self.pack_entries(number, at, &turn);
        } else {
            self.pack(number, at, &turn);
        }
        turn.cut.to > turn.from
    }

    /// What is there now is another file under the same name (L3). What was not read of the one before may stand in a
    /// copy; then that goes on with its place. Called after its directory was listed anew.
    fn truncated(&mut self, number: u64, at: usize) {
        self.telemetry.files_truncated.inc();
        let Some(origin) = self.origins.get_mut(&number) else { return };
        vanished::lose(origin, at, &self.telemetry);
        let file = origin.files.remove(at);
        *origin.generations.entry(file.inode).or_default() += 1;
        if let Some(identity) = &file.identity {
            self.checkpoints.forget(&identity.key);
        }
        self.by_file.remove(&file.number);
        // The next look finds what is there now as a new file.
        self.scanner.forget(&origin.name);
    }

    /// Gives the pack on, if there is one and room for it.
    pub(super) fn send(&mut self) {
        // While one is on its way, this one may still grow.
        if self.pack.is_empty()
            || (self.sender.under_way > 1 && self.pack.wire.len() < self.options.pack_bytes)
        {
            return;
        }
        let next = self.spare.pop().unwrap_or_default();
        let mut pack = std::mem::replace(&mut self.pack, next);
        pack.reading = self.reading;
        if let Some(pack) = self.sender.send(pack) {
            self.spare.push(std::mem::replace(&mut self.pack, pack));
        }
    }

    /// Takes what the store answered.
    pub(super) fn hear(&mut self, wait: Duration) {
        let mut wait = wait;
        while let Some(answer) = self.sender.answer(wait) {
            self.take(answer);
            wait = Duration::ZERO;
            if self.sender.under_way == 0 {
                break;
            }
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Reported => {}
            Answer::Marks(marks) => {
                let marks: HashMap<String, u64> = marks.into_iter().collect();
                self.origins.values_mut().for_each(|origin| origin.place(&marks, &self.checkpoints));
                marks.iter().for_each(|(key, mark)| self.lost_behind(key, *mark));
            }
            Answer::Sent { pack, refused } => {
                for (at, reason) in refused {
                    let part = &pack.parts[at];
                    // Of a journal they are entries.
                    self.telemetry.refused_bytes.inc_by(part.to - part.from);
                    let origin = self.by_file.get(&part.file).and_then(|origin| self.origins.get_mut(origin));
                    if let Some(origin) = origin {
                        origin.refused_bytes += part.to - part.from;
                    }
                    tracing::error!(
                        reason,
                        from = part.from,
                        to = part.to,
                        "lines were refused and are left out"
                    );
                }
                for part in &pack.parts {
                    let origin = self.by_file.get(&part.file).and_then(|origin| self.origins.get_mut(origin));
                    let files = origin.into_iter().flat_map(|origin| &mut origin.files);
                    for file in files.filter(|file| file.number == part.file) {
                        file.acknowledge(part.to, part.passing);
                    }
                }
                self.keep_spare(pack);
            }
            Answer::Overtaken { pack, reason } => {
                if let Some(reason) = reason {
                    tracing::warn!(reason, "does another collector read the files of this node?");
                }
                if pack.reading == self.reading {
                    self.read_anew();
                }
                self.keep_spare(pack);
            }
        }
    }

    fn keep_spare(&mut self, mut pack: Pack) {
        pack.clear();
        if self.spare.len() < 2 {
            self.spare.push(pack);
        }
    }

    /// What was read and not acknowledged is read again from where the store has it.
    fn read_anew(&mut self) {
        self.reading += 1;
        self.pack.clear();
        for file in self.origins.values_mut().flat_map(|origin| &mut origin.files) {
            if let Some(identity) = file.identity.as_ref().filter(|_| file.phase == Phase::Placed)
                && file.read_to != file.acknowledged
            {
                self.to_ask.push(identity.key.clone());
                file.await_place();
            }
        }
    }

    /// Closes files that nothing was read of for long, those that were read longest ago first.
    fn close_idle(&mut self) {
        let mut open: Vec<(LogTime, u64)> = Vec::new();
        let mut count = 0;
        for origin in self.origins.values() {
            for file in origin.files.iter().filter(|file| file.source.is_some()) {
                count += 1;
                // What was deleted can be read by its open file alone.
                let is_needed = file.lag() > 0 && count <= OPEN_MAX;
                if file.gone.is_none() && !is_needed {
                    open.push((file.last_read, file.number));
                }
            }
        }
        self.shown.files_open = show(&self.telemetry.files_open, self.shown.files_open, count as u64);
        open.sort_unstable();
        let close: BTreeSet<u64> =
            open.iter().take(open.len().saturating_sub(IDLE_OPEN_MAX)).map(|(_, number)| *number).collect();
        if close.is_empty() {
            return;
        }
        for file in self.origins.values_mut().flat_map(|origin| &mut origin.files) {
            if close.contains(&file.number) {
                file.source = None;
            }
        }
    }
}

/// Whether it was read so shortly before that its size is looked at often.
fn is_hot(file: &LogFile, now: LogTime) -> bool {
    now.0.saturating_sub(file.last_read.0) < IDLE_NS
}

#[cfg(test)]
impl Tailer {
    /// Waits for answers, but no longer than this for one.
    pub(super) fn settle(&mut self, wait: Duration) {
        while self.is_waiting() {
            match self.sender.answer(wait) {
                Some(answer) => self.take(answer),
                None => break,
            }
        }
    }

    /// Lists directories, and opens nothing.
    pub(super) fn list(&mut self) {
        let now = self.clock.now_ns();
        for listing in self.scanner.scan().changed {
            let number = self.origin_of(&listing);
            if let Some(origin) = self.origins.get_mut(&number) {
                origin.update(&listing, now, &mut self.numbers);
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.sender.under_way > 0
    }
}
