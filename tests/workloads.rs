//! The benches' workloads, made small: flows and streams are those that the generator knows, so what
//! is measured is also right.

#[path = "../bench"]
mod bench {
    #[allow(dead_code, reason = "shared with the benches, which use other parts of it")]
    pub mod workload;
}

use std::collections::HashMap;

use bench::workload::{FlowTruth, Loaded, Workload};
use flowscope::flow::{ByFiveTuple, FlowId, FlowKey};
use flowscope::net::Side;
use flowscope::reassembly::{ReassemblyConfig, StreamSink};
use flowscope::{
    FlowDriver, FlowEvent, FlowStats, FlowTracker, Frame, LinkType, Timestamp, TrackerConfig,
};

/// Frames a batch: odd, so that batches do not fall in step with anything.
const BATCH: usize = 251;

fn frames(loaded: &Loaded) -> Vec<Frame<'_>> {
    loaded
        .iter()
        .map(|(ts_ns, data)| Frame {
            ts: Timestamp::from_nanos(ts_ns),
            wire_len: data.len() as u32,
            link: LinkType::ETHERNET,
            interface: 0,
            data,
        })
        .collect()
}

/// Source, destination, protocol, packets and bytes by side.
type Flow = (String, u16, String, u16, u8, [u64; 2], [u64; 2]);

fn known(flow: &FlowTruth) -> Flow {
    let (ends, sides) = (&flow.ends, &flow.sides);
    (
        ends.src.to_string(),
        ends.src_port,
        ends.dst.to_string(),
        ends.dst_port,
        flow.proto,
        sides.map(|side| side.packets),
        sides.map(|side| side.bytes),
    )
}

fn found(key: &FlowKey, stats: &FlowStats) -> Flow {
    let tuple = key.from_end(stats.initiator_end);
    let sides = [stats.initiator, stats.responder];
    (
        tuple.src.to_ip(tuple.version).to_string(),
        tuple.src_port,
        tuple.dst.to_ip(tuple.version).to_string(),
        tuple.dst_port,
        tuple.proto.0,
        sides.map(|side| side.packets),
        sides.map(|side| side.bytes),
    )
}

#[test]
fn every_flow_is_as_it_was_generated() {
    for workload in Workload::ALL {
        let loaded = Loaded::new(workload, 0.003);
        let mut tracker =
            FlowTracker::new(ByFiveTuple::default(), TrackerConfig::default()).expect("defaults");
        let mut flows: Vec<Flow> = Vec::new();
        let mut repeated = 0;
        let mut sink = |event: FlowEvent<FlowKey>| {
            if let FlowEvent::Ended { key, stats, .. } = event {
                repeated +=
                    u64::from(stats.initiator.retransmitted + stats.responder.retransmitted);
                flows.push(found(&key, &stats));
            }
        };
        let frames = frames(&loaded);
        for batch in frames.chunks(BATCH) {
            tracker.process(batch, &mut sink);
            tracker.handle_timeout(batch[batch.len() - 1].ts, &mut sink);
        }
        tracker.drain(&mut sink);
        let mut expected: Vec<Flow> = loaded.truth.flows.iter().map(known).collect();
        expected.sort();
        flows.sort();
        assert_eq!(flows.len(), expected.len(), "flows of {}", workload.name());
        for (flow, expected) in flows.iter().zip(&expected) {
            assert_eq!(flow, expected, "{}", workload.name());
        }
        let known: u64 = loaded.truth.totals().iter().map(|side| side.retransmitted).sum();
        // A SYN sent again is a retransmission to the tracker and none of data to the generator.
        assert!(repeated >= known, "{} of {known} retransmissions", repeated);
    }
}

#[derive(Default)]
struct Streams(HashMap<FlowKey, [u64; 2]>);

impl StreamSink<FlowKey> for Streams {
    fn data(&mut self, key: &FlowKey, _: FlowId, side: Side, offset: u64, bytes: &[u8]) {
        let length = &mut self.0.entry(*key).or_default()[side as usize];
        assert_eq!(*length, offset, "bytes come in order");
        *length += bytes.len() as u64;
    }

    fn gap(&mut self, key: &FlowKey, _: FlowId, _: Side, offset: u64, len: u64) {
        panic!("{len} bytes are missing at {offset} of {key:?}");
    }
}

#[test]
fn every_stream_is_whole() {
    let loaded = Loaded::new(Workload::C, 0.01);
    let key = ByFiveTuple::default();
    let mut driver = FlowDriver::new(key, TrackerConfig::default(), ReassemblyConfig::default())
        .expect("defaults");
    let mut streams = Streams::default();
    let frames = frames(&loaded);
    for batch in frames.chunks(BATCH) {
        driver.process(batch, &mut streams, &mut |_: FlowEvent<FlowKey>| {});
    }
    driver.drain(&mut streams, &mut |_: FlowEvent<FlowKey>| {});
    let mut lengths: Vec<[u64; 2]> = streams.0.into_values().collect();
    let mut expected: Vec<[u64; 2]> = loaded
        .truth
        .flows
        .iter()
        .map(|flow| flow.sides.map(|side| side.stream_bytes))
        .filter(|sides| *sides != [0, 0])
        .collect();
    lengths.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lengths, expected);
}

#[test]
fn a_workload_is_the_same_every_time() {
    for workload in Workload::ALL {
        let (one, other) = (Loaded::new(workload, 0.001), Loaded::new(workload, 0.001));
        assert!(one.bytes == other.bytes && one.frames == other.frames);
    }
}
