//! The reader's half of steering: decodes, hashes, and deals packets out.

use std::sync::Arc;

use super::lane::{Lane, PARCEL_PACKETS, Parcel};
use super::tell_unmatched;
use crate::capture::Upcoming;
use crate::flow::ingest::{Ingest, IngestCounters};
use crate::flow::packet::PacketSink;
use crate::flow::{ByFiveTuple, FlowKey, Packet};
use crate::frame::Frame;
use crate::obs::Hooks;
use crate::sensor::read::Stage;
use crate::sensor::rss::Steering;
use crate::sensor::shard::ReaderFigures;
use crate::time::Timestamp;

/// After so many ticks every worker gets what there is for it, and the time.
const TICKS_BETWEEN_FLUSHES: u32 = 64;

/// The same after so much time, where ticks may be far apart.
const NS_BETWEEN_FLUSHES: u64 = 10_000_000;

/// What has the fragment table, which is before the cut, and a parcel for each worker.
#[derive(Debug)]
pub(super) struct Dealer {
    ingest: Ingest<ByFiveTuple>,
    /// For frames without a key, which no worker's tracker gets to see.
    hooks: Hooks,
    open: OpenParcels,
    lanes: Vec<Arc<Lane>>,
    now: Timestamp,
    /// When all workers were last told the time, and how many ticks ago.
    told: Timestamp,
    ticks: u32,
    is_live: bool,
}

/// Packets by their workers. Each goes straight from the frame to its parcel.
#[derive(Debug)]
pub(super) struct OpenParcels {
    steering: Steering,
    packets: Vec<Vec<Packet<FlowKey>>>,
}

impl OpenParcels {
    /// For the workers at the ends of `lanes`.
    pub(super) fn new(lanes: &[Arc<Lane>]) -> Self {
        let packets = lanes.iter().map(|lane| lane.empty()).collect();
        Self { steering: Steering::new(lanes.len()), packets }
    }
}

impl PacketSink<FlowKey> for OpenParcels {
    #[inline(always)]
    fn push(&mut self, packet: Packet<FlowKey>) {
        self.packets[self.steering.worker(&packet.key)].push(packet);
    }
}

impl Dealer {
    /// Deals to `lanes`. Where the source is live, workers are woken for every parcel.
    pub(super) fn new(ingest: Ingest<ByFiveTuple>, lanes: Vec<Arc<Lane>>, is_live: bool) -> Self {
        Self {
            ingest,
            hooks: Hooks::default(),
            open: OpenParcels::new(&lanes),
            lanes,
            now: Timestamp::ZERO,
            told: Timestamp::ZERO,
            ticks: 0,
            is_live,
        }
    }

    /// Where the frames went.
    pub(super) fn counters(&self) -> &IngestCounters {
        self.ingest.counters()
    }

    /// The capture is over at `last`: every worker gets what there is for it, and that time.
    pub(super) fn tell_last(&mut self, last: Timestamp) {
        self.now = last;
        self.ingest.handle_timeout(last, &mut self.open);
        (0..self.lanes.len()).for_each(|worker| self.send(worker, false));
    }

    /// Then the fragments that waited, and the end.
    pub(super) fn finish(&mut self) {
        self.ingest.drain(&mut self.open);
        (0..self.lanes.len()).for_each(|worker| self.send(worker, false));
        self.lanes.iter().for_each(|lane| lane.queue.close());
    }

    /// Hands on the parcels that are full.
    fn send_full(&mut self) {
        for worker in 0..self.lanes.len() {
            if self.open.packets[worker].len() >= PARCEL_PACKETS {
                self.send(worker, self.is_live);
            }
        }
    }

    /// Hands on what there is for a worker, waiting for room in its lane. Who has `hurry` wakes it if it sleeps, else it is
    /// left alone until there is some more: a worker that keeps up would be woken for each parcel.
    fn send(&mut self, worker: usize, hurry: bool) {
        let lane = &self.lanes[worker];
        let packets = std::mem::replace(&mut self.open.packets[worker], lane.empty());
        // A lane that does not take it any more belongs to a worker that panicked: the end of the run says so.
        let parcel = Parcel { packets, now: self.now };
        let _ = if hurry { lane.queue.push(parcel) } else { lane.queue.push_without_hurry(parcel) };
    }

    /// Hands on what there is for each worker, and with `tell` the time where there is nothing: who has a full lane gets it
    /// with what comes later.
    fn hand_on(&mut self, tell: bool, hurry: bool) {
        for worker in 0..self.lanes.len() {
            if !self.open.packets[worker].is_empty() {
                self.send(worker, hurry);
            } else if tell {
                let time = Parcel { packets: Vec::new(), now: self.now };
                let _ = self.lanes[worker].queue.try_push(time);
            }
        }
        if tell {
            self.told = self.now;
            self.ticks = 0;
        }
    }

    /// Whether so much time went by that workers must be told.
    fn is_late(&self) -> bool {
        self.now.nanos_since(self.told) >= NS_BETWEEN_FLUSHES
    }
}

impl Stage for Dealer {
    #[inline]
    fn frames(&mut self, frames: &[Frame<'_>], upcoming: &mut Upcoming<'_>) {
        let before = self.ingest.counters().unmatched;
        self.ingest.batch_meanwhile(frames, &mut self.open, &mut |eighths| upcoming.ask(eighths));
        tell_unmatched(&mut self.hooks, self.ingest.counters().unmatched - before);
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        self.now = now;
        self.ingest.handle_timeout(now, &mut self.open);
        self.ticks += 1;
        // A file's time runs so fast that parcels would never be full.
        if self.ticks >= TICKS_BETWEEN_FLUSHES || self.is_live && self.is_late() {
            self.hand_on(true, self.is_live);
        } else {
            self.send_full();
        }
        figures.set_ingest(self.ingest.counters());
    }

    fn flush(&mut self) {
        self.hand_on(self.is_late(), true);
    }
}
