//! Which worker a flow belongs to: receive-side scaling as a NIC does it.
//!
//! Contract: the Toeplitz hash over source address, destination address, source port, destination
//! port, in network byte order, with a key of a repeating 16-bit pattern, so that both directions of a
//! flow have the same hash; then an indirection table of 128 entries. Pure, and the same in every
//! process: the NIC and the XDP program compute it too.

use crate::flow::FlowKey;
use crate::net::IpProto;

/// Bytes of a key: enough for two IPv6 addresses and two ports (36) and the window over them.
pub const KEY_LEN: usize = 40;

/// A key under which both directions of a flow hash alike: shifted by 16 bits it is itself.
pub const SYMMETRIC_KEY: [u8; KEY_LEN] = {
    let mut key = [0x6d; KEY_LEN];
    let mut index = 1;
    while index < KEY_LEN {
        key[index] = 0x5a;
        index += 2;
    }
    key
};

/// The same for a NIC whose key has another length.
pub fn symmetric_key(bytes: usize) -> Vec<u8> {
    SYMMETRIC_KEY.iter().copied().cycle().take(bytes).collect()
}

/// Entries of the indirection table.
pub const TABLE_LEN: usize = 128;

/// Longest input: two IPv6 addresses and two ports.
const INPUT_MAX: usize = 36;

/// The Toeplitz hash of a key, by one table of 256 words for each input byte.
#[derive(Debug)]
pub struct Toeplitz {
    by_byte: Box<[[u32; 256]; INPUT_MAX]>,
}

impl Toeplitz {
    /// Builds the tables (36 KiB).
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        let mut by_byte = Box::new([[0u32; 256]; INPUT_MAX]);
        for (position, table) in by_byte.iter_mut().enumerate() {
            // The 40 bits of the key that the 8 windows of this byte cover.
            let window = key[position..].iter().take(5).fold(0u64, |w, &b| w << 8 | u64::from(b));
            for (byte, word) in table.iter_mut().enumerate() {
                for bit in 0..8 {
                    if byte >> (7 - bit) & 1 == 1 {
                        *word ^= (window >> (8 - bit)) as u32;
                    }
                }
            }
        }
        Self { by_byte }
    }

    /// The hash of `input`; bytes past the longest input are not looked at.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        self.by_byte
            .iter()
            .zip(input)
            .fold(0, |hash, (table, &byte)| hash ^ table[usize::from(byte)])
    }
}

/// Flow keys → workers.
///
/// Toeplitz is linear, and under a key that repeats every 16 bits the place of a 16-bit word does not matter: the hash is that
/// of all words of addresses and ports, added without carry. `bpf/rss.h` computes the same.
#[derive(Clone, Debug)]
pub struct Steering {
    by_byte: Box<[[u32; 256]; 2]>,
    table: [u8; TABLE_LEN],
}

impl Steering {
    /// Most workers that the table can name.
    pub const WORKERS_MAX: usize = TABLE_LEN;

    /// Spreads over `workers`, 1 to [`WORKERS_MAX`](Self::WORKERS_MAX), round robin as drivers do by
    /// default.
    pub fn new(workers: usize) -> Self {
        assert!((1..=Self::WORKERS_MAX).contains(&workers), "{workers} workers: 1 to 128");
        let mut table = [0; TABLE_LEN];
        for (index, entry) in table.iter_mut().enumerate() {
            *entry = (index % workers) as u8;
        }
        let [high, low, ..] = *Toeplitz::new(&SYMMETRIC_KEY).by_byte;
        Self { by_byte: Box::new([high, low]), table }
    }

    /// The hash of a flow.
    ///
    /// The ports count for TCP, UDP and SCTP; every other protocol is spread by its addresses.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u32 {
        let has_ports = matches!(key.proto(), IpProto::TCP | IpProto::UDP | IpProto::SCTP);
        let ports = if has_ports { key.port_a() ^ key.port_b() } else { 0 };
        // What stands before an IPv4 address is the same on both sides, and goes.
        let addresses = u128::from_be_bytes(key.a().0) ^ u128::from_be_bytes(key.b().0);
        let folded = (addresses >> 64) as u64 ^ addresses as u64;
        let folded = (folded >> 32) as u32 ^ folded as u32;
        self.hash_of_words((folded >> 16) as u16 ^ folded as u16 ^ ports)
    }

    /// The worker of a flow.
    #[inline]
    pub fn worker(&self, key: &FlowKey) -> usize {
        usize::from(self.table[self.hash(key) as usize % TABLE_LEN])
    }

    /// The worker of a flow by the 16-bit words of its addresses and ports, added without carry.
    #[inline(always)]
    pub fn worker_by_words(&self, words: u16) -> usize {
        usize::from(self.table[self.hash_of_words(words) as usize % TABLE_LEN])
    }

    #[inline(always)]
    fn hash_of_words(&self, words: u16) -> u32 {
        let [high, low] = words.to_be_bytes();
        self.by_byte[0][usize::from(high)] ^ self.by_byte[1][usize::from(low)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FiveTuple;
    use crate::net::{Addr, IpVersion};
    use proptest::prelude::*;
    use std::net::{IpAddr, SocketAddr};

    /// The key of the published verification suite.
    const SUITE_KEY: [u8; KEY_LEN] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn input(src: &str, dst: &str, ports: bool) -> Vec<u8> {
        let ends: [SocketAddr; 2] = [src.parse().unwrap(), dst.parse().unwrap()];
        let mut input = Vec::new();
        for end in ends {
            match end.ip() {
                IpAddr::V4(ip) => input.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => input.extend_from_slice(&ip.octets()),
            }
        }
        if ports {
            ends.iter().for_each(|end| input.extend_from_slice(&end.port().to_be_bytes()));
        }
        input
    }

    #[test]
    fn the_published_verification_suite_comes_out() {
        let suite = [
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x323e_8fc2, 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xd718_262a, 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0_a5de, 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0x8298_9176, 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x5d18_09c5, 0x10e8_28a2),
            ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc1_8cd5, 0x4020_7d3d),
            ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c_461c, 0xdde5_1bbf),
            (
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                "[fe80::200:f8ff:fe21:67cf]:38024",
                0x4b61_e985,
                0x02d1_feef,
            ),
        ];
        let toeplitz = Toeplitz::new(&SUITE_KEY);
        for (src, dst, addresses, with_ports) in suite {
            assert_eq!(toeplitz.hash(&input(src, dst, false)), addresses, "{src} {dst}");
            assert_eq!(toeplitz.hash(&input(src, dst, true)), with_ports, "{src} {dst}");
        }
    }

    #[test]
    fn every_worker_has_its_share_of_the_table() {
        for workers in [1, 2, 3, 4, 128] {
            let steering = Steering::new(workers);
            for worker in 0..workers {
                let share = steering.table.iter().filter(|&&w| usize::from(w) == worker).count();
                assert!(share >= TABLE_LEN / workers, "worker {worker} of {workers}: {share}");
            }
        }
    }

    #[test]
    fn every_worker_gets_some_of_a_thousand_flows() {
        for workers in [1, 2, 3, 4, 16] {
            let steering = Steering::new(workers);
            let mut flows = vec![0u32; workers];
            for port in 1024..2024 {
                let tuple = FiveTuple {
                    src: Addr::v4([192, 0, 2, 1]),
                    dst: Addr::v4([198, 51, 100, 7]),
                    src_port: port,
                    dst_port: 443,
                    proto: IpProto::TCP,
                    version: IpVersion::V4,
                    scope: Default::default(),
                };
                flows[steering.worker(&tuple.canonical().0)] += 1;
            }
            let fair = 1_000 / workers as u32;
            assert!(flows.iter().all(|&n| n > fair / 2 && n < fair * 2), "{workers}: {flows:?}");
        }
    }

    proptest! {
        #[test]
        fn both_directions_of_a_tuple_go_to_one_worker(
            src in any::<[u8; 16]>(), dst in any::<[u8; 16]>(), src_port in any::<u16>(),
            dst_port in any::<u16>(), v4 in any::<bool>(), workers in 1..=Steering::WORKERS_MAX,
            proto in prop::sample::select(vec![1u8, 6, 17, 33, 47, 50, 58, 132, 136]),
        ) {
            let version = if v4 { IpVersion::V4 } else { IpVersion::V6 };
            let addr = |b: [u8; 16]| if v4 { Addr::v4([b[0], b[1], b[2], b[3]]) } else { Addr(b) };
            let proto = IpProto(proto);
            let there = FiveTuple {
                src: addr(src), dst: addr(dst), src_port, dst_port,
                proto, version, scope: Default::default(),
            };
            // What stands for ports in ICMP stays in its place.
            let icmp = matches!(proto, IpProto::ICMP | IpProto::ICMPV6);
            let (src_port, dst_port) =
                if icmp { (src_port, dst_port) } else { (dst_port, src_port) };
            let back = FiveTuple { src: there.dst, dst: there.src, src_port, dst_port, ..there };
            let steering = Steering::new(workers);
            let worker = steering.worker(&there.canonical().0);
            prop_assert!(worker < workers);
            prop_assert_eq!(worker, steering.worker(&back.canonical().0));
        }

        /// What a NIC computes from either direction's header is what we compute from the key.
        #[test]
        fn both_directions_hash_as_the_key_does(
            src in any::<[u8; 16]>(), dst in any::<[u8; 16]>(),
            src_port in any::<u16>(), dst_port in any::<u16>(), v4 in any::<bool>(),
        ) {
            let version = if v4 { IpVersion::V4 } else { IpVersion::V6 };
            let addr = |b: [u8; 16]| if v4 { Addr::v4([b[0], b[1], b[2], b[3]]) } else { Addr(b) };
            let there = FiveTuple {
                src: addr(src), dst: addr(dst), src_port, dst_port,
                proto: IpProto::TCP, version, scope: Default::default(),
            };
            let (steering, toeplitz) = (Steering::new(4), Toeplitz::new(&SYMMETRIC_KEY));
            let (key, _) = there.canonical();
            for (t, u) in [(there.src, there.dst), (there.dst, there.src)] {
                let (p, q) = if t == there.src { (src_port, dst_port) } else { (dst_port, src_port) };
                let skip = if v4 { 12 } else { 0 };
                let mut input = t.0[skip..].to_vec();
                input.extend_from_slice(&u.0[skip..]);
                input.extend_from_slice(&p.to_be_bytes());
                input.extend_from_slice(&q.to_be_bytes());
                prop_assert_eq!(toeplitz.hash(&input), steering.hash(&key));
            }
        }
    }
}
