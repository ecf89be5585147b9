//! Prometheus's endpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use binnacle_model::storage::{
    ALL_TIME, Deadline, Holding, LabelSets, Names, Queryable, SeriesExemplars, StorageError,
};
use binnacle_model::{Matcher, TimeRange};
use serde_json::{Map, Value, json};

use super::json::{JSON, TRUNCATED, push_labels, push_text, push_time, push_value, query_response, success};
use super::stats::Stats;
use super::{ApiError, Params, ReadApi, pieces};
use crate::promql::{Engine, Expr, QueryParams, parse, parse_selector, pretty, tree};

/// Points per series of one answer, as in Prometheus.
const MAX_POINTS: u128 = 11_000;

type Api = State<Arc<ReadApi>>;

pub(super) async fn query(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let at = params.time("time")?.unwrap_or_else(|| api.clock.now());
    let text = params.get("query").unwrap_or_default();
    let expr = read_query(&api, text)?;
    api.usage.note(&expr, api.clock.now());
    let limits = limits(&api, &params)?;
    let most = most(&params)?;
    let (metrics, features) = (Arc::clone(&api.metrics), api.features);
    let text = text.to_owned();
    let stats = Stats::asked(&params);
    let work = move |deadline: &Deadline| {
        let engine = Engine::new(&*metrics, limits).with_type_labels(features.type_and_unit);
        let times = stats.start();
        let answer = engine.with_stats(stats.is_asked()).instant(&expr, at, deadline)?;
        Ok(query_response(answer, &text, most, &times, deadline.room().cloned()))
    };
    api.gate.run(params.asked(api.clock.now()), params.duration("timeout")?, work).await
}

pub(super) async fn query_range(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let missing =
        |name: &'static str| move || ApiError::parameter(name, "cannot parse \"\" to a valid timestamp");
    let start = params.time("start")?.ok_or_else(missing("start"))?;
    let end = params.time("end")?.ok_or_else(missing("end"))?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step = params.duration("step")?;
    let step = step.ok_or_else(|| ApiError::parameter("step", "cannot parse \"\" to a valid duration"))?;
    if step < Duration::from_millis(1) {
        let reason = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", reason));
    }
    if (end.0.saturating_sub(start.0)) as u128 / step.as_millis() > MAX_POINTS {
        let reason = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::BadData(reason.to_owned()));
    }
    let text = params.get("query").unwrap_or_default();
    let expr = read_query(&api, text)?;
    let kind = expr.value_type();
    if !matches!(kind, crate::promql::ValueType::Scalar | crate::promql::ValueType::Vector) {
        let reason = format!(
            "invalid expression type {:?} for range query, must be Scalar or instant Vector",
            kind.name()
        );
        return Err(ApiError::parameter("query", reason));
    }
    api.usage.note(&expr, api.clock.now());
    let limits = limits(&api, &params)?;
    let most = most(&params)?;
    let (metrics, features) = (Arc::clone(&api.metrics), api.features);
    let text = text.to_owned();
    let stats = Stats::asked(&params);
    let work = move |deadline: &Deadline| {
        let params = QueryParams { start, end, step };
        let engine = Engine::new(&*metrics, limits).with_type_labels(features.type_and_unit);
        let times = stats.start();
        let answer = engine.with_stats(stats.is_asked()).range(&expr, params, deadline)?;
        Ok(query_response(answer, &text, most, &times, deadline.room().cloned()))
    };
    api.gate.run(params.asked(api.clock.now()), params.duration("timeout")?, work).await
}

/// The query in lines, as `promtool promql format` writes it.
pub(super) async fn format_query(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let expr = read_query(&api, params.get("query").unwrap_or_default())?;
    Ok(success(&Value::String(pretty(&expr))))
}

/// The query as a tree, for editors.
pub(super) async fn parse_query(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let expr = read_query(&api, params.get("query").unwrap_or_default())?;
    Ok(success(&tree(&expr)))
}

/// Reads a query that uses only what is switched on.
fn read_query(api: &ReadApi, text: &str) -> Result<Expr, ApiError> {
    let expr = parse(text).map_err(|error| ApiError::parameter("query", error))?;
    api.features.check(text, &expr).map_err(|error| ApiError::parameter("query", error))?;
    Ok(expr)
}

fn limits(api: &ReadApi, params: &Params) -> Result<crate::promql::Limits, ApiError> {
    let mut limits = api.limits;
    // Zero stands for the usual one.
    if let Some(lookback) = params.duration("lookback_delta")?.filter(|lookback| !lookback.is_zero()) {
        limits.lookback = lookback;
    }
    Ok(limits)
}

/// Exemplars of all series that the query's selectors select.
pub(super) async fn exemplars(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let range = range(&params)?;
    let expr = read_query(&api, params.get("query").unwrap_or_default())?;
    let mut matchers = Vec::new();
    expr.each_selector(&mut |selector| matchers.push(selector.matchers.clone()));
    let metrics = Arc::clone(&api.metrics);
    let work = move |_: &_| Ok(metrics.exemplars(&matchers, range));
    let found = api.gate.run(params.asked(api.clock.now()), None, work).await?;
    limited((found, ()), Vec::new(), &Params::default(), push_exemplars)
}

fn push_exemplars(body: &mut String, (labels, exemplars): &SeriesExemplars) {
    body.push_str("{\"seriesLabels\":");
    push_labels(body, labels);
    body.push_str(",\"exemplars\":[");
    for (at, one) in exemplars.iter().enumerate() {
        body.push_str(if at > 0 { ",{\"labels\":" } else { "{\"labels\":" });
        push_labels(body, &one.labels);
        body.push_str(",\"value\":\"");
        push_value(body, one.value);
        body.push_str("\",\"timestamp\":");
        push_time(body, one.timestamp);
        body.push('}');
    }
    body.push_str("]}");
}

pub(super) fn range(params: &Params) -> Result<TimeRange, ApiError> {
    let start = params.time("start")?.unwrap_or(ALL_TIME.start);
    let end = params.time("end")?.unwrap_or(ALL_TIME.end);
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    Ok(TimeRange { start, end })
}

pub(super) fn selectors(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let parsed = params.all("match[]").map(parse_selector);
    parsed.collect::<Result<_, _>>().map_err(|error| ApiError::parameter("match[]", error))
}

/// As [`selectors`]; one that selects everything if there is none.
pub(super) fn any_selector(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let mut selectors = selectors(params)?;
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    Ok(selectors)
}

/// Label sets that one of the request's selectors selects; all of them without a selector.
async fn selected(api: &Arc<ReadApi>, params: &Params) -> Result<(LabelSets, Holding), ApiError> {
    let range = range(params)?;
    let selectors = any_selector(params)?;
    let metrics = Arc::clone(&api.metrics);
    let work = move |deadline: &Deadline| {
        let mut held = deadline.holding();
        let mut found = LabelSets::default();
        for matchers in &selectors {
            let LabelSets { labels, warnings } = metrics.series(matchers, range, deadline)?;
            held.add(labels.iter().map(|labels| 1 + 2 * labels.len()).sum())?;
            found.labels.extend(labels);
            found.warnings.extend(warnings);
        }
        if selectors.len() > 1 {
            found.labels.sort_unstable();
            found.labels.dedup();
            found.warnings.sort_unstable();
            found.warnings.dedup();
        }
        Ok((found, held))
    };
    api.gate.run(params.asked(api.clock.now()), None, work).await
}

/// Names or values that `find` finds for one of the selectors.
pub(super) fn names_in(
    selectors: &[Vec<Matcher>],
    find: impl Fn(&[Matcher]) -> Result<Names, StorageError>,
) -> Result<Names, ApiError> {
    let mut found = Names::default();
    for matchers in selectors {
        let Names { names, warnings } = find(matchers)?;
        found.names.extend(names);
        found.warnings.extend(warnings);
    }
    found.warnings.sort_unstable();
    found.warnings.dedup();
    Ok(found)
}

/// Names or values that `find` finds for one of the request's selectors.
async fn names(
    api: &Arc<ReadApi>,
    params: &Params,
    find: impl Fn(&dyn Queryable, &[Matcher], TimeRange, &Deadline) -> Result<Names, StorageError>
    + Send
    + 'static,
) -> Result<Names, ApiError> {
    let range = range(params)?;
    let selectors = any_selector(params)?;
    let metrics = Arc::clone(&api.metrics);
    let work =
        move |deadline: &_| names_in(&selectors, |matchers| find(&*metrics, matchers, range, deadline));
    api.gate.run(params.asked(api.clock.now()), None, work).await
}

/// How many series or names may be in the answer; zero stands for any number.
fn most(params: &Params) -> Result<usize, ApiError> {
    Ok(params.count("limit")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX))
}

/// The first so many of the rows, each as `push` writes it, with a warning if there are more.
fn limited<T: Send + 'static>(
    (mut rows, held): (Vec<T>, impl Send + 'static),
    mut warnings: Vec<String>,
    params: &Params,
    push: fn(&mut String, &T),
) -> Result<Response, ApiError> {
    let limit = most(params)?;
    if rows.len() > limit {
        rows.truncate(limit);
        warnings.push(TRUNCATED.to_owned());
    }
    let tail = if warnings.is_empty() {
        "]}".to_owned()
    } else {
        format!("],\"warnings\":{}}}", Value::from(warnings))
    };
    let push = move |body: &mut String, at: usize, row: T| {
        if at > 0 {
            body.push(',');
        }
        push(body, &row);
    };
    let head = "{\"status\":\"success\",\"data\":[".to_owned();
    Ok(pieces::respond(JSON, head, (rows.into_iter(), held), push, tail))
}

fn listed(names: Names, params: &Params) -> Result<Response, ApiError> {
    let Names { names, warnings } = names;
    limited((names.into_iter().collect(), ()), warnings, params, |body, name: &Arc<str>| {
        push_text(body, name);
    })
}

pub(super) async fn labels(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let found = names(&api, &params, |metrics, matchers, range, deadline| {
        metrics.label_names(matchers, range, deadline)
    });
    listed(found.await?, &params)
}

pub(super) async fn label_values(
    State(api): Api,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = unescape_label(&name);
    if name.is_empty() {
        return Err(ApiError::BadData("invalid label name: \"\"".to_owned()));
    }
    let found = names(&api, &params, move |metrics, matchers, range, deadline| {
        metrics.label_values(&name, matchers, range, deadline)
    });
    listed(found.await?, &params)
}

/// UTF-8 names come as `U__` with `_hex_` for each character that is not a letter or digit.
fn unescape_label(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::new();
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let Some(end) = rest.find('_') else { return name.to_owned() };
        let decoded = u32::from_str_radix(&rest[..end], 16).ok().and_then(char::from_u32);
        let Some(c) = decoded else { return name.to_owned() };
        out.push(c);
        rest = &rest[end + 1..];
    }
    out + rest
}

pub(super) async fn series(State(api): Api, params: Params) -> Result<Response, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::BadData("no match[] parameter provided".to_owned()));
    }
    let (found, held) = selected(&api, &params).await?;
    limited((found.labels, held), found.warnings, &params, push_labels)
}

pub(super) async fn metadata(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let (limit, per_metric) = (params.most("limit")?, params.most("limit_per_metric")?);
    let wanted = params.get("metric");
    let mut data = Map::new();
    for (name, descriptions) in api.metrics.metadata() {
        if wanted.is_none_or(|wanted| wanted == name) && data.len() < limit {
            let shown: Vec<Value> = descriptions
                .iter()
                .take(per_metric)
                .map(|one| json!({ "type": one.kind, "help": one.help, "unit": one.unit }))
                .collect();
            data.insert(name, Value::Array(shown));
        }
    }
    Ok(success(&Value::Object(data)))
}

/// Without `features`: Grafana would take their presence for Mimir.
pub(super) async fn buildinfo(State(api): Api) -> Response {
    success(&build(&api))
}

/// The same bare and as text, as Prometheus sends it at `/version`.
pub(super) async fn version(State(api): Api) -> String {
    format!("{}\n", build(&api))
}

fn build(api: &ReadApi) -> Value {
    json!({
        // What Grafana decides by: the release of Prometheus whose API this is.
        "version": "3.5.0",
        "revision": api.version,
        "branch": "binnacle",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    })
}

#[cfg(test)]
mod tests {
    use super::unescape_label;

    #[test]
    fn escaped_label_names_are_read() {
        assert_eq!(unescape_label("job"), "job");
        assert_eq!(unescape_label("U__my_2e_name"), "my.name");
        assert_eq!(unescape_label("U__a__b"), "a_b");
        assert_eq!(unescape_label("U__bad_zz_"), "U__bad_zz_");
    }
}
