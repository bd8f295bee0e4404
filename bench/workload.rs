//! The three workloads: frames made up from a fixed seed, and what is known of them beforehand.
//!
//! | | frames | flows | what |
//! |---|---|---|---|
//! | A | 2 M of 64 bytes | 10 k | UDP, 200 packets a flow in random order |
//! | B | 4 M of 64 bytes | 1 M | UDP and TCP by halves, 4 packets a flow in random order |
//! | C | about 3.3 M, 1.16 GB | 100 k | TCP conversations, IMIX sizes, with loss and reordering |
//!
//! Contract: the same workload and scale give the same bytes on every machine. Flows of A and B have
//! one direction, so that tools with an entry for each direction have as many as those with one for
//! both. No flow is silent long enough for an idle timeout: summed by key, records must equal
//! [`Truth`] to the byte. Lengths are captured lengths: 64 bytes means 64 bytes in the file.

pub mod conversation;
pub mod rng;
pub mod steady;
pub mod wire;

use std::net::IpAddr;

/// Time of the first frame: 2026-01-01 00:00:00 UTC.
pub const START_NS: u64 = 1_767_225_600_000_000_000;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Few flows, many packets each: what a packet costs.
    A,
    /// Many flows, few packets each: what a flow costs, and a cache miss.
    B,
    /// TCP as it comes: what connections, loss and payload cost.
    C,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// Its letter.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// By its letter, in either case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|w| w.name().eq_ignore_ascii_case(name))
    }

    /// Makes the frames in order of time and hands each to `emit`; `scale` shrinks flows and frames
    /// alike (1.0 is the workload, 0.001 is for tests).
    pub fn generate(self, scale: f64, emit: &mut dyn FnMut(u64, &[u8])) -> Truth {
        match self {
            Self::A => steady::generate(&steady::A, scale, emit),
            Self::B => steady::generate(&steady::B, scale, emit),
            Self::C => conversation::generate(scale, emit),
        }
    }
}

/// What a sensor must find.
#[derive(Debug, Default)]
pub struct Truth {
    /// Every flow, in the order of its number.
    pub flows: Vec<FlowTruth>,
}

/// One flow, seen from who opens it.
#[derive(Clone, Copy, Debug)]
pub struct FlowTruth {
    /// Ends; the initiator is the source.
    pub ends: wire::Ends,
    /// IP protocol.
    pub proto: u8,
    /// By side, initiator first.
    pub sides: [SideTruth; 2],
}

/// One side of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct SideTruth {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// TCP data segments that were seen whole before.
    pub retransmitted: u64,
    /// TCP data segments with new bytes, seen after later ones.
    pub out_of_order: u64,
    /// Bytes of the TCP stream.
    pub stream_bytes: u64,
}

impl Truth {
    /// Both sides of all flows, by side.
    pub fn totals(&self) -> [SideTruth; 2] {
        let mut totals = [SideTruth::default(); 2];
        for flow in &self.flows {
            for (total, side) in totals.iter_mut().zip(&flow.sides) {
                total.packets += side.packets;
                total.bytes += side.bytes;
                total.retransmitted += side.retransmitted;
                total.out_of_order += side.out_of_order;
                total.stream_bytes += side.stream_bytes;
            }
        }
        totals
    }
}

/// A workload held in memory, for measuring without a file.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The bytes of all frames.
    pub bytes: Vec<u8>,
    /// Of each frame: its time, and where it ends in `bytes`.
    pub frames: Vec<(u64, usize)>,
    /// What is known of it.
    pub truth: Truth,
}

impl Loaded {
    /// Makes it.
    pub fn new(workload: Workload, scale: f64) -> Self {
        let mut loaded = Self::default();
        let (bytes, frames) = (&mut loaded.bytes, &mut loaded.frames);
        loaded.truth = workload.generate(scale, &mut |ts_ns, frame| {
            bytes.extend_from_slice(frame);
            frames.push((ts_ns, bytes.len()));
        });
        loaded
    }

    /// Adds a frame.
    pub fn push(&mut self, ts_ns: u64, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.frames.push((ts_ns, self.bytes.len()));
    }

    /// Time and bytes of each frame.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut start = 0;
        self.frames.iter().map(move |&(ts_ns, end)| {
            let frame = &self.bytes[start..end];
            start = end;
            (ts_ns, frame)
        })
    }
}

/// `count` shrunk by `scale`, at least 1.
fn scaled(count: u32, scale: f64) -> u32 {
    ((f64::from(count) * scale) as u32).max(1)
}

/// The protocol numbers in use.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;

/// The IPv4 address with this first byte and the rest from a number below 2^24.
fn v4(first: u8, number: u32) -> IpAddr {
    let [_, b, c, d] = number.to_be_bytes();
    IpAddr::from([first, b, c, d])
}
