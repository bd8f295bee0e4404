//! Link headers, tags and labels → where the IP header starts.
//!
//! Contract: every walk is bounded by a constant; what is no IP is `None`, not a fault. Lengths that
//! link layers carry (802.3, PPPoE) are not used: the IP header knows better and is always there.

use etherparse::{EtherType, Ethernet2HeaderSlice, SingleVlanHeaderSlice, ether_type};

use super::{Bytes, Fault, Layers, VlanStack};
use crate::frame::LinkType;
use crate::net::{IpVersion, MacAddr};

/// VLAN tags (and SNAP headers among them) walked at most. Nobody stacks more than four on purpose;
/// test suites and loops between switches do.
const TAGS_MAX: usize = 32;

/// MPLS labels walked at most. RFC 8662 speaks of stacks of a dozen.
const LABELS_MAX: usize = 64;

/// Where an IP header is said to start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    /// In the frame's bytes.
    pub at: usize,
    /// The version the layer below promised; `None` leaves it to the header's first nibble.
    pub version: Option<IpVersion>,
}

impl Network {
    const fn v4(at: usize) -> Self {
        Self { at, version: Some(IpVersion::V4) }
    }

    const fn v6(at: usize) -> Self {
        Self { at, version: Some(IpVersion::V6) }
    }

    const fn any(at: usize) -> Self {
        Self { at, version: None }
    }
}

type Walk = Result<Option<Network>, Fault>;

/// Walks from the frame's first byte to its IP header; notes hardware addresses and tags.
pub(super) fn walk(link: LinkType, bytes: Bytes<'_>, layers: &mut Layers) -> Walk {
    let data = bytes.data;
    let vlans = &mut layers.vlans;
    match link {
        LinkType::ETHERNET => {
            let header =
                Ethernet2HeaderSlice::from_slice(data).map_err(|_| Fault::LinkTruncated)?;
            layers.macs = Some((MacAddr(header.source()), MacAddr(header.destination())));
            by_ether_type(data, header.slice().len(), header.ether_type(), vlans)
        }
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => Ok(Some(Network::any(0))),
        LinkType::IPV4 => Ok(Some(Network::v4(0))),
        LinkType::IPV6 => Ok(Some(Network::v6(0))),
        LinkType::NULL => loopback(data, vlans),
        LinkType::LOOP => openbsd_loopback(data),
        LinkType::LINUX_SLL => cooked_v1(data, vlans),
        LinkType::LINUX_SLL2 => cooked_v2(data, vlans),
        LinkType::PPP | LinkType::PPP_HDLC => ppp_framed(data, 0),
        // One byte that says who sent it.
        LinkType::PPP_WITH_DIRECTION => ppp_framed(data, 1),
        LinkType::PPP_ETHER => ppp(data, PPPOE_BYTES),
        // An 802.2 header (RFC 2684 section 5.1), as behind a length field.
        LinkType::ATM_RFC1483 => by_ether_type(data, 0, EtherType(0), vlans),
        LinkType::C_HDLC => cisco_hdlc(data, 0),
        _ => Err(Fault::LinkUnsupported),
    }
}

/// Tags that a field of an EtherType announces, then what they hold.
fn by_ether_type(
    data: &[u8],
    mut at: usize,
    mut ether_type: EtherType,
    vlans: &mut VlanStack,
) -> Walk {
    for _ in 0..=TAGS_MAX {
        match ether_type {
            ether_type::IPV4 => return Ok(Some(Network::v4(at))),
            ether_type::IPV6 => return Ok(Some(Network::v6(at))),
            // IEEE 802.1Q, 802.1ad, and the number that stacked tags had before it.
            ether_type::VLAN_TAGGED_FRAME
            | ether_type::PROVIDER_BRIDGING
            | ether_type::VLAN_DOUBLE_TAGGED_FRAME => {
                let tag = SingleVlanHeaderSlice::from_slice(rest(data, at))
                    .map_err(|_| Fault::LinkTruncated)?;
                vlans.push(tag.vlan_identifier().value());
                ether_type = tag.ether_type();
                at += tag.slice().len();
            }
            MPLS_UNICAST | MPLS_MULTICAST => return mpls(data, at),
            LONG_LLC => ether_type = EtherType(0),
            PPPOE_SESSION => return ppp(data, at + PPPOE_BYTES),
            EtherType(length) if length <= IEEE_802_3_LENGTH_MAX => match llc(data, at)? {
                Llc::Snap(inner) => {
                    ether_type = inner;
                    at += LLC_SNAP_BYTES;
                }
                Llc::Ip => return Ok(Some(Network::any(at + LLC_BYTES))),
                Llc::Other => return Ok(None),
            },
            _ => return Ok(None),
        }
    }
    Err(Fault::TooDeep)
}

/// RFC 5332.
const MPLS_UNICAST: EtherType = EtherType(0x8847);
const MPLS_MULTICAST: EtherType = EtherType(0x8848);
/// RFC 2516 section 5: 0x8863 is discovery, which carries no IP.
const PPPOE_SESSION: EtherType = EtherType(0x8864);
/// IEEE 802.2 in a frame too long for a length field.
const LONG_LLC: EtherType = EtherType(0x8870);
/// Version, type, code, session identifier and length (RFC 2516 section 4).
const PPPOE_BYTES: usize = 6;
/// Address, control and type.
const C_HDLC_BYTES: usize = 4;
/// Above this an EtherType field is no length (IEEE 802.3 clause 3.2.6).
const IEEE_802_3_LENGTH_MAX: u16 = 1500;

/// What an IEEE 802.2 header announces.
enum Llc {
    Snap(EtherType),
    Ip,
    Other,
}

/// Two service access points and a control field.
const LLC_BYTES: usize = 3;
/// The same with an organisation and a type.
const LLC_SNAP_BYTES: usize = 8;

/// RFC 1042: SNAP with organisation zero holds an EtherType; so does that of IEEE 802.1H. Service
/// access point 6 is IP without SNAP.
fn llc(data: &[u8], at: usize) -> Result<Llc, Fault> {
    let header = rest(data, at);
    let llc = header.first_chunk::<LLC_BYTES>().ok_or(Fault::LinkTruncated)?;
    match llc {
        [0xaa, 0xaa, 0x03] => {}
        [0x06, 0x06, 0x03] => return Ok(Llc::Ip),
        _ => return Ok(Llc::Other),
    }
    let snap = header.first_chunk::<LLC_SNAP_BYTES>().ok_or(Fault::LinkTruncated)?;
    match snap {
        [_, _, _, 0, 0, 0 | 0xf8, high, low] => {
            let ether_type = u16::from_be_bytes([*high, *low]);
            // A length here would start the walk anew.
            if ether_type <= IEEE_802_3_LENGTH_MAX {
                return Ok(Llc::Other);
            }
            Ok(Llc::Snap(EtherType(ether_type)))
        }
        _ => Ok(Llc::Other),
    }
}

/// A label stack (RFC 3032). Nothing says what is under it: IP tells itself by its first nibble,
/// which pseudowire control words avoid on purpose (RFC 4385 section 3). Those are no IP.
fn mpls(data: &[u8], mut at: usize) -> Walk {
    const LABEL_BYTES: usize = 4;
    const BOTTOM_OF_STACK: u8 = 1;
    for _ in 0..LABELS_MAX {
        let label = rest(data, at).first_chunk::<LABEL_BYTES>().ok_or(Fault::LinkTruncated)?;
        at += LABEL_BYTES;
        if label[2] & BOTTOM_OF_STACK != 0 {
            let first = rest(data, at).first().ok_or(Fault::LinkTruncated)?;
            return Ok(match first >> 4 {
                4 => Some(Network::v4(at)),
                6 => Some(Network::v6(at)),
                _ => None,
            });
        }
    }
    Err(Fault::TooDeep)
}

/// A PPP protocol field, one byte when compressed (RFC 1661 section 2, 6.5).
fn ppp(data: &[u8], at: usize) -> Walk {
    let field = rest(data, at);
    let (protocol, at) = match *field {
        [low, ..] if low & 1 != 0 => (u16::from(low), at + 1),
        [high, low, ..] => (u16::from_be_bytes([high, low]), at + 2),
        _ => return Err(Fault::LinkTruncated),
    };
    match protocol {
        // RFC 1332: the nibble decides, as tshark has it. Some devices put an EtherType here.
        0x0021 | 0x0800 => Ok(Some(Network::any(at))),
        // RFC 5072.
        0x0057 | 0x86dd => Ok(Some(Network::v6(at))),
        // RFC 3032 section 4.3.
        0x0281 | 0x0283 => mpls(data, at),
        _ => Ok(None),
    }
}

/// PPP as a link type: with or without address and control (RFC 1662 section 3.1), or Cisco HDLC,
/// which its first byte tells apart. No protocol field begins with the address (RFC 1661 section 2), so
/// the control byte need not be the usual 3.
fn ppp_framed(data: &[u8], at: usize) -> Walk {
    match *rest(data, at) {
        [0xff, _, ..] => ppp(data, at + 2),
        [0x0f | 0x8f, ..] => cisco_hdlc(data, at),
        _ => ppp(data, at),
    }
}

/// Address, control and an EtherType (RFC 1547 section 4.3.1, as vendors extended it): that of a packet
/// or a label stack. Tags mean nothing on a serial line.
fn cisco_hdlc(data: &[u8], at: usize) -> Walk {
    let header = rest(data, at).first_chunk::<C_HDLC_BYTES>().ok_or(Fault::LinkTruncated)?;
    let at = at + C_HDLC_BYTES;
    match EtherType(u16::from_be_bytes([header[2], header[3]])) {
        ether_type::IPV4 => Ok(Some(Network::v4(at))),
        ether_type::IPV6 => Ok(Some(Network::v6(at))),
        MPLS_UNICAST | MPLS_MULTICAST => mpls(data, at),
        _ => Ok(None),
    }
}

/// The length of an address family in front of a packet.
const FAMILY_BYTES: usize = 4;

/// BSD loopback: the capturing host's number of the address family, in its byte order, which the
/// file does not tell. Families are small, so the order that makes the number small is right. What
/// old ISDN interfaces of Linux have in its place is the start of a PPP frame.
fn loopback(data: &[u8], vlans: &mut VlanStack) -> Walk {
    let field = data.first_chunk::<FAMILY_BYTES>().ok_or(Fault::LinkTruncated)?;
    if let [0xff, 0x03, ..] = field {
        return ppp(data, 2);
    }
    let family = u32::from_be_bytes(*field).min(u32::from_le_bytes(*field));
    match u16::try_from(family) {
        // 0x200: the family is in two bytes of the four, in the other order.
        Ok(2 | 0x200) => Ok(Some(Network::any(FAMILY_BYTES))),
        // AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
        Ok(10 | 24 | 28 | 30) => Ok(Some(Network::v6(FAMILY_BYTES))),
        // Some writers put an EtherType here, and tshark reads it.
        Ok(family) if family > IEEE_802_3_LENGTH_MAX => {
            by_ether_type(data, FAMILY_BYTES, EtherType(family), vlans)
        }
        _ => Ok(None),
    }
}

/// OpenBSD loopback: the same in network byte order, and a family of some BSD.
fn openbsd_loopback(data: &[u8]) -> Walk {
    let field = data.first_chunk::<FAMILY_BYTES>().ok_or(Fault::LinkTruncated)?;
    Ok(match u32::from_be_bytes(*field) {
        2 => Some(Network::any(FAMILY_BYTES)),
        24 | 28 | 30 => Some(Network::v6(FAMILY_BYTES)),
        _ => None,
    })
}

/// Linux cooked v1: 16 bytes, the EtherType last.
fn cooked_v1(data: &[u8], vlans: &mut VlanStack) -> Walk {
    const BYTES: usize = 16;
    let header = data.first_chunk::<BYTES>().ok_or(Fault::LinkTruncated)?;
    let hardware = u16::from_be_bytes([header[2], header[3]]);
    cooked(data, BYTES, hardware, u16::from_be_bytes([header[14], header[15]]), vlans)
}

/// Linux cooked v2: 20 bytes, the EtherType first.
fn cooked_v2(data: &[u8], vlans: &mut VlanStack) -> Walk {
    const BYTES: usize = 20;
    let header = data.first_chunk::<BYTES>().ok_or(Fault::LinkTruncated)?;
    let hardware = u16::from_be_bytes([header[8], header[9]]);
    cooked(data, BYTES, hardware, u16::from_be_bytes([header[0], header[1]]), vlans)
}

/// What both cooked headers mean by hardware type and protocol.
fn cooked(data: &[u8], at: usize, hardware: u16, protocol: u16, vlans: &mut VlanStack) -> Walk {
    /// Netlink messages, whose protocol is a netlink family.
    const ARPHRD_NETLINK: u16 = 824;
    /// An 802.2 header follows (`ETH_P_802_2` of Linux); other numbers that small are not for us.
    const ETH_P_802_2: u16 = 4;
    match protocol {
        _ if hardware == ARPHRD_NETLINK => Ok(None),
        0..=IEEE_802_3_LENGTH_MAX if protocol != ETH_P_802_2 => Ok(None),
        _ => by_ether_type(data, at, EtherType(protocol), vlans),
    }
}

/// The bytes from `at` on; none when that is past the end.
fn rest(data: &[u8], at: usize) -> &[u8] {
    data.get(at..).unwrap_or_default()
}
