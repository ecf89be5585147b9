//! Scraping: a loop per target, from a page to samples.
//!
//! ```text
//! scrape config ─► pool ─► discovered labels ─► relabel_configs ─► targets
//!
//! target ─► fetch (deadline, bounded body) ─► parse (whole page or nothing) ─► metric_relabel_configs ─► append
//!              └ up, scrape_duration_seconds, …, and a staleness marker for each series that is gone
//! ```
//!
//! Invariants:
//! - A page is taken as a whole or not at all; what is wrong with it is shown at `/api/v1/targets`.
//! - All samples of a scrape have the moment at which it began, unless the page says their own.
//! - A series that was there in the scrape before, and is not now, ends with a staleness marker.

mod config;
mod labels;
mod pool;
mod run;
mod target;

use std::sync::Arc;

use binnacle_model::storage::Appender;
use binnacle_model::time::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Global, ScrapeConfig, Section, StaticConfig};
pub use pool::Pool;
use run::Descriptions;
pub use target::{Described, Health, PageSource, Target, TargetStatus};

use crate::Telemetry;

/// All targets and their loops.
pub struct Scraper {
    targets: Vec<Arc<Target>>,
    pools: Vec<Arc<Pool>>,
}

impl Scraper {
    /// A scraper of these targets; nothing happens before [`Self::start`]. Of `pools` there may be some without a target.
    pub fn new(targets: Vec<Target>, mut pools: Vec<Arc<Pool>>) -> Self {
        for target in &targets {
            if pools.iter().all(|pool| pool.job != target.pool.job) {
                pools.push(Arc::clone(&target.pool));
            }
        }
        pools.sort_by(|a, b| a.job.cmp(&b.job));
        Self { targets: targets.into_iter().map(Arc::new).collect(), pools }
    }

    /// The targets, for whoever shows them.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.targets.clone()
    }

    /// The scrape configs, ascending by job, each once.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.pools.clone()
    }

    /// Starts a loop per target on `tasks`; each ends after its scrape under way once `stop` fires.
    pub fn start(
        &self,
        appender: &Arc<dyn Appender>,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let descriptions = Arc::<Descriptions>::default();
        for target in &self.targets {
            let run = run::Run::new(
                Arc::clone(target),
                Arc::clone(appender),
                Arc::clone(clock),
                telemetry.clone(),
                Arc::clone(&descriptions),
            );
            tasks.spawn(run.run(stop.clone()));
        }
    }
}
