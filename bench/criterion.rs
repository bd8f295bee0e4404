//! Criterion benches, one group a stage: decode, ingest, table, tracker, reassembly, replay.
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

#[allow(dead_code, reason = "shared with benches that measure otherwise")]
mod stage;
#[allow(dead_code, reason = "shared with the generator, which uses other parts of it")]
mod workload;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flowscope::decode::decode;
use flowscope::flow::table::{Inserted, Table, tag};
use flowscope::flow::{ByFiveTuple, FlowKey, Packet};
use flowscope::reassembly::ReassemblyConfig;
use flowscope::{FlowDriver, FlowEvent, FlowTracker, LinkType, TrackerConfig};
use stage::{BATCH, frames, ingest};
use workload::{Loaded, Workload};

fn scale(workload: Workload) -> f64 {
    match workload {
        Workload::A | Workload::B => 0.1,
        Workload::C => 0.01,
    }
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
        let (mut ingest, mut packets) =
            (ingest(&TrackerConfig::default()), Vec::with_capacity(BATCH));
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
        ingest(&TrackerConfig::default()).batch(&frames, &mut packets);
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

/// Frames to flows and byte streams.
fn reassembly_stage(c: &mut Criterion) {
    let mut group = c.benchmark_group("reassembly");
    let loaded = Loaded::new(Workload::C, scale(Workload::C));
    let frames = frames(&loaded);
    let flows = loaded.truth.flows.len();
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function("C", |b| {
        b.iter_batched_ref(
            || {
                let config = TrackerConfig { max_flows: flows, ..TrackerConfig::default() };
                FlowDriver::new(ByFiveTuple::default(), config, ReassemblyConfig::default())
                    .expect("the configuration is valid")
            },
            |driver| {
                for batch in frames.chunks(BATCH) {
                    driver.process(batch, &mut (), &mut |_: FlowEvent<FlowKey>| {});
                }
            },
            BatchSize::LargeInput,
        );
    });
}

/// The table alone: flows that are there, and flows that come and go.
fn table_stage(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    for (name, flows) in [("10k", 10_000_u32), ("100k", 100_000), ("1M", 1_000_000)] {
        let mut rng = workload::rng::Rng::new(1);
        let hashes: Vec<u64> = (0..flows).map(|_| rng.next()).collect();
        let mut table = Table::new(flows as usize);
        for (slot, &hash) in hashes.iter().enumerate() {
            assert_eq!(table.insert(tag(hash), slot as u32), Inserted::Done, "there is room");
        }
        let mut order: Vec<u32> = (0..flows).collect();
        rng.shuffle(&mut order);
        group.throughput(Throughput::Elements(u64::from(flows)));
        group.bench_function(format!("find/{name}"), |b| {
            b.iter(|| {
                for &slot in &order {
                    black_box(table.find(tag(hashes[slot as usize]), |found| found == slot));
                }
            });
        });
        group.bench_function(format!("remove_insert/{name}"), |b| {
            b.iter(|| {
                for &slot in &order {
                    let tag = tag(hashes[slot as usize]);
                    black_box(table.remove(tag, slot) && table.insert(tag, slot) == Inserted::Done);
                }
            });
        });
    }
}

/// A capture file to events; the file is in the page cache.
#[cfg(feature = "capture")]
fn replay_stage(c: &mut Criterion) {
    use flowscope::capture::Capture;
    use flowscope::capture::file::{CaptureFiles, OpenOptions};
    use flowscope::capture::write::PcapWriter;

    let mut group = c.benchmark_group("replay");
    for workload in Workload::ALL {
        let loaded = Loaded::new(workload, scale(workload));
        let path = std::env::temp_dir().join(format!(
            "flowscope-bench-{}-{}.pcap",
            std::process::id(),
            workload.name()
        ));
        let file = std::fs::File::create(&path).expect("the temporary directory can be written");
        let mut out = PcapWriter::new(std::io::BufWriter::new(file), LinkType::ETHERNET)
            .expect("the file can be written");
        for frame in frames(&loaded) {
            out.write(&frame).expect("the file can be written");
        }
        out.finish().expect("the file can be written");
        group.throughput(Throughput::Elements(loaded.frames.len() as u64));
        group.bench_function(workload.name(), |b| {
            b.iter_batched_ref(
                || tracker(&loaded),
                |tracker| {
                    let mut capture = CaptureFiles::open(&[&path], OpenOptions::new())
                        .expect("the file was just written");
                    let mut events = 0_u64;
                    let mut sink = |_: FlowEvent<FlowKey>| events += 1;
                    while let Ok(Some(())) =
                        capture.with_batch(|frames| tracker.process(frames, &mut sink))
                    {
                    }
                    tracker.drain(&mut sink);
                    events
                },
                BatchSize::LargeInput,
            );
        });
        // Best effort: it lies in the temporary directory.
        let _ = std::fs::remove_file(&path);
    }
}

#[cfg(not(feature = "capture"))]
fn replay_stage(_: &mut Criterion) {
    eprintln!("replay: left out, it wants --features capture");
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
    targets =
        decode_stage, ingest_stage, table_stage, tracker_stage, reassembly_stage, replay_stage
}
criterion_main!(stages);
