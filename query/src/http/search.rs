//! `/api/v1/search/{metric_names,label_names,label_values}`: names and values for editors, the best first, as lines of
//! JSON that come as soon as they are known.
//!
//! After Prometheus's search API (`--enable-feature=search-api` there; here it is always on):
//!
//! ```text
//! answer  := batch* trailer
//! batch   := {"results":[{"name":…,"score":…,"type":…,"help":…,"unit":…},…],"warnings":[…]}
//! trailer := {"status":"success","has_more":…}
//! ```
//!
//! There is one batch at least, and the first says the warnings. A value is said as `value` as well as `name`: releases
//! differ in this.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use binnacle_model::labels::METRIC_NAME;
use binnacle_model::storage::{Deadline, Names, StorageError};
use binnacle_model::time::millis;
use binnacle_model::{TimeRange, Timestamp};
use serde_json::{Map, Value, json};

use super::metrics::{any_selector, names_in};
use super::{ApiError, Params, ReadApi, pieces};

type Api = State<Arc<ReadApi>>;

/// Looked back so far, unless the request says from when.
const SPAN: Duration = Duration::from_hours(1);

const LIMIT: usize = 100;
const LIMIT_MAX: usize = 10_000;
const BATCH: usize = 100;

/// Terms of one request; each is compared with every name.
const TERMS_MAX: usize = 32;
const TERM_MAX_BYTES: usize = 1024;

/// Comparisons of a letter with a letter between two looks at the deadline.
const WORK_PER_CHECK: usize = 10_000_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fuzzy {
    Subsequence,
    JaroWinkler,
}

/// What is looked for.
#[derive(Debug)]
struct Terms {
    /// One of them is enough; all names if there is none.
    any: Vec<String>,
    fuzzy: Fuzzy,
    /// What a score must reach that no term's letters stand together for; zero if they must.
    threshold: f64,
    is_case_sensitive: bool,
}

impl Terms {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let is_case_sensitive = flag(params, "case_sensitive", true)?;
        let given = params.all("search[]").chain(params.all("search")).filter(|term| !term.is_empty());
        let terms: Vec<String> =
            given.map(|term| if is_case_sensitive { term.to_owned() } else { term.to_lowercase() }).collect();
        if terms.len() > TERMS_MAX || terms.iter().any(|term| term.len() > TERM_MAX_BYTES) {
            let reason = format!("at most {TERMS_MAX} terms of at most {TERM_MAX_BYTES} bytes each");
            return Err(ApiError::parameter("search[]", reason));
        }
        let fuzzy = match params.get("fuzz_alg") {
            None | Some("" | "subsequence") => Fuzzy::Subsequence,
            Some("jarowinkler") => Fuzzy::JaroWinkler,
            Some(other) => {
                let reason = format!("{other:?} is neither subsequence nor jarowinkler");
                return Err(ApiError::parameter("fuzz_alg", reason));
            }
        };
        let threshold = params.count("fuzz_threshold")?.unwrap_or(0);
        if threshold > 100 {
            return Err(ApiError::parameter("fuzz_threshold", "must be between 0 and 100"));
        }
        Ok(Self { any: terms, fuzzy, threshold: threshold as f64 / 100.0, is_case_sensitive })
    }

    /// How well a name meets the terms, from 0 to 1; `None` if it does not.
    fn score(&self, name: &str) -> Option<f64> {
        if self.any.is_empty() {
            return Some(1.0);
        }
        let lower;
        let name = if self.is_case_sensitive {
            name
        } else {
            lower = name.to_lowercase();
            &lower
        };
        let scores = self.any.iter().filter_map(|term| self.score_of(term, name));
        scores.reduce(f64::max)
    }

    fn score_of(&self, term: &str, name: &str) -> Option<f64> {
        if let Some(at) = name.find(term) {
            // The whole name is best, then its beginning, then any other place; longer names are worse.
            let share = term.len() as f64 / name.len() as f64;
            return Some(if at == 0 { 0.8 + 0.2 * share } else { 0.6 + 0.2 * share });
        }
        if self.threshold == 0.0 {
            return None;
        }
        let score = match self.fuzzy {
            Fuzzy::JaroWinkler => strsim::jaro_winkler(term, name),
            Fuzzy::Subsequence => subsequence(term, name)?,
        };
        (score >= self.threshold).then_some(score)
    }
}

/// How close together the letters of `term` stand in `name`, in their order; `None` if they do not.
fn subsequence(term: &str, name: &str) -> Option<f64> {
    let mut places = name.chars().enumerate();
    let mut first = None;
    let mut last = 0;
    for letter in term.chars() {
        let (at, _) = places.find(|(_, other)| *other == letter)?;
        first.get_or_insert(at);
        last = at;
    }
    let spread = last + 1 - first?;
    Some(term.chars().count() as f64 / spread as f64)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Ascending,
    Descending,
    Score,
}

fn order(params: &Params, terms: &Terms) -> Result<Order, ApiError> {
    let sorts = params.get("sort_by").filter(|by| !by.is_empty());
    let direction = match params.get("sort_dir").filter(|direction| !direction.is_empty()) {
        Some(_) if sorts != Some("alpha") => {
            return Err(ApiError::parameter("sort_dir", "goes with sort_by=alpha"));
        }
        None | Some("asc") => Order::Ascending,
        Some("dsc") => Order::Descending,
        Some(other) => {
            return Err(ApiError::parameter("sort_dir", format!("{other:?} is neither asc nor dsc")));
        }
    };
    match sorts {
        None | Some("alpha") => Ok(direction),
        Some("score") if terms.any.is_empty() => {
            Err(ApiError::parameter("sort_by", "score needs a term: add search[]"))
        }
        Some("score") => Ok(Order::Score),
        Some(other) => Err(ApiError::parameter("sort_by", format!("{other:?} is neither alpha nor score"))),
    }
}

/// A parameter that is true or false.
pub(super) fn flag(params: &Params, name: &'static str, default: bool) -> Result<bool, ApiError> {
    match params.get(name) {
        None | Some("") => Ok(default),
        // As Go's `ParseBool`.
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(ApiError::parameter(name, format!("{other:?} is neither true nor false"))),
    }
}

fn positive(params: &Params, name: &'static str, default: usize) -> Result<usize, ApiError> {
    match params.count(name)?.filter(|count| *count > 0).unwrap_or(default) {
        count if (1..=LIMIT_MAX).contains(&count) => Ok(count),
        _ => Err(ApiError::parameter(name, format!("must be {LIMIT_MAX} at most"))),
    }
}

fn range(params: &Params, now: Timestamp) -> Result<TimeRange, ApiError> {
    let end = params.time("end")?.unwrap_or(now);
    let start = params.time("start")?.unwrap_or(Timestamp(end.0.saturating_sub(millis(SPAN))));
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    Ok(TimeRange { start, end })
}

/// What is searched.
enum Among {
    MetricNames,
    LabelNames,
    ValuesOf(String),
}

pub(super) async fn metric_names(State(api): Api, params: Params) -> Result<Response, ApiError> {
    search(&api, &params, Among::MetricNames).await
}

pub(super) async fn label_names(State(api): Api, params: Params) -> Result<Response, ApiError> {
    search(&api, &params, Among::LabelNames).await
}

pub(super) async fn label_values(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let label = params.get("label").unwrap_or_default().to_owned();
    if label.is_empty() {
        return Err(ApiError::parameter("label", "say whose values to search"));
    }
    search(&api, &params, Among::ValuesOf(label)).await
}

async fn search(api: &Arc<ReadApi>, params: &Params, among: Among) -> Result<Response, ApiError> {
    let now = api.clock.now();
    let terms = Terms::read(params)?;
    let order = order(params, &terms)?;
    let range = range(params, now)?;
    let (limit, batch) = (positive(params, "limit", LIMIT)?, positive(params, "batch_size", BATCH)?);
    let shows_score = flag(params, "include_score", false)?;
    let is_metric = matches!(among, Among::MetricNames);
    let describes = is_metric && flag(params, "include_metadata", false)?;
    let is_value = matches!(among, Among::ValuesOf(_));
    let selectors = any_selector(params)?;
    let metrics = Arc::clone(&api.metrics);
    let work = move |deadline: &Deadline| {
        let found = names_in(&selectors, |matchers| match &among {
            Among::MetricNames => metrics.label_values(METRIC_NAME, matchers, range, deadline),
            Among::LabelNames => metrics.label_names(matchers, range, deadline),
            Among::ValuesOf(label) => metrics.label_values(label, matchers, range, deadline),
        })?;
        let (best, has_more) = best(&found, &terms, order, limit, deadline)?;
        Ok((best, has_more, found.warnings, describes.then(|| metrics.metadata())))
    };
    let (best, has_more, warnings, described) = api.gate.run(params.asked(now), None, work).await?;
    let trailer = json!({ "status": "success", "has_more": has_more });
    let shown: Vec<Value> = best
        .into_iter()
        .map(|(name, score)| {
            let mut one = Map::new();
            one.insert("name".to_owned(), Value::from(&*name));
            if is_value {
                one.insert("value".to_owned(), Value::from(&*name));
            }
            if shows_score {
                one.insert("score".to_owned(), Value::from(score));
            }
            let metadata = described.as_ref().and_then(|all| all.get(&*name)?.first());
            if let Some(metadata) = metadata {
                one.insert("type".to_owned(), Value::from(metadata.kind.as_str()));
                one.insert("help".to_owned(), Value::from(metadata.help.as_str()));
                one.insert("unit".to_owned(), Value::from(metadata.unit.as_str()));
            }
            Value::Object(one)
        })
        .collect();
    let mut batches: Vec<Vec<Value>> = shown.chunks(batch).map(<[Value]>::to_vec).collect();
    if batches.is_empty() {
        batches.push(Vec::new());
    }
    let push = move |out: &mut String, at: usize, batch: Vec<Value>| {
        let mut line = json!({ "results": batch });
        if at == 0 && !warnings.is_empty() {
            line["warnings"] = Value::from(warnings.clone());
        }
        out.push_str(&line.to_string());
        out.push('\n');
    };
    let kind = "application/x-ndjson; charset=utf-8";
    Ok(pieces::respond(kind, String::new(), (batches.into_iter(), ()), push, format!("{trailer}\n")))
}

type Scored = (Arc<str>, f64);

/// The first `limit` names that meet the terms, each with its score, and whether there are more.
fn best(
    found: &Names,
    terms: &Terms,
    order: Order,
    limit: usize,
    deadline: &Deadline,
) -> Result<(Vec<Scored>, bool), ApiError> {
    let mut met = Vec::new();
    let letters: usize = terms.any.iter().map(String::len).sum();
    let mut work = WORK_PER_CHECK;
    for name in &found.names {
        // Of each letter of a name with each of the terms, at the most.
        work += name.len() * letters + 1;
        if work > WORK_PER_CHECK {
            work = 0;
            if deadline.is_over() {
                return Err(StorageError::Deadline.into());
            }
        }
        let Some(score) = terms.score(name) else { continue };
        met.push((Arc::clone(name), score));
        if order == Order::Ascending && met.len() > limit {
            // They come in this order.
            break;
        }
    }
    match order {
        Order::Ascending => {}
        Order::Descending => met.reverse(),
        Order::Score => met.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0))),
    }
    let has_more = met.len() > limit;
    met.truncate(limit);
    Ok((met, has_more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str) -> Result<(Vec<String>, bool), String> {
        let params = Params::from_query(query);
        let names = ["go_goroutines", "http_requests_total", "node_cpu_seconds_total", "Process_CPU", "up"];
        let mut sorted: Vec<Arc<str>> = names.into_iter().map(Arc::from).collect();
        sorted.sort();
        let names = Names { names: sorted.into_iter().collect(), warnings: Vec::new() };
        let said = |error: ApiError| error.to_string();
        let terms = Terms::read(&params).map_err(said)?;
        let order = order(&params, &terms).map_err(said)?;
        let limit = positive(&params, "limit", LIMIT).map_err(said)?;
        let (met, has_more) = best(&names, &terms, order, limit, &Deadline::default()).map_err(said)?;
        Ok((met.into_iter().map(|(name, _)| name.to_string()).collect(), has_more))
    }

    #[test]
    fn the_best_come_first() {
        let names = |query| found(query).unwrap().0;
        assert_eq!(names("search[]=total"), ["http_requests_total", "node_cpu_seconds_total"]);
        assert_eq!(names("search[]=cpu&case_sensitive=false"), ["Process_CPU", "node_cpu_seconds_total"]);
        assert_eq!(names("search[]=cpu"), ["node_cpu_seconds_total"]);
        assert_eq!(names("search[]=up&search[]=go&sort_by=score"), ["up", "go_goroutines"]);
        assert_eq!(names("search[]=htprq"), [] as [&str; 0], "letters stand together unless said otherwise");
        assert_eq!(names("search[]=htprq&fuzz_threshold=30"), ["http_requests_total"]);
        assert_eq!(names("search[]=go_gorutines&fuzz_alg=jarowinkler&fuzz_threshold=90"), ["go_goroutines"]);
        assert_eq!(names("sort_by=alpha&sort_dir=dsc&limit=1"), ["up"]);
        assert_eq!(names("").len(), 5, "without a term, all");
        assert_eq!(found("limit=2").unwrap(), (vec!["Process_CPU".into(), "go_goroutines".into()], true));
        assert!(!found("limit=5").unwrap().1);
    }

    #[test]
    fn bad_parameters_are_named() {
        for query in [
            "fuzz_threshold=101",
            "fuzz_threshold=x",
            "fuzz_alg=levenshtein",
            "limit=10001",
            "sort_by=score",
            "sort_by=size",
            "sort_by=alpha&sort_dir=up",
            "sort_dir=asc",
            "search[]=a&sort_by=score&sort_dir=dsc",
            "case_sensitive=maybe",
        ] {
            let name = query.rsplit('&').next().unwrap().split('=').next().unwrap();
            let error = found(query).unwrap_err();
            assert!(error.contains(name), "{query}: {error}");
        }
        let long = format!("search[]={}", "a".repeat(TERM_MAX_BYTES + 1));
        assert!(found(&long).is_err());
    }
}
