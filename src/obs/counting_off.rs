//! Without the feature `metrics`: nothing is counted.

use crate::event::{AnomalyKind, EndReason};
use crate::flow::FlowStats;
use crate::net::{L4, Side};

#[derive(Debug, Default)]
pub(super) struct Counting;

impl Counting {
    #[inline(always)]
    pub(super) fn flow_created(&mut self, _: L4) {}

    #[inline(always)]
    pub(super) fn flow_ended(&mut self, _: EndReason, _: &FlowStats) {}

    #[inline(always)]
    pub(super) fn anomaly(&mut self, _: &AnomalyKind) {}

    #[inline(always)]
    pub(super) fn unmatched(&mut self, _: u64) {}

    #[inline(always)]
    pub(super) fn batch(&mut self, _: u64, _: u64, _: usize) {}

    #[inline(always)]
    pub(super) fn dropped_ooo(&mut self, _: Side, _: u64) {}

    #[inline(always)]
    pub(super) fn dropped_oversize(&mut self, _: Side, _: u64) {}
}
