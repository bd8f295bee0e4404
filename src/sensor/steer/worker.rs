//! The worker's half of steering: packets in, records out.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::lane::{Lane, Parcel};
use crate::export::RecordWriter;
use crate::flow::{ByFiveTuple, FlowKey, FlowTracker, Packet};
use crate::frame::Frame;
use crate::sensor::direct::{PacketTracking, publish};
use crate::sensor::shard::{Pulse, WorkerFigures, WorkerShard};
use crate::time::Timestamp;

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts<T = FlowTracker<ByFiveTuple>> {
    /// Its flows.
    pub tracking: T,
    /// Its records.
    pub records: RecordWriter,
    /// Where it counts.
    pub shard: Arc<CachePadded<WorkerShard>>,
    /// What shows that it goes on, where packets come from a source that does not wait: then no more than some flows end at a
    /// time while packets wait.
    pub live: Option<Arc<CachePadded<Pulse>>>,
}

/// A worker that runs.
#[derive(Debug)]
pub(super) struct Worker<T> {
    parts: WorkerParts<T>,
    figures: WorkerFigures,
    turns: u64,
}

impl<T: PacketTracking> Worker<T> {
    pub(super) fn new(parts: WorkerParts<T>) -> Self {
        Self { parts, figures: WorkerFigures::default(), turns: 0 }
    }

    /// Shows that it goes on.
    pub(super) fn beat(&mut self) {
        if let Some(pulse) = &self.parts.live {
            self.turns += 1;
            pulse.beat(self.turns);
        }
    }

    /// Tracks what came along `lane`.
    pub(super) fn track(&mut self, Parcel { packets, now }: Parcel, lane: &Lane) {
        self.take(&packets, &[]);
        lane.recycle(packets);
        // What is due waits for what is at the door, unless that can wait itself.
        while self.handle_timeout(now) && (self.parts.live.is_none() || lane.queue.is_empty()) {
            self.beat();
        }
        self.publish();
    }

    /// Tracks packets of these frames.
    pub(super) fn take(&mut self, packets: &[Packet<FlowKey>], frames: &[Frame<'_>]) {
        let WorkerParts { tracking, records, .. } = &mut self.parts;
        tracking.process_packets(packets, frames, records);
    }

    /// It is `now`, and nothing is at the door: all that is due ends.
    pub(super) fn tick(&mut self, now: Timestamp) {
        while self.handle_timeout(now) {}
        self.publish();
    }

    fn handle_timeout(&mut self, now: Timestamp) -> bool {
        let WorkerParts { tracking, records, .. } = &mut self.parts;
        tracking.handle_timeout(now, records)
    }

    /// Hands on records that waited for long.
    pub(super) fn rest(&mut self) {
        self.parts.records.flush_if_old();
    }

    /// Nothing will come any more: every flow ends.
    pub(super) fn finish(mut self) {
        let WorkerParts { tracking, records, .. } = &mut self.parts;
        tracking.drain(records);
        records.flush();
        self.publish();
    }

    fn publish(&mut self) {
        let WorkerParts { tracking, records, shard, .. } = &self.parts;
        publish(&mut self.figures, tracking, records, shard);
    }
}
