//! The rules of the house that no lint knows: who may depend on whom, and how long a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Past this a file has two ideas; its tests are not counted.
const FILE_MAX_LINES: usize = 1000;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn metadata() -> cargo_metadata::Metadata {
    let mut command = cargo_metadata::MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).no_deps().other_options(["--offline".to_owned()]);
    command.exec().unwrap()
}

/// Who depends on what outside of tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for package in metadata().packages {
        let normal =
            package.dependencies.iter().filter(|one| one.kind == cargo_metadata::DependencyKind::Normal);
        let names = normal.map(|one| one.name.clone()).collect();
        found.insert(package.name.to_string(), names);
    }
    found
}

#[test]
fn crates_depend_as_the_picture_says() {
    let picture = [
        ("binnacle-model", &[][..]),
        ("binnacle-store", &["binnacle-model"][..]),
        ("binnacle-query", &["binnacle-model"][..]),
        ("binnacle-outgoing", &["binnacle-model"][..]),
        ("binnacle-collector", &["binnacle-model", "binnacle-outgoing"][..]),
        ("binnacle-alerting", &["binnacle-model", "binnacle-outgoing", "binnacle-query"][..]),
        (
            "binnacle",
            &[
                "binnacle-alerting",
                "binnacle-collector",
                "binnacle-model",
                "binnacle-query",
                "binnacle-store",
            ][..],
        ),
    ];
    let found = dependencies();
    assert_eq!(found.len(), picture.len(), "another crate needs an ADR");
    for (name, want) in picture {
        let own: Vec<&str> =
            found[name].iter().map(String::as_str).filter(|one| one.starts_with("binnacle")).collect();
        assert_eq!(own, want, "{name}");
    }
}

#[test]
fn crates_leave_alone_what_is_not_theirs() {
    let never = [
        ("binnacle-model", &["tokio", "reqwest", "axum", "rusqlite", "tantivy"][..]),
        ("binnacle-store", &["tokio", "axum", "reqwest", "hyper"][..]),
        ("binnacle-query", &["tantivy", "rusqlite", "reqwest"][..]),
        ("binnacle-alerting", &["tantivy"][..]),
        ("binnacle-collector", &["tantivy", "rusqlite"][..]),
    ];
    let found = dependencies();
    for (name, forbidden) in never {
        for one in forbidden {
            assert!(!found[name].contains(*one), "{name} must not use {one}");
        }
    }
    assert!(!found.iter().any(|(name, of)| name != "binnacle" && of.contains("anyhow")));
}

/// Folders in which a crate may use what its core must not.
#[test]
fn the_network_stays_at_the_edges() {
    for (krate, word, edges) in [
        ("query", "axum", &["http"][..]),
        ("query", "tokio", &["http", "logs"][..]),
        ("alerting", "axum", &["http"][..]),
        // An API that tests talk to is a server, too.
        ("collector", "axum", &["http", "intake", "kubernetes/testing.rs"][..]),
        ("model", "std::fs", &[][..]),
        ("query", "std::fs", &[][..]),
    ] {
        for file in sources(&root().join(krate).join("src")) {
            let inside = file.strip_prefix(root().join(krate).join("src")).unwrap();
            let is_edge = edges.iter().any(|edge| inside.starts_with(edge));
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let uses = code.lines().any(|line| {
                !line.trim_start().starts_with("//")
                    && (line.contains(&format!("{word}::")) || line.contains(&format!("use {word}")))
            });
            assert!(is_edge || !uses, "{} uses {word}", file.display());
        }
    }
}

pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn no_file_has_two_ideas() {
    for krate in ["model", "store", "query", "alerting", "outgoing", "collector", "cmd"] {
        for file in sources(&root().join(krate).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let is_tests = file.file_stem().is_some_and(|name| name == "tests");
            let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
            assert!(is_tests || lines <= FILE_MAX_LINES, "{} has {lines} lines", file.display());
        }
    }
}

/// Text from logs, labels and annotations reaches the page as text nodes alone.
#[test]
fn the_page_builds_no_html_from_text() {
    let mut dirs = vec![root().join("dashboards/web/src")];
    let mut read = 0;
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "{@html"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
            read += 1;
        }
    }
    assert!(read > 10);
}

#[test]
fn every_folder_introduces_itself() {
    for krate in ["model", "store", "query", "alerting", "outgoing", "collector", "cmd"] {
        for file in sources(&root().join(krate).join("src")) {
            let name = file.file_name().unwrap();
            if name == "mod.rs" || name == "lib.rs" {
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(text.starts_with("//! "), "{} has no introduction", file.display());
            }
        }
    }
}
