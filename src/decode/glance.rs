//! What is seen of a frame at a glance: [between whom](words) it goes, for who decides by that alone whether to decode it, or
//! [all](look) that a flow by 5-tuple needs of it, for who hands it to another core.
//!
//! Contract: what is said of a frame is what decoding says, for it is decoded; but of addresses and ports alone only what is between them and
//! the frame's begin is looked at. Of a frame that is no common stack nothing is said.

use super::{
    IpLayer, Layers, OnLayers, Payload, TcpHeader, Transport, VlanStack, decode_for, decode_wider,
};
use crate::frame::{Frame, LinkType};
use crate::net::{Addr, IpProto, IpVersion, TcpFlags};
use crate::time::Timestamp;

/// From an Ethernet frame's begin to what is above IPv4 without options.
const UPPER_AT: u32 = 14 + 20;

/// Length of a UDP header in bytes (RFC 768).
const UDP_BYTES: u8 = 8;

/// The 16-bit words of addresses and ports, added without carry: all that a symmetric hash under a key that repeats every 16 bits
/// takes of a 5-tuple. `None` for a frame that is to be decoded.
#[inline(always)]
pub(crate) fn words(frame: &Frame<'_>) -> Option<u16> {
    decode_for(frame, Words)
}

#[derive(Clone, Copy)]
struct Words;

impl OnLayers for Words {
    type Out = Option<u16>;

    #[inline(always)]
    fn plain(self, layers: &Layers) -> Option<u16> {
        let ip = layers.ip.as_ref()?;
        let ports = match layers.transport {
            Transport::Tcp(ref tcp) => tcp.src ^ tcp.dst,
            Transport::Ports { src, dst } => src ^ dst,
            _ => return None,
        };
        let addresses = if ip.version == IpVersion::V4 {
            ip.src.v4_bits() ^ ip.dst.v4_bits()
        } else {
            let both = u128::from_be_bytes(ip.src.0) ^ u128::from_be_bytes(ip.dst.0);
            let folded = (both >> 64) as u64 ^ both as u64;
            (folded >> 32) as u32 ^ folded as u32
        };
        Some((addresses >> 16) as u16 ^ addresses as u16 ^ ports)
    }

    #[inline(always)]
    fn wider(self, frame: &Frame<'_>) -> Option<u16> {
        wider(frame)
    }

    #[inline(always)]
    fn general(self, _: &Frame<'_>) -> Option<u16> {
        None
    }
}

#[inline(never)]
fn wider(frame: &Frame<'_>) -> Option<u16> {
    decode_wider(frame, Words)
}

/// A frame of TCP or UDP over IPv4 right behind Ethernet, of whose datagram nothing was cut: whatever there is to be known of it but its
/// hardware addresses, less than a cache line. The default is of no frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glance {
    /// When it was captured.
    ts: Timestamp,
    /// Source and destination.
    addresses: [u32; 2],
    seq: u32,
    ack: u32,
    /// Bytes on the wire.
    wire_len: u32,
    /// How far its time is behind the latest one before it, in nanoseconds: whoever looks puts it down.
    late_ns: u32,
    /// Source and destination.
    ports: [u16; 2],
    window: u16,
    /// Bytes behind the transport header.
    payload: u16,
    interface: u16,
    flags: TcpFlags,
    /// Of TCP, with options.
    header_len: u8,
    window_scale: Option<u8>,
    /// TCP or UDP; of no frame 0.
    proto: IpProto,
}

// What another core reads of a frame.
const _: () = assert!(size_of::<Glance>() == 48);

/// Who looks at a frame: one of its methods is called, once. Inline them always: a glance that goes through memory on its way to where it is
/// put waits there for stores before it ([ARCHITECTURE](../../docs/ARCHITECTURE.md)).
pub(crate) trait OnGlance {
    /// All is seen; with what [`words`] says.
    fn told(&mut self, words: u16, glance: Glance);
    /// Only what [`words`] says, or nothing.
    fn untold(&mut self, words: Option<u16>);
}

/// Looks at a frame whose time is so far behind.
#[inline(always)]
pub(crate) fn look(frame: &Frame<'_>, late_ns: u32, then: &mut impl OnGlance) {
    decode_for(frame, Look { frame, late_ns, then });
}

struct Look<'a, 'f, T> {
    frame: &'a Frame<'f>,
    late_ns: u32,
    then: &'a mut T,
}

impl<T: OnGlance> OnLayers for Look<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn plain(self, layers: &Layers) {
        let words = Words.plain(layers);
        let (Some(ip), Some(words)) = (&layers.ip, words) else { return self.then.untold(words) };
        let Payload { captured, wire, .. } = layers.payload;
        if ip.version != IpVersion::V4 || layers.vlans.depth > 0 || captured != wire {
            return self.then.untold(Some(words));
        }
        let glance = Glance {
            ts: self.frame.ts,
            addresses: [ip.src.v4_bits(), ip.dst.v4_bits()],
            wire_len: self.frame.wire_len,
            late_ns: self.late_ns,
            // IP's length is 16 bits.
            payload: wire as u16,
            interface: layers.interface,
            proto: ip.proto,
            ..Glance::default()
        };
        match layers.transport {
            Transport::Tcp(tcp) => {
                let TcpHeader { src, dst, seq, ack, flags, window, header_len, window_scale } = tcp;
                let ports = [src, dst];
                let glance =
                    Glance { ports, seq, ack, flags, window, header_len, window_scale, ..glance };
                self.then.told(words, glance);
            }
            Transport::Ports { src, dst } => {
                self.then.told(words, Glance { ports: [src, dst], ..glance });
            }
            _ => self.then.untold(Some(words)),
        }
    }

    #[inline(always)]
    fn wider(self, frame: &Frame<'_>) {
        look_wider(frame, self);
    }

    #[inline(always)]
    fn general(self, _: &Frame<'_>) {
        self.then.untold(None);
    }
}

#[inline(never)]
fn look_wider(frame: &Frame<'_>, look: Look<'_, '_, impl OnGlance>) {
    decode_wider(frame, look);
}

impl Glance {
    /// Whether it is of a frame.
    #[inline(always)]
    pub(crate) fn is_told(&self) -> bool {
        self.proto != IpProto(0)
    }

    /// The latest time that the frame and all before it showed.
    #[inline(always)]
    pub(crate) fn latest(&self) -> Timestamp {
        self.ts.plus_nanos(u64::from(self.late_ns))
    }

    /// The frame, without its bytes.
    #[inline(always)]
    pub(crate) fn frame(&self) -> Frame<'static> {
        let Self { ts, wire_len, interface, .. } = *self;
        Frame { ts, wire_len, link: LinkType::ETHERNET, interface, data: &[] }
    }

    /// Tells its layers, without hardware addresses.
    #[inline(always)]
    pub(crate) fn tell<T: OnLayers>(&self, then: T) -> T::Out {
        let [src, dst] = self.ports;
        if self.proto == IpProto::TCP {
            let Self { seq, ack, flags, window, header_len, window_scale, .. } = *self;
            let tcp = TcpHeader { src, dst, seq, ack, flags, window, header_len, window_scale };
            then.plain(&self.layers(Transport::Tcp(tcp), header_len))
        } else {
            then.plain(&self.layers(Transport::Ports { src, dst }, UDP_BYTES))
        }
    }

    #[inline(always)]
    fn layers(&self, transport: Transport, header_len: u8) -> Layers {
        let [src, dst] = self.addresses.map(|bits| Addr::v4(bits.to_be_bytes()));
        let ip = IpLayer {
            version: IpVersion::V4,
            proto: self.proto,
            src,
            dst,
            flow_label: 0,
            fragment: None,
        };
        let bytes = u32::from(self.payload);
        Layers {
            macs: None,
            vlans: VlanStack::default(),
            interface: self.interface,
            ip: Some(ip),
            transport,
            payload: Payload {
                offset: UPPER_AT + u32::from(header_len),
                captured: bytes,
                wire: bytes,
            },
            fault: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::decode;
    use crate::frame::LinkType;
    use crate::time::Timestamp;

    /// The same of what decoding says; `None` unless it is TCP or UDP over IP and nothing is wrong.
    fn decoded(frame: &Frame<'_>) -> Option<u16> {
        let layers = decode(frame);
        let ip = layers.ip.filter(|ip| ip.fragment.is_none() && layers.fault.is_none())?;
        let ports = match layers.transport {
            Transport::Tcp(tcp) => tcp.src ^ tcp.dst,
            Transport::Ports { src, dst } => src ^ dst,
            _ => return None,
        };
        let words = [ip.src.0, ip.dst.0].concat();
        let add = |sum, word: &[u8; 2]| sum ^ u16::from_be_bytes(*word);
        Some(words.as_chunks::<2>().0.iter().fold(ports, add))
    }

    fn frame(data: &[u8], link: LinkType) -> Frame<'_> {
        let ts = Timestamp::from_nanos(1_000_000_007);
        Frame { ts, wire_len: data.len() as u32, link, interface: 3, data }
    }

    /// What is told of a frame.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Told {
        All(u16, Glance),
        Words(Option<u16>),
    }

    impl OnGlance for Option<Told> {
        fn told(&mut self, words: u16, glance: Glance) {
            assert_eq!(self.replace(Told::All(words, glance)), None);
        }

        fn untold(&mut self, words: Option<u16>) {
            assert_eq!(self.replace(Told::Words(words)), None);
        }
    }

    struct Give;

    impl OnLayers for Give {
        type Out = Layers;

        fn plain(self, layers: &Layers) -> Layers {
            *layers
        }

        fn wider(self, _: &Frame<'_>) -> Layers {
            unreachable!("a glance has no bytes")
        }

        fn general(self, _: &Frame<'_>) -> Layers {
            unreachable!("a glance has no bytes")
        }
    }

    /// A whole frame: tagged or not, either version of IP, either protocol, a SYN with an option or not.
    fn common(
        is_tagged: bool,
        is_v6: bool,
        is_tcp: bool,
        is_syn: bool,
        addresses: [u8; 32],
        more: &[u8],
    ) -> Vec<u8> {
        let mut above = vec![0x12, 0x34, 0x00, 0x50];
        if is_tcp && is_syn {
            above.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 1, 0, 0, 0, 0, 0, 3, 3, 7, 0]);
        } else if is_tcp {
            above.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        } else {
            above.extend((8 + more.len() as u16).to_be_bytes());
            above.extend([0, 0]);
        }
        above.extend(more);
        let mut frame = vec![2; 12];
        if is_tagged {
            frame.extend([0x81, 0, 0, 7]);
        }
        let proto = if is_tcp { 6 } else { 17 };
        if is_v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((above.len() as u16).to_be_bytes());
            frame.extend([proto, 64]);
            frame.extend(addresses);
        } else {
            frame.extend([0x08, 0, 0x45, 0]);
            frame.extend((20 + above.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, proto, 0, 0]);
            frame.extend(&addresses[..8]);
        }
        frame.extend(above);
        frame
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_glance_sees_what_decoding_sees_or_nothing(
            shape in any::<[bool; 4]>(),
            addresses in any::<[u8; 32]>(),
            more in prop::collection::vec(any::<u8>(), 0..40),
            damage in prop::collection::vec((0..70usize, any::<u8>()), 0..3),
            cut in prop_oneof![2 => Just(usize::MAX), 1 => 0..100usize],
            link in prop_oneof![8 => Just(LinkType::ETHERNET), 1 => Just(LinkType::RAW)],
        ) {
            let [is_tagged, is_v6, is_tcp, is_syn] = shape;
            let mut data = common(is_tagged, is_v6, is_tcp, is_syn, addresses, &more);
            for &(at, byte) in &damage {
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
            let wire_len = data.len() as u32;
            data.truncate(cut);
            let frame = Frame { wire_len, ..frame(&data, link) };
            let seen = words(&frame);
            let mut told = None;
            look(&frame, 5, &mut told);
            match told {
                Some(Told::All(words, glance)) => {
                    prop_assert_eq!(Some(words), seen);
                    prop_assert!(glance.is_told());
                    prop_assert_eq!(glance.tell(Give), Layers { macs: None, ..decode(&frame) });
                    let Frame { ts, wire_len, link, interface, data } = glance.frame();
                    prop_assert_eq!((ts, wire_len), (frame.ts, frame.wire_len));
                    prop_assert_eq!((link, interface), (frame.link, frame.interface));
                    prop_assert!(data.is_empty());
                    prop_assert_eq!(glance.latest(), frame.ts.plus_nanos(5));
                }
                told => prop_assert_eq!(told, Some(Told::Words(seen))),
            }
            let is_whole = damage.is_empty() && cut == usize::MAX && link == LinkType::ETHERNET;
            if is_whole && !is_tagged && !is_v6 {
                prop_assert!(matches!(told, Some(Told::All(..))));
            }
            if let Some(words) = seen {
                prop_assert_eq!(Some(words), decoded(&frame));
            }
            // Nothing is left that is whole.
            if is_whole {
                prop_assert!(seen.is_some());
            }
        }
    }
}
