//! `probes`: modules, what is probed by them, and who may ask for more.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use binnacle_collector::probe::{RawModuleFile, RawProbes};
use binnacle_collector::scrape::Global;

use super::scrapes::{hash, parsed, print_of, take};
use super::{Config, line_of, named_files, place_of};

/// Reads modules, those of the files that are named among them, and checks the jobs.
pub(super) fn read_probes(
    file: &str,
    text: &str,
    dir: &Path,
    raw: Option<RawProbes>,
    global: &Global,
    config: &mut Config,
) -> anyhow::Result<()> {
    let Some(mut raw) = raw else { return Ok(()) };
    let all = parsed(text);
    let mut written = all["probes"]["modules"].to_string();
    let mut files = Vec::new();
    for path in named_files(dir, &raw.module_files)? {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| format!("{file}: cannot read {name}"))?;
        let read: RawModuleFile = if text.trim().is_empty() {
            RawModuleFile::default()
        } else {
            serde_saphyr::from_str(&text).map_err(|error| place_of(&name, &error))?
        };
        written.push_str(&text);
        files.push((name, read));
    }
    let jobs = std::mem::take(&mut raw.jobs);
    let probes = raw.check(dir, files, &written).map_err(|reason| anyhow::anyhow!("{file}: {reason}"))?;
    let probes = Arc::new(probes);
    let of_global = print_of(text, "global");
    for (at, job) in jobs.into_iter().enumerate() {
        let name = job.job_name.clone();
        let told = |reason: &str| anyhow::anyhow!("{file}:{}:1: {reason}", line_of(text, &name));
        let print = hash(&(of_global, probes.print(), all["probes"]["jobs"][at].to_string()));
        let section = job.check_probe(global, dir, print, &probes).map_err(|reason| told(&reason))?;
        if config.pools.iter().any(|pool| pool.job == name) {
            return Err(told(&format!(
                "job name {name:?} is there twice, among scrape_configs and probes.jobs"
            )));
        }
        take(file, section, config);
    }
    config.probes = Some(probes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        parse("c.yml", text, Path::new("/etc/b")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn jobs_are_pools_and_their_print_follows_the_modules() {
        let text = |timeout: &str| {
            format!(
                "scrape_configs: [{{job_name: own}}]
probes:
  modules: {{up: {{prober: http, timeout: {timeout}}}}}
  jobs: [{{job_name: web, module: up, static_configs: [{{targets: ['https://a.example/x', 'b:1']}}]}}]"
            )
        };
        let (one, two) = (read(&text("5s")).unwrap(), read(&text("6s")).unwrap());
        assert_eq!((one.pools.len(), one.static_targets), (2, 2));
        assert!(one.pools[1].print != two.pools[1].print && one.pools[0].print == two.pools[0].print);
        assert_eq!(one.others, two.others, "a reload reads all of it");
    }

    #[test]
    fn module_files_are_blackbox_exporters() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("blackbox.yml");
        std::fs::write(&file, "modules: {tcp_connect: {prober: tcp}, ssh_banner: {prober: tcp}}").unwrap();
        let text = "probes: {module_files: [blackbox.yml], jobs: [{job_name: s, module: ssh_banner}]}";
        assert!(parse("c.yml", text, dir.path()).is_ok());
        std::fs::write(&file, "modules: {ssh_banner: {prober: tcp, tcp: {quest: 1}}}").unwrap();
        let error = parse("c.yml", text, dir.path()).unwrap_err().to_string();
        assert!(error.contains("blackbox.yml:1:") && error.contains("quest"), "{error}");
        std::fs::write(&file, "modules: {ssh_banner: {prober: icmp}}").unwrap();
        let error = parse("c.yml", text, dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("blackbox.yml: modules[\"ssh_banner\"].prober: icmp is not supported"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_place() {
        for (text, want) in [
            ("probes: {module: {}}", "c.yml:1:"),
            ("probes: {modules: {m: {}}}", "c.yml: probes.modules[\"m\"].prober is missing"),
            ("probes: {max_concurrent: 0}", "c.yml: probes.max_concurrent must be between"),
            ("probes: {endpoint: {}}", "c.yml: probes.endpoint.targets is missing"),
            ("probes: {endpoint: {targets: ['(']}}", "c.yml: probes.endpoint.targets[0]: "),
            ("probes: {endpoint: {targets: ['.*'], modules: [m]}}", "there is no module \"m\""),
            ("probes: {jobs: [{job_name: j}]}", "c.yml:1:1: probe job \"j\": module is missing"),
            ("probes: {jobs: [{job_name: j, module: m}]}", "unknown module \"m\"; probes.modules has: "),
            ("scrape_configs: [{job_name: j, module: m}]", "module belongs into probes.jobs"),
            (
                "probes: {modules: {m: {prober: tcp}}, jobs: [{job_name: j, module: m, scheme: https}]}",
                "probe job \"j\": scheme is for pages that are scraped",
            ),
            (
                "scrape_configs: [{job_name: j}]\nprobes: {modules: {m: {prober: tcp}}, jobs: [{job_name: j, module: m}]}",
                "job name \"j\" is there twice",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
