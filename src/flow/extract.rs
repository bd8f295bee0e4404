//! Layers → key. Which key a tracker uses is a type parameter, so extraction is inlined.

use super::key::{FiveTuple, FlowKey, FlowLabel, IpPair, MacPair, Scope, TableKey};
use crate::decode::{IcmpHeader, Layers, Transport, VlanStack};
use crate::net::{End, IpProto};

/// A key and the end of it that sent the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted<K> {
    /// The canonical key.
    pub key: K,
    /// Who sent.
    pub end: End,
}

/// Decides which frames belong together. `None` leaves the frame unmatched, which is counted.
///
/// For a key of one's own see [`key_in_one_part`](crate::key_in_one_part).
pub trait FlowExtractor {
    /// What frames of one flow have in common. It need not be `Debug`.
    type Key: TableKey;

    /// The key of a frame. Ports of later fragments are already those of their datagram.
    fn extract(&self, layers: &Layers) -> Option<Extracted<Self::Key>>;
}

/// Flows by 5-tuple, both directions in one. VLANs and interfaces do not part flows unless asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByFiveTuple {
    /// A VLAN that differs is a different flow.
    pub vlan: bool,
    /// An interface that differs is a different flow.
    pub interface: bool,
}

impl ByFiveTuple {
    /// The 5-tuple of a frame, as seen; `None` without IP.
    #[inline(always)]
    pub fn tuple(&self, layers: &Layers) -> Option<FiveTuple> {
        let ip = layers.ip.as_ref()?;
        let (src_port, dst_port) = match layers.transport {
            Transport::Tcp(ref tcp) => (tcp.src, tcp.dst),
            Transport::Ports { src, dst } => (src, dst),
            Transport::Icmp(ref icmp) => icmp_ports(ip.proto, icmp),
            Transport::None => (0, 0),
        };
        // Of a frame that is known to have no tag only the interface is left to be asked about.
        let VlanStack { ids: [outer, inner], depth } = layers.vlans;
        let tag = |at: u8, id: u16| if depth > at && self.vlan { id + 1 } else { 0 };
        let scope = Scope {
            vlans: [tag(0, outer), tag(1, inner)],
            interface: if self.interface { numbered(layers.interface) } else { 0 },
        };
        Some(FiveTuple {
            src: ip.src,
            dst: ip.dst,
            src_port,
            dst_port,
            proto: ip.proto,
            version: ip.version,
            scope,
        })
    }
}

/// A call, so that it is a branch that always goes the same way.
#[inline(never)]
fn numbered(interface: u16) -> u16 {
    interface.saturating_add(1)
}

impl FlowExtractor for ByFiveTuple {
    type Key = FlowKey;

    #[inline(always)]
    fn extract(&self, layers: &Layers) -> Option<Extracted<FlowKey>> {
        let (key, end) = self.tuple(layers)?.canonical();
        Some(Extracted { key, end })
    }
}

/// The type a reply answers: RFC 792, RFC 950, RFC 4443, RFC 4861, RFC 4620.
pub(super) fn request_type(proto: IpProto, ty: u8) -> u8 {
    match (proto, ty) {
        (IpProto::ICMP, 0) => 8,
        (IpProto::ICMP, 9) => 10,
        (IpProto::ICMP, 14) => 13,
        (IpProto::ICMP, 16) => 15,
        (IpProto::ICMP, 18) => 17,
        (IpProto::ICMPV6, 129) => 128,
        (IpProto::ICMPV6, 131 | 132) => 130,
        (IpProto::ICMPV6, 134) => 133,
        (IpProto::ICMPV6, 136) => 135,
        (IpProto::ICMPV6, 140) => 139,
        _ => ty,
    }
}

/// The type that answers a query of type `ty`: the other way round. Of the two answers that end a
/// multicast listener query, the report. `None` for what is no query.
pub fn reply_type(proto: IpProto, ty: u8) -> Option<u8> {
    match (proto, ty) {
        (IpProto::ICMP, 8) => Some(0),
        (IpProto::ICMP, 10) => Some(9),
        (IpProto::ICMP, 13) => Some(14),
        (IpProto::ICMP, 15) => Some(16),
        (IpProto::ICMP, 17) => Some(18),
        (IpProto::ICMPV6, 128) => Some(129),
        (IpProto::ICMPV6, 130) => Some(131),
        (IpProto::ICMPV6, 133) => Some(134),
        (IpProto::ICMPV6, 135) => Some(136),
        (IpProto::ICMPV6, 139) => Some(140),
        _ => None,
    }
}

fn icmp_ports(proto: IpProto, icmp: &IcmpHeader) -> (u16, u16) {
    (u16::from(request_type(proto, icmp.ty)) << 8 | u16::from(icmp.code), icmp.id)
}

/// Flows by pair of IP addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByIpPair;

impl FlowExtractor for ByIpPair {
    type Key = IpPair;

    fn extract(&self, layers: &Layers) -> Option<Extracted<IpPair>> {
        let ip = layers.ip.as_ref()?;
        let (a, b, end) = ordered(ip.src, ip.dst);
        Some(Extracted { key: IpPair { a, b, version: ip.version }, end })
    }
}

/// Flows by pair of hardware addresses, IP or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByMacPair;

impl FlowExtractor for ByMacPair {
    type Key = MacPair;

    fn extract(&self, layers: &Layers) -> Option<Extracted<MacPair>> {
        let (src, dst) = layers.macs?;
        let (a, b, end) = ordered(src, dst);
        Some(Extracted { key: MacPair { a, b }, end })
    }
}

/// IPv6 flows by addresses and flow label (RFC 6437); label 0 and IPv4 stay unmatched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByFlowLabel;

impl FlowExtractor for ByFlowLabel {
    type Key = FlowLabel;

    fn extract(&self, layers: &Layers) -> Option<Extracted<FlowLabel>> {
        let ip = layers.ip.as_ref().filter(|ip| ip.flow_label != 0)?;
        let key = FlowLabel { src: ip.src, dst: ip.dst, label: ip.flow_label };
        Some(Extracted { key, end: End::A })
    }
}

fn ordered<T: Ord>(src: T, dst: T) -> (T, T, End) {
    if src <= dst { (src, dst, End::A) } else { (dst, src, End::B) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_answers_a_request() {
        for proto in [IpProto::ICMP, IpProto::ICMPV6] {
            for ty in 0..=255 {
                if let Some(reply) = reply_type(proto, ty) {
                    assert_eq!(request_type(proto, reply), ty, "{proto:?} {ty}");
                }
                let request = request_type(proto, ty);
                assert!(request == ty || reply_type(proto, request).is_some(), "{proto:?} {ty}");
            }
        }
    }
}
