//! Software steering: frames of one source, tracked by several pinned workers.
//!
//! Contract: a flow's packets go to one worker in the order in which they were read; what travels are
//! parcels of descriptors, never frames; parcels are recycled, so that their number is bounded by the queues. The
//! fragment table is before the cut. Each parcel carries the reader's clock. A source that does not wait has a reader of its own
//! ([`Steer`]): who finds a queue full or empty sleeps, and what is lost meanwhile is counted at the source; a worker
//! that has nothing to do looks up ten times a second, so that its pulse says of it alone whether it goes on. What can be read more than
//! once is read by every worker for itself ([`read_in_shares`]): no packets travel, but what one saw of a file's frames at a glance.

mod dealer;
mod lane;
mod shares;
mod survey;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;

use self::dealer::Dealer;
use self::lane::{Lane, OpenLane};
pub use self::shares::{Reading, read_in_shares};
use self::worker::Worker;
pub use self::worker::WorkerParts;
use super::cores::Pinning;
use super::direct::PacketTracking;
use super::read::Stage;
use super::shard::{ReaderFigures, Thread};
use crate::capture::Upcoming;
use crate::export::queue::Taken;
use crate::flow::ByFiveTuple;
use crate::flow::ingest::Ingest;
use crate::frame::Frame;
use crate::obs::Hooks;
use crate::time::Timestamp;

/// Parcels that wait for a worker at most, where a reader waits for it.
const PARCELS_QUEUED_MAX: usize = 32;

/// A reader's workers.
#[derive(Debug)]
pub struct Steer {
    dealer: Dealer,
    threads: Vec<JoinHandle<()>>,
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
    pub fn start<T: PacketTracking + Send + 'static>(
        ingest: Ingest<ByFiveTuple>,
        workers: Vec<WorkerParts<T>>,
        pinning: &Pinning,
    ) -> Result<Self, WorkerError> {
        let is_live = workers.iter().all(|parts| parts.live.is_some());
        let lanes: Vec<_> = workers.iter().map(|_| Lane::new(PARCELS_QUEUED_MAX)).collect();
        let mut steer =
            Self { dealer: Dealer::new(ingest, lanes.clone(), is_live), threads: Vec::new() };
        for (worker, (parts, lane)) in workers.into_iter().zip(lanes).enumerate() {
            let pinning = pinning.clone();
            let lane = OpenLane(lane);
            let thread = std::thread::Builder::new()
                .name(name(worker))
                .spawn(move || {
                    pinning.pin(Thread::Worker(worker));
                    work(&lane.0, Worker::new(parts));
                })
                .map_err(|source| WorkerError::Start { worker, source })?;
            steer.threads.push(thread);
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
        self.dealer.tell_last(last);
        self.dealer.finish();
        figures.set_ingest(self.dealer.counters());
        let mut result = Ok(());
        for (worker, thread) in self.threads.drain(..).enumerate() {
            if thread.join().is_err() {
                result = Err(WorkerError::Panicked(worker));
            }
        }
        result
    }
}

impl Stage for Steer {
    fn frames(&mut self, frames: &[Frame<'_>], upcoming: &mut Upcoming<'_>) {
        self.dealer.frames(frames, upcoming);
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        self.dealer.tick(now, figures);
    }

    fn flush(&mut self) {
        self.dealer.flush();
    }
}

/// Tells of frames without a key, which no worker's tracker gets to see.
fn tell_unmatched(hooks: &mut Hooks, unmatched: u64) {
    if unmatched > 0 {
        hooks.unmatched(unmatched);
        hooks.batch(0, 0, 0);
    }
}

fn name(worker: usize) -> String {
    Thread::Worker(worker).name()
}

/// The life of a worker that somebody reads for.
fn work<T: PacketTracking>(lane: &Arc<Lane>, mut worker: Worker<T>) {
    loop {
        worker.beat();
        match lane.queue.pop_soon() {
            Taken::Item(parcel) => worker.track(parcel, lane),
            Taken::Nothing => {}
            Taken::Closed => break,
        }
        worker.rest();
    }
    worker.finish();
}
