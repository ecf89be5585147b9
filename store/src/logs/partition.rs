//! A partition: the lines of one day of intake time, as a tantivy index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use binnacle_model::LogTime;
use binnacle_model::log::LogEntry;
use binnacle_model::storage::{Deadline, LogBar, LogCursor, LogRequest};
use tantivy::indexer::IndexWriterOptions;
use tantivy::merge_policy::LogMergePolicy;
use tantivy::store::{Compressor, ZstdCompressor};
use tantivy::{
    DocAddress, Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, TantivyDocument,
};

use super::collect::{Bars, Found, Newest, Span};
use super::compile::compile;
use super::directory::DiskDirectory;
use super::schema::{self, Fields, WORDS, WordTokenizer};
use crate::fs::Disk;
use crate::wal::Sequence;

const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// What the writer may hold of uncommitted lines before it starts a segment; commits come sooner.
const WRITER_MEMORY_BYTES: usize = 64_000_000;

/// Decompressed blocks of stored lines that a reader keeps per segment.
const STORE_CACHE_BLOCKS: usize = 4;

/// Days since 1970, of intake time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(pub(crate) i64);

impl Day {
    pub(crate) fn of(received: LogTime) -> Self {
        Self(received.0.div_euclid(DAY_NS))
    }

    /// The first moment after the day.
    pub(crate) fn end(self) -> LogTime {
        LogTime((self.0 + 1).saturating_mul(DAY_NS))
    }

    pub(crate) fn directory(self, root: &Path) -> PathBuf {
        root.join(format!("p{:010}", self.0))
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        name.strip_prefix('p')?.parse().ok().map(Self)
    }
}

/// A partition, open for reading.
pub(crate) struct Partition {
    pub(crate) day: Day,
    index: Index,
    fields: Fields,
    reader: IndexReader,
}

impl Partition {
    /// Opens a partition, or makes it.
    pub(crate) fn open(disk: &Arc<dyn Disk>, root: &Path, day: Day) -> tantivy::Result<Self> {
        let path = day.directory(root);
        disk.create_dir_all(&path)?;
        let directory = DiskDirectory::new(Arc::clone(disk), path);
        let (schema, fields) = schema::build();
        let index = if Index::exists(&directory)? {
            Index::open(directory)?
        } else {
            let level = Some(1);
            let settings = IndexSettings {
                docstore_compression: Compressor::Zstd(ZstdCompressor { compression_level: level }),
                docstore_blocksize: 64 * 1024,
                docstore_compress_dedicated_thread: false,
                ..IndexSettings::default()
            };
            Index::create(directory, schema, settings)?
        };
        index.tokenizers().register(WORDS, WordTokenizer::default());
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(STORE_CACHE_BLOCKS)
            .try_into()?;
        Ok(Self { day, index, fields, reader })
    }

    /// The last record of the WAL whose lines are all committed here.
    pub(crate) fn committed(&self) -> tantivy::Result<Sequence> {
        let payload = self.index.load_metas()?.payload.unwrap_or_default();
        let number = payload.strip_prefix("wal=").and_then(|number| number.parse().ok());
        Ok(Sequence(number.unwrap_or(0)))
    }

    /// Shows what was committed last to the searches that come.
    pub(crate) fn reload(&self) -> tantivy::Result<()> {
        self.reader.reload()
    }

    pub(crate) fn writer(&self) -> tantivy::Result<PartitionWriter> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .memory_budget_per_thread(WRITER_MEMORY_BYTES)
            .num_merge_threads(1)
            .build();
        let writer = self.index.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(8);
        policy.set_max_docs_before_merge(2_000_000);
        writer.set_merge_policy(Box::new(policy));
        Ok(PartitionWriter { day: self.day, writer, fields: self.fields })
    }

    /// Where the newest matches before `cursor` are, newest first, the number of all, and the view of
    /// the index in which that is so.
    pub(crate) fn find(
        &self,
        request: &LogRequest,
        limit: usize,
        cursor: Option<LogCursor>,
        deadline: &Deadline,
    ) -> tantivy::Result<(u64, Vec<Found>, View)> {
        let span = Span { start: request.start, end: request.end };
        let query = compile(&self.fields, &request.query);
        let searcher = self.reader.searcher();
        let (total, found) = searcher.search(&*query, &Newest { span, limit, cursor, deadline })?;
        Ok((total, found, View { searcher, fields: self.fields, day: self.day }))
    }

    pub(crate) fn histogram(
        &self,
        request: &LogRequest,
        bars: usize,
        deadline: &Deadline,
    ) -> tantivy::Result<Vec<LogBar>> {
        let span = Span { start: request.start, end: request.end };
        let query = compile(&self.fields, &request.query);
        self.reader.searcher().search(&*query, &Bars { span, count: bars, deadline })
    }
}

/// A partition as it was at one moment.
pub(crate) struct View {
    searcher: Searcher,
    fields: Fields,
    day: Day,
}

impl View {
    /// The entry at an address that this view gave out.
    pub(crate) fn read(&self, at: DocAddress) -> tantivy::Result<LogEntry> {
        let document: TantivyDocument = self.searcher.doc(at)?;
        schema::from_document(&self.fields, &document).ok_or_else(|| {
            let what = format!("stored entry {at:?} of partition {}", self.day.0);
            tantivy::TantivyError::InternalError(format!("{what} cannot be decoded"))
        })
    }
}

/// The one writer of a partition.
pub(crate) struct PartitionWriter {
    pub(crate) day: Day,
    writer: IndexWriter,
    fields: Fields,
}

impl PartitionWriter {
    pub(crate) fn add(&self, entry: &LogEntry) -> tantivy::Result<()> {
        self.writer.add_document(schema::to_document(&self.fields, entry))?;
        Ok(())
    }

    /// Makes all that was added durable, and says up to which record of the WAL that is everything.
    pub(crate) fn commit(&mut self, through: Sequence) -> tantivy::Result<()> {
        let mut prepared = self.writer.prepare_commit()?;
        prepared.set_payload(&format!("wal={}", through.0));
        prepared.commit()?;
        Ok(())
    }

    /// Ends the writer's threads; merges under way are finished.
    pub(crate) fn close(self) -> tantivy::Result<()> {
        self.writer.wait_merging_threads()
    }
}
