//! The worker's half of steering: packets in, records out.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::lane::{Lane, Parcel};
use crate::export::RecordWriter;
use crate::flow::{ByFiveTuple, FlowTracker};
use crate::sensor::shard::{Pulse, WorkerFigures, WorkerShard};

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Its flows.
    pub tracker: FlowTracker<ByFiveTuple>,
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
pub(super) struct Worker {
    parts: WorkerParts,
    figures: WorkerFigures,
    turns: u64,
}

impl Worker {
    pub(super) fn new(parts: WorkerParts) -> Self {
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
        let WorkerParts { tracker, records, .. } = &mut self.parts;
        tracker.process_packets(&packets, records);
        lane.recycle(packets);
        // What is due waits for what is at the door, unless that can wait itself.
        while self.parts.tracker.handle_timeout(now, &mut self.parts.records)
            && (self.parts.live.is_none() || lane.queue.is_empty())
        {
            self.beat();
        }
        self.publish();
    }

    /// Hands on records that waited for long.
    pub(super) fn rest(&mut self) {
        self.parts.records.flush_if_old();
    }

    /// Nothing will come any more: every flow ends.
    pub(super) fn finish(mut self) {
        let WorkerParts { tracker, records, .. } = &mut self.parts;
        tracker.drain(records);
        records.flush();
        self.publish();
    }

    fn publish(&mut self) {
        let WorkerParts { tracker, records, shard, .. } = &self.parts;
        self.figures.set(tracker, records.counts());
        shard.store(&mut self.figures);
    }
}
