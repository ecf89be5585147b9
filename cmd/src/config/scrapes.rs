//! `scrape_configs` and the files that `scrape_config_files` names.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::Context;
use binnacle_collector::scrape::{Global, ScrapeConfig, Section};
use binnacle_model::yaml::null_is_default;
use serde::Deserialize;
use serde_json::Value;

use super::{Config, line_of, named_files, place_of};

/// A file of `scrape_config_files`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawScrapeFile {
    #[serde(deserialize_with = "null_is_default")]
    scrape_configs: Vec<ScrapeConfig>,
}

/// Where a section stands.
struct Place<'p> {
    file: &'p str,
    text: &'p str,
    dir: &'p Path,
}

/// Checks the sections of the file itself and of those that it names.
pub(super) fn read_scrapes(
    file: &str,
    text: &str,
    dir: &Path,
    (own, patterns): (Vec<ScrapeConfig>, &[String]),
    global: &Global,
    config: &mut Config,
) -> anyhow::Result<()> {
    let mut jobs = BTreeSet::new();
    let print = print_of(text, "global");
    add(&Place { file, text, dir }, own, global, print, &mut jobs, config)?;
    for path in named_files(dir, patterns)? {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| format!("{file}: cannot read {name}"))?;
        let raw: RawScrapeFile = if text.trim().is_empty() {
            RawScrapeFile::default()
        } else {
            serde_saphyr::from_str(&text).map_err(|error| place_of(&name, &error))?
        };
        let place = Place { file: &name, text: &text, dir: path.parent().unwrap_or(dir) };
        add(&place, raw.scrape_configs, global, print, &mut jobs, config)?;
    }
    Ok(())
}

fn add(
    place: &Place<'_>,
    sections: Vec<ScrapeConfig>,
    global: &Global,
    of_global: u64,
    jobs: &mut BTreeSet<String>,
    config: &mut Config,
) -> anyhow::Result<()> {
    let Place { file, text, dir } = place;
    let written = parsed(text);
    for (at, scrape) in sections.into_iter().enumerate() {
        let job = scrape.job_name.clone();
        let told = |reason: &str| anyhow::anyhow!("{file}:{}:1: {reason}", line_of(text, &job));
        let print = hash(&(of_global, file, written["scrape_configs"][at].to_string()));
        let section = scrape.check(global, dir, print).map_err(|reason| told(&reason))?;
        if !jobs.insert(job.clone()) {
            return Err(told(&format!("found multiple scrape configs with job name {job:?}")));
        }
        take(file, section, config);
    }
    Ok(())
}

/// Takes what a section came to.
pub(super) fn take(file: &str, section: Section, config: &mut Config) {
    config.static_targets += section.targets.len();
    config.pools.push(section.pool);
    config.warnings.extend(section.warnings.into_iter().map(|warning| format!("{file}: {warning}")));
}

pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn parsed(text: &str) -> Value {
    // A file that holds what JSON has no room for changes as a whole.
    serde_saphyr::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// Changes with the section `key` of a file.
pub(super) fn print_of(text: &str, key: &str) -> u64 {
    hash(&parsed(text)[key].to_string())
}

/// Changes with all sections of a file that a reload does not read again.
pub(super) fn others_of(text: &str) -> u64 {
    let mut written = parsed(text);
    if let Value::Object(sections) = &mut written {
        sections
            .retain(|key, _| !matches!(key.as_str(), "scrape_configs" | "scrape_config_files" | "probes"));
        if let Some(Value::Object(global)) = sections.get_mut("global") {
            global.retain(|key, _| matches!(key.as_str(), "evaluation_interval" | "external_labels"));
        }
    }
    hash(&written.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn a_print_changes_with_its_section_and_with_what_is_said_of_all() {
        let prints = |text: &str| {
            let config = parse("c.yml", text, Path::new(".")).unwrap();
            config.pools.iter().map(|pool| pool.print).collect::<Vec<_>>()
        };
        let first = prints("scrape_configs: [{job_name: a}, {job_name: b}]");
        let second =
            prints("# a comment\nscrape_configs: [{job_name: a}, {job_name: b, honor_labels: true}]");
        assert!(first[0] == second[0] && first[1] != second[1]);
        let third = prints("global: {sample_limit: 5}\nscrape_configs: [{job_name: a}]");
        assert_ne!(first[0], third[0]);
        let others = |text: &str| others_of(text);
        assert_eq!(others("scrape_configs: []\nrule_files: [a]"), others("rule_files: [a]"));
        assert_eq!(others("global: {scrape_interval: 5s}"), others("global: {scrape_interval: 6s}"));
        assert_ne!(others("rule_files: [b]"), others("rule_files: [a]"));
    }

    #[test]
    fn scrape_config_files_belong_to_the_file_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("one.yml", "scrape_configs: [{job_name: one, static_configs: [{targets: ['a:1']}]}]");
        write("two.yml", "");
        let main = "scrape_config_files: ['*.yml']\nscrape_configs: [{job_name: own}]";
        let config = parse("c.yml", main, dir.path()).unwrap();
        assert_eq!((config.pools.len(), config.static_targets), (2, 1));
        write("two.yml", "scrape_configs: [{job_name: own}]");
        let error = parse("c.yml", main, dir.path()).unwrap_err().to_string();
        assert!(error.contains("two.yml:1:1: found multiple scrape configs"), "{error}");
        write("two.yml", "rule_files: []");
        let error = parse("c.yml", main, dir.path()).unwrap_err().to_string();
        assert!(error.contains("two.yml:1:1: "), "{error}");
    }
}
