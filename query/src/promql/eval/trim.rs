//! `</` and `>/`: histograms without the observations beyond a border.

use binnacle_model::histogram::{Bucket, Buckets, Histogram};

/// What is left of a bucket, and where that lies on average.
struct Rest {
    count: f64,
    middle: f64,
}

/// The observations below `border` (`upper`: those above it go), or those above it.
///
/// A bucket that the border cuts keeps a part, as `histogram_fraction` counts it: on a logarithmic scale
/// where bounds are exponential, else in proportion. If anything goes, the sum is estimated anew, each rest
/// taken to lie in its middle. So `histogram_count(h </ x)` is `histogram_fraction(-Inf, x, h)` of the count.
pub(super) fn trimmed(histogram: &Histogram, border: f64, upper: bool) -> Histogram {
    let trim = Trim { border, upper, is_custom: histogram.is_custom() };
    let mut found = histogram.clone();
    let mut total = Rest { count: 0.0, middle: 0.0 };
    let mut is_cut = false;
    let mut take = |bucket: &Bucket, rest: Rest| {
        is_cut |= rest.count != bucket.count;
        total.count += rest.count;
        if rest.count != 0.0 {
            total.middle += rest.count * rest.middle;
        }
        rest.count
    };
    let positive: Vec<Bucket> = histogram.positive_buckets().collect();
    for (bucket, index) in positive.iter().zip(histogram.positive.indexes()) {
        set(&mut found.positive, *index, take(bucket, trim.bucket(bucket, true)));
    }
    let negative: Vec<Bucket> = histogram.negative_buckets().collect();
    for (bucket, index) in negative.iter().zip(histogram.negative.indexes()) {
        set(&mut found.negative, *index, take(bucket, trim.bucket(bucket, false)));
    }
    if histogram.zero_count > 0.0 {
        let bucket = zero_bucket_of(histogram);
        let linear = Trim { is_custom: true, ..trim };
        found.zero_count = take(&bucket, linear.bucket(&bucket, true));
    }
    if !is_cut {
        return histogram.clone();
    }
    found.count = total.count;
    found.sum = total.middle;
    found.compact();
    found
}

/// A histogram with observations of one sign has its zero bucket on that side alone.
fn zero_bucket_of(histogram: &Histogram) -> Bucket {
    let mut bucket = histogram.zero_bucket();
    match (histogram.positive.is_empty(), histogram.negative.is_empty()) {
        (false, true) => bucket.lower = 0.0,
        (true, false) => bucket.upper = 0.0,
        _ => {}
    }
    bucket
}

fn set(buckets: &mut Buckets, index: i32, count: f64) {
    if let Ok(at) = buckets.indexes().binary_search(&index) {
        buckets.counts_mut()[at] = count;
    }
}

#[derive(Clone, Copy)]
struct Trim {
    border: f64,
    upper: bool,
    /// Whether observations lie evenly in a bucket, rather than their logarithms.
    is_custom: bool,
}

impl Trim {
    fn bucket(self, bucket: &Bucket, is_positive: bool) -> Rest {
        let mut bucket = *bucket;
        let nothing = Rest { count: 0.0, middle: 0.0 };
        let keeps_all = if self.upper { self.border >= bucket.upper } else { self.border <= bucket.lower };
        if bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 {
            if bucket.upper == f64::INFINITY && !keeps_all {
                // Nobody knows where its observations lie.
                return nothing;
            }
            bucket.lower = 0.0;
        }
        let (from, to) = if self.upper {
            (bucket.lower, bucket.upper.min(self.border))
        } else {
            (bucket.lower.max(self.border), bucket.upper)
        };
        if from >= to && !(keeps_all && from == to) {
            return nothing;
        }
        let count = match () {
            () if keeps_all || (!self.upper && self.border <= bucket.lower) => bucket.count,
            // Without an end below, all of it counts as below; without one above, as above.
            () if bucket.lower == f64::NEG_INFINITY => {
                if self.upper {
                    bucket.count
                } else {
                    0.0
                }
            }
            () if bucket.upper == f64::INFINITY => {
                if self.upper {
                    0.0
                } else {
                    bucket.count
                }
            }
            () => {
                let below = bucket.count * self.part_below(&bucket, is_positive);
                if self.upper { below } else { bucket.count - below }
            }
        };
        Rest { count, middle: self.middle(from, to, is_positive) }
    }

    /// Which part of a bucket lies below the border, which is within it.
    fn part_below(self, bucket: &Bucket, is_positive: bool) -> f64 {
        if self.is_custom {
            return (self.border - bucket.lower) / (bucket.upper - bucket.lower);
        }
        let [lower, upper, at] = [bucket.lower, bucket.upper, self.border].map(|value| value.abs().log2());
        if is_positive { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
    }

    fn middle(self, from: f64, to: f64, is_positive: bool) -> f64 {
        if from == f64::NEG_INFINITY {
            return to;
        }
        if to == f64::INFINITY {
            return from;
        }
        if self.is_custom {
            return f64::midpoint(from, to);
        }
        let middle = (from.abs() * to.abs()).sqrt();
        if is_positive { middle } else { -middle }
    }
}
