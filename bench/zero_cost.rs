//! A fixed workload for `bench/zero-cost.sh`, which counts the instructions of `measured`.
//!
//! It takes every way that calls a hook: flows that begin, go on, close, are reset, go idle, are
//! evicted and are drained, and frames without a key. No clock, no file, no random number.

use flowscope::flow::ByFiveTuple;
use flowscope::{FlowEvent, FlowTracker, Frame, LinkType, Timestamp, TrackerConfig};

const ROUNDS: u32 = 40;
const UDP_FLOWS: u32 = 4_000;
const TCP_FLOWS: u32 = 200;

struct Workload {
    bytes: Vec<u8>,
    /// Where each frame's bytes are, and its time.
    frames: Vec<(std::ops::Range<usize>, Timestamp)>,
}

impl Workload {
    fn push(&mut self, frame: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        let ts =
            Timestamp::from_nanos(1_700_000_000_000_000_000 + self.frames.len() as u64 * 50_000);
        self.frames.push((start..self.bytes.len(), ts));
    }

    fn new() -> Self {
        let mut workload = Self { bytes: Vec::new(), frames: Vec::new() };
        for round in 0..ROUNDS {
            for flow in 0..UDP_FLOWS {
                // Half of them are new every round and go idle; in some rounds all are, and there
                // is no room for so many.
                let stays = flow & 1 == 0 && round & 3 != 3;
                let id = if stays { flow } else { flow + (round + 1) * UDP_FLOWS };
                workload.push(&ipv4(17, id, flow & 2 == 0, &[0, 9, 0, 0]));
            }
            for flow in 0..TCP_FLOWS {
                let id = 0x80_0000 + flow + round * TCP_FLOWS;
                let last = if flow & 7 == 0 { RST | ACK } else { FIN | ACK };
                workload.push(&tcp(id, true, 100, 0, SYN));
                workload.push(&tcp(id, false, 500, 101, SYN | ACK));
                workload.push(&tcp(id, true, 101, 501, ACK));
                workload.push(&tcp(id, false, 501, 101, last));
                workload.push(&tcp(id, true, 101, 502, last));
                workload.push(&tcp(id, false, 502, 102, ACK));
            }
            workload.push(&[0xff; 64]);
        }
        workload
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn tcp(id: u32, forth: bool, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut rest = Vec::with_capacity(16);
    rest.extend_from_slice(&seq.to_be_bytes());
    rest.extend_from_slice(&ack.to_be_bytes());
    rest.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ipv4(6, id, forth, &rest)
}

/// An Ethernet frame between two hosts that `id` names; `rest` is the transport header after its
/// ports.
fn ipv4(proto: u8, id: u32, forth: bool, rest: &[u8]) -> Vec<u8> {
    let [_, x, y, z] = id.to_be_bytes();
    let (client, server) = ([10, x, y, z], [192, 0, 2, 1]);
    let (src, dst) = if forth { (client, server) } else { (server, client) };
    let (from, to) = if forth { (40_000u16, 53u16) } else { (53, 40_000) };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let total = (20 + 4 + rest.len()) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, proto, 0, 0]);
    frame.extend_from_slice(&src);
    frame.extend_from_slice(&dst);
    frame.extend_from_slice(&from.to_be_bytes());
    frame.extend_from_slice(&to.to_be_bytes());
    frame.extend_from_slice(rest);
    frame
}

/// Everything that is compared: tracking and draining, nothing of the set-up.
#[inline(never)]
fn measured(
    tracker: &mut FlowTracker<ByFiveTuple>,
    frames: &[Frame<'_>],
    sink: &mut impl FnMut(FlowEvent<flowscope::flow::FlowKey>),
) {
    for batch in frames.chunks(256) {
        tracker.process(batch, sink);
    }
    tracker.drain(sink);
}

/// Never called, but the compiler must not know that: it would find that nobody ever listens, and
/// remove the check that is to be counted.
#[cfg(feature = "tracing")]
fn listen() {
    let nobody = tracing::subscriber::NoSubscriber::default();
    let _ = tracing::subscriber::set_global_default(nobody);
}

#[cfg(not(feature = "tracing"))]
fn listen() {}

fn main() {
    if std::env::args().len() > 1 {
        listen();
    }
    let workload = Workload::new();
    let frames: Vec<Frame<'_>> = workload
        .frames
        .iter()
        .map(|(range, ts)| Frame {
            ts: *ts,
            wire_len: range.len() as u32,
            link: LinkType::ETHERNET,
            interface: 0,
            data: &workload.bytes[range.clone()],
        })
        .collect();
    let mut config = TrackerConfig { max_flows: 5_500, ..TrackerConfig::default() };
    config.idle.udp = std::time::Duration::from_millis(300);
    config.idle.tcp_closed = std::time::Duration::from_millis(100);
    let tracker = FlowTracker::new(ByFiveTuple::default(), config).expect("a valid configuration");
    let mut tracker = tracker.with_fixed_seed();
    let (mut started, mut ended) = (0u64, 0u64);
    measured(&mut tracker, &frames, &mut |event| match event {
        FlowEvent::Started { .. } => started += 1,
        FlowEvent::Ended { .. } => ended += 1,
        _ => {}
    });
    assert_eq!(started, ended);
    assert!(tracker.ingest_counters().unmatched >= u64::from(ROUNDS));
    println!("frames {} flows {ended} ended {:?}", frames.len(), tracker.counters().ended);
}
