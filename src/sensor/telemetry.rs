//! The figures of a run as metrics: the Prometheus recorder, and the ledger's own metrics beside those that
//! trackers keep.
//!
//! Contract: handles are looked up once; values are set when somebody asks, never by the packet path.
//! Labels are fixed when the run starts.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::ledger::FAULT_LABELS;
use super::shard::{Board, FAULTS, Figures, QueueShard, Thread};
use crate::capture::live::DropReason as LossReason;
use crate::export::sink::DropReason;
use crate::obs::{Publisher, Registry, SIDE_LABELS};

/// Frames that the capture read.
pub const METRIC_FRAMES_OFFERED: &str = "flowscope_frames_offered_total";
/// Frames that came to the sensor.
pub const METRIC_FRAMES_DELIVERED: &str = "flowscope_frames_delivered_total";
/// Their bytes on the wire.
pub const METRIC_FRAME_BYTES_DELIVERED: &str = "flowscope_frame_bytes_delivered_total";
/// Frames that the filter did not want.
pub const METRIC_FRAMES_FILTERED: &str = "flowscope_frames_filtered_total";
/// Frames that could not be decoded up to a key, by `fault`.
pub const METRIC_FRAMES_FAULTY: &str = "flowscope_frames_faulty_total";
/// Frames counted into flows.
pub const METRIC_FRAMES_TRACKED: &str = "flowscope_frames_tracked_total";
/// Later fragments that wait for their first one.
pub const METRIC_FRAMES_HELD: &str = "flowscope_frames_held";
/// Records produced.
pub const METRIC_RECORDS_PRODUCED: &str = "flowscope_records_produced_total";
/// Records written, by `output` (its place on the command line).
pub const METRIC_RECORDS_WRITTEN: &str = "flowscope_records_written_total";
/// Records dropped, by `output` and `reason`.
pub const METRIC_RECORDS_DROPPED: &str = "flowscope_records_dropped_total";
/// Bytes of TCP streams that were in order at last, by `side`; with the next two, counted only where streams are
/// reassembled.
pub const METRIC_STREAM_BYTES_IN_ORDER: &str = "flowscope_reassembly_bytes_in_order_total";
/// Holes in streams that were given up, by `side`.
pub const METRIC_STREAM_GAPS: &str = "flowscope_reassembly_gaps_total";
/// Their bytes, by `side`.
pub const METRIC_STREAM_BYTES_MISSING: &str = "flowscope_reassembly_bytes_missing_total";
/// Frames that a live queue had for us, by `interface` and `queue`.
pub const METRIC_QUEUE_FRAMES_OFFERED: &str = "flowscope_queue_frames_offered_total";
/// Frames of a live queue that came to the sensor, by `interface` and `queue`.
pub const METRIC_QUEUE_FRAMES_DELIVERED: &str = "flowscope_queue_frames_delivered_total";
/// Frames of a live queue that were lost, by `interface`, `queue` and `reason`.
pub const METRIC_QUEUE_FRAMES_DROPPED: &str = "flowscope_queue_frames_dropped_total";
/// Frames of a live queue that were counted for a flow that is shunted, by `interface` and `queue`.
pub const METRIC_QUEUE_FRAMES_SHUNTED: &str = "flowscope_queue_frames_shunted_total";
/// Frames that were counted for flows that are shunted, once they are in those flows.
pub const METRIC_FRAMES_SHUNTED: &str = "flowscope_frames_shunted_total";
/// Flows that were shunted.
pub const METRIC_FLOWS_SHUNTED: &str = "flowscope_flows_shunted_total";
/// How often a flow was to be shunted and there was no room.
pub const METRIC_SHUNTS_REFUSED: &str = "flowscope_shunts_refused_total";
/// 1 while a live worker stands still, else 0, by `worker`: its number, or `reader` where one reads for all of them.
pub const METRIC_WORKER_STALLED: &str = "flowscope_worker_stalled";
/// Bytes of the capture read, as stored.
pub const METRIC_CAPTURE_BYTES_READ: &str = "flowscope_capture_bytes_read_total";

/// Renders what `/metrics` serves.
pub struct Telemetry {
    prometheus: PrometheusHandle,
    board: Board,
    inner: Mutex<Inner>,
}

struct Inner {
    trackers: Publisher,
    ledger: LedgerMetrics,
    queues: Vec<QueueMetrics>,
    stalled: Vec<Gauge>,
}

impl Telemetry {
    /// Installs the recorder of the process, then registers everything.
    pub fn install(board: Board) -> anyhow::Result<Self> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let prometheus = recorder.handle();
        metrics::set_global_recorder(recorder)
            .map_err(|_| anyhow::anyhow!("a metrics recorder is installed already"))?;
        let inner = Inner {
            trackers: Publisher::without_histograms(Registry::global()),
            ledger: LedgerMetrics::new(board.sinks.len()),
            queues: board.queues.iter().map(|queue| QueueMetrics::new(queue)).collect(),
            stalled: board
                .pulses
                .iter()
                .map(|pulse| gauge!(METRIC_WORKER_STALLED, "worker" => pulse.thread().label()))
                .collect(),
        };
        Ok(Self { prometheus, board, inner: Mutex::new(inner) })
    }

    /// The first live worker that stands still, or the reader that waits for it.
    pub fn stalled(&self) -> Option<Thread> {
        self.board.pulses.iter().find(|pulse| pulse.is_stalled()).map(|pulse| pulse.thread())
    }

    /// The exposition text, as of now.
    pub fn render(&self) -> String {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = inner.trackers.publish();
        inner.ledger.set(&self.board.figures());
        inner.queues.iter().zip(&self.board.queues).for_each(|(metrics, queue)| metrics.set(queue));
        for (gauge, pulse) in inner.stalled.iter().zip(&self.board.pulses) {
            gauge.set(f64::from(u8::from(pulse.is_stalled())));
        }
        let mut text = self.prometheus.render();
        totals.render_histograms(&mut text);
        text
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("board", &self.board).finish_non_exhaustive()
    }
}

/// Handles of one live queue's metrics.
struct QueueMetrics {
    offered: Counter,
    delivered: Counter,
    shunted: Counter,
    dropped: [Counter; LossReason::ALL.len()],
}

impl QueueMetrics {
    /// As many label values as queues were opened, fixed at start.
    fn new(queue: &QueueShard) -> Self {
        let labels = [("interface", queue.interface.clone()), ("queue", queue.queue.clone())];
        let dropped = |reason: LossReason| {
            let [interface, number] = labels.clone();
            let labels = [interface, number, ("reason", reason.label().to_owned())];
            counter!(METRIC_QUEUE_FRAMES_DROPPED, &labels)
        };
        Self {
            offered: counter!(METRIC_QUEUE_FRAMES_OFFERED, &labels),
            delivered: counter!(METRIC_QUEUE_FRAMES_DELIVERED, &labels),
            shunted: counter!(METRIC_QUEUE_FRAMES_SHUNTED, &labels),
            dropped: LossReason::ALL.map(dropped),
        }
    }

    fn set(&self, queue: &QueueShard) {
        let counts = queue.load();
        self.offered.absolute(counts.offered);
        self.delivered.absolute(counts.delivered);
        self.shunted.absolute(counts.shunted);
        self.dropped.iter().zip(counts.dropped).for_each(|(metric, value)| metric.absolute(value));
    }
}

/// Handles of the ledger's metrics.
struct LedgerMetrics {
    offered: Counter,
    delivered: Counter,
    delivered_bytes: Counter,
    filtered: Counter,
    faulty: [Counter; FAULTS],
    tracked: Counter,
    shunted: Counter,
    flows_shunted: Counter,
    shunts_refused: Counter,
    held: Gauge,
    produced: Counter,
    sinks: Vec<(Counter, [Counter; DropReason::ALL.len()])>,
    file_bytes: Counter,
    streams: [[Counter; 3]; SIDE_LABELS.len()],
}

impl LedgerMetrics {
    fn new(sinks: usize) -> Self {
        describe();
        let sink = |index: usize| {
            // As many values as outputs were asked for, fixed at start.
            let output = (index + 1).to_string();
            let written = counter!(METRIC_RECORDS_WRITTEN, "output" => output.clone());
            let dropped = DropReason::ALL.map(|reason| {
                counter!(METRIC_RECORDS_DROPPED, "output" => output.clone(), "reason" => reason.label())
            });
            (written, dropped)
        };
        Self {
            offered: counter!(METRIC_FRAMES_OFFERED),
            delivered: counter!(METRIC_FRAMES_DELIVERED),
            delivered_bytes: counter!(METRIC_FRAME_BYTES_DELIVERED),
            filtered: counter!(METRIC_FRAMES_FILTERED),
            faulty: FAULT_LABELS.map(|fault| counter!(METRIC_FRAMES_FAULTY, "fault" => fault)),
            tracked: counter!(METRIC_FRAMES_TRACKED),
            shunted: counter!(METRIC_FRAMES_SHUNTED),
            flows_shunted: counter!(METRIC_FLOWS_SHUNTED),
            shunts_refused: counter!(METRIC_SHUNTS_REFUSED),
            held: gauge!(METRIC_FRAMES_HELD),
            produced: counter!(METRIC_RECORDS_PRODUCED),
            sinks: (0..sinks).map(sink).collect(),
            file_bytes: counter!(METRIC_CAPTURE_BYTES_READ),
            streams: SIDE_LABELS.map(|side| {
                [METRIC_STREAM_BYTES_IN_ORDER, METRIC_STREAM_GAPS, METRIC_STREAM_BYTES_MISSING]
                    .map(|name| counter!(name, "side" => side))
            }),
        }
    }

    fn set(&self, figures: &Figures) {
        let Figures { reader, workers, sinks } = figures;
        self.offered.absolute(reader.offered);
        self.delivered.absolute(reader.delivered);
        self.delivered_bytes.absolute(reader.delivered_bytes);
        self.filtered.absolute(reader.filtered);
        self.faulty.iter().zip(reader.faults).for_each(|(metric, value)| metric.absolute(value));
        self.tracked.absolute(workers.tracked);
        self.shunted.absolute(workers.shunted);
        self.flows_shunted.absolute(workers.flows_shunted);
        self.shunts_refused.absolute(workers.shunts_refused);
        self.held.set(reader.held as f64);
        self.produced.absolute(workers.records);
        for ((written, dropped), (_, counts)) in self.sinks.iter().zip(sinks) {
            written.absolute(counts.written);
            dropped.iter().zip(counts.dropped).for_each(|(metric, value)| metric.absolute(value));
        }
        self.file_bytes.absolute(reader.file_bytes);
        for (metrics, side) in self.streams.iter().zip(&workers.streams) {
            let values = [side.in_order, side.gaps, side.missing];
            metrics.iter().zip(values).for_each(|(metric, value)| metric.absolute(value));
        }
    }
}

fn describe() {
    for (name, help) in [
        (METRIC_FRAMES_OFFERED, "Frames that the capture read."),
        (METRIC_FRAMES_DELIVERED, "Frames that came to the sensor."),
        (METRIC_FRAME_BYTES_DELIVERED, "Bytes on the wire of frames that came to the sensor."),
        (METRIC_FRAMES_FILTERED, "Frames that the filter did not want."),
        (METRIC_FRAMES_FAULTY, "Unmatched frames whose decoding stopped early, by fault."),
        (METRIC_FRAMES_TRACKED, "Frames counted into flows."),
        (METRIC_RECORDS_PRODUCED, "Flow records produced, interim ones included."),
        (METRIC_RECORDS_WRITTEN, "Flow records written, by output."),
        (METRIC_RECORDS_DROPPED, "Flow records dropped, by output and reason."),
        (METRIC_STREAM_BYTES_IN_ORDER, "Bytes of TCP streams put in order, by side."),
        (METRIC_STREAM_GAPS, "Holes in TCP streams that were given up, by side."),
        (METRIC_STREAM_BYTES_MISSING, "Bytes missing in the holes that were given up, by side."),
        (METRIC_QUEUE_FRAMES_OFFERED, "Frames that a queue of an interface had for the sensor."),
        (METRIC_QUEUE_FRAMES_DELIVERED, "Frames of a queue that came to the sensor."),
        (
            METRIC_QUEUE_FRAMES_DROPPED,
            "Frames of a queue that were lost before the sensor, by reason.",
        ),
        (
            METRIC_QUEUE_FRAMES_SHUNTED,
            "Frames of a queue that were counted for a flow that is shunted.",
        ),
        (METRIC_FRAMES_SHUNTED, "Frames counted in the kernel, once they are in their flows."),
        (METRIC_FLOWS_SHUNTED, "Flows that were shunted."),
        (METRIC_SHUNTS_REFUSED, "How often a flow was to be shunted and there was no room."),
        (METRIC_CAPTURE_BYTES_READ, "Bytes of capture files read, as stored."),
    ] {
        describe_counter!(name, help);
    }
    describe_gauge!(METRIC_WORKER_STALLED, "1 while a worker stands still, by worker.");
    describe_gauge!(METRIC_FRAMES_HELD, "Later fragments that wait for their first one.");
}
