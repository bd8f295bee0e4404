//! Between whom a frame goes, seen at a glance: for who decides by that alone whether to decode it.
//!
//! Contract: what is said of a frame is what decoding says, for it is decoded; but only addresses and ports are looked at, and what is
//! between them and the frame's begin. Of a frame that is no common stack nothing is said.

use super::{Layers, OnLayers, Transport, decode_for, decode_wider};
use crate::frame::Frame;
use crate::net::IpVersion;

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
        Frame { ts: Timestamp::ZERO, wire_len: data.len() as u32, link, interface: 0, data }
    }

    /// A whole frame: tagged or not, either version of IP, either protocol.
    fn common(
        is_tagged: bool,
        is_v6: bool,
        is_tcp: bool,
        addresses: [u8; 32],
        more: &[u8],
    ) -> Vec<u8> {
        let mut above = vec![0x12, 0x34, 0x00, 0x50];
        if is_tcp {
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
            shape in any::<[bool; 3]>(),
            addresses in any::<[u8; 32]>(),
            more in prop::collection::vec(any::<u8>(), 0..40),
            damage in prop::collection::vec((0..70usize, any::<u8>()), 0..3),
            cut in prop_oneof![2 => Just(usize::MAX), 1 => 0..100usize],
            link in prop_oneof![8 => Just(LinkType::ETHERNET), 1 => Just(LinkType::RAW)],
        ) {
            let [is_tagged, is_v6, is_tcp] = shape;
            let mut data = common(is_tagged, is_v6, is_tcp, addresses, &more);
            for &(at, byte) in &damage {
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
            data.truncate(cut);
            let frame = frame(&data, link);
            let seen = words(&frame);
            if let Some(words) = seen {
                prop_assert_eq!(Some(words), decoded(&frame));
            }
            // Nothing is left that is whole.
            if damage.is_empty() && cut == usize::MAX && link == LinkType::ETHERNET {
                prop_assert!(seen.is_some());
            }
        }
    }
}
