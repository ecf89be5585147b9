//! Classes of retention: which lines are kept for how long.
//!
//! ```text
//! line ─► first class whose matchers its stream satisfies, else the default one
//! class ─► partitions of its own, which go by age and by bytes
//! ```
//!
//! The class of a line is decided when it comes in, and stands in the log: a start with other classes puts no line into
//! two of them.

use std::sync::Arc;
use std::time::Duration;

use binnacle_model::Matcher;
use binnacle_model::push::LogPush;
use prost::Message;

/// The name of a class; empty for that of all lines which are in no other.
pub(crate) type ClassName = Arc<str>;

/// Characters of a class's name.
const CLASS_NAME_MAX: usize = 32;

/// Classes beside the default one: each has an open page of its own.
pub const CLASSES_MAX: usize = 16;

/// Streams that are kept longer or shorter than others.
#[derive(Debug, Clone)]
pub struct LogClass {
    /// Lowercase letters, digits and `_`, as [`is_class_name`] says.
    pub name: String,
    /// A stream that satisfies all of them is of this class, unless it is of one before it.
    pub matchers: Vec<Matcher>,
    /// Age, by intake time, at which a partition expires.
    pub retention: Duration,
    /// Of all partitions of the class, on the disk; beyond it the oldest go.
    pub retention_bytes: Option<u64>,
}

/// Whether a class may have this name: it is part of the names of directories.
pub fn is_class_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=CLASS_NAME_MAX).contains(&name.len()) && name.chars().all(is_plain)
}

/// The classes of a record's batches as the log keeps them, behind the push: readers of either skip the other.
#[derive(Clone, PartialEq, Message)]
struct StoredClasses {
    #[prost(string, repeated, tag = "15")]
    names: Vec<String>,
}

/// Decides which class lines are of.
#[derive(Debug, Default)]
pub(super) struct Classes {
    classes: Vec<(ClassName, Vec<Matcher>)>,
}

impl Classes {
    pub(super) fn new(classes: &[LogClass]) -> Self {
        let one = |class: &LogClass| (ClassName::from(class.name.as_str()), class.matchers.clone());
        Self { classes: classes.iter().map(one).collect() }
    }

    /// The class of each batch; nothing if all are of the default one.
    pub(super) fn of(&self, push: &LogPush) -> Vec<ClassName> {
        if self.classes.is_empty() {
            return Vec::new();
        }
        let names: Vec<ClassName> = push
            .batches
            .iter()
            .map(|batch| {
                let value = |name: &str| {
                    let pair = batch.stream.iter().find(|pair| pair.name == name);
                    pair.map_or("", |pair| pair.value.as_str())
                };
                let matches = |matchers: &[Matcher]| matchers.iter().all(|one| one.matches(value(&one.name)));
                let found = self.classes.iter().find(|(_, matchers)| matches(matchers));
                found.map_or_else(|| ClassName::from(""), |(name, _)| Arc::clone(name))
            })
            .collect();
        if names.iter().all(|name| name.is_empty()) { Vec::new() } else { names }
    }
}

/// Writes the classes behind a push.
pub(super) fn encode_classes(classes: &[ClassName], out: &mut Vec<u8>) {
    if !classes.is_empty() {
        let names = classes.iter().map(ToString::to_string).collect();
        StoredClasses { names }.encode_raw(out);
    }
}

/// The classes that stand behind a push of so many batches. `None`: they contradict it.
pub(super) fn decode_classes(payload: &[u8], batches: usize) -> Option<Vec<ClassName>> {
    let names = StoredClasses::decode(payload).ok()?.names;
    let is_sound = names.is_empty() || names.len() == batches;
    let is_named = |name: &String| name.is_empty() || is_class_name(name);
    (is_sound && names.iter().all(is_named)).then(|| names.into_iter().map(ClassName::from).collect())
}

#[cfg(test)]
mod tests {
    use binnacle_model::MatchOp;
    use binnacle_model::push::{FileBatch, Pair};

    use super::*;

    fn push(namespaces: &[&str]) -> LogPush {
        let stream = |name: &&str| vec![Pair { name: "namespace".into(), value: (*name).into() }];
        let batch = |name| FileBatch { stream: stream(name), ..FileBatch::default() };
        LogPush { batches: namespaces.iter().map(batch).collect() }
    }

    fn class(name: &str, op: MatchOp, value: &str) -> LogClass {
        let matchers = vec![Matcher::new("namespace", op, value).unwrap()];
        LogClass { name: name.into(), matchers, retention: Duration::from_hours(24), retention_bytes: None }
    }

    #[test]
    fn the_first_class_that_matches_takes_a_stream() {
        let classes = Classes::new(&[
            class("audit", MatchOp::Equal, "vault"),
            class("dev", MatchOp::Regex, "dev-.*|vault"),
        ]);
        let of =
            |names: &[&str]| classes.of(&push(names)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(&["vault", "dev-1", "shop"]), ["audit", "dev", ""]);
        assert_eq!(of(&["shop", "shop"]), [""; 0]);
    }

    #[test]
    fn a_push_comes_back_with_its_classes() {
        let (push, names) = (push(&["a", "b"]), [ClassName::from("audit"), ClassName::from("")]);
        let mut payload = push.encode_to_vec();
        assert_eq!(decode_classes(&payload, 2), Some(Vec::new()));
        encode_classes(&names, &mut payload);
        assert_eq!(LogPush::decode(&payload[..]).unwrap(), push);
        assert_eq!(decode_classes(&payload, 2), Some(names.to_vec()));
        assert_eq!(decode_classes(&payload, 3), None, "one for each batch");
        let odd = StoredClasses { names: vec!["../x".into()] }.encode_to_vec();
        assert_eq!(decode_classes(&odd, 1), None);
    }
}
