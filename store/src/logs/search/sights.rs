//! Which patterns were there before a moment: newest partitions first, because what is not new was mostly there the day
//! before.

use std::collections::{HashMap, HashSet};

use binnacle_model::LogTime;
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::{Deadline, KnownPatterns, LogPattern, LogRequest, StorageError};

use super::plan::Plan;
use super::unread::Unread;
use crate::fs::Disk;
use crate::logs::Logs;
use crate::logs::index::PatternKey;
use crate::logs::page::{
    MINUTE_NS, PageError, PageTemplate, PageView, SealedPage, first_minutes, level_number,
};
use crate::logs::partition::Partition;

/// Patterns that are looked for.
struct Sights {
    numbers: HashMap<PatternKey, usize>,
    /// The minute before which they are looked for, since 1970.
    before: i64,
    seen: Vec<bool>,
    left: usize,
    /// What pattern a template has, by its number among all that are open.
    of_template: HashMap<u32, Option<usize>, foldhash::fast::FixedState>,
}

impl Sights {
    fn mark(&mut self, number: usize) {
        self.left -= usize::from(!self.seen[number]);
        self.seen[number] = true;
    }

    fn number_of(&mut self, one: &PageTemplate) -> Option<usize> {
        let numbers = &self.numbers;
        let find = || numbers.get(&PatternKey::of(&one.template)).copied();
        match one.number {
            Some(number) => *self.of_template.entry(number).or_insert_with(find),
            None => find(),
        }
    }

    fn add_page(&mut self, page: &dyn PageView, sealed: Option<&SealedPage>) -> Result<(), PageError> {
        let (minutes, before) = (first_minutes(page, sealed)?, self.before);
        for (one, minute) in page.templates().iter().zip(minutes) {
            if minute < before
                && let Some(number) = self.number_of(one)
            {
                self.mark(number);
            }
        }
        Ok(())
    }

    /// What the index of a partition says of those that were not seen yet; the pages of which it speaks.
    fn add_index(&mut self, partition: &Partition, disk: &dyn Disk) -> HashSet<u32> {
        let left = self.numbers.iter().filter(|(_, number)| !self.seen[**number]);
        let (keys, numbers): (Vec<&PatternKey>, Vec<usize>) =
            left.map(|(key, number)| (key, *number)).unzip();
        let asked = partition.ask_index(disk, |index| {
            let pages = index.pages_with_patterns();
            let minutes = if pages.is_empty() { Vec::new() } else { index.first_minutes(disk, &keys)? };
            Ok((minutes, pages))
        });
        let (minutes, pages) = asked.unwrap_or_default();
        for (number, minute) in numbers.into_iter().zip(minutes) {
            if minute.is_some_and(|minute| minute < self.before) {
                self.mark(number);
            }
        }
        pages
    }
}

impl Logs {
    /// See [`binnacle_model::storage::LogSearcher::known_patterns`].
    pub(crate) fn known_patterns(
        &self,
        patterns: &[LogPattern],
        before: LogTime,
        deadline: &Deadline,
    ) -> Result<KnownPatterns, StorageError> {
        let key =
            |one: &LogPattern| PatternKey { level: level_number(&one.level), text: one.pattern.clone() };
        let mut sights = Sights {
            numbers: patterns.iter().map(key).zip(0..).collect(),
            before: before.0.div_euclid(MINUTE_NS),
            seen: vec![false; patterns.len()],
            left: patterns.len(),
            of_template: HashMap::default(),
        };
        let request = LogRequest { query: LogQuery::All, start: LogTime(i64::MIN), end: before };
        let mut warnings = Vec::new();
        let candidates = self.shared.see_open(request.start, request.end, &mut warnings, &mut |page| {
            Ok(sights.add_page(page, None)?)
        })?;
        warnings.extend(self.shared.losses(request.start, request.end));
        let (mut plan, unread) = (Plan::new(&request), Unread::default());
        for (partition, pages) in candidates.by_partition().into_iter().rev() {
            if sights.left == 0 {
                break;
            }
            let by_index = sights.add_index(&partition, &*self.shared.disk);
            for page in pages {
                if sights.left == 0 || by_index.contains(&page.summary.number) {
                    continue;
                }
                if deadline.is_over() {
                    return Err(StorageError::Deadline);
                }
                let mut visit = |_: &mut Plan, view: &dyn PageView, sealed: Option<&SealedPage>| {
                    Ok(sights.add_page(view, sealed)?)
                };
                self.shared.see(&page, &mut plan, &mut visit, &unread)?;
            }
        }
        self.shared.trim_cache();
        warnings.extend(unread.sentences());
        Ok(KnownPatterns { known: sights.seen, warnings })
    }
}
