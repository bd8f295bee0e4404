//! [`Holes`]: the stores of the streams that have a hole, and when each hole is over age.
//!
//! Contract: a stream has a store only while bytes are held for it, so memory and timers follow
//! the holes, never the number of flows. Each store has at most one entry in the heap of
//! deadlines, at or before its true deadline: an entry that comes up early goes back. So the heap
//! is no longer than there are stores, and filling a hole costs no look-up in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::segments::{Hole, Pool, Segments};
use super::stream::{Limits, Stream, deadline};
use crate::flow::FlowId;
use crate::net::End;
use crate::time::Timestamp;

/// Whose stream or hole it is; `K` is its key, or a reference to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<K> {
    pub(crate) key: K,
    pub(crate) flow: FlowId,
    /// Which end sends the stream.
    pub(crate) end: End,
    /// As known when the flow's last packet came.
    pub(crate) initiator_end: End,
}

impl<K> Owner<K> {
    /// The same with a reference to the key.
    pub(crate) fn by_ref(&self) -> Owner<&K> {
        let &Self { ref key, flow, end, initiator_end } = self;
        Owner { key, flow, end, initiator_end }
    }
}

impl<K: Copy> Owner<&K> {
    /// The same with a key of its own.
    fn copied(self) -> Owner<K> {
        let Self { key, flow, end, initiator_end } = self;
        Owner { key: *key, flow, end, initiator_end }
    }
}

#[derive(Debug)]
pub(crate) struct Held<K> {
    pub(crate) owner: Owner<K>,
    pub(crate) segments: Segments,
    /// Whether the heap has an entry for it, be it that of an earlier owner.
    queued: bool,
}

/// The stores of all streams with holes.
#[derive(Debug)]
pub(crate) struct Holes<K> {
    stores: Vec<Held<K>>,
    free: Vec<u32>,
    due: BinaryHeap<Reverse<(Timestamp, u32)>>,
    pub(crate) pool: Pool,
}

impl<K: Copy> Holes<K> {
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            stores: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            pool: Pool::new(blocks),
        }
    }

    /// Streams with holes.
    pub(crate) fn len(&self) -> usize {
        self.stores.len() - self.free.len()
    }

    /// The store of a stream; a fresh one when it has none. `None` when there are 2^32.
    pub(crate) fn open(
        &mut self,
        store: Option<u32>,
        owner: Owner<&K>,
    ) -> Option<(u32, &mut Segments, &mut Pool)> {
        let owner = owner.copied();
        let index = match store.or_else(|| self.free.pop()) {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.stores.len()).ok()?;
                self.stores.push(Held { owner, segments: Segments::default(), queued: false });
                index
            }
        };
        let held = self.stores.get_mut(index as usize)?;
        held.owner = owner;
        Some((index, &mut held.segments, &mut self.pool))
    }

    /// The store at an index, and the pool.
    pub(crate) fn get(&mut self, index: u32) -> Option<(&mut Held<K>, &mut Pool)> {
        Some((self.stores.get_mut(index as usize)?, &mut self.pool))
    }

    /// After work on a store: gives it back when nothing is held, else sees to its deadline.
    pub(crate) fn settle(&mut self, index: u32, stream: &mut Stream, limits: &Limits) {
        let Some(held) = self.stores.get_mut(index as usize) else { return };
        if held.segments.is_empty() {
            held.segments.hole = Hole::default();
            stream.store = None;
            self.free.push(index);
            return;
        }
        stream.store = Some(index);
        let due = deadline(&held.segments.hole, limits);
        if !held.queued && due != Timestamp::MAX {
            held.queued = true;
            self.due.push(Reverse((due, index)));
        }
    }

    /// When the next hole may be over age: at or before when one is.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.peek().map(|&Reverse((due, _))| due)
    }

    /// Takes the next entry that is due: the store, should its hole be over age by now.
    pub(crate) fn pop_due(&mut self, now: Timestamp, limits: &Limits) -> Option<Option<u32>> {
        let &Reverse((due, index)) = self.due.peek()?;
        if due > now {
            return None;
        }
        self.due.pop();
        let Some(held) = self.stores.get_mut(index as usize) else { return Some(None) };
        held.queued = false;
        if held.segments.is_empty() {
            return Some(None);
        }
        let due = deadline(&held.segments.hole, limits);
        if due > now {
            if due != Timestamp::MAX {
                held.queued = true;
                self.due.push(Reverse((due, index)));
            }
            return Some(None);
        }
        Some(Some(index))
    }
}
