//! One frame's bytes → [`Layers`]. Total functions over untrusted bytes.
//!
//! Contract: never panics, never loops without a bound, never allocates, reads each header once.
//! A snapped or malformed frame is decoded as far as it goes; what stopped it is a [`Fault`].
//! Lengths are those of the wire: a snapped payload keeps its real length.
//!
//! The common stacks are decoded in one go (`plain`); everything odd or cut goes to a general path that gives the
//! same answer for the common ones too, which a test holds it to. It stands on etherparse's header slices: they check a
//! header's length once. Its one-call slicing costs several times as much.
//!
//! | part | noun |
//! |---|---|
//! | `plain` | the common stacks, from the first byte to the payload |
//! | `link` | link headers, tags and labels → where IP starts |
//! | `ip` | IPv4 and IPv6 headers, extension headers walked |
//! | `transport` | TCP, UDP, ICMP and what else has ports |

#[cfg(any(feature = "sensor", test))]
pub(crate) mod glance;
mod ip;
mod link;
mod plain;
mod transport;

#[cfg(test)]
mod tests;

use crate::frame::Frame;
use crate::net::{Addr, IpProto, IpVersion, MacAddr, TcpFlags};
pub(crate) use plain::{decode as decode_for, decode_wider};
use transport::Upper;

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

impl TcpHeader {
    /// Whether it carries data or an acknowledgement and nothing else: ACK, and at most PSH beside it.
    #[inline]
    pub const fn is_plain(&self) -> bool {
        self.flags.0 & !TcpFlags::PSH.0 == TcpFlags::ACK.0
    }
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
// A call: the layers are then written once, where the caller wants them.
#[inline(never)]
pub fn decode(frame: &Frame<'_>) -> Layers {
    struct Give;
    impl OnLayers for Give {
        type Out = Layers;
        #[inline(always)]
        fn plain(self, layers: &Layers) -> Layers {
            *layers
        }
        #[inline(always)]
        fn wider(self, frame: &Frame<'_>) -> Layers {
            decode_wider(frame, self)
        }
        #[inline(always)]
        fn general(self, frame: &Frame<'_>) -> Layers {
            decode_any(frame)
        }
    }
    decode_for(frame, Give)
}

/// Who wants the layers of a frame: one of its methods is called, once.
pub(crate) trait OnLayers {
    /// What becomes of them.
    type Out;
    /// A common stack. Inline it always: it is compiled into each of them apart, so that what it does not look at
    /// is never written down. Layers that went through memory took 51 instructions a frame more on workload A (callgrind).
    fn plain(self, layers: &Layers) -> Self::Out;
    /// No IPv4 that is right behind the Ethernet header: to be decoded by [`decode_wider`]. By a call, where the rest is inline: what is
    /// different in a tagged frame is then no variable in the others.
    fn wider(self, frame: &Frame<'_>) -> Self::Out;
    /// Anything else: to be decoded by [`decode_any`].
    fn general(self, frame: &Frame<'_>) -> Self::Out;
}

/// Decodes the packet that an ICMP error quotes, from its IP header on (RFC 792, RFC 4443
/// section 3): usually cut after the ports. `frame` is the one that `at` was found in.
///
/// VLAN tags and interface are those of the frame; hardware addresses are not told, because those of
/// the quoted packet are not known.
#[cold]
#[inline(never)]
pub fn decode_quoted(frame: &Frame<'_>, at: u32) -> Layers {
    let bytes = Bytes::of(frame);
    let mut layers = Layers::none(frame.interface);
    // What the walk finds is the IP header of the error itself: only the tags are of interest.
    let _ = link::walk(frame.link, bytes, &mut layers);
    layers.macs = None;
    layers.fault = None;
    layers.take(bytes, link::Network { at: at as usize, version: None });
    layers
}

/// The general path: every link type, every fault.
#[cold]
#[inline(never)]
pub(crate) fn decode_any(frame: &Frame<'_>) -> Layers {
    let bytes = Bytes::of(frame);
    let mut layers = Layers::none(frame.interface);
    match link::walk(frame.link, bytes, &mut layers) {
        Ok(Some(network)) => layers.take(bytes, network),
        Ok(None) => {}
        Err(fault) => layers.fault = Some(fault),
    }
    layers
}

impl Layers {
    /// Nothing found yet.
    #[inline]
    fn none(interface: u16) -> Self {
        Self {
            macs: None,
            vlans: VlanStack::default(),
            interface,
            ip: None,
            transport: Transport::None,
            payload: Payload::default(),
            fault: None,
        }
    }

    /// Takes up what the network layer and those above it say.
    fn take(&mut self, bytes: Bytes<'_>, network: link::Network) {
        let found = match ip::walk(bytes, network) {
            Ok(found) => found,
            Err(fault) => {
                self.fault = Some(fault);
                return;
            }
        };
        self.ip = Some(found.layer);
        let datagram = bytes.until(found.end);
        let later = found.layer.fragment.is_some_and(|f| f.offset != 0);
        let upper = if later || found.fault.is_some() {
            Upper { fault: found.fault, ..Upper::opaque(datagram, found.upper) }
        } else {
            transport::any(datagram, found.layer.proto, found.upper)
        };
        self.transport = upper.transport;
        self.payload = upper.payload;
        self.fault = upper.fault;
    }
}

impl VlanStack {
    /// Notes one more tag, inside of those before.
    #[inline]
    fn push(&mut self, id: u16) {
        if let Some(slot) = self.ids.get_mut(usize::from(self.depth)) {
            *slot = id;
        }
        self.depth = self.depth.saturating_add(1);
    }
}

/// Captured bytes from the frame's start, and where they ended on the wire.
///
/// Invariant: `data.len() <= wire_end <= u32::MAX`, hence offsets fit a [`Payload`].
#[derive(Clone, Copy)]
struct Bytes<'a> {
    data: &'a [u8],
    wire_end: usize,
}

impl<'a> Bytes<'a> {
    /// A wire length that is less than what was captured is not believed.
    #[inline]
    fn of(frame: &Frame<'a>) -> Self {
        let data = &frame.data[..frame.data.len().min(u32::MAX as usize)];
        Self { data, wire_end: data.len().max(frame.wire_len as usize) }
    }

    /// What was captured from `at` on; nothing when that is past the end.
    #[inline]
    fn from(self, at: usize) -> &'a [u8] {
        self.data.get(at..).unwrap_or_default()
    }

    /// The same with what follows `end` left out, as an inner length field demands.
    #[inline]
    fn until(self, end: usize) -> Self {
        let wire_end = self.wire_end.min(end);
        Self { data: &self.data[..self.data.len().min(wire_end)], wire_end }
    }

    /// All from `at` on.
    #[inline]
    fn payload(self, at: usize) -> Payload {
        let offset = self.data.len().min(at);
        Payload {
            offset: offset as u32,
            captured: (self.data.len() - offset) as u32,
            wire: self.wire_end.saturating_sub(at) as u32,
        }
    }
}
