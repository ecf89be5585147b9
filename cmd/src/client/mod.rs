//! The client: `binnacle query`, `binnacle logs`, `binnacle export`, `binnacle delete`.

mod delete;
mod entry;
mod export;
mod follow;
mod logs;
mod pager;
mod parquet;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

pub(crate) use delete::DeleteLogsArgs;
pub(crate) use export::ExportLogsArgs;
pub(crate) use logs::LogsArgs;

use crate::{OutputFormat, QueryArgs};

/// A line or an event, which the server bounds; this bounds a server gone mad.
const LINE_MAX_BYTES: usize = 64 * 1024 * 1024;

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")
}

fn url_of(base: &str, path: &str, params: &[(&str, &str)]) -> anyhow::Result<reqwest::Url> {
    let base = reqwest::Url::parse(base).with_context(|| format!("--url {base:?}"))?;
    let mut url = base.join(path)?;
    url.query_pairs_mut().extend_pairs(params);
    Ok(url)
}

async fn get(url: reqwest::Url) -> anyhow::Result<Value> {
    ask(reqwest::Method::GET, url).await
}

async fn ask(method: reqwest::Method, url: reqwest::Url) -> anyhow::Result<Value> {
    let client = binnacle_collector::http_client(Duration::from_secs(130))?;
    let response = client.request(method, url.clone()).send().await;
    let response =
        response.with_context(|| format!("no answer from {}", url.origin().ascii_serialization()))?;
    let status = response.status();
    let body: Value = response.json().await.with_context(|| format!("server answered {status}"))?;
    if !status.is_success() {
        bail!("{}", body["error"].as_str().unwrap_or("server answered an error"));
    }
    Ok(body["data"].clone())
}

/// A client for answers without an end, so that only the connecting is bounded.
fn endless_client() -> anyhow::Result<reqwest::Client> {
    let builder = || reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy();
    // A machine without certificates can still speak without TLS.
    Ok(builder().build().or_else(|_| builder().tls_certs_only([]).build())?)
}

/// The answer to a long request, once it is one.
async fn open(url: reqwest::Url, last_event: Option<&str>) -> anyhow::Result<reqwest::Response> {
    let mut request = endless_client()?.get(url);
    if let Some(id) = last_event {
        request = request.header("last-event-id", id);
    }
    let response = request.send().await.context("no answer from the server")?;
    let status = response.status();
    if !status.is_success() {
        let body = response.text().await.unwrap_or_default();
        let error = serde_json::from_str::<Value>(&body)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned));
        bail!("server answered {status}: {}", error.unwrap_or(body));
    }
    Ok(response)
}

/// A moment as the server takes it: `1h` is an hour ago, all else is what it is.
fn moment(text: &str) -> String {
    match binnacle_model::time::parse_duration(text) {
        Ok(_) if text != "0" => format!("now-{text}"),
        _ => text.to_owned(),
    }
}

pub(crate) fn logs(args: &LogsArgs) -> anyhow::Result<()> {
    quiet_on_closed_pipe(logs::run(args))
}

pub(crate) fn export_logs(args: &ExportLogsArgs) -> anyhow::Result<()> {
    quiet_on_closed_pipe(export::run(args))
}

pub(crate) fn delete_logs(args: &DeleteLogsArgs) -> anyhow::Result<()> {
    delete::run(args)
}

pub(crate) fn query(args: &QueryArgs) -> anyhow::Result<()> {
    quiet_on_closed_pipe(print_query(args))
}

fn print_query(args: &QueryArgs) -> anyhow::Result<()> {
    let mut params = vec![("query", args.query.as_str())];
    params.extend(args.time.as_deref().map(|time| ("time", time)));
    let url = url_of(&args.url, "/api/v1/query", &params)?;
    let data = runtime()?.block_on(get(url))?;
    let mut out = std::io::stdout().lock();
    match args.output {
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&data)?)?,
        OutputFormat::Table | OutputFormat::Raw => print_result(&mut out, &data, args.output)?,
    }
    Ok(())
}

fn print_result(out: &mut impl Write, data: &Value, format: OutputFormat) -> anyhow::Result<()> {
    let result = &data["result"];
    if data["resultType"] == "scalar" || data["resultType"] == "string" {
        writeln!(out, "{}", result[1].as_str().unwrap_or_default())?;
        return Ok(());
    }
    for series in result.as_array().into_iter().flatten() {
        let single = series.get("value").cloned();
        let samples = single.map(|one| vec![one]).or_else(|| series["values"].as_array().cloned());
        for sample in samples.unwrap_or_default() {
            let value = sample[1].as_str().unwrap_or_default();
            match format {
                OutputFormat::Raw => writeln!(out, "{value}")?,
                _ => writeln!(out, "{} => {value} @[{}]", metric_text(&series["metric"]), sample[0])?,
            }
        }
    }
    Ok(())
}

fn metric_text(metric: &Value) -> String {
    let Some(labels) = metric.as_object() else { return "{}".to_owned() };
    let name = labels.get("__name__").and_then(Value::as_str).unwrap_or_default();
    let pairs: Vec<String> = labels
        .iter()
        .filter(|(label, _)| *label != "__name__")
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    format!("{name}{{{}}}", pairs.join(", "))
}

/// `binnacle logs | head` ends when head has enough; that is no failure.
fn quiet_on_closed_pipe(done: anyhow::Result<()>) -> anyhow::Result<()> {
    let is_closed = |error: &anyhow::Error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    done.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) })
}
