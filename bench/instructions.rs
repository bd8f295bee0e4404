//! Runs one stage on one workload in memory, so that callgrind can count its instructions, and
//! prints its time; or measures a tracker's memory and its longest pause.
//!
//! ```text
//! cargo run --release --example instructions -- tracker A --scale 0.1 --runs 5
//! ```
//!
//! `bench/instructions.sh` runs all of it. A stage does its measured work in functions named
//! `measured_…` and nowhere else: callgrind collects in those alone.

mod counting;
mod stage;
#[allow(dead_code, reason = "shared with the generator, which uses other parts of it")]
mod workload;

use std::error::Error;
use std::time::Instant;

use flowscope::flow::{ByFiveTuple, FlowKey, Packet};
use flowscope::reassembly::ReassemblyConfig;
use flowscope::{FlowDriver, FlowEvent, FlowTracker, Frame, TrackerConfig};
use stage::{
    BATCH, Streams, frames, ingest, measured_decode, measured_driver, measured_ingest,
    measured_tracker,
};
use workload::{Loaded, Workload};

const HELP: &str = "\
Usage: instructions STAGE [A|B|C] [--scale X] [--runs N]

Stages: decode ingest tracker process driver json memory pause
Prints: stage workload units nanoseconds-per-unit, the least and the median of the runs";

fn main() -> Result<(), Box<dyn Error>> {
    let mut names = Vec::new();
    let (mut scale, mut runs) = (0.1, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value\n\n{HELP}"));
        match arg.as_str() {
            "--scale" => scale = value()?.parse()?,
            "--runs" => runs = value()?.parse()?,
            _ => names.push(arg),
        }
    }
    let stage = names.first().ok_or(HELP)?.as_str();
    let workload = match names.get(1) {
        Some(name) => Workload::parse(name).ok_or(HELP)?,
        None => Workload::A,
    };
    match stage {
        "memory" => memory(scale)?,
        "pause" => pause(scale, runs)?,
        _ => time(stage, workload, scale, runs)?,
    }
    Ok(())
}

/// Runs a stage and prints what a unit of it takes.
fn time(stage: &str, workload: Workload, scale: f64, runs: usize) -> Result<(), Box<dyn Error>> {
    let loaded = Loaded::new(workload, scale);
    let frames = frames(&loaded);
    let mut results = Vec::new();
    for _ in 0..runs.max(1) {
        results.push(match stage {
            "decode" => stage_decode(&frames),
            "ingest" => stage_ingest(&frames),
            "tracker" => stage_tracker(&frames, config(&loaded))?,
            "process" => stage_process(&frames, config(&loaded))?,
            #[cfg(feature = "sensor")]
            "json" => json::stage(&frames, config(&loaded))?,
            "driver" => stage_driver(&frames, config(&loaded), &loaded)?,
            _ => return Err(format!("no stage {stage}\n\n{HELP}").into()),
        });
    }
    results.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (units, least) = results[0];
    let (_, median) = results[results.len() / 2];
    let per_unit = |ns: f64| ns / units as f64;
    let (least, median) = (per_unit(least), per_unit(median));
    println!("{stage} {} {units} {least:.1} {median:.1}", workload.name());
    Ok(())
}

/// Room for every flow of the workload and a tenth more, as `bench/peers.sh` gives it.
fn config(loaded: &Loaded) -> TrackerConfig {
    let flows = loaded.truth.flows.len();
    TrackerConfig { max_flows: flows + flows / 10 + 1, ..TrackerConfig::default() }
}

/// Units of work, and nanoseconds for all of them.
type Took = (usize, f64);

fn took(units: usize, begin: Instant) -> Took {
    (units, begin.elapsed().as_nanos() as f64)
}

fn stage_decode(frames: &[Frame<'_>]) -> Took {
    let begin = Instant::now();
    measured_decode(frames);
    took(frames.len(), begin)
}

fn stage_ingest(frames: &[Frame<'_>]) -> Took {
    let mut ingest = ingest(&TrackerConfig::default());
    let mut packets = Vec::with_capacity(BATCH);
    let begin = Instant::now();
    measured_ingest(&mut ingest, frames, &mut packets);
    took(frames.len(), begin)
}

/// The packets of all frames, as the tracker takes them.
fn packets(frames: &[Frame<'_>]) -> Vec<Packet<FlowKey>> {
    let mut packets = Vec::with_capacity(frames.len());
    ingest(&TrackerConfig::default()).batch(frames, &mut packets);
    packets
}

/// The tracker alone: table, timers, TCP, statistics, events. A batch becomes packets just before, with the clock standing, so that they are
/// at hand: the packets of all frames are more than a cache has, and who takes them from memory is timed with it. Flows end afterwards.
fn stage_tracker(frames: &[Frame<'_>], config: TrackerConfig) -> Result<Took, Box<dyn Error>> {
    let flows = config.max_flows;
    let mut ingest = ingest(&config);
    let mut tracker = FlowTracker::new(ByFiveTuple::default(), config)?;
    let mut packets = Vec::with_capacity(BATCH);
    let (mut events, mut ns) = (0, 0.0);
    for batch in frames.chunks(BATCH) {
        packets.clear();
        ingest.batch(batch, &mut packets);
        let begin = Instant::now();
        measured_tracker(&mut tracker, &packets, &mut events);
        ns += begin.elapsed().as_nanos() as f64;
    }
    assert!(events > 0 && tracker.len() <= flows);
    assert_eq!(tracker.counters().packets, frames.len() as u64);
    Ok((frames.len(), ns))
}

/// Frames to flows: ingest and tracker in one call.
fn stage_process(frames: &[Frame<'_>], config: TrackerConfig) -> Result<Took, Box<dyn Error>> {
    let mut tracker = FlowTracker::new(ByFiveTuple::default(), config)?;
    let mut events = 0_usize;
    let begin = Instant::now();
    measured_process(&mut tracker, frames, &mut events);
    Ok(took(frames.len(), begin))
}

#[inline(never)]
fn measured_process(
    tracker: &mut FlowTracker<ByFiveTuple>,
    frames: &[Frame<'_>],
    events: &mut usize,
) {
    for batch in frames.chunks(BATCH) {
        tracker.process(batch, &mut |_: FlowEvent<FlowKey>| *events += 1);
    }
}

/// Frames to flows and byte streams: what it takes more than `process` is reassembly.
fn stage_driver(
    frames: &[Frame<'_>],
    config: TrackerConfig,
    loaded: &Loaded,
) -> Result<Took, Box<dyn Error>> {
    let key = ByFiveTuple::default();
    let mut driver = FlowDriver::new(key, config, ReassemblyConfig::default())?;
    let mut streams = Streams::default();
    let begin = Instant::now();
    measured_driver(&mut driver, frames, &mut streams);
    let took = took(frames.len(), begin);
    driver.drain(&mut streams, &mut |_: FlowEvent<FlowKey>| {});
    let known: u64 = loaded.truth.totals().iter().map(|side| side.stream_bytes).sum();
    assert_eq!((streams.bytes, streams.gap_bytes), (known, 0), "bytes of all streams");
    Ok(took)
}

/// What a tracker takes for a flow: what it allocates, at start and when every place is taken, and by how much the
/// resident set has then grown.
fn memory(scale: f64) -> Result<(), Box<dyn Error>> {
    let loaded = Loaded::new(Workload::B, scale);
    let flows = loaded.truth.flows.len();
    let packets = packets(&frames(&loaded));
    let before = counting::allocated();
    let resident_before = counting::resident();
    let config = TrackerConfig { max_flows: flows, touch_memory: true, ..TrackerConfig::default() };
    let mut tracker = FlowTracker::new(ByFiveTuple::default(), config)?;
    let per_flow = || (counting::allocated() - before) as f64 / flows as f64;
    let empty = per_flow();
    for batch in packets.chunks(BATCH) {
        tracker.process_packets(batch, &mut |_: FlowEvent<FlowKey>| {});
    }
    assert_eq!(tracker.len(), flows);
    let resident = match (resident_before, counting::resident()) {
        (Some(before), Some(after)) => {
            format!("{:.1}", after.saturating_sub(before) as f64 / flows as f64)
        }
        _ => "-".to_owned(),
    };
    println!("memory {flows} {empty:.1} {:.1} {resident}", per_flow());
    Ok(())
}

/// How long a call takes at worst: while flows begin, while packets find them, and while all of them
/// expire at once. Prints p50, p99, the most in the best of the runs and the most of all, in µs, how many calls took
/// more than 100, and the most when each call is taken at its best: packets carry their hashes, so that a call does the same in every
/// run, and what it does not take again was not its own. The control is as many calls that look at the clock for as long as a batch takes
/// at p50 and do nothing else: what they take more is the machine's.
fn pause(scale: f64, runs: usize) -> Result<(), Box<dyn Error>> {
    let loaded = Loaded::new(Workload::B, scale);
    let flows = loaded.truth.flows.len();
    let packets = packets(&frames(&loaded));
    let end = packets.last().ok_or("no packets")?.ts;
    let mut calls: [Vec<Vec<u64>>; 4] = Default::default();
    for _ in 0..runs.max(1) {
        let config =
            TrackerConfig { max_flows: flows + flows / 10 + 1, ..TrackerConfig::default() };
        let config = TrackerConfig { touch_memory: true, ..config };
        let mut tracker = FlowTracker::new(ByFiveTuple::default(), config)?;
        let mut events = 0_u64;
        let mut sink = |_: FlowEvent<FlowKey>| events += 1;
        let timed = |call: &mut dyn FnMut()| {
            let begin = Instant::now();
            call();
            begin.elapsed().as_nanos() as u64
        };
        let mut live = Vec::with_capacity(packets.len() / BATCH + 1);
        for batch in packets.chunks(BATCH) {
            live.push(timed(&mut || tracker.process_packets(batch, &mut sink)));
        }
        assert_eq!(tracker.len(), flows);
        // A quiet hour, and everything is due.
        let mut expire = Vec::with_capacity(flows / 32);
        let now = end.plus_nanos(3_600_000_000_000);
        let mut more = true;
        while more {
            expire.push(timed(&mut || more = tracker.handle_timeout(now, &mut sink)));
        }
        assert!(tracker.is_empty());
        // The same packets an hour and a day later, with timers served between batches as a worker
        // does: every flow begins anew.
        let mut worker = Vec::with_capacity(packets.len() / BATCH + 1);
        let later_ns = 90_000_000_000_000;
        let mut copy = Vec::with_capacity(BATCH);
        for batch in packets.chunks(BATCH) {
            copy.clear();
            copy.extend(batch.iter().map(|p| Packet { ts: p.ts.plus_nanos(later_ns), ..*p }));
            let now = copy[copy.len() - 1].ts;
            worker.push(timed(&mut || {
                tracker.process_packets(&copy, &mut sink);
                tracker.handle_timeout(now, &mut sink);
            }));
        }
        let mut sorted = live.clone();
        sorted.sort_unstable();
        let half = sorted[sorted.len() / 2];
        let control = (0..live.len()).map(|_| {
            timed(&mut || {
                let begin = Instant::now();
                while (begin.elapsed().as_nanos() as u64) < half {
                    std::hint::spin_loop();
                }
            })
        });
        let control = control.collect();
        for (all, run) in calls.iter_mut().zip([live, expire, worker, control]) {
            all.push(run);
        }
    }
    for (name, runs) in ["batch", "expire", "batch+timers", "control"].into_iter().zip(calls) {
        let most = |run: &Vec<u64>| run.iter().copied().max().unwrap_or(0);
        let least_most = runs.iter().map(most).min().unwrap_or(0);
        assert!(runs.iter().all(|run| run.len() == runs[0].len()), "{name}: not the same calls");
        let at_best = |call: usize| runs.iter().map(|run| run[call]).min().unwrap_or(0);
        let own = (0..runs[0].len()).map(at_best).max().unwrap_or(0);
        let mut all: Vec<u64> = runs.into_iter().flatten().collect();
        all.sort_unstable();
        let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
        let us = |ns: u64| ns as f64 / 1000.0;
        println!(
            "pause {name} {flows} {} {:.1} {:.1} {:.1} {:.1} {} {:.1}",
            all.len(),
            us(at(0.5)),
            us(at(0.99)),
            us(least_most),
            us(at(1.0)),
            all.iter().filter(|&&ns| ns > 100_000).count(),
            us(own),
        );
    }
    Ok(())
}

/// Formatting a record, as the worker that saw the flow end does.
#[cfg(feature = "sensor")]
mod json {
    use std::error::Error;
    use std::hint::black_box;
    use std::time::Instant;

    use flowscope::export::jsonl::{Outcome, put_record};
    use flowscope::export::text::{LINE_BYTES_MAX, Line, Seconds};
    use flowscope::flow::{ByFiveTuple, FlowKey};
    use flowscope::{FlowEvent, FlowStats, FlowTracker, Frame, TrackerConfig};

    use super::{BATCH, Took, took};

    type Record = (FlowKey, FlowStats);

    pub fn stage(frames: &[Frame<'_>], config: TrackerConfig) -> Result<Took, Box<dyn Error>> {
        let mut tracker = FlowTracker::new(ByFiveTuple::default(), config)?;
        let mut records: Vec<Record> = Vec::new();
        let mut sink = |event: FlowEvent<FlowKey>| {
            if let FlowEvent::Ended { key, stats, .. } = event {
                records.push((key, stats));
            }
        };
        for batch in frames.chunks(BATCH) {
            tracker.process(batch, &mut sink);
        }
        tracker.drain(&mut sink);
        let mut out = vec![0; 1 << 20];
        let begin = Instant::now();
        measured_json(&records, &mut out);
        Ok(took(records.len(), begin))
    }

    #[inline(never)]
    fn measured_json(records: &[Record], out: &mut [u8]) {
        let outcome = Outcome { reason: "drained", interim: false };
        let (mut len, mut seconds) = (0, Seconds::default());
        for (key, stats) in records {
            // A sink takes a buffer when it is full; this one is filled anew.
            if out[len..].len() < LINE_BYTES_MAX {
                black_box(&*out);
                len = 0;
            }
            if let Some(room) = out[len..].first_chunk_mut() {
                let mut line = Line::new(room, &mut seconds);
                put_record(&mut line, key, stats, &stats.unreported(), outcome, true);
                len += line.as_bytes().len();
            }
        }
        black_box(&*out);
    }
}
