//! `log_metric_files`: rules that make metrics of logs.

use std::path::Path;

use anyhow::Context;
use binnacle_alerting::log_metrics::{check_disjoint, parse_log_metrics};

use super::{Config, all_of, named_files};

/// Reads the files that the patterns name.
pub(super) fn read_log_metrics(
    file: &str,
    dir: &Path,
    patterns: &[String],
    config: &mut Config,
) -> anyhow::Result<()> {
    for path in named_files(dir, patterns)? {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{file}: cannot read {}", path.display()))?;
        let read = parse_log_metrics(&path.display().to_string(), &text).map_err(all_of)?;
        config.warnings.extend(read.warnings.iter().map(ToString::to_string));
        config.log_metrics.extend(read.groups);
    }
    // Each file alone was checked; rules of two files may write the same series, too.
    let errors = check_disjoint(&config.log_metrics);
    if errors.is_empty() { Ok(()) } else { Err(all_of(errors)) }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn files_are_read_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        let rule = "groups: [{name: g, rules: [{metric: a_total, query: x}]}]";
        std::fs::write(dir.path().join("one.yml"), rule).unwrap();
        let config = parse("c.yml", "log_metric_files: [one.yml]", dir.path()).unwrap();
        assert_eq!(config.log_metrics[0].rules[0].metric, "a_total");
        std::fs::write(dir.path().join("two.yml"), rule).unwrap();
        let error = parse("c.yml", "log_metric_files: ['*.yml']", dir.path()).unwrap_err().to_string();
        assert!(error.contains("two.yml:1:") && error.contains("another rule writes this metric"), "{error}");
        let error = parse("c.yml", "log_metric_files: [none.yml]", dir.path()).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("none.yml"), "{error}");
    }
}
