//! What is measured: traffic, the tracker that it meets, and how long it goes on.

use std::net::IpAddr;

use flowscope::TrackerConfig;
use flowscope::flow::ingest::Ingest;
use flowscope::flow::{ByFiveTuple, FiveTuple, KeyHash};
use flowscope::net::{Addr, IpProto, IpVersion};

use super::traffic::{Chosen, Flood, Fragments, Lives, Pieces, Shape, Steady, Traffic, ends};
use crate::workload::wire::Ends;

/// One point of a curve, or one of the hard cases.
pub struct Case {
    pub traffic: Box<dyn Traffic>,
    /// How many flows the tracker holds.
    pub max_flows: usize,
    /// Between two frames.
    pub gap_ns: u64,
    /// Frames after everything is open, before anything is measured.
    pub settle: usize,
    /// Bytes of the largest frame, which bounds how many are held in memory.
    pub frame_bytes: usize,
    /// The hash has the seed that everybody knows.
    pub known_key: bool,
    /// Which hash.
    pub key_hash: KeyHash,
    /// Every packet's hash is made this one.
    pub hash: Option<u64>,
    /// Streams are reassembled too.
    pub streams: bool,
}

/// A tracker with its default size, for the hard cases.
const TABLE: u32 = 100_000;
/// Flows that share a bucket.
const COLLIDING: usize = 1000;

/// The hard cases, by name.
pub const HARD: [&str; 17] = [
    "normal",
    "normal-sip",
    "flood-udp",
    "flood-syn",
    "thousand-flows",
    "collide-unknown-key",
    "collide-known-key-100",
    "collide-known-key",
    "collide-hash",
    "elephant",
    "one-way",
    "fragments",
    "fragments-reversed",
    "fragments-last-only",
    "tcp-in-order",
    "tcp-out-of-order",
    "flood-udp-1m",
];

const MIX: Shape =
    Shape { flows: TABLE, frame_bytes: 64, tcp_every: 2, replies_of_four: 1, reversed: false };

impl Case {
    fn new(max_flows: u32, traffic: impl Traffic + 'static) -> Self {
        Self {
            traffic: Box::new(traffic),
            max_flows: max_flows as usize,
            gap_ns: 400,
            settle: 0,
            frame_bytes: 64,
            known_key: false,
            key_hash: KeyHash::Fast,
            hash: None,
            streams: false,
        }
    }

    /// So many live flows.
    pub fn flows(flows: u32) -> Self {
        Self::new(flows, Steady::new(Shape { flows, ..MIX }))
    }

    /// Frames of so many bytes, in 10 k flows.
    pub fn size(frame_bytes: usize) -> Self {
        let shape = Shape { flows: 10_000, frame_bytes, ..MIX };
        Self { frame_bytes, ..Self::new(shape.flows, Steady::new(shape)) }
    }

    /// Connections of so many packets, at 100 k packets a second: what is over stays for some seconds, and by then as much
    /// goes as comes.
    pub fn opens(packets: u32) -> Self {
        let settle = 1_200_000;
        Self { gap_ns: 10_000, settle, ..Self::new(1_500_000, Lives::new(packets)) }
    }

    /// One of [`HARD`]. `table` is what a flood fills, `colliding` how many keys meet.
    pub fn hard(name: &str, scale: f64) -> Option<Self> {
        let scaled = |count: u32| ((f64::from(count) * scale) as u32).max(1);
        let table = scaled(TABLE);
        let mix = Shape { flows: table, ..MIX };
        let tcp = Shape { tcp_every: 1, replies_of_four: 0, flows: scaled(1000), ..mix };
        let flood = |tcp, open| Self::new(open, Flood { tcp, open, sent: 0 });
        let fragments = |pieces| {
            // The datagrams' table is full when nothing waits any more for a place in it.
            let traffic = Fragments { pieces, sent: 0, open: 5000 };
            Self { frame_bytes: 74, ..Self::new(TABLE, traffic) }
        };
        let colliding = ((COLLIDING as f64 * scale) as usize).max(10);
        let collide = |count: usize| Self::new(table, Chosen::new(colliding_ends(table, count)));
        Some(match name {
            "normal" => Self::new(table, Steady::new(mix)),
            "normal-sip" => Self { key_hash: KeyHash::Sip, ..Self::new(table, Steady::new(mix)) },
            "flood-udp" => flood(false, table),
            "flood-udp-1m" => flood(false, scaled(1_000_000)),
            "flood-syn" => flood(true, table),
            "thousand-flows" => {
                Self::new(table, Chosen::new((0..colliding as u32).map(ends).collect()))
            }
            "collide-unknown-key" => collide(colliding),
            "collide-known-key" => Self { known_key: true, ..collide(colliding) },
            "collide-known-key-100" => Self { known_key: true, ..collide((colliding / 10).max(2)) },
            "collide-hash" => {
                let chosen = Chosen::new((0..colliding as u32).map(ends).collect());
                Self { hash: Some(0x1234_5678_9abc_def0), ..Self::new(table, chosen) }
            }
            "elephant" => Self::new(table, Steady::new(Shape { flows: 1, tcp_every: 1, ..mix })),
            "one-way" => Self::new(table, Steady::new(Shape { replies_of_four: 0, ..mix })),
            "fragments" => fragments(Pieces::InOrder),
            "fragments-reversed" => fragments(Pieces::Reversed),
            "fragments-last-only" => fragments(Pieces::LastOnly),
            "tcp-in-order" => Self { streams: true, ..Self::new(table, Steady::new(tcp)) },
            "tcp-out-of-order" => {
                let shape = Shape { reversed: true, ..tcp };
                Self { streams: true, ..Self::new(table, Steady::new(shape)) }
            }
            _ => return None,
        })
    }
}

/// Ends of flows whose keys begin their search at the same bucket of a table for `table` flows, under the seed that everybody
/// knows. What an attacker can find out who knows the key; with any other key they are flows like others.
fn colliding_ends(table: u32, count: usize) -> Vec<Ends> {
    let ingest = {
        let mut ingest = Ingest::new(ByFiveTuple::default(), &TrackerConfig::default());
        ingest.set_fixed_seed();
        ingest
    };
    // As many buckets as the table makes, which looks at the low bits of the upper half of a hash.
    let buckets = (table + table / 2).next_power_of_two();
    let chosen = |ends: &Ends| {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (ends.src, ends.dst) else { return false };
        let tuple = FiveTuple {
            src: Addr::v4(src.octets()),
            dst: Addr::v4(dst.octets()),
            src_port: ends.src_port,
            dst_port: ends.dst_port,
            proto: IpProto(17),
            version: IpVersion::V4,
            scope: Default::default(),
        };
        let tag = (ingest.hash(&tuple.canonical().0) >> 32) as u32;
        tag & (buckets - 1) == 7
    };
    let candidates = (0..u32::MAX).map(|number| {
        let [a, b, c, d] = number.to_be_bytes();
        Ends {
            src: IpAddr::from([10, a, b, c]),
            dst: IpAddr::from([172, 16, 0, 1]),
            src_port: 1024 + u16::from(d),
            dst_port: 53,
        }
    });
    candidates.filter(chosen).take(count).collect()
}
