//! Plain network types shared by every layer. No dependencies, no behaviour beyond their own meaning.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address in 16 bytes; IPv4 in its mapped form (RFC 4291 section 2.5.5.2).
///
/// Ordered by bytes, hence IPv4 addresses among themselves by their value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// From the four bytes of an IPv4 address.
    #[inline(always)]
    pub const fn v4(b: [u8; 4]) -> Self {
        // As one word: byte by byte it was loaded, shifted and put together byte by byte.
        Self(((u32::from_le_bytes(b) as u128) << 96 | 0xffff << 80).to_le_bytes())
    }

    /// The last four bytes: all there is of an IPv4 address.
    #[inline(always)]
    pub const fn v4_bits(self) -> u32 {
        // Cut off one word: four bytes taken out keep an address in pieces wherever this is inlined. Turned round last, so that
        // the compiler sees through what `v4` put together.
        ((u128::from_le_bytes(self.0) >> 96) as u32).swap_bytes()
    }

    /// As the standard library's type. `version` says how to read a mapped address: an IPv6
    /// packet may carry `::ffff:a.b.c.d` as a true IPv6 address.
    pub fn to_ip(self, version: IpVersion) -> IpAddr {
        match version {
            IpVersion::V4 => {
                IpAddr::V4(Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15]))
            }
            IpVersion::V6 => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).to_canonical().fmt(f)
    }
}

/// The version field of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IpVersion {
    /// RFC 791.
    V4 = 4,
    /// RFC 8200.
    V6 = 6,
}

/// An assigned IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IpProto(pub u8);

impl IpProto {
    /// RFC 792.
    pub const ICMP: Self = Self(1);
    /// RFC 9293.
    pub const TCP: Self = Self(6);
    /// RFC 768.
    pub const UDP: Self = Self(17);
    /// RFC 4340.
    pub const DCCP: Self = Self(33);
    /// RFC 2784.
    pub const GRE: Self = Self(47);
    /// RFC 4303.
    pub const ESP: Self = Self(50);
    /// RFC 4302.
    pub const AH: Self = Self(51);
    /// RFC 4443.
    pub const ICMPV6: Self = Self(58);
    /// RFC 9260.
    pub const SCTP: Self = Self(132);
    /// RFC 3828.
    pub const UDP_LITE: Self = Self(136);

    /// Whether the first four bytes of the transport header are two ports.
    #[inline]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::DCCP | Self::SCTP | Self::UDP_LITE)
    }

    /// The class that metrics distinguish.
    #[inline]
    pub const fn l4(self) -> L4 {
        match self {
            Self::TCP => L4::Tcp,
            Self::UDP => L4::Udp,
            _ => L4::Other,
        }
    }
}

/// The transport classes that metrics distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum L4 {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Everything else.
    Other,
}

impl L4 {
    /// Every class, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Other];
}

/// An IEEE 802 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Who sent a frame, seen from the conversation: who opened it, or the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// Who opened the conversation.
    Initiator,
    /// Who was called.
    Responder,
}

impl Side {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::Initiator, Self::Responder];
}

/// Who sent a frame, seen from a canonical key: its lower or its upper end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum End {
    /// The lower end of the key.
    A,
    /// The upper end of the key.
    B,
}

impl End {
    /// The opposite end.
    #[inline]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// What this end is when `initiator` opened the conversation.
    #[inline]
    pub const fn side(self, initiator: Self) -> Side {
        if self as u8 == initiator as u8 { Side::Initiator } else { Side::Responder }
    }
}

/// The control bits of a TCP header (RFC 9293 section 3.1, RFC 3168).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field is meant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is meant.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// A letter for each, in header order: the highest bit first.
    pub(crate) const LETTERS: [u8; 8] = *b"CEUAPRSF";

    /// Whether all of `other` are set here.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// As letters in header order, `CEUAPRSF`, only those that are set; `-` when none is.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        for (bit, letter) in (0..8).rev().zip(Self::LETTERS.map(char::from)) {
            if self.0 & 1 << bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_header_order() {
        assert_eq!(TcpFlags(0x12).to_string(), "AS");
        assert_eq!(TcpFlags(0xff).to_string(), "CEUAPRSF");
        assert_eq!(TcpFlags(0).to_string(), "-");
    }

    #[test]
    fn a_mapped_address_keeps_its_version() {
        let addr = Addr::v4([192, 0, 2, 1]);
        assert_eq!(addr.to_ip(IpVersion::V4).to_string(), "192.0.2.1");
        assert_eq!(addr.to_ip(IpVersion::V6).to_string(), "::ffff:192.0.2.1");
    }
}
