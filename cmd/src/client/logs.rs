//! `binnacle logs`: a search, its context or its counts, and what comes then.

use std::collections::HashSet;
use std::io::Write;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::entry::{EntryFormat, Printer};
use super::follow::{Tail, place};
use super::pager::Output;
use super::{get, moment, runtime, url_of};

/// Entries of one request.
const PAGE: usize = 5_000;

/// How far from an entry lines of its stream are looked for.
const STREAM_SPAN_NS: i64 = 86_400_000_000_000;

/// Counted by `--stats`.
const COUNTED: [&str; 5] = ["level", "namespace", "service", "pod", "node"];

#[derive(Debug, Clone, Args)]
pub(crate) struct LogsArgs {
    /// A query in Lucene's syntax.
    #[arg(default_value = "", allow_hyphen_values = true)]
    query: String,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    url: String,
    /// From when on: 1h ago, now/d, 2026-11-20, RFC 3339.
    #[arg(long, default_value = "1h")]
    since: String,
    /// Until when.
    #[arg(long, conflicts_with = "follow")]
    until: Option<String>,
    /// At most so many lines, the newest ones.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    limit: u32,
    /// Go on with lines as they come.
    #[arg(short, long)]
    follow: bool,
    /// So many lines before and after each, from the same file.
    #[arg(long, conflicts_with_all = ["follow", "stats"], value_parser = clap::value_parser!(u32).range(0..=1000))]
    context: Option<u32>,
    /// Count what is found by level, namespace and source instead.
    #[arg(long, conflicts_with = "follow")]
    stats: bool,
    /// Print without colours.
    #[arg(long)]
    no_color: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = EntryFormat::Table)]
    output: EntryFormat,
}

impl LogsArgs {
    /// What every request asks for.
    fn params(&self) -> Vec<(&'static str, String)> {
        let mut params = vec![("q", self.query.clone()), ("start", moment(&self.since))];
        params.extend(self.until.as_deref().map(|until| ("end", moment(until))));
        params
    }

    async fn ask(&self, path: &str, params: &[(&str, String)]) -> anyhow::Result<Value> {
        let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (*name, value.as_str())).collect();
        get(url_of(&self.url, path, &params)?).await
    }
}

pub(super) fn run(args: &LogsArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        if args.stats {
            return print_stats(args).await;
        }
        // Connected first, so that no line falls between the search and the tail.
        let tail = if args.follow {
            Some(Tail::open(url_of(&args.url, "/api/logs/tail", &[("q", &args.query)])?).await?)
        } else {
            None
        };
        let entries = newest(args).await?;
        let mut out = if args.follow { Output::plain() } else { Output::paged() };
        let printer = Printer::new(args.output, out.is_terminal, args.no_color);
        let printed = print_all(args, &entries, &mut out, &printer).await;
        let followed = match (printed, tail) {
            (Ok(()), Some(tail)) => {
                out.flush()?;
                let shown: Vec<_> = entries.iter().map(place).collect();
                tail.print(&mut out, &printer, &shown).await
            }
            (printed, _) => printed,
        };
        // A pager is waited for, whatever happened: it owns the terminal.
        let finished = out.finish();
        followed?;
        Ok(finished?)
    })
}

/// The newest entries, oldest of them first.
async fn newest(args: &LogsArgs) -> anyhow::Result<Vec<Value>> {
    let mut entries: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    let limit = args.limit as usize;
    while entries.len() < limit {
        let mut params = args.params();
        params.push(("limit", (limit - entries.len()).min(PAGE).to_string()));
        params.push(("total", "false".to_owned()));
        let is_first = cursor.is_none();
        params.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = args.ask("/api/logs/search", &params).await?;
        if is_first {
            warn(&page);
        }
        if let Value::Array(found) = page["entries"].take() {
            entries.extend(found);
        }
        cursor = page["cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    entries.reverse();
    Ok(entries)
}

/// What the reader should know of an answer.
fn warn(answer: &Value) {
    let warnings = answer["warnings"].as_array().into_iter().flatten();
    for text in warnings.chain([&answer["hint"]]).filter_map(Value::as_str) {
        eprintln!("binnacle: {text}");
    }
}

async fn print_all(
    args: &LogsArgs,
    entries: &[Value],
    out: &mut Output,
    printer: &Printer,
) -> anyhow::Result<()> {
    let Some(lines) = args.context else {
        return entries.iter().try_for_each(|entry| printer.print(out, entry));
    };
    let mut shown = HashSet::new();
    let mut is_first = true;
    for entry in entries {
        let around = around(args, entry, lines).await?;
        let list = |name: &str| around[name].as_array().cloned().unwrap_or_default();
        let before = list("before").into_iter().map(|entry| (entry, "  "));
        let group =
            before.chain([(entry.clone(), "> ")]).chain(list("after").into_iter().map(|entry| (entry, "  ")));
        let fresh: Vec<_> = group.filter(|(entry, _)| shown.insert(format!("{:?}", place(entry)))).collect();
        if !fresh.is_empty()
            && !std::mem::replace(&mut is_first, false)
            && printer.format != EntryFormat::Json
        {
            writeln!(out, "--")?;
        }
        for (entry, mark) in fresh {
            printer.print_marked(out, &entry, mark)?;
        }
    }
    Ok(())
}

/// The lines before and after an entry: of its file, or, if it came by no file, of its stream.
async fn around(args: &LogsArgs, entry: &Value, lines: u32) -> anyhow::Result<Value> {
    let file = entry["file"].as_str().unwrap_or_default();
    if !file.is_empty() {
        let (offset, lines) = (entry["offset"].to_string(), lines.to_string());
        let params =
            [("file", file.to_owned()), ("offset", offset), ("before", lines.clone()), ("after", lines)];
        return args.ask("/api/logs/context", &params).await;
    }
    let labels = entry["stream"].as_object().into_iter().flatten();
    let stream: Vec<String> = labels.map(|(name, value)| format!("{name}:{value}")).collect();
    let at: i64 = entry["time_ns"].as_str().unwrap_or_default().parse().context("an entry without a time")?;
    let id = entry["id"].as_str().context("an entry without an id")?;
    let mut found = json!({});
    for (name, order) in [("before", "newest"), ("after", "oldest")] {
        if lines == 0 {
            continue;
        }
        let params = [
            ("q", stream.join(" ")),
            ("start", at.saturating_sub(STREAM_SPAN_NS).to_string()),
            ("end", at.saturating_add(STREAM_SPAN_NS).to_string()),
            ("order", order.to_owned()),
            ("cursor", id.to_owned()),
            ("limit", lines.to_string()),
            ("total", "false".to_owned()),
        ];
        let mut page = args.ask("/api/logs/search", &params).await?;
        warn(&page);
        let mut entries = page["entries"].as_array_mut().map(std::mem::take).unwrap_or_default();
        if order == "newest" {
            entries.reverse();
        }
        found[name] = entries.into();
    }
    Ok(found)
}

async fn print_stats(args: &LogsArgs) -> anyhow::Result<()> {
    let mut params = args.params();
    params.extend(COUNTED.map(|name| ("field", name.to_owned())));
    let answer = args.ask("/api/logs/facets", &params).await?;
    warn(&answer);
    let mut out = Output::plain();
    if args.output == EntryFormat::Json {
        writeln!(out, "{}", answer["facets"])?;
        return Ok(());
    }
    write!(out, "{}", stats_text(&answer))?;
    Ok(out.flush()?)
}

fn stats_text(answer: &Value) -> String {
    let mut text = String::new();
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    for (at, facet) in answer["facets"].as_array().into_iter().flatten().enumerate() {
        if at == 0 {
            text.push_str(&format!("{:>12} lines\n", count(&facet["total"])));
        }
        let values = facet["values"].as_array().map_or(&[][..], Vec::as_slice);
        if values.is_empty() {
            continue;
        }
        let distinct = count(&facet["distinct"]);
        text.push_str(&format!("\n{} ({distinct} values)\n", facet["field"].as_str().unwrap_or_default()));
        for value in values {
            // Values may hold anything, and a terminal would obey.
            let name = value["value"].as_str().unwrap_or_default();
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            text.push_str(&format!("{:>12} {name}\n", count(&value["count"])));
        }
        if count(&facet["missing"]) > 0 {
            text.push_str(&format!("{:>12} (none)\n", count(&facet["missing"])));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_a_list_for_each_field() {
        let answer = json!({ "facets": [
            { "field": "level", "total": 7, "distinct": 1, "missing": 2, "values": [{ "value": "er\u{1b}ror", "count": 5 }] },
            { "field": "pod", "total": 7, "distinct": 0, "missing": 7, "values": [] },
        ]});
        assert_eq!(
            stats_text(&answer),
            "           7 lines\n\nlevel (1 values)\n           5 error\n           2 (none)\n"
        );
    }
}
