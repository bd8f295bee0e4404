//! Names, help and suggested buckets of the metrics that trackers keep.
//!
//! Dashboards in the field use the names: they never change. `docs/OBSERVABILITY.md` has the same
//! table for people; a test holds the two equal.

use super::labels::{ANOMALY_LABELS, END_REASON_LABELS, L4_LABELS, SIDE_LABELS};

/// A tracker saw a flow first.
pub const METRIC_FLOWS_CREATED: &str = "flowscope_flows_created_total";
/// A flow ended.
pub const METRIC_FLOWS_ENDED: &str = "flowscope_flows_ended_total";
/// Live flows, over all trackers of the process.
pub const METRIC_FLOWS_ACTIVE: &str = "flowscope_flows_active";
/// Frames without a key.
pub const METRIC_PACKETS_UNMATCHED: &str = "flowscope_packets_unmatched_total";
/// Bytes of flows that ended.
pub const METRIC_BYTES: &str = "flowscope_bytes_total";
/// How long flows that ended lasted.
pub const METRIC_FLOW_DURATION: &str = "flowscope_flow_duration_seconds";
/// How many packets flows that ended had.
pub const METRIC_FLOW_PACKETS: &str = "flowscope_flow_packets";
/// How many bytes flows that ended had.
pub const METRIC_FLOW_BYTES: &str = "flowscope_flow_bytes";
/// Anomaly events.
pub const METRIC_ANOMALIES: &str = "flowscope_anomalies_total";
/// TCP segments that reassembly dropped as out of order.
pub const METRIC_REASSEMBLY_DROPPED_OOO: &str = "flowscope_reassembly_dropped_ooo_total";
/// Bytes that reassembly dropped by the buffer cap.
pub const METRIC_REASSEMBLY_BYTES_DROPPED_OVERSIZE: &str =
    "flowscope_reassembly_bytes_dropped_oversize_total";
/// Packets, counted when seen.
pub const METRIC_LIVE_PACKETS: &str = "flowscope_live_packets_total";
/// Bytes, counted when seen.
pub const METRIC_LIVE_BYTES: &str = "flowscope_live_bytes_total";

/// Suggested buckets of [`METRIC_FLOW_DURATION`], in seconds. Also those that are kept.
pub const BUCKETS_FLOW_DURATION: [f64; 6] = [0.1, 1.0, 10.0, 60.0, 300.0, 3600.0];
/// Suggested buckets of [`METRIC_FLOW_PACKETS`]. Also those that are kept.
pub const BUCKETS_FLOW_PACKETS: [f64; 6] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];
/// Suggested buckets of [`METRIC_FLOW_BYTES`]. Also those that are kept.
pub const BUCKETS_FLOW_BYTES: [f64; 5] =
    [1_500.0, 64_000.0, 1_000_000.0, 10_000_000.0, 100_000_000.0];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// A label and all values that it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: &'static [&'static str],
}

/// A row of [`METRICS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it counts, in a word: `flows`, `packets`, `bytes`, `seconds`, `events`.
    pub unit: &'static str,
    /// What it says.
    pub help: &'static str,
}

const L4: &[Label] = &[Label { name: "l4", values: &L4_LABELS }];
const REASON: &[Label] = &[Label { name: "reason", values: &END_REASON_LABELS }];
const SIDE: &[Label] = &[Label { name: "side", values: &SIDE_LABELS }];
const KIND: &[Label] = &[Label { name: "kind", values: &ANOMALY_LABELS }];

const fn metric(
    kind: MetricKind,
    name: &'static str,
    labels: &'static [Label],
    unit: &'static str,
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, unit, help }
}

/// Every metric that trackers keep.
pub const METRICS: [Metric; 13] = {
    use MetricKind::{Counter, Gauge, Histogram};
    [
        metric(Counter, METRIC_FLOWS_CREATED, L4, "flows", "Flows seen first"),
        metric(Counter, METRIC_FLOWS_ENDED, REASON, "flows", "Flows that ended, by reason"),
        metric(Gauge, METRIC_FLOWS_ACTIVE, &[], "flows", "Live flows, over all trackers"),
        metric(Counter, METRIC_PACKETS_UNMATCHED, &[], "packets", "Frames without a flow key"),
        metric(Counter, METRIC_BYTES, SIDE, "bytes", "Bytes of ended flows, added when they end"),
        metric(Histogram, METRIC_FLOW_DURATION, &[], "seconds", "Duration of ended flows"),
        metric(Histogram, METRIC_FLOW_PACKETS, &[], "packets", "Packets of ended flows"),
        metric(Histogram, METRIC_FLOW_BYTES, &[], "bytes", "Bytes of ended flows"),
        metric(Counter, METRIC_ANOMALIES, KIND, "events", "Anomaly events"),
        metric(
            Counter,
            METRIC_REASSEMBLY_DROPPED_OOO,
            SIDE,
            "packets",
            "TCP segments dropped as out of order",
        ),
        metric(
            Counter,
            METRIC_REASSEMBLY_BYTES_DROPPED_OVERSIZE,
            SIDE,
            "bytes",
            "Stream bytes dropped by a buffer cap",
        ),
        metric(Counter, METRIC_LIVE_PACKETS, &[], "packets", "Packets of all flows, when seen"),
        metric(Counter, METRIC_LIVE_BYTES, &[], "bytes", "Bytes of all flows, when seen"),
    ]
};
