//! The common stacks in one go: Ethernet with at most one tag, IPv4 without options or IPv6 without extension
//! headers, TCP or UDP.
//!
//! Contract: gives what the general path gives for the same frame, or leaves the frame to it. What is cut within its
//! headers, contradicts itself, or is a fragment is left. Each header's length is checked once, against what was captured
//! of the datagram.
//!
//! Read by hand: etherparse's slices check once as well, but against lengths of their own, which took a tenth more
//! instructions. Every way out is a call in tail position, and the layers are built where they are wanted:
//! through a `Result` they were written twice, the second time in pieces wider than the first, which the processor waits for.

use super::transport::window_scale;
use super::{IpLayer, Layers, OnLayers, Payload, TcpHeader, Transport, VlanStack};
use crate::frame::{Frame, LinkType};
use crate::net::{Addr, IpProto, IpVersion, MacAddr, TcpFlags};

/// Destination, source, EtherType (IEEE 802.3).
const ETHERNET_BYTES: usize = 14;
/// Priority and identifier, EtherType (IEEE 802.1Q).
const TAG_BYTES: usize = 4;
/// Without options (RFC 791 section 3.1).
const V4_BYTES: usize = 20;
const V4_ADDRESSES_AT: usize = 12;
/// RFC 8200 section 3.
const V6_BYTES: usize = 40;
/// Without options (RFC 9293 section 3.1).
const TCP_BYTES_MIN: usize = 20;
/// RFC 768.
const UDP_BYTES: usize = 8;

const ETHER_TYPE_V4: u16 = 0x0800;
const ETHER_TYPE_V6: u16 = 0x86dd;
const ETHER_TYPE_TAG: u16 = 0x8100;
/// Version 4, five words.
const V4_NO_OPTIONS: u8 = 0x45;
/// More fragments, and the offset.
const V4_FRAGMENT: u16 = 0x3fff;
/// The same, and two bytes behind the protocol.
const V4_FRAGMENT_AND_PROTO: u32 = (V4_FRAGMENT as u32) << 16 | 0xff;
/// What of these a datagram has that is no fragment.
const V4_WHOLE_TCP: u32 = IpProto::TCP.0 as u32;
const V4_WHOLE_UDP: u32 = IpProto::UDP.0 as u32;
const TAG_ID: u16 = 0x0fff;

/// A frame, and where in it its IP header is.
#[derive(Clone, Copy)]
struct At<'a> {
    frame: &'a Frame<'a>,
    layers: Layers,
    /// Where what is not read yet begins in the frame's bytes.
    at: usize,
    /// From there to the last byte captured.
    rest: &'a [u8],
}

/// What is above an IP header, which tells its length.
#[derive(Clone, Copy)]
struct Upper<'a> {
    frame: &'a Frame<'a>,
    layers: Layers,
    at: usize,
    /// As far as it was captured.
    bytes: &'a [u8],
    /// How much of it there was on the wire; no less than `bytes`.
    wire: usize,
    /// What IP says.
    length: usize,
}

/// Decodes one frame for `then`: here if it is IPv4 without a tag, and whole.
#[inline(always)]
pub(crate) fn decode<T: OnLayers>(frame: &Frame<'_>, then: T) -> T::Out {
    // The first of many checks of length, and as good as all of them.
    if frame.data.len() < ETHERNET_BYTES + V4_BYTES + UDP_BYTES {
        return then.wider(frame);
    }
    match link(frame) {
        Some((ETHER_TYPE_V4, link)) => v4::<T, true>(link, then),
        _ => then.wider(frame),
    }
}

/// Decodes one that [`decode`] leaves: all other common stacks.
#[inline(always)]
pub(crate) fn decode_wider<T: OnLayers>(frame: &Frame<'_>, then: T) -> T::Out {
    let Some((mut ether_type, mut link)) = link(frame) else { return then.general(frame) };
    if ether_type == ETHER_TYPE_TAG {
        let Some((&[i0, i1, t0, t1], inner)) = link.rest.split_first_chunk::<TAG_BYTES>() else {
            return then.general(frame);
        };
        let vlans = VlanStack { ids: [u16::from_be_bytes([i0, i1]) & TAG_ID, 0], depth: 1 };
        ether_type = u16::from_be_bytes([t0, t1]);
        let layers = Layers { vlans, ..link.layers };
        link = At { layers, at: link.at + TAG_BYTES, rest: inner, ..link };
    }
    match ether_type {
        ETHER_TYPE_V4 => v4::<T, false>(link, then),
        ETHER_TYPE_V6 => v6(link, then),
        _ => then.general(frame),
    }
}

/// An Ethernet header's EtherType, and what is behind.
#[inline(always)]
fn link<'a>(frame: &'a Frame<'a>) -> Option<(u16, At<'a>)> {
    let (header, rest) = frame.data.split_first_chunk::<ETHERNET_BYTES>()?;
    if frame.link != LinkType::ETHERNET {
        return None;
    }
    // Byte by byte: the six of an address do not fit one word, and as two they are put down apart and taken up together.
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
    let macs = Some((MacAddr([s0, s1, s2, s3, s4, s5]), MacAddr([d0, d1, d2, d3, d4, d5])));
    let layers = Layers { macs, ..Layers::none(frame.interface) };
    Some((u16::from_be_bytes([t0, t1]), At { frame, layers, at: ETHERNET_BYTES, rest }))
}

/// `COMMON` leaves what was cut to [`OnLayers::wider`].
#[inline(always)]
fn v4<T: OnLayers, const COMMON: bool>(link: At<'_>, then: T) -> T::Out {
    let Some((header, rest)) = link.rest.split_first_chunk::<V4_BYTES>() else {
        return then.general(link.frame);
    };
    let Some((&[first, _, l0, l1, _, _, middle @ .., _, _], addresses)) =
        header.split_first_chunk::<V4_ADDRESSES_AT>()
    else {
        return then.general(link.frame);
    };
    // A length of 0 is yet to be filled in by a card that segments: not here.
    let Some(length) = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(V4_BYTES) else {
        return then.general(link.frame);
    };
    if first != V4_NO_OPTIONS {
        return then.general(link.frame);
    }
    if COMMON && length > rest.len() {
        return then.wider(link.frame);
    }
    let Some(&addresses) = addresses.first_chunk() else { return then.general(link.frame) };
    // One word, which is what a key is made of.
    let addresses = u64::from_le_bytes(addresses);
    let (src, dst) = ((addresses as u32).to_le_bytes(), ((addresses >> 32) as u32).to_le_bytes());
    // Two fields of one word, and the time to live between them left out.
    match u32::from_be_bytes(middle) & V4_FRAGMENT_AND_PROTO {
        V4_WHOLE_TCP => tcp::<T, COMMON>(
            link.above(ip_v4(IpProto::TCP, src, dst), V4_BYTES, rest, length),
            then,
        ),
        V4_WHOLE_UDP => {
            udp(link.above(ip_v4(IpProto::UDP, src, dst), V4_BYTES, rest, length), then)
        }
        _ => then.general(link.frame),
    }
}

/// A function, for a closure that is called twice is not inlined everywhere.
#[inline(always)]
fn ip_v4(proto: IpProto, src: [u8; 4], dst: [u8; 4]) -> IpLayer {
    IpLayer {
        version: IpVersion::V4,
        proto,
        src: Addr::v4(src),
        dst: Addr::v4(dst),
        flow_label: 0,
        fragment: None,
    }
}

#[inline(always)]
fn v6<T: OnLayers>(link: At<'_>, then: T) -> T::Out {
    let Some((header, rest)) = link.rest.split_first_chunk::<V6_BYTES>() else {
        return then.general(link.frame);
    };
    let [v0, v1, v2, v3, l0, l1, next, _, addresses @ ..] = *header;
    let first = u32::from_be_bytes([v0, v1, v2, v3]);
    if first >> 28 != 6 {
        return then.general(link.frame);
    }
    let (mut src, mut dst) = ([0; 16], [0; 16]);
    src.copy_from_slice(&addresses[..16]);
    dst.copy_from_slice(&addresses[16..]);
    let ip = IpLayer {
        version: IpVersion::V6,
        proto: IpProto(next),
        src: Addr(src),
        dst: Addr(dst),
        flow_label: first & 0x000f_ffff,
        fragment: None,
    };
    // A length of 0 (a jumbogram, or yet to be filled in) leaves no room for a transport header: not here either.
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let upper = link.above(ip, V6_BYTES, rest, length);
    match ip.proto {
        IpProto::TCP => tcp::<T, false>(upper, then),
        IpProto::UDP => udp(upper, then),
        _ => then.general(link.frame),
    }
}

impl<'a> At<'a> {
    /// What is above an IP header of `header_bytes`: `rest` was captured, `length` is told.
    #[inline(always)]
    fn above(self, ip: IpLayer, header_bytes: usize, rest: &'a [u8], length: usize) -> Upper<'a> {
        let (bytes, wire) = match rest.get(..length) {
            Some(whole) => (whole, length),
            None => (rest, snapped(self.frame, self.at + header_bytes, length)),
        };
        let layers = Layers { ip: Some(ip), ..self.layers };
        Upper { frame: self.frame, layers, at: self.at + header_bytes, bytes, wire, length }
    }
}

/// Bytes from `at` on, of `length` that IP tells, that were on the wire. A wire length that is less than what was captured
/// is not believed. A call, to keep it out of the way.
#[inline(never)]
fn snapped(frame: &Frame<'_>, at: usize, length: usize) -> usize {
    (frame.data.len().max(frame.wire_len as usize) - at).min(length)
}

impl Upper<'_> {
    /// What is behind a header of `header_bytes`, when so much was captured.
    #[inline(always)]
    fn payload(self, header_bytes: usize) -> Option<Payload> {
        let captured = self.bytes.len().checked_sub(header_bytes)?;
        Some(Payload {
            // All at most 64 KiB and some: IP's lengths are 16 bits.
            offset: (self.at + header_bytes) as u32,
            captured: captured as u32,
            wire: (self.wire - header_bytes) as u32,
        })
    }
}

// Inlined once for each version of IP, and `then` once for each pair of protocols: joining the variants of
// [`Transport`] before building [`Layers`] took a quarter more instructions.

/// `COMMON` leaves a SYN, whose options are looked at, to [`OnLayers::wider`].
#[inline(always)]
fn tcp<T: OnLayers, const COMMON: bool>(upper: Upper<'_>, then: T) -> T::Out {
    let Some(header) = upper.bytes.first_chunk::<TCP_BYTES_MIN>() else {
        return then.general(upper.frame);
    };
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, words, flags, w0, w1, ..] = *header;
    let header_bytes = usize::from(words >> 4) * 4;
    let Some(payload) = upper.payload(header_bytes) else { return then.general(upper.frame) };
    if header_bytes < TCP_BYTES_MIN {
        return then.general(upper.frame);
    }
    let flags = TcpFlags(flags);
    if COMMON && flags.has(TcpFlags::SYN) {
        return then.wider(upper.frame);
    }
    let window_scale = if flags.has(TcpFlags::SYN) {
        window_scale(upper.bytes.get(TCP_BYTES_MIN..header_bytes).unwrap_or_default())
    } else {
        None
    };
    let (src, dst) = ports([s0, s1, d0, d1]);
    let transport = Transport::Tcp(TcpHeader {
        src,
        dst,
        seq: u32::from_be_bytes([q0, q1, q2, q3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        // 20 to 60: the data offset is four bits.
        header_len: header_bytes as u8,
        window_scale,
    });
    then.plain(&Layers { transport, payload, ..upper.layers })
}

#[inline(always)]
fn udp<T: OnLayers>(upper: Upper<'_>, then: T) -> T::Out {
    let Some(&[s0, s1, d0, d1, l0, l1, _, _]) = upper.bytes.first_chunk::<UDP_BYTES>() else {
        return then.general(upper.frame);
    };
    // One that differs from IP's is rare, whatever it means.
    if usize::from(u16::from_be_bytes([l0, l1])) != upper.length {
        return then.general(upper.frame);
    }
    let Some(payload) = upper.payload(UDP_BYTES) else { return then.general(upper.frame) };
    let (src, dst) = ports([s0, s1, d0, d1]);
    let transport = Transport::Ports { src, dst };
    then.plain(&Layers { transport, payload, ..upper.layers })
}

/// Source and destination, of one word, which is what a key is made of.
#[inline(always)]
fn ports(bytes: [u8; 4]) -> (u16, u16) {
    let both = u32::from_be_bytes(bytes);
    ((both >> 16) as u16, both as u16)
}
