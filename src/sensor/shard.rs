//! What each thread counted, as other threads may read it.
//!
//! Contract: a shard has one writer, which stores all its figures once a batch by relaxed stores into
//! cache lines of its own; readers see figures at most a batch old, and exact ones once the writer's thread
//! was joined.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::shunt::ShuntCounts;
use crate::capture::live::{DropReason, QueueCounts};
use crate::event::EndReason;
use crate::export::records::EventCounts;
use crate::export::sink::{SinkCounts, SinkHandle};
use crate::flow::ingest::IngestCounters;
use crate::flow::{ByFiveTuple, FlowTracker};
use crate::net::{L4, Side};
use crate::reassembly::ReassemblyCounters;

/// How many kinds of fault a frame can have.
pub const FAULTS: usize = 7;

/// What the reader counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderFigures {
    /// Bytes of the capture read, as stored (compressed).
    pub file_bytes: u64,
    /// Frames that the capture had for us: read from a file, or seen by the queues of an interface.
    pub offered: u64,
    /// Frames lost before they came to the sensor, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Frames that a queue counted for flows that are shunted, and did not hand on.
    pub shunted: u64,
    /// Their bytes on the wire.
    pub shunted_bytes: u64,
    /// Frames that were read and not due yet when the run was told to stop.
    pub not_due: u64,
    /// Frames that came to the sensor.
    pub delivered: u64,
    /// Their bytes on the wire.
    pub delivered_bytes: u64,
    /// Frames that the filter did not want.
    pub filtered: u64,
    /// Their bytes on the wire.
    pub filtered_bytes: u64,
    /// Frames that were decoded.
    pub decoded: u64,
    /// Frames without a key.
    pub unmatched: u64,
    /// Their bytes on the wire.
    pub unmatched_bytes: u64,
    /// Unmatched frames by fault.
    pub faults: [u64; FAULTS],
    /// Frames handed on to a tracker.
    pub handed_on: u64,
    /// Later fragments that wait for their first one.
    pub held: u64,
    /// Later fragments whose first one never came.
    pub fragments_unattributed: u64,
    /// Time of the earliest frame, in nanoseconds; 0 without any.
    pub first_ns: u64,
    /// Time of the latest frame, in nanoseconds.
    pub last_ns: u64,
}

impl ReaderFigures {
    const LEN: usize = 17 + FAULTS + DropReason::ALL.len();

    /// Takes over what the ingest counted.
    pub fn set_ingest(&mut self, counters: &IngestCounters) {
        self.decoded = counters.frames;
        self.unmatched = counters.unmatched;
        self.unmatched_bytes = counters.unmatched_bytes;
        self.faults = counters.faults;
        self.handed_on = counters.packets;
        self.held = counters.held;
        self.fragments_unattributed = counters.fragments_unattributed;
    }

    /// The part that [`set_ingest`](Self::set_ingest) sets, and nothing of what was read.
    #[must_use]
    pub fn of_stage(&self) -> Self {
        Self {
            decoded: self.decoded,
            unmatched: self.unmatched,
            unmatched_bytes: self.unmatched_bytes,
            faults: self.faults,
            handed_on: self.handed_on,
            held: self.held,
            fragments_unattributed: self.fragments_unattributed,
            ..Self::default()
        }
    }

    fn each(&mut self, mut f: impl FnMut(&mut u64)) {
        f(&mut self.file_bytes);
        f(&mut self.offered);
        self.dropped.iter_mut().for_each(&mut f);
        f(&mut self.shunted);
        f(&mut self.shunted_bytes);
        f(&mut self.not_due);
        f(&mut self.delivered);
        f(&mut self.delivered_bytes);
        f(&mut self.filtered);
        f(&mut self.filtered_bytes);
        f(&mut self.decoded);
        f(&mut self.unmatched);
        f(&mut self.unmatched_bytes);
        self.faults.iter_mut().for_each(&mut f);
        f(&mut self.handed_on);
        f(&mut self.held);
        f(&mut self.fragments_unattributed);
        f(&mut self.first_ns);
        f(&mut self.last_ns);
    }
}

impl ReaderFigures {
    /// Adds another reader's.
    pub fn add(&mut self, mut other: Self) {
        let first_ns = match (self.delivered, other.delivered) {
            (0, _) => other.first_ns,
            (_, 0) => self.first_ns,
            _ => self.first_ns.min(other.first_ns),
        };
        let last_ns = self.last_ns.max(other.last_ns);
        let mut others = [0; Self::LEN];
        let mut cells = others.iter_mut();
        other.each(|value| {
            if let Some(cell) = cells.next() {
                *cell = *value;
            }
        });
        let mut others = others.into_iter();
        self.each(|value| *value = value.wrapping_add(others.next().unwrap_or(0)));
        (self.first_ns, self.last_ns) = (first_ns, last_ns);
    }
}

/// What a worker counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerFigures {
    /// Frames counted into flows.
    pub tracked: u64,
    /// Their bytes on the wire.
    pub tracked_bytes: u64,
    /// Those of them that were shunted: counted elsewhere, and merged into their flow.
    pub shunted: u64,
    /// Their bytes on the wire.
    pub shunted_bytes: u64,
    /// Flows that were shunted.
    pub flows_shunted: u64,
    /// Flows that could not be shunted, for want of room; each time that it was tried.
    pub shunts_refused: u64,
    /// Live flows.
    pub live: u64,
    /// Packets in flows that ended.
    pub packets_ended: u64,
    /// Packets that records told.
    pub packets_told: u64,
    /// Records produced, interim ones included.
    pub records: u64,
    /// Interim records.
    pub interim: u64,
    /// Anomalies.
    pub anomalies: u64,
    /// Flows that began, by [`L4`].
    pub started: [u64; L4::ALL.len()],
    /// Flows that ended, by [`EndReason`].
    pub ended: [u64; EndReason::ALL.len()],
    /// What became of the streams' bytes, by [`Side`]; 0 unless streams are reassembled.
    pub streams: [StreamFigures; Side::BOTH.len()],
}

/// What became of one side's stream bytes, summed over flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFigures {
    /// Bytes that were in order at last.
    pub in_order: u64,
    /// Holes that were given up.
    pub gaps: u64,
    /// Their bytes.
    pub missing: u64,
    /// Bytes that the snapshot length cut off.
    pub cut: u64,
    /// Segments dropped as out of order.
    pub segments_dropped: u64,
    /// Bytes given up because a buffer was full.
    pub bytes_dropped: u64,
}

impl StreamFigures {
    const LEN: usize = 6;

    fn each(&mut self, mut f: impl FnMut(&mut u64)) {
        f(&mut self.in_order);
        f(&mut self.gaps);
        f(&mut self.missing);
        f(&mut self.cut);
        f(&mut self.segments_dropped);
        f(&mut self.bytes_dropped);
    }
}

impl WorkerFigures {
    const LEN: usize =
        12 + L4::ALL.len() + EndReason::ALL.len() + Side::BOTH.len() * StreamFigures::LEN;

    /// Takes over what a tracker and its records counted.
    pub fn set(&mut self, tracker: &FlowTracker<ByFiveTuple>, events: &EventCounts) {
        let counters = tracker.counters();
        self.tracked = counters.packets;
        self.tracked_bytes = counters.bytes;
        self.live = tracker.len() as u64;
        self.packets_ended = counters.packets_ended;
        self.packets_told = events.packets_told;
        self.records = events.records;
        self.interim = events.interim;
        self.anomalies = events.anomalies;
        self.started = events.started;
        self.ended = events.ended;
    }

    /// Takes over what shunting came to.
    pub fn set_shunted(&mut self, counts: &ShuntCounts) {
        self.shunted = counts.packets;
        self.shunted_bytes = counts.bytes;
        self.flows_shunted = counts.flows - counts.refused;
        self.shunts_refused = counts.refused;
    }

    /// Takes over what reassembly counted.
    pub fn set_streams(&mut self, counters: &ReassemblyCounters) {
        self.streams = Side::BOTH.map(|side| {
            let side = counters.side(side);
            StreamFigures {
                in_order: side.delivered_bytes,
                gaps: side.gaps,
                missing: side.gap_bytes,
                cut: side.cut_bytes,
                segments_dropped: side.dropped_ooo_segments,
                bytes_dropped: side.dropped_oversize_bytes,
            }
        });
    }

    fn each(&mut self, mut f: impl FnMut(&mut u64)) {
        f(&mut self.tracked);
        f(&mut self.tracked_bytes);
        f(&mut self.shunted);
        f(&mut self.shunted_bytes);
        f(&mut self.flows_shunted);
        f(&mut self.shunts_refused);
        f(&mut self.live);
        f(&mut self.packets_ended);
        f(&mut self.packets_told);
        f(&mut self.records);
        f(&mut self.interim);
        f(&mut self.anomalies);
        self.started.iter_mut().for_each(&mut f);
        self.ended.iter_mut().for_each(&mut f);
        self.streams.iter_mut().for_each(|side| side.each(&mut f));
    }

    /// Adds another worker's.
    pub fn add(&mut self, mut other: Self) {
        let mut others = [0; Self::LEN];
        let mut index = 0;
        other.each(|value| {
            others[index] = *value;
            index += 1;
        });
        let mut others = others.into_iter();
        self.each(|value| *value += others.next().unwrap_or(0));
    }
}

/// The reader's cells.
#[derive(Debug)]
pub struct ReaderShard([AtomicU64; ReaderFigures::LEN]);

impl ReaderShard {
    /// Publishes; only the reader calls it.
    pub fn store(&self, figures: &mut ReaderFigures) {
        let mut cells = self.0.iter();
        figures.each(|value| store_next(&mut cells, *value));
    }

    /// Reads.
    pub fn load(&self) -> ReaderFigures {
        let mut figures = ReaderFigures::default();
        let mut cells = self.0.iter();
        figures.each(|value| *value = load_next(&mut cells));
        figures
    }
}

/// A worker's cells.
#[derive(Debug)]
pub struct WorkerShard([AtomicU64; WorkerFigures::LEN]);

impl WorkerShard {
    /// Publishes; only its worker calls it.
    pub fn store(&self, figures: &mut WorkerFigures) {
        let mut cells = self.0.iter();
        figures.each(|value| store_next(&mut cells, *value));
    }

    /// Reads.
    pub fn load(&self) -> WorkerFigures {
        let mut figures = WorkerFigures::default();
        let mut cells = self.0.iter();
        figures.each(|value| *value = load_next(&mut cells));
        figures
    }
}

fn store_next<'a>(cells: &mut impl Iterator<Item = &'a AtomicU64>, value: u64) {
    if let Some(cell) = cells.next() {
        cell.store(value, Ordering::Relaxed);
    }
}

fn load_next<'a>(cells: &mut impl Iterator<Item = &'a AtomicU64>) -> u64 {
    cells.next().map_or(0, |cell| cell.load(Ordering::Relaxed))
}

/// A queue's cells: what its reader last heard of it.
#[derive(Debug)]
pub struct QueueShard {
    /// The interface, as it was named.
    pub interface: String,
    /// The queue, or the socket where several share one: a label.
    pub queue: String,
    cells: [AtomicU64; Self::LEN],
}

impl QueueShard {
    const LEN: usize = 4 + DropReason::ALL.len();

    /// Of a queue that has seen nothing.
    pub fn new(interface: String, queue: String) -> Self {
        Self { interface, queue, cells: [const { AtomicU64::new(0) }; Self::LEN] }
    }

    /// Publishes; only its reader calls it.
    pub fn store(&self, counts: &QueueCounts) {
        let QueueCounts { offered, delivered, shunted, shunted_bytes, dropped } = counts;
        let values = [offered, delivered, shunted, shunted_bytes].into_iter().chain(dropped);
        let mut cells = self.cells.iter();
        values.for_each(|value| store_next(&mut cells, *value));
    }

    /// Reads.
    pub fn load(&self) -> QueueCounts {
        let mut cells = self.cells.iter();
        QueueCounts {
            offered: load_next(&mut cells),
            delivered: load_next(&mut cells),
            shunted: load_next(&mut cells),
            shunted_bytes: load_next(&mut cells),
            dropped: std::array::from_fn(|_| load_next(&mut cells)),
        }
    }
}

/// A thread of a live run that must go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// It tracks, and without steering it reads too.
    Worker(usize),
    /// It reads for the workers.
    Reader,
}

impl Thread {
    /// Its label in metrics.
    pub fn label(self) -> String {
        match self {
            Self::Worker(worker) => worker.to_string(),
            Self::Reader => "reader".to_owned(),
        }
    }

    /// Its name in the system's lists.
    pub fn name(self) -> String {
        match self {
            Self::Worker(worker) => format!("worker-{worker}"),
            Self::Reader => "reader".to_owned(),
        }
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(worker) => write!(f, "worker {worker}"),
            Self::Reader => f.write_str("the reader"),
        }
    }
}

/// Whether a thread of a live run goes on.
#[derive(Debug)]
pub struct Pulse {
    thread: Thread,
    turns: AtomicU64,
    is_stalled: AtomicBool,
}

impl Pulse {
    /// Of a thread that has not begun.
    pub fn new(thread: Thread) -> Self {
        Self { thread, turns: AtomicU64::new(0), is_stalled: AtomicBool::new(false) }
    }

    /// Whose it is.
    pub fn thread(&self) -> Thread {
        self.thread
    }

    /// So many turns were begun; only its thread calls it, with every batch.
    #[inline]
    pub fn beat(&self, turns: u64) {
        self.turns.store(turns, Ordering::Relaxed);
    }

    /// How many turns were begun.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Notes that it stands still, or no longer does; only the watch calls it.
    pub fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// Whether it stands still.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }
}

/// All shards of a run, and the sinks.
#[derive(Clone, Debug)]
pub struct Board {
    /// One for each reading loop.
    pub readers: Vec<Arc<CachePadded<ReaderShard>>>,
    /// One for each queue of a live capture.
    pub queues: Vec<Arc<CachePadded<QueueShard>>>,
    /// One for each worker.
    pub workers: Vec<Arc<CachePadded<WorkerShard>>>,
    /// One for each thread of a live run that reads or tracks, workers first.
    pub pulses: Vec<Arc<CachePadded<Pulse>>>,
    /// Where records go, by name.
    pub sinks: Vec<(String, SinkHandle)>,
}

/// The figures of a run at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The sums over reading loops.
    pub reader: ReaderFigures,
    /// The sums over workers.
    pub workers: WorkerFigures,
    /// Each sink's.
    pub sinks: Vec<(String, SinkCounts)>,
}

impl Board {
    /// All zero: so many reading loops and workers.
    pub fn new(readers: usize, workers: usize, sinks: Vec<(String, SinkHandle)>) -> Self {
        let reader = || ReaderShard(std::array::from_fn(|_| AtomicU64::new(0)));
        let worker = || WorkerShard(std::array::from_fn(|_| AtomicU64::new(0)));
        Self {
            readers: (0..readers).map(|_| Arc::new(CachePadded::new(reader()))).collect(),
            queues: Vec::new(),
            pulses: Vec::new(),
            workers: (0..workers).map(|_| Arc::new(CachePadded::new(worker()))).collect(),
            sinks,
        }
    }

    /// Reads everything.
    pub fn figures(&self) -> Figures {
        let mut reader = ReaderFigures::default();
        self.readers.iter().for_each(|shard| reader.add(shard.load()));
        let mut workers = WorkerFigures::default();
        self.workers.iter().for_each(|worker| workers.add(worker.load()));
        let counts = |(name, sink): &(String, SinkHandle)| (name.clone(), sink.counts());
        Figures { reader, workers, sinks: self.sinks.iter().map(counts).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_cell_of_its_own() {
        let mut count = 0;
        let mut reader = ReaderFigures::default();
        reader.each(|value| {
            count += 1;
            *value = count;
        });
        assert_eq!(count as usize, ReaderFigures::LEN);
        let mut worker = WorkerFigures::default();
        let mut of_worker = 0;
        worker.each(|value| {
            of_worker += 1;
            *value = of_worker;
        });
        assert_eq!(of_worker as usize, WorkerFigures::LEN);

        let board = Board::new(1, 2, Vec::new());
        board.readers[0].store(&mut reader);
        board.workers.iter().for_each(|shard| shard.store(&mut worker));
        assert_eq!(board.figures().reader, reader);
        let mut twice = worker;
        twice.add(worker);
        assert_eq!(board.figures().workers, twice);
        assert_eq!(twice.tracked_bytes, 2 * worker.tracked_bytes);
    }

    #[test]
    fn readers_add_up_but_for_their_times() {
        let figures = |delivered, first_ns, last_ns| ReaderFigures {
            delivered,
            first_ns,
            last_ns,
            dropped: [delivered; DropReason::ALL.len()],
            ..ReaderFigures::default()
        };
        let mut sum = ReaderFigures::default();
        for (delivered, first_ns, last_ns) in [(2, 20, 30), (0, 0, 0), (3, 10, 25)] {
            sum.add(figures(delivered, first_ns, last_ns));
        }
        assert_eq!(sum, figures(5, 10, 30));
    }

    #[test]
    fn a_queue_s_counts_come_back() {
        let shard = QueueShard::new("eth2".to_owned(), "0".to_owned());
        let counts = QueueCounts {
            offered: 11,
            delivered: 3,
            shunted: 2,
            shunted_bytes: 120,
            dropped: [1, 2, 0, 3, 0, 0],
        };
        shard.store(&counts);
        assert_eq!(shard.load(), counts);
    }
}
