//! Searches: what a query finds in pages, and what is made of it.
//!
//! ```text
//! LogQuery ─► Plan ─┬─ per stream    labels decide, or not
//!                   ├─ per page      filter and table of texts: can a variable have it?
//!                   ├─ per template  constant text decides for all its rows: yes, no, look
//!                   ├─ per variable  texts, then cells decide for the rows of a template (`narrow`, `probe`, `any`, `fields`)
//!                   └─ per row       only where nothing of that decides: the message is put together
//! Found ─► newest first, counts, groups, patterns
//! ```
//!
//! What is found is what [`binnacle_model::log_query::LogQuery::matches`] says; a property test compares all answers with
//! those of a scan (`model::storage::NaiveLogs`).

mod answers;
mod any;
mod candidates;
mod cells;
pub(super) mod facts;
mod fields;
mod groups;
mod leaves;
mod narrow;
pub(super) mod needle;
mod patterns;
mod phrase;
mod plan;
mod probe;
mod regexes;
mod rows;
mod sights;
mod signature;
#[cfg(test)]
mod tests;
mod unread;
mod verdicts;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use binnacle_model::LogTime;
use binnacle_model::storage::{Deadline, LogOrder, LogRequest, StorageError};

use super::Shared;
use super::archive::Attached;
use super::page::{OpenPage, PageError, PageReader, PageView, SealedPage};
use super::partition::{PageFile, Summary};
use candidates::Candidates;
pub(super) use plan::Plan;
use rows::{Wants, find};
use unread::Unread;

/// Pages that are kept open: each has a file.
const OPEN_PAGES_MAX: usize = 512;

/// Why a page gave no answer.
pub(super) enum Broken {
    /// The page.
    Page(PageError),
    /// The query is to end.
    Query(StorageError),
}

fn fail(error: StorageError) -> Broken {
    Broken::Query(error)
}

/// Told of each page.
type OnPage<'a> = &'a mut dyn FnMut(&mut Plan, &dyn PageView, Option<&SealedPage>) -> Result<(), Broken>;

/// Told of each page, with the state of its thread.
type VisitAll<'a, S> =
    dyn Fn(&mut S, &mut Plan, &dyn PageView, Option<&SealedPage>) -> Result<(), Broken> + Sync + 'a;

/// Pages for which it is worth to wake a thread; tests have few.
const PAGES_PER_THREAD: usize = if cfg!(test) { 1 } else { 8 };

/// Pages that a search in order visits before it wakes a thread: mostly the first ones have enough.
const LEADING_PAGES: usize = if cfg!(test) { 1 } else { 4 };

/// Which pages are visited by several threads.
struct Walk<'a> {
    /// Those with the first rows in this order come first.
    order: Option<LogOrder>,
    /// Asked before each page; `false` ends the visit.
    goes_on: &'a (dyn Fn(&Summary) -> bool + Sync),
}

impl Walk<'_> {
    const ALL: Walk<'static> = Walk { order: None, goes_on: &|_| true };
}

/// Threads of one search.
const THREADS_MAX: usize = 8;

/// The rows of a page that a plan's request finds, ascending.
pub(super) fn rows_of(plan: &mut Plan, page: &dyn PageView) -> Result<Vec<u32>, PageError> {
    let found = find(plan, page, Wants::Rows, &Deadline::default()).map_err(|broken| match broken {
        Broken::Page(error) => error,
        Broken::Query(error) => PageError::Read(std::io::Error::other(error)),
    })?;
    found.all_rows(page)
}

impl Shared {
    /// Visits the pages that may have rows from `start` until before `end`, those with the first rows in the order
    /// first; open pages come before all others. `goes_on` is asked with the first and the last moment of each page
    /// before it is read, and ends the visit.
    ///
    /// Answers a sentence for each page that could not be read.
    fn visit(
        &self,
        plan: &mut Plan,
        order: LogOrder,
        deadline: &Deadline,
        goes_on: &mut dyn FnMut(&Summary) -> bool,
        visit: OnPage<'_>,
    ) -> Result<Vec<String>, StorageError> {
        let mut warnings = Vec::new();
        let (start, end) = (plan.request.start, plan.request.end);
        let mut candidates = self.see_open(start, end, &mut warnings, &mut |page| visit(plan, page, None))?;
        // What is no candidate any more because it was set aside meanwhile is among these.
        warnings.extend(self.losses(start, end));
        candidates.sort(order);
        let (held, unread) = (AtomicUsize::new(0), Unread::default());
        for at in 0..candidates.len() {
            let page = candidates.page(at);
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            if !goes_on(&page.summary) {
                break;
            }
            if candidates.is_excluded(at, &*self.disk, &plan.request.query) {
                continue;
            }
            let waiting = unread.wait();
            candidates.fetch_ahead(at, &*self.disk, &plan.request.query);
            self.see(page, plan, visit, &unread)?;
            drop(waiting);
            self.keep_or_forget(page, &held);
        }
        self.trim_cache();
        warnings.extend(unread.sentences());
        Ok(warnings)
    }

    /// Visits the pages that are not sealed, newest first, and answers the sealed ones of a time.
    fn see_open(
        &self,
        start: LogTime,
        end: LogTime,
        warnings: &mut Vec<String>,
        visit: &mut dyn FnMut(&dyn PageView) -> Result<(), Broken>,
    ) -> Result<Candidates, StorageError> {
        let mut see = |page: &OpenPage| match visit(page) {
            Ok(()) => Ok(()),
            Err(Broken::Query(error)) => Err(error),
            Err(Broken::Page(error)) => {
                warnings.push(format!("newest log lines: {error}"));
                Ok(())
            }
        };
        let (over, candidates) = {
            // Under the lock none of them is sealed meanwhile, so that no line is seen twice or not at all.
            let open = self.open_pages();
            let (over, taking): (Vec<_>, Vec<_>) = open.iter().rev().partition(|one| one.is_over());
            taking.into_iter().try_for_each(|one| see(&one.page))?;
            let over: Vec<Arc<OpenPage>> = over.into_iter().map(|one| Arc::clone(&one.page)).collect();
            (over, Candidates::new(self.searched(), start, end, self.cache_bytes))
        };
        over.iter().try_for_each(|page| see(page))?;
        Ok(candidates)
    }

    /// One search reads more pages than there is room for: those beyond it are let go at once.
    fn keep_or_forget(&self, page: &PageFile, held: &AtomicUsize) {
        let weight = page.weight();
        let weight = weight.max(self.cache_bytes / OPEN_PAGES_MAX);
        if held.fetch_add(weight, Ordering::Relaxed) + weight > self.cache_bytes {
            page.forget();
        }
    }

    /// Visits one sealed page. What is wrong with it is a warning.
    fn see(
        &self,
        page: &PageFile,
        plan: &mut Plan,
        visit: OnPage<'_>,
        unread: &Unread,
    ) -> Result<(), StorageError> {
        let rows = page.summary.rows;
        let far = page.object();
        if far.is_some_and(|_| unread.is_too_slow()) {
            unread.add(rows, far, "it is slow, and the search has waited long enough".to_owned());
            return Ok(());
        }
        let read = page.open(&*self.disk, &self.interned).map_err(Broken::Page);
        let seen = read.and_then(|sealed| {
            let reader = PageReader::new(sealed);
            visit(plan, &reader, Some(&reader.page))
        });
        match seen {
            Ok(()) => Ok(()),
            Err(Broken::Query(error)) => Err(error),
            // It expired meanwhile.
            Err(Broken::Page(_)) if page.is_gone() => Ok(()),
            Err(Broken::Page(error)) => {
                page.forget();
                if far.is_none() {
                    tracing::error!(page = %page.path().display(), %error, "a log page could not be read");
                }
                if far.is_none() && matches!(error, PageError::Damaged(_)) {
                    self.suspects
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(page.path().to_path_buf());
                }
                let reason = match (&error, far) {
                    (PageError::Read(cause), Some(_)) => cause.to_string(),
                    _ => error.to_string(),
                };
                unread.add(rows, far, reason);
                Ok(())
            }
        }
    }

    /// Visits the pages that may have rows of the request's time on several threads. Each has a state of its own, which
    /// `new` makes; answers them all, and a sentence for each page that could not be read.
    fn visit_all<S: Send>(
        &self,
        request: &LogRequest,
        walk: &Walk<'_>,
        deadline: &Deadline,
        new: &(dyn Fn() -> S + Sync),
        visit: &VisitAll<'_, S>,
    ) -> Result<(Vec<S>, Vec<String>), StorageError> {
        let mut warnings = Vec::new();
        let (mut plan, mut state) = (Plan::new(request), new());
        let mut candidates = self.see_open(request.start, request.end, &mut warnings, &mut |page| {
            visit(&mut state, &mut plan, page, None)
        })?;
        warnings.extend(self.losses(request.start, request.end));
        if let Some(order) = walk.order {
            candidates.sort(order);
        }
        let (next, held) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let unread = Unread::default();
        let end = AtomicUsize::new(candidates.len());
        let work = |plan: &mut Plan, state: &mut S, until: usize| -> Result<(), StorageError> {
            while next.load(Ordering::Relaxed) < until.min(end.load(Ordering::Relaxed)) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= candidates.len() {
                    break;
                }
                if deadline.is_over() {
                    return Err(StorageError::Deadline);
                }
                if !(walk.goes_on)(&candidates.page(at).summary) {
                    end.store(0, Ordering::Relaxed);
                    break;
                }
                if candidates.is_excluded(at, &*self.disk, &request.query) {
                    continue;
                }
                let _waiting = unread.wait();
                candidates.fetch_ahead(at, &*self.disk, &request.query);
                let page = candidates.page(at);
                self.see(page, plan, &mut |plan, view, sealed| visit(state, plan, view, sealed), &unread)?;
                self.keep_or_forget(page, &held);
            }
            Ok(())
        };
        if walk.order.is_some() {
            work(&mut plan, &mut state, LEADING_PAGES)?;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let left = end.load(Ordering::Relaxed).saturating_sub(next.load(Ordering::Relaxed));
        let helpers = (left / PAGES_PER_THREAD).min(cores.min(THREADS_MAX) - 1);
        let mut states = Vec::new();
        let pool = plan.pool();
        let help = |number: usize| {
            let (mut plan, mut state) = (Plan::beside(request, &pool, (number, helpers + 1)), new());
            work(&mut plan, &mut state, usize::MAX).map(|()| state)
        };
        let help = &help;
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..=helpers).map(|number| scope.spawn(move || help(number))).collect();
            let mut failed = work(&mut plan, &mut state, usize::MAX).err();
            for helper in helpers {
                match helper.join() {
                    Ok(Ok(state)) => states.push(state),
                    Ok(Err(error)) => failed = Some(error),
                    Err(_) => {
                        let reason = "a thread of a log search ended by a panic";
                        failed = Some(StorageError::Broken(reason.to_owned()));
                    }
                }
            }
            failed.map_or(Ok(()), Err)
        })?;
        states.push(state);
        self.trim_cache();
        warnings.extend(unread.sentences());
        Ok((states, warnings))
    }

    /// A sentence for each page of a time that was set aside, and for each archive of which not all is known.
    fn losses(&self, start: LogTime, end: LogTime) -> Vec<String> {
        let is_in_time = |(first, last): (LogTime, LogTime)| last >= start && first < end;
        let of_log = self.lost.iter().filter(|lost| is_in_time(lost.span));
        let mut warnings: Vec<String> = of_log.map(ToString::to_string).collect();
        warnings.extend(self.attached.iter().filter_map(Attached::trouble));
        for partition in self.searched() {
            for lost in partition.lost() {
                if lost.span.is_none_or(is_in_time) {
                    let rows = lost.rows.map_or_else(|| "some".to_owned(), |rows| rows.to_string());
                    let name = partition.id.name(&partition.class);
                    warnings.push(format!("{rows} log lines of partition {name} were damaged and set aside"));
                }
            }
        }
        warnings
    }

    /// Pages that are open, and bytes of memory of what was read of them.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let pages = self.searched().into_iter().flat_map(|one| one.pages());
        let weights = pages.map(|page| page.weight()).filter(|weight| *weight > 0);
        weights.fold((0, 0), |(count, bytes), weight| (count + 1, bytes + weight))
    }

    /// Lets go of what was read of pages and of indexes, oldest first, until the rest fits.
    fn trim_cache(&self) {
        let mut held = 0;
        for partition in self.searched().iter().rev() {
            if let Some(index) = partition.index() {
                held += index.weight();
                if held > self.cache_bytes {
                    index.forget();
                }
            }
            for page in partition.pages().iter().rev().filter(|page| page.weight() > 0) {
                held += page.weight().max(self.cache_bytes / OPEN_PAGES_MAX);
                if held > self.cache_bytes {
                    page.forget();
                }
            }
        }
    }
}
