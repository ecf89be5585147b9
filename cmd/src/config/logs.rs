//! `storage.logs`: how long lines are kept, and where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use binnacle_query::promql::parse_selector;
use binnacle_store::{CLASSES_MAX, LogClass, is_class_name};
use serde::Deserialize;

use super::{Config, RETENTION_MIN, size};
use crate::bucket::BucketAddress;

/// A retention beyond this is a question of cost that belongs to an archive.
const LOG_RETENTION_ADVISED: Duration = Duration::from_hours(1080);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLogStorage {
    #[serde(deserialize_with = "null_is_default")]
    retention: RawLogRetention,
    archive: Option<RawArchive>,
    #[serde(deserialize_with = "null_is_default")]
    attach: Vec<RawBucket>,
}

/// Where closed partitions go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchive {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id_file: Option<PathBuf>,
    secret_access_key_file: Option<PathBuf>,
    /// How long after the end of its day a partition is archived.
    #[serde(with = "optional_duration", default)]
    after: Option<Duration>,
    /// Of all archived partitions.
    size: Option<String>,
    /// Bytes of memory for what searches read of archives.
    cache: Option<String>,
}

/// An archive of another store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBucket {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id_file: Option<PathBuf>,
    secret_access_key_file: Option<PathBuf>,
}

/// What the file says of archives.
#[derive(Debug, Default)]
pub(crate) struct Archives {
    /// Where closed partitions go.
    pub(crate) own: Option<OwnArchive>,
    /// Archives of others that are searched, too.
    pub(crate) attached: Vec<BucketAddress>,
}

/// See [`RawArchive`].
#[derive(Debug)]
pub(crate) struct OwnArchive {
    pub(crate) address: BucketAddress,
    pub(crate) after: Duration,
    pub(crate) max_bytes: Option<u64>,
}

/// Archived after that long, unless the file says otherwise.
const ARCHIVE_AFTER: Duration = Duration::from_hours(24);

/// A page must fit, and its neighbours.
const ARCHIVE_CACHE_MIN: u64 = 8 << 20;

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

/// How logs are kept; `dir` is that of the file.
pub(super) fn read_logs(
    file: &str,
    dir: &Path,
    raw: RawLogStorage,
    config: &mut Config,
) -> anyhow::Result<()> {
    read_retention(file, &raw, config)?;
    read_archives(file, dir, raw, config)
}

fn read_archives(file: &str, dir: &Path, raw: RawLogStorage, config: &mut Config) -> anyhow::Result<()> {
    if let Some(raw) = raw.archive {
        let place = "storage.logs.archive";
        let RawArchive { url, endpoint, region, after, size: max, cache, .. } = &raw;
        let of = (url, endpoint, region, &raw.access_key_id_file, &raw.secret_access_key_file);
        let address = address(dir, of).with_context(|| format!("{file}: {place}"))?;
        let max_bytes = size(file, place, max.as_deref())?;
        if let Some(bytes) = size(file, &format!("{place}.cache"), cache.as_deref())? {
            if bytes < ARCHIVE_CACHE_MIN {
                bail!("{file}: {place}.cache must be 8MB at least");
            }
            config.logs.archive_cache_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        let after = after.unwrap_or(ARCHIVE_AFTER);
        config.archives.own = Some(OwnArchive { address, after, max_bytes });
    }
    for (at, raw) in raw.attach.iter().enumerate() {
        let of = (&raw.url, &raw.endpoint, &raw.region, &raw.access_key_id_file, &raw.secret_access_key_file);
        let address = address(dir, of).with_context(|| format!("{file}: storage.logs.attach[{at}]"))?;
        config.archives.attached.push(address);
    }
    Ok(())
}

type RawAddress<'a> =
    (&'a String, &'a Option<String>, &'a Option<String>, &'a Option<PathBuf>, &'a Option<PathBuf>);

fn address(dir: &Path, (url, endpoint, region, id, secret): RawAddress<'_>) -> anyhow::Result<BucketAddress> {
    let key_files = match (id, secret) {
        (Some(id), Some(secret)) => Some((dir.join(id), dir.join(secret))),
        (None, None) => None,
        _ => bail!("access_key_id_file and secret_access_key_file are there both or not at all"),
    };
    let (url, endpoint, region) = (url.clone(), endpoint.clone(), region.clone());
    if let Some(endpoint) = &endpoint
        && (!endpoint.starts_with("http://") && !endpoint.starts_with("https://") || endpoint.contains('@'))
    {
        bail!("endpoint: write http://host:port or https://host:port, without a user");
    }
    let address = BucketAddress { url, endpoint, region, key_files };
    address.check()?;
    Ok(address)
}

fn read_retention(file: &str, raw: &RawLogStorage, config: &mut Config) -> anyhow::Result<()> {
    let has_archive = raw.archive.is_some();
    let (raw, place) = (&raw.retention, "storage.logs.retention");
    if let Some(time) = raw.time {
        config.logs.retention = log_time(file, place, time, has_archive, &mut config.warnings)?;
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
            Some(time) => log_time(file, &place, time, has_archive, &mut config.warnings)?,
            None => config.logs.retention,
        };
        let retention_bytes = size(file, &place, class.size.as_deref())?;
        config.logs.classes.push(LogClass { name: class.name.clone(), matchers, retention, retention_bytes });
    }
    Ok(())
}

/// Checks how long logs are kept.
fn log_time(
    file: &str,
    place: &str,
    time: Duration,
    has_archive: bool,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Duration> {
    if time < RETENTION_MIN {
        bail!("{file}: {place}.time must be 2h at least");
    }
    if time > LOG_RETENTION_ADVISED && !has_archive {
        warnings.push(format!(
            "{file}: {place}.time is above the 45d that are advised; storage.logs.archive keeps more for less"
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
    fn an_archive_has_an_address_and_no_secret_in_the_file() {
        let read = |text: &str| {
            let text = format!("storage: {{logs: {{{text}}}}}");
            parse("c.yml", &text, Path::new("/etc/b")).map_err(|error| format!("{error:#}"))
        };
        let config = read(
            "retention: {time: 400d}, archive: {url: 's3://logs/prod', endpoint: 'http://minio:9000', access_key_id_file: id, secret_access_key_file: /run/secret, after: 3d, size: 10TB, cache: 64MB}, attach: [{url: 'file:///old'}]",
        );
        let config = config.unwrap();
        assert_eq!(config.warnings, [""; 0], "400 days are what an archive is for");
        let own = config.archives.own.unwrap();
        assert_eq!(own.address.key_files, Some((PathBuf::from("/etc/b/id"), PathBuf::from("/run/secret"))));
        assert_eq!((own.after, own.max_bytes), (Duration::from_hours(72), Some(10 << 40)));
        assert_eq!(config.logs.archive_cache_bytes, 64 << 20);
        assert_eq!(config.archives.attached[0].url, "file:///old");
        let error = |text: &str| read(text).unwrap_err();
        assert!(error("archive: {url: '/x'}").contains("storage.logs.archive: url: write file:///"));
        assert!(!error("archive: {url: 'https://KEY:SECRET@minio/b'}").contains("SECRET"));
        assert!(error("archive: {}").contains("url"));
        assert!(error("archive: {url: 's3://b', access_key_id_file: x}").contains("both or not at all"));
        assert!(error("archive: {url: 's3://b', cache: 1MB}").contains("8MB at least"));
        assert!(error("attach: [{url: 'ftp://x'}]").contains("storage.logs.attach[0]"));
        assert!(error("archive: {url: 's3://b', secret_access_key: x}").contains("unknown"));
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
