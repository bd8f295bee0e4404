//! A frame as a capture hands it over: bytes, their length on the wire, when and where.

use crate::time::Timestamp;

/// One captured frame, borrowed from whoever captured it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was captured.
    pub ts: Timestamp,
    /// Bytes on the wire, link header included; `data` may hold fewer (snapped).
    pub wire_len: u32,
    /// How `data` starts.
    pub link: LinkType,
    /// Which interface of the capture it came in on.
    pub interface: u16,
    /// The bytes captured.
    pub data: &'a [u8],
}

/// A link-layer header type, numbered as in capture files (the `LINKTYPE_` registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: address family in the byte order of the capturing host.
    pub const NULL: Self = Self(0);
    /// Ethernet II and IEEE 802.3.
    pub const ETHERNET: Self = Self(1);
    /// PPP, with or without HDLC-like framing bytes (RFC 1661, RFC 1662).
    pub const PPP: Self = Self(9);
    /// PPP in HDLC-like framing, or Cisco HDLC (RFC 1662, RFC 1547).
    pub const PPP_HDLC: Self = Self(50);
    /// Raw IP as some BSDs number it.
    pub const RAW_BSD: Self = Self(12);
    /// Raw IP as OpenBSD numbers it.
    pub const RAW_OPENBSD: Self = Self(14);
    /// Raw IP, version by the first nibble.
    pub const RAW: Self = Self(101);
    /// Cisco HDLC (RFC 1547 section 4.3.1 as vendors extended it).
    pub const C_HDLC: Self = Self(104);
    /// OpenBSD loopback: address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Linux cooked, version 2.
    pub const LINUX_SLL2: Self = Self(276);
}
