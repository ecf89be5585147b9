//! `storage.logs`: how long lines are kept, and where.

use std::time::Duration;

use anyhow::{Context, bail};
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use binnacle_query::promql::parse_selector;
use binnacle_store::{CLASSES_MAX, LogClass, is_class_name};
use serde::Deserialize;

use super::{Config, RETENTION_MIN, size};

/// A retention beyond this is a question of cost that belongs to an archive.
const LOG_RETENTION_ADVISED: Duration = Duration::from_hours(1080);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLogStorage {
    #[serde(deserialize_with = "null_is_default")]
    retention: RawLogRetention,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLogRetention {
    #[serde(with = "optional_duration")]
    time: Option<Duration>,
    size: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    classes: Vec<RawLogClass>,
    disk_max_percent: Option<u8>,
}

/// Streams of logs that are kept for a time of their own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLogClass {
    name: String,
    #[serde(rename = "match")]
    selector: String,
    #[serde(with = "optional_duration", default)]
    time: Option<Duration>,
    #[serde(default)]
    size: Option<String>,
}

/// How logs are kept.
pub(super) fn read_logs(file: &str, raw: &RawLogStorage, config: &mut Config) -> anyhow::Result<()> {
    let (raw, place) = (&raw.retention, "storage.logs.retention");
    if let Some(time) = raw.time {
        config.logs.retention = log_time(file, place, time, &mut config.warnings)?;
    }
    config.logs.retention_bytes = size(file, place, raw.size.as_deref())?;
    if let Some(percent) = raw.disk_max_percent {
        if !(1..=99).contains(&percent) {
            bail!("{file}: {place}.disk_max_percent must be between 1 and 99");
        }
        config.logs.disk_max_share = Some(f64::from(percent) / 100.0);
    }
    if raw.classes.len() > CLASSES_MAX {
        bail!("{file}: {place}.classes: {CLASSES_MAX} classes at most, each has pages of its own in memory");
    }
    for (at, class) in raw.classes.iter().enumerate() {
        let place = format!("{place}.classes[{at}]");
        if !is_class_name(&class.name) {
            bail!(
                "{file}: {place}.name: {:?} is no name of a class; use up to 32 of a-z, 0-9 and _",
                class.name
            );
        }
        if config.logs.classes.iter().any(|known| known.name == class.name) {
            bail!("{file}: {place}.name: {:?} is there twice", class.name);
        }
        let matchers = parse_selector(&class.selector).with_context(|| format!("{file}: {place}"))?;
        let retention = match class.time {
            Some(time) => log_time(file, &place, time, &mut config.warnings)?,
            None => config.logs.retention,
        };
        let retention_bytes = size(file, &place, class.size.as_deref())?;
        config.logs.classes.push(LogClass { name: class.name.clone(), matchers, retention, retention_bytes });
    }
    Ok(())
}

/// Checks how long logs are kept.
fn log_time(file: &str, place: &str, time: Duration, warnings: &mut Vec<String>) -> anyhow::Result<Duration> {
    if time < RETENTION_MIN {
        bail!("{file}: {place}.time must be 2h at least");
    }
    if time > LOG_RETENTION_ADVISED {
        warnings.push(format!(
            "{file}: {place}.time is above the 45d that are advised; an archive keeps more for less"
        ));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use std::path::Path;

    fn retention(text: &str) -> Result<Config, String> {
        let text = format!("storage: {{logs: {{retention: {{{text}}}}}}}");
        parse("c.yml", &text, Path::new(".")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn classes_have_their_own_bounds() {
        let config = retention(
            "time: 35d, size: 1TB, disk_max_percent: 85, classes: [{name: audit, match: '{namespace=\"vault\"}', time: 90d}, {name: dev, match: '{namespace=~\"dev-.*\"}', size: 5GB}]",
        );
        let config = config.unwrap();
        let days = |days: u64| Duration::from_hours(24 * days);
        assert_eq!((config.logs.retention, config.logs.retention_bytes), (days(35), Some(1 << 40)));
        assert_eq!(config.logs.disk_max_share, Some(0.85));
        let of = |class: &LogClass| (class.name.clone(), class.retention, class.retention_bytes);
        let classes: Vec<_> = config.logs.classes.iter().map(of).collect();
        assert_eq!(classes, [("audit".into(), days(90), None), ("dev".into(), days(35), Some(5 << 30))]);
        assert!(config.warnings.iter().any(|warning| warning.contains("classes[0].time is above the 45d")));
    }

    #[test]
    fn what_is_wrong_with_a_class_is_said() {
        let error = |text: &str| retention(text).unwrap_err();
        let classes = |text: &str| error(&format!("classes: [{text}]"));
        assert!(classes("{name: A/b, match: '{a=\"b\"}'}").contains("classes[0].name: \"A/b\" is no name"));
        assert!(classes("{name: a, match: '{a='}").contains("c.yml: storage.logs.retention.classes[0]"));
        assert!(classes("{name: a, match: '{a=\"b\"}', time: 1h}").contains("2h at least"));
        assert!(classes("{name: a, match: '{a=\"b\"}', size: much}").contains("\"much\" is no size"));
        let twice = "{name: a, match: '{a=\"b\"}'}, {name: a, match: '{a=\"c\"}'}";
        assert!(classes(twice).contains("is there twice"));
        assert!(error("disk_max_percent: 100").contains("between 1 and 99"));
    }
}
