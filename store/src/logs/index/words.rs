//! Which pages of a partition have a word, a stream or an attribute, and when a pattern was first there: tantivy with a
//! document per page, and behind these one per pattern.

use std::cell::Cell;
use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use tantivy::directory::OwnedBytes;
use tantivy::indexer::SingleSegmentIndexWriter;
use tantivy::postings::SegmentPostings;
use tantivy::schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{DocSet as _, Index, ReloadPolicy, SegmentReader, TERMINATED, TantivyDocument, Term};

use super::directory::MemoryDirectory;

/// Bytes that tantivy may hold of one partition's documents before they are written.
const WRITER_BYTES: usize = 64 * 1024 * 1024;

/// Longer values are not looked up: their pages have a term that stands for any value.
pub(super) const VALUE_MAX_BYTES: usize = 1024;

/// Words of a dictionary that one query compares with its patterns; with more, the pages tell sooner.
pub(super) const LIKE_MAX: usize = 300_000;

/// In the place of a value that is too long.
const LONG: &str = "\u{1}long";

/// Among the attributes: the page may say something else than what is written in it.
pub(super) const ESCAPES: &str = "\u{1}escapes";

/// Before the name of an attribute whose values are no words.
pub(super) const ODD: char = '\u{2}';

#[derive(Debug, Clone, Copy)]
struct Fields {
    words: Field,
    streams: Field,
    attributes: Field,
    pattern: Field,
    /// The minute in which the pattern was there first.
    first: Field,
}

/// The column of [`Fields::first`].
const FIRST: &str = "first";

fn schema() -> (Schema, Fields) {
    let terms = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_index_option(IndexRecordOption::Basic)
        .set_fieldnorms(false);
    let options = TextOptions::default().set_indexing_options(terms);
    let mut builder = Schema::builder();
    let mut field = |name: &str| builder.add_text_field(name, options.clone());
    let (words, streams, attributes) = (field("words"), field("streams"), field("attributes"));
    let pattern = field("pattern");
    let first = builder.add_i64_field(FIRST, FAST);
    (builder.build(), Fields { words, streams, attributes, pattern, first })
}

/// A label as a term: equal names are neighbours.
fn label_term(name: &str, value: &str) -> String {
    let value = if value.len() > VALUE_MAX_BYTES { LONG } else { value };
    format!("{name}\0{value}")
}

/// What is known of a page, each once.
#[derive(Debug, Default)]
pub(super) struct PageTerms {
    /// In lower case.
    pub(super) words: foldhash::HashSet<String>,
    pub(super) labels: BTreeSet<(String, String)>,
    pub(super) attributes: BTreeSet<String>,
}

/// Makes the documents.
pub(super) struct Builder {
    directory: MemoryDirectory,
    writer: SingleSegmentIndexWriter,
    fields: Fields,
}

impl Builder {
    pub(super) fn new() -> tantivy::Result<Self> {
        let (schema, fields) = schema();
        let directory = MemoryDirectory::default();
        let builder = Index::builder().schema(schema);
        let writer = builder.single_segment_index_writer(directory.clone(), WRITER_BYTES)?;
        Ok(Self { directory, writer, fields })
    }

    /// Adds the next page.
    pub(super) fn add(&mut self, page: &PageTerms) -> tantivy::Result<()> {
        let mut document = TantivyDocument::default();
        page.words.iter().for_each(|word| document.add_text(self.fields.words, word));
        for (name, value) in &page.labels {
            document.add_text(self.fields.streams, label_term(name, value));
        }
        for name in &page.attributes {
            document.add_text(self.fields.attributes, if name.len() > VALUE_MAX_BYTES { LONG } else { name });
        }
        self.writer.add_document(document)
    }

    /// Adds a pattern, behind all pages.
    pub(super) fn add_pattern(&mut self, term: &str, first_minute: i64) -> tantivy::Result<()> {
        let mut document = TantivyDocument::default();
        document.add_text(self.fields.pattern, term);
        document.add_i64(self.fields.first, first_minute);
        self.writer.add_document(document)
    }

    /// tantivy's files.
    pub(super) fn finish(self) -> tantivy::Result<Vec<(String, OwnedBytes)>> {
        self.writer.finalize()?;
        Ok(self.directory.files())
    }
}

/// The documents, open.
pub(super) struct Words {
    segment: SegmentReader,
    fields: Fields,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Words({} documents)", self.segment.num_docs())
    }
}

impl Words {
    pub(super) fn open(files: Vec<(String, OwnedBytes)>) -> tantivy::Result<Self> {
        let index = Index::open(MemoryDirectory::new(files))?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let reader: tantivy::IndexReader = reader;
        let searcher = reader.searcher();
        let segment = match searcher.segment_readers() {
            [segment] => segment.clone(),
            others => {
                let reason = format!("an index of a partition has {} segments", others.len());
                return Err(tantivy::TantivyError::InternalError(reason));
            }
        };
        Ok(Self { segment, fields: schema().1 })
    }

    /// Pages that have a word.
    pub(super) fn with_word(&self, word: &str) -> tantivy::Result<RoaringBitmap> {
        self.with_term(self.fields.words, word)
    }

    /// Pages that have one of the words that begin so and are wanted; `None` if there are more than are `left` to ask.
    pub(super) fn with_words_like(
        &self,
        prefix: &str,
        left: &Cell<usize>,
        wants: &mut dyn FnMut(&str) -> bool,
    ) -> tantivy::Result<Option<RoaringBitmap>> {
        let terms = self.segment.inverted_index(self.fields.words)?;
        let mut words = terms.terms().range().ge(prefix).into_stream()?;
        let mut found = RoaringBitmap::new();
        while words.advance() && words.key().starts_with(prefix.as_bytes()) {
            let Some(rest) = left.get().checked_sub(1) else { return Ok(None) };
            left.set(rest);
            if wants(&String::from_utf8_lossy(words.key())) {
                let postings = terms.read_postings_from_terminfo(words.value(), IndexRecordOption::Basic)?;
                found |= pages_of(postings);
            }
        }
        Ok(Some(found))
    }

    /// Pages that have rows with an attribute of that name.
    pub(super) fn with_attribute(&self, name: &str) -> tantivy::Result<RoaringBitmap> {
        Ok(self.with_term(self.fields.attributes, name)? | self.with_term(self.fields.attributes, LONG)?)
    }

    /// The minute in which a pattern was there first.
    pub(super) fn first_minute(&self, pattern: &str) -> tantivy::Result<Option<i64>> {
        let found = self.with_term(self.fields.pattern, pattern)?;
        let column = self.segment.fast_fields().i64(FIRST)?;
        Ok(found.iter().filter_map(|document| column.first(document)).min())
    }

    fn with_term(&self, field: Field, text: &str) -> tantivy::Result<RoaringBitmap> {
        let terms = self.segment.inverted_index(field)?;
        let found = terms.read_postings(&Term::from_field_text(field, text), IndexRecordOption::Basic)?;
        Ok(found.map(pages_of).unwrap_or_default())
    }

    /// Pages with a stream that has a label of which the value is wanted.
    pub(super) fn with_label(
        &self,
        name: &str,
        wants: &mut dyn FnMut(&str) -> bool,
    ) -> tantivy::Result<RoaringBitmap> {
        let terms = self.segment.inverted_index(self.fields.streams)?;
        let first = label_term(name, "").into_bytes();
        let mut behind = first.clone();
        // One above the zero behind the name.
        if let Some(last) = behind.last_mut() {
            *last = 1;
        }
        let mut values = terms.terms().range().ge(&first).lt(&behind).into_stream()?;
        let mut found = RoaringBitmap::new();
        while values.advance() {
            let value = String::from_utf8_lossy(&values.key()[first.len()..]).into_owned();
            if value == LONG || wants(&value) {
                let postings = terms.read_postings_from_terminfo(values.value(), IndexRecordOption::Basic)?;
                found |= pages_of(postings);
            }
        }
        Ok(found)
    }
}

fn pages_of(mut postings: SegmentPostings) -> RoaringBitmap {
    let mut pages = RoaringBitmap::new();
    let mut page = postings.doc();
    while page != TERMINATED {
        pages.insert(page);
        page = postings.advance();
    }
    pages
}
