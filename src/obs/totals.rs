//! [`Totals`]: everything that trackers count, as plain numbers.
//!
//! A tracker counts in one of these, a shard carries one across threads cell by cell, and a
//! registry adds them up. Only this file knows the order of the cells.

use std::fmt::Write;

use super::labels::{ANOMALY_LABELS, END_REASON_LABELS, L4_LABELS};
use super::names::{
    BUCKETS_FLOW_BYTES, BUCKETS_FLOW_DURATION, BUCKETS_FLOW_PACKETS, METRIC_FLOW_BYTES,
    METRIC_FLOW_DURATION, METRIC_FLOW_PACKETS, METRICS,
};
use crate::event::EndReason;
use crate::flow::FlowStats;

/// A sum that neither rounds nor wraps: of whole units, and for durations nanoseconds beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Whole bytes, packets or seconds.
    pub whole: u64,
    /// Nanoseconds, fewer than a second of them; 0 in sums of bytes and packets.
    pub nanos: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Sum {
    /// From a duration.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { whole: nanos / SECOND_NS, nanos: nanos % SECOND_NS }
    }

    /// As a number of units, rounded once.
    pub fn as_f64(self) -> f64 {
        if self.nanos == 0 {
            return self.whole as f64;
        }
        (u128::from(self.whole) * u128::from(SECOND_NS) + u128::from(self.nanos)) as f64
            / SECOND_NS as f64
    }

    #[inline]
    fn add(&mut self, other: Self) {
        self.whole += other.whole;
        self.nanos += other.nanos;
        if self.nanos >= SECOND_NS {
            self.nanos -= SECOND_NS;
            self.whole += 1;
        }
    }

    /// What came since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        let borrow = u64::from(self.nanos < earlier.nanos);
        Self {
            whole: self.whole - earlier.whole - borrow,
            nanos: self.nanos + borrow * SECOND_NS - earlier.nanos,
        }
    }
}

/// A histogram of `N` fixed buckets, the last of which has no upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    /// Values in each bucket alone (not cumulative); a bound belongs to the bucket below it.
    pub counts: [u64; N],
    /// The sum of the values in each bucket.
    pub sums: [Sum; N],
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], sums: [Sum::default(); N] }
    }
}

impl<const N: usize> Histogram<N> {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Sum {
        let mut total = Sum::default();
        self.sums.iter().for_each(|sum| total.add(*sum));
        total
    }

    #[inline]
    fn record(&mut self, bucket: usize, value: Sum) {
        self.counts[bucket] += 1;
        self.sums[bucket].add(value);
    }

    fn add(&mut self, other: &Self) {
        for bucket in 0..N {
            self.counts[bucket] += other.counts[bucket];
            self.sums[bucket].add(other.sums[bucket]);
        }
    }

    #[inline]
    fn visit(&mut self, cell: &mut impl FnMut(&mut u64)) {
        self.counts.iter_mut().for_each(&mut *cell);
        for sum in &mut self.sums {
            cell(&mut sum.whole);
            cell(&mut sum.nanos);
        }
    }

    fn render(&self, out: &mut String, name: &str, bounds: &[f64]) {
        debug_assert_eq!(bounds.len() + 1, N);
        let help = METRICS.iter().find(|metric| metric.name == name).map_or("", |m| m.help);
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut below = 0;
        for (count, bound) in self.counts.iter().zip(bounds) {
            below += count;
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        let count = self.count();
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {count}\n", self.sum().as_f64());
    }
}

const DURATION_NS: [u64; BUCKETS_FLOW_DURATION.len()] = {
    let mut bounds = [0; BUCKETS_FLOW_DURATION.len()];
    let mut i = 0;
    while i < bounds.len() {
        // Tenths of a second are exact this way, and there is nothing finer.
        bounds[i] = (BUCKETS_FLOW_DURATION[i] * 10.0) as u64 * (SECOND_NS / 10);
        i += 1;
    }
    bounds
};
const PACKETS: [u64; BUCKETS_FLOW_PACKETS.len()] = whole(BUCKETS_FLOW_PACKETS);
const BYTES: [u64; BUCKETS_FLOW_BYTES.len()] = whole(BUCKETS_FLOW_BYTES);

const fn whole<const N: usize>(bounds: [f64; N]) -> [u64; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = bounds[i] as u64;
        i += 1;
    }
    out
}

/// The bucket of a value: how many bounds it is above. Most flows are small and short, so that the
/// first comparisons decide; comparing all without a branch took three times the instructions.
#[inline]
fn bucket<const N: usize>(bounds: &[u64; N], value: u64) -> usize {
    bounds.iter().position(|bound| value <= *bound).unwrap_or(N)
}

/// What trackers counted, as of their last batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Live flows.
    pub active: u64,
    /// Packets, when seen.
    pub live_packets: u64,
    /// Bytes, when seen.
    pub live_bytes: u64,
    /// Frames without a key.
    pub unmatched: u64,
    /// Flows that began, by [`L4`](crate::net::L4).
    pub created: [u64; L4_LABELS.len()],
    /// Flows that ended, by [`EndReason`].
    pub ended: [u64; END_REASON_LABELS.len()],
    /// Bytes of ended flows, by [`Side`](crate::net::Side).
    pub bytes: [u64; 2],
    /// Anomalies, in the order of [`ANOMALY_LABELS`].
    pub anomalies: [u64; ANOMALY_LABELS.len()],
    /// TCP segments dropped as out of order, by side.
    pub dropped_ooo: [u64; 2],
    /// Bytes dropped by a buffer cap, by side.
    pub dropped_oversize: [u64; 2],
    /// Durations of ended flows.
    pub flow_duration: Histogram<{ BUCKETS_FLOW_DURATION.len() + 1 }>,
    /// Packets of ended flows.
    pub flow_packets: Histogram<{ BUCKETS_FLOW_PACKETS.len() + 1 }>,
    /// Bytes of ended flows.
    pub flow_bytes: Histogram<{ BUCKETS_FLOW_BYTES.len() + 1 }>,
}

/// The cells that every batch changes come first: with the shard's sequence number they fill one
/// cache line.
pub(super) const HEAD_CELLS: usize = 4 + L4_LABELS.len();
pub(super) const TAIL_CELLS: usize = END_REASON_LABELS.len()
    + 2
    + ANOMALY_LABELS.len()
    + 2
    + 2
    + 3 * (BUCKETS_FLOW_DURATION.len() + BUCKETS_FLOW_PACKETS.len() + BUCKETS_FLOW_BYTES.len() + 3);

const _: () = assert!((HEAD_CELLS + 1) * size_of::<u64>() == 64);

impl Totals {
    /// Writes the three histograms in the Prometheus text format, straight from the buckets, so
    /// that no recorder has to keep samples.
    pub fn render_histograms(&self, out: &mut String) {
        self.flow_duration.render(out, METRIC_FLOW_DURATION, &BUCKETS_FLOW_DURATION);
        self.flow_packets.render(out, METRIC_FLOW_PACKETS, &BUCKETS_FLOW_PACKETS);
        self.flow_bytes.render(out, METRIC_FLOW_BYTES, &BUCKETS_FLOW_BYTES);
    }

    /// A flow ended.
    #[inline]
    pub(super) fn flow_ended(&mut self, reason: EndReason, stats: &FlowStats) {
        self.ended[reason as usize] += 1;
        self.bytes[0] += stats.initiator.bytes;
        self.bytes[1] += stats.responder.bytes;
        let ns = stats.last.nanos_since(stats.first);
        self.flow_duration.record(bucket(&DURATION_NS, ns), Sum::from_nanos(ns));
        let packets = stats.packets();
        self.flow_packets.record(bucket(&PACKETS, packets), Sum { whole: packets, nanos: 0 });
        let bytes = stats.bytes();
        self.flow_bytes.record(bucket(&BYTES, bytes), Sum { whole: bytes, nanos: 0 });
    }

    /// Flows that began and have not ended: what [`Totals::active`] is between two calls.
    pub(super) fn open(&self) -> u64 {
        self.created.iter().sum::<u64>() - self.ended.iter().sum::<u64>()
    }

    /// Adds what another tracker counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.active += other.active;
        self.live_packets += other.live_packets;
        self.live_bytes += other.live_bytes;
        self.unmatched += other.unmatched;
        let pairs: [(&mut [u64], &[u64]); 6] = [
            (&mut self.created, &other.created),
            (&mut self.ended, &other.ended),
            (&mut self.bytes, &other.bytes),
            (&mut self.anomalies, &other.anomalies),
            (&mut self.dropped_ooo, &other.dropped_ooo),
            (&mut self.dropped_oversize, &other.dropped_oversize),
        ];
        for (sums, more) in pairs {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.flow_duration.add(&other.flow_duration);
        self.flow_packets.add(&other.flow_packets);
        self.flow_bytes.add(&other.flow_bytes);
    }

    /// Shows `cell` the first [`HEAD_CELLS`] cells in order.
    #[inline]
    pub(super) fn visit_head(&mut self, mut cell: impl FnMut(&mut u64)) {
        cell(&mut self.active);
        cell(&mut self.live_packets);
        cell(&mut self.live_bytes);
        cell(&mut self.unmatched);
        self.created.iter_mut().for_each(cell);
    }

    /// Shows `cell` the other [`TAIL_CELLS`] cells in order.
    #[inline]
    pub(super) fn visit_tail(&mut self, mut cell: impl FnMut(&mut u64)) {
        self.ended.iter_mut().for_each(&mut cell);
        self.bytes.iter_mut().for_each(&mut cell);
        self.anomalies.iter_mut().for_each(&mut cell);
        self.dropped_ooo.iter_mut().for_each(&mut cell);
        self.dropped_oversize.iter_mut().for_each(&mut cell);
        self.flow_duration.visit(&mut cell);
        self.flow_packets.visit(&mut cell);
        self.flow_bytes.visit(&mut cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        assert_eq!(DURATION_NS[0], 100_000_000);
        assert_eq!(bucket(&DURATION_NS, 100_000_000), 0);
        assert_eq!(bucket(&DURATION_NS, 100_000_001), 1);
        assert_eq!(bucket(&DURATION_NS, u64::MAX), 6);
        assert_eq!(bucket(&PACKETS, 1), 0);
        assert_eq!(bucket(&PACKETS, 100_001), 6);
        assert_eq!(bucket(&BYTES, 1_501), 1);
    }

    #[test]
    fn every_cell_is_visited_once() {
        let mut totals = Totals::default();
        let mut head = 0;
        totals.visit_head(|cell| {
            *cell += 1;
            head += 1;
        });
        let mut tail = 0;
        totals.visit_tail(|cell| {
            *cell += 1;
            tail += 1;
        });
        assert_eq!((head, tail), (HEAD_CELLS, TAIL_CELLS));
        assert_eq!(size_of::<Totals>(), (HEAD_CELLS + TAIL_CELLS) * size_of::<u64>());
        let mut seen = totals.clone();
        seen.visit_head(|cell| assert_eq!(*cell, 1));
        seen.visit_tail(|cell| assert_eq!(*cell, 1));
        // Adding goes over the same cells.
        let mut sum = Totals::default();
        sum.add(&totals);
        assert_eq!(sum, totals);
    }

    #[test]
    fn sums_carry_and_borrow() {
        let mut sum = Sum::from_nanos(1_900_000_000);
        let first = sum;
        sum.add(Sum::from_nanos(200_000_000));
        assert_eq!(sum, Sum { whole: 2, nanos: 100_000_000 });
        assert_eq!(sum.since(first), Sum::from_nanos(200_000_000));
        assert_eq!(sum.as_f64(), 2.1);
    }

    #[test]
    fn histograms_render_cumulatively() {
        let mut totals = Totals::default();
        for (ns, packets) in [(50_000_000, 1), (250_000_000, 2), (5_000_000_000_000, 200_000)] {
            let duration = Sum::from_nanos(ns);
            totals.flow_duration.record(bucket(&DURATION_NS, ns), duration);
            let whole = Sum { whole: packets, nanos: 0 };
            totals.flow_packets.record(bucket(&PACKETS, packets), whole);
        }
        let mut out = String::new();
        totals.render_histograms(&mut out);
        for line in [
            "# TYPE flowscope_flow_duration_seconds histogram",
            "flowscope_flow_duration_seconds_bucket{le=\"0.1\"} 1",
            "flowscope_flow_duration_seconds_bucket{le=\"1\"} 2",
            "flowscope_flow_duration_seconds_bucket{le=\"3600\"} 2",
            "flowscope_flow_duration_seconds_bucket{le=\"+Inf\"} 3",
            "flowscope_flow_duration_seconds_sum 5000.3",
            "flowscope_flow_duration_seconds_count 3",
            "flowscope_flow_packets_bucket{le=\"100000\"} 2",
            "flowscope_flow_packets_sum 200003",
            "flowscope_flow_bytes_count 0",
        ] {
            assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
        }
    }
}
