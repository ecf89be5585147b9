//! When a query is to end, and how much it may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::storage::StorageError;

/// Says when an answer is no longer wanted: its time is over, or whoever asked has left.
///
/// Work checks it once per series or per thousand entries.
#[derive(Debug, Clone, Default)]
pub struct Deadline {
    is_over: Arc<AtomicBool>,
    room: Option<Room>,
}

impl Deadline {
    /// Ends all work that holds a clone.
    pub fn expire(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether to stop.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The same one, for work that holds no more than there is room for. Without, there is no bound.
    #[must_use]
    pub fn within(&self, room: &Room) -> Self {
        Self { is_over: Arc::clone(&self.is_over), room: Some(room.clone()) }
    }

    /// The room, if there is a bound.
    pub fn room(&self) -> Option<&Room> {
        self.room.as_ref()
    }

    /// Nothing held yet of the room.
    pub fn holding(&self) -> Holding {
        Holding { room: self.room.clone(), taken: 0, used: 0 }
    }
}

/// What a query may hold at once, on all cores, in samples of 16 bytes. The last clone lets go of all of it.
#[derive(Debug, Clone)]
pub struct Room(Arc<RoomState>);

#[derive(Debug)]
struct RoomState {
    held: AtomicUsize,
    most: usize,
    /// That of all queries.
    whole: Option<Room>,
}

impl Drop for RoomState {
    fn drop(&mut self) {
        if let Some(whole) = &self.whole {
            whole.release(*self.held.get_mut());
        }
    }
}

impl Room {
    /// Room for so many samples.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(RoomState { held: AtomicUsize::new(0), most, whole: None }))
    }

    /// Room for so many samples, or all there are, which others have less of meanwhile.
    #[must_use]
    pub fn part(&self, most: usize) -> Self {
        let most = most.min(self.0.most);
        Self(Arc::new(RoomState { held: AtomicUsize::new(0), most, whole: Some(self.clone()) }))
    }

    /// Samples held now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Counts samples that are held from now on; answers how many there are now.
    ///
    /// # Errors
    /// [`StorageError::TooMuch`], or [`StorageError::Crowded`] if others hold what there is; then they do not count.
    pub fn hold(&self, samples: usize) -> Result<usize, StorageError> {
        let RoomState { held, most, whole } = &*self.0;
        let more = |held: usize| held.checked_add(samples).filter(|held| held <= most);
        let before = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let before = before.map_err(|_| StorageError::TooMuch)?;
        if let Some(whole) = whole
            && whole.hold(samples).is_err()
        {
            held.fetch_sub(samples, Ordering::Relaxed);
            return Err(StorageError::Crowded);
        }
        Ok(before + samples)
    }

    /// Lets go of samples that were counted.
    pub fn release(&self, samples: usize) {
        let mut released = 0;
        // What was counted a little short when it was made must not make a debt.
        let less = |held: usize| {
            released = held.min(samples);
            Some(held - released)
        };
        // The closure always answers.
        let _ = self.0.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if let Some(whole) = &self.0.whole {
            whole.release(released);
        }
    }

    /// Lets go of all but so many.
    pub fn keep(&self, samples: usize) {
        self.release(self.held().saturating_sub(samples));
    }
}

/// Part of a room, which is let go of when this is.
#[derive(Debug)]
pub struct Holding {
    room: Option<Room>,
    taken: usize,
    used: usize,
}

/// Taken from the room and given back at once, so that cores seldom meet there.
const STEP: usize = 4096;

impl Holding {
    /// Holds more.
    ///
    /// # Errors
    /// [`StorageError::TooMuch`]
    pub fn add(&mut self, samples: usize) -> Result<(), StorageError> {
        self.used += samples;
        if self.used <= self.taken {
            return Ok(());
        }
        let Some(room) = &self.room else { return Ok(()) };
        let more = (self.used - self.taken).max(STEP.min(room.0.most / 64));
        // What there is no room for is not used either: whoever asked lets go of it.
        room.hold(more).inspect_err(|_| self.used = self.taken)?;
        self.taken += more;
        Ok(())
    }

    /// Lets go of some of it.
    pub fn give_back(&mut self, samples: usize) {
        self.used = self.used.saturating_sub(samples);
        if let Some(room) = &self.room
            && self.taken - self.used.min(self.taken) > 2 * STEP
        {
            room.release(self.taken - self.used);
            self.taken = self.used;
        }
    }

    /// Takes some of it apart.
    #[must_use]
    pub fn split(&mut self, samples: usize) -> Self {
        let samples = samples.min(self.used);
        let taken = samples.min(self.taken);
        self.used -= samples;
        self.taken -= taken;
        Self { room: self.room.clone(), taken, used: samples }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.release(self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_once_and_given_back() {
        let room = Room::new(1_000_000);
        let mut all = Deadline::default().within(&room).holding();
        all.add(100_000).unwrap();
        let part = all.split(60_000);
        assert_eq!(room.held(), 100_000);
        all.give_back(30_000);
        assert_eq!(room.held(), 70_000);
        drop(part);
        assert_eq!(room.held(), 10_000);
        all.add(1).unwrap();
        assert!(room.held() > 10_000);
        drop(all);
        assert_eq!(room.held(), 0);
    }

    #[test]
    fn queries_share_what_there_is() {
        let whole = Room::new(100);
        let (one, other) = (whole.part(80), whole.part(80));
        one.hold(60).unwrap();
        assert!(matches!(other.hold(50), Err(StorageError::Crowded)));
        assert_eq!((other.held(), whole.held()), (0, 60), "what is refused does not count");
        other.hold(40).unwrap();
        other.release(10);
        assert_eq!(whole.held(), 90);
        one.keep(10);
        assert_eq!((one.held(), whole.held()), (10, 40));
        assert!(matches!(other.hold(51), Err(StorageError::TooMuch)));
        let large = whole.part(1000);
        assert!(matches!(large.hold(101), Err(StorageError::TooMuch)), "it never fits");
        drop(other);
        assert_eq!(whole.held(), 10);
        drop(one.clone());
        drop(one);
        assert_eq!(whole.held(), 0);
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let room = Room::new(100);
        let mut holding = Deadline::default().within(&room).holding();
        holding.add(100).unwrap();
        assert!(matches!(holding.add(1), Err(StorageError::TooMuch)));
        assert!(room.hold(1).is_err(), "all of it is held");
        drop(holding);
        assert_eq!(room.held(), 0);
        let mut unbounded = Deadline::default().holding();
        unbounded.add(usize::MAX / 2).unwrap();
    }
}
