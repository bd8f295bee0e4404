//! TCP, UDP, ICMP and what else has ports → [`Transport`] and where the payload is.
//!
//! Contract: `datagram` ends where the IP header says. A header that is cut still gives its ports
//! when they were captured, with a fault beside them: a flow needs no more.

use etherparse::err::tcp::HeaderSliceError as TcpError;
use etherparse::{TcpHeader as TcpBytes, TcpHeaderSlice, UdpHeader, UdpHeaderSlice};

use super::{Bytes, Fault, IcmpHeader, Payload, TcpHeader, Transport};
use crate::net::{IpProto, TcpFlags};

/// What was found above IP.
#[derive(Clone, Copy)]
pub(super) struct Upper {
    pub transport: Transport,
    pub payload: Payload,
    pub fault: Option<Fault>,
}

impl Upper {
    /// A protocol that is not looked into, or the middle of one.
    pub(super) fn opaque(datagram: Bytes<'_>, at: usize) -> Self {
        Self { transport: Transport::None, payload: datagram.payload(at), fault: None }
    }
}

/// Any protocol.
pub(super) fn any(datagram: Bytes<'_>, proto: IpProto, at: usize) -> Upper {
    match proto {
        IpProto::TCP => tcp(datagram, at),
        IpProto::UDP => udp(datagram, at),
        IpProto::ICMP | IpProto::ICMPV6 => icmp(datagram, proto, at),
        IpProto::SCTP | IpProto::UDP_LITE => {
            let header_bytes = if proto == IpProto::SCTP { SCTP_BYTES } else { UdpHeader::LEN };
            ports(datagram, at, header_bytes)
        }
        IpProto::DCCP => ports(datagram, at, dccp_bytes(datagram.from(at))),
        _ => Upper::opaque(datagram, at),
    }
}

fn tcp_header(header: &TcpHeaderSlice<'_>) -> TcpHeader {
    let bytes = header.slice();
    let flags = TcpFlags(bytes[TCP_FLAGS_AT]);
    let window_scale =
        if flags.has(TcpFlags::SYN) { window_scale(&bytes[TcpBytes::MIN_LEN..]) } else { None };
    TcpHeader {
        src: header.source_port(),
        dst: header.destination_port(),
        seq: header.sequence_number(),
        ack: header.acknowledgment_number(),
        flags,
        window: header.window_size(),
        // 20 to 60: the data offset is four bits.
        header_len: bytes.len() as u8,
        window_scale,
    }
}

/// A TCP header, whole or not.
fn tcp(datagram: Bytes<'_>, at: usize) -> Upper {
    match TcpHeaderSlice::from_slice(datagram.from(at)) {
        Ok(header) => Upper {
            transport: Transport::Tcp(tcp_header(&header)),
            payload: datagram.payload(at + header.slice().len()),
            fault: None,
        },
        Err(error) => tcp_cut(datagram, at, &error),
    }
}

/// The byte of the control bits.
const TCP_FLAGS_AT: usize = 13;
/// The byte whose upper half is the header's length in words of four bytes.
const TCP_DATA_OFFSET_AT: usize = 12;

#[cold]
#[inline(never)]
fn tcp_cut(datagram: Bytes<'_>, at: usize, error: &TcpError) -> Upper {
    // The payload starts where the header says, if it came to say it.
    let header_bytes = match datagram.from(at).get(TCP_DATA_OFFSET_AT) {
        Some(byte) => (usize::from(byte >> 4) * 4).max(TcpBytes::MIN_LEN),
        None => TcpBytes::MIN_LEN,
    };
    let fault = match error {
        TcpError::Len(_) => Fault::TransportTruncated,
        TcpError::Content(_) => Fault::TransportMalformed,
    };
    Upper { fault: Some(fault), ..ports(datagram, at, header_bytes) }
}

/// The window scale option (RFC 7323 section 2.2). A malformed list of options ends early, as
/// RFC 9293 section 3.1 leaves no other way; so do etherparse's iterator and this.
#[inline(never)]
pub(super) fn window_scale(options: &[u8]) -> Option<u8> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    /// RFC 7323 section 2.3: a larger one is to be taken as this.
    const SHIFT_MAX: u8 = 14;
    let mut rest = options;
    // Every turn takes at least one of at most 40 bytes.
    loop {
        match *rest {
            [] | [END, ..] => return None,
            [NO_OPERATION, ..] => rest = &rest[1..],
            [WINDOW_SCALE, 3, shift, ..] => return Some(shift.min(SHIFT_MAX)),
            [_, length, ..] if length >= 2 => rest = rest.get(usize::from(length)..)?,
            _ => return None,
        }
    }
}

/// A UDP header that is whole and consistent (RFC 768): its ports and what follows it. A length of 0
/// is a jumbogram's (RFC 2675 section 4) or yet to be filled in; less than IP says leaves a surplus
/// that is not payload (RFC 9868).
fn whole_udp(datagram: Bytes<'_>, at: usize) -> Option<(u16, u16, Payload)> {
    let header = UdpHeaderSlice::from_slice(datagram.from(at)).ok()?;
    let inner = match usize::from(header.length()) {
        0 => datagram,
        1..UdpHeader::LEN => return None,
        length => datagram.until(at + length),
    };
    let payload = inner.payload(at + UdpHeader::LEN);
    Some((header.source_port(), header.destination_port(), payload))
}

/// A UDP header, whole or not.
fn udp(datagram: Bytes<'_>, at: usize) -> Upper {
    if let Some((src, dst, payload)) = whole_udp(datagram, at) {
        return Upper { transport: Transport::Ports { src, dst }, payload, fault: None };
    }
    let cut = ports(datagram, at, UdpHeader::LEN);
    // Whole but refused: its length is less than its own header's.
    Upper { fault: cut.fault.or(Some(Fault::TransportMalformed)), ..cut }
}

/// The common header of RFC 9260 section 3.1.
const SCTP_BYTES: usize = 12;

/// RFC 4340 section 5.1: a length in words of four bytes, at least twelve bytes in all.
fn dccp_bytes(header: &[u8]) -> usize {
    const DATA_OFFSET_AT: usize = 4;
    const MIN: usize = 12;
    header.get(DATA_OFFSET_AT).map_or(MIN, |&words| (usize::from(words) * 4).max(MIN))
}

/// A header of which only the ports, its first four bytes, are of interest.
fn ports(datagram: Bytes<'_>, at: usize, header_bytes: usize) -> Upper {
    let header = datagram.from(at);
    let transport = match *header {
        [a, b, c, d, ..] => {
            Transport::Ports { src: u16::from_be_bytes([a, b]), dst: u16::from_be_bytes([c, d]) }
        }
        _ => Transport::None,
    };
    let fault = (header.len() < header_bytes).then_some(Fault::TransportTruncated);
    Upper { transport, payload: datagram.payload(at + header_bytes), fault }
}

/// Type, code, checksum, and four bytes that depend on the type (RFC 792, RFC 4443 section 2.1).
const ICMP_BYTES: usize = 8;

fn icmp(datagram: Bytes<'_>, proto: IpProto, at: usize) -> Upper {
    let header = datagram.from(at);
    let upper = Upper {
        transport: Transport::None,
        payload: datagram.payload(at + ICMP_BYTES),
        fault: (header.len() < ICMP_BYTES).then_some(Fault::TransportTruncated),
    };
    let (ty, code, id) = match *header {
        [ty, code, _, _, high, low, ..] if has_identifier(proto, ty) => {
            (ty, code, u16::from_be_bytes([high, low]))
        }
        [ty, code, _, _, ..] if !has_identifier(proto, ty) => (ty, code, 0),
        // The identifier is part of the key: without it the flow would be another.
        _ => return upper,
    };
    let quoted_at =
        (quotes(proto, ty) && upper.payload.captured != 0).then_some(upper.payload.offset);
    Upper { transport: Transport::Icmp(IcmpHeader { ty, code, id, quoted_at }), ..upper }
}

/// Echo, timestamp, information and address mask, asked and answered (RFC 792, RFC 950); echo of
/// RFC 4443 section 4.
const fn has_identifier(proto: IpProto, ty: u8) -> bool {
    match proto {
        IpProto::ICMP => matches!(ty, 0 | 8 | 13..=18),
        _ => matches!(ty, 128 | 129),
    }
}

/// Errors that quote the packet that caused them: unreachable, source quench, redirect, time
/// exceeded and parameter problem of RFC 792; the four errors of RFC 4443 section 3.
const fn quotes(proto: IpProto, ty: u8) -> bool {
    match proto {
        IpProto::ICMP => matches!(ty, 3 | 4 | 5 | 11 | 12),
        _ => matches!(ty, 1..=4),
    }
}
