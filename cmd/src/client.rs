//! The client: `binnacle query` and `binnacle logs`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use serde_json::Value;

use crate::{LogsArgs, OutputFormat, QueryArgs};

/// An event of live tail is one line, which the server bounds; this bounds a server gone mad.
const EVENT_MAX_BYTES: usize = 64 * 1024 * 1024;

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
    let client = binnacle_collector::http_client(Duration::from_secs(130))?;
    let response = client.get(url.clone()).send().await;
    let response =
        response.with_context(|| format!("no answer from {}", url.origin().ascii_serialization()))?;
    let status = response.status();
    let body: Value = response.json().await.with_context(|| format!("server answered {status}"))?;
    if !status.is_success() {
        bail!("{}", body["error"].as_str().unwrap_or("server answered an error"));
    }
    Ok(body["data"].clone())
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

pub(crate) fn logs(args: &LogsArgs) -> anyhow::Result<()> {
    quiet_on_closed_pipe(print_logs(args))
}

/// `binnacle logs | head` ends when head has enough; that is no failure.
fn quiet_on_closed_pipe(done: anyhow::Result<()>) -> anyhow::Result<()> {
    let is_closed = |error: &anyhow::Error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    done.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) })
}

fn print_logs(args: &LogsArgs) -> anyhow::Result<()> {
    let printer = Printer::new(args.output);
    runtime()?.block_on(async {
        let limit = args.limit.to_string();
        let start = format!("now-{}", args.since);
        // Connected first, so that no line falls between the search and the tail.
        let tail = if args.follow { Some(open_tail(args).await?) } else { None };
        let mut newest = Vec::new();
        if args.limit > 0 {
            let params = [("q", args.query.as_str()), ("start", &start), ("limit", &limit)];
            let data = get(url_of(&args.url, "/api/logs/search", &params)?).await?;
            if let Some(hint) = data["hint"].as_str() {
                eprintln!("binnacle: {hint}");
            }
            for entry in data["entries"].as_array().into_iter().flatten().rev() {
                printer.print(entry)?;
                newest.push(place(entry));
            }
        }
        match tail {
            Some(tail) => follow(tail, &printer, &newest).await,
            None => Ok(()),
        }
    })
}

/// What tells an entry from every other.
fn place(entry: &Value) -> (Value, Value, Value) {
    (entry["file"].clone(), entry["offset"].clone(), entry["received_ns"].clone())
}

async fn open_tail(args: &LogsArgs) -> anyhow::Result<reqwest::Response> {
    let url = url_of(&args.url, "/api/logs/tail", &[("q", &args.query)])?;
    // A tail has no end, so that only the connecting is bounded.
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy();
    let client = client.build().or_else(|_| {
        reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .tls_certs_only([])
            .build()
    })?;
    let response = client.get(url).send().await.context("no answer from the server")?;
    if !response.status().is_success() {
        bail!("server answered {}: {}", response.status(), response.text().await.unwrap_or_default());
    }
    Ok(response)
}

async fn follow(
    tail: reqwest::Response,
    printer: &Printer,
    shown: &[(Value, Value, Value)],
) -> anyhow::Result<()> {
    let mut chunks = tail.bytes_stream();
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(chunk) = chunks.next().await {
        buffer.extend_from_slice(&chunk.context("the server closed the connection")?);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            show_event(&String::from_utf8_lossy(&event), printer, shown)?;
        }
        if buffer.len() > EVENT_MAX_BYTES {
            bail!("the server sent an event without an end");
        }
    }
    bail!("the server closed the connection")
}

fn show_event(event: &str, printer: &Printer, shown: &[(Value, Value, Value)]) -> anyhow::Result<()> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let data = field("data:").unwrap_or_default();
    match field("event:") {
        Some("entry") => {
            let entry: Value = serde_json::from_str(data).context("an event cannot be read")?;
            if !shown.contains(&place(&entry)) {
                printer.print(&entry)?;
            }
        }
        Some("dropped") => eprintln!("binnacle: {data} lines were left out, the reader is too slow"),
        _ => {}
    }
    Ok(())
}

struct Printer {
    format: OutputFormat,
    colour: bool,
}

impl Printer {
    fn new(format: OutputFormat) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { format, colour }
    }

    fn print(&self, entry: &Value) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let message = entry["message"].as_str().unwrap_or_default();
        match self.format {
            OutputFormat::Json => writeln!(out, "{entry}")?,
            OutputFormat::Raw => writeln!(out, "{}", Self::shown(message))?,
            OutputFormat::Table => {
                let time = entry["time"].as_str().unwrap_or_default();
                let time = time.get(..23).unwrap_or(time);
                let level = entry["level"].as_str().unwrap_or_default();
                let stream = &entry["stream"];
                let source = stream["pod"].as_str().or_else(|| stream["service"].as_str()).unwrap_or("-");
                let (on, off) = if self.colour { (colour_of(level), "\x1b[0m") } else { ("", "") };
                writeln!(out, "{time} {on}{level:<5}{off} {source}: {}", Self::shown(message))?;
            }
        }
        Ok(out.flush()?)
    }

    /// On a terminal, without what could move its cursor or change its title.
    fn shown(message: &str) -> String {
        if !std::io::stdout().is_terminal() {
            return message.to_owned();
        }
        message.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
    }
}

fn colour_of(level: &str) -> &'static str {
    match level {
        "fatal" | "error" => "\x1b[31m",
        "warn" => "\x1b[33m",
        "info" => "\x1b[32m",
        _ => "\x1b[2m",
    }
}
