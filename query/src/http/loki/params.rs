//! Parameters as Loki reads them.

use std::time::Duration;

use binnacle_model::log::loki_alias;
use binnacle_model::storage::LogOrder;
use binnacle_model::time::parse_duration;
use binnacle_model::{LogTime, Matcher};

use super::super::{ApiError, Params};
use super::error::LokiError;
use crate::logql::{Query, parse, parse_selector};

/// Points per series of one answer.
const MAX_POINTS: u128 = 11_000;
/// Lines of one answer, where the request does not say, and at most.
const DEFAULT_LINES: usize = 100;
const MAX_LINES: usize = 5_000;
/// Looked back where the request says no start.
pub(super) const QUERY_SINCE: Duration = Duration::from_hours(1);
pub(super) const LABELS_SINCE: Duration = Duration::from_hours(6);

impl Params {
    /// `start` and `end`, or `since` before the end.
    pub(super) fn loki_span(&self, now: LogTime, since: Duration) -> Result<(LogTime, LogTime), LokiError> {
        let end = self.log_time("end")?.unwrap_or(now);
        let since = match self.get("since") {
            Some(text) => parse_duration(text).map_err(|reason| ApiError::parameter("since", reason))?,
            None => since,
        };
        let start = self.log_time("start")?.unwrap_or_else(|| end.minus(since));
        if end < start {
            return Err(LokiError::Bad("end timestamp must not be before or equal to start time".to_owned()));
        }
        Ok((start, end))
    }

    pub(super) fn loki_limit(&self) -> Result<usize, LokiError> {
        let Some(text) = self.get("limit") else { return Ok(DEFAULT_LINES) };
        let limit = text.parse::<i64>();
        let limit = limit
            .map_err(|_| LokiError::Bad(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
        match usize::try_from(limit) {
            Ok(1..=MAX_LINES) => Ok(limit as usize),
            Ok(1..) => Err(LokiError::Bad(format!(
                "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {MAX_LINES})"
            ))),
            _ => Err(LokiError::Bad("limit must be a positive value".to_owned())),
        }
    }

    pub(super) fn loki_order(&self) -> Result<LogOrder, LokiError> {
        match self.get("direction").unwrap_or("backward").to_ascii_lowercase().as_str() {
            "backward" => Ok(LogOrder::NewestFirst),
            "forward" => Ok(LogOrder::OldestFirst),
            other => Err(LokiError::Bad(format!("invalid direction '{other}'"))),
        }
    }

    /// Between steps; where the request does not say, so that there are 250.
    pub(super) fn loki_step(&self, (start, end): (LogTime, LogTime)) -> Result<Duration, LokiError> {
        let span = end.0.abs_diff(start.0);
        let usual = Duration::from_secs((span / 250 / 1_000_000_000).max(1));
        let step = self.duration("step")?.unwrap_or(usual);
        if step < Duration::from_millis(1) {
            let reason =
                "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(LokiError::Bad(reason.to_owned()));
        }
        if u128::from(span) / step.as_nanos() > MAX_POINTS {
            let reason = "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter";
            return Err(LokiError::Bad(reason.to_owned()));
        }
        Ok(step)
    }

    /// The query, which must be there.
    pub(super) fn loki_query(&self) -> Result<Query, LokiError> {
        Ok(parse(self.get("query").unwrap_or_default())?)
    }

    /// The matchers of a selector in `query`, which may be empty or have a pipeline that does not matter here.
    pub(super) fn loki_matchers(&self) -> Result<Vec<Matcher>, LokiError> {
        match self.get("query") {
            None => Ok(Vec::new()),
            Some(text) => matchers_of(text),
        }
    }
}

/// The matchers of a selector, perhaps with a pipeline.
pub(super) fn matchers_of(text: &str) -> Result<Vec<Matcher>, LokiError> {
    if let Ok(matchers) = parse_selector(text) {
        return Ok(matchers);
    }
    match parse(text)? {
        Query::Logs(logs) => Ok(logs.matchers),
        Query::Metric(_) => Err(LokiError::Bad("only label matchers are supported".to_owned())),
    }
}

/// The matchers in the store's names, without those of levels: a stream may have lines of any.
pub(super) fn of_streams(matchers: &[Matcher]) -> Vec<Matcher> {
    let named = matchers.iter().filter_map(|matcher| {
        let name = loki_alias(&matcher.name);
        // What compiled once compiles again.
        (name != "level").then(|| Matcher::new(name, matcher.op, &matcher.value).ok()).flatten()
    });
    named.collect()
}
