//! What an archived partition has: a line of JSON, and a line with its CRC-32C. `store/docs/format/archive.md` has the keys.

use std::sync::Arc;

use binnacle_model::LogTime;
use serde::{Deserialize, Serialize};

use super::{Archive, Object};
use crate::logs::class::ClassName;
use crate::logs::partition::{Lost, PartitionId, Summary};
use crate::wal::Sequence;

/// The newest version of manifests.
const VERSION: u32 = 1;

/// What a manifest may have.
pub(super) const MANIFEST_MAX_BYTES: u64 = 64 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// The identity of the store that wrote the partition.
    pub(crate) store: String,
    /// The name of the partition.
    pub(crate) partition: String,
    /// Goes up whenever the partition is written anew.
    pub(crate) generation: u32,
    class: String,
    /// When its first and its last line were received, in nanoseconds since 1970.
    intake: (i64, i64),
    pub(crate) pages: Vec<ArchivedPage>,
    pub(crate) index: Option<ArchivedIndex>,
    lost: Vec<LostPage>,
}

/// One of [`Manifest::pages`]. Times are of events, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArchivedPage {
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
    /// Of the format of pages.
    pub(crate) version: u8,
    /// The sum of xxh3-64 of all messages.
    messages_xxh3: u64,
    rows: u64,
    raw_bytes: u64,
    first: i64,
    last: i64,
    records: (u64, u64),
}

/// Of [`Manifest::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArchivedIndex {
    pub(crate) generation: u32,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

/// A page that was damaged before it could be archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct LostPage {
    rows: Option<u64>,
    span: Option<(i64, i64)>,
}

/// What a page's bytes say of it, besides its summary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked {
    pub(super) crc32c: u32,
    pub(super) version: u8,
    pub(super) messages: u64,
    pub(super) intake: (LogTime, LogTime),
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// They contradict the format.
    #[error("the manifest of an archived partition is damaged: {0}")]
    Damaged(&'static str),
    /// A newer release wrote it.
    #[error(
        "the manifest of an archived partition has version {0}, newer than {VERSION}: use a newer release"
    )]
    TooNew(u32),
}

impl ArchivedPage {
    pub(super) fn of(summary: &Summary, checked: &Checked) -> Self {
        Self {
            number: summary.number,
            bytes: summary.stored_bytes,
            crc32c: checked.crc32c,
            version: checked.version,
            messages_xxh3: checked.messages,
            rows: summary.rows,
            raw_bytes: summary.raw_bytes,
            first: summary.first.0,
            last: summary.last.0,
            records: (summary.sequences.0.0, summary.sequences.1.0),
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            number: self.number,
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            stored_bytes: self.bytes,
            first: LogTime(self.first),
            last: LogTime(self.last),
            sequences: (Sequence(self.records.0), Sequence(self.records.1)),
        }
    }
}

impl Manifest {
    /// Of a partition of which nothing is known yet.
    pub(super) fn new(store: &str, id: PartitionId, class: &ClassName, generation: u32) -> Self {
        Self {
            version: VERSION,
            store: store.to_owned(),
            partition: id.name(class),
            generation,
            class: class.to_string(),
            intake: (i64::MAX, i64::MIN),
            pages: Vec::new(),
            index: None,
            lost: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, summary: &Summary, checked: &Checked) {
        let (first, last) = checked.intake;
        self.intake = (self.intake.0.min(first.0), self.intake.1.max(last.0));
        self.pages.push(ArchivedPage::of(summary, checked));
    }

    /// What is to be written in its place.
    pub(super) fn next(&self, generation: u32) -> Self {
        Self { generation, index: None, ..self.clone() }
    }

    /// Puts a page in the place of another, or nothing.
    pub(super) fn replace(&mut self, number: u32, new: Option<ArchivedPage>) {
        let at = self.pages.iter().position(|page| page.number == number);
        match (at, new) {
            (Some(at), Some(new)) => self.pages[at] = new,
            (Some(at), None) => drop(self.pages.remove(at)),
            (None, new) => self.pages.extend(new),
        }
    }

    pub(super) fn set_lost(&mut self, lost: &[Lost]) {
        let plain =
            |one: &Lost| LostPage { rows: one.rows, span: one.span.map(|(first, last)| (first.0, last.0)) };
        self.lost = lost.iter().map(plain).collect();
    }

    pub(crate) fn lost(&self) -> Vec<Lost> {
        let times = |(first, last)| (LogTime(first), LogTime(last));
        self.lost.iter().map(|one| Lost { rows: one.rows, span: one.span.map(times) }).collect()
    }

    /// Which store wrote which partition.
    pub(crate) fn origin(&self) -> (String, String) {
        (self.store.clone(), self.partition.clone())
    }

    /// Which partition it is of.
    pub(crate) fn id(&self) -> Option<(PartitionId, ClassName)> {
        PartitionId::of_name(&self.partition)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Numbers and texts alone, which cannot fail.
        let mut out = serde_json::to_vec(self).unwrap_or_default();
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(format!("\n{crc:08x}\n").as_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (json, crc) = bytes.split_at(end.ok_or(ManifestError::Damaged("it ends too soon"))?);
        if crc != format!("\n{:08x}\n", crc32c::crc32c(json)).as_bytes() {
            return Err(ManifestError::Damaged("its checksum is wrong"));
        }
        let contradicts = |_| ManifestError::Damaged("it contradicts the format");
        let versioned: Versioned = serde_json::from_slice(json).map_err(contradicts)?;
        if versioned.version > VERSION {
            return Err(ManifestError::TooNew(versioned.version));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(contradicts)?;
        if manifest.id().is_none_or(|(id, class)| id.name(&class) != manifest.partition) {
            return Err(ManifestError::Damaged("it is of no partition"));
        }
        if !is_store(&manifest.store) {
            return Err(ManifestError::Damaged("it is of no store"));
        }
        Ok(manifest)
    }

    /// No page that it has was given this number.
    pub(crate) fn next_number(&self) -> u32 {
        self.pages.iter().map(|page| page.number.saturating_add(1)).max().unwrap_or(0)
    }

    /// Bytes of all its objects but itself.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let index = self.index.map_or(0, |index| index.bytes);
        self.pages.iter().fold(index, |sum, page| sum.saturating_add(page.bytes))
    }

    /// Its pages as objects.
    pub(crate) fn objects(&self, archive: &Arc<Archive>) -> impl Iterator<Item = (Summary, Object)> {
        self.pages.iter().map(|page| {
            (page.summary(), Object::page(archive, self.page_key(page.number), page.bytes, page.version))
        })
    }

    /// Its index as an object.
    pub(crate) fn index_object(&self, archive: &Arc<Archive>) -> Option<Object> {
        self.index.map(|index| Object::index(archive, self.index_key(&index), index.bytes))
    }

    pub(crate) fn key(&self) -> String {
        manifest_key(&self.store, &self.partition, self.generation)
    }

    pub(crate) fn page_key(&self, number: u32) -> String {
        format!("{}{number:06}.page", self.pages_prefix())
    }

    pub(crate) fn index_key(&self, index: &ArchivedIndex) -> String {
        format!("{}{:06}.index", self.pages_prefix(), index.generation)
    }

    /// Before the keys of its pages and indexes.
    pub(crate) fn pages_prefix(&self) -> String {
        pages_prefix(&self.store, &self.partition)
    }

    /// Keys of all its objects but itself.
    pub(super) fn keys(&self) -> Vec<String> {
        let pages = self.pages.iter().map(|page| self.page_key(page.number));
        pages.chain(self.index.iter().map(|index| self.index_key(index))).collect()
    }
}

/// Whether this is the identity of a store: it is part of keys.
pub(crate) fn is_store(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

pub(super) fn pages_prefix(store: &str, partition: &str) -> String {
    format!("pages/{store}/{partition}/")
}

pub(super) fn manifest_key(store: &str, partition: &str, generation: u32) -> String {
    format!("{}{generation:06}", manifests_prefix(store, partition))
}

pub(super) fn manifests_prefix(store: &str, partition: &str) -> String {
    format!("manifests/{store}/{partition}/")
}

/// The store, the partition and the generation that a manifest's key names.
pub(super) fn of_manifest_key(key: &str) -> Option<(&str, &str, u32)> {
    let (store, name) = key.strip_prefix("manifests/")?.split_once('/')?;
    let (partition, generation) = name.split_once('/')?;
    is_store(store).then_some((store, partition, generation.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::partition::Day;

    fn manifest() -> Manifest {
        let id = PartitionId { day: Day(20_780), part: 3 };
        let mut manifest = Manifest::new(&"0f".repeat(16), id, &ClassName::from("audit"), 2);
        let summary = Summary {
            number: 7,
            rows: 5,
            raw_bytes: 100,
            stored_bytes: 50,
            first: LogTime(-1),
            last: LogTime(i64::MAX),
            sequences: (Sequence(1), Sequence(9)),
        };
        let intake = (LogTime(4), LogTime(5));
        manifest.add(&summary, &Checked { crc32c: 1, version: 2, messages: u64::MAX, intake });
        manifest.index = Some(ArchivedIndex { generation: 2, bytes: 8, crc32c: 3 });
        manifest.set_lost(&[Lost { rows: None, span: Some((LogTime(1), LogTime(2))) }]);
        manifest
    }

    #[test]
    fn a_manifest_is_this_forever() {
        let text = String::from_utf8(manifest().encode()).unwrap();
        let want = concat!(
            r#"{"version":1,"store":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","partition":"p0000020780-003-audit","#,
            r#""generation":2,"class":"audit","intake":[4,5],"pages":[{"number":7,"bytes":50,"crc32c":1,"#,
            r#""version":2,"messages_xxh3":18446744073709551615,"rows":5,"raw_bytes":100,"first":-1,"#,
            r#""last":9223372036854775807,"records":[1,9]}],"index":{"generation":2,"bytes":8,"crc32c":3},"#,
            r#""lost":[{"rows":null,"span":[1,2]}]}"#,
        );
        let (json, _) = text.split_once('\n').unwrap();
        assert_eq!(json, want);
        assert_eq!(Manifest::decode(text.as_bytes()).unwrap(), manifest());
        let key = manifest().key();
        assert_eq!(key, "manifests/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/p0000020780-003-audit/000002");
        let store = "0f".repeat(16);
        assert_eq!(of_manifest_key(&key), Some((store.as_str(), "p0000020780-003-audit", 2)));
    }

    #[test]
    fn damage_and_newer_releases_are_told_apart() {
        let bytes = manifest().encode();
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(matches!(Manifest::decode(&bent), Err(ManifestError::Damaged(_))), "byte {at}");
            assert!(Manifest::decode(&bytes[..at]).is_err());
        }
        let newer = Manifest { version: 2, ..manifest() }.encode();
        assert!(matches!(Manifest::decode(&newer), Err(ManifestError::TooNew(2))));
    }
}
