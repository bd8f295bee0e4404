//! The one place that spells label values.
//!
//! The matches have no catch-all, so that a new reason or kind does not compile without a label.

use crate::event::{AnomalyKind, EndReason};
use crate::net::{L4, Side};

/// Values of `l4`, in the order of [`L4::ALL`].
pub const L4_LABELS: [&str; L4::ALL.len()] = {
    let mut labels = [""; L4::ALL.len()];
    let mut i = 0;
    while i < labels.len() {
        labels[i] = l4_label(L4::ALL[i]);
        i += 1;
    }
    labels
};

/// Values of `reason`, in the order of [`EndReason::ALL`].
pub const END_REASON_LABELS: [&str; EndReason::ALL.len()] = {
    let mut labels = [""; EndReason::ALL.len()];
    let mut i = 0;
    while i < labels.len() {
        labels[i] = end_reason_label(EndReason::ALL[i]);
        i += 1;
    }
    labels
};

/// Values of `side`, in the order of [`Side::BOTH`].
pub const SIDE_LABELS: [&str; Side::BOTH.len()] =
    [side_label(Side::BOTH[0]), side_label(Side::BOTH[1])];

/// Values of `kind`.
pub const ANOMALY_LABELS: [&str; 8] = [
    "buffer_overflow",
    "ooo_segment",
    "flow_table_eviction",
    "rst_out_of_window",
    "stream_gap",
    "overlap_conflict",
    "fragments_unattributed",
    "flow_table_collision",
];

/// The place of a kind in [`ANOMALY_LABELS`].
#[inline]
pub(super) const fn anomaly_number(kind: &AnomalyKind) -> usize {
    match kind {
        AnomalyKind::BufferOverflow { .. } => 0,
        AnomalyKind::OutOfOrderSegment { .. } => 1,
        AnomalyKind::FlowTableEviction { .. } => 2,
        AnomalyKind::RstOutOfWindow { .. } => 3,
        AnomalyKind::StreamGap { .. } => 4,
        AnomalyKind::OverlapConflict { .. } => 5,
        AnomalyKind::FragmentsUnattributed { .. } => 6,
        AnomalyKind::FlowTableCollision { .. } => 7,
    }
}

/// The label `kind` of an anomaly.
pub const fn anomaly_label(kind: &AnomalyKind) -> &'static str {
    ANOMALY_LABELS[anomaly_number(kind)]
}

/// The label `reason` of an end.
pub const fn end_reason_label(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Fin => "fin",
        EndReason::Rst => "rst",
        EndReason::Idle => "idle",
        EndReason::Evicted => "evicted",
        EndReason::BufferOverflow => "buffer_overflow",
        EndReason::Superseded => "superseded",
        EndReason::Drained => "drained",
        EndReason::Forgotten => "forgotten",
    }
}

/// The label `l4` of a transport class.
pub const fn l4_label(l4: L4) -> &'static str {
    match l4 {
        L4::Tcp => "tcp",
        L4::Udp => "udp",
        L4::Other => "other",
    }
}

/// The label `side` of a side.
pub const fn side_label(side: Side) -> &'static str {
    match side {
        Side::Initiator => "initiator",
        Side::Responder => "responder",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, in the order of their numbers.
    const KINDS: [AnomalyKind; ANOMALY_LABELS.len()] = [
        AnomalyKind::BufferOverflow { side: Side::Initiator, bytes: 1 },
        AnomalyKind::OutOfOrderSegment { side: Side::Initiator, seq: 1 },
        AnomalyKind::FlowTableEviction { max_flows: 1 },
        AnomalyKind::RstOutOfWindow { side: Side::Initiator, seq: 1 },
        AnomalyKind::StreamGap { side: Side::Initiator, bytes: 1 },
        AnomalyKind::OverlapConflict { side: Side::Initiator, bytes: 1 },
        AnomalyKind::FragmentsUnattributed { packets: 1 },
        AnomalyKind::FlowTableCollision { probes: 1 },
    ];

    fn assert_labels(labels: &[&str]) {
        for (i, label) in labels.iter().enumerate() {
            assert!(!label.is_empty());
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(!labels[..i].contains(label), "{label} is the label of two");
        }
    }

    #[test]
    fn every_kind_and_reason_has_a_label_of_its_own() {
        assert_labels(&KINDS.map(|kind| anomaly_label(&kind)));
        assert_labels(&EndReason::ALL.map(end_reason_label));
        assert_labels(&L4::ALL.map(l4_label));
        assert_labels(&Side::BOTH.map(side_label));
    }

    #[test]
    fn numbers_are_places_in_the_lists() {
        for (number, kind) in KINDS.iter().enumerate() {
            assert_eq!(anomaly_number(kind), number, "{kind:?}");
        }
        for (number, reason) in EndReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{reason:?}");
        }
        for (number, l4) in L4::ALL.into_iter().enumerate() {
            assert_eq!(l4 as usize, number, "{l4:?}");
        }
        assert_eq!(Side::BOTH.map(|side| side as usize), [0, 1]);
    }

    #[test]
    fn labels_of_the_contract_never_change() {
        assert_eq!(L4_LABELS, ["tcp", "udp", "other"]);
        assert_eq!(END_REASON_LABELS[..5], ["fin", "rst", "idle", "evicted", "buffer_overflow"]);
        assert_eq!(SIDE_LABELS, ["initiator", "responder"]);
        assert_eq!(ANOMALY_LABELS[..3], ["buffer_overflow", "ooo_segment", "flow_table_eviction"]);
    }
}
