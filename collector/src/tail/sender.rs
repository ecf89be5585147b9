//! Sends packs, one after the other, until the store has them.
//!
//! While one is on its way the next is being read: the tailer never waits for the network, and a store that is away
//! does not keep it from looking at directories.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use binnacle_model::push::LogPush;
use binnacle_model::storage::{AppendError, LogAppendReport, LogAppender};
use binnacle_model::time::Clock;
use prost::Message;

use super::pack::Pack;
use crate::Telemetry;
use crate::completeness::{NodeReport, Reports};

// Unit tests play a store that is away, and do not wait for it.
const BACKOFF_MIN: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 250 });
const BACKOFF_MAX: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 5_000 });

/// A store of others may not send us away for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 60_000 });

/// Where lines go.
pub trait LogSink: Send + Sync {
    /// Sends a `LogPush` in protobuf; when it returns, the lines and their files' marks survive a power loss.
    fn send(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError>;

    /// Of each file, the first byte that the store does not have.
    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError>;

    /// Whether [`Self::marks`] knows anything: if not, nothing but the checkpoint says how far files were taken.
    fn keeps_marks(&self) -> bool {
        true
    }

    /// Tells how much stands in files. It is said again soon, so that nobody waits for an answer.
    fn report(&self, report: &NodeReport) -> Result<(), AppendError>;
}

/// A store in this process.
pub struct LocalSink {
    store: Arc<dyn LogAppender>,
    clock: Arc<dyn Clock>,
    reports: Arc<Reports>,
}

impl LocalSink {
    /// Appends to `store`, and reports to `reports`.
    pub fn new(store: Arc<dyn LogAppender>, clock: Arc<dyn Clock>, reports: Arc<Reports>) -> Self {
        Self { store, clock, reports }
    }
}

impl LogSink for LocalSink {
    fn send(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError> {
        let push = LogPush::decode(wire).map_err(|error| AppendError::Invalid(error.to_string()))?;
        self.store.append(push, self.clock.now_ns())
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        self.store.marks(files)
    }

    fn report(&self, report: &NodeReport) -> Result<(), AppendError> {
        self.reports.take(report.clone(), self.clock.now_ns()).map_err(AppendError::Invalid)
    }
}

/// What is to be done.
enum Job {
    Send(Pack),
    Ask(Vec<String>),
    Report(NodeReport),
}

/// What came of it.
pub(super) enum Answer {
    /// The store has the pack, but for the parts that it refused for good.
    Sent { pack: Pack, refused: Vec<(usize, String)> },
    /// Somebody else sent a part of these bytes: a request of an earlier process that was long on its way, or another
    /// collector of this node. Neither this pack nor those behind it of the same reading were taken.
    Overtaken { pack: Pack, reason: Option<String> },
    /// How far it has each file.
    Marks(Vec<(String, u64)>),
    /// It was told, or will be the next time.
    Reported,
}

/// Why the same request is not tried again.
enum Refused {
    Invalid(String),
    Overtaken(String),
}

/// The thread that sends.
pub(super) struct Sender {
    jobs: Option<SyncSender<Job>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    is_away: Arc<AtomicBool>,
    sink: Arc<dyn LogSink>,
    /// Packs and questions that are not answered yet.
    pub(super) under_way: usize,
}

impl Sender {
    pub(super) fn start(sink: Arc<dyn LogSink>, telemetry: Telemetry) -> std::io::Result<Self> {
        let (jobs, to_do) = sync_channel(1);
        // As many as there are jobs: the thread never waits to be heard.
        let (answer, answers) = sync_channel(4);
        let (stop, is_away) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let work = Work {
            sink: Arc::clone(&sink),
            telemetry,
            stop: Arc::clone(&stop),
            is_away: Arc::clone(&is_away),
        };
        let thread = std::thread::Builder::new().name("send-logs".to_owned());
        let thread = thread.spawn(move || work.run(&to_do, &answer))?;
        Ok(Self { jobs: Some(jobs), answers, thread: Some(thread), stop, is_away, sink, under_way: 0 })
    }

    /// Whether the store did not answer the last time.
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Gives a pack on; answers it back if another one waits already.
    pub(super) fn send(&mut self, pack: Pack) -> Option<Pack> {
        match self.give(Job::Send(pack)) {
            Some(Job::Send(pack)) => Some(pack),
            _ => None,
        }
    }

    /// Asks how far the store has files; answers them back if there is no room for the question.
    pub(super) fn ask(&mut self, files: Vec<String>) -> Option<Vec<String>> {
        match self.give(Job::Ask(files)) {
            Some(Job::Ask(files)) => Some(files),
            _ => None,
        }
    }

    /// Tells what stands in files, if there is room for it.
    pub(super) fn report(&mut self, report: NodeReport) {
        let _ = self.give(Job::Report(report));
    }

    /// Says the last word, unless nobody hears it.
    pub(super) fn report_last(&self, report: &NodeReport) {
        if !self.is_away()
            && let Err(error) = self.sink.report(report)
        {
            tracing::debug!(%error, "the store was not told that files are read no more");
        }
    }

    fn give(&mut self, job: Job) -> Option<Job> {
        match self.jobs.as_ref()?.try_send(job) {
            Ok(()) => {
                self.under_way += 1;
                None
            }
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some(job),
        }
    }

    /// The next answer, if one comes in time.
    pub(super) fn answer(&mut self, wait: Duration) -> Option<Answer> {
        if self.under_way == 0 {
            std::thread::sleep(wait);
            return None;
        }
        let answer = match self.answers.recv_timeout(wait) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(wait);
                return None;
            }
        };
        self.under_way -= 1;
        Some(answer)
    }

    /// Ends the thread once what is on its way was answered, or failed once more.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sender of logs ended by a panic");
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread has.
struct Work {
    sink: Arc<dyn LogSink>,
    telemetry: Telemetry,
    stop: Arc<AtomicBool>,
    is_away: Arc<AtomicBool>,
}

impl Work {
    fn run(&self, jobs: &Receiver<Job>, answers: &SyncSender<Answer>) {
        // The first reading of which nothing was overtaken.
        let mut reading = 0;
        while let Ok(job) = jobs.recv() {
            let answer = match job {
                // It begins behind bytes that were not taken.
                Job::Send(pack) if pack.reading < reading => Some(Answer::Overtaken { pack, reason: None }),
                Job::Send(pack) => self.send(pack),
                Job::Ask(files) => self.ask(files),
                Job::Report(report) => {
                    if let Err(error) = self.sink.report(&report) {
                        tracing::debug!(%error, "the store was not told how much stands in files");
                    }
                    Some(Answer::Reported)
                }
            };
            let Some(answer) = answer else { return };
            if let Answer::Overtaken { pack, .. } = &answer {
                reading = reading.max(pack.reading + 1);
            }
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    /// `None` if it was stopped before the store had it.
    fn send(&self, pack: Pack) -> Option<Answer> {
        let sent = self.until_answered(|| self.sink.send(&pack.wire))?;
        let mut refused = Vec::new();
        match sent {
            Ok(report) => self.count(&report),
            Err(Refused::Overtaken(reason)) => return Some(self.overtaken(pack, reason)),
            // Whoever it was, the others must not suffer.
            Err(Refused::Invalid(reason)) if pack.parts.len() == 1 => refused.push((0, reason)),
            Err(Refused::Invalid(_)) => {
                for (number, part) in pack.parts.iter().enumerate() {
                    let wire = &pack.wire[part.wire.clone()];
                    match self.until_answered(|| self.sink.send(wire))? {
                        Ok(report) => self.count(&report),
                        Err(Refused::Overtaken(reason)) => return Some(self.overtaken(pack, reason)),
                        Err(Refused::Invalid(reason)) => refused.push((number, reason)),
                    }
                }
            }
        }
        Some(Answer::Sent { pack, refused })
    }

    fn ask(&self, files: Vec<String>) -> Option<Answer> {
        // To take nothing for an answer would send all again.
        let marks = loop {
            match self.until_answered(|| self.sink.marks(&files))? {
                Ok(marks) => break marks,
                Err(Refused::Invalid(reason) | Refused::Overtaken(reason)) => {
                    tracing::error!(reason, "the store does not say how far it has files; they wait");
                    if !self.pause(BACKOFF_MAX) {
                        return None;
                    }
                }
            }
        };
        Some(Answer::Marks(files.into_iter().zip(marks).collect()))
    }

    fn overtaken(&self, pack: Pack, reason: String) -> Answer {
        self.telemetry.overtaken.inc();
        Answer::Overtaken { pack, reason: Some(reason) }
    }

    fn count(&self, report: &LogAppendReport) {
        self.telemetry.duplicates.inc_by(report.duplicate as u64);
        if report.gap_bytes > 0 {
            self.telemetry.gap_bytes.inc_by(report.gap_bytes);
            // Of a journal they are entries.
            let missing = report.gap_bytes;
            tracing::warn!(
                missing,
                "the store has not seen this part of log files, and it is not sent again"
            );
        }
    }

    /// Tries until there is an answer, which may be that it is wrong; `None` if it was stopped meanwhile.
    fn until_answered<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, AppendError>,
    ) -> Option<Result<T, Refused>> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match attempt() {
                Ok(done) => {
                    self.is_away.store(false, Ordering::Relaxed);
                    return Some(Ok(done));
                }
                Err(AppendError::Invalid(reason)) => return Some(Err(Refused::Invalid(reason))),
                Err(AppendError::Overtaken(reason)) => {
                    self.is_away.store(false, Ordering::Relaxed);
                    return Some(Err(Refused::Overtaken(reason)));
                }
                Err(error) => error,
            };
            self.telemetry.pushes_retried.inc();
            let (least, is_away) = match &error {
                // The store knows best when it will have room.
                AppendError::Full { retry_after, .. } => {
                    // Ours has room again soon, and files are deleted meanwhile.
                    let most = if self.sink.keeps_marks() { BACKOFF_MAX } else { RETRY_AFTER_MAX };
                    ((*retry_after).min(most), false)
                }
                _ => (Duration::ZERO, true),
            };
            self.is_away.store(is_away, Ordering::Relaxed);
            // Not all collectors of a cluster at once.
            let retry_in = least + backoff.mul_f64(0.5 + crate::random() / 2.0);
            tracing::warn!(%error, ?retry_in, "log lines were not taken; the files keep them");
            if !self.pause(retry_in) {
                return None;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Sleeps, but not past a stop by more than a moment.
    fn pause(&self, span: Duration) -> bool {
        let until = Instant::now() + span;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
