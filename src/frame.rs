//! A frame as a capture hands it over: bytes, their length on the wire, when and where.

use std::fmt;

use crate::time::Timestamp;

/// One captured frame, borrowed from whoever captured it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was captured.
    pub ts: Timestamp,
    /// Bytes on the wire, link header included, as the capture says; `data` may hold fewer (snapped),
    /// and in damaged captures more.
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
    /// PPP over Ethernet, from the PPPoE header on (RFC 2516).
    pub const PPP_ETHER: Self = Self(51);
    /// IEEE 802.2 over ATM (RFC 2684).
    pub const ATM_RFC1483: Self = Self(100);
    /// Raw IP, version by the first nibble.
    pub const RAW: Self = Self(101);
    /// Cisco HDLC (RFC 1547 section 4.3.1 as vendors extended it).
    pub const C_HDLC: Self = Self(104);
    /// OpenBSD loopback: address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// PPP behind a byte that says who sent it.
    pub const PPP_WITH_DIRECTION: Self = Self(204);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Linux cooked, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    /// Whether [`decode`](crate::decode::decode) reads it.
    pub const fn supported(self) -> bool {
        matches!(
            self,
            Self::NULL
                | Self::ETHERNET
                | Self::PPP
                | Self::PPP_HDLC
                | Self::PPP_ETHER
                | Self::PPP_WITH_DIRECTION
                | Self::ATM_RFC1483
                | Self::RAW_BSD
                | Self::RAW_OPENBSD
                | Self::RAW
                | Self::C_HDLC
                | Self::LOOP
                | Self::LINUX_SLL
                | Self::IPV4
                | Self::IPV6
                | Self::LINUX_SLL2
        )
    }

    /// What people call it, for messages; "unknown" for numbers that are rarely met.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "BSD loopback",
            1 => "Ethernet",
            3 => "AX.25",
            6 => "IEEE 802.5 Token Ring",
            7 => "ARCNET",
            8 => "SLIP",
            9 => "PPP",
            10 => "FDDI",
            12 | 14 | 101 => "raw IP",
            50 => "PPP in HDLC-like framing",
            51 => "PPPoE",
            100 => "LLC/SNAP ATM",
            104 => "Cisco HDLC",
            105 => "IEEE 802.11",
            107 => "Frame Relay",
            108 => "OpenBSD loopback",
            109 => "OpenBSD enc",
            113 => "Linux cooked v1",
            114 => "LocalTalk",
            117 => "OpenBSD pflog",
            119 => "IEEE 802.11 with Prism header",
            122 => "IP over Fibre Channel",
            123 => "SunATM",
            127 => "IEEE 802.11 with radiotap header",
            129 => "ARCNET for Linux",
            138 => "IP over IEEE 1394",
            139 => "MTP2 with pseudo-header",
            140 => "MTP2",
            141 => "MTP3",
            142 => "SCCP",
            143 => "DOCSIS",
            144 => "IrDA",
            147..=162 => "private use",
            163 => "IEEE 802.11 with AVS header",
            165 => "BACnet MS/TP",
            166 => "PPP with direction byte",
            169 => "GPRS LLC",
            170 | 171 => "GFP",
            177 => "LAPD",
            187 => "Bluetooth HCI H4",
            189 => "USB of Linux",
            192 => "PPI",
            195 => "IEEE 802.15.4 with FCS",
            197 => "ERF",
            201 => "Bluetooth HCI H4 with pseudo-header",
            202 => "AX.25 KISS",
            203 => "LAPD without pseudo-header",
            204 => "PPP with direction pseudo-header",
            205 => "Cisco HDLC with direction pseudo-header",
            206 => "Frame Relay with direction pseudo-header",
            209 => "IPMB of Linux",
            215 => "IEEE 802.15.4 without PHY header",
            220 => "USB of Linux, padded",
            224 => "Fibre Channel FC-2",
            226 => "Solaris IPNET",
            227 => "CAN (SocketCAN)",
            228 => "raw IPv4",
            229 => "raw IPv6",
            230 => "IEEE 802.15.4 without FCS",
            231 => "D-Bus",
            235 => "DVB-CI",
            236 => "MUX27010",
            239 => "NFLOG",
            240 => "netANALYZER",
            241 => "netANALYZER, transparent",
            242 => "IP over InfiniBand",
            243 => "MPEG-2 transport stream",
            244 => "NG40",
            245 => "NFC LLCP",
            247 => "InfiniBand",
            248 => "SCTP",
            249 => "USBPcap",
            251 => "Bluetooth LE link layer",
            252 => "Wireshark upper PDU",
            253 => "netlink",
            254 => "Bluetooth monitor",
            256 => "Bluetooth LE link layer with PHY header",
            258 => "PKTAP",
            259 => "Ethernet passive optical network",
            264 => "ISO 14443",
            265 => "RDS",
            266 => "USB of macOS",
            270 => "LoRaTap",
            271 => "vsock",
            272 => "Nordic BLE sniffer",
            273 => "DOCSIS 3.1 XRA",
            274 => "Ethernet mPackets",
            276 => "Linux cooked v2",
            278 => "OpenVizsla",
            279 => "Elektrobit high speed capture",
            281 => "broadcom tag",
            282 => "broadcom tag, prepended",
            283 => "IEEE 802.15.4 with TAP",
            284 => "Marvell DSA",
            285 => "Marvell EDSA",
            286 => "ELEE",
            288 => "USB 2.0",
            _ => "unknown",
        }
    }
}

/// As in messages: the name and the number.
impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (link type {})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_type_prints_its_name_and_number() {
        assert_eq!(LinkType::ETHERNET.to_string(), "Ethernet (link type 1)");
        assert_eq!(LinkType(105).to_string(), "IEEE 802.11 (link type 105)");
        assert_eq!(LinkType(65535).to_string(), "unknown (link type 65535)");
    }

    #[test]
    fn every_supported_link_type_has_a_name() {
        let supported: Vec<_> = (0..=u16::MAX).map(LinkType).filter(|l| l.supported()).collect();
        assert_eq!(supported.len(), 16);
        assert!(supported.iter().all(|l| l.name() != "unknown"));
    }
}
