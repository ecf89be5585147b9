//! From the bytes of a file to records: lines without their headers, joined where they belong together.
//!
//! A window is read from a place where nothing is open, and what is still open at its end is read again with the next
//! window. So nothing is kept of a file between two looks at it, and reading may go on at any place that was given out,
//! by whoever knows that place alone.

use binnacle_model::LogTime;
use binnacle_model::meaning::{self, Around};

use super::cri::{self, Header, IOSTREAMS, Lane, NO_STREAM};
use super::docker;
use super::multiline::{Multiline, Step, Trace};

/// Longest message; of a longer one the beginning is kept (L11, L12).
pub(super) const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

/// Longest line: a message and its header.
pub(super) const LINE_MAX_BYTES: usize = MESSAGE_MAX_BYTES + 256;

/// Longest joined trace; what follows is a record of its own.
const TRACE_MAX_BYTES: usize = 256 * 1024;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineFormat {
    /// With a runtime's header: CRI's, or Docker's JSON.
    Container,
    /// As the program wrote them.
    Plain,
    /// Not lines, but entries of systemd's journal: places are numbers of entries, and nothing is cut.
    Journal,
}

/// What is being passed over at a place in a file, because its beginning was given out already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Passing {
    /// The rest of a line.
    Line,
    /// The rest of a message that comes in pieces, by its lane.
    Pieces(Lane),
}

/// Bytes of a file, and what is known of what comes behind them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) bytes: &'a [u8],
    /// Offset of the first byte.
    pub(super) from: u64,
    pub(super) passing: Option<Passing>,
    /// Nothing comes behind the bytes, now or later.
    pub(super) is_end: bool,
    /// What is open and has waited long enough, or fills the window.
    pub(super) give_out: GiveOut,
    /// The present, for lines that do not say their time.
    pub(super) now: LogTime,
    /// For plain lines that say less than all of it.
    pub(super) around: Around,
}

/// What is ended although more may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GiveOut {
    Nothing,
    /// Joined lines, unless one of them is not whole.
    Traces,
    /// Pieces and lines without an end as well.
    All,
}

/// What is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// A line that has no end yet.
    Line,
    /// A message whose last piece has not come.
    Pieces,
    /// Joined lines to which more may belong.
    Trace,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// First byte of its first line.
    pub(super) offset: u64,
    /// First byte of its last one.
    last: u64,
    pub(super) time: LogTime,
    pub(super) lane: Lane,
    pub(super) length: Length,
    /// Of the line that it begins with.
    pub(super) header_bytes: u64,
    message: Message,
}

/// Whether all of a message is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Whole,
    /// It is longer than what is kept.
    Cut,
    /// It was so long.
    CutOf(u64),
}

/// Where a message stands.
#[derive(Debug, Clone, Copy)]
enum Message {
    /// In the window.
    Window(usize, usize),
    /// Among what was put together.
    Joined(usize, usize),
}

/// A record whose end has not come.
#[derive(Debug)]
struct Open {
    offset: u64,
    /// First byte of the line that came last.
    last: u64,
    time: LogTime,
    text: Vec<u8>,
    /// With what is not kept.
    full_bytes: u64,
}

/// A message in pieces whose end was not in the window, or lay far behind what is kept of it.
#[derive(Debug, Clone, Copy)]
struct Overlong {
    lane: Lane,
    from: u64,
    to: Option<u64>,
}

/// What becomes of one stream of a container.
#[derive(Debug, Default)]
struct Joins {
    pieces: Option<Open>,
    trace: Option<(Open, Trace)>,
}

/// Cuts windows. Used for one after the other, so that its memory is asked for once.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// Ascending by offset, once a window is cut.
    records: Vec<Record>,
    joined: Vec<u8>,
    lanes: [Joins; IOSTREAMS.len()],
    overlong: Vec<Overlong>,
}

/// What a window held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cut {
    /// Where the next window begins: behind what was given out.
    pub(super) to: u64,
    pub(super) passing: Option<Passing>,
    /// What is open at `to`.
    pub(super) open: Option<Opened>,
    /// Lines without a header that should have one.
    pub(super) malformed: u64,
}

impl Cutter {
    /// Cuts a window. `multiline` says which lines of a stream belong together.
    pub(super) fn cut(&mut self, window: Window<'_>, format: LineFormat, multiline: &Multiline) -> Cut {
        self.records.clear();
        self.joined.clear();
        self.overlong.clear();
        self.lanes = <[Joins; IOSTREAMS.len()]>::default();
        let mut cut = Cut::default();
        let mut at = 0;
        let mut passing = window.passing;
        if passing == Some(Passing::Line) {
            match memchr::memchr(b'\n', window.bytes) {
                Some(end) => (at, passing) = (end + 1, None),
                None => at = window.bytes.len(),
            }
        }
        if let Some(Passing::Pieces(lane)) = passing {
            self.overlong.push(Overlong { lane, from: 0, to: None });
        }
        while let Some(length) = memchr::memchr(b'\n', &window.bytes[at..]) {
            self.line(window, (at, at + length), format, multiline, &mut cut);
            at += length + 1;
        }
        let mut end = window.from + at as u64;
        let rest = window.bytes.len() - at;
        let mut is_within_line = passing == Some(Passing::Line);
        if rest > 0 && !is_within_line {
            if window.is_end {
                // The last line of a file that takes no more has no end, and never will.
                self.line(window, (at, at + rest), format, multiline, &mut cut);
                end += rest as u64;
            } else if rest >= LINE_MAX_BYTES {
                self.line(window, (at, at + rest), format, multiline, &mut cut);
                self.mark_cut(window.from + at as u64);
                end += rest as u64;
                is_within_line = true;
            } else if window.give_out == GiveOut::All && at == 0 {
                // What may still come of it is a record of its own.
                self.line(window, (at, at + rest), format, multiline, &mut cut);
                end += rest as u64;
            }
        }
        self.finish(window, end, is_within_line, cut)
    }

    /// Ends what is to be ended, and finds where all is closed.
    fn finish(&mut self, window: Window<'_>, end: u64, is_within_line: bool, cut: Cut) -> Cut {
        let has_rest = end < window.from + window.bytes.len() as u64;
        let (mut to, mut open) = (end, has_rest.then_some(Opened::Line));
        let mut ends_at = |offset: u64, opened: Opened| {
            if offset < to {
                (to, open) = (offset, Some(opened));
            }
        };
        let gives_out = |wanted| window.is_end || window.give_out >= wanted;
        for lane in 0..self.lanes.len() {
            let Joins { pieces, trace } = std::mem::take(&mut self.lanes[lane]);
            let is_full = pieces.as_ref().is_some_and(|pieces| pieces.full_bytes > MESSAGE_MAX_BYTES as u64);
            let ends_pieces = gives_out(GiveOut::All) || is_full;
            if let Some((trace, _)) = trace {
                if ends_pieces || (gives_out(GiveOut::Traces) && pieces.is_none()) {
                    self.give_out(lane, &trace, Length::Whole);
                } else {
                    ends_at(trace.offset, Opened::Trace);
                }
            }
            if let Some(pieces) = pieces {
                if !ends_pieces {
                    ends_at(pieces.offset, Opened::Pieces);
                    continue;
                }
                if is_full {
                    self.overlong.push(Overlong { lane, from: pieces.offset, to: None });
                }
                self.give_out(lane, &pieces, if is_full { Length::Cut } else { Length::Whole });
            }
        }
        self.records.sort_by_key(|record| record.offset);
        // No record lies on both sides: whoever reads on from there must find none of its lines.
        for record in self.records.iter().rev() {
            if record.offset < to && record.last >= to {
                (to, open) = (record.offset, open.or(Some(Opened::Pieces)));
            }
        }
        let kept = self.records.partition_point(|record| record.offset < to);
        self.records.truncate(kept);
        let passed = |over: &&Overlong| over.from < to && over.to.is_none_or(|end| to <= end);
        let passing = match self.overlong.iter().find(passed) {
            _ if is_within_line && to == end => Some(Passing::Line),
            Some(over) => Some(Passing::Pieces(over.lane)),
            None => None,
        };
        Cut { to, passing, open, ..cut }
    }

    fn line(
        &mut self,
        window: Window<'_>,
        (start, end): (usize, usize),
        format: LineFormat,
        multiline: &Multiline,
        cut: &mut Cut,
    ) {
        let line = &window.bytes[start..end];
        let offset = window.from + start as u64;
        if format == LineFormat::Container {
            if let Some((header, message)) = cri::parse(line) {
                let message = (end - message.len(), end);
                self.piece(window, offset, header, Piece::Window(message), multiline);
                return;
            }
            if line.first() == Some(&b'{')
                && let Some((header, message)) = docker::parse(line)
            {
                self.piece(window, offset, header, Piece::Text(message.as_bytes()), multiline);
                return;
            }
            cut.malformed += 1;
        }
        let end = if line.ends_with(b"\r") { end - 1 } else { end };
        // A line that lacks a runtime's header is none of a form that is known.
        let said = (format == LineFormat::Plain).then(|| meaning::time(&line[..end - start], window.around));
        let time = said.flatten().unwrap_or(window.now);
        let header = Header { time, lane: NO_STREAM, partial: false };
        self.piece(window, offset, header, Piece::Window((start, end)), multiline);
    }

    /// A line without its header: a whole message, or a piece of one.
    fn piece(
        &mut self,
        window: Window<'_>,
        offset: u64,
        header: Header,
        piece: Piece<'_>,
        multiline: &Multiline,
    ) {
        let lane = header.lane;
        if let Some(over) = self.overlong.iter_mut().find(|over| over.lane == lane && over.to.is_none()) {
            // Its last line belongs to it.
            over.to = (!header.partial).then_some(offset);
            return;
        }
        let begun = self.lanes[lane].pieces.take();
        if begun.is_none() && !header.partial {
            return self.message(window, lane, (offset, offset, header.time), piece, multiline);
        }
        let mut open = begun.unwrap_or_else(|| Open::at(offset, header.time));
        open.extend(piece.text(window), offset);
        if header.partial {
            self.lanes[lane].pieces = Some(open);
        } else if open.full_bytes > MESSAGE_MAX_BYTES as u64 {
            let full = open.full_bytes;
            self.end_trace(lane);
            self.overlong.push(Overlong { lane, from: open.offset, to: Some(offset) });
            self.give_out(lane, &open, Length::CutOf(full));
        } else {
            let text = std::mem::take(&mut open.text);
            self.message(window, lane, (open.offset, offset, open.time), Piece::Text(&text), multiline);
        }
    }

    /// A whole message: a record, or a line of one.
    fn message(
        &mut self,
        window: Window<'_>,
        lane: Lane,
        (offset, last, time): (u64, u64, LogTime),
        piece: Piece<'_>,
        multiline: &Multiline,
    ) {
        let text = piece.text(window);
        if let Some((mut open, trace)) = self.lanes[lane].trace.take() {
            let has_room = open.text.len() + text.len() < TRACE_MAX_BYTES;
            if let Some(trace) = multiline.goes_on(trace, text).filter(|_| has_room) {
                open.text.push(b'\n');
                open.extend(text, last);
                self.lanes[lane].trace = Some((open, trace));
                return;
            }
            self.give_out(lane, &open, Length::Whole);
        }
        if let Step::Begins(trace) = multiline.begins(text)
            && text.len() < TRACE_MAX_BYTES
        {
            let mut open = Open::at(offset, time);
            open.extend(text, last);
            self.lanes[lane].trace = Some((open, trace));
            return;
        }
        let kept = text.len().min(MESSAGE_MAX_BYTES);
        let message = match piece {
            Piece::Window((start, _)) => Message::Window(start, start + kept),
            Piece::Text(text) => self.join(&text[..kept]),
        };
        let length = if kept < text.len() { Length::CutOf(text.len() as u64) } else { Length::Whole };
        let header_bytes = match piece {
            Piece::Window((start, _)) => window.from + start as u64 - offset,
            Piece::Text(_) => 0,
        };
        self.records.push(Record { offset, last, time, lane, length, header_bytes, message });
    }

    fn end_trace(&mut self, lane: Lane) {
        if let Some((open, _)) = self.lanes[lane].trace.take() {
            self.give_out(lane, &open, Length::Whole);
        }
    }

    fn join(&mut self, text: &[u8]) -> Message {
        let start = self.joined.len();
        self.joined.extend_from_slice(text);
        Message::Joined(start, self.joined.len())
    }

    fn give_out(&mut self, lane: Lane, open: &Open, length: Length) {
        let message = self.join(&open.text);
        let Open { offset, last, time, .. } = *open;
        self.records.push(Record { offset, last, time, lane, length, header_bytes: 0, message });
    }

    /// The line that begins at `offset` has no end in the window, and no room for more.
    fn mark_cut(&mut self, offset: u64) {
        for record in self.records.iter_mut().filter(|record| record.offset == offset) {
            record.length = Length::Cut;
        }
        for joins in &mut self.lanes {
            // A piece that was cut is the end of what comes in pieces.
            if let Some(pieces) = &mut joins.pieces {
                pieces.full_bytes = pieces.full_bytes.max(MESSAGE_MAX_BYTES as u64 + 1);
            }
        }
    }

    /// What was found, ascending by offset.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The record at `offset` is so long in all.
    pub(super) fn measured(&mut self, offset: u64, bytes: u64) {
        if let Some(record) = self.records.iter_mut().find(|record| record.offset == offset) {
            record.length = Length::CutOf(bytes);
        }
    }

    pub(super) fn message_of<'a>(&'a self, record: &Record, window: &'a [u8]) -> &'a [u8] {
        match record.message {
            Message::Window(start, end) => &window[start..end],
            Message::Joined(start, end) => &self.joined[start..end],
        }
    }

    /// Gives back memory that one odd line needed.
    pub(super) fn rest(&mut self) {
        if self.joined.capacity() > MESSAGE_MAX_BYTES {
            self.joined = Vec::new();
        }
    }
}

/// A message of a line.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Window((usize, usize)),
    Text(&'a [u8]),
}

impl<'a> Piece<'a> {
    fn text(self, window: Window<'a>) -> &'a [u8] {
        match self {
            Self::Window((start, end)) => &window.bytes[start..end],
            Self::Text(text) => text,
        }
    }
}

impl Open {
    fn at(offset: u64, time: LogTime) -> Self {
        Self { offset, last: offset, time, text: Vec::new(), full_bytes: 0 }
    }

    fn extend(&mut self, text: &[u8], last: u64) {
        self.last = last;
        let room = MESSAGE_MAX_BYTES.saturating_sub(self.text.len());
        self.text.extend_from_slice(&text[..text.len().min(room)]);
        self.full_bytes += text.len() as u64;
    }
}

/// Offset, stream and message.
pub(super) type Found = (u64, Lane, Vec<u8>);

/// Records of a file that is read in windows of these sizes; one in which nothing ends is made larger.
pub(super) fn in_windows(
    file: &[u8],
    sizes: &[usize],
    format: LineFormat,
    multiline: &Multiline,
) -> Vec<Found> {
    let (mut found, mut from, mut passing) = (Vec::new(), 0, None);
    let mut cutter = Cutter::default();
    let mut sizes = sizes.iter().copied().cycle();
    let mut wanted = sizes.next().unwrap_or(file.len()).max(1);
    loop {
        let end = (from + wanted).min(file.len());
        let (bytes, is_end) = (&file[from..end], end == file.len());
        let (give_out, now) = (GiveOut::Nothing, LogTime(7));
        let around = Around { near: now, zone_seconds: 0 };
        let window = Window { bytes, from: from as u64, passing, is_end, give_out, now, around };
        let cut = cutter.cut(window, format, multiline);
        let record =
            |record: &Record| (record.offset, record.lane, cutter.message_of(record, bytes).to_vec());
        found.extend(cutter.records().iter().map(record));
        if is_end {
            assert_eq!(cut.to, file.len() as u64, "the end gives out everything");
            return found;
        }
        let is_stuck = cut.to == from as u64;
        wanted = if is_stuck { wanted * 2 } else { sizes.next().unwrap_or(wanted).max(1) };
        (from, passing) = (cut.to as usize, cut.passing);
    }
}

#[cfg(test)]
mod tests;
