//! Steering without a reader of its own, for sources that wait: whoever of the workers may, reads on and deals.
//!
//! Contract: one worker reads at a time, so that what is dealt stays in order; it reads only while every lane has room for all
//! that a batch brings, and so never waits for another, nor for itself. A worker that cannot read tracks, and one that can do neither
//! looks for a while and sleeps then, until somebody has parcels for it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use super::dealer::Dealer;
use super::lane::{Lane, OpenLane, Parcel, have_room};
use super::worker::{Worker, WorkerParts};
use super::{WorkerError, name};
use crate::capture::Capture;
use crate::export::queue::Taken;
use crate::flow::ByFiveTuple;
use crate::flow::ingest::Ingest;
use crate::sensor::cores::{Pinning, allowed};
use crate::sensor::read::{Position, ReadEnd, ReadLoop};
use crate::sensor::shard::Thread;

/// Parcels that wait for a worker at most; nobody reads while more than half of that wait for one. As much as stays in a core's own cache.
const PARCELS_QUEUED_MAX: usize = 16;

/// How often who has nothing to do looks before it sleeps: some 20 µs.
const LOOKS: u32 = 500;

/// Reads `capture` to its end with these workers, each pinned to its core, and waits for them. Sources that may keep a reader waiting are
/// not for this: what it had dealt to itself would wait with it.
///
/// # Errors
/// [`WorkerError`]: a thread that the system refused, or a bug; the other workers end as at the end of the capture.
pub fn read_in_turns<C: Capture + Send>(
    reading: &mut ReadLoop,
    capture: &mut C,
    position: impl Fn(&C) -> Position + Send,
    ingest: Ingest<ByFiveTuple>,
    workers: Vec<WorkerParts>,
    pinning: &Pinning,
) -> Result<ReadEnd, WorkerError> {
    let lanes: Vec<_> = workers.iter().map(|_| Lane::new(PARCELS_QUEUED_MAX)).collect();
    let looks = if workers.len() <= allowed().len() { LOOKS } else { 0 };
    let turns = Turns {
        is_free: AtomicBool::new(true),
        reader: Mutex::new(Reader {
            reading,
            capture,
            position,
            dealer: Dealer::new(ingest, lanes.clone(), false),
            end: ReadEnd::default(),
            next: Next::Frames,
        }),
        lanes,
        looks,
    };
    let result = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut result = Ok(());
        for (worker, parts) in workers.into_iter().enumerate() {
            let turns = &turns;
            let lane = OpenLane(Arc::clone(&turns.lanes[worker]));
            let started = std::thread::Builder::new().name(name(worker)).spawn_scoped(scope, {
                move || {
                    pinning.pin(Thread::Worker(worker));
                    turns.work(&lane.0, Worker::new(parts));
                }
            });
            match started {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    result = Err(WorkerError::Start { worker, source });
                    turns.stop();
                    break;
                }
            }
        }
        for (worker, thread) in threads.into_iter().enumerate() {
            if thread.join().is_err() {
                result = Err(WorkerError::Panicked(worker));
            }
        }
        result
    });
    // Who panicked while it read is in the result.
    let reader = turns.reader.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    result.map(|()| reader.end)
}

/// What the workers share.
struct Turns<'a, C, P> {
    reader: Mutex<Reader<'a, C, P>>,
    /// Whether nobody reads and there is something to read: a hint for those who wait to.
    is_free: AtomicBool,
    lanes: Vec<Arc<Lane>>,
    looks: u32,
}

/// What only the worker whose turn it is has.
struct Reader<'a, C, P> {
    reading: &'a mut ReadLoop,
    capture: &'a mut C,
    position: P,
    dealer: Dealer,
    end: ReadEnd,
    next: Next,
}

/// What is to be done next in reading.
enum Next {
    Frames,
    LastTime,
    Fragments,
    Nothing,
}

impl<C: Capture, P: Fn(&C) -> Position> Reader<'_, C, P> {
    /// One step, which puts no more than one parcel into a lane. `Break` where there is no room, or nothing to do.
    fn step(&mut self) -> ControlFlow<()> {
        if !have_room(self.dealer.lanes()) {
            return ControlFlow::Break(());
        }
        match self.next {
            Next::Frames => {
                let Self { reading, capture, position, dealer, end, .. } = self;
                if reading.step(*capture, dealer, position, end).is_break() {
                    self.next = Next::LastTime;
                }
            }
            Next::LastTime => {
                self.dealer.tell_last(self.reading.now());
                self.next = Next::Fragments;
            }
            Next::Fragments => {
                self.dealer.finish(self.reading.figures());
                self.next = Next::Nothing;
            }
            Next::Nothing => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

impl<C: Capture, P: Fn(&C) -> Position> Turns<'_, C, P> {
    /// A worker's life.
    fn work(&self, lane: &Lane, mut worker: Worker) {
        loop {
            self.read(lane);
            match self.take(lane) {
                Taken::Item(parcel) => worker.track(parcel, lane),
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            worker.rest();
        }
        worker.finish();
    }

    /// Reads as far as there is room, unless somebody else does.
    fn read(&self, lane: &Lane) {
        match self.reader.try_lock() {
            Ok(mut reader) => {
                self.is_free.store(false, Ordering::Relaxed);
                while reader.step().is_continue() {}
                let is_over = matches!(reader.next, Next::Nothing);
                self.is_free.store(!is_over, Ordering::Relaxed);
            }
            Err(TryLockError::WouldBlock) => {}
            // Who read has panicked: nothing more will come.
            Err(TryLockError::Poisoned(_)) => lane.queue.close(),
        }
    }

    /// The next parcel, unless reading can be gone on with before one comes. Who sleeps is woken by parcels alone: where there is
    /// no room to read, whoever has a full lane is awake, and reads once it has made some.
    fn take(&self, lane: &Lane) -> Taken<Parcel> {
        for _ in 0..self.looks {
            if let Some(parcel) = lane.queue.try_pop() {
                return Taken::Item(parcel);
            }
            if self.is_free.load(Ordering::Relaxed) && have_room(&self.lanes) {
                return Taken::Nothing;
            }
            std::hint::spin_loop();
        }
        lane.queue.pop_soon()
    }

    /// Nothing is read any more.
    fn stop(&self) {
        self.lanes.iter().for_each(|lane| lane.queue.close());
        if let Ok(mut reader) = self.reader.lock() {
            reader.next = Next::Nothing;
        }
    }
}
