//! `binnacle check`: exit 0 if the files are right, 1 with every error if not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use binnacle_alerting::FileError;
use binnacle_alerting::log_metrics::{is_log_metrics, parse_log_metrics};
use binnacle_alerting::rules::parse_rules;
use binnacle_alerting::slo::parse_slos;
use binnacle_alerting::unit_tests::run_tests;

use crate::{CheckCommand, config};

/// Says what is in a file, or all that is wrong with it.
type Check = fn(&Path) -> Result<String, String>;

pub(crate) fn run(what: CheckCommand) -> ExitCode {
    let (files, check): (Vec<PathBuf>, Check) = match what {
        CheckCommand::Config { files } => (files, check_config),
        CheckCommand::Rules { files } => (files, check_rules),
        CheckCommand::Alertmanager { files } => (files, check_alertmanager),
        CheckCommand::Slo { files } => (files, |path| check_groups(path, parse_slos)),
    };
    let mut failed = false;
    for file in files {
        println!("Checking {}", file.display());
        match check(&file) {
            Ok(found) => println!("  SUCCESS: {found}"),
            Err(errors) => {
                failed = true;
                println!("  FAILED:");
                errors.lines().for_each(|line| println!("{line}"));
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Plays the tests of rules in each file.
pub(crate) fn test_rules(files: &[PathBuf]) -> ExitCode {
    let mut failed = false;
    for file in files {
        println!("Unit Testing:  {}", file.display());
        let read_rules = |pattern: &Path| {
            let paths = config::named_files(Path::new(""), &[pattern.display().to_string()]);
            let paths = paths.map_err(|error| format!("{error:#}"))?;
            paths.into_iter().map(|path| read(&path).map(|text| (path, text))).collect()
        };
        let done = read(file).and_then(|text| run_tests(&file.display().to_string(), &text, &read_rules));
        let failures = match done {
            Ok(report) if report.failures.is_empty() => {
                println!("  SUCCESS: {} tests", report.tests);
                continue;
            }
            Ok(report) => report.failures.join("\n"),
            Err(error) => error,
        };
        failed = true;
        println!("  FAILED:");
        failures.lines().for_each(|line| println!("    {line}"));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn check_config(path: &Path) -> Result<String, String> {
    let config = config::load(path).map_err(|error| format!("{error:#}"))?;
    config.warnings.iter().for_each(|warning| println!("  WARNING: {warning}"));
    let remotes = match config.remotes.len() {
        0 => String::new(),
        count => format!(", {count} receivers of remote write"),
    };
    let counted: usize = config.log_metrics.iter().map(|group| group.rules.len()).sum();
    let counted = if counted == 0 { String::new() } else { format!(", {counted} metrics of logs") };
    let sent = config.send.logs.as_ref().map_or_else(String::new, |logs| format!(", logs to {logs}"));
    let modules = match config.probes.as_ref().map_or(0, |probes| probes.modules()) {
        0 => String::new(),
        count => format!(", {count} modules of probes"),
    };
    let (targets, groups) = (config.static_targets, config.groups.len());
    Ok(format!("{targets} targets, {groups} rule groups{counted}{modules}{remotes}{sent}"))
}

fn check_alertmanager(path: &Path) -> Result<String, String> {
    let (config, _) = config::load_alertmanager(path).map_err(|error| format!("{error:#}"))?;
    config.warnings.iter().for_each(|warning| println!("  WARNING: {warning}"));
    Ok("routes and receivers found".to_owned())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn lines(errors: &[FileError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Of either kind: Prometheus's, or those that make metrics of logs.
fn check_rules(path: &Path) -> Result<String, String> {
    let text = read(path)?;
    if !is_log_metrics(&text) {
        return check_groups(path, parse_rules);
    }
    let found = parse_log_metrics(&path.display().to_string(), &text).map_err(|errors| lines(&errors))?;
    found.warnings.iter().for_each(|warning| println!("  WARNING: {warning}"));
    let rules: usize = found.groups.iter().map(|group| group.rules.len()).sum();
    Ok(format!("{rules} metrics of logs found"))
}

fn check_groups(path: &Path, read: config::ReadGroups) -> Result<String, String> {
    let text = self::read(path)?;
    let groups = read(&path.display().to_string(), &text).map_err(|errors| lines(&errors))?;
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    Ok(format!("{rules} rules found"))
}
