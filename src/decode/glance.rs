//! Between whom a frame goes, seen at a glance: for who decides by that alone whether to decode it.
//!
//! Contract: what is said of a frame is what decoding says. A frame of which anything is out of the common, or which was cut within the first
//! bytes above IP, is left: nothing is said of it.

use super::plain::{
    ETHER_TYPE_TAG, ETHER_TYPE_V4, ETHER_TYPE_V6, ETHERNET_BYTES, TAG_BYTES, TCP_BYTES_MIN,
    UDP_BYTES, V4_BYTES, V4_FRAGMENT, V4_NO_OPTIONS, V6_BYTES,
};
use crate::frame::{Frame, LinkType};
use crate::net::IpProto;

/// As much as is looked at above IP: to the data offset of TCP (RFC 9293 section 3.1).
const ABOVE_BYTES: usize = 13;

/// The 16-bit words of addresses and ports, added without carry: all that a symmetric hash under a key that repeats every 16 bits
/// takes of a 5-tuple. `None` for a frame that is to be decoded.
#[inline(always)]
pub(crate) fn words(frame: &Frame<'_>) -> Option<u16> {
    let (&[.., t0, t1], mut rest) = frame.data.split_first_chunk::<ETHERNET_BYTES>()?;
    let mut ether_type = u16::from_be_bytes([t0, t1]);
    if ether_type == ETHER_TYPE_TAG {
        let (&[.., t0, t1], inner) = rest.split_first_chunk::<TAG_BYTES>()?;
        (ether_type, rest) = (u16::from_be_bytes([t0, t1]), inner);
    }
    match ether_type {
        _ if frame.link != LinkType::ETHERNET => None,
        ETHER_TYPE_V4 => v4(rest),
        ETHER_TYPE_V6 => v6(rest),
        _ => None,
    }
}

#[inline(always)]
fn v4(bytes: &[u8]) -> Option<u16> {
    let (header, rest) = bytes.split_first_chunk::<V4_BYTES>()?;
    let [first, _, l0, l1, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let length = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(V4_BYTES)?;
    let above = Above::new(IpProto(proto), rest, length)?;
    let is_plain = (first == V4_NO_OPTIONS) & (u16::from_be_bytes([f0, f1]) & V4_FRAGMENT == 0);
    let addresses = u32::from_ne_bytes([s0, s1, s2, s3]) ^ u32::from_ne_bytes([d0, d1, d2, d3]);
    (is_plain & above.is_plain).then(|| folded(addresses ^ above.ports))
}

#[inline(always)]
fn v6(bytes: &[u8]) -> Option<u16> {
    let (header, rest) = bytes.split_first_chunk::<V6_BYTES>()?;
    let [first, _, _, _, l0, l1, next, _, addresses @ ..] = *header;
    let above = Above::new(IpProto(next), rest, usize::from(u16::from_be_bytes([l0, l1])))?;
    let addresses = addresses.as_chunks::<4>().0.iter();
    let words = addresses.fold(above.ports, |words, bytes| words ^ u32::from_ne_bytes(*bytes));
    ((first >> 4 == 6) & above.is_plain).then(|| folded(words))
}

/// What is above IP.
struct Above {
    /// Both, in the order of memory.
    ports: u32,
    is_plain: bool,
}

impl Above {
    /// `rest` was captured, `length` is told. Without a branch for the protocol, which would be guessed wrongly where both are common.
    #[inline(always)]
    fn new(proto: IpProto, rest: &[u8], length: usize) -> Option<Self> {
        let &[p0, p1, p2, p3, l0, l1, .., words] = rest.first_chunk::<ABOVE_BYTES>()?;
        let captured = rest.len().min(length);
        let tcp_bytes = usize::from(words >> 4) * 4;
        let is_tcp =
            (proto == IpProto::TCP) & (tcp_bytes >= TCP_BYTES_MIN) & (tcp_bytes <= captured);
        let is_udp = (proto == IpProto::UDP)
            & (UDP_BYTES <= captured)
            & (usize::from(u16::from_be_bytes([l0, l1])) == length);
        Some(Self { ports: u32::from_ne_bytes([p0, p1, p2, p3]), is_plain: is_tcp | is_udp })
    }
}

/// Both halves of what was added in the order of memory.
#[inline(always)]
fn folded(words: u32) -> u16 {
    u16::from_be((words >> 16) as u16 ^ words as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::{Transport, decode};
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
            // Nothing is left that is whole, but for what is shorter than a look.
            if damage.is_empty() && cut == usize::MAX && link == LinkType::ETHERNET && (is_tcp || more.len() >= 5) {
                prop_assert!(seen.is_some());
            }
        }
    }
}
