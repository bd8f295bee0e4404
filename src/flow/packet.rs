//! What the table needs to know of a frame: small, plain, ready to be sent to another core.

use crate::decode::{Payload, TcpHeader};
use crate::net::{End, IpProto};
use crate::time::Timestamp;

/// A frame with its key and hash; made by [`Ingest`](super::ingest::Ingest), eaten by
/// [`FlowTracker::process_packets`](super::FlowTracker::process_packets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<K> {
    /// The canonical key.
    pub key: K,
    /// Its keyed hash.
    pub hash: u64,
    /// When the (first) frame was captured.
    pub ts: Timestamp,
    /// How late it was when the packet was handed on: the latest time that the whole capture had shown. Trackers that see
    /// different parts of a capture go by it, so that they agree on what is over.
    pub clock: Timestamp,
    /// Bytes on the wire, of all frames together.
    pub wire_bytes: u64,
    /// How many frames: 1, or more for fragments that waited for their first one, or 0 for an
    /// [`Role::IcmpQuote`].
    pub frames: u32,
    /// Which end of the key sent it.
    pub end: End,
    /// What it means to the flow.
    pub role: Role,
    /// IP protocol; 0 without IP.
    pub proto: IpProto,
    /// Outermost VLAN identifier plus one; 0 without a tag.
    pub vlan: u16,
    /// Whether it is an ICMP reply, whose key has the type of its request.
    pub is_reply: bool,
    /// TCP header; `None` for every other protocol and for later fragments.
    pub tcp: Option<TcpHeader>,
    /// Where the transport payload is in the frame's bytes.
    pub payload: Payload,
    /// Index of the frame in the batch that it came from; beyond all where no frame is at hand.
    pub frame: u32,
}

// Two cache lines. Their order is the compiler's: with the key in front, in one line, a tracker took 5 ns more of packets that come from memory.
const _: () = assert!(size_of::<Packet<super::key::FlowKey>>() == 128);

/// Where an [`Ingest`](super::ingest::Ingest) puts its packets: appended to a list, or dealt to workers at once.
pub trait PacketSink<K> {
    /// Takes the next packet.
    fn push(&mut self, packet: Packet<K>);
}

impl<K> PacketSink<K> for Vec<Packet<K>> {
    #[inline(always)]
    fn push(&mut self, packet: Packet<K>) {
        self.push(packet);
    }
}

/// What a packet means to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// A packet of the flow.
    Packet,
    /// Not a packet of this flow: an ICMP error elsewhere quotes it. Creates no flow.
    IcmpQuote,
    /// Fragments whose datagram's first fragment never came; the key has ports 0.
    Unattributed,
}
