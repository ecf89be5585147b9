//! `POST /api/v1/import/prometheus`: pages of metrics, also very long ones, with times of their own.
//!
//! ```text
//! body ─► gunzip ─► whole lines, a few MiB ─► parse ─► append, durable ─► the next lines
//! ```
//!
//! As in VictoriaMetrics, whose path this is: `extra_label=name=value` is added to every series, and `timestamp` (Unix
//! milliseconds) is the moment of lines that say none; without it that is the present. A line that cannot be read ends
//! the import: what stands before it is stored, and all of it may be sent again. What is there twice is answered once, and
//! takes its room twice only until the blocks of its day are merged.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use binnacle_model::labels::LabelsError;
use binnacle_model::storage::{AppendReport, Appender, Metadata, RawSeries, SeriesDecoder};
use binnacle_model::{Labels, Sample, Timestamp};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::{BODY_TIMEOUT, Intake, Refusal, header_text};
use crate::exposition::{Format, Line, decode_series, parse_part};

/// Lines are taken in parts of this size, each as one write.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// A line that has not ended after so many bytes of the part behind it ends the import.
const LINE_MAX_BYTES: usize = 1024 * 1024;

/// A sender of whom fewer bytes come within [`BODY_TIMEOUT`] is not waited for.
const SLOWEST_BYTES: usize = 16 * 1024;

/// Fed to gzip at once: it makes a thousand times as much of it at the most.
const GZIP_STEP_BYTES: usize = 8 * 1024;

/// What the request asks for beside its lines.
#[derive(Debug, Default, Clone)]
struct Asked {
    extra: Labels,
    /// Of lines without a time of their own.
    at: Timestamp,
}

impl Asked {
    fn read(query: &str, now: Timestamp) -> Result<Self, Refusal> {
        let mut asked = Self { extra: Labels::default(), at: now };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "extra_label" => {
                    let (name, value) = value.split_once('=').ok_or_else(|| {
                        Refusal::Bad(format!("extra_label {value:?} is not of the form name=value"))
                    })?;
                    if name.is_empty() || value.is_empty() {
                        return Err(Refusal::Bad("extra_label has no name or no value".to_owned()));
                    }
                    asked.extra = asked.extra.with(name, value);
                }
                "timestamp" => {
                    asked.at = value.parse().map(Timestamp).map_err(|_| {
                        Refusal::Bad(format!("timestamp {value:?} is no number of milliseconds since 1970"))
                    })?;
                }
                other => {
                    return Err(Refusal::Bad(format!(
                        "parameter {other:?} is not known; extra_label and timestamp are"
                    )));
                }
            }
        }
        Ok(asked)
    }
}

impl SeriesDecoder for Asked {
    fn salt(&self) -> u64 {
        xxh3_64(format!("import {}", self.extra).as_bytes())
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        let labels = Labels::new(decode_series(raw)?)?;
        Ok(self.extra.iter().fold(labels, |labels, extra| labels.with(&extra.name, &extra.value)))
    }
}

/// Where an import is.
struct Import {
    format: Format,
    asked: Asked,
    /// Lines of the parts before this one.
    lines: usize,
    /// Whether `# EOF` was seen.
    has_ended: bool,
    stored: usize,
    refused: AppendReport,
}

impl Import {
    /// Stores whole lines.
    fn take(&mut self, part: &[u8], metrics: &dyn Appender) -> Result<(), Refusal> {
        let mut samples: Vec<Sample> = Vec::new();
        let mut rows: Vec<(&[u8], Range<usize>)> = Vec::new();
        let mut metadata: BTreeMap<&str, Metadata> = BTreeMap::new();
        let at = self.asked.at;
        let parsed = parse_part(part, self.format, self.lines, self.has_ended, |line| match line {
            Line::Sample { series, value, timestamp, .. } => {
                samples.push(Sample { timestamp: timestamp.unwrap_or(at), value });
                match rows.last_mut() {
                    Some((last, range)) if *last == series => range.end += 1,
                    _ => rows.push((series, samples.len() - 1..samples.len())),
                }
            }
            Line::Type(name, kind) => kind.clone_into(&mut metadata.entry(name).or_default().kind),
            Line::Help(name, help) => help.clone_into(&mut metadata.entry(name).or_default().help),
            Line::Unit(name, unit) => unit.clone_into(&mut metadata.entry(name).or_default().unit),
        });
        // What stands before a line that is wrong is stored.
        let batch: Vec<RawSeries<'_>> = rows
            .iter()
            .map(|(labels, range)| RawSeries { labels, samples: &samples[range.clone()], histograms: &[] })
            .collect();
        if !batch.is_empty() {
            let report = metrics.append(&batch, &self.asked).map_err(|error| match Refusal::from(error) {
                Refusal::Bad(reason) => self.broken(&reason),
                other => other,
            })?;
            self.stored += report.appended + report.duplicate;
            self.refused.add(&report);
        }
        if !metadata.is_empty() {
            let metadata: Vec<(String, Metadata)> =
                metadata.into_iter().map(|(name, one)| (name.to_owned(), one)).collect();
            metrics.append_metadata(&metadata);
        }
        let (lines, has_ended) = parsed.map_err(|error| self.broken(&error.to_string()))?;
        (self.lines, self.has_ended) = (self.lines + lines, has_ended);
        Ok(())
    }

    /// Why the import ends, and what became of what stands before that.
    fn broken(&self, reason: &str) -> Refusal {
        Refusal::Bad(self.ended(reason))
    }

    /// The same, where the page itself may be fine.
    fn late(&self, reason: &str) -> Refusal {
        Refusal::Late(self.ended(reason))
    }

    fn ended(&self, reason: &str) -> String {
        let stored = self.stored;
        format!("{reason}; {stored} samples before it are stored, and all may be sent again")
    }

    fn finish(self) -> Result<Response, Refusal> {
        if self.format == Format::OpenMetrics && !self.has_ended {
            return Err(self.broken("the page does not end with # EOF"));
        }
        match self.refused.refusal() {
            Some(reason) => {
                Err(Refusal::Bad(format!("{} samples are stored; refused: {reason}", self.stored)))
            }
            None => Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }
}

/// Bytes of the body, decompressed, until there are enough of them.
enum Plain {
    AsIs(Vec<u8>),
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Plain {
    fn of(encoding: &str) -> Result<Self, Refusal> {
        match encoding {
            "" | "identity" => Ok(Self::AsIs(Vec::new())),
            "gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
            other => Err(Refusal::Unsupported(format!(
                "content encoding {other:?} is not taken; send gzip or none"
            ))),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::AsIs(out) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Self::Gzip(decoder) => {
                decoder.write_all(bytes).map_err(|error| format!("body is no gzip: {error}"))
            }
        }
    }

    /// What has come so far.
    fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Self::AsIs(out) => out,
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }

    /// The whole lines that have come so far.
    fn take_lines(&mut self) -> Vec<u8> {
        let buffer = self.buffer();
        let end = memchr::memrchr(b'\n', buffer).map_or(0, |at| at + 1);
        let rest = buffer.split_off(end);
        std::mem::replace(buffer, rest)
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        match self {
            Self::AsIs(out) => Ok(out),
            Self::Gzip(decoder) => decoder.finish().map_err(|error| format!("body is no gzip: {error}")),
        }
    }
}

pub(super) async fn handle(State(intake): State<Arc<Intake>>, request: Request) -> Result<Response, Refusal> {
    let format = Format::of_content_type(header_text(request.headers(), "content-type"));
    let mut plain = Plain::of(header_text(request.headers(), "content-encoding"))?;
    let _import = Arc::clone(&intake.imports).try_acquire_owned().map_err(|_| Refusal::Busy(5))?;
    let asked = Asked::read(request.uri().query().unwrap_or_default(), intake.clock.now())?;
    let mut import =
        Import { format, asked, lines: 0, has_ended: false, stored: 0, refused: AppendReport::default() };
    let mut body = request.into_body().into_data_stream();
    let mut pace = Pace { began: tokio::time::Instant::now(), bytes: 0 };
    loop {
        // A place is held for a part, and not while the sender thinks.
        let frame = timeout(BODY_TIMEOUT, body.next()).await;
        let frame = frame.map_err(|_| import.late(&format!("nothing more came within {BODY_TIMEOUT:?}")))?;
        let Some(data) = frame else { break };
        let data = data.map_err(|error| import.late(&format!("the body was cut off: {error}")))?;
        if !pace.admits(data.len(), tokio::time::Instant::now()) {
            let reason = format!("fewer than {SLOWEST_BYTES} bytes came within {BODY_TIMEOUT:?}");
            return Err(import.late(&reason));
        }
        for step in data.chunks(GZIP_STEP_BYTES) {
            plain.push(step).map_err(|reason| import.broken(&reason))?;
            if plain.buffer().len() >= PART_BYTES {
                let part = plain.take_lines();
                if plain.buffer().len() > LINE_MAX_BYTES {
                    return Err(import.broken(&format!("a line has more than {LINE_MAX_BYTES} bytes")));
                }
                import = store(&intake, import, part).await?;
            }
        }
    }
    let rest = plain.finish().map_err(|reason| import.broken(&reason))?;
    import = store(&intake, import, rest).await?;
    import.finish()
}

/// How fast a body comes: whoever sends byte by byte would hold one of few places for ever.
struct Pace {
    began: tokio::time::Instant,
    bytes: usize,
}

impl Pace {
    /// Whether the body is fast enough with so many more bytes at this moment.
    fn admits(&mut self, bytes: usize, now: tokio::time::Instant) -> bool {
        self.bytes += bytes;
        if now.duration_since(self.began) < BODY_TIMEOUT {
            return true;
        }
        let is_fast = self.bytes >= SLOWEST_BYTES;
        *self = Self { began: now, bytes: 0 };
        is_fast
    }
}

/// Stores a part as soon as there is a place: whoever sends much waits for its turn, and need not begin again.
async fn store(intake: &Arc<Intake>, mut import: Import, part: Vec<u8>) -> Result<Import, Refusal> {
    let place = intake.place(part.len()).await.map_err(|_| import.late("no place to write came free"))?;
    let metrics = Arc::clone(&intake.metrics);
    intake.run(place, part.len(), move || import.take(&part, &*metrics).map(|()| import)).await
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn lines_are_cut_where_they_end_whatever_comes_at_once() {
        let lines: Vec<String> = (0..5000).map(|n| format!("metric_{n} {n}\n")).collect();
        let page = lines.concat();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(page.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        for (encoding, bytes) in [("", page.as_bytes()), ("gzip", &gzip)] {
            let mut plain = Plain::of(encoding).unwrap();
            let mut all = Vec::new();
            for step in bytes.chunks(77) {
                plain.push(step).unwrap();
                let lines = plain.take_lines();
                assert!(lines.is_empty() || lines.ends_with(b"\n"));
                all.extend(lines);
            }
            all.extend(plain.finish().unwrap());
            assert_eq!(all, page.as_bytes());
        }
        assert!(Plain::of("br").is_err());
        let mut plain = Plain::of("gzip").unwrap();
        assert!(plain.push(b"this is no gzip at all, not even its header").is_err());
    }

    #[test]
    fn who_sends_byte_by_byte_is_not_waited_for() {
        let began = tokio::time::Instant::now();
        let mut pace = Pace { began, bytes: 0 };
        assert!(pace.admits(1, began + BODY_TIMEOUT / 2));
        assert!(pace.admits(SLOWEST_BYTES, began + BODY_TIMEOUT));
        assert!(pace.admits(SLOWEST_BYTES - 1, began + BODY_TIMEOUT + BODY_TIMEOUT / 2));
        assert!(!pace.admits(0, began + BODY_TIMEOUT * 2));
    }

    #[test]
    fn what_is_asked_is_read_or_refused() {
        let asked = Asked::read("extra_label=a%3Db%3Dc&timestamp=1700000000000", Timestamp(5)).unwrap();
        assert_eq!(asked.extra.value("a"), "b=c");
        assert_eq!(asked.at, Timestamp(1_700_000_000_000));
        assert_eq!(asked.decode(b"m{a=\"x\"}").unwrap().to_string(), "m{a=\"b=c\"}");
        for query in [
            "extra_label=a",
            "extra_label=%3Dx",
            "extra_label=__name__%3D",
            "timestamp=soon",
            "extra_lable=a%3Db",
        ] {
            assert!(Asked::read(query, Timestamp(5)).is_err(), "{query}");
        }
    }
}
