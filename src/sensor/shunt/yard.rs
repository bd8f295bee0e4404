//! The thread that shunts: it makes the system calls, so that no worker does.
//!
//! Contract: looks at its lines and at the counters every 50 ms. A flow is shunted on every interface that it may come in on; what
//! they count is told as one. A flow that is taken out is told for the last time after the interface has settled. What finds no
//! room on a line is told the next time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::{FLOWS_MAX, ShuntWanted, Shunting};
use crate::capture::shunt::{ShuntPorts, ShuntSlot, Shunts};
use crate::flow::{Counted, FlowKey, Shunted};

const PERIOD: Duration = Duration::from_millis(50);

/// Each flow asked for and released; and answers, one a flow each time.
const REQUESTS_MAX: usize = 2 * FLOWS_MAX;
pub(super) const ANSWERS_MAX: usize = 2 * FLOWS_MAX;

/// What a worker wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Count its frames; do not hand them on.
    Shunt(FlowKey),
    /// Hand them on again, and say how many they were.
    Release(FlowKey),
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No room: the flow is not shunted.
    Refused(FlowKey),
    /// What came since the last time.
    Counted {
        shunted: Shunted<FlowKey>,
        /// The flow is not shunted any more.
        is_last: bool,
    },
}

/// Between a worker and the yard.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) requests: ArrayQueue<Request>,
    pub(super) answers: ArrayQueue<Answer>,
    is_open: AtomicBool,
}

impl Line {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: ArrayQueue::new(REQUESTS_MAX),
            answers: ArrayQueue::new(ANSWERS_MAX),
            is_open: AtomicBool::new(true),
        })
    }

    /// Whether the yard still answers.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }
}

/// Where a flow is shunted.
#[derive(Debug)]
struct Place {
    port: usize,
    table: Arc<dyn Shunts>,
    slot: ShuntSlot,
    /// What was told of it.
    told: Counted,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Counting,
    /// Taken out; a program may still be counting.
    Removed,
    /// What it counted is final.
    Settled,
}

/// A flow that is shunted.
#[derive(Debug)]
struct Entry {
    /// The worker's number.
    line: usize,
    key: FlowKey,
    places: Vec<Place>,
    is_new: bool,
    is_leaving: bool,
}

/// All flows that are shunted, of all workers.
#[derive(Debug)]
pub struct Yard {
    ports: ShuntPorts,
    lines: Vec<Arc<Line>>,
    entries: Vec<Entry>,
}

impl Yard {
    /// Starts the thread, for so many workers; each gets its side. It ends when all of those are gone.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub fn start(
        wanted: &ShuntWanted,
        workers: usize,
    ) -> std::io::Result<(Vec<Shunting>, JoinHandle<()>)> {
        let (mut yard, sides) = Self::new(wanted, workers);
        let thread = std::thread::Builder::new().name("shunt".to_owned()).spawn(move || {
            while yard.lines.iter().any(|line| Arc::strong_count(line) > 1) {
                yard.turn();
                std::thread::sleep(PERIOD);
            }
        })?;
        Ok((sides, thread))
    }

    pub(super) fn new(wanted: &ShuntWanted, workers: usize) -> (Self, Vec<Shunting>) {
        let lines: Vec<_> = (0..workers).map(|_| Line::new()).collect();
        let side = |line: &Arc<Line>| Shunting::new(wanted.above_bytes, Arc::clone(line));
        let sides = lines.iter().map(side).collect();
        (Self { ports: wanted.ports.clone(), lines, entries: Vec::new() }, sides)
    }

    /// One look at everything. What is taken out comes before what is put in: see [`Shunts::settle`].
    pub(super) fn turn(&mut self) {
        let current = self.ports.current();
        self.take_requests();
        self.remove(&current);
        self.insert(&current);
        self.tell();
    }

    fn take_requests(&mut self) {
        for (number, line) in self.lines.iter().enumerate() {
            for _ in 0..REQUESTS_MAX {
                match line.requests.pop() {
                    None => break,
                    Some(Request::Shunt(key)) => self.entries.push(Entry {
                        line: number,
                        key,
                        places: Vec::new(),
                        is_new: true,
                        is_leaving: false,
                    }),
                    Some(Request::Release(key)) => {
                        let is_it = |entry: &&mut Entry| entry.line == number && entry.key == key;
                        if let Some(entry) = self.entries.iter_mut().find(is_it) {
                            entry.is_leaving = true;
                        }
                    }
                }
            }
        }
    }

    /// Takes out what is over, and what is of an interface that another has taken the place of.
    fn remove(&mut self, current: &[Option<Arc<dyn Shunts>>]) {
        let mut tables: Vec<Arc<dyn Shunts>> = Vec::new();
        for entry in &mut self.entries {
            for place in &mut entry.places {
                let is_current = current
                    .get(place.port)
                    .and_then(Option::as_ref)
                    .is_some_and(|table| Arc::ptr_eq(table, &place.table));
                if place.stage != Stage::Counting || is_current && !entry.is_leaving {
                    continue;
                }
                match place.table.remove(&entry.key, entry.line as u32) {
                    Ok(()) => {
                        place.stage = Stage::Removed;
                        if !tables.iter().any(|table| Arc::ptr_eq(table, &place.table)) {
                            tables.push(Arc::clone(&place.table));
                        }
                    }
                    Err(error) => tracing::error!("a flow cannot be taken out: {error}"),
                }
            }
        }
        if tables.is_empty() {
            return;
        }
        tables.iter().for_each(|table| table.settle());
        let places = self.entries.iter_mut().flat_map(|entry| &mut entry.places);
        places
            .filter(|place| place.stage == Stage::Removed)
            .for_each(|place| place.stage = Stage::Settled);
    }

    /// Puts in what is new, and on interfaces that are new what was there before.
    fn insert(&mut self, current: &[Option<Arc<dyn Shunts>>]) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_leaving) {
            if !entry.is_new && entry.places.iter().all(|place| place.stage != Stage::Counting) {
                // It was lost with its interface, and its worker will ask again.
                continue;
            }
            for (port, table) in current.iter().enumerate() {
                let Some(table) = table else { continue };
                let of = entry.key.scope().interface;
                let is_there = |place: &Place| place.port == port && place.stage == Stage::Counting;
                if of != 0 && usize::from(of) != port + 1 || entry.places.iter().any(is_there) {
                    continue;
                }
                match table.insert(&entry.key, entry.line as u32) {
                    Ok(Some(slot)) => entry.places.push(Place {
                        port,
                        table: Arc::clone(table),
                        slot,
                        told: Counted::default(),
                        stage: Stage::Counting,
                    }),
                    Ok(None) => {}
                    Err(error) => tracing::warn!("a flow cannot be shunted: {error}"),
                }
            }
        }
    }

    fn tell(&mut self) {
        let lines = &self.lines;
        self.entries.retain_mut(|entry| !entry.tell(&lines[entry.line]));
    }
}

impl Entry {
    /// Tells what came; `true` when that was the last of it.
    fn tell(&mut self, line: &Line) -> bool {
        if std::mem::take(&mut self.is_new) && !self.is_leaving && self.places.is_empty() {
            self.is_new = line.answers.push(Answer::Refused(self.key)).is_err();
            return !self.is_new;
        }
        let mut counted = Counted::default();
        let mut told = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let mut before = place.told;
            match place.table.read(place.slot) {
                Ok(seen) => counted.add(&seen.since(&mut before)),
                Err(error) => {
                    tracing::error!("the counts of a shunted flow cannot be read: {error}");
                    return false;
                }
            }
            told.push(before);
        }
        let is_last = self.places.iter().all(|place| place.stage == Stage::Settled);
        if counted.packets() != 0 || is_last {
            let shunted = Shunted { key: self.key, proto: self.key.proto(), counted };
            if line.answers.push(Answer::Counted { shunted, is_last }).is_err() {
                return false;
            }
        }
        for (place, told) in self.places.iter_mut().zip(told) {
            place.told = told;
        }
        self.places.retain(|place| {
            let is_settled = place.stage == Stage::Settled;
            if is_settled {
                place.table.free(place.slot);
            }
            !is_settled
        });
        is_last
    }
}

/// However it ends, nobody waits for it.
impl Drop for Yard {
    fn drop(&mut self) {
        self.lines.iter().for_each(|line| line.is_open.store(false, Ordering::Release));
    }
}
