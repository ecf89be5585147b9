//! What matchers mean for sets of series, the same in the head and in blocks.

use binnacle_model::Matcher;
use roaring::{MultiOps, RoaringBitmap};

/// The series of `all` that satisfy every matcher.
///
/// `having(matcher, keeps)` answers the series that have the matcher's label with a value of which
/// [`Matcher::matches`] says `keeps`.
pub(super) fn select(
    matchers: &[Matcher],
    all: &RoaringBitmap,
    mut having: impl FnMut(&Matcher, bool) -> RoaringBitmap,
) -> RoaringBitmap {
    let mut found: Option<RoaringBitmap> = None;
    // A matcher that the empty value satisfies is satisfied by series without the label, too.
    let (open, narrowing): (Vec<&Matcher>, Vec<&Matcher>) =
        matchers.iter().partition(|matcher| matcher.matches(""));
    for matcher in narrowing {
        if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return RoaringBitmap::new();
        }
        let places = having(matcher, true);
        found = Some(match found {
            Some(found) => found & places,
            None => places,
        });
    }
    let mut found = found.unwrap_or_else(|| all.clone());
    for matcher in open {
        if found.is_empty() {
            break;
        }
        found -= having(matcher, false);
    }
    found
}

/// All that are in one of them.
pub(super) fn union<'a>(sets: impl Iterator<Item = &'a RoaringBitmap>) -> RoaringBitmap {
    sets.union()
}
