//! Rate limits and sampling (L22): one noisy container does not cost the others their lines.

use std::collections::HashMap;

use super::super::listing::fits;
use super::Asked;

/// Containers of a namespace; in both names `*` stands for anything.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Such as `dev-*`.
    pub namespace: String,
    /// Such as `*`.
    pub container: String,
}

/// How much of what fits may come.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Of what.
    pub scope: Scope,
    /// Whether all that fits shares the limit, or each container has its own.
    pub is_shared: bool,
    /// Records a second, if they are bounded.
    pub lines: Option<f64>,
    /// Bytes of messages a second, if they are bounded.
    pub bytes: Option<f64>,
    /// So many seconds' worth may come at once.
    pub burst_seconds: f64,
}

/// What part of records is kept.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Of what.
    pub scope: Scope,
    /// Of this level; empty is any.
    pub level: String,
    /// From 0 to 1.
    pub keep: f64,
}

impl Scope {
    pub(super) fn fits(&self, namespace: &str, container: &str) -> bool {
        fits(&self.namespace, namespace) && fits(&self.container, container)
    }
}

impl Sample {
    pub(super) fn fits(&self, namespace: &str, container: &str, level: &str) -> bool {
        (self.level.is_empty() || self.level == level) && self.scope.fits(namespace, container)
    }

    /// The same for a record whenever it is read.
    pub(super) fn keeps(&self, asked: &Asked<'_>) -> bool {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(asked.message, asked.offset);
        ((hash >> 11) as f64 / (1u64 << 53) as f64) < self.keep
    }
}

/// What is left of each limit.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    /// By limit; then by container, or under an empty name.
    of_limit: Vec<HashMap<(String, String), Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    lines: f64,
    bytes: f64,
    filled_ns: i64,
}

/// Containers that have buckets of their own, per limit. Others share one, until the next start.
const MAX_BUCKETS: usize = 20_000;

impl Buckets {
    pub(super) fn new(limits: &[Limit]) -> Self {
        Self { of_limit: limits.iter().map(|_| HashMap::new()).collect() }
    }

    /// Takes a record's share from every limit that it falls under; from none if one of them is used up.
    pub(super) fn take(&mut self, limits: &[Limit], asked: &Asked<'_>) -> bool {
        let bytes = asked.message.len() as f64;
        let falls_under = |limit: &Limit| limit.scope.fits(asked.namespace, asked.container);
        for (limit, buckets) in limits.iter().zip(&mut self.of_limit).filter(|(limit, _)| falls_under(limit))
        {
            let bucket = bucket(buckets, limit, asked);
            bucket.fill(limit, asked.now.0);
            let has_room = limit.lines.is_none_or(|_| bucket.lines >= 1.0)
                // A record larger than the bucket passes when that is full.
                && limit.bytes.is_none_or(|rate| bucket.bytes >= bytes.min(rate * limit.burst_seconds));
            if !has_room {
                return false;
            }
        }
        for (limit, buckets) in limits.iter().zip(&mut self.of_limit).filter(|(limit, _)| falls_under(limit))
        {
            let bucket = bucket(buckets, limit, asked);
            bucket.lines -= 1.0;
            bucket.bytes -= bytes;
        }
        true
    }
}

fn bucket<'a>(
    buckets: &'a mut HashMap<(String, String), Bucket>,
    limit: &Limit,
    asked: &Asked<'_>,
) -> &'a mut Bucket {
    let key = (asked.namespace.to_owned(), asked.container.to_owned());
    let is_alone = !limit.is_shared && (buckets.len() < MAX_BUCKETS || buckets.contains_key(&key));
    let key = if is_alone { key } else { (String::new(), String::new()) };
    let full = |rate: Option<f64>| rate.unwrap_or(0.0) * limit.burst_seconds;
    let new = Bucket { lines: full(limit.lines), bytes: full(limit.bytes), filled_ns: asked.now.0 };
    buckets.entry(key).or_insert(new)
}

impl Bucket {
    fn fill(&mut self, limit: &Limit, now_ns: i64) {
        // A clock that goes back gives nothing and takes nothing.
        let seconds = now_ns.saturating_sub(self.filled_ns).max(0) as f64 / 1e9;
        self.filled_ns = now_ns;
        let filled = |held: f64, rate: Option<f64>| {
            let rate = rate.unwrap_or(0.0);
            (held + rate * seconds).min(rate * limit.burst_seconds)
        };
        (self.lines, self.bytes) = (filled(self.lines, limit.lines), filled(self.bytes, limit.bytes));
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::LogTime;

    use super::*;

    fn scope(namespace: &str, container: &str) -> Scope {
        Scope { namespace: namespace.into(), container: container.into() }
    }

    fn asked<'a>(namespace: &'a str, container: &'a str, message: &'a [u8], second: f64) -> Asked<'a> {
        let now = LogTime((second * 1e9) as i64);
        Asked { namespace, container, level: "", message, offset: 0, now }
    }

    #[test]
    fn a_noisy_container_has_its_rate_and_others_theirs() {
        let limit = |is_shared| Limit {
            scope: scope("dev-*", "*"),
            is_shared,
            lines: Some(10.0),
            bytes: Some(1000.0),
            burst_seconds: 2.0,
        };
        for (is_shared, other) in [(false, 20), (true, 0)] {
            let limits = [limit(is_shared)];
            let mut buckets = Buckets::new(&limits);
            let mut passed = |container: &str, message: &[u8], second: f64, times: usize| {
                let asked = asked("dev-a", container, message, second);
                (0..times).filter(|_| buckets.take(&limits, &asked)).count()
            };
            assert_eq!(passed("noisy", b"x", 100.0, 500), 20, "a burst");
            assert_eq!(passed("noisy", b"x", 101.0, 500), 10, "then its rate");
            assert_eq!(passed("quiet", b"x", 101.0, 500), other);
            assert_eq!(passed("noisy", b"x", 90.0, 500), 0, "a clock that goes back gives nothing");
            let large = vec![b'x'; 5000];
            assert_eq!(passed("noisy", &large, 200.0, 5), 1, "larger than the bucket, when that is full");
        }
        let limits = [limit(false)];
        let mut buckets = Buckets::new(&limits);
        assert!((0..500).all(|_| buckets.take(&limits, &asked("prod", "a", b"x", 1.0))));
    }

    #[test]
    fn a_part_is_kept_and_always_the_same() {
        let sample = Sample { scope: scope("*", "*"), level: "debug".into(), keep: 0.25 };
        assert!(sample.fits("a", "b", "debug") && !sample.fits("a", "b", "info"));
        let kept = |round: u64| -> Vec<u64> {
            let _ = round;
            (0..4000)
                .filter(|at| sample.keeps(&Asked { offset: *at, ..asked("a", "b", b"same", 1.0) }))
                .collect()
        };
        assert_eq!(kept(1), kept(2));
        assert!((800..1200).contains(&kept(1).len()), "{}", kept(1).len());
        let all = Sample { keep: 1.0, ..sample.clone() };
        let none = Sample { keep: 0.0, ..sample };
        assert!((0..100).all(|at| all.keeps(&Asked { offset: at, ..asked("a", "b", b"", 1.0) })));
        assert!((0..100).all(|at| !none.keeps(&Asked { offset: at, ..asked("a", "b", b"", 1.0) })));
    }
}
