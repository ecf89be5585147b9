//! What a query's author should know: warnings and infos, in Prometheus's words.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, SecondsFormat};

use binnacle_model::histogram::short;

use super::ast::Span;
use super::parser::line_and_column;

/// So many of each kind are shown.
const SHOWN_MAX: usize = 10;

/// Whether an answer may be wrong, or only surprising.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Warning,
    Info,
}

#[derive(Debug, Clone)]
struct Note {
    weight: Weight,
    text: String,
    /// What was read badly has no place in the query.
    span: Option<Span>,
    fixed: Option<Fixed>,
}

/// Buckets of classic histograms whose counts went down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub(super) lowest: f64,
    pub(super) highest: f64,
    pub(super) largest_step: f64,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    pub(super) times: u64,
}

/// The notes of one query, each text once.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    all: Vec<Note>,
    /// Their places in `all`.
    places: HashMap<String, usize>,
    /// What was said of which metric, so that it is not put into words again for each step of each series.
    said: HashMap<Said, HashSet<String>>,
}

/// What is said of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Said {
    MixedFloatsAndHistograms,
    IgnoredInRange,
    MixedSchemas,
    NoCounter,
    NoGauge,
    NoCounterName,
    NoCounterType,
}

impl Notes {
    /// Notes nothing so far.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes over those of a part of the query.
    pub(super) fn append(&mut self, other: Self) {
        for note in other.all {
            self.push(note);
        }
    }

    fn push(&mut self, note: Note) {
        let Some(known) = self.places.get(&note.text) else {
            self.places.insert(note.text.clone(), self.all.len());
            self.all.push(note);
            return;
        };
        if let (Some(known), Some(new)) = (&mut self.all[*known].fixed, note.fixed) {
            known.lowest = known.lowest.min(new.lowest);
            known.highest = known.highest.max(new.highest);
            known.largest_step = known.largest_step.max(new.largest_step);
            known.first_ms = known.first_ms.min(new.first_ms);
            known.last_ms = known.last_ms.max(new.last_ms);
            known.times += new.times;
        }
    }

    /// Whether this is said of the metric for the first time.
    fn is_first(&mut self, said: Said, name: &str) -> bool {
        let names = self.said.entry(said).or_default();
        !names.contains(name) && names.insert(name.to_owned())
    }

    /// Says what could not be read, as it is.
    pub(crate) fn missing(&mut self, text: &str) {
        self.push(Note { weight: Weight::Warning, text: text.to_owned(), span: None, fixed: None });
    }

    pub(super) fn warn(&mut self, span: Span, text: &str) {
        let text = format!("PromQL warning: {text}");
        self.push(Note { weight: Weight::Warning, text, span: Some(span), fixed: None });
    }

    pub(super) fn inform(&mut self, span: Span, text: &str) {
        let text = format!("PromQL info: {text}");
        self.push(Note { weight: Weight::Info, text, span: Some(span), fixed: None });
    }

    pub(super) fn invalid_quantile(&mut self, span: Span, q: f64) {
        self.warn(span, &format!("quantile value should be between 0 and 1, got {}", short(q)));
    }

    pub(super) fn mixed_floats_and_histograms(&mut self, span: Span, name: &str) {
        if self.is_first(Said::MixedFloatsAndHistograms, name) {
            let text = format!("encountered a mix of histograms and floats for metric name {name:?}");
            self.warn(span, &text);
        }
    }

    pub(super) fn ignored_in_range(&mut self, span: Span, name: &str) {
        if self.is_first(Said::IgnoredInRange, name) {
            let text = format!(
                "ignored histograms in a range containing both floats and histograms for metric name {name:?}"
            );
            self.inform(span, &text);
        }
    }

    pub(super) fn mixed_schemas(&mut self, span: Span, name: &str) {
        if self.is_first(Said::MixedSchemas, name) {
            let text = format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {name:?}"
            );
            self.warn(span, &text);
        }
    }

    pub(super) fn reconciled(&mut self, span: Span, operation: &str) {
        self.inform(span, &format!("mismatched custom buckets were reconciled during {operation}"));
    }

    pub(super) fn collision(&mut self, span: Span, operation: &str) {
        self.warn(span, &format!("conflicting counter resets during histogram {operation}"));
    }

    pub(super) fn no_counter(&mut self, span: Span, name: &str) {
        if self.is_first(Said::NoCounter, name) {
            self.warn(span, &format!("this native histogram metric is not a counter: {name:?}"));
        }
    }

    pub(super) fn no_gauge(&mut self, span: Span, name: &str) {
        if self.is_first(Said::NoGauge, name) {
            self.warn(span, &format!("this native histogram metric is not a gauge: {name:?}"));
        }
    }

    pub(super) fn no_counter_name(&mut self, span: Span, name: &str) {
        if self.is_first(Said::NoCounterName, name) {
            let text = format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
            );
            self.inform(span, &text);
        }
    }

    pub(super) fn no_counter_type(&mut self, span: Span, kind: &str, name: &str) {
        if self.is_first(Said::NoCounterType, name) {
            let text = format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {kind:?}: {name:?}"
            );
            self.inform(span, &text);
        }
    }

    pub(super) fn forced_monotonic(&mut self, span: Span, name: &str, fixed: Fixed) {
        let text = format!(
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
            of_metric(name)
        );
        self.push(Note { weight: Weight::Info, text, span: Some(span), fixed: Some(fixed) });
    }

    /// Warnings and infos, with their places in the query.
    pub fn texts(&self, query: &str) -> (Vec<String>, Vec<String>) {
        let texts = |weight: Weight| {
            let mut shown: Vec<String> = Vec::new();
            let mut left_out = 0;
            for note in self.all.iter().filter(|note| note.weight == weight) {
                if shown.len() < SHOWN_MAX {
                    shown.push(note.text_in(query));
                } else {
                    left_out += 1;
                }
            }
            if left_out > 0 {
                let kind = if weight == Weight::Warning { "warning" } else { "info" };
                shown.push(format!("{left_out} more {kind} annotations omitted"));
            }
            shown
        };
        (texts(Weight::Warning), texts(Weight::Info))
    }
}

impl Note {
    fn text_in(&self, query: &str) -> String {
        let Some(span) = self.span else { return self.text.clone() };
        let (line, column) = line_and_column(query, span.start);
        let Some(fixed) = self.fixed else { return format!("{} ({line}:{column})", self.text) };
        let time = |ms: i64| {
            DateTime::from_timestamp_millis(ms)
                .map_or_else(|| ms.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        };
        format!(
            "{}, from buckets {} to {}, with a max diff of {:.2}, over {} samples from {} to {} ({line}:{column})",
            self.text,
            short(fixed.lowest),
            short(fixed.highest),
            fixed.largest_step,
            fixed.times,
            time(fixed.first_ms),
            time(fixed.last_ms),
        )
    }
}

/// ` for metric name "x"`, if there is a name.
pub(super) fn of_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {name:?}") }
}
