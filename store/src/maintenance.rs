//! The threads that keep a store in order.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Store;

/// Pause between two rounds of compaction and expiry.
const MAINTAIN_EVERY: Duration = Duration::from_secs(30);

/// Pause between two looks at a disk that refused a write.
const RECOVER_EVERY: Duration = Duration::from_secs(1);

/// How nice maintenance is: queries and writes come first, and it still gets its share of a busy machine.
const NICENESS: i32 = 5;

fn yield_to_others() {
    let own = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(own), NICENESS) {
        tracing::debug!(%error, "maintenance runs with the priority of all others");
    }
}

/// The threads that call [`Store::maintain`] and [`Store::tend_archive`] every half minute, and
/// [`Store::run_deletions`] more often, since somebody waits for it.
pub struct Maintenance {
    store: Arc<Store>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    threads: Vec<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts the threads.
    pub fn start(store: Arc<Store>) -> std::io::Result<Self> {
        let stop = Arc::default();
        let start = |name, work| every_so_often(name, &store, &stop, work);
        let maintain = start("store-maintenance", |store| {
            if let Err(error) = store.maintain() {
                tracing::error!(%error, "store maintenance failed; will try again");
            }
            MAINTAIN_EVERY
        })?;
        // An object store may take long for everything, and holds up nothing.
        let archive = start("log-archive", |store| {
            if let Err(error) = store.tend_archive() {
                let error = with_causes(&*error);
                tracing::error!(error, "the archive of logs was not tended; will try again");
            }
            MAINTAIN_EVERY
        })?;
        let delete = start("log-deletion", |store| match store.run_deletions() {
            Ok(true) => RECOVER_EVERY,
            Ok(false) => MAINTAIN_EVERY,
            Err(error) => {
                tracing::error!(%error, "how far deletions of logs are was not saved; will try again");
                MAINTAIN_EVERY
            }
        })?;
        let threads = vec![maintain, archive, delete];
        Ok(Self { store, stop, threads })
    }

    /// Waits for the rounds under way and ends the threads.
    pub fn stop(self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        self.store.logs.stop_soon();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("store maintenance ended by a panic");
            }
        }
    }
}

/// An error and what it came from.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Starts a thread that works, and pauses as long as that says, until it is to stop. In pauses it looks at a disk that
/// refused a write.
fn every_so_often(
    name: &str,
    store: &Arc<Store>,
    stop: &Arc<(Mutex<bool>, Condvar)>,
    work: fn(&Store) -> Duration,
) -> std::io::Result<JoinHandle<()>> {
    let (store, stop) = (Arc::clone(store), Arc::clone(stop));
    let run = move || {
        yield_to_others();
        let (flag, changed) = &*stop;
        let mut stopped = flag.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            drop(stopped);
            let mut pause = work(&store);
            stopped = flag.lock().unwrap_or_else(PoisonError::into_inner);
            while !*stopped && !pause.is_zero() {
                let piece = RECOVER_EVERY.min(pause);
                let waited = changed.wait_timeout(stopped, piece);
                stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
                pause -= piece;
                if store.write_error().is_some()
                    && let Err(error) = store.recover()
                {
                    tracing::error!(%error, "cannot look at the disk");
                }
            }
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}
