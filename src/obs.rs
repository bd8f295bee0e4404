//! Names and labels of every metric, and the hooks that the layers below call.
//!
//! Contract: what a row of `docs/OBSERVABILITY.md` says is true, and a label value is one of a
//! list that is fixed when the crate is built, never made from a flow key. The hooks are called
//! per flow and per batch, never per packet, and they do not allocate, lock or look anything up.
//! With a feature off its half of [`Hooks`] is an empty type whose methods are empty.
//!
//! | part | feature | what it does |
//! |---|---|---|
//! | [`names`](METRICS) | | names, help and buckets |
//! | labels | | the one place that spells label values |
//! | counting | `metrics` | plain counters of one tracker, and the shard it publishes them to |
//! | `Registry`, `Totals` | `metrics` | sums over trackers, living and gone |
//! | `Publisher` | `metrics` | hands the sums to the `metrics` recorder |
//! | events | `tracing` | flow and anomaly events |
//!
//! With the feature `metrics` an embedder installs a recorder, keeps a `Publisher` and calls its
//! `publish` whenever the figures are wanted: before each scrape, or every few seconds.

mod labels;
mod names;

pub use labels::{
    ANOMALY_LABELS, END_REASON_LABELS, L4_LABELS, SIDE_LABELS, anomaly_label, end_reason_label,
    l4_label, side_label,
};
pub use names::*;

#[cfg(feature = "metrics")]
mod counting;
#[cfg(not(feature = "metrics"))]
#[path = "obs/counting_off.rs"]
mod counting;
#[cfg(feature = "metrics")]
mod publisher;
#[cfg(feature = "metrics")]
mod registry;
#[cfg(feature = "metrics")]
mod totals;

#[cfg(feature = "tracing")]
mod events;
#[cfg(not(feature = "tracing"))]
#[path = "obs/events_off.rs"]
mod events;

#[cfg(feature = "metrics")]
pub use publisher::{Publisher, describe, publish};
#[cfg(feature = "metrics")]
pub use registry::Registry;
#[cfg(feature = "metrics")]
pub use totals::{Histogram, Sum, Totals};

use counting::Counting;
use events::Events;

use crate::event::{AnomalyKind, EndReason};
use crate::flow::FlowStats;
use crate::net::{L4, Side};

/// Calls a hook; compiles to nothing under `--cfg flowscope_no_hooks`, which is how
/// `bench/zero-cost.sh` shows that hooks without features cost nothing.
macro_rules! hook {
    ($call:expr) => {
        #[cfg(not(flowscope_no_hooks))]
        {
            $call;
        }
    };
}
pub(crate) use hook;

/// What a tracker reports to; does nothing, at no cost, without the features.
///
/// One tracker, one `Hooks`: it counts in plain fields and publishes them at the end of a batch.
/// Flows that are still live when it is dropped count as ended by `forgotten`.
#[derive(Debug, Default)]
pub struct Hooks {
    counting: Counting,
    events: Events,
}

// What the promise of no cost rests on.
#[cfg(not(any(feature = "metrics", feature = "tracing")))]
const _: () = assert!(size_of::<Hooks>() == 0 && !std::mem::needs_drop::<Hooks>());

impl Hooks {
    /// Counts into a registry of the caller's; [`Hooks::default`] counts into the global one.
    #[cfg(feature = "metrics")]
    pub fn new(registry: &Registry) -> Self {
        Self { counting: Counting::new(registry), events: Events }
    }

    /// A flow began.
    #[inline]
    pub fn flow_created(&mut self, l4: L4) {
        self.counting.flow_created(l4);
        self.events.flow_created(l4);
    }

    /// A flow ended.
    #[inline]
    pub fn flow_ended(&mut self, reason: EndReason, stats: &FlowStats) {
        self.counting.flow_ended(reason, stats);
        self.events.flow_ended(reason, stats);
    }

    /// An anomaly event was emitted.
    #[inline]
    pub fn anomaly(&mut self, kind: &AnomalyKind) {
        self.counting.anomaly(kind);
        self.events.anomaly(kind);
    }

    /// The extractor had no key for this many frames more. Published with the next batch.
    #[inline]
    pub fn unmatched(&mut self, frames: u64) {
        self.counting.unmatched(frames);
    }

    /// A batch was accounted, or flows ended outside of one (timeouts, drain): frames and bytes
    /// more, live flows now. Publishes what changed.
    #[inline]
    pub fn batch(&mut self, packets: u64, bytes: u64, active: usize) {
        self.counting.batch(packets, bytes, active);
    }

    /// TCP segments of a side were dropped as out of order.
    #[inline]
    pub fn dropped_ooo(&mut self, side: Side, segments: u64) {
        self.counting.dropped_ooo(side, segments);
    }

    /// Bytes of a side were dropped by the buffer cap.
    #[inline]
    pub fn dropped_oversize(&mut self, side: Side, bytes: u64) {
        self.counting.dropped_oversize(side, bytes);
    }
}
