//! Steering without a reader of its own, for sources that wait: the workers take turns in reading, decode what they read while the next
//! one reads on, and deal in order.
//!
//! Contract: one worker reads at a time; it reads only while every lane has room for all that all turns under way bring, and so
//! never waits for another's room, nor for its own. A worker that cannot read tracks, and one that can do neither
//! looks for a while and sleeps then, until somebody has parcels for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use super::dealer::Dealer;
use super::lane::{Lane, OpenLane, Parcel, have_room};
use super::turn::{Alarm, Order, TURN_BATCHES, Turn};
use super::worker::{Worker, WorkerParts};
use super::{WorkerError, name};
use crate::capture::{Capture, Lasting};
use crate::export::queue::Taken;
use crate::flow::ByFiveTuple;
use crate::flow::ingest::Ingest;
use crate::sensor::cores::{Pinning, allowed};
use crate::sensor::read::{Position, ReadEnd, ReadLoop};
use crate::sensor::shard::Thread;
use crate::time::Timestamp;

/// Parcels that wait for a worker at most; nobody reads while more than half of that wait for one. Enough for as long as a worker makes a
/// file's pages ready, and for a parcel of each turn under way, of which every worker may have one.
fn parcels_queued_max(workers: usize) -> usize {
    (2 * workers + 2).max(32)
}

/// How often who has nothing to do looks before it sleeps: some 20 µs.
const LOOKS: u32 = 500;

/// How a capture is read in turns.
pub struct Reading<'a, C, P, L> {
    /// What reads.
    pub reading: &'a mut ReadLoop,
    /// What is read.
    pub capture: &'a mut C,
    /// How far it is.
    pub position: P,
    /// What the next batches' frames lie in, where that [lasts](Lasting).
    pub lasting: L,
}

/// Reads a capture to its end with these workers, each pinned to its core, and waits for them. Sources that may keep a reader waiting are
/// not for this: what it had dealt to itself would wait with it.
///
/// # Errors
/// [`WorkerError`]: a thread that the system refused, or a bug; the other workers end as at the end of the capture.
pub fn read_in_turns<C, P, L>(
    Reading { reading, capture, position, lasting }: Reading<'_, C, P, L>,
    ingest: Ingest<ByFiveTuple>,
    workers: Vec<WorkerParts>,
    pinning: &Pinning,
) -> Result<ReadEnd, WorkerError>
where
    C: Capture + Send,
    P: Fn(&C) -> Position + Send,
    L: Fn(&C) -> Option<Arc<dyn Lasting>> + Send,
{
    let parcels = parcels_queued_max(workers.len());
    let lanes: Vec<_> = workers.iter().map(|_| Lane::new(parcels)).collect();
    let looks = if workers.len() <= allowed().len() { LOOKS } else { 0 };
    let mut own_turns: Vec<_> = workers.iter().map(|_| Turn::new(ingest.apart(), &lanes)).collect();
    let turns = Turns {
        is_free: AtomicBool::new(true),
        reader: Mutex::new(Reader {
            reading,
            capture,
            position,
            lasting,
            end: ReadEnd::default(),
            next: Next::Frames,
            turns: 0,
        }),
        order: Order::new(Dealer::new(ingest, lanes.clone(), false), looks),
        lanes,
    };
    let result = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut result = Ok(());
        for ((worker, parts), turn) in workers.into_iter().enumerate().zip(own_turns.drain(..)) {
            let turns = &turns;
            let lane = OpenLane(Arc::clone(&turns.lanes[worker]));
            let started = std::thread::Builder::new().name(name(worker)).spawn_scoped(scope, {
                move || {
                    pinning.pin(Thread::Worker(worker));
                    let _alarm = Alarm(&turns.order);
                    turns.work(&lane.0, Worker::new(parts), turn);
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
    let Reader { reading, end, .. } =
        turns.reader.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    reading.figures().set_ingest(turns.order.into_dealer().counters());
    result.map(|()| end)
}

/// What the workers share.
struct Turns<'a, C, P, L> {
    reader: Mutex<Reader<'a, C, P, L>>,
    /// Whether nobody reads and there is something to read: a hint for those who wait to.
    is_free: AtomicBool,
    order: Order,
    lanes: Vec<Arc<Lane>>,
}

/// What only the worker that reads has.
struct Reader<'a, C, P, L> {
    reading: &'a mut ReadLoop,
    capture: &'a mut C,
    position: P,
    lasting: L,
    end: ReadEnd,
    next: Next,
    /// Turns that began.
    turns: u64,
}

/// What is to be done next in reading.
enum Next {
    Frames,
    LastTime,
    Fragments,
    Nothing,
}

/// What a turn deals.
enum Deal {
    Frames,
    LastTime(Timestamp),
    Fragments,
}

impl<C, P, L> Reader<'_, C, P, L>
where
    C: Capture,
    P: Fn(&C) -> Position,
    L: Fn(&C) -> Option<Arc<dyn Lasting>>,
{
    /// Reads for a turn; `None` where nothing is left to read.
    fn read(&mut self, turn: &mut Turn, order: &Order) -> Option<Deal> {
        let Self { reading, capture, position, lasting, end, next, turns } = self;
        turn.begin(*turns, reading.now());
        let deal;
        (deal, *next) = match next {
            Next::Frames => {
                let mut collect = turn.collect(order, lasting(capture));
                let goes_on = (0..TURN_BATCHES)
                    .all(|_| reading.step(*capture, &mut collect, position, end).is_continue());
                (Deal::Frames, if goes_on { Next::Frames } else { Next::LastTime })
            }
            Next::LastTime => (Deal::LastTime(reading.now()), Next::Fragments),
            Next::Fragments => (Deal::Fragments, Next::Nothing),
            Next::Nothing => return None,
        };
        *turns += 1;
        Some(deal)
    }
}

impl<C, P, L> Turns<'_, C, P, L>
where
    C: Capture,
    P: Fn(&C) -> Position,
    L: Fn(&C) -> Option<Arc<dyn Lasting>>,
{
    /// A worker's life.
    fn work(&self, lane: &Lane, mut worker: Worker, mut turn: Turn) {
        loop {
            if let Some(deal) = self.read(lane, &mut turn) {
                self.deal(lane, &mut turn, &deal);
            }
            match self.take(lane) {
                Taken::Item(parcel) => worker.track(parcel, lane),
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            worker.rest();
        }
        worker.finish();
    }

    /// Reads for a turn if there is room, unless somebody else reads.
    fn read(&self, lane: &Lane, turn: &mut Turn) -> Option<Deal> {
        match self.reader.try_lock() {
            Ok(mut reader) => {
                if !have_room(&self.lanes) {
                    return None;
                }
                self.is_free.store(false, Ordering::Relaxed);
                let deal = reader.read(turn, &self.order);
                let is_over = matches!(reader.next, Next::Nothing);
                self.is_free.store(!is_over, Ordering::Relaxed);
                deal
            }
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => {
                // Who read has panicked: nothing more will come.
                lane.queue.close();
                None
            }
        }
    }

    /// Decodes what was read, and deals it when its turn comes.
    fn deal(&self, lane: &Lane, turn: &mut Turn, deal: &Deal) {
        let bytes = turn.bytes();
        if matches!(deal, Deal::Frames) {
            turn.decode();
        }
        let Some(mut dealer) = self.order.wait(turn.number()) else {
            // Somebody before it has panicked.
            return lane.queue.close();
        };
        match deal {
            Deal::Frames => turn.deal(&mut dealer),
            Deal::LastTime(last) => dealer.tell_last(*last),
            Deal::Fragments => dealer.finish(),
        }
        drop(dealer);
        self.order.next();
        // Others read meanwhile.
        if let Some(bytes) = bytes {
            bytes.make_ready();
        }
    }

    /// The next parcel, unless reading can be gone on with before one comes. Who sleeps is woken by parcels alone: where there is
    /// no room to read, whoever has a full lane is awake, and reads once it has made some.
    fn take(&self, lane: &Lane) -> Taken<Parcel> {
        for _ in 0..self.order.looks() {
            if let Some(parcel) = lane.queue.try_pop() {
                return Taken::Item(parcel);
            }
            if self.is_free.load(Ordering::Relaxed) && have_room(&self.lanes) {
                return Taken::Nothing;
            }
            std::hint::spin_loop();
        }
        if self.order.is_broken() {
            lane.queue.close();
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
