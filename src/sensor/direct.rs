//! Run to completion: the reader's own thread tracks and makes the records.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::read::Stage;
use super::shard::{ReaderFigures, WorkerFigures, WorkerShard};
use crate::export::RecordWriter;
use crate::flow::{ByFiveTuple, FlowTracker};
use crate::frame::Frame;
use crate::time::Timestamp;

/// A tracker and its records.
#[derive(Debug)]
pub struct Direct {
    tracker: FlowTracker<ByFiveTuple>,
    records: RecordWriter,
    figures: WorkerFigures,
    shard: Arc<CachePadded<WorkerShard>>,
}

impl Direct {
    /// Counts into `shard`.
    pub fn new(
        tracker: FlowTracker<ByFiveTuple>,
        records: RecordWriter,
        shard: Arc<CachePadded<WorkerShard>>,
    ) -> Self {
        Self { tracker, records, figures: WorkerFigures::default(), shard }
    }

    /// The capture is over at `last`: every live flow ends, every record is handed over.
    pub fn finish(mut self, last: Timestamp, figures: &mut ReaderFigures) {
        self.tick(last, figures);
        self.tracker.drain(&mut self.records);
        self.records.flush();
        self.publish(figures);
    }

    fn publish(&mut self, figures: &mut ReaderFigures) {
        figures.set_ingest(self.tracker.ingest_counters());
        self.figures.set(&self.tracker, self.records.counts());
        self.shard.store(&mut self.figures);
    }
}

impl Stage for Direct {
    #[inline]
    fn frames(&mut self, frames: &[Frame<'_>]) {
        self.tracker.process(frames, &mut self.records);
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        // Nothing waits at the door while a file is read, so all that is due ends now.
        while self.tracker.handle_timeout(now, &mut self.records) {}
        self.publish(figures);
    }

    fn flush(&mut self) {
        self.records.flush_if_old();
    }
}
