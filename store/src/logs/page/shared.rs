//! What many pages have in common, once in memory and with one number.

use std::sync::Arc;

use binnacle_model::Labels;

use super::Numbered;
use crate::logs::template::Template;

/// Gives equal templates and labels of many pages one place in memory, and one number.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    templates: foldhash::HashMap<Arc<Template>, u32>,
    /// The number of the next new template.
    next: u32,
    labels: foldhash::HashMap<Labels, u32>,
    /// The number of the next new stream.
    next_stream: u32,
}

impl Shared {
    pub(super) fn template(&mut self, template: Template) -> (Arc<Template>, u32) {
        if let Some((known, number)) = self.templates.get_key_value(&template) {
            return (Arc::clone(known), *number);
        }
        let (template, number) = (Arc::new(template), self.next);
        self.next = self.next.wrapping_add(1);
        self.templates.insert(Arc::clone(&template), number);
        (template, number)
    }

    pub(super) fn stream(&mut self, labels: Labels) -> (Labels, u32) {
        if let Some((known, number)) = self.labels.get_key_value(&labels) {
            return (known.clone(), *number);
        }
        let number = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(1);
        self.labels.insert(labels.clone(), number);
        (labels, number)
    }

    /// The numbers of a page's templates. Where one is there twice, which no page should have, each gets one of its own.
    pub(super) fn numbered(&mut self, numbers: Vec<u32>) -> Option<Numbered> {
        let count = numbers.len() as u32;
        Numbered::new(numbers).or_else(|| Numbered::new(fresh(&mut self.next, count)))
    }

    /// The same of its streams.
    pub(super) fn numbered_streams(&mut self, numbers: Vec<u32>) -> Option<Numbered> {
        let count = numbers.len() as u32;
        Numbered::new(numbers).or_else(|| Numbered::new(fresh(&mut self.next_stream, count)))
    }

    /// Lets go of what no page has any more.
    pub(crate) fn sweep(&mut self) {
        self.templates.retain(|template, _| Arc::strong_count(template) > 1);
        self.labels.clear();
    }
}

/// So many numbers that nothing has.
fn fresh(next: &mut u32, count: u32) -> Vec<u32> {
    let first = *next;
    *next = next.wrapping_add(count);
    (0..count).map(|at| first.wrapping_add(at)).collect()
}
