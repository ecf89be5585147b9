//! Threads that read files of logs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use binnacle_collector::bounds::Bounds;
use binnacle_collector::tail::edge::PodRules;
use binnacle_collector::tail::{LogSink, Options as TailOptions, Tailer};
use binnacle_model::time::Clock;

use crate::config::{Config, TailConfig};

/// Where files are read.
pub(super) struct Node {
    pub(super) name: String,
    /// For checkpoints and spools.
    pub(super) state_dir: PathBuf,
    /// What annotations of pods say.
    pub(super) pods: Option<Arc<PodRules>>,
    /// What all of it may take.
    pub(super) bounds: Arc<Bounds>,
}

impl Node {
    /// The node that the file names, or this machine.
    pub(super) fn of(
        config: &Config,
        state_dir: &Path,
        pods: Option<Arc<PodRules>>,
        bounds: Arc<Bounds>,
    ) -> Self {
        Self { name: config.node_name(), state_dir: state_dir.to_path_buf(), pods, bounds }
    }
}

/// Threads that tail.
pub(super) struct Tailers {
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Tailers {
    pub(super) fn start(
        tails: Vec<TailConfig>,
        node: &Node,
        sink: &Arc<dyn LogSink>,
        clock: &Arc<dyn Clock>,
        telemetry: &binnacle_collector::Telemetry,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let pack_bytes = node.bounds.pack_bytes(tails.len());
        let mut names = HashSet::new();
        for (number, tail) in tails.into_iter().enumerate() {
            let TailConfig { input, multiline, zone_seconds, edge, spool } = tail;
            // It is the same wherever the input stands in the configuration.
            let mut name = input.dir_name();
            while !names.insert(name.clone()) {
                name.push_str("-again");
            }
            let state_dir = node.state_dir.join(name);
            let options = TailOptions {
                input,
                node: node.name.clone(),
                number: number as u32,
                state_dir,
                pack_bytes,
                cpu: node.bounds.cpu.clone(),
                spool,
                multiline,
                zone_seconds,
                edge,
                pods: node.pods.clone(),
            };
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
