//! Names and labels of every metric, and the hooks that the layers below call.

use crate::event::{AnomalyKind, EndReason};
use crate::flow::FlowStats;
use crate::net::{L4, Side};

/// What a tracker reports to; does nothing, at no cost, without the features.
#[derive(Debug, Default)]
pub struct Hooks {}

impl Hooks {
    /// A flow began.
    #[inline]
    pub fn flow_created(&mut self, l4: L4) {
        let _ = l4;
    }

    /// A flow ended.
    #[inline]
    pub fn flow_ended(&mut self, reason: EndReason, stats: &FlowStats) {
        let _ = (reason, stats);
    }

    /// An anomaly event was emitted.
    #[inline]
    pub fn anomaly(&mut self, kind: &AnomalyKind) {
        let _ = kind;
    }

    /// The extractor had no key for this many frames more.
    #[inline]
    pub fn unmatched(&mut self, frames: u64) {
        let _ = frames;
    }

    /// A batch was accounted: frames and bytes more, live flows now.
    #[inline]
    pub fn batch(&mut self, packets: u64, bytes: u64, active: usize) {
        let _ = (packets, bytes, active);
    }

    /// TCP segments of a side were dropped as out of order.
    #[inline]
    pub fn dropped_ooo(&mut self, side: Side, segments: u64) {
        let _ = (side, segments);
    }

    /// Bytes of a side were dropped by the buffer cap.
    #[inline]
    pub fn dropped_oversize(&mut self, side: Side, bytes: u64) {
        let _ = (side, bytes);
    }
}
