//! The Community ID of a flow, version 1: one text that every tool computes alike, so that records of
//! several tools can be joined (the specification is at `corelight/community-id-spec`).
//!
//! Contract: pure, no allocation; SHA-1 over at most 40 bytes on the stack: one block, whose padding is put here, because
//! what takes text of any length costs as much as the sum itself. The processor's own SHA-1 is used where it has one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::block_api::compress;

use crate::net::{Addr, IpProto, IpVersion};

/// Length of a Community ID: `1:` and 20 bytes in base64.
pub const TEXT_LEN: usize = 30;

/// Where a packet of the flow goes from and to. For ICMP the ports are type and code of a packet that
/// the source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, or the ICMP type.
    pub src_port: u16,
    /// Destination port, or the ICMP code.
    pub dst_port: u16,
    /// IP protocol.
    pub proto: IpProto,
    /// IP version.
    pub version: IpVersion,
}

/// The Community ID as text.
pub fn text(endpoints: &Endpoints, seed: u16) -> [u8; TEXT_LEN] {
    let (mut block, mut text) = (Block::default(), [0; TEXT_LEN]);
    block.set(endpoints, seed);
    block.sum().put(&mut text);
    text
}

/// The bytes behind the text.
pub fn digest(endpoints: &Endpoints, seed: u16) -> [u8; 20] {
    let mut block = Block::default();
    block.set(endpoints, seed);
    block.sum().bytes()
}

/// What SHA-1 begins with (FIPS 180-4 section 5.3.1).
const SHA1_BEGIN: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// Bytes of a block of SHA-1.
const BLOCK: usize = 64;

/// What SHA-1 is taken of. Set well before its [sum](Self::sum) is taken, and where it stays, it is read without waiting for what was
/// written to memory in between.
#[derive(Clone, Debug)]
pub(super) struct Block([u8; BLOCK]);

impl Default for Block {
    fn default() -> Self {
        Self([0; BLOCK])
    }
}

impl Block {
    /// Of a block that was not set before.
    pub(super) fn set(&mut self, endpoints: &Endpoints, seed: u16) {
        let Self(block) = self;
        let Endpoints { src, dst, src_port, dst_port, proto, version } = *endpoints;
        let (dst_port, one_way) = match counterpart(proto, src_port) {
            Some(type_back) => (type_back, false),
            None => (dst_port, matches!(proto, IpProto::ICMP | IpProto::ICMPV6)),
        };
        let is_first = match version {
            IpVersion::V4 => (src.v4_bits(), src_port) < (dst.v4_bits(), dst_port),
            IpVersion::V6 => (src, src_port) < (dst, dst_port),
        };
        let (src, dst, src_port, dst_port) = if one_way || is_first {
            (src, dst, src_port, dst_port)
        } else {
            (dst, src, dst_port, src_port)
        };
        block[..2].copy_from_slice(&seed.to_be_bytes());
        let mut len = match version {
            IpVersion::V4 => {
                block[2..6].copy_from_slice(&src.v4_bits().to_be_bytes());
                block[6..10].copy_from_slice(&dst.v4_bits().to_be_bytes());
                10
            }
            IpVersion::V6 => {
                block[2..18].copy_from_slice(&src.0);
                block[18..34].copy_from_slice(&dst.0);
                34
            }
        };
        // A byte of zero follows the protocol.
        block[len] = proto.0;
        len += 2;
        if has_ports(proto) {
            block[len..len + 2].copy_from_slice(&src_port.to_be_bytes());
            block[len + 2..len + 4].copy_from_slice(&dst_port.to_be_bytes());
            len += 4;
        }
        // A bit that is set, zeros, the length in bits: section 5.1.1.
        block[len] = 0x80;
        block[BLOCK - 2..].copy_from_slice(&(8 * len as u16).to_be_bytes());
    }

    /// Takes long and has nothing to wait for: what is done next is done meanwhile, unless it is to [put](Sum::put) the sum.
    #[inline]
    pub(super) fn sum(&self) -> Sum {
        let mut state = SHA1_BEGIN;
        compress(&mut state, std::slice::from_ref(&self.0));
        Sum(state)
    }
}

/// The sum of a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum([u32; 5]);

impl Sum {
    #[inline]
    fn bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Puts the Community ID as text.
    #[inline]
    pub(super) fn put(self, text: &mut [u8; TEXT_LEN]) {
        text[..2].copy_from_slice(b"1:");
        // 20 bytes are always 28 characters.
        let _ = STANDARD.encode_slice(self.bytes(), &mut text[2..]);
    }
}

/// The protocols whose ports (or types) are part of the identifier. DCCP and UDP-Lite are not.
fn has_ports(proto: IpProto) -> bool {
    matches!(proto, IpProto::TCP | IpProto::UDP | IpProto::SCTP | IpProto::ICMP | IpProto::ICMPV6)
}

/// The type that answers an ICMP type, or that it answers; `None` for messages that go one way.
fn counterpart(proto: IpProto, ty: u16) -> Option<u16> {
    const V4: [(u16, u16); 5] = [(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)];
    const V6: [(u16, u16); 6] =
        [(128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)];
    let pairs: &[(u16, u16)] = match proto {
        IpProto::ICMP => &V4,
        IpProto::ICMPV6 => &V6,
        _ => return None,
    };
    pairs.iter().find_map(|&(request, reply)| match ty {
        _ if ty == request => Some(reply),
        _ if ty == reply => Some(request),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(proto: IpProto, src: [u8; 4], dst: [u8; 4], src_port: u16, dst_port: u16) -> Endpoints {
        let (src, dst) = (Addr::v4(src), Addr::v4(dst));
        Endpoints { src, dst, src_port, dst_port, proto, version: IpVersion::V4 }
    }

    fn id(endpoints: &Endpoints) -> String {
        String::from_utf8(text(endpoints, 0).to_vec()).unwrap()
    }

    /// Published values of the specification; `tests/replay.rs` checks all of them.
    #[test]
    fn the_specification_s_values_come_out() {
        let icmp = |src, dst, ty, code| id(&v4(IpProto::ICMP, src, dst, ty, code));
        let sctp = |src, dst| id(&v4(IpProto::SCTP, src, dst, 7, 7));
        let (a, b) = ([192, 168, 0, 89], [192, 168, 0, 1]);
        assert_eq!(icmp(a, b, 8, 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        assert_eq!(icmp(b, a, 0, 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        assert_eq!(icmp([10, 0, 0, 1], [10, 0, 0, 2], 11, 0), "1:YHxtAirCG//0OzkcVAukqKQN9xM=");
        let (a, b) = ([192, 168, 170, 8], [192, 168, 170, 56]);
        assert_eq!(sctp(a, b), "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs=");
        assert_eq!(sctp(b, a), "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs=");
    }

    #[test]
    fn both_directions_have_one_id() {
        let there = v4(IpProto::TCP, [10, 0, 0, 1], [10, 0, 0, 2], 40000, 80);
        let back = v4(IpProto::TCP, [10, 0, 0, 2], [10, 0, 0, 1], 80, 40000);
        assert_eq!(id(&there), id(&back));
    }
}
