//! `collector`: what reading and scraping may take of the machine.

use std::sync::Arc;

use anyhow::{Context, bail};
use binnacle_collector::bounds::Bounds;
use serde::Deserialize;

use super::bytes;

/// What the collector needs for itself.
const MEMORY_MIN: u64 = 32 << 20;

/// With less, files would be read once a second at best.
const CPU_MIN: f64 = 0.05;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCollector {
    memory: Option<String>,
    cpu: Option<f64>,
}

/// Bounds of the collector.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct CollectorConfig {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Processors.
    pub(crate) cpu: Option<f64>,
}

impl CollectorConfig {
    /// For a process that does nothing but collect, or does.
    pub(crate) fn bounds(self, is_alone: bool) -> Arc<Bounds> {
        Arc::new(Bounds::new(self.memory, self.cpu, is_alone))
    }
}

impl RawCollector {
    pub(super) fn check(self, file: &str) -> anyhow::Result<CollectorConfig> {
        let memory = self.memory.map(|text| {
            let size = bytes(&text).with_context(|| {
                format!("{file}: collector.memory: {text:?} is no size; write a number and MB or GB")
            })?;
            if size < MEMORY_MIN {
                bail!(
                    "{file}: collector.memory: {text} is too little; it needs {}MB at least",
                    MEMORY_MIN >> 20
                );
            }
            Ok(size)
        });
        if let Some(cpu) = self.cpu.filter(|cpu| !(CPU_MIN..=4096.0).contains(cpu)) {
            bail!("{file}: collector.cpu: {cpu} is none of {CPU_MIN} and more processors, such as 0.5");
        }
        Ok(CollectorConfig { memory: memory.transpose()?, cpu: self.cpu })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    #[test]
    fn bounds_are_sizes_and_processors() {
        let read = |text: &str| match parse("c.yml", text, Path::new(".")) {
            Ok(config) => format!("{:?} {:?}", config.collector.memory, config.collector.cpu),
            Err(error) => error.to_string(),
        };
        assert_eq!(read("collector: {memory: 64MB, cpu: 0.5}"), "Some(67108864) Some(0.5)");
        assert_eq!(read("collector: {}"), "None None");
        assert_eq!(read("collector:"), "None None");
        for (text, reason) in [
            ("{memory: 31MB}", "collector.memory: 31MB is too little; it needs 32MB at least"),
            ("{memory: 64Mi}", "collector.memory: \"64Mi\" is no size; write a number and MB or GB"),
            ("{cpu: 0}", "collector.cpu: 0 is none of 0.05 and more processors, such as 0.5"),
            ("{cpu: .nan}", "collector.cpu: NaN is none of 0.05 and more processors, such as 0.5"),
        ] {
            assert_eq!(read(&format!("collector: {text}")), format!("c.yml: {reason}"));
        }
    }
}
