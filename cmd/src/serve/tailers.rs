//! Threads that read files of logs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use binnacle_collector::tail::edge::PodRules;
use binnacle_collector::tail::{LogSink, Options as TailOptions, Tailer};
use binnacle_model::time::Clock;

use super::hostname;
use crate::config::{Config, TailConfig};

/// Where files are read.
pub(super) struct Node {
    pub(super) name: String,
    /// For checkpoints and spools.
    pub(super) state_dir: PathBuf,
    /// What annotations of pods say.
    pub(super) pods: Option<Arc<PodRules>>,
}

/// Threads that tail.
pub(super) struct Tailers {
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Tailers {
    /// Of containers' logs that the file names; their checkpoints lie beside the data.
    pub(super) fn of_config(
        config: &Config,
        data: &Path,
        sink: &Arc<dyn LogSink>,
        clock: &Arc<dyn Clock>,
        telemetry: &binnacle_collector::Telemetry,
        pods: Option<Arc<PodRules>>,
    ) -> anyhow::Result<Self> {
        let node = config.node.clone().unwrap_or_else(hostname);
        let node = Node { name: node, state_dir: data.join("collector"), pods };
        Self::start(config.tails.clone(), &node, sink, clock, telemetry)
    }

    pub(super) fn start(
        tails: Vec<TailConfig>,
        node: &Node,
        sink: &Arc<dyn LogSink>,
        clock: &Arc<dyn Clock>,
        telemetry: &binnacle_collector::Telemetry,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (number, tail) in tails.into_iter().enumerate() {
            let state_dir: PathBuf = node.state_dir.join(number.to_string());
            let TailConfig { input, multiline, zone_seconds, edge, spool } = tail;
            let (number, pods) = (number as u32, node.pods.clone());
            let node = node.name.clone();
            let options =
                TailOptions { input, node, number, state_dir, spool, multiline, zone_seconds, edge, pods };
            let thread_name = format!("tail-{number}");
            let tailer = Tailer::new(options, Arc::clone(sink), Arc::clone(clock), telemetry.clone());
            let tailer = tailer.context("cannot start a thread")?;
            let stop = Arc::clone(&stop);
            let thread = std::thread::Builder::new().name(thread_name);
            threads.push(thread.spawn(move || tailer.run(&stop)).context("cannot start a thread")?);
        }
        Ok(Self { stop, threads: Mutex::new(threads) })
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a tailer ended by a panic");
            }
        }
    }
}
