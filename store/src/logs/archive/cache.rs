//! Chunks of archived objects in memory, those that were asked for last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// An object's number in this process, and the how-maniest of its chunks.
pub(super) type ChunkKey = (u64, u64);

/// See the module.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: HashMap<ChunkKey, (Arc<[u8]>, u64)>,
    /// By when they were asked for last.
    order: BTreeMap<u64, ChunkKey>,
    tick: u64,
    bytes: usize,
}

impl ChunkCache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default() }
    }

    pub(super) fn get(&self, key: ChunkKey) -> Option<Arc<[u8]>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let (chunk, tick) = state.chunks.get_mut(&key)?;
        state.order.remove(tick);
        state.tick += 1;
        *tick = state.tick;
        state.order.insert(state.tick, key);
        Some(Arc::clone(chunk))
    }

    /// Whether a chunk is there; it is none the younger for it.
    pub(super) fn has(&self, key: ChunkKey) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).chunks.contains_key(&key)
    }

    pub(super) fn put(&self, key: ChunkKey, chunk: Arc<[u8]>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        state.tick += 1;
        state.bytes += chunk.len();
        if let Some((old, tick)) = state.chunks.insert(key, (chunk, state.tick)) {
            state.bytes -= old.len();
            state.order.remove(&tick);
        }
        state.order.insert(state.tick, key);
        while state.bytes > self.max_bytes
            && let Some((_, oldest)) = state.order.pop_first()
        {
            state.bytes -= state.chunks.remove(&oldest).map_or(0, |(chunk, _)| chunk.len());
        }
    }

    /// Bytes that it holds now.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_last_stays() {
        let cache = ChunkCache::new(10);
        let chunk = |bytes: usize| Arc::<[u8]>::from(vec![0; bytes]);
        cache.put((1, 0), chunk(4));
        cache.put((1, 1), chunk(4));
        assert!(cache.get((1, 0)).is_some());
        cache.put((2, 0), chunk(4));
        assert!(!cache.has((1, 1)) && cache.has((1, 0)) && cache.has((2, 0)));
        cache.put((2, 0), chunk(1));
        assert_eq!(cache.bytes(), 5);
        cache.put((3, 0), chunk(11));
        assert_eq!(cache.bytes(), 0, "what is larger than all of it is not kept");
    }
}
