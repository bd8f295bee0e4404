//! The stages that benches measure one by one, on frames in memory.
//!
//! Measured work is done in functions named `measured_…` and nowhere else, for callgrind collects in those.

use std::hint::black_box;

use flowscope::decode::decode;
use flowscope::flow::ingest::Ingest;
use flowscope::flow::{ByFiveTuple, FlowId, FlowKey, Packet};
use flowscope::net::Side;
use flowscope::reassembly::StreamSink;
use flowscope::{FlowDriver, FlowEvent, FlowTracker, Frame, LinkType, Timestamp, TrackerConfig};

use super::workload::Loaded;

/// Frames a batch, as the replay loop has them.
pub const BATCH: usize = 128;

/// Frames of what is in memory.
pub fn frames(loaded: &Loaded) -> Vec<Frame<'_>> {
    loaded.iter().map(|(ts_ns, data)| frame_of(ts_ns, data)).collect()
}

/// A whole Ethernet frame.
pub fn frame_of(ts_ns: u64, data: &[u8]) -> Frame<'_> {
    Frame {
        ts: Timestamp::from_nanos(ts_ns),
        wire_len: data.len() as u32,
        link: LinkType::ETHERNET,
        interface: 0,
        data,
    }
}

/// As a tracker of that configuration has it.
pub fn ingest(config: &TrackerConfig) -> Ingest<ByFiveTuple> {
    Ingest::new(ByFiveTuple::default(), config)
}

/// Bytes to layers.
#[inline(never)]
pub fn measured_decode(frames: &[Frame<'_>]) {
    for frame in frames {
        // Looked at where they are: a copy in words wider than they were written in would have to wait for them.
        black_box(&decode(frame));
    }
}

/// Bytes to packets: decoding, key, hash.
#[inline(never)]
pub fn measured_ingest(
    ingest: &mut Ingest<ByFiveTuple>,
    frames: &[Frame<'_>],
    packets: &mut Vec<Packet<FlowKey>>,
) {
    for batch in frames.chunks(BATCH) {
        packets.clear();
        ingest.batch(batch, packets);
        black_box(&*packets);
    }
}

/// Packets to flows: table, timers, TCP, statistics, events.
#[inline(never)]
pub fn measured_tracker(
    tracker: &mut FlowTracker<ByFiveTuple>,
    packets: &[Packet<FlowKey>],
    events: &mut u64,
) {
    track(tracker, packets, events);
}

/// The same where nothing is measured.
#[inline(always)]
pub fn track(
    tracker: &mut FlowTracker<ByFiveTuple>,
    packets: &[Packet<FlowKey>],
    events: &mut u64,
) {
    for batch in packets.chunks(BATCH) {
        tracker.process_packets(batch, &mut |_: FlowEvent<FlowKey>| *events += 1);
    }
}

/// Bytes to flows and byte streams.
#[inline(never)]
pub fn measured_driver(
    driver: &mut FlowDriver<ByFiveTuple>,
    frames: &[Frame<'_>],
    streams: &mut Streams,
) {
    for batch in frames.chunks(BATCH) {
        driver.process(batch, streams, &mut |_: FlowEvent<FlowKey>| {});
    }
}

/// Takes the streams and counts them.
#[derive(Debug, Default)]
pub struct Streams {
    /// In order.
    pub bytes: u64,
    /// Missing.
    pub gap_bytes: u64,
}

impl StreamSink<FlowKey> for Streams {
    fn data(&mut self, _: &FlowKey, _: FlowId, _: Side, _: u64, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        black_box(bytes);
    }

    fn gap(&mut self, _: &FlowKey, _: FlowId, _: Side, _: u64, len: u64) {
        self.gap_bytes += len;
    }
}
