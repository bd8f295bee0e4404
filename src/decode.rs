//! One frame's bytes → [`Layers`]. Total functions over untrusted bytes.
//!
//! Contract: never panics, never loops without a bound, never allocates, reads each header once.
//! A snapped or malformed frame is decoded as far as it goes; what stopped it is a [`Fault`].
//! Lengths are those of the wire: a snapped payload keeps its real length.
//!
//! The common stacks (Ethernet, IPv4 or IPv6, TCP or UDP) go through etherparse's header slices;
//! everything odd or cut goes through its lax slicing.

use crate::frame::{Frame, LinkType};
use crate::net::{Addr, IpProto, IpVersion, MacAddr, TcpFlags};

/// What was found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Source and destination hardware addresses, where the link has them.
    pub macs: Option<(MacAddr, MacAddr)>,
    /// VLAN tags.
    pub vlans: VlanStack,
    /// The interface the frame came in on, as told by the capture.
    pub interface: u16,
    /// The network layer, where it is IP.
    pub ip: Option<IpLayer>,
    /// The transport layer. [`Transport::None`] without IP.
    pub transport: Transport,
    /// What follows the transport header (or the IP header, when there is no transport).
    pub payload: Payload,
    /// Why decoding stopped early, when it did.
    pub fault: Option<Fault>,
}

/// The two outermost VLAN identifiers; tags beyond are walked and only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanStack {
    /// VLAN identifiers, 0 to 4095, outermost first.
    pub ids: [u16; 2],
    /// How many tags there were.
    pub depth: u8,
}

/// The fixed part of an IP header, extension headers already walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpLayer {
    /// Version.
    pub version: IpVersion,
    /// The upper-layer protocol, after any extension headers.
    pub proto: IpProto,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// IPv6 flow label, 20 bits; 0 for IPv4 (RFC 6437).
    pub flow_label: u32,
    /// Set when the packet is a fragment of a larger one; an atomic fragment (RFC 6946) is none.
    pub fragment: Option<Fragment>,
}

/// The fragment fields of RFC 791 section 3.1 and RFC 8200 section 4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Offset of the fragment's data in the datagram, in bytes.
    pub offset: u32,
    /// Whether more fragments follow.
    pub more: bool,
}

/// A transport header, as far as a flow needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// None found: not IP, another protocol, a later fragment, or cut before its ports.
    None,
    /// UDP, UDP-Lite, SCTP, DCCP, or a TCP header cut after its ports.
    Ports {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// TCP.
    Tcp(TcpHeader),
    /// ICMP or ICMPv6.
    Icmp(IcmpHeader),
}

/// A TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meant only with the ACK flag.
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window field, not scaled.
    pub window: u16,
    /// Length of the header with its options, 20 to 60 bytes.
    pub header_len: u8,
    /// Window scale option, read on SYN segments only (RFC 7323 section 2).
    pub window_scale: Option<u8>,
}

/// An ICMP or ICMPv6 header (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpHeader {
    /// Type.
    pub ty: u8,
    /// Code.
    pub code: u8,
    /// Identifier, for the query messages that carry one; else 0.
    pub id: u16,
    /// Where in the frame's bytes the packet quoted by an error message starts.
    pub quoted_at: Option<u32>,
}

/// Where the payload is in the frame's bytes, and how much of it there was on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Where it starts in the frame's bytes.
    pub offset: u32,
    /// How many bytes of it were captured; `offset + captured` never passes the frame's end.
    pub captured: u32,
    /// How many bytes of it were on the wire, link-layer padding not included.
    pub wire: u32,
}

impl Payload {
    /// The captured bytes of the payload; empty when `data` is another, shorter frame's.
    #[inline]
    pub fn of(self, data: &[u8]) -> &[u8] {
        let start = self.offset as usize;
        data.get(start..start.saturating_add(self.captured as usize)).unwrap_or(&[])
    }
}

/// Why decoding stopped before the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// The link type is none that is decoded.
    LinkUnsupported,
    /// The frame ends inside its link header or tags.
    LinkTruncated,
    /// More tags or labels than the bound.
    TooDeep,
    /// The frame ends inside its IP header.
    IpTruncated,
    /// The IP header contradicts itself.
    IpMalformed,
    /// The frame ends inside its transport header.
    TransportTruncated,
    /// The transport header contradicts itself.
    TransportMalformed,
}

/// Decodes one frame.
#[inline]
pub fn decode(frame: &Frame<'_>) -> Layers {
    let _ = (frame.link == LinkType::ETHERNET, frame.wire_len);
    todo!()
}

/// Decodes the packet that an ICMP error quotes, from its IP header on (RFC 792, RFC 4443
/// section 3): usually cut after the ports. `frame` is the one that `at` was found in.
pub fn decode_quoted(frame: &Frame<'_>, at: u32) -> Layers {
    let _ = (frame, at);
    todo!()
}
