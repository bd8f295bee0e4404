//! Run to completion: the reader's own thread tracks and makes the records.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::read::Stage;
use super::shard::{ReaderFigures, WorkerFigures, WorkerShard};
use super::shunt::ShuntCounts;
use crate::capture::Upcoming;
use crate::driver::FlowDriver;
use crate::export::RecordWriter;
use crate::flow::{ByFiveTuple, FlowKey, FlowTracker, Packet};
use crate::frame::Frame;
use crate::reassembly::ReassemblyCounters;
use crate::time::Timestamp;

/// What tracks: a tracker, or a driver, whose streams are put together and thrown away, for what is
/// learnt of their gaps.
pub trait Tracking {
    /// Takes frames, in order, after which others come.
    fn process(
        &mut self,
        frames: &[Frame<'_>],
        upcoming: &mut Upcoming<'_>,
        records: &mut RecordWriter,
    );

    /// Ends what is due; `true` when more is.
    fn handle_timeout(&mut self, now: Timestamp, records: &mut RecordWriter) -> bool;

    /// Ends every flow.
    fn drain(&mut self, records: &mut RecordWriter);

    /// The flows.
    fn tracker(&self) -> &FlowTracker<ByFiveTuple>;

    /// The same, for what is not packets.
    fn tracker_mut(&mut self) -> &mut FlowTracker<ByFiveTuple>;

    /// What became of the streams' bytes, where there are any.
    fn streams(&self) -> Option<&ReassemblyCounters> {
        None
    }

    /// What was counted elsewhere.
    fn shunted(&self) -> ShuntCounts {
        ShuntCounts::default()
    }
}

impl Tracking for FlowTracker<ByFiveTuple> {
    #[inline]
    fn process(
        &mut self,
        frames: &[Frame<'_>],
        upcoming: &mut Upcoming<'_>,
        records: &mut RecordWriter,
    ) {
        self.process_meanwhile(frames, &mut (), records, &mut |eighths| upcoming.ask(eighths));
    }

    fn handle_timeout(&mut self, now: Timestamp, records: &mut RecordWriter) -> bool {
        self.handle_timeout(now, records)
    }

    fn drain(&mut self, records: &mut RecordWriter) {
        self.drain(records);
    }

    fn tracker(&self) -> &FlowTracker<ByFiveTuple> {
        self
    }

    fn tracker_mut(&mut self) -> &mut FlowTracker<ByFiveTuple> {
        self
    }
}

impl Tracking for FlowDriver<ByFiveTuple> {
    #[inline]
    fn process(
        &mut self,
        frames: &[Frame<'_>],
        upcoming: &mut Upcoming<'_>,
        records: &mut RecordWriter,
    ) {
        self.process_meanwhile(frames, &mut (), records, &mut |eighths| upcoming.ask(eighths));
    }

    fn handle_timeout(&mut self, now: Timestamp, records: &mut RecordWriter) -> bool {
        self.handle_timeout(now, &mut (), records)
    }

    fn drain(&mut self, records: &mut RecordWriter) {
        self.drain(&mut (), records);
    }

    fn tracker(&self) -> &FlowTracker<ByFiveTuple> {
        self.tracker()
    }

    fn tracker_mut(&mut self) -> &mut FlowTracker<ByFiveTuple> {
        self.tracker_mut()
    }

    fn streams(&self) -> Option<&ReassemblyCounters> {
        Some(self.reassembly_counters())
    }
}

/// Publishes what a worker counted.
pub(super) fn publish<T: Tracking>(
    figures: &mut WorkerFigures,
    tracking: &T,
    records: &RecordWriter,
    shard: &WorkerShard,
) {
    figures.set(tracking.tracker(), records.counts());
    if let Some(streams) = tracking.streams() {
        figures.set_streams(streams);
    }
    figures.set_shunted(&tracking.shunted());
    shard.store(figures);
}

/// What tracks packets that an [`Ingest`](crate::flow::ingest::Ingest) made elsewhere.
pub trait PacketTracking: Tracking {
    /// Whether it looks at the frames' bytes.
    const NEEDS_FRAMES: bool;

    /// Takes packets, in order; `frames` are what their numbers mean, where those are at hand.
    fn process_packets(
        &mut self,
        packets: &[Packet<FlowKey>],
        frames: &[Frame<'_>],
        records: &mut RecordWriter,
    );
}

impl PacketTracking for FlowTracker<ByFiveTuple> {
    const NEEDS_FRAMES: bool = false;

    #[inline]
    fn process_packets(
        &mut self,
        packets: &[Packet<FlowKey>],
        _: &[Frame<'_>],
        records: &mut RecordWriter,
    ) {
        self.process_packets(packets, records);
    }
}

impl PacketTracking for FlowDriver<ByFiveTuple> {
    const NEEDS_FRAMES: bool = true;

    #[inline]
    fn process_packets(
        &mut self,
        packets: &[Packet<FlowKey>],
        frames: &[Frame<'_>],
        records: &mut RecordWriter,
    ) {
        self.process_packets(packets, frames, &mut (), records);
    }
}

/// Flows and their records.
#[derive(Debug)]
pub struct Direct<T> {
    tracking: T,
    records: RecordWriter,
    figures: WorkerFigures,
    shard: Arc<CachePadded<WorkerShard>>,
    is_live: bool,
}

impl<T: Tracking> Direct<T> {
    /// Counts into `shard`.
    pub fn new(tracking: T, records: RecordWriter, shard: Arc<CachePadded<WorkerShard>>) -> Self {
        Self { tracking, records, figures: WorkerFigures::default(), shard, is_live: false }
    }

    /// For frames that do not wait: never more than some flows end at a time, and records are handed over once a
    /// second.
    #[must_use]
    pub fn live(self) -> Self {
        Self { is_live: true, ..self }
    }

    /// The capture is over at `last`: every live flow ends, every record is handed over.
    pub fn finish(mut self, last: Timestamp, figures: &mut ReaderFigures) {
        self.tick(last, figures);
        self.tracking.drain(&mut self.records);
        self.records.flush();
        self.publish(figures);
    }

    fn publish(&mut self, figures: &mut ReaderFigures) {
        let tracker = self.tracking.tracker();
        figures.set_ingest(tracker.ingest_counters());
        publish(&mut self.figures, &self.tracking, &self.records, &self.shard);
    }
}

impl<T: Tracking> Stage for Direct<T> {
    #[inline]
    fn frames(&mut self, frames: &[Frame<'_>], upcoming: &mut Upcoming<'_>) {
        self.tracking.process(frames, upcoming, &mut self.records);
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        // Nothing waits at the door while a file is read, so all that is due ends now.
        while self.tracking.handle_timeout(now, &mut self.records) && !self.is_live {}
        if self.is_live {
            self.records.flush_if_old();
        }
        self.publish(figures);
    }

    fn flush(&mut self) {
        self.records.flush_if_old();
    }
}
