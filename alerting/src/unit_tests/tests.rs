//! Files of tests that real projects have, and those that promtool's own tests mean to fail.

use std::path::{Path, PathBuf};

use super::run_tests;

fn shared(dir: &str) -> Option<PathBuf> {
    let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(shared).join(dir);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("SKIPPED 1: nothing at {}", dir.display());
    None
}

fn failures(path: &Path) -> Vec<String> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(vec![(path.to_owned(), text)])
    };
    match run_tests(&path.display().to_string(), &std::fs::read_to_string(path).unwrap(), &read) {
        Ok(report) => report.failures,
        Err(error) => vec![error],
    }
}

#[test]
fn tests_of_real_projects_pass() {
    let Some(dir) = shared("real/rule-tests") else { return };
    let mixin =
        std::fs::read_dir(dir.join("kubernetes-mixin/tests")).unwrap().map(|entry| entry.unwrap().path());
    let own =
        ["unittest", "at-modifier-test", "negative-offset-test", "no-test-group-interval", "long-period"];
    let own = own.map(|name| dir.join(format!("promtool/{name}.yml")));
    let files: Vec<PathBuf> = mixin.chain(own).collect();
    let failed: Vec<String> = files.iter().flat_map(|file| failures(file)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!("rule unit tests {} of {} files", files.len(), files.len());
}

#[test]
fn tests_that_are_meant_to_fail_do() {
    let Some(dir) = shared("real/rule-tests/promtool") else { return };
    for name in [
        "bad-input-series",
        "bad-promql",
        "bad-rules-error-test",
        "bad-rules-syntax-test",
        "failing",
        "rules_run_no_fuzzy",
    ] {
        assert!(!failures(&dir.join(format!("{name}.yml"))).is_empty(), "{name}");
    }
}

/// What promtool 3.5.3 made of 38 annotations.
#[test]
fn annotation_templates_expand_as_by_promtool() {
    let Some(dir) = shared("conformance/alert-templates") else { return };
    let failed = failures(&dir.join("test.yml"));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!("annotation templates 38 of 38");
}
