//! The way to a worker, and what goes along it.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::export::queue::Queue;
use crate::flow::{FlowKey, Packet};
use crate::time::Timestamp;

/// Packets that are enough for a parcel. What one batch brings is not cut, so that one may have some more.
pub(super) const PARCEL_PACKETS: usize = 256;

/// What goes to a worker.
#[derive(Debug)]
pub(super) struct Parcel {
    /// None where only the time is told.
    pub(super) packets: Vec<Packet<FlowKey>>,
    pub(super) now: Timestamp,
}

/// The way to a worker.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: Queue<Parcel>,
    recycled: ArrayQueue<Vec<Packet<FlowKey>>>,
}

impl Lane {
    /// For `parcels` at most.
    pub(super) fn new(parcels: usize) -> Arc<Self> {
        let recycled = ArrayQueue::new(parcels + 2);
        Arc::new(Self { queue: Queue::new(parcels), recycled })
    }

    /// Room for the packets of the next parcel.
    pub(super) fn empty(&self) -> Vec<Packet<FlowKey>> {
        self.recycled.pop().unwrap_or_else(|| Vec::with_capacity(2 * PARCEL_PACKETS))
    }

    /// Takes back what `packets` were in.
    pub(super) fn recycle(&self, mut packets: Vec<Packet<FlowKey>>) {
        packets.clear();
        if packets.capacity() > 0 {
            // A full recycle queue has enough parcels: this one is freed.
            let _ = self.recycled.push(packets);
        }
    }
}

/// Closes the lane when its worker ends in whatever way, so that nobody ever waits for it.
pub(super) struct OpenLane(pub(super) Arc<Lane>);

impl Drop for OpenLane {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}
