//! Series from storage, read and worked on by all cores.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use binnacle_model::storage::{Series, SeriesSet, StorageError, Wanted};
use binnacle_model::{Matcher, TimeRange};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::super::ast::{Expr, Kind};
use super::super::notes::Notes;
use super::column::Column;
use super::{EvalError, Grid, Run, is_fixed, over_time, rates};

/// Where things go as they come, a part of them on each core.
pub(super) trait Gather<T>: Send {
    /// Takes one.
    fn take(&mut self, one: T, run: &mut Run<'_>) -> Result<(), EvalError>;

    /// Takes all that another core has taken.
    fn merge(&mut self, other: Self, run: &mut Run<'_>) -> Result<(), EvalError>;
}

impl<T: Send> Gather<T> for Vec<T> {
    fn take(&mut self, one: T, _: &mut Run<'_>) -> Result<(), EvalError> {
        self.push(one);
        Ok(())
    }

    fn merge(&mut self, other: Self, _: &mut Run<'_>) -> Result<(), EvalError> {
        self.extend(other);
        Ok(())
    }
}

/// Makes what gathers, for each core.
pub(super) type Make<'m, G> = &'m (dyn Fn() -> G + Sync);

/// What is made of a series; `None` leaves it out.
pub(super) type Work<'w, T> = &'w (dyn Fn(&mut Run<'_>, Series) -> Result<Option<T>, EvalError> + Sync);

/// What became of a part that another thread read.
type Slot<G> = Mutex<Option<(Result<G, EvalError>, Notes)>>;

fn put<G>(slot: &Slot<G>, found: Result<G, EvalError>, notes: Notes) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((found, notes));
}

/// Threads that read parts beside the queries' own. They are there already: to start one takes as long as a small query.
/// `None` where the machine gives us none; queries then read alone.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let pool =
            ThreadPoolBuilder::new().num_threads(cores()).thread_name(|number| format!("query-{number}"));
        pool.build().inspect_err(|error| tracing::error!(%error, "queries read on one thread each")).ok()
    });
    pool.as_ref()
}

/// Helpers that are at work.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// One thread of the pool, for one part: as nobody takes one that is busy, a small query never waits behind a large one.
struct Helper;

impl Helper {
    fn free() -> Option<Self> {
        pool()?;
        let take = |busy: usize| (busy < cores()).then_some(busy + 1);
        BUSY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(|_| Self)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get))
}

impl Run<'_> {
    /// Gathers what `work` makes of each series that satisfies the matchers, in no particular order.
    pub(super) fn stored<T, G: Gather<T>>(
        &mut self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        make: Make<'_, G>,
        work: Work<'_, T>,
    ) -> Result<G, EvalError> {
        let sets = self.storage.select_parts(matchers, range, wanted, &self.deadline, cores())?;
        let mut sets = sets.into_iter();
        let Some(first) = sets.next() else { return Ok(make()) };
        let slots: Vec<Slot<G>> = sets.as_slice().iter().map(|_| Slot::default()).collect();
        let (mut helped, mut own) = (Vec::new(), Vec::new());
        for (set, slot) in sets.zip(&slots) {
            match Helper::free() {
                Some(helper) => helped.push((set, slot, helper)),
                // All are busy with other queries, and nobody waits for them.
                None => own.push((set, slot)),
            }
        }
        let read_own = |run: &mut Self| {
            let found = run.drain(first, make, work);
            for (set, slot) in own {
                put(slot, run.drain(set, make, work), Notes::default());
            }
            found
        };
        let mut found = match pool() {
            Some(pool) if !helped.is_empty() => pool.in_place_scope(|scope| {
                for (set, slot, helper) in helped {
                    let mut run = self.fork();
                    scope.spawn(move |_| {
                        let found = run.drain(set, make, work);
                        run.release(run.plans.room());
                        put(slot, found, run.notes);
                        drop(helper);
                    });
                }
                read_own(self)
            }),
            _ => read_own(self),
        };
        for slot in slots {
            let (more, notes) = slot
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .expect("the scope ends when all parts are read, and goes on with a panic of one");
            self.notes.append(notes);
            found = found.and_then(|mut all| {
                all.merge(more?, self)?;
                Ok(all)
            });
        }
        found
    }

    fn drain<T, G: Gather<T>>(
        &mut self,
        set: SeriesSet<'_>,
        make: Make<'_, G>,
        work: Work<'_, T>,
    ) -> Result<G, EvalError> {
        let mut found = make();
        for series in set {
            match series {
                Ok(series) => {
                    if let Some(one) = work(self, series)? {
                        found.take(one, self)?;
                    }
                }
                Err(StorageError::Missing(text)) => self.notes.missing(&text),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Gathers an expression's columns. Where they come from storage, each core gathers what it has read, and no
    /// column is held any longer.
    pub(super) fn gather<G: Gather<Column>>(
        &mut self,
        expr: &Expr,
        grid: Grid,
        make: Make<'_, G>,
    ) -> Result<G, EvalError> {
        let is_plain = grid.steps > 0 && !(grid.steps > 1 && is_fixed(expr));
        match &expr.kind {
            Kind::Paren(inner) => return self.gather(inner, grid, make),
            Kind::Vector(selector) if is_plain => {
                self.hold(grid.steps)?;
                return self.vector(expr, selector, grid, make);
            }
            Kind::Call(call) if is_plain => {
                if let Some(function) = over_time::named(call.name) {
                    self.hold(grid.steps)?;
                    return self.over_windows(call, function, grid, make);
                }
            }
            _ => {}
        }
        let mut found = make();
        for column in self.columns(expr, grid)? {
            found.take(column, self)?;
        }
        Ok(found)
    }

    /// A run of the same query on another core, with notes of its own and the same budget.
    fn fork(&self) -> Self {
        let counts = self.counts.clone();
        let (plans, notes) = (rates::Plans::default(), Notes::default());
        let (deadline, room) = (self.deadline.clone(), self.room.clone());
        Self { deadline, room, counts, plans, notes, ..*self }
    }
}
