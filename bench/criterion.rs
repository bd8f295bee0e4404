//! Criterion benches, one group a stage: decode, ingest, tracker, reassembly, replay.
//!
//! ```text
//! cargo bench --features sensor
//! cargo bench --features sensor -- tracker/A
//! ```
//!
//! Throughput is in frames. Workloads are a tenth of the full ones (a hundredth of C) and lie in memory, but
//! for the replay, which reads files that it writes first. Whole runs against other tools are
//! `bench/peers.sh`, instruction counts `bench/instructions.sh`.

#![allow(missing_docs, reason = "criterion's macros make public items")]

#[allow(dead_code, reason = "shared with the generator, which uses other parts of it")]
mod workload;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flowscope::decode::decode;
use flowscope::flow::ingest::Ingest;
use flowscope::flow::{ByFiveTuple, FlowKey, Packet};
use flowscope::{FlowEvent, FlowTracker, Frame, LinkType, Timestamp, TrackerConfig};
use workload::{Loaded, Workload};

/// Frames a batch, as the replay loop has them.
const BATCH: usize = 256;

fn scale(workload: Workload) -> f64 {
    match workload {
        Workload::A | Workload::B => 0.1,
        Workload::C => 0.01,
    }
}

fn frames(loaded: &Loaded) -> Vec<Frame<'_>> {
    let frame = |(ts_ns, data): (u64, _)| frame_of(ts_ns, data);
    loaded.iter().map(frame).collect()
}

fn frame_of(ts_ns: u64, data: &[u8]) -> Frame<'_> {
    Frame {
        ts: Timestamp::from_nanos(ts_ns),
        wire_len: data.len() as u32,
        link: LinkType::ETHERNET,
        interface: 0,
        data,
    }
}

fn ingest() -> Ingest<ByFiveTuple> {
    Ingest::new(ByFiveTuple::default(), 4096, 30_000_000_000)
}

fn tracker(loaded: &Loaded) -> FlowTracker<ByFiveTuple> {
    let flows = loaded.truth.flows.len();
    let config = TrackerConfig { max_flows: flows + flows / 10 + 1, ..TrackerConfig::default() };
    FlowTracker::new(ByFiveTuple::default(), config).expect("the configuration is valid")
}

fn decode_stage(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for workload in Workload::ALL {
        let loaded = Loaded::new(workload, scale(workload));
        let frames = frames(&loaded);
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(workload.name(), |b| {
            b.iter(|| {
                for frame in &frames {
                    black_box(decode(frame));
                }
            });
        });
    }
}

fn ingest_stage(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest");
    for workload in Workload::ALL {
        let loaded = Loaded::new(workload, scale(workload));
        let frames = frames(&loaded);
        let (mut ingest, mut packets) = (ingest(), Vec::with_capacity(BATCH));
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(workload.name(), |b| {
            b.iter(|| {
                for batch in frames.chunks(BATCH) {
                    packets.clear();
                    ingest.batch(batch, &mut packets);
                    black_box(&packets);
                }
            });
        });
    }
}

/// From an empty table; what it costs to make and to drop the tracker is not counted.
fn tracker_stage(c: &mut Criterion) {
    let mut group = c.benchmark_group("tracker");
    for workload in Workload::ALL {
        let loaded = Loaded::new(workload, scale(workload));
        let frames = frames(&loaded);
        let mut packets: Vec<Packet<FlowKey>> = Vec::with_capacity(frames.len());
        ingest().batch(&frames, &mut packets);
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_function(workload.name(), |b| {
            b.iter_batched_ref(
                || tracker(&loaded),
                |tracker| {
                    let mut events = 0_u64;
                    for batch in packets.chunks(BATCH) {
                        tracker.process_packets(batch, &mut |_: FlowEvent<FlowKey>| events += 1);
                    }
                    events
                },
                BatchSize::LargeInput,
            );
        });
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = stages;
    config = quick();
    targets = decode_stage, ingest_stage, tracker_stage
}
criterion_main!(stages);
