//! What a flow adds up to.

use super::history::History;
use super::tcp::TcpState;
use crate::net::{End, IpProto, L4, Side, TcpFlags};
use crate::time::Timestamp;

/// One side of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideStats {
    /// Frames this side sent.
    pub packets: u64,
    /// Their bytes on the wire, link header included.
    pub bytes: u64,
    /// Union of the TCP flags it sent.
    pub tcp_flags: TcpFlags,
    /// TCP segments whose bytes had all been seen before.
    pub retransmitted: u32,
    /// TCP segments that came after later ones and brought new bytes.
    pub out_of_order: u32,
}

/// Packets and bytes per side, within a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time of the first frame.
    pub first: Timestamp,
    /// Time of the last frame.
    pub last: Timestamp,
    /// Frames, by [`Side`].
    pub packets: [u64; 2],
    /// Bytes on the wire, by [`Side`].
    pub bytes: [u64; 2],
}

impl Totals {
    /// Nothing.
    pub(crate) const NONE: Self =
        Self { first: Timestamp::ZERO, last: Timestamp::ZERO, packets: [0; 2], bytes: [0; 2] };
}

/// A flow's totals since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// Time of the earliest frame.
    pub first: Timestamp,
    /// Time of the latest frame.
    pub last: Timestamp,
    /// Which end of the key opened the conversation.
    pub initiator_end: End,
    /// The initiator's side.
    pub initiator: SideStats,
    /// The responder's side.
    pub responder: SideStats,
    /// IP protocol; 0 without IP.
    pub proto: IpProto,
    /// Outermost VLAN of the first frame, if it was tagged.
    pub vlan: Option<u16>,
    /// State of the TCP connection; `None` for other protocols.
    pub tcp_state: Option<TcpState>,
    /// Whether a TCP flow was picked up after its handshake.
    pub midstream: bool,
    /// What happened on the TCP connection, in order.
    pub history: History,
    /// Whether an ICMP reply was seen before any request: the initiator is who replied.
    pub reply_first: bool,
    /// ICMP errors that quoted the flow.
    pub icmp_errors: u32,
    /// What records so far have told; all zero before the first [`Updated`](crate::FlowEvent).
    pub reported: Totals,
    /// How many updates there were before this one.
    pub updates: u32,
}

impl FlowStats {
    /// One side.
    pub fn side(&self, side: Side) -> &SideStats {
        match side {
            Side::Initiator => &self.initiator,
            Side::Responder => &self.responder,
        }
    }

    /// Transport class.
    pub fn l4(&self) -> L4 {
        self.proto.l4()
    }

    /// Frames of both sides.
    pub fn packets(&self) -> u64 {
        self.initiator.packets + self.responder.packets
    }

    /// Bytes of both sides.
    pub fn bytes(&self) -> u64 {
        self.initiator.bytes + self.responder.bytes
    }

    /// What no record has told yet: the whole flow, or what came after its last update. Records
    /// made of this add up to the flow.
    pub fn unreported(&self) -> Totals {
        let since = |side: Side, packets: bool| {
            let stats = self.side(side);
            if packets {
                stats.packets - self.reported.packets[side as usize]
            } else {
                stats.bytes - self.reported.bytes[side as usize]
            }
        };
        Totals {
            first: if self.updates == 0 { self.first } else { self.reported.last },
            last: self.last,
            packets: Side::BOTH.map(|side| since(side, true)),
            bytes: Side::BOTH.map(|side| since(side, false)),
        }
    }
}
