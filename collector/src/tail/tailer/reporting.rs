//! How far the store is, for those who ask: reports of completeness, and metrics.

use std::collections::BTreeMap;

use binnacle_model::LogTime;
use prometheus_client::metrics::gauge::Gauge;

use super::super::listing::Input;
use super::Tailer;
use crate::completeness::{ContainerReport, JournalReport, NodeReport};

impl Tailer {
    /// How much stands in the files of each container, and how much of it the store has.
    pub(in crate::tail) fn report(&mut self) -> NodeReport {
        let now = self.clock.now_ns();
        if matches!(self.options.input, Input::Journal { .. }) {
            let journal = Some(self.report_journal(now));
            return NodeReport { journal, ..self.empty_report() };
        }
        let mut containers: BTreeMap<(String, String, String), ContainerReport> = BTreeMap::new();
        for ((namespace, container), lost) in &self.lost_of_gone {
            let names = (namespace.clone(), String::new(), container.clone());
            containers.entry(names).or_default().lost += lost;
        }
        for origin in self.origins.values_mut() {
            let [namespace, pod] = ["namespace", "pod"].map(|name| origin.label(name).to_owned());
            let names = (namespace, pod, origin.container().to_owned());
            let report = containers.entry(names).or_default();
            report.lost += origin.lost_bytes;
            report.refused += origin.refused_bytes;
            for file in origin.files.iter_mut().filter(|file| !file.is_copy()) {
                report.files += 1;
                report.bytes += file.size;
                report.acknowledged += file.acknowledged.min(file.size);
                report.behind_seconds = report.behind_seconds.max(file.behind_ns(now) as f64 / 1e9);
            }
        }
        let named =
            |((namespace, pod, container), report)| ContainerReport { namespace, pod, container, ..report };
        let containers = containers.into_iter().map(named).collect();
        NodeReport { containers, ..self.empty_report() }
    }

    fn empty_report(&self) -> NodeReport {
        NodeReport {
            node: self.options.node.clone(),
            input: self.options.number,
            started_ns: self.started.0,
            spool_bytes: self.spool.bytes(),
            ..NodeReport::default()
        }
    }

    fn report_journal(&mut self, now: LogTime) -> JournalReport {
        let mut report = JournalReport { lost: self.lost_of_gone.values().sum(), ..JournalReport::default() };
        for origin in self.origins.values_mut() {
            report.lost += origin.lost_bytes;
            report.refused += origin.refused_bytes;
            for file in origin.files.iter_mut().filter(|file| !file.is_copy()) {
                report.files += 1;
                report.entries += file.size;
                report.acknowledged += file.acknowledged.min(file.size);
                report.behind_seconds = report.behind_seconds.max(file.behind_ns(now) as f64 / 1e9);
            }
        }
        report
    }

    /// How far behind the store is.
    pub(super) fn measure(&mut self, now: LogTime) {
        let (mut lag, mut behind, mut deleted) = (0, 0, 0);
        for file in self.origins.values_mut().flat_map(|origin| &mut origin.files) {
            lag += file.lag();
            behind = behind.max(file.behind_ns(now));
            if file.gone.is_some() && file.source.is_some() {
                deleted += file.held_bytes();
            }
        }
        let (telemetry, shown) = (&self.telemetry, &mut self.shown);
        shown.lag = show(&telemetry.lag_bytes, shown.lag, lag);
        shown.deleted = show(&telemetry.deleted_open_bytes, shown.deleted, deleted);
        shown.spooled = show(&telemetry.spool_bytes, shown.spooled, self.spool.bytes());
        let input = vec![("input", self.options.number.to_string())];
        telemetry.lag_seconds.get_or_create(&input).set(behind as f64 / 1e9);
    }
}

/// What this tailer has added to gauges that all tailers of a process share.
#[derive(Debug, Default)]
pub(super) struct Shown {
    lag: u64,
    deleted: u64,
    spooled: u64,
    pub(super) files_open: u64,
    pub(super) dirs_watched: u64,
}

/// Makes a shared gauge show `now` where it showed `before` of this tailer. Answers `now`.
pub(super) fn show(gauge: &Gauge, before: u64, now: u64) -> u64 {
    gauge.inc_by(now.cast_signed().saturating_sub(before.cast_signed()));
    now
}
