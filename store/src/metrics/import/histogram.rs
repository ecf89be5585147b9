//! Chunks of native histograms, with whole counts or floats.
//!
//! ```text
//! data    := count:u16 reset:2 bits 6 bits  zero_threshold schema spans spans bounds  sample*
//! spans   := count:varbit (length:varbit offset:varbit)*              of positive and of negative buckets
//! bounds  := count:varbit bound*                                      with schema -53 only
//! bound   := (1 + 1000 * bound):varbit | 0 f64
//! sample  := time count zero_count sum bucket*
//! ```
//!
//! Numbers of the first sample stand for themselves. Behind it, times and whole numbers are differences from what the
//! two before them let expect, and floats are XORs with the one before. A whole bucket is its difference from the
//! bucket beside it. All samples of a chunk have the same buckets; the staleness marker has none.

use std::sync::Arc;

use binnacle_model::Timestamp;
use binnacle_model::histogram::{Buckets, CUSTOM_SCHEMA, Histogram, ResetHint};
use binnacle_model::sample::is_stale;
use binnacle_model::storage::HistogramSample;

use super::bits::{Bits, XorFloat};

/// Buckets of all samples of one chunk. Prometheus ends a chunk of ten histograms once it has a kilobyte.
const CHUNK_MAX_BUCKETS: usize = 4 << 20;

/// Buckets of one sample, which is what a histogram may have.
const SAMPLE_MAX_BUCKETS: usize = 2 * 65_536;

/// How counts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    Whole,
    Floats,
}

/// What all samples of a chunk share.
struct Layout {
    is_gauge: bool,
    schema: i32,
    zero_threshold: f64,
    /// Indexes of buckets.
    positive: Vec<i32>,
    negative: Vec<i32>,
    bounds: Arc<[f64]>,
}

/// A number with the two before it.
enum Number {
    Whole { value: i64, step: i64 },
    Float(XorFloat),
}

impl Number {
    /// The first one of a count, which is never negative.
    fn count(bits: &mut Bits<'_>, counts: Counts) -> Option<Self> {
        Some(match counts {
            Counts::Whole => Self::Whole { value: bits.varbit_uint()? as i64, step: 0 },
            Counts::Floats => Self::Float(XorFloat::new(bits.f64()?)),
        })
    }

    /// The first one of a bucket.
    fn bucket(bits: &mut Bits<'_>, counts: Counts) -> Option<Self> {
        match counts {
            Counts::Whole => Some(Self::Whole { value: bits.varbit_int()?, step: 0 }),
            Counts::Floats => Self::count(bits, counts),
        }
    }

    fn advance(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        match self {
            Self::Whole { value, step } => {
                *step = step.wrapping_add(bits.varbit_int()?);
                *value = value.wrapping_add(*step);
            }
            Self::Float(float) => {
                float.advance(bits)?;
            }
        }
        Some(())
    }

    fn as_count(&self) -> f64 {
        match self {
            Self::Whole { value, .. } => *value as u64 as f64,
            Self::Float(float) => float.value(),
        }
    }
}

/// Adds the histograms of a chunk to `out`.
pub(super) fn decode_histograms(data: &[u8], counts: Counts, out: &mut Vec<HistogramSample>) -> Option<()> {
    let mut bits = Bits::new(data);
    let samples = bits.read(16)? as usize;
    if samples == 0 {
        return Some(());
    }
    let layout = Layout::read(&mut bits)?;
    let of_each = layout.positive.len() + layout.negative.len();
    if of_each.saturating_mul(samples) > CHUNK_MAX_BUCKETS {
        return None;
    }
    let mut time = Number::bucket(&mut bits, Counts::Whole)?;
    let mut count = Number::count(&mut bits, counts)?;
    let mut zero_count = Number::count(&mut bits, counts)?;
    let mut sum = XorFloat::new(bits.f64()?);
    let mut buckets = Vec::with_capacity(of_each.min(bits.left()));
    for _ in 0..of_each {
        buckets.push(Number::bucket(&mut bits, counts)?);
    }
    for at in 0..samples {
        if at > 0 {
            time.advance(&mut bits)?;
            count.advance(&mut bits)?;
            zero_count.advance(&mut bits)?;
            sum.advance(&mut bits)?;
        }
        let is_marker = is_stale(sum.value());
        if at > 0 && !is_marker {
            buckets.iter_mut().try_for_each(|bucket| bucket.advance(&mut bits))?;
        }
        let Number::Whole { value: moment, .. } = time else { return None };
        let histogram = if is_marker {
            Histogram::stale()
        } else {
            Histogram {
                hint: layout.hint(at),
                zero_count: zero_count.as_count(),
                count: count.as_count(),
                sum: sum.value(),
                ..layout.histogram(&buckets)
            }
        };
        out.push(HistogramSample { timestamp: Timestamp(moment), histogram: Arc::new(histogram) });
    }
    Some(())
}

impl Layout {
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let is_gauge = bits.read(2)? == 0b11;
        bits.read(6)?;
        let zero_threshold = match bits.read(8)? {
            0 => 0.0,
            255 => bits.f64()?,
            exponent => 2f64.powi(exponent as i32 - 244),
        };
        let schema = i32::try_from(bits.varbit_int()?).ok()?;
        let (positive, negative) = (read_spans(bits)?, read_spans(bits)?);
        let bounds = if schema == CUSTOM_SCHEMA { read_bounds(bits)? } else { Vec::new() };
        Some(Self { is_gauge, schema, zero_threshold, positive, negative, bounds: bounds.into() })
    }

    /// What is known of the counter. Of the first sample of a chunk nothing that would hold whatever lies before it
    /// here; Prometheus's own queries do without, too.
    fn hint(&self, at: usize) -> ResetHint {
        match at {
            _ if self.is_gauge => ResetHint::Gauge,
            0 => ResetHint::Unknown,
            _ => ResetHint::NotReset,
        }
    }

    fn histogram(&self, buckets: &[Number]) -> Histogram {
        let (positive, negative) = buckets.split_at(self.positive.len());
        Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            positive: absolute(&self.positive, positive),
            negative: absolute(&self.negative, negative),
            bounds: Arc::clone(&self.bounds),
            ..Histogram::default()
        }
    }
}

fn absolute(indexes: &[i32], buckets: &[Number]) -> Buckets {
    let mut sum = 0i64;
    let counts = buckets.iter().map(|bucket| match bucket {
        Number::Whole { value, .. } => {
            sum = sum.wrapping_add(*value);
            sum as f64
        }
        Number::Float(float) => float.value(),
    });
    indexes.iter().copied().zip(counts).collect()
}

/// Indexes of buckets, ascending.
fn read_spans(bits: &mut Bits<'_>) -> Option<Vec<i32>> {
    let mut indexes: Vec<i32> = Vec::new();
    let mut next = 0i32;
    for at in 0..bits.varbit_uint()? {
        let length = usize::try_from(bits.varbit_uint()?).ok()?;
        let offset = i32::try_from(bits.varbit_int()?).ok()?;
        if (at > 0 && offset < 0) || indexes.len().saturating_add(length) > SAMPLE_MAX_BUCKETS {
            return None;
        }
        next = next.checked_add(offset)?;
        for _ in 0..length {
            indexes.push(next);
            next = next.checked_add(1)?;
        }
    }
    Some(indexes)
}

fn read_bounds(bits: &mut Bits<'_>) -> Option<Vec<f64>> {
    let count = usize::try_from(bits.varbit_uint()?).ok()?;
    if count > bits.left() {
        return None;
    }
    let bound = |bits: &mut Bits<'_>| match bits.varbit_uint()? {
        0 => bits.f64(),
        thousandths => Some((thousandths - 1) as f64 / 1000.0),
    };
    (0..count).map(|_| bound(bits)).collect()
}
