//! [`Publisher`]: from a registry to the `metrics` recorder.
//!
//! Handles are looked up by name once, when a publisher is made; make it after the recorder is
//! installed. Histograms reach the recorder as one call a bucket and publication, with the mean of
//! the values that are new in that bucket: counts per bucket are exact for the suggested bounds,
//! sums up to rounding. A recorder that keeps raw samples still keeps one for each flow, so that
//! an exporter of Prometheus text does better with [`Publisher::without_histograms`] and
//! [`Totals::render_histograms`].

use std::sync::{Mutex, PoisonError};

use metrics::{Counter, Gauge, Unit, counter, gauge, histogram};

use super::labels::{ANOMALY_LABELS, END_REASON_LABELS, L4_LABELS, SIDE_LABELS};
use super::names::*;
use super::registry::Registry;
use super::totals::{Histogram, Totals};

/// Tells the current recorder what each metric means and in which unit it is.
pub fn describe() {
    for metric in METRICS {
        let unit = match metric.unit {
            "seconds" => Unit::Seconds,
            "bytes" => Unit::Bytes,
            _ => Unit::Count,
        };
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

/// Publishes the global registry to the recorder that is installed when it is called first.
pub fn publish() {
    static GLOBAL: Mutex<Option<Publisher>> = Mutex::new(None);
    GLOBAL
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_with(|| Publisher::new(Registry::global()))
        .publish();
}

/// Hands the sums of a registry to the recorder that was current when it was made.
pub struct Publisher {
    registry: Registry,
    created: [Counter; L4_LABELS.len()],
    ended: [Counter; END_REASON_LABELS.len()],
    active: Gauge,
    unmatched: Counter,
    bytes: [Counter; SIDE_LABELS.len()],
    anomalies: [Counter; ANOMALY_LABELS.len()],
    dropped_ooo: [Counter; SIDE_LABELS.len()],
    dropped_oversize: [Counter; SIDE_LABELS.len()],
    live_packets: Counter,
    live_bytes: Counter,
    histograms: Option<Histograms>,
}

/// The recorder's histograms, and what they were told so far.
struct Histograms {
    duration: metrics::Histogram,
    packets: metrics::Histogram,
    bytes: metrics::Histogram,
    told: Totals,
}

impl Publisher {
    /// Registers every metric with the current recorder, and describes it.
    pub fn new(registry: &Registry) -> Self {
        let histograms = Histograms {
            duration: histogram!(METRIC_FLOW_DURATION),
            packets: histogram!(METRIC_FLOW_PACKETS),
            bytes: histogram!(METRIC_FLOW_BYTES),
            told: Totals::default(),
        };
        Self { histograms: Some(histograms), ..Self::without_histograms(registry) }
    }

    /// The same but for the histograms, which the caller renders from [`Registry::totals`].
    pub fn without_histograms(registry: &Registry) -> Self {
        describe();
        Self {
            registry: registry.clone(),
            created: L4_LABELS.map(|l4| counter!(METRIC_FLOWS_CREATED, "l4" => l4)),
            ended: END_REASON_LABELS.map(|reason| counter!(METRIC_FLOWS_ENDED, "reason" => reason)),
            active: gauge!(METRIC_FLOWS_ACTIVE),
            unmatched: counter!(METRIC_PACKETS_UNMATCHED),
            bytes: SIDE_LABELS.map(|side| counter!(METRIC_BYTES, "side" => side)),
            anomalies: ANOMALY_LABELS.map(|kind| counter!(METRIC_ANOMALIES, "kind" => kind)),
            dropped_ooo: SIDE_LABELS
                .map(|side| counter!(METRIC_REASSEMBLY_DROPPED_OOO, "side" => side)),
            dropped_oversize: SIDE_LABELS
                .map(|side| counter!(METRIC_REASSEMBLY_BYTES_DROPPED_OVERSIZE, "side" => side)),
            live_packets: counter!(METRIC_LIVE_PACKETS),
            live_bytes: counter!(METRIC_LIVE_BYTES),
            histograms: None,
        }
    }

    /// Brings the recorder up to date, and gives the sums that it was told.
    pub fn publish(&mut self) -> Totals {
        let totals = self.registry.totals();
        let groups: [(&[Counter], &[u64]); 6] = [
            (&self.created, &totals.created),
            (&self.ended, &totals.ended),
            (&self.bytes, &totals.bytes),
            (&self.anomalies, &totals.anomalies),
            (&self.dropped_ooo, &totals.dropped_ooo),
            (&self.dropped_oversize, &totals.dropped_oversize),
        ];
        for (counters, values) in groups {
            counters.iter().zip(values).for_each(|(counter, value)| counter.absolute(*value));
        }
        self.unmatched.absolute(totals.unmatched);
        self.live_packets.absolute(totals.live_packets);
        self.live_bytes.absolute(totals.live_bytes);
        self.active.set(totals.active as f64);
        if let Some(histograms) = &mut self.histograms {
            histograms.publish(&totals);
        }
        totals
    }
}

impl Histograms {
    fn publish(&mut self, now: &Totals) {
        let told = &self.told;
        record(&self.duration, &BUCKETS_FLOW_DURATION, &now.flow_duration, &told.flow_duration);
        record(&self.packets, &BUCKETS_FLOW_PACKETS, &now.flow_packets, &told.flow_packets);
        record(&self.bytes, &BUCKETS_FLOW_BYTES, &now.flow_bytes, &told.flow_bytes);
        self.told = now.clone();
    }
}

/// Records what came to each bucket since `told` as so many times its mean.
fn record<const N: usize>(
    to: &metrics::Histogram,
    bounds: &[f64],
    now: &Histogram<N>,
    told: &Histogram<N>,
) {
    for bucket in 0..N {
        let count = now.counts[bucket] - told.counts[bucket];
        if count == 0 {
            continue;
        }
        let mean = now.sums[bucket].since(told.sums[bucket]).as_f64() / count as f64;
        // Rounding must not carry the mean over a bound.
        let above = bucket.checked_sub(1).map_or(0.0, |below| bounds[below].next_up());
        let upto = bounds.get(bucket).copied().unwrap_or(f64::INFINITY);
        to.record_many(mean.clamp(above, upto), usize::try_from(count).unwrap_or(usize::MAX));
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("registry", &self.registry)
            .field("histograms", &self.histograms.is_some())
            .finish_non_exhaustive()
    }
}
