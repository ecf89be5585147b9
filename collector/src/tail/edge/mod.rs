//! What happens to a record before it leaves the node: it may be left out, and secrets are taken out of it.
//!
//! All that is left out is counted, by namespace, container and reason.

mod limits;
mod pods;
mod redact;

use std::borrow::Cow;
use std::sync::Arc;

use binnacle_model::LogTime;

pub use limits::{Limit, Sample, Scope};
pub use pods::PodRules;
pub use redact::{Builtin, Redaction, Redactor};

use super::multiline::Multiline;
use limits::Buckets;
pub(crate) use pods::ContainerRules;

/// Rules for records, of one input.
#[derive(Debug, Clone, Default)]
pub struct EdgeRules {
    /// Containers that are not read at all.
    pub exclude: Vec<Scope>,
    /// How much may come; each rule whose scope fits counts.
    pub limits: Vec<Limit>,
    /// What part of some records is kept; the first rule that fits counts.
    pub samples: Vec<Sample>,
    /// What is taken out of messages.
    pub redactor: Arc<Redactor>,
}

/// The rules, and how much has come.
#[derive(Debug, Default)]
pub(super) struct Edge {
    rules: EdgeRules,
    buckets: Buckets,
}

/// What is asked about a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) namespace: &'a str,
    pub(super) container: &'a str,
    pub(super) level: &'a str,
    pub(super) message: &'a [u8],
    /// The same whenever the record is read again.
    pub(super) offset: u64,
    pub(super) now: LogTime,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// It leaves, with so many places in it redacted.
    Keep(Cow<'a, [u8]>, u64),
    /// It is left out, for this reason.
    Drop(&'static str),
}

impl Edge {
    pub(super) fn new(rules: EdgeRules) -> Self {
        Self { buckets: Buckets::new(&rules.limits), rules }
    }

    pub(super) fn excludes(&self, namespace: &str, container: &str) -> bool {
        self.rules.exclude.iter().any(|scope| scope.fits(namespace, container))
    }

    /// Without secrets, and how many there were.
    pub(super) fn redact<'a>(&self, text: &'a [u8]) -> (Cow<'a, [u8]>, u64) {
        self.rules.redactor.redact(text)
    }

    /// `own` are the rules of the record's container.
    pub(super) fn judge<'a>(&mut self, asked: Asked<'a>, own: Option<&mut ContainerRules>) -> Verdict<'a> {
        if let Some(reason) = own.and_then(|rules| rules.drops(&asked)) {
            return Verdict::Drop(reason);
        }
        let fits = |sample: &&Sample| sample.fits(asked.namespace, asked.container, asked.level);
        if self.rules.samples.iter().find(fits).is_some_and(|sample| !sample.keeps(&asked)) {
            return Verdict::Drop("sampled");
        }
        if !self.rules.limits.is_empty() && !self.buckets.take(&self.rules.limits, &asked) {
            return Verdict::Drop("rate_limited");
        }
        let (message, redacted) = self.redact(asked.message);
        Verdict::Keep(message, redacted)
    }
}
