//! What one tracker counts: plain fields, published to a shard at the end of a batch.
//!
//! The shard has one writer (this) and any number of readers. A sequence number that is odd while
//! the writer is at work lets a reader see all cells of one moment or try again; the writer never
//! waits and issues nothing but plain stores. So figures that belong together stay together:
//! created − ended = active in every snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::labels::anomaly_number;
use super::registry::Registry;
use super::totals::{HEAD_CELLS, TAIL_CELLS, Totals};
use crate::event::{AnomalyKind, EndReason};
use crate::flow::FlowStats;
use crate::net::{L4, Side};

/// A tracker's totals as other threads may read them. Two cache lines of alignment, because
/// processors fetch lines in pairs.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Shard {
    /// Odd while cells are being stored.
    sequence: AtomicU64,
    head: [AtomicU64; HEAD_CELLS],
    tail: [AtomicU64; TAIL_CELLS],
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            head: [const { AtomicU64::new(0) }; HEAD_CELLS],
            tail: [const { AtomicU64::new(0) }; TAIL_CELLS],
        }
    }

    /// Stores `totals`, all of them or only the head. Only the one writer may call it.
    #[inline]
    fn store(&self, totals: &mut Totals, with_tail: bool) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let mut cells = self.head.iter();
        totals.visit_head(|value| store_next(&mut cells, value));
        if with_tail {
            let mut cells = self.tail.iter();
            totals.visit_tail(|value| store_next(&mut cells, value));
        }
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    /// The totals of one moment; `None` when the writer was at work every time of many, which
    /// takes a thread that is stopped in the middle of a store.
    pub(super) fn load(&self) -> Option<Totals> {
        const TRIES: u32 = 10_000;
        let mut totals = Totals::default();
        for attempt in 0..TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            let mut cells = self.head.iter();
            totals.visit_head(|value| load_next(&mut cells, value));
            let mut cells = self.tail.iter();
            totals.visit_tail(|value| load_next(&mut cells, value));
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return Some(totals);
            }
            if attempt > 100 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        None
    }
}

#[inline]
fn store_next<'a>(cells: &mut impl Iterator<Item = &'a AtomicU64>, value: &mut u64) {
    if let Some(cell) = cells.next() {
        cell.store(*value, Ordering::Relaxed);
    }
}

fn load_next<'a>(cells: &mut impl Iterator<Item = &'a AtomicU64>, value: &mut u64) {
    if let Some(cell) = cells.next() {
        *value = cell.load(Ordering::Relaxed);
    }
}

/// The plain counters of one tracker, and where it publishes them.
#[derive(Debug)]
pub(super) struct Counting {
    totals: Totals,
    /// Whether something else than the head changed since the last publication.
    tail_changed: bool,
    shard: Arc<Shard>,
    registry: Registry,
}

impl Default for Counting {
    fn default() -> Self {
        Self::new(Registry::global())
    }
}

impl Counting {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            totals: Totals::default(),
            tail_changed: false,
            shard: registry.enter(),
            registry: registry.clone(),
        }
    }

    #[inline]
    pub(super) fn flow_created(&mut self, l4: L4) {
        self.totals.created[l4 as usize] += 1;
    }

    #[inline]
    pub(super) fn flow_ended(&mut self, reason: EndReason, stats: &FlowStats) {
        self.totals.flow_ended(reason, stats);
        self.tail_changed = true;
    }

    #[inline]
    pub(super) fn anomaly(&mut self, kind: &AnomalyKind) {
        self.totals.anomalies[anomaly_number(kind)] += 1;
        self.tail_changed = true;
    }

    #[inline]
    pub(super) fn unmatched(&mut self, frames: u64) {
        self.totals.unmatched += frames;
    }

    #[inline]
    pub(super) fn batch(&mut self, packets: u64, bytes: u64, active: usize) {
        self.totals.live_packets += packets;
        self.totals.live_bytes += bytes;
        self.totals.active = active as u64;
        self.shard.store(&mut self.totals, self.tail_changed);
        self.tail_changed = false;
    }

    #[inline]
    pub(super) fn dropped_ooo(&mut self, side: Side, segments: u64) {
        self.totals.dropped_ooo[side as usize] += segments;
        self.tail_changed = true;
    }

    #[inline]
    pub(super) fn dropped_oversize(&mut self, side: Side, bytes: u64) {
        self.totals.dropped_oversize[side as usize] += bytes;
        self.tail_changed = true;
    }
}

/// The flows that are still there go with their tracker: they ended as forgotten.
impl Drop for Counting {
    fn drop(&mut self) {
        self.totals.ended[EndReason::Forgotten as usize] += self.totals.open();
        self.totals.active = 0;
        self.registry.leave(&self.shard, &self.totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_reader_never_sees_half_a_batch() {
        let registry = Registry::new();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut counting = Counting::new(&registry);
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    counting.flow_created(L4::Udp);
                    counting.dropped_ooo(Side::Responder, 1);
                    counting.batch(1, 3, n);
                }
            });
            let mut last = 0;
            for _ in 0..20_000 {
                let totals = registry.totals();
                assert_eq!(totals.live_packets, totals.active);
                assert_eq!(totals.live_bytes, 3 * totals.active);
                assert_eq!(totals.created[1], totals.active);
                assert_eq!(totals.dropped_ooo[1], totals.active);
                assert!(totals.active >= last);
                last = totals.active;
            }
            stop.store(true, Ordering::Relaxed);
        });
        let totals = registry.totals();
        assert_eq!(totals.active, 0);
        assert_eq!(totals.created[1], totals.ended[EndReason::Forgotten as usize]);
    }
}
