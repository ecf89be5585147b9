//! Ranges: of numbers, moments, addresses, levels, and text if it is none of them.

use std::net::IpAddr;
use std::ops::Bound;

use binnacle_model::LogTime;
use binnacle_model::log::{Field, LEVELS};
use binnacle_model::log_query::{IpRange, LogQuery, Phrase, Test};
use binnacle_model::meaning::level_of_word;

use super::Failure;
use super::moments::Moment;
use super::parser::{Target, is_open, joined};

/// Where a range begins or ends.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) text: String,
    /// Then it is text, whatever it looks like.
    pub(super) is_quoted: bool,
    pub(super) is_inclusive: bool,
}

/// A range as it was written; one of the edges is there at least.
pub(super) struct Range<'a> {
    pub(super) target: &'a Target,
    pub(super) low: Option<Edge>,
    pub(super) high: Option<Edge>,
    pub(super) at: usize,
}

impl Edge {
    fn bound<T>(&self, value: T) -> Bound<T> {
        if self.is_inclusive { Bound::Included(value) } else { Bound::Excluded(value) }
    }
}

impl Range<'_> {
    /// The condition, and what is to be said about it.
    pub(super) fn read(&self, now: LogTime) -> Result<(LogQuery, Option<String>), Failure> {
        let mut note = None;
        if let Target::Time(name) = self.target {
            if let Some((low, high)) = self.moments(|edge| Moment::parse_any(&edge.text, now)) {
                return Ok((LogQuery::Time { low, high }, empty_note(&low, &high)));
            }
            note = Some(format!("what the range holds is no time; searched in a field {name:?}"));
        }
        let field = self.target.field();
        if field == Field::Stream("level")
            && let Some(levels) = self.levels()
        {
            return levels.map(|query| (query, None));
        }
        let (test, of_test) = self.test(now)?;
        Ok((LogQuery::Value { field, test }, note.or(of_test)))
    }

    fn test(&self, now: LogTime) -> Result<(Test, Option<String>), Failure> {
        if let Some((low, high)) = self.both(Edge::bound, |edge| number(&edge.text)) {
            let note = empty_note(&low, &high);
            return Ok((Test::Number { low, high }, note));
        }
        if let Some((low, high)) =
            self.moments(|edge| Moment::parse(&edge.text, now).filter(|_| !edge.is_quoted))
        {
            let note = empty_note(&low, &high);
            return Ok((Test::Time { low, high }, note));
        }
        if let Some((low, high)) = self.both(Edge::bound, |edge| edge.text.parse::<IpAddr>().ok()) {
            let range = addresses(low, high)
                .ok_or_else(|| Failure::syntax(self.at, "no address lies in the range"))?;
            return Ok((Test::Ip(range), None));
        }
        let lower = |edge: &Option<Edge>| {
            edge.as_ref().map_or(Bound::Unbounded, |edge| edge.bound(edge.text.to_lowercase()))
        };
        let (low, high) = (lower(&self.low), lower(&self.high));
        let mut edges = self.low.iter().chain(&self.high);
        let quoted =
            self.low.iter().chain(&self.high).find(|edge| edge.is_quoted && number(&edge.text).is_some());
        let strange =
            edges.find(|edge| !edge.is_quoted && edge.text.starts_with(|c: char| c.is_ascii_digit()));
        let as_text =
            |edge: &Edge| format!("{:?} is no number, time or address, and is compared as text", edge.text);
        let in_quotes = |edge: &Edge| {
            format!("{:?} in quotes is compared as text; without them it is a number", edge.text)
        };
        let note = strange.map(as_text).or_else(|| quoted.map(in_quotes)).or_else(|| empty_note(&low, &high));
        Ok((Test::Text { low, high }, note))
    }

    /// Both edges, if all that are there can be read and none is quoted.
    fn both<T>(
        &self,
        bound: impl Fn(&Edge, T) -> Bound<T>,
        read: impl Fn(&Edge) -> Option<T>,
    ) -> Option<(Bound<T>, Bound<T>)> {
        let one = |edge: &Option<Edge>| match edge {
            None => Some(Bound::Unbounded),
            Some(edge) if edge.is_quoted => None,
            Some(edge) => Some(bound(edge, read(edge)?)),
        };
        Some((one(&self.low)?, one(&self.high)?))
    }

    fn moments(&self, read: impl Fn(&Edge) -> Option<Moment>) -> Option<(Bound<LogTime>, Bound<LogTime>)> {
        let low = match &self.low {
            None => Bound::Unbounded,
            Some(edge) => read(edge)?.as_low(edge.is_inclusive),
        };
        let high = match &self.high {
            None => Bound::Unbounded,
            Some(edge) => read(edge)?.as_high(edge.is_inclusive),
        };
        Some((low, high))
    }

    /// Levels are compared by how bad they are.
    fn levels(&self) -> Option<Result<LogQuery, Failure>> {
        let rank = |edge: &Edge| {
            let level = if edge.is_quoted { "" } else { level_of_word(&edge.text) };
            LEVELS.iter().position(|known| *known == level)
        };
        let low = match &self.low {
            None => 0,
            Some(edge) => rank(edge)? + usize::from(!edge.is_inclusive),
        };
        let end = match &self.high {
            None => LEVELS.len(),
            Some(edge) => rank(edge)? + usize::from(edge.is_inclusive),
        };
        let levels = LEVELS.get(low..end).unwrap_or_default();
        let one = |level: &&str| LogQuery::Value {
            field: Field::Stream("level"),
            test: Test::Phrase(Phrase::new(level)),
        };
        let parts: Vec<LogQuery> = levels.iter().map(one).collect();
        if parts.is_empty() {
            return Some(Err(Failure::syntax(self.at, "no level lies in the range")));
        }
        Some(Ok(joined(parts, LogQuery::Or)))
    }
}

/// A number as people write one; `inf` and the like are words.
fn number(text: &str) -> Option<f64> {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    text.parse::<f64>().ok().filter(|number| is_number && number.is_finite())
}

fn addresses(low: Bound<IpAddr>, high: Bound<IpAddr>) -> Option<IpRange> {
    let is_v4 = [&low, &high].into_iter().any(|bound| match bound {
        Bound::Included(address) | Bound::Excluded(address) => address.is_ipv4(),
        Bound::Unbounded => false,
    });
    let (first, last): (IpAddr, IpAddr) =
        if is_v4 { ([0; 4].into(), [255; 4].into()) } else { ([0; 16].into(), [255; 16].into()) };
    let low = match low {
        Bound::Included(address) => address,
        Bound::Excluded(address) => step(address, true)?,
        Bound::Unbounded => first,
    };
    let high = match high {
        Bound::Included(address) => address,
        Bound::Excluded(address) => step(address, false)?,
        Bound::Unbounded => last,
    };
    IpRange::between(low, high)
}

fn step(address: IpAddr, is_up: bool) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            IpAddr::V4(if is_up { bits.checked_add(1)? } else { bits.checked_sub(1)? }.into())
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            IpAddr::V6(if is_up { bits.checked_add(1)? } else { bits.checked_sub(1)? }.into())
        }
    })
}

/// Says that nothing lies between two bounds.
fn empty_note<T: PartialOrd>(low: &Bound<T>, high: &Bound<T>) -> Option<String> {
    if is_open(low, high) {
        return None;
    }
    let is_empty = match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => {
            low >= high
        }
        _ => false,
    };
    is_empty.then(|| "nothing lies in the range".to_owned())
}
