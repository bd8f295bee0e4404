//! Flow and anomaly events for `tracing`.
//!
//! No flow keys, nothing per packet. Without a subscriber a call is the comparison of a level;
//! what fields cost is paid behind it, out of line.

use tracing::level_filters::LevelFilter;
use tracing::{Level, event};

use super::labels::{end_reason_label, l4_label};
use crate::event::{AnomalyKind, EndReason};
use crate::flow::FlowStats;
use crate::net::L4;

const FLOW: &str = "flowscope.flow";
const ANOMALY: &str = "flowscope.anomaly";

#[derive(Debug, Default)]
pub(super) struct Events;

impl Events {
    #[inline]
    pub(super) fn flow_created(&self, l4: L4) {
        if Level::INFO <= LevelFilter::current() {
            tell_created(l4);
        }
    }

    #[inline]
    pub(super) fn flow_ended(&self, reason: EndReason, stats: &FlowStats) {
        if Level::INFO <= LevelFilter::current() {
            tell_ended(reason, stats);
        }
    }

    #[inline]
    pub(super) fn anomaly(&self, kind: &AnomalyKind) {
        if Level::WARN <= LevelFilter::current() {
            tell_anomaly(kind);
        }
    }
}

#[cold]
#[inline(never)]
fn tell_created(l4: L4) {
    event!(target: FLOW, Level::INFO, l4 = l4_label(l4), "flow created");
}

#[cold]
#[inline(never)]
fn tell_ended(reason: EndReason, stats: &FlowStats) {
    event!(
        target: FLOW,
        Level::INFO,
        l4 = l4_label(stats.l4()),
        reason = end_reason_label(reason),
        packets = stats.packets(),
        bytes = stats.bytes(),
        "flow ended"
    );
}

#[cold]
#[inline(never)]
fn tell_anomaly(kind: &AnomalyKind) {
    event!(target: ANOMALY, Level::WARN, kind = ?kind, "anomaly");
}
