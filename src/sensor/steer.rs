//! Software steering: one reader decodes and hashes, pinned workers track.
//!
//! Contract: a flow's packets go to one worker in the order in which they were read; what travels are
//! parcels of descriptors, never frames; parcels are recycled, so that their number is bounded by the queues. The
//! fragment table is the reader's, before the cut. Each parcel carries the reader's clock. Who finds
//! a queue full or empty sleeps.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;

use super::cores::Pinning;
use super::read::Stage;
use super::rss::Steering;
use super::shard::{ReaderFigures, WorkerFigures, WorkerShard};
use crate::export::RecordWriter;
use crate::export::queue::Queue;
use crate::flow::ingest::Ingest;
use crate::flow::{ByFiveTuple, FlowKey, FlowTracker, Packet};
use crate::frame::Frame;
use crate::obs::Hooks;
use crate::time::Timestamp;

/// Packets in a parcel.
const PARCEL_PACKETS: usize = 256;

/// Parcels that wait for a worker at most.
const PARCELS_QUEUED_MAX: usize = 32;

/// After so many ticks every worker gets what there is for it, and the time.
const TICKS_BETWEEN_FLUSHES: u32 = 64;

/// What goes to a worker.
#[derive(Debug)]
struct Parcel {
    packets: Vec<Packet<FlowKey>>,
    now: Timestamp,
    /// Whether the source may be quiet for a while, so that records should not wait.
    quiet: bool,
}

/// The way to a worker.
#[derive(Debug)]
struct Lane {
    queue: Queue<Parcel>,
    recycled: ArrayQueue<Vec<Packet<FlowKey>>>,
}

/// Closes the lane when its worker ends in whatever way, so that the reader never waits for it.
struct OpenLane(Arc<Lane>);

impl Drop for OpenLane {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Its flows.
    pub tracker: FlowTracker<ByFiveTuple>,
    /// Its records.
    pub records: RecordWriter,
    /// Where it counts.
    pub shard: Arc<CachePadded<WorkerShard>>,
}

/// The reader's side of steering.
#[derive(Debug)]
pub struct Steer {
    ingest: Ingest<ByFiveTuple>,
    /// For frames without a key, which no worker's tracker gets to see.
    hooks: Hooks,
    steering: Steering,
    /// Packets of one batch, on their way to the parcels.
    packets: Vec<Packet<FlowKey>>,
    open: Vec<Vec<Packet<FlowKey>>>,
    lanes: Vec<Arc<Lane>>,
    threads: Vec<JoinHandle<()>>,
    now: Timestamp,
    ticks: u32,
}

/// A worker that could not be started, or that panicked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The system refused a thread.
    #[error("worker {worker} could not be started: {source}: try fewer --workers")]
    Start {
        /// Which.
        worker: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bug.
    #[error("worker {0} panicked: its flows are lost; please report it")]
    Panicked(usize),
}

impl Steer {
    /// Starts one thread for each of `workers`, each pinned to its core.
    pub fn start(
        ingest: Ingest<ByFiveTuple>,
        workers: Vec<WorkerParts>,
        pinning: &Pinning,
    ) -> Result<Self, WorkerError> {
        let steering = Steering::new(workers.len());
        let mut steer = Self {
            ingest,
            hooks: Hooks::default(),
            steering,
            packets: Vec::with_capacity(2 * PARCEL_PACKETS),
            open: Vec::new(),
            lanes: Vec::new(),
            threads: Vec::new(),
            now: Timestamp::ZERO,
            ticks: 0,
        };
        for (worker, parts) in workers.into_iter().enumerate() {
            let lane = Arc::new(Lane {
                queue: Queue::new(PARCELS_QUEUED_MAX),
                recycled: ArrayQueue::new(PARCELS_QUEUED_MAX + 2),
            });
            let pinning = pinning.clone();
            let of_thread = OpenLane(Arc::clone(&lane));
            let thread = std::thread::Builder::new()
                .name(format!("worker-{worker}"))
                .spawn(move || {
                    pinning.pin(worker);
                    work(&of_thread.0, parts);
                })
                .map_err(|source| WorkerError::Start { worker, source })?;
            steer.threads.push(thread);
            steer.lanes.push(lane);
            steer.open.push(Vec::with_capacity(PARCEL_PACKETS));
        }
        Ok(steer)
    }

    /// The capture is over at `last`: every worker tells its time, gets the fragments that waited, drains
    /// and ends.
    pub fn finish(
        mut self,
        last: Timestamp,
        figures: &mut ReaderFigures,
    ) -> Result<(), WorkerError> {
        self.now = last;
        self.ingest.handle_timeout(last, &mut self.packets);
        self.deal();
        (0..self.lanes.len()).for_each(|worker| self.send(worker, true));
        self.ingest.drain(&mut self.packets);
        self.deal();
        (0..self.lanes.len()).for_each(|worker| self.send(worker, true));
        figures.set_ingest(self.ingest.counters());
        self.lanes.iter().for_each(|lane| lane.queue.close());
        let mut result = Ok(());
        for (worker, thread) in self.threads.drain(..).enumerate() {
            if thread.join().is_err() {
                result = Err(WorkerError::Panicked(worker));
            }
        }
        result
    }

    /// Puts each packet into its worker's parcel.
    fn deal(&mut self) {
        let mut packets = std::mem::take(&mut self.packets);
        for packet in packets.drain(..) {
            let worker = self.steering.worker(&packet.key);
            self.open[worker].push(packet);
            if self.open[worker].len() >= PARCEL_PACKETS {
                self.send(worker, false);
            }
        }
        self.packets = packets;
    }

    fn send(&mut self, worker: usize, quiet: bool) {
        let lane = &self.lanes[worker];
        let empty = lane.recycled.pop().unwrap_or_else(|| Vec::with_capacity(PARCEL_PACKETS));
        let packets = std::mem::replace(&mut self.open[worker], empty);
        // A lane that does not take it any more belongs to a worker that panicked: `finish` says so.
        let _ = lane.queue.push(Parcel { packets, now: self.now, quiet });
    }
}

impl Stage for Steer {
    fn frames(&mut self, frames: &[Frame<'_>]) {
        let before = self.ingest.counters().unmatched;
        self.ingest.batch(frames, &mut self.packets);
        let unmatched = self.ingest.counters().unmatched - before;
        if unmatched > 0 {
            self.hooks.unmatched(unmatched);
            self.hooks.batch(0, 0, 0);
        }
        self.deal();
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        self.now = now;
        self.ingest.handle_timeout(now, &mut self.packets);
        self.deal();
        self.ticks += 1;
        if self.ticks >= TICKS_BETWEEN_FLUSHES {
            self.ticks = 0;
            (0..self.lanes.len()).for_each(|worker| self.send(worker, false));
        }
        figures.set_ingest(self.ingest.counters());
    }

    fn flush(&mut self) {
        (0..self.lanes.len()).for_each(|worker| self.send(worker, true));
    }
}

/// A worker's life.
fn work(lane: &Lane, parts: WorkerParts) {
    let WorkerParts { mut tracker, mut records, shard } = parts;
    let mut figures = WorkerFigures::default();
    while let Some(Parcel { mut packets, now, quiet }) = lane.queue.pop() {
        tracker.process_packets(&packets, &mut records);
        while tracker.handle_timeout(now, &mut records) {}
        packets.clear();
        // A full recycle queue has enough parcels: this one is freed.
        let _ = lane.recycled.push(packets);
        if quiet {
            records.flush_if_old();
        }
        figures.set(&tracker, records.counts());
        shard.store(&mut figures);
    }
    tracker.drain(&mut records);
    records.flush();
    figures.set(&tracker, records.counts());
    shard.store(&mut figures);
}
