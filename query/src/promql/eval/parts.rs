//! Series from storage, read and worked on by all cores.

use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::thread;

use binnacle_model::storage::{Series, SeriesSet, StorageError, Wanted};
use binnacle_model::{Matcher, TimeRange};

use super::super::notes::Notes;
use super::{EvalError, Run};

/// What is made of a series; `None` leaves it out.
pub(super) type Work<'w, T> = &'w (dyn Fn(&mut Run<'_>, Series) -> Result<Option<T>, EvalError> + Sync);

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get))
}

impl Run<'_> {
    /// What `work` makes of each series that satisfies the matchers, in no particular order.
    pub(super) fn stored<T: Send>(
        &mut self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        work: Work<'_, T>,
    ) -> Result<Vec<T>, EvalError> {
        let sets = self.storage.select_parts(matchers, range, wanted, self.deadline, cores())?;
        let mut sets = sets.into_iter();
        let Some(first) = sets.next() else { return Ok(Vec::new()) };
        thread::scope(|scope| {
            let others: Vec<_> = sets
                .map(|set| {
                    let mut run = self.fork();
                    scope.spawn(move || (run.drain(set, work), run.notes))
                })
                .collect();
            let mut found = self.drain(first, work);
            for other in others {
                // A panic goes on here, to be answered as one.
                let (more, notes) = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.notes.append(notes);
                if let Ok(all) = &mut found {
                    match more {
                        Ok(more) => all.extend(more),
                        Err(error) => found = Err(error),
                    }
                }
            }
            found
        })
    }

    fn drain<T>(&mut self, set: SeriesSet<'_>, work: Work<'_, T>) -> Result<Vec<T>, EvalError> {
        let mut found = Vec::new();
        for series in set {
            match series {
                Ok(series) => found.extend(work(self, series)?),
                Err(StorageError::Missing(text)) => self.notes.missing(&text),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// A run of the same query on another core, with notes of its own and the same budget.
    fn fork(&self) -> Self {
        let counts = self.counts.clone();
        Self { held: Arc::clone(&self.held), notes: Notes::default(), counts, ..*self }
    }
}
