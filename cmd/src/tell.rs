//! Where an alert would go, and what would be said: `config routes test`, `template render`, with amtool's flags.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use binnacle_alerting::template::{Data, Notifications};
use binnacle_model::Labels;
use binnacle_model::template::Mode;
use binnacle_model::time::Clock;

use crate::clock::SystemClock;
use crate::{RenderArgs, RenderMode, RoutesTestArgs, config};

/// What is rendered where nobody says of what.
const EXAMPLE: &str = r#"{
    "receiver": "example", "status": "firing", "externalURL": "http://localhost:9090",
    "groupLabels": {"alertname": "Example"},
    "commonLabels": {"alertname": "Example", "severity": "warning"},
    "commonAnnotations": {"summary": "An example"},
    "alerts": [{
        "status": "firing", "labels": {"alertname": "Example", "severity": "warning"},
        "annotations": {"summary": "An example"}, "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://localhost:9090/graph", "fingerprint": "0123456789abcdef"
    }]
}"#;

/// Prints the receivers of an alert.
pub(crate) fn test_routes(args: &RoutesTestArgs) -> anyhow::Result<()> {
    let (routes, _) = config::load_alertmanager(&args.config)?;
    let mut pairs = Vec::new();
    for text in &args.labels {
        let (name, value) =
            text.split_once('=').with_context(|| format!("{text:?}: labels are NAME=VALUE"))?;
        pairs.push((name.trim(), value.trim().trim_matches('"')));
    }
    let receivers = routes.receivers_of(&Labels::new(pairs)?);
    println!("{}", receivers.join(","));
    match &args.verify {
        Some(wanted) if wanted.split(',').map(str::trim).ne(receivers.iter().map(String::as_str)) => {
            bail!("expected receivers did not match resolved receivers: wanted {wanted}")
        }
        _ => Ok(()),
    }
}

/// Prints what a text makes of a notification.
pub(crate) fn render(args: &RenderArgs) -> anyhow::Result<()> {
    let mut templates = Notifications::default();
    for path in config::named_files(Path::new(""), &args.globs)? {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        templates.add(&name, &text).map_err(anyhow::Error::msg)?;
    }
    let data = match &args.data {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?
        }
        None => serde_json::from_str::<Data>(EXAMPLE)?,
    };
    let mode = if args.mode == RenderMode::Html { Mode::Html } else { Mode::Text };
    let made = templates.render(&args.text, &data, mode, SystemClock.now()).map_err(anyhow::Error::msg)?;
    std::io::stdout().write_all(made.as_bytes())?;
    Ok(())
}
