//! `data.stats` of a query's answer: how long it took and what it looked at, in Prometheus's form.

use std::time::{Duration, Instant};

use binnacle_model::Timestamp;
use serde_json::{Value, json};

use super::Params;
use crate::promql::SampleStats;

/// Whether and how much is to be told of a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stats {
    asked: Instant,
    is_asked: bool,
    per_step: bool,
}

/// A query that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    stats: Stats,
    queued: Duration,
    started: Instant,
}

impl Stats {
    /// Reads `stats`: nothing, `all` with a count for each step, or any other word.
    pub(super) fn asked(params: &Params) -> Self {
        let word = params.get("stats");
        Self { asked: Instant::now(), is_asked: word.is_some(), per_step: word == Some("all") }
    }

    pub(super) fn is_asked(self) -> bool {
        self.is_asked
    }

    /// The query has its turn now.
    pub(super) fn start(self) -> Times {
        Times { stats: self, queued: self.asked.elapsed(), started: Instant::now() }
    }
}

/// As Go writes a float: without a fraction if there is none.
fn seconds(at: Timestamp) -> Value {
    if at.0 % 1000 == 0 { (at.0 / 1000).into() } else { (at.0 as f64 / 1000.0).into() }
}

impl Times {
    /// What to tell, if it was asked.
    pub(super) fn finish(&self, samples: Option<&SampleStats>) -> Option<Value> {
        let samples = samples?;
        let (queued, ran) = (self.queued.as_secs_f64(), self.started.elapsed().as_secs_f64());
        let mut shown = json!({
            "totalQueryableSamples": samples.total,
            "peakSamples": samples.peak,
        });
        if self.stats.per_step {
            let steps = samples.per_step.iter().map(|(at, count)| json!([seconds(*at), count]));
            shown["totalQueryableSamplesPerStep"] = steps.collect();
        }
        Some(json!({
            "timings": {
                "evalTotalTime": ran,
                "resultSortTime": 0.0,
                "queryPreparationTime": 0.0,
                "innerEvalTime": ran,
                "execQueueTime": queued,
                "execTotalTime": queued + ran,
            },
            "samples": shown,
        }))
    }
}
