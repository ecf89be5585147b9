//! Stores and a clock for tests of doors.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::push::{LogPush, PushValue};
use binnacle_model::storage::{
    AppendError, AppendReport, Appender, LogAppendReport, LogAppender, Metadata, PodMetadata, PodSink,
    RawSeries, SeriesDecoder,
};
use binnacle_model::time::Clock;

use super::{Intake, OtlpOptions, Stores};
use crate::Telemetry;

/// What every clock shows: 2023-11-14T22:13:20.123456789Z.
pub(crate) const NOW: i64 = 1_700_000_000_123_456_789;

/// Bytes of lines for which a store that is not full says it has room.
pub(crate) const ROOM: usize = 100_000;

/// Keeps what comes, or is full for seven seconds more.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) pushes: Mutex<Vec<LogPush>>,
    pub(crate) is_full: std::sync::atomic::AtomicBool,
}

impl LogAppender for Kept {
    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        Ok(vec![0; files.len()])
    }

    fn append(&self, push: LogPush, _: LogTime) -> Result<LogAppendReport, AppendError> {
        if self.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(AppendError::Full { what: "queue", retry_after: Duration::from_secs(7) });
        }
        self.pushes.lock().unwrap().push(push);
        Ok(LogAppendReport::default())
    }

    fn room(&self) -> Result<usize, AppendError> {
        if self.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(AppendError::Full { what: "queue", retry_after: Duration::from_secs(7) });
        }
        Ok(ROOM)
    }
}

impl Kept {
    pub(crate) fn full() -> Arc<Self> {
        Arc::new(Self { is_full: true.into(), ..Self::default() })
    }

    /// A line for each stream, with a line for each entry behind it.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.pushes.lock().unwrap().iter().flat_map(shown).collect()
    }

    pub(crate) fn entries(&self) -> usize {
        let pushes = self.pushes.lock().unwrap();
        pushes.iter().flat_map(|push| &push.batches).map(|batch| batch.entries.len()).sum()
    }
}

pub(crate) struct NoMetrics;

impl Appender for NoMetrics {
    fn append(&self, _: &[RawSeries<'_>], _: &dyn SeriesDecoder) -> Result<AppendReport, AppendError> {
        Ok(AppendReport::default())
    }
    fn append_metadata(&self, _: &[(String, Metadata)]) {}
}

impl PodSink for NoMetrics {
    fn save_pods(&self, _: &[PodMetadata]) -> Result<(), AppendError> {
        Ok(())
    }
}

pub(crate) struct Noon;

impl Clock for Noon {
    fn now_ns(&self) -> LogTime {
        LogTime(NOW)
    }
}

pub(crate) fn intake(logs: &Arc<Kept>) -> Arc<Intake> {
    intake_of(Arc::clone(logs) as Arc<dyn LogAppender>)
}

pub(crate) fn intake_of(logs: Arc<dyn LogAppender>) -> Arc<Intake> {
    let stores = Stores { metrics: Arc::new(NoMetrics), logs, pods: Arc::new(NoMetrics) };
    Intake::new(stores, Arc::new(Noon), Telemetry::default(), OtlpOptions::default())
}

/// `labels`, then `time|level|output|message|attributes` of each entry.
pub(crate) fn shown(push: &LogPush) -> Vec<String> {
    let mut out = Vec::new();
    for batch in &push.batches {
        let labels: Vec<String> =
            batch.stream.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect();
        out.push(labels.join(","));
        for entry in &batch.entries {
            let fields = batch.fields_of(entry).map(|(name, value)| match value {
                PushValue::Text(text) => format!("{name}={text}"),
                PushValue::Int(whole) => format!("{name}={whole}i"),
                PushValue::Float(float) => format!("{name}={float}f"),
                PushValue::Bool(flag) => format!("{name}={flag}b"),
            });
            let fields = fields.collect::<Vec<_>>().join(",");
            let text = String::from_utf8(entry.message.clone())
                .unwrap_or_else(|error| error.as_bytes().escape_ascii().to_string());
            out.push(format!("{}|{}|{}|{text}|{fields}", entry.time_ns, entry.level, entry.iostream));
        }
    }
    out
}
