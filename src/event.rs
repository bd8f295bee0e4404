//! What a tracker tells: flow events, why flows end, what was odd.

use crate::flow::FlowStats;
use crate::net::{End, L4, Side};
use crate::time::Timestamp;

/// Something that happened to a flow. Keys are canonical; `initiator` in the statistics tells
/// which end opened the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowEvent<K> {
    /// A tracker sees a flow first.
    Started {
        /// Whose.
        key: K,
        /// Transport class.
        l4: L4,
        /// Time of its first frame.
        ts: Timestamp,
    },
    /// A TCP connection completed its three-way handshake.
    Established {
        /// Whose.
        key: K,
        /// Time of the frame that completed it.
        ts: Timestamp,
    },
    /// The active timeout passed: the flow goes on, this is what it has so far. The statistics
    /// are those since the flow began; [`FlowStats::unreported`] are those since the last update.
    Updated {
        /// Whose.
        key: K,
        /// Totals since the flow began.
        stats: FlowStats,
    },
    /// The flow is over and forgotten.
    Ended {
        /// Whose.
        key: K,
        /// Why.
        reason: EndReason,
        /// Totals since the flow began.
        stats: FlowStats,
    },
    /// Something odd.
    Anomaly {
        /// In which flow, when it is about one.
        key: Option<K>,
        /// What.
        kind: AnomalyKind,
        /// When.
        ts: Timestamp,
    },
    /// One packet; only with [`TrackerConfig::emit_packets`](crate::flow::TrackerConfig).
    Packet {
        /// Of which flow.
        key: K,
        /// Which end of the key sent it.
        end: End,
        /// When.
        ts: Timestamp,
        /// Bytes on the wire.
        wire_len: u32,
    },
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum EndReason {
    /// Both sides of a TCP connection closed it.
    Fin,
    /// A TCP connection was reset, or refused.
    Rst,
    /// Nothing was seen for the idle timeout.
    Idle,
    /// It made room for another flow.
    Evicted,
    /// Its reassembly buffer was full and the policy is to drop the flow.
    BufferOverflow,
    /// A new connection took over its tuple while it was still open.
    Superseded,
    /// The tracker was drained, at shutdown or at the end of a capture.
    Drained,
    /// The caller had it forgotten, or dropped the tracker.
    Forgotten,
}

impl EndReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Fin,
        Self::Rst,
        Self::Idle,
        Self::Evicted,
        Self::BufferOverflow,
        Self::Superseded,
        Self::Drained,
        Self::Forgotten,
    ];
}

/// What was odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnomalyKind {
    /// A side's reassembly buffer, or the memory for all of them, was full.
    BufferOverflow {
        /// Whose bytes.
        side: Side,
        /// How many bytes were dropped.
        bytes: u64,
    },
    /// A TCP segment was dropped because it was too far out of order to be held.
    OutOfOrderSegment {
        /// Whose segment.
        side: Side,
        /// Its sequence number.
        seq: u32,
    },
    /// The flow table was full and a flow made room for another.
    FlowTableEviction {
        /// How many flows the table holds.
        max_flows: usize,
    },
    /// So many keys had neighbouring hashes that one flow made room for another. Nobody can bring that about without the
    /// key of the hash.
    FlowTableCollision {
        /// How many buckets were looked at.
        probes: u32,
    },
    /// A RST outside the window, which was not believed (RFC 9293 section 3.5.3, RFC 5961).
    RstOutOfWindow {
        /// Who sent it.
        side: Side,
        /// Its sequence number.
        seq: u32,
    },
    /// A hole in a stream never filled and was skipped.
    StreamGap {
        /// Whose bytes are missing.
        side: Side,
        /// How many.
        bytes: u64,
    },
    /// Retransmitted bytes differ from those seen first (which stay).
    OverlapConflict {
        /// Who sent them.
        side: Side,
        /// How many bytes differ at least.
        bytes: u64,
    },
    /// Fragments whose datagram's first fragment was not seen in time; they are in the flow of
    /// their addresses and protocol with ports 0.
    FragmentsUnattributed {
        /// How many fragments.
        packets: u32,
    },
}

/// Who receives events. Closures and vectors do.
pub trait EventSink<K> {
    /// Takes one event. Called from the packet path: be quick.
    fn event(&mut self, event: FlowEvent<K>);
}

impl<K, F: FnMut(FlowEvent<K>)> EventSink<K> for F {
    #[inline]
    fn event(&mut self, event: FlowEvent<K>) {
        self(event);
    }
}

/// Keeps every event, for tests and small captures.
#[derive(Clone, Debug)]
pub struct EventLog<K>(pub Vec<FlowEvent<K>>);

impl<K> Default for EventLog<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K> EventSink<K> for EventLog<K> {
    fn event(&mut self, event: FlowEvent<K>) {
        self.0.push(event);
    }
}
