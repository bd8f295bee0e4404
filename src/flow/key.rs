//! What makes two frames one flow: canonical, bidirectional keys.

use std::hint::select_unpredictable;

use crate::net::{Addr, End, IpProto, IpVersion, MacAddr};

/// What a key may hold beside the 5-tuple; zero where the extractor was not asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Scope {
    /// VLAN identifiers plus one (0: no tag), outermost first.
    pub vlans: [u16; 2],
    /// The interface, plus one.
    pub interface: u16,
}

impl Scope {
    /// All of it as one number; 0 for nothing.
    #[inline(always)]
    fn bits(self) -> u64 {
        let [outer, inner] = self.vlans;
        u64::from(outer) | u64::from(inner) << 16 | u64::from(self.interface) << 32
    }
}

/// A 5-tuple as seen in a packet.
///
/// ICMP has no ports: `src_port` is the type in its high byte and the code in its low one, where
/// a reply has the type of its request; `dst_port` is the identifier of a query, else 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IP protocol.
    pub proto: IpProto,
    /// IP version.
    pub version: IpVersion,
    /// VLAN and interface, when they are part of the key.
    pub scope: Scope,
}

impl FiveTuple {
    /// The canonical key, and which of its ends sent the packet.
    ///
    /// The lower `(address, port)` is end A. ICMP "ports" belong to both ends and stay in place.
    /// With both ends equal, whoever sends is A.
    ///
    /// Without a branch: who sends is as good as random, and a branch that is guessed wrongly every second time costs more than
    /// all of this. Masks are not enough, the compiler makes a branch of them again.
    #[inline(always)]
    pub fn canonical(&self) -> (FlowKey, End) {
        let icmp = matches!(self.proto, IpProto::ICMP | IpProto::ICMPV6);
        if self.version == IpVersion::V4 && !icmp {
            return self.canonical_v4();
        }
        let (src_port, dst_port) = if icmp { (0, 0) } else { (self.src_port, self.dst_port) };
        let (src, dst) = (u128::from_be_bytes(self.src.0), u128::from_be_bytes(self.dst.0));
        let swap = (src > dst) | (src == dst) & (src_port > dst_port);
        let pick = |one: Addr, other: Addr| {
            let (one, other) = (u128::from_ne_bytes(one.0), u128::from_ne_bytes(other.0));
            Addr(select_unpredictable(swap, other, one).to_ne_bytes())
        };
        let (a, b) = (pick(self.src, self.dst), pick(self.dst, self.src));
        let crosses = swap & !icmp;
        let port_a = select_unpredictable(crosses, self.dst_port, self.src_port);
        let port_b = select_unpredictable(crosses, self.src_port, self.dst_port);
        let key = FlowKey {
            a,
            b,
            port_a,
            port_b,
            proto: self.proto,
            version: self.version,
            scope: self.scope,
        };
        (key, if swap { End::B } else { End::A })
    }

    /// Both addresses are one word, both ports another: turned round they are those of the way back. The compiler sees through
    /// them from the header to the key and its hash.
    #[inline(always)]
    fn canonical_v4(&self) -> (FlowKey, End) {
        let there = u64::from(self.src.v4_bits()) << 32 | u64::from(self.dst.v4_bits());
        let ports = u32::from(self.src_port) << 16 | u32::from(self.dst_port);
        let (back, ports_back) = (there.rotate_left(32), ports.rotate_left(16));
        let whole = |addresses: u64, ports: u32| u128::from(addresses) << 64 | u128::from(ports);
        let swap = whole(there, ports) > whole(back, ports_back);
        let addresses = select_unpredictable(swap, back, there);
        let ports = select_unpredictable(swap, ports_back, ports);
        let key = FlowKey {
            a: Addr::v4(((addresses >> 32) as u32).to_be_bytes()),
            b: Addr::v4((addresses as u32).to_be_bytes()),
            port_a: (ports >> 16) as u16,
            port_b: ports as u16,
            proto: self.proto,
            version: self.version,
            scope: self.scope,
        };
        (key, if swap { End::B } else { End::A })
    }
}

/// The canonical, bidirectional form of a [`FiveTuple`].
#[derive(Clone, Copy, Debug, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey {
    /// Address of the lower end.
    pub a: Addr,
    /// Address of the upper end.
    pub b: Addr,
    /// Port of the lower end; ICMP: type and code (see [`FiveTuple`]).
    pub port_a: u16,
    /// Port of the upper end; ICMP: the identifier.
    pub port_b: u16,
    /// IP protocol.
    pub proto: IpProto,
    /// IP version.
    pub version: IpVersion,
    /// VLAN and interface, when they are part of the key.
    pub scope: Scope,
}

// 44 bytes: with the tracker's own state an entry is two cache lines.
const _: () = assert!(size_of::<FlowKey>() == 44);

/// Without a branch for each field: in the order of memory, so that neighbours are read as one word.
impl PartialEq for FlowKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let rest = |key: &Self| {
            u64::from(key.port_a)
                | u64::from(key.port_b) << 16
                | u64::from(key.proto.0) << 32
                | u64::from(key.version as u8) << 40
                | u64::from(key.scope.vlans[0]) << 48
        };
        let last =
            |key: &Self| u32::from(key.scope.vlans[1]) | u32::from(key.scope.interface) << 16;
        (self.a == other.a)
            & (self.b == other.b)
            & (rest(self) == rest(other))
            & (last(self) == last(other))
    }
}

/// Hashed as a few words rather than field by field: four times fewer hasher calls. What few keys have comes last and only
/// where they have it.
impl std::hash::Hash for FlowKey {
    #[inline(always)]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let ports = u32::from(self.port_a) << 16 | u32::from(self.port_b);
        let rest = u64::from(ports) << 32
            | u64::from(self.proto.0) << 24
            | u64::from(self.version as u8) << 16;
        if self.version == IpVersion::V4 {
            state.write_u64(u64::from(self.a.v4_bits()) << 32 | u64::from(self.b.v4_bits()));
        } else {
            state.write_u128(u128::from_be_bytes(self.a.0));
            state.write_u128(u128::from_be_bytes(self.b.0));
        }
        state.write_u64(rest);
        let scope = self.scope.bits();
        if scope != 0 {
            state.write_u64(scope);
        }
    }
}

impl FlowKey {
    /// The 5-tuple as the given end sends it.
    pub fn from_end(&self, end: End) -> FiveTuple {
        let icmp = matches!(self.proto, IpProto::ICMP | IpProto::ICMPV6);
        let (src, dst) = match end {
            End::A => (self.a, self.b),
            End::B => (self.b, self.a),
        };
        let (src_port, dst_port) = if end == End::A || icmp {
            (self.port_a, self.port_b)
        } else {
            (self.port_b, self.port_a)
        };
        FiveTuple {
            src,
            dst,
            src_port,
            dst_port,
            proto: self.proto,
            version: self.version,
            scope: self.scope,
        }
    }
}

/// Two IP addresses, whatever they say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPair {
    /// The lower address.
    pub a: Addr,
    /// The upper address.
    pub b: Addr,
    /// IP version.
    pub version: IpVersion,
}

/// Two hardware addresses, whatever they say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacPair {
    /// The lower address.
    pub a: MacAddr,
    /// The upper address.
    pub b: MacAddr,
}

/// An IPv6 flow as RFC 6437 means it: addresses and flow label, one direction. A label other than
/// 0 is chosen by each source on its own, so the two directions of a conversation are two flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowLabel {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// The label, 20 bits, not 0.
    pub label: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(proto: IpProto) -> impl Strategy<Value = FiveTuple> {
        (any::<[u8; 16]>(), any::<[u8; 16]>(), 0..3u16, 0..3u16, any::<bool>()).prop_map(
            move |(src, dst, src_port, dst_port, same)| FiveTuple {
                src: Addr(src),
                dst: Addr(if same { src } else { dst }),
                src_port,
                dst_port,
                proto,
                version: IpVersion::V6,
                scope: Scope::default(),
            },
        )
    }

    fn reversed(t: &FiveTuple) -> FiveTuple {
        FiveTuple { src: t.dst, dst: t.src, src_port: t.dst_port, dst_port: t.src_port, ..*t }
    }

    proptest! {
        #[test]
        fn both_directions_have_one_key(t in tuple(IpProto::TCP)) {
            let (key, end) = t.canonical();
            let (back, other) = reversed(&t).canonical();
            prop_assert_eq!(key, back);
            prop_assert_eq!(key.from_end(end), t);
            if (t.src, t.src_port) != (t.dst, t.dst_port) {
                prop_assert_eq!(end, other.other());
            }
        }

        #[test]
        fn icmp_fields_stay_in_place(t in tuple(IpProto::ICMP)) {
            let (key, end) = t.canonical();
            prop_assert_eq!((key.port_a, key.port_b), (t.src_port, t.dst_port));
            prop_assert_eq!(key.from_end(end), t);
        }
    }
}
