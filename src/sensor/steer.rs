//! Software steering: one reader decodes and hashes, pinned workers track.
//!
//! Contract: a flow's packets go to one worker in the order in which they were read; what travels are
//! parcels of descriptors, never frames; parcels are recycled, so that their number is bounded by the queues. The
//! fragment table is the reader's, before the cut. Each parcel carries the reader's clock. Who finds
//! a queue full or empty sleeps: where the source does not wait, as a ring, what is lost meanwhile is counted there. A worker
//! that has nothing to do looks up ten times a second, so that its pulse says of it alone whether it goes on.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;

use super::cores::Pinning;
use super::read::Stage;
use super::rss::Steering;
use super::shard::{Pulse, ReaderFigures, Thread, WorkerFigures, WorkerShard};
use crate::export::RecordWriter;
use crate::export::queue::{Queue, Taken};
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

/// The same after so much time, where ticks may be far apart.
const NS_BETWEEN_FLUSHES: u64 = 10_000_000;

/// What goes to a worker.
#[derive(Debug)]
struct Parcel {
    /// None where only the time is told.
    packets: Vec<Packet<FlowKey>>,
    now: Timestamp,
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
    /// What shows that it goes on, where packets come from a source that does not wait: then no more than some flows end at a
    /// time while packets wait.
    pub live: Option<Arc<CachePadded<Pulse>>>,
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
    /// When all workers were last told the time, and how many ticks ago.
    told: Timestamp,
    ticks: u32,
    is_live: bool,
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
        let is_live = workers.iter().all(|parts| parts.live.is_some());
        let mut steer = Self {
            ingest,
            hooks: Hooks::default(),
            steering,
            packets: Vec::with_capacity(2 * PARCEL_PACKETS),
            open: Vec::new(),
            lanes: Vec::new(),
            threads: Vec::new(),
            now: Timestamp::ZERO,
            told: Timestamp::ZERO,
            ticks: 0,
            is_live,
        };
        for (worker, parts) in workers.into_iter().enumerate() {
            let lane = Arc::new(Lane {
                queue: Queue::new(PARCELS_QUEUED_MAX),
                recycled: ArrayQueue::new(PARCELS_QUEUED_MAX + 2),
            });
            let pinning = pinning.clone();
            let of_thread = OpenLane(Arc::clone(&lane));
            let thread = std::thread::Builder::new()
                .name(Thread::Worker(worker).name())
                .spawn(move || {
                    pinning.pin(Thread::Worker(worker));
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
        (0..self.lanes.len()).for_each(|worker| self.send(worker, false));
        self.ingest.drain(&mut self.packets);
        self.deal();
        (0..self.lanes.len()).for_each(|worker| self.send(worker, false));
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
        let is_live = self.is_live;
        let mut packets = std::mem::take(&mut self.packets);
        for packet in packets.drain(..) {
            let worker = self.steering.worker(&packet.key);
            self.open[worker].push(packet);
            if self.open[worker].len() >= PARCEL_PACKETS {
                self.send(worker, is_live);
            }
        }
        self.packets = packets;
    }

    /// Hands on what there is for a worker, waiting for room in its lane. Who has `hurry` wakes it if it sleeps, else it is
    /// left alone until there is some more: a worker that keeps up would be woken for each parcel.
    fn send(&mut self, worker: usize, hurry: bool) {
        let lane = &self.lanes[worker];
        let empty = lane.recycled.pop().unwrap_or_else(|| Vec::with_capacity(PARCEL_PACKETS));
        let packets = std::mem::replace(&mut self.open[worker], empty);
        // A lane that does not take it any more belongs to a worker that panicked: `finish` says so.
        let parcel = Parcel { packets, now: self.now };
        let _ = if hurry { lane.queue.push(parcel) } else { lane.queue.push_without_hurry(parcel) };
    }

    /// Hands on what there is for each worker, and with `tell` the time where there is nothing: who has a full lane gets it
    /// with what comes later.
    fn hand_on(&mut self, tell: bool, hurry: bool) {
        for worker in 0..self.lanes.len() {
            if !self.open[worker].is_empty() {
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
        // A file's time runs so fast that parcels would never be full.
        if self.ticks >= TICKS_BETWEEN_FLUSHES || self.is_live && self.is_late() {
            self.hand_on(true, self.is_live);
        }
        figures.set_ingest(self.ingest.counters());
    }

    fn flush(&mut self) {
        self.hand_on(self.is_late(), true);
    }
}

/// A worker's life.
fn work(lane: &Lane, parts: WorkerParts) {
    let WorkerParts { mut tracker, mut records, shard, live } = parts;
    let mut figures = WorkerFigures::default();
    let mut turns = 0;
    let mut beat = || {
        if let Some(pulse) = &live {
            turns += 1;
            pulse.beat(turns);
        }
    };
    loop {
        beat();
        match lane.queue.pop_soon() {
            Taken::Item(Parcel { mut packets, now }) => {
                tracker.process_packets(&packets, &mut records);
                packets.clear();
                if packets.capacity() > 0 {
                    // A full recycle queue has enough parcels: this one is freed.
                    let _ = lane.recycled.push(packets);
                }
                // What is due waits for what is at the door, unless that can wait itself.
                while tracker.handle_timeout(now, &mut records)
                    && (live.is_none() || lane.queue.is_empty())
                {
                    beat();
                }
                figures.set(&tracker, records.counts());
                shard.store(&mut figures);
            }
            Taken::Nothing => {}
            Taken::Closed => break,
        }
        records.flush_if_old();
    }
    tracker.drain(&mut records);
    records.flush();
    figures.set(&tracker, records.counts());
    shard.store(&mut figures);
}
