//! Without the feature `tracing`: nothing is told.

use crate::event::{AnomalyKind, EndReason};
use crate::flow::FlowStats;
use crate::net::L4;

#[derive(Debug, Default)]
pub(super) struct Events;

impl Events {
    #[inline(always)]
    pub(super) fn flow_created(&self, _: L4) {}

    #[inline(always)]
    pub(super) fn flow_ended(&self, _: EndReason, _: &FlowStats) {}

    #[inline(always)]
    pub(super) fn anomaly(&self, _: &AnomalyKind) {}
}
