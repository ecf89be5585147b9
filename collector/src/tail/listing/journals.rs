//! Files of systemd's journals, as journald names them.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use binnacle_model::push::Pair;

use super::super::file::Kind;
use super::super::records::LineFormat;
use super::{Listed, Listing, Order, Scan, Scanner, listed, pairs};

impl Scanner {
    /// Lists journals of directories, and of those below them that are named by a machine's ID.
    pub(super) fn scan_journals(&mut self, dirs: &[PathBuf], there: &mut HashSet<PathBuf>, scan: &mut Scan) {
        let stream: Arc<[Pair]> = pairs(&[("node", &self.node)]).into();
        let mut all = Vec::new();
        for dir in dirs {
            all.push(dir.clone());
            all.extend(self.list(dir, there).0.into_iter().filter(|path| is_of_machine(path)));
        }
        for dir in all {
            let Some((entries, root)) = self.list_anew(&dir, there, scan) else { continue };
            let mut families: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
            for path in entries {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let Some((family, order)) = journal_name(&name) else { continue };
                if let Some(file) = listed(path, order, scan) {
                    families.entry(family).or_default().push(Listed { kind: Kind::Journal, ..file });
                }
            }
            let listing = |(family, mut files): (String, Vec<Listed>)| {
                files.sort_by(|a, b| a.order.cmp(&b.order));
                let (root, stream) = (Arc::clone(&root), Arc::clone(&stream));
                let name = dir.join(family).display().to_string();
                Listing { name, root, stream, format: LineFormat::Journal, files }
            };
            let listings = families.into_iter().map(listing).collect();
            self.found(dir, listings, scan);
        }
    }
}

/// Named by 32 hexadecimal digits, behind which a namespace may stand.
fn is_of_machine(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let id = name.split('.').next().unwrap_or_default();
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && path.is_dir()
}

/// Whose journal a file is (`system`, `user-1000`), and its place among them:
///
/// ```text
/// system.journal                             is being written
/// system@SEQNUMID-SEQNUM-TIME.journal        archived; number and time of its first entry
/// system@TIME-RANDOM.journal~                was not closed, and renamed at that time
/// ```
fn journal_name(name: &str) -> Option<(String, Order)> {
    let stem = name.strip_suffix(".journal");
    let is_closed = stem.is_some();
    let stem = stem.or_else(|| name.strip_suffix(".journal~"))?;
    let Some((family, rest)) = stem.split_once('@') else {
        return Some((stem.to_owned(), Order { restart: 0, is_live: is_closed, stamp: String::new() }));
    };
    let mut parts = rest.split('-');
    let (first, second, third) = (parts.next()?, parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    // Numbers in 16 hexadecimal digits each: texts are in their order.
    let stamp = if is_closed { format!("{third}-{second}") } else { format!("{first}-~") };
    Some((family.to_owned(), Order { restart: 0, is_live: false, stamp }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_read_in_the_order_in_which_they_were_begun() {
        let names = [
            "system@0005ab00-b2.journal~",
            "system.journal",
            "system@11111111111111111111111111111111-0000000000000100-0005ab0000000200.journal",
            "system@0005ab0000000180-ab12cd34.journal~",
            "system@00000000000000000000000000000000-0000000000000001-0005ab0000000001.journal",
            "system@22222222222222222222222222222222-0000000000000001-0005ab0000000300.journal",
        ];
        let mut found: Vec<(Order, &str)> =
            names[1..].iter().map(|name| (journal_name(name).unwrap().1, *name)).collect();
        found.sort();
        let order: Vec<&str> = found.iter().map(|(_, name)| *name).collect();
        assert_eq!(order, [names[4], names[3], names[2], names[5], names[1]]);
        for (name, family) in [
            (names[0], Some("system")),
            ("user-1000.journal", Some("user-1000")),
            ("user-1000@0-1-2.journal", Some("user-1000")),
            ("fss", None),
            ("system.journal.tmp", None),
        ] {
            assert_eq!(journal_name(name).map(|(family, _)| family).as_deref(), family, "{name}");
        }
    }
}
