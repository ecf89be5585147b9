//! `binnacle export logs --parquet FILE`: all that is found, as columns that DuckDB, Spark, pandas and the like read.
//!
//! ```text
//! lines of NDJSON ─► columns of a row group ─(so many bytes)─► FILE.partial ─(all are there)─► FILE
//! ```
//!
//! A row group is all that is in memory. The file's directory comes last, so that half a file is none: what was cut off
//! goes on behind its last line within one run, and what does not come to its end leaves nothing.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value};

/// What a row group may hold, in bytes as they are in memory: a reader wants it large, and both need it whole.
const GROUP_MAX_BYTES: usize = 32 * 1024 * 1024;

/// What a value takes beside its bytes.
const VALUE_BYTES: usize = 40;

/// Of the stream, each a column of its own beside the map of all labels.
const LABELS: [&str; 7] = ["namespace", "pod", "container", "node", "app", "service", "iostream"];

/// Columns of attributes, each under the first of its names that is there.
const IDS: [(&str, [&str; 2]); 2] =
    [("trace_id", ["trace_id", "trace.id"]), ("span_id", ["span_id", "span.id"])];

/// `message_bytes` is there where the message is no UTF-8, of which `message` is a likeness.
fn schema() -> String {
    let texts = ["level"].into_iter().chain(LABELS).chain(IDS.map(|(name, _)| name));
    let texts: Vec<String> = texts.map(|name| format!("optional binary {name} (STRING);")).collect();
    let map = |name: &str| {
        format!(
            "required group {name} (MAP) {{ repeated group key_value {{
               required binary key (STRING); required binary value (STRING); }} }}\n"
        )
    };
    format!(
        "message log {{
           required int64 time (TIMESTAMP(NANOS,true));
           required int64 received (TIMESTAMP(NANOS,true));
           required binary message (STRING);
           optional binary message_bytes;
           {} {} {} }}",
        texts.join("\n"),
        map("labels"),
        map("attributes")
    )
}

/// Values of a column, some of which may be absent.
#[derive(Default)]
struct Texts {
    values: Vec<ByteArray>,
    /// Of each row, whether it has one.
    levels: Vec<i16>,
}

impl Texts {
    /// Answers what it takes.
    fn push(&mut self, value: Option<Vec<u8>>) -> usize {
        self.levels.push(i16::from(value.is_some()));
        let bytes = value.as_ref().map_or(0, |value| value.len() + VALUE_BYTES);
        self.values.extend(value.map(ByteArray::from));
        bytes
    }
}

/// Pairs of a column that is a map.
#[derive(Default)]
struct Pairs {
    keys: Vec<ByteArray>,
    values: Vec<ByteArray>,
    /// One for a pair, zero for a row without one.
    levels: Vec<i16>,
    /// Zero for the first of a row.
    repeats: Vec<i16>,
}

impl Pairs {
    fn push(&mut self, pairs: &Map<String, Value>) -> usize {
        let mut bytes = 0;
        if pairs.is_empty() {
            self.levels.push(0);
            self.repeats.push(0);
        }
        for (at, (name, value)) in pairs.iter().enumerate() {
            let (name, value) = (name.clone().into_bytes(), text_of(value));
            bytes += name.len() + value.len() + 2 * VALUE_BYTES;
            self.keys.push(name.into());
            self.values.push(value.into());
            self.levels.push(1);
            self.repeats.push(i16::from(at > 0));
        }
        bytes
    }
}

/// As text, a number as JSON has it.
fn text_of(value: &Value) -> Vec<u8> {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes()
}

/// Rows that are not in the file yet.
#[derive(Default)]
struct Rows {
    times: Vec<i64>,
    received: Vec<i64>,
    messages: Vec<ByteArray>,
    message_bytes: Texts,
    /// The level, [`LABELS`], [`IDS`].
    texts: [Texts; 1 + LABELS.len() + IDS.len()],
    labels: Pairs,
    attributes: Pairs,
    bytes: usize,
}

impl Rows {
    fn push(&mut self, entry: &Value) -> anyhow::Result<()> {
        let number = |name: &str| {
            let number = entry[name].as_str().and_then(|text| text.parse::<i64>().ok());
            number.with_context(|| format!("the server sent an entry without {name}"))
        };
        let (time, received) = (number("time_ns")?, number("received_ns")?);
        let message = entry["message"].as_str().context("the server sent an entry without a message")?;
        let empty = Map::new();
        let map = |name: &str| entry[name].as_object().unwrap_or(&empty);
        let (labels, attributes) = (map("stream"), map("fields"));
        let bytes = entry["message_hex"].as_str().map(of_hex).transpose()?;
        self.times.push(time);
        self.received.push(received);
        self.bytes += 16 + VALUE_BYTES + message.len();
        self.messages.push(message.as_bytes().to_vec().into());
        self.bytes += self.message_bytes.push(bytes);
        let level =
            entry["level"].as_str().filter(|level| !level.is_empty()).map(|level| level.as_bytes().to_vec());
        let of_labels = LABELS.iter().map(|name| labels.get(*name).map(text_of));
        let of_ids =
            IDS.iter().map(|(_, names)| names.iter().find_map(|name| attributes.get(*name)).map(text_of));
        for (column, value) in self.texts.iter_mut().zip([level].into_iter().chain(of_labels).chain(of_ids)) {
            self.bytes += column.push(value);
        }
        self.bytes += self.labels.push(labels) + self.attributes.push(attributes);
        Ok(())
    }

    /// Writes all as one row group; columns come in the order of the schema.
    fn write(&self, mut group: SerializedRowGroupWriter<'_, BufWriter<File>>) -> parquet::errors::Result<()> {
        for times in [&self.times, &self.received] {
            if let Some(mut column) = group.next_column()? {
                column.typed::<Int64Type>().write_batch(times, None, None)?;
                column.close()?;
            }
        }
        texts(&mut group, &self.messages, None, None)?;
        for column in [&self.message_bytes].into_iter().chain(&self.texts) {
            texts(&mut group, &column.values, Some(&column.levels), None)?;
        }
        for map in [&self.labels, &self.attributes] {
            texts(&mut group, &map.keys, Some(&map.levels), Some(&map.repeats))?;
            texts(&mut group, &map.values, Some(&map.levels), Some(&map.repeats))?;
        }
        group.close()?;
        Ok(())
    }
}

/// Writes the next column.
fn texts(
    group: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    values: &[ByteArray],
    levels: Option<&[i16]>,
    repeats: Option<&[i16]>,
) -> parquet::errors::Result<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<ByteArrayType>().write_batch(values, levels, repeats)?;
        column.close()?;
    }
    Ok(())
}

fn of_hex(hex: &str) -> anyhow::Result<Vec<u8>> {
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes = hex.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>();
    bytes.context("the server sent bytes of a message that are no hexadecimal digits")
}

/// A file in the making. Removed if it does not come to its end.
pub(super) struct ParquetFile {
    file: PathBuf,
    partial: PathBuf,
    writer: Option<SerializedFileWriter<BufWriter<File>>>,
    rows: Rows,
    count: u64,
    group_max_bytes: usize,
}

impl ParquetFile {
    /// Begins a file that must not be there yet.
    pub(super) fn create(file: &Path) -> anyhow::Result<Self> {
        if file == Path::new("-") {
            bail!(
                "--parquet writes no standard output: a reader begins at the end of the file; name one, or use --format ndjson"
            );
        }
        if file.exists() {
            bail!("{} is there already; remove it or choose another --parquet", file.display());
        }
        let mut name = file.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let at = || format!("cannot write {}", partial.display());
        let out = BufWriter::new(File::create(&partial).with_context(at)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("binnacle ", env!("CARGO_PKG_VERSION")).to_owned())
            // No two of them are the same, as a rule.
            .set_column_dictionary_enabled(ColumnPath::from("message"), false)
            .build();
        let schema = parse_message_type(&schema()).context("our schema is none of Parquet's")?;
        let writer =
            SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).with_context(at)?;
        let (file, rows) = (file.to_owned(), Rows::default());
        Ok(Self { file, partial, writer: Some(writer), rows, count: 0, group_max_bytes: GROUP_MAX_BYTES })
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes a line of NDJSON; answers its entry's id, behind which an export goes on.
    pub(super) fn take(&mut self, line: &[u8]) -> anyhow::Result<String> {
        let entry: Value = serde_json::from_slice(line).context("the server sent a line that is no JSON")?;
        let id = entry["id"].as_str().context("the server sent an entry without an id")?.to_owned();
        self.rows.push(&entry)?;
        self.count += 1;
        if self.rows.bytes >= self.group_max_bytes {
            self.flush()?;
        }
        Ok(id)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let Some(writer) = self.writer.as_mut().filter(|_| !rows.times.is_empty()) else { return Ok(()) };
        let written = writer.next_row_group().and_then(|group| rows.write(group));
        written.with_context(|| format!("cannot write {}", self.partial.display()))
    }

    /// Gives the file its name, now that all is in it.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.flush()?;
        let at = || format!("cannot write {}", self.file.display());
        if let Some(writer) = self.writer.take() {
            let out = writer.into_inner().with_context(at)?;
            out.into_inner()
                .map_err(std::io::IntoInnerError::into_error)
                .with_context(at)?
                .sync_all()
                .with_context(at)?;
        }
        fs::rename(&self.partial, &self.file).with_context(at)
    }
}

impl Drop for ParquetFile {
    fn drop(&mut self) {
        // After a rename there is nothing of this name; half a file is of no use to anybody.
        if fs::remove_file(&self.partial).is_ok() {
            eprintln!("binnacle: {} was not finished and is removed", self.partial.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use serde_json::json;

    use super::*;

    fn entry(number: i64) -> Value {
        let fields = if number % 3 == 0 {
            json!({})
        } else {
            json!({ "trace_id": format!("t{number}"), "n": number })
        };
        json!({
            "id": format!("{number}"), "time_ns": (1_763_892_600_000_000_000 + number).to_string(), "received_ns": "5",
            "level": if number % 2 == 0 { "info" } else { "" }, "message": format!("line {number} \u{e9}"),
            "stream": { "pod": "web-1", "cluster": "eu" }, "fields": fields,
        })
    }

    #[test]
    fn rows_of_several_groups_are_read_as_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs.parquet");
        let mut file = ParquetFile::create(&path).unwrap();
        file.group_max_bytes = 20_000;
        for number in 0..1000 {
            assert_eq!(file.take(entry(number).to_string().as_bytes()).unwrap(), number.to_string());
        }
        let mut strange = entry(1000);
        strange["message_hex"] = json!("ff0a");
        file.take(strange.to_string().as_bytes()).unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        assert!(reader.metadata().num_row_groups() > 5);
        let rows: Vec<HashMap<String, Field>> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| {
                row.unwrap().get_column_iter().map(|(name, field)| (name.clone(), field.clone())).collect()
            })
            .collect();
        assert_eq!(rows.len(), 1001);
        let text = |value: &Value| {
            value
                .as_str()
                .filter(|text| !text.is_empty())
                .map_or(Field::Null, |text| Field::Str(text.to_owned()))
        };
        let count = |field: &Field| if let Field::MapInternal(map) = field { map.len() } else { usize::MAX };
        for (row, number) in rows.iter().zip(0..) {
            let entry = entry(number);
            assert_eq!((&row["message"], &row["pod"]), (&text(&entry["message"]), &text(&json!("web-1"))));
            assert_eq!(row["level"], text(&entry["level"]));
            assert_eq!(row["trace_id"], text(&entry["fields"]["trace_id"]));
            assert_eq!(count(&row["labels"]), 2);
            assert_eq!(count(&row["attributes"]), entry["fields"].as_object().unwrap().len());
        }
        assert!(rows[..1000].iter().all(|row| row["message_bytes"] == Field::Null));
        assert_ne!(rows[1000]["message_bytes"], Field::Null);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs.parquet");
        let mut file = ParquetFile::create(&path).unwrap();
        file.take(entry(1).to_string().as_bytes()).unwrap();
        assert!(file.take(b"{\"id\":\"2\"}").is_err());
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(ParquetFile::create(Path::new("-")).err().unwrap().to_string().contains("--format ndjson"));
        fs::write(&path, "mine").unwrap();
        assert!(ParquetFile::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
