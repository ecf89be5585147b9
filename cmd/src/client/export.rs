//! `binnacle export logs`: all that is found, in a file that is whole or not there.
//!
//! ```text
//! FILE.partial ─(the server said how many, and all are there)─► FILE
//!      └ what was cut off goes on behind its last line, by the id in that line
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use serde_json::Value;

use super::parquet::ParquetFile;
use super::{LINE_MAX_BYTES, moment, open, runtime, url_of};

/// After a broken connection.
const TRIES: usize = 5;

/// The last line of NDJSON begins so; no entry does.
const TRAILER: &[u8] = b"{\"trailer\":";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
    Text,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExportLogsArgs {
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
    #[arg(long)]
    until: Option<String>,
    /// How lines are written.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// The file, which must not be there yet. Default: standard output. If FILE.partial is there, what is in it is kept and
    /// the export goes on behind it; text has no place for where that is, and begins anew.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A Parquet file, which must not be there yet. It is there once all is in it; half an export leaves none.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "format"])]
    parquet: Option<PathBuf>,
}

impl ExportLogsArgs {
    fn address(&self, cursor: Option<&str>) -> anyhow::Result<reqwest::Url> {
        let format = match self.format {
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Text => "text",
        };
        let (start, end) = (moment(&self.since), self.until.as_deref().map(moment));
        let mut params = vec![("q", self.query.as_str()), ("start", &start), ("format", format)];
        params.extend(end.as_deref().map(|end| ("end", end)));
        params.extend(cursor.map(|cursor| ("cursor", cursor)));
        url_of(&self.url, "/api/logs/export", &params)
    }
}

pub(super) fn run(args: &ExportLogsArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        if let Some(file) = &args.parquet {
            return into_parquet(args, file).await;
        }
        match &args.output {
            None => {
                let mut out = BufWriter::new(io::stdout().lock());
                let trailer = copy(args, None, &mut out).await?;
                out.flush()?;
                tell(trailer.as_ref());
                Ok(())
            }
            Some(file) => into_file(args, file).await,
        }
    })
}

/// Says on standard error how much it was.
fn tell(trailer: Option<&Value>) {
    let Some(trailer) = trailer else { return };
    for warning in trailer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("binnacle: {warning}");
    }
    eprintln!("binnacle: {} lines", trailer["count"]);
}

async fn into_file(args: &ExportLogsArgs, file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        bail!("{} is there already; remove it or choose another --output", file.display());
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let at = || format!("cannot write {}", partial.display());
    let mut tries = 0;
    let trailer = loop {
        let (mut out, cursor) = reopen(&partial, args.format).with_context(at)?;
        if let Some(cursor) = &cursor {
            eprintln!("binnacle: going on behind {cursor}");
        }
        match copy(args, cursor.as_deref(), &mut out).await {
            Ok(trailer) => {
                out.flush().with_context(at)?;
                out.get_ref().sync_all().with_context(at)?;
                break trailer;
            }
            Err(error) => {
                out.flush().with_context(at)?;
                tries += 1;
                let is_hopeless = args.format == Format::Text || error.downcast_ref::<io::Error>().is_some();
                if tries > TRIES || is_hopeless {
                    return Err(error.context(format!("what came so far is in {}", partial.display())));
                }
                eprintln!("binnacle: {error:#}; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    fs::rename(&partial, file).with_context(|| format!("cannot write {}", file.display()))?;
    tell(trailer.as_ref());
    Ok(())
}

/// A partial answer is an error, even if the server has no more: there is no place to say so in a file of columns.
async fn into_parquet(args: &ExportLogsArgs, file: &Path) -> anyhow::Result<()> {
    let mut out = ParquetFile::create(file)?;
    let mut cursor: Option<String> = None;
    let mut tries = 0;
    loop {
        let (before, from) = (out.count(), cursor.clone());
        // What the file does not take is not the server's fault, and will not be taken the next time.
        let mut is_refused = false;
        let mut keep = |line: &[u8]| {
            cursor = Some(out.take(line).inspect_err(|_| is_refused = true)?);
            Ok(())
        };
        match each_line(args, from.as_deref(), &mut keep).await {
            Ok(trailer) => {
                let warnings = trailer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
                if let Some(warning) = warnings.clone().next() {
                    bail!("the server could not read all: {warning}; --format ndjson keeps what there is");
                }
                if trailer["count"] != out.count() - before {
                    bail!("the server counts {} lines, and {} came", trailer["count"], out.count() - before);
                }
                break;
            }
            Err(error) => {
                tries += 1;
                if tries > TRIES || is_refused {
                    return Err(error);
                }
                eprintln!("binnacle: {error:#}; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    let count = out.count();
    out.finish()?;
    eprintln!("binnacle: {count} lines");
    Ok(())
}

/// The file, cut behind its last whole line, and the id in that line.
fn reopen(path: &Path, format: Format) -> io::Result<(BufWriter<File>, Option<String>)> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let (end, cursor) = match format {
        Format::Ndjson => last_line(BufReader::new(&file), is_line, id_of_json)?,
        Format::Csv => last_line(BufReader::new(&file), is_row, id_of_row)?,
        Format::Text => (0, None),
    };
    // A head without a row begins anew, with its head.
    let end = if cursor.is_some() { end } else { 0 };
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok((BufWriter::new(file), cursor))
}

/// Where the last whole line with an id ends. A line goes on over line ends that are no end of it.
fn last_line(
    mut from: impl BufRead,
    is_whole: fn(&[u8]) -> bool,
    id: fn(&[u8]) -> Option<String>,
) -> io::Result<(u64, Option<String>)> {
    let (mut at, mut end, mut found) = (0, 0, None);
    let mut line = Vec::new();
    loop {
        let read = from.read_until(b'\n', &mut line)?;
        if read == 0 || line.len() > LINE_MAX_BYTES {
            return Ok((end, found));
        }
        at += read as u64;
        if line.ends_with(b"\n") && is_whole(&line) {
            if let Some(id) = id(&line) {
                (end, found) = (at, Some(id));
            }
            line.clear();
        }
    }
}

fn is_line(_: &[u8]) -> bool {
    true
}

/// A row has an even number of quotes.
fn is_row(line: &[u8]) -> bool {
    line.split(|byte| *byte == b'"').count() % 2 == 1
}

fn id_of_json(line: &[u8]) -> Option<String> {
    let entry: Value = serde_json::from_slice(line).ok()?;
    entry["id"].as_str().map(str::to_owned)
}

/// The last cell, if it is an id: three numbers with dots between.
fn id_of_row(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let (_, id) = text.rsplit_once(',')?;
    let is_id =
        id.split('.').count() == 3 && id.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '.' | '-'));
    is_id.then(|| id.to_owned())
}

/// Writes what the server sends. The trailer of NDJSON is not written but answered.
async fn copy(
    args: &ExportLogsArgs,
    cursor: Option<&str>,
    out: &mut impl Write,
) -> anyhow::Result<Option<Value>> {
    if args.format == Format::Ndjson {
        let trailer = each_line(args, cursor, &mut |line| Ok(out.write_all(line)?)).await?;
        return Ok(Some(trailer));
    }
    let mut chunks = open(args.address(cursor)?, None).await?.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        out.write_all(&chunk.context("the server closed the connection")?)?;
    }
    Ok(None)
}

/// Hands over each line of NDJSON, and answers the trailer, without which there is no end.
async fn each_line(
    args: &ExportLogsArgs,
    cursor: Option<&str>,
    keep: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Value> {
    let mut chunks = open(args.address(cursor)?, None).await?.bytes_stream();
    let mut lines = Lines::default();
    while let Some(chunk) = chunks.next().await {
        lines.take(&chunk.context("the server closed the connection")?, keep)?;
    }
    let Some(trailer) = lines.trailer else { bail!("the server closed the connection before the end") };
    if trailer["status"] != "success" {
        bail!("{}", trailer["error"].as_str().unwrap_or("the server ended the export"));
    }
    Ok(trailer)
}

/// Parts whole lines from the trailer.
#[derive(Default)]
struct Lines {
    /// The beginning of a line.
    open: Vec<u8>,
    trailer: Option<Value>,
}

impl Lines {
    fn take(
        &mut self,
        chunk: &[u8],
        keep: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.open.extend_from_slice(piece);
            if self.open.len() > LINE_MAX_BYTES {
                bail!("the server sent a line without an end");
            }
            if !piece.ends_with(b"\n") {
                continue;
            }
            if self.open.starts_with(TRAILER) {
                let mut line: Value =
                    serde_json::from_slice(&self.open).context("the trailer cannot be read")?;
                self.trailer = Some(line["trailer"].take());
            } else {
                keep(&self.open)?;
            }
            self.open.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_is_no_line() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let text = b"{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"trailer\":{\"status\":\"success\",\"count\":2}}\n";
        for chunk in text.chunks(7) {
            lines.take(chunk, &mut |line| Ok(out.write_all(line)?)).unwrap();
        }
        assert_eq!(out, b"{\"id\":\"1\"}\n{\"id\":\"2\"}\n");
        assert_eq!(lines.trailer.unwrap()["count"], 2);
    }

    #[test]
    fn what_was_cut_off_goes_on_behind_its_last_line() {
        let check = |format, text: &str, kept: &str, cursor: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("logs.partial");
            fs::write(&path, text).unwrap();
            let (mut out, found) = reopen(&path, format).unwrap();
            out.write_all(b"new").unwrap();
            out.flush().unwrap();
            assert_eq!(found.as_deref(), cursor, "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}new"), "{text}");
        };
        check(Format::Ndjson, "", "", None);
        check(Format::Ndjson, "{\"id\":\"1.a.2\"}\n{\"id\":\"1", "{\"id\":\"1.a.2\"}\n", Some("1.a.2"));
        check(Format::Ndjson, "{\"id\":\"1", "", None);
        check(Format::Csv, "time,id\r\n", "", None);
        let rows = "time,message,id\r\nt,\"two\nlines, \"\"x\"\"\",1.a.2\r\n";
        check(Format::Csv, &format!("{rows}t,\"cut\noff,1.b.3\r\n"), rows, Some("1.a.2"));
        check(Format::Text, "a line\n", "", None);
    }
}
