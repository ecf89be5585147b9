//! `/federate`: the newest sample of each selected series as a page to be scraped.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use binnacle_model::labels::is_legacy_label_name;
use binnacle_model::sample::is_stale;
use binnacle_model::storage::{Deadline, StorageError};
use binnacle_model::time::millis;
use binnacle_model::{Labels, Sample, TimeRange, Timestamp};

use super::json::format_value;
use super::metrics::selectors;
use super::{ApiError, Params, ReadApi, pieces};

/// Series by name and labels, each with its newest sample.
type Found = BTreeMap<(String, Labels), Sample>;
type Row = ((String, Labels), Sample);

pub(super) async fn federate(
    State(api): State<Arc<ReadApi>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let selectors = selectors(&params)?;
    let now = api.clock.now();
    let range = TimeRange { start: Timestamp(now.0 - millis(api.limits.lookback) + 1), end: now };
    let metrics = Arc::clone(&api.metrics);
    let work = move |deadline: &Deadline| {
        let mut found = Found::new();
        let mut held = deadline.holding();
        for matchers in &selectors {
            for series in metrics.select(matchers, range, deadline)? {
                let series = match series {
                    // The page has no place for warnings.
                    Err(StorageError::Missing(reason)) => {
                        tracing::warn!(%reason, "a federated page is not whole");
                        continue;
                    }
                    series => series?,
                };
                // The text format has no native histograms; Prometheus leaves them out as well.
                let histogram = series.histograms.last().map(|one| one.timestamp);
                let newest = series.samples.last().filter(|sample| {
                    !is_stale(sample.value) && histogram.is_none_or(|at| at < sample.timestamp)
                });
                // The page has no form for a series without a name.
                let is_named = !series.labels.metric_name().is_empty();
                if let (Some(sample), true) = (newest, is_named) {
                    held.add(LINE_SIZE + 2 * series.labels.len())?;
                    found.insert((series.labels.metric_name().to_owned(), series.labels), sample);
                }
            }
        }
        Ok((found, held))
    };
    let (found, held) = api.gate.run(params.asked(api.clock.now()), None, work).await?;
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let utf8 = accept.into_iter().any(|value| value.contains("escaping=allow-utf-8"));
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    // So that the one who scrapes does not take us for the instance.
    let instance = api.external_labels.get("instance").is_none().then_some(("instance", ""));
    let own = api.external_labels.iter().map(|label| (&*label.name, &*label.value));
    let mut external: Vec<(String, String)> =
        own.chain(instance).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    external.sort_unstable();
    let push = lines(external, utf8);
    Ok(pieces::respond(kind, String::new(), (found.into_iter(), held), push, String::new()))
}

/// What a series is without its labels, in samples of 16 bytes.
const LINE_SIZE: usize = 8;

/// Writes one line after the other, and a line before each metric.
fn lines(external: Vec<(String, String)>, utf8: bool) -> impl FnMut(&mut String, usize, Row) {
    let mut before = None;
    move |out, _, ((name, labels), sample)| {
        if before.as_ref() != Some(&name) {
            let _ = writeln!(out, "# TYPE {} untyped", metric(&name, utf8));
            before = Some(name);
        }
        line(out, &labels, &sample, &external, utf8);
    }
}

fn line(out: &mut String, labels: &Labels, sample: &Sample, external: &[(String, String)], utf8: bool) {
    let name = labels.metric_name();
    let is_inside = !is_plain(name) && utf8;
    let mut parts: Vec<String> = if is_inside { vec![metric(name, utf8)] } else { Vec::new() };
    let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
    let own = pairs.filter(|(name, _)| *name != "__name__");
    let external = external.iter().map(|(name, value)| (&**name, &**value));
    let added = external.filter(|(name, _)| labels.get(name).is_none());
    parts.extend(own.chain(added).map(|(name, value)| {
        let name = if is_legacy_label_name(name) {
            name.to_owned()
        } else if utf8 {
            format!("\"{}\"", escape(name))
        } else {
            underscored(name)
        };
        format!("{name}=\"{}\"", escape(value))
    }));
    let head = if is_inside { String::new() } else { metric(name, utf8) };
    let value = format_value(sample.value);
    let _ = writeln!(out, "{head}{{{}}} {value} {}", parts.join(","), sample.timestamp.0);
}

fn is_plain(name: &str) -> bool {
    is_legacy_label_name(&name.replace(':', "_"))
}

fn metric(name: &str, utf8: bool) -> String {
    match (is_plain(name), utf8) {
        (true, _) => name.to_owned(),
        (false, true) => format!("\"{}\"", escape(name)),
        (false, false) => underscored(name),
    }
}

/// A name for those who know only the classic ones.
fn underscored(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(labels: &[(&str, &str)], utf8: bool) -> String {
        let labels = Labels::new(labels.iter().copied()).unwrap();
        let sample = Sample { timestamp: Timestamp(1500), value: 2.0 };
        let mut out = String::new();
        let row = ((labels.metric_name().to_owned(), labels), sample);
        lines(vec![("instance".to_owned(), String::new())], utf8)(&mut out, 0, row);
        out
    }

    #[test]
    fn values_are_escaped_and_the_instance_is_said() {
        let found = shown(&[("__name__", "a:up"), ("path", "C:\\x\n\"y\"")], false);
        let want = "# TYPE a:up untyped\na:up{path=\"C:\\\\x\\n\\\"y\\\"\",instance=\"\"} 2 1500\n";
        assert_eq!(found, want);
        assert!(shown(&[("__name__", "up"), ("instance", "b")], false).contains("up{instance=\"b\"} 2 1500"));
    }

    #[test]
    fn names_beyond_the_classic_ones_need_a_reader_who_knows_them() {
        let labels = [("__name__", "my.metric"), ("a.b", "c"), ("instance", "i")];
        let want = "# TYPE \"my.metric\" untyped\n{\"my.metric\",\"a.b\"=\"c\",instance=\"i\"} 2 1500\n";
        assert_eq!(shown(&labels, true), want);
        let want = "# TYPE my_metric untyped\nmy_metric{a_b=\"c\",instance=\"i\"} 2 1500\n";
        assert_eq!(shown(&labels, false), want);
    }
}
