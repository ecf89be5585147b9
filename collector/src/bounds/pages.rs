//! Room for pages that are scraped at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is given in pieces of this.
const PIECE_BYTES: usize = 16 * 1024;

/// What a target is given of which nothing is known yet.
const UNKNOWN_BYTES: usize = 256 * 1024;

/// Room for so many bytes, of which each page holds what its target's last one had.
///
/// A page that turns out larger takes more if there is more; if not, it waits to be the only one that has no bound but its
/// own. So no two wait for one another, and there is never more than the room and one page.
#[derive(Debug)]
pub(crate) struct PageRoom(Option<Room>);

#[derive(Debug)]
struct Room {
    pieces: Arc<Semaphore>,
    all: u32,
    beyond: Arc<Semaphore>,
}

/// What a page holds, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pieces: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

impl PageRoom {
    /// Without a bound there is always room.
    pub(crate) fn new(bytes: Option<usize>) -> Self {
        Self(bytes.map(|bytes| {
            let all = pieces_of(bytes).max(1);
            Room { pieces: Arc::new(Semaphore::new(all as usize)), all, beyond: Arc::new(Semaphore::new(1)) }
        }))
    }

    /// Waits for room for a page as long as its target's last one; zero if there was none.
    pub(crate) async fn hold(&self, last_bytes: usize) -> Held {
        let Some(room) = &self.0 else { return Held::default() };
        let wanted = if last_bytes == 0 { UNKNOWN_BYTES } else { last_bytes };
        let wanted = pieces_of(wanted).clamp(1, room.all);
        // It is closed by nobody.
        Held { pieces: Arc::clone(&room.pieces).acquire_many_owned(wanted).await.ok(), beyond: None }
    }

    /// Waits for room for a page that has grown to `bytes`.
    pub(crate) async fn grow(&self, held: &mut Held, bytes: usize) {
        let (Some(room), Some(pieces)) = (&self.0, &mut held.pieces) else { return };
        let has = u32::try_from(pieces.num_permits()).unwrap_or(u32::MAX);
        let wanted = pieces_of(bytes);
        if wanted <= has || held.beyond.is_some() {
            return;
        }
        // Twice as much at once, so that it is not asked for every piece.
        for more in [has, wanted - has] {
            if let Ok(more) = Arc::clone(&room.pieces).try_acquire_many_owned(more.max(wanted - has)) {
                pieces.merge(more);
                return;
            }
        }
        held.beyond = Arc::clone(&room.beyond).acquire_owned().await.ok();
    }
}

fn pieces_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[test]
    fn pages_beyond_the_room_wait_and_one_may_grow_without_it() {
        let room = PageRoom::new(Some(64 * PIECE_BYTES));
        let mut a = poll(room.hold(32 * PIECE_BYTES)).expect("room");
        let mut b = poll(room.hold(30 * PIECE_BYTES)).expect("room");
        assert!(poll(room.hold(3 * PIECE_BYTES)).is_none(), "two pieces are left");
        let c = poll(room.hold(1)).expect("a piece is left");
        assert!(poll(room.grow(&mut a, 33 * PIECE_BYTES)).is_some(), "the last one");
        assert!(poll(room.grow(&mut a, 90 * PIECE_BYTES)).is_some(), "the only one that goes beyond");
        assert!(poll(room.grow(&mut a, 900 * PIECE_BYTES)).is_some());
        assert!(poll(room.grow(&mut b, 40 * PIECE_BYTES)).is_none(), "another one does");
        drop(a);
        assert!(poll(room.grow(&mut b, 40 * PIECE_BYTES)).is_some());
        drop((b, c));
        assert!(poll(room.hold(usize::MAX)).is_some(), "never more than there is");
    }

    #[test]
    fn without_a_bound_there_is_room() {
        let room = PageRoom::new(None);
        let mut held = poll(room.hold(usize::MAX)).expect("room");
        assert!(poll(room.grow(&mut held, usize::MAX)).is_some());
        assert!(poll(room.hold(usize::MAX)).is_some());
    }
}
