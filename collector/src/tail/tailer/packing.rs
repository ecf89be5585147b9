//! What was read goes into the pack: lines of files, and entries of journals.

use std::borrow::Cow;

use binnacle_model::meaning;

use super::super::cri::IOSTREAMS;
use super::super::edge::{Asked, ContainerRules, Edge, Verdict};
use super::super::file::Turn;
use super::super::listing::{Input, service_stream};
use super::super::pack::{Entry, Part, encode_stream};
use super::super::records::Length;
use super::Tailer;
use crate::Telemetry;
use crate::journal::{self, Value};

impl Tailer {
    /// Puts what was cut into the pack.
    pub(super) fn pack(&mut self, number: u64, at: usize, turn: &Turn) {
        let Some(origin) = self.origins.get_mut(&number) else { return };
        let file = &mut origin.files[at];
        if let Some(source) = file.source.as_mut().filter(|_| file.has_ended) {
            if let Some(damage) = source.damage() {
                tracing::error!(path = %file.path.display(), damage, "compressed log file is damaged; its rest is lost");
                self.telemetry.files_damaged.inc();
            }
            source.rest();
        }
        self.telemetry.lines_malformed.inc_by(turn.cut.malformed);
        if turn.cut.to == turn.from {
            return;
        }
        self.telemetry.bytes_read.inc_by(turn.cut.to - turn.from);
        let mut lines = 0;
        let (now, mut rules) = (self.clock.now_ns(), origin.rules.take());
        let has_levels = rules.as_ref().is_none_or(|rules| rules.has_levels);
        let (namespace, container) = (origin.label("namespace"), origin.container());
        for record in self.cutter.records() {
            let message = self.cutter.message_of(record, &self.buffer);
            lines += 1;
            if record.length != Length::Whole {
                self.telemetry.lines_truncated.inc();
            }
            let (offset, level) = (record.offset, if has_levels { meaning::level(message) } else { "" });
            let asked = Asked { namespace, container, level, message, offset, now };
            let message = judge(&mut self.edge, &self.telemetry, asked, rules.as_mut());
            let Some(message) = message else { continue };
            // Fields within the message are the store's to find.
            let (time_ns, iostream, length) = (record.time.0, IOSTREAMS[record.lane], record.length);
            let attributes = &[];
            self.pack.entry(&Entry {
                time_ns,
                offset,
                message: &message,
                level,
                iostream,
                length,
                attributes,
            });
        }
        self.cutter.rest();
        self.telemetry.lines_read.inc_by(lines);
        origin.rules = rules;
        let file = &origin.files[at];
        let Some(identity) = &file.identity else { return };
        let (from, to, passing) = (turn.from, turn.cut.to, turn.cut.passing);
        let part = Part { file: file.number, from, to, passing, wire: 0..0 };
        self.pack.end_part(part, &identity.key, &origin.wire);
    }

    /// Puts entries of a journal into the pack: those side by side of one service are a part, because the lines of a
    /// part have one stream. The last part covers what is left out behind it, too.
    pub(super) fn pack_entries(&mut self, number: u64, at: usize, turn: &Turn) {
        self.telemetry.lines_malformed.inc_by(turn.cut.malformed);
        let Some(origin) = self.origins.get(&number).filter(|_| turn.cut.to > turn.from) else { return };
        let (Some(identity), Input::Journal { units, .. }) =
            (&origin.files[at].identity, &self.options.input)
        else {
            return;
        };
        let file = origin.files[at].number;
        self.telemetry.bytes_read.inc_by(turn.cut.to - turn.from);
        let now = self.clock.now_ns();
        let (mut from, mut run) = (turn.from, String::new());
        for (offset, entry) in self.entries.iter() {
            self.telemetry.lines_read.inc();
            self.telemetry.journal.fields_unreadable.inc_by(u64::from(entry.unreadable));
            let line = journal::line(entry);
            if !units.fits(&line) || self.edge.excludes("", &line.service) {
                continue;
            }
            let (service, level) = (&*line.service, line.level);
            let asked =
                Asked { namespace: "", container: service, level, message: line.message, offset, now };
            let Some(message) = judge(&mut self.edge, &self.telemetry, asked, None) else { continue };
            if run != service {
                if !run.is_empty() {
                    let part = Part { file, from, to: offset, passing: None, wire: 0..0 };
                    let stream = encode_stream(&service_stream(&self.options.node, &run));
                    self.pack.end_part(part, &identity.key, &stream);
                    from = offset;
                }
                service.clone_into(&mut run);
            }
            let length = match line.cut_of {
                None => Length::Whole,
                Some(0) => Length::Cut,
                Some(full) => Length::CutOf(full),
            };
            if length != Length::Whole {
                self.telemetry.lines_truncated.inc();
            }
            let attributes = redacted(&self.edge, &self.telemetry, line.attributes);
            let (time_ns, iostream, attributes) = (line.time_ns, "", &*attributes);
            self.pack.entry(&Entry {
                time_ns,
                offset,
                message: &message,
                level,
                iostream,
                length,
                attributes,
            });
        }
        let part = Part { file, from, to: turn.cut.to, passing: None, wire: 0..0 };
        let stream = if run.is_empty() {
            origin.wire.clone()
        } else {
            encode_stream(&service_stream(&self.options.node, &run))
        };
        self.pack.end_part(part, &identity.key, &stream);
        self.entries.rest();
    }
}

/// What leaves of a record; `None` if it is left out.
fn judge<'a>(
    edge: &mut Edge,
    telemetry: &Telemetry,
    asked: Asked<'a>,
    own: Option<&mut ContainerRules>,
) -> Option<Cow<'a, [u8]>> {
    let (namespace, container) = (asked.namespace, asked.container);
    match edge.judge(asked, own) {
        Verdict::Keep(message, redacted) => {
            telemetry.redacted.inc_by(redacted);
            Some(message)
        }
        Verdict::Drop(reason) => {
            telemetry.dropped(namespace, container, reason).inc();
            None
        }
    }
}

/// Attributes without secrets.
fn redacted<'a>(
    edge: &Edge,
    telemetry: &Telemetry,
    mut attributes: Vec<(Cow<'a, str>, Value<'a>)>,
) -> Vec<(Cow<'a, str>, Value<'a>)> {
    for (_, value) in &mut attributes {
        let Value::Text(text) = value else { continue };
        let (plain, found) = edge.redact(text.as_bytes());
        if found > 0 {
            telemetry.redacted.inc_by(found);
            let plain = String::from_utf8_lossy(&plain).into_owned();
            *text = Cow::Owned(plain);
        }
    }
    attributes
}
