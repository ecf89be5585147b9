//! Histograms of a page: native ones, classic ones, and those that are both.
//!
//! ```text
//! Histogram  1 | 4: count uint64 | double   2: sum   3: Bucket*   5: schema sint32   6: zero threshold
//!            7 | 8: zero count uint64 | double
//!            9, 12: BucketSpan* (1: offset sint32, 2: length)     negative, positive
//!            10, 13: sint64*, differences   11, 14: double*       counts of their buckets
//!            15: created   16: Exemplar*
//! Bucket     1 | 4: cumulative count uint64 | double   2: upper bound   3: Exemplar
//! ```

use binnacle_model::histogram::{Buckets, Histogram, ResetHint};

use super::wire::{Field, Fields, WireError, zigzag};
use super::{RowValue, Suffix, Wanted};

/// Buckets of one histogram, empty ones included.
const BUCKETS_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct RawHistogram<'a> {
    count: u64,
    count_float: f64,
    sum: f64,
    buckets: Vec<Bucket<'a>>,
    schema: i64,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    negative: Side,
    positive: Side,
    exemplars: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Bucket<'a> {
    cumulative: u64,
    cumulative_float: f64,
    upper: f64,
    exemplar: Option<&'a [u8]>,
}

impl Bucket<'_> {
    fn count(&self) -> f64 {
        if self.cumulative_float == 0.0 { self.cumulative as f64 } else { self.cumulative_float }
    }
}

/// The buckets of one side, as they come.
#[derive(Default)]
struct Side {
    spans: Vec<(i64, u64)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl<'a> RawHistogram<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut found = Self::default();
        let mut fields = Fields::new(body);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => found.count = field.value,
                2 => found.sum = field.float(),
                3 => {
                    found.buckets.push(bucket(field.bytes).map_err(|error| error.within(body, field.bytes))?);
                }
                4 => found.count_float = field.float(),
                5 => found.schema = zigzag(field.value),
                6 => found.zero_threshold = field.float(),
                7 => found.zero_count = field.value,
                8 => found.zero_count_float = field.float(),
                9 => found.negative.spans.push(span(field.bytes)?),
                10 => integers(&field, &mut found.negative.deltas)?,
                11 => floats(&field, &mut found.negative.counts)?,
                12 => found.positive.spans.push(span(field.bytes)?),
                13 => integers(&field, &mut found.positive.deltas)?,
                14 => floats(&field, &mut found.positive.counts)?,
                16 => found.exemplars.push(field.bytes),
                _ => {}
            }
            let sides = [&found.negative, &found.positive];
            let parts = sides.map(|side| side.spans.len() + side.deltas.len() + side.counts.len());
            if parts.iter().sum::<usize>() + found.buckets.len() > 3 * BUCKETS_MAX {
                return fields.fail("a histogram has too many buckets");
            }
        }
        Ok(found)
    }

    /// Whether it says that it is a native one; a span of no buckets is enough.
    fn is_native(&self) -> bool {
        let has_spans = !self.positive.spans.is_empty() || !self.negative.spans.is_empty();
        has_spans || self.zero_threshold > 0.0 || self.zero_count > 0
    }

    pub(super) fn show(
        self,
        is_gauge: bool,
        wanted: Wanted,
        row: &mut impl FnMut(Suffix, RowValue, &[&[u8]]),
    ) -> Result<(), WireError> {
        let is_native = wanted.native && self.is_native();
        if is_native {
            let exemplars = if self.exemplars.is_empty() {
                self.buckets.iter().filter_map(|bucket| bucket.exemplar).collect()
            } else {
                self.exemplars.clone()
            };
            let histogram = self.native(is_gauge)?;
            row(Suffix::None, RowValue::Histogram(Box::new(histogram)), &exemplars);
        }
        if !is_native || (wanted.classic && !self.buckets.is_empty()) {
            self.show_classic(row);
        }
        Ok(())
    }

    fn show_classic(&self, row: &mut impl FnMut(Suffix, RowValue, &[&[u8]])) {
        let count = if self.count_float == 0.0 { self.count as f64 } else { self.count_float };
        row(Suffix::Count, RowValue::Float(count), &[]);
        row(Suffix::Sum, RowValue::Float(self.sum), &[]);
        for bucket in &self.buckets {
            let value = RowValue::Float(bucket.count());
            row(Suffix::Bucket(bucket.upper), value, bucket.exemplar.as_slice());
            if bucket.upper == f64::INFINITY {
                return;
            }
        }
        row(Suffix::Bucket(f64::INFINITY), RowValue::Float(count), &[]);
    }

    fn native(&self, is_gauge: bool) -> Result<Histogram, WireError> {
        let wrong = |reason| WireError { at: 0, reason };
        let is_float = self.count_float > 0.0 || self.zero_count_float > 0.0;
        let mut histogram = Histogram {
            hint: if is_gauge { ResetHint::Gauge } else { ResetHint::Unknown },
            schema: i32::try_from(self.schema).unwrap_or(i32::MAX),
            zero_threshold: self.zero_threshold,
            zero_count: if is_float { self.zero_count_float } else { self.zero_count as f64 },
            count: if is_float { self.count_float } else { self.count as f64 },
            sum: self.sum,
            positive: self.positive.buckets(is_float).map_err(wrong)?,
            negative: self.negative.buckets(is_float).map_err(wrong)?,
            ..Histogram::default()
        };
        histogram.compact();
        histogram.validate().map_err(|_| wrong("the histogram contradicts itself"))?;
        Ok(histogram)
    }
}

impl Side {
    fn buckets(&self, is_float: bool) -> Result<Buckets, &'static str> {
        let mut sum = 0i64;
        let of_deltas = self.deltas.iter().map(|delta| {
            sum = sum.wrapping_add(*delta);
            sum as f64
        });
        let counts: Vec<f64> = if is_float { self.counts.clone() } else { of_deltas.collect() };
        let mut counts = counts.into_iter();
        let (mut buckets, mut next) = (Buckets::default(), 0i64);
        for (at, (offset, length)) in self.spans.iter().enumerate() {
            if at > 0 && *offset < 0 {
                return Err("spans of a histogram overlap");
            }
            next = next.saturating_add(*offset);
            for _ in 0..*length {
                let Some(count) = counts.next() else { return Err("a span of a histogram lacks buckets") };
                let Ok(index) = i32::try_from(next) else { return Err("a bucket's index is out of range") };
                buckets.push(index, count);
                next += 1;
            }
        }
        if counts.next().is_some() {
            return Err("buckets of a histogram lie in no span");
        }
        Ok(buckets)
    }
}

fn bucket(body: &[u8]) -> Result<Bucket<'_>, WireError> {
    let mut bucket = Bucket::default();
    let mut fields = Fields::new(body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => bucket.cumulative = field.value,
            2 => bucket.upper = field.float(),
            3 => bucket.exemplar = Some(field.bytes),
            4 => bucket.cumulative_float = field.float(),
            _ => {}
        }
    }
    Ok(bucket)
}

fn span(body: &[u8]) -> Result<(i64, u64), WireError> {
    let (mut offset, mut length) = (0, 0);
    let mut fields = Fields::new(body);
    while let Some(part) = fields.next()? {
        match part.number {
            1 => offset = zigzag(part.value),
            2 => length = part.value,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// Packed, or one by one.
fn integers(field: &Field<'_>, out: &mut Vec<i64>) -> Result<(), WireError> {
    if !field.is_delimited {
        out.push(zigzag(field.value));
        return Ok(());
    }
    let mut packed = Fields::new(field.bytes);
    while !packed.is_over() {
        if out.len() >= BUCKETS_MAX {
            return packed.fail("a histogram has too many buckets");
        }
        out.push(zigzag(packed.varint()?));
    }
    Ok(())
}

/// Packed, or one by one.
fn floats(field: &Field<'_>, out: &mut Vec<f64>) -> Result<(), WireError> {
    if !field.is_delimited {
        out.push(field.float());
        return Ok(());
    }
    let mut packed = Fields::new(field.bytes);
    while !packed.is_over() {
        if out.len() >= BUCKETS_MAX {
            return packed.fail("a histogram has too many buckets");
        }
        out.push(f64::from_bits(packed.eight()?));
    }
    Ok(())
}
