//! What makes two frames one flow: canonical, bidirectional keys.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
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
        let a = select_unpredictable(swap, dst, src);
        let b = select_unpredictable(swap, src, dst);
        let crosses = swap & !icmp;
        let port_a = select_unpredictable(crosses, self.dst_port, self.src_port);
        let port_b = select_unpredictable(crosses, self.src_port, self.dst_port);
        let ports = u32::from(port_a) << 16 | u32::from(port_b);
        let first = |addr: u128| match self.version {
            IpVersion::V4 => (0, 0),
            IpVersion::V6 => ((addr >> 64) as u64, (addr >> 32) as u32),
        };
        let ((first_a, middle_a), (first_b, middle_b)) = (first(a), first(b));
        let addresses = u64::from(a as u32) << 32 | u64::from(b as u32);
        let key = self.key(addresses, ports, [first_a, first_b], [middle_a, middle_b]);
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
        let key = self.key(addresses, ports, [0; 2], [0; 2]);
        (key, if swap { End::B } else { End::A })
    }

    /// The key with these addresses and ports, and the rest of this tuple.
    #[inline(always)]
    fn key(&self, addresses: u64, ports: u32, first: [u64; 2], middle: [u32; 2]) -> FlowKey {
        let Scope { vlans: [outer, inner], interface } = self.scope;
        let scope = u32::from(inner) << 16 | u32::from(interface);
        let is_wide = (self.version == IpVersion::V6) | (scope != 0);
        let rest = u32::from(outer) << 16
            | u32::from(is_wide) << IS_WIDE
            | (self.version as u32) << 8
            | u32::from(self.proto.0);
        let ports_and_rest = u64::from(ports) << 32 | u64::from(rest);
        FlowKey {
            narrow: NarrowKey { addresses, ports_and_rest },
            wide: WideKey { first, middle, scope },
        }
    }
}

/// The canonical, bidirectional form of a [`FiveTuple`], whose [`canonical`](FiveTuple::canonical) makes it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey {
    narrow: NarrowKey,
    /// Zero where the narrow part says so.
    wide: WideKey,
}

/// In few words: four times fewer hasher calls than field by field.
impl Hash for FlowKey {
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.narrow.addresses);
        state.write_u64(self.narrow.ports_and_rest);
        if self.is_wide() {
            let WideKey { first, middle, scope } = self.wide;
            first.into_iter().for_each(|word| state.write_u64(word));
            state.write_u64(u64::from(middle[0]) << 32 | u64::from(middle[1]));
            state.write_u32(scope);
        }
    }
}

impl FlowKey {
    /// Address of the lower end.
    #[inline]
    pub fn a(&self) -> Addr {
        self.addr(0)
    }

    /// Address of the upper end.
    #[inline]
    pub fn b(&self) -> Addr {
        self.addr(1)
    }

    #[inline(always)]
    fn addr(&self, at: usize) -> Addr {
        let last = (self.narrow.addresses >> [32, 0][at]) as u32;
        let (first, middle) = (self.wide.first[at], self.wide.middle[at]);
        match self.version() {
            IpVersion::V4 => Addr::v4(last.to_be_bytes()),
            IpVersion::V6 => {
                let whole = u128::from(first) << 64 | u128::from(middle) << 32 | u128::from(last);
                Addr(whole.to_be_bytes())
            }
        }
    }

    /// Port of the lower end; ICMP: type and code (see [`FiveTuple`]).
    #[inline]
    pub fn port_a(&self) -> u16 {
        (self.narrow.ports_and_rest >> 48) as u16
    }

    /// Port of the upper end; ICMP: the identifier.
    #[inline]
    pub fn port_b(&self) -> u16 {
        (self.narrow.ports_and_rest >> 32) as u16
    }

    /// IP protocol.
    #[inline]
    pub fn proto(&self) -> IpProto {
        IpProto(self.narrow.ports_and_rest as u8)
    }

    /// IP version.
    #[inline]
    pub fn version(&self) -> IpVersion {
        if self.narrow.ports_and_rest >> 8 & 0xf == IpVersion::V4 as u64 {
            IpVersion::V4
        } else {
            IpVersion::V6
        }
    }

    /// VLAN and interface, when they are part of the key.
    #[inline]
    pub fn scope(&self) -> Scope {
        let WideKey { scope, .. } = self.wide;
        let outer = (self.narrow.ports_and_rest >> 16) as u16;
        Scope { vlans: [outer, (scope >> 16) as u16], interface: scope as u16 }
    }

    /// The 5-tuple as the given end sends it.
    pub fn from_end(&self, end: End) -> FiveTuple {
        let (proto, version, scope) = (self.proto(), self.version(), self.scope());
        let icmp = matches!(proto, IpProto::ICMP | IpProto::ICMPV6);
        let (src, dst) = match end {
            End::A => (self.a(), self.b()),
            End::B => (self.b(), self.a()),
        };
        let (src_port, dst_port) = if end == End::A || icmp {
            (self.port_a(), self.port_b())
        } else {
            (self.port_b(), self.port_a())
        };
        FiveTuple { src, dst, src_port, dst_port, proto, version, scope }
    }
}

/// By address of the lower end, then of the upper one, then by all else in turn.
impl Ord for FlowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let parts = |key: &Self| {
            let (ports, addresses) = ((key.port_a(), key.port_b()), (key.a(), key.b()));
            (addresses, ports, key.proto(), key.version(), key.scope())
        };
        parts(self).cmp(&parts(other))
    }
}

impl PartialOrd for FlowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FlowKey").field(&self.from_end(End::A)).finish()
    }
}

/// A key as the flow table keeps it, in two parts. The narrow part lies beside a flow's counters, and most packets are compared
/// with nothing else; the wide part lies apart, and takes memory only among flows that have one.
///
/// A key in one part is its own narrow part and has no wide one ([`key_in_one_part`](crate::key_in_one_part)); more than 16 bytes of it
/// make an entry longer by a cache line.
pub trait TableKey: Copy + Eq + Hash {
    /// What every packet is compared with.
    type Narrow: Copy + Eq;
    /// What is compared besides, where there is any.
    type Wide: Copy + Eq + Default;

    /// The narrow part. Keys whose narrow parts are equal both have a wide part, or neither has.
    fn narrow(&self) -> Self::Narrow;

    /// Whether there is a wide part.
    fn is_wide(&self) -> bool;

    /// The wide part, of a key that has one. Keys with the same parts are equal.
    fn wide(&self) -> Self::Wide;

    /// The key of these parts. `wide` may be asked only where there is one.
    fn of_parts(narrow: Self::Narrow, wide: impl FnOnce() -> Self::Wide) -> Self;
}

/// Of a [`FlowKey`] over IPv4, with one VLAN at most and no interface, everything.
#[derive(Clone, Copy, Debug, Eq)]
#[repr(C)]
pub struct NarrowKey {
    /// The last four bytes of both addresses as numbers, the lower end's in the upper half.
    addresses: u64,
    /// Protocol, version, [`IS_WIDE`], outer VLAN, the upper end's port and the lower end's, from the lowest bits on.
    ports_and_rest: u64,
}

/// The bit of [`NarrowKey::ports_and_rest`], above the version, that says that there is a wide part.
const IS_WIDE: u32 = 15;

/// Without a branch for each word.
impl PartialEq for NarrowKey {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (self.addresses == other.addresses) & (self.ports_and_rest == other.ports_and_rest)
    }
}

/// What a [`FlowKey`] has beside its [`NarrowKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WideKey {
    /// The first eight bytes of both IPv6 addresses as numbers.
    first: [u64; 2],
    /// The next four.
    middle: [u32; 2],
    /// The inner VLAN, and the interface in the lower half.
    scope: u32,
}

impl TableKey for FlowKey {
    type Narrow = NarrowKey;
    type Wide = WideKey;

    #[inline(always)]
    fn narrow(&self) -> NarrowKey {
        self.narrow
    }

    #[inline(always)]
    fn is_wide(&self) -> bool {
        self.narrow.ports_and_rest >> IS_WIDE & 1 != 0
    }

    #[inline(always)]
    fn wide(&self) -> WideKey {
        self.wide
    }

    fn of_parts(narrow: NarrowKey, wide: impl FnOnce() -> WideKey) -> Self {
        let key = Self { narrow, wide: WideKey::default() };
        if key.is_wide() { Self { wide: wide(), ..key } } else { key }
    }
}

/// Makes types that are `Copy`, `Eq` and `Hash` a [`TableKey`](crate::flow::TableKey) in one part.
///
/// ```
/// use flowscope::decode::{Layers, Transport};
/// use flowscope::flow::{Extracted, FlowExtractor};
/// use flowscope::net::End;
///
/// /// All datagrams to and from a port are one flow.
/// #[derive(Clone, Copy, PartialEq, Eq, Hash)]
/// struct Port(u16);
/// flowscope::key_in_one_part!(Port);
///
/// struct ByServer;
///
/// impl FlowExtractor for ByServer {
///     type Key = Port;
///
///     fn extract(&self, layers: &Layers) -> Option<Extracted<Port>> {
///         let Transport::Ports { src, dst } = layers.transport else { return None };
///         let (port, end) = if src < dst { (src, End::A) } else { (dst, End::B) };
///         Some(Extracted { key: Port(port), end })
///     }
/// }
/// ```
#[macro_export]
macro_rules! key_in_one_part {
    ($($key:ty),* $(,)?) => {$(
        impl $crate::flow::TableKey for $key {
            type Narrow = Self;
            type Wide = ();

            #[inline(always)]
            fn narrow(&self) -> Self {
                *self
            }

            #[inline(always)]
            fn is_wide(&self) -> bool {
                false
            }

            fn wide(&self) {}

            fn of_parts(narrow: Self, _: impl FnOnce()) -> Self {
                narrow
            }
        }
    )*};
}

key_in_one_part!(IpPair, MacPair, FlowLabel);

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
pub(super) mod tests {
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

    /// Of few values, so that two are equal in some parts and not in others.
    pub(crate) fn any_tuple() -> impl Strategy<Value = FiveTuple> {
        let addr = (0..2u8, 0..2u8, 0..2u8);
        let proto = prop_oneof![Just(IpProto::TCP), Just(IpProto::UDP), Just(IpProto::ICMP)];
        let scope = (0..2u16, 0..2u16, 0..2u16);
        (any::<bool>(), addr.clone(), addr, (0..3u16, 0..3u16), proto, scope).prop_map(
            |(is_v4, src, dst, (src_port, dst_port), proto, (outer, inner, interface))| {
                let addr = |(first, middle, last): (u8, u8, u8)| match is_v4 {
                    true => Addr::v4([first, 0, middle, last]),
                    false => Addr([first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, middle, 0, 0, 0, last]),
                };
                FiveTuple {
                    src: addr(src),
                    dst: addr(dst),
                    src_port,
                    dst_port,
                    proto,
                    version: if is_v4 { IpVersion::V4 } else { IpVersion::V6 },
                    scope: Scope { vlans: [outer, inner], interface },
                }
            },
        )
    }

    fn hashed(key: &FlowKey) -> u64 {
        std::hash::BuildHasher::hash_one(&foldhash::fast::FixedState::with_seed(7), key)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn keys_are_as_equal_as_their_tuples(one in any_tuple(), other in any_tuple()) {
            let (key, end) = one.canonical();
            prop_assert_eq!(key.from_end(end), one);
            let another = other.canonical().0;
            let is_equal = one == other || reversed(&one) == other && one.proto != IpProto::ICMP
                || FiveTuple { src: one.dst, dst: one.src, ..one } == other && one.proto == IpProto::ICMP;
            prop_assert_eq!(key == another, is_equal);
            prop_assert_eq!(key.cmp(&another).is_eq(), is_equal);
            prop_assert!(!is_equal || hashed(&key) == hashed(&another));
            // In parts.
            let (narrow, other_narrow) = (key.narrow(), another.narrow());
            prop_assert!(narrow != other_narrow || key.is_wide() == another.is_wide());
            let is_same = narrow == other_narrow && (!key.is_wide() || key.wide() == another.wide());
            prop_assert_eq!(is_same, is_equal);
            prop_assert_eq!(FlowKey::of_parts(narrow, || key.wide()), key);
            prop_assert_eq!(key.is_wide(), one.version == IpVersion::V6
                || one.scope.vlans[1] != 0 || one.scope.interface != 0);
        }

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
            prop_assert_eq!((key.port_a(), key.port_b()), (t.src_port, t.dst_port));
            prop_assert_eq!(key.from_end(end), t);
        }
    }
}
