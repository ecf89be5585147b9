//! `binnacle delete logs`: has a server delete what a query finds, and shows how far it is.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::{ask, get, moment, runtime, url_of};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteLogsArgs {
    /// A query in Lucene's syntax; * is everything.
    #[arg(allow_hyphen_values = true)]
    query: String,
    /// The server, which was started with --enable-admin-api.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    url: String,
    /// From when on: 1h ago, now/d, 2026-11-20, RFC 3339.
    #[arg(long)]
    since: String,
    /// Until when. Default: now.
    #[arg(long)]
    until: Option<String>,
    /// Does not wait for the end.
    #[arg(long)]
    no_wait: bool,
}

pub(super) fn run(args: &DeleteLogsArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let (start, end) = (moment(&args.since), args.until.as_deref().map(moment));
        let mut params = vec![("query", args.query.as_str()), ("start", &start)];
        params.extend(end.as_deref().map(|end| ("end", end)));
        let begun = ask(Method::POST, url_of(&args.url, "/api/logs/delete", &params)?).await?;
        let id = begun["id"].as_u64().unwrap_or_default();
        eprintln!("binnacle: deletion {id} goes on if this ends; DELETE /api/logs/delete/{id} stops it");
        if args.no_wait {
            return Ok(());
        }
        let mut last = String::new();
        loop {
            let all = get(url_of(&args.url, "/api/logs/delete", &[])?).await?;
            let mut own = all["deletions"].as_array().into_iter().flatten();
            let Some(one) = own.find(|one| one["id"] == id) else { bail!("the server forgot deletion {id}") };
            let shown = progress(one);
            if shown != last {
                eprintln!("binnacle: {shown}");
                last = shown;
            }
            match one["state"].as_str() {
                Some("running") => tokio::time::sleep(LOOK_EVERY).await,
                Some("done") => return Ok(()),
                _ => bail!("it was not finished"),
            }
        }
    })
}

fn progress(one: &Value) -> String {
    let trouble = one["trouble"].as_str().map_or_else(String::new, |trouble| format!("; {trouble}"));
    let state = one["state"].as_str().unwrap_or_default();
    format!(
        "{state}: {} of {} pages, {} lines gone{trouble}",
        one["pages_done"], one["pages"], one["removed"]
    )
}
