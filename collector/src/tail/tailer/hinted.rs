//! Between two looks: what the kernel hints at.

use std::collections::HashMap;
use std::path::Path;

use binnacle_model::LogTime;

use super::reporting::show;
use super::{Tailer, is_hot};

impl Tailer {
    /// Looks at files of which the kernel says that they were written to. Answers whether directories changed.
    pub(in crate::tail) fn heed(&mut self) -> bool {
        let told = self.hints.told();
        let names = told.written.iter().flat_map(|dir| self.scanner.origins_in(dir));
        let numbers: Vec<u64> = names.filter_map(|name| self.by_name.get(name).copied()).collect();
        let now = self.clock.now_ns();
        for number in numbers {
            self.look_at(number, now);
        }
        told.is_changed
    }

    /// Watches the directories that are there; for writes where nothing was read for some time.
    pub(super) fn listen(&mut self, now: LogTime) {
        let is_busy = |name: &String| {
            let origin = self.by_name.get(name).and_then(|number| self.origins.get(number));
            origin.is_some_and(|origin| origin.files.iter().any(|file| is_hot(file, now)))
        };
        let wanted: HashMap<&Path, bool> = self
            .scanner
            .dirs()
            .map(|dir| {
                let mut origins = self.scanner.origins_in(dir).peekable();
                (dir, origins.peek().is_some() && !origins.any(is_busy))
            })
            .collect();
        self.hints.watch(&wanted);
        let watched = self.hints.len() as u64;
        self.shown.dirs_watched = show(&self.telemetry.dirs_watched, self.shown.dirs_watched, watched);
    }
}
