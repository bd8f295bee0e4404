//! One point of what the work costs as it grows: makes traffic in memory, and prints what a frame of it takes, what a flow
//! occupies, and what became of everything.
//!
//! ```text
//! cargo run --release --example growth -- flows 1000000
//! ```
//!
//! `bench/growth.sh` runs all points, in turns. As in `bench/instructions.rs`, measured work is done in functions named
//! `measured_…` and nowhere else, and callgrind collects in those.

mod counting;
mod stage;
#[path = "growth"]
mod growth {
    pub mod case;
    pub mod traffic;
}
#[allow(dead_code, reason = "shared with the generator, which uses other parts of it")]
mod workload;

use std::error::Error;
use std::time::Instant;

use flowscope::flow::ingest::Ingest;
use flowscope::flow::{ByFiveTuple, FlowKey, Packet};
use flowscope::reassembly::ReassemblyConfig;
use flowscope::{EndReason, FlowDriver, FlowEvent, FlowTracker, Frame, TrackerConfig};
use growth::case::{Case, HARD};
use growth::traffic::Out;
use stage::{
    BATCH, Streams, frames, ingest, measured_decode, measured_driver, measured_ingest,
    measured_tracker, track,
};

const HELP: &str = "\
Usage: growth AXIS POINT [--frames N] [--windows N] [--scale X] [--only WORK]

  flows N | size BYTES | opens PACKETS-OF-A-CONNECTION | memory FLOWS | hard NAME|list
  --frames N     of a window, which is timed as one (default 1000000; never more than 512 MB)
  --windows N    of each kind (default 3)
  --scale X      of the hard cases' tables
  --only WORK    of: decode ingest tracker process driver; and a fixed seed: for callgrind

Prints: axis,point,what,unit,window,value";

/// Frames that are made at once while flows open.
const CHUNK: usize = 1 << 16;
/// Bytes of a window.
const WINDOW_BYTES_MAX: usize = 512 << 20;

/// How a point is measured.
struct Options {
    frames: usize,
    windows: usize,
    scale: f64,
    only: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options { frames: 1_000_000, windows: 3, scale: 1.0, only: None };
    let mut names = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value\n\n{HELP}"));
        match arg.as_str() {
            "--frames" => options.frames = value()?.parse()?,
            "--windows" => options.windows = value()?.parse()?,
            "--scale" => options.scale = value()?.parse()?,
            "--only" => options.only = Some(value()?),
            _ => names.push(arg),
        }
    }
    let [axis, point] = &names[..] else { return Err(HELP.into()) };
    let case = match axis.as_str() {
        "flows" | "memory" => Case::flows(point.parse()?),
        "size" => Case::size(point.parse()?),
        "opens" => Case::opens(point.parse()?),
        "hard" if point == "list" => {
            println!("{}", HARD.join("\n"));
            return Ok(());
        }
        "hard" => Case::hard(point, options.scale).ok_or(format!("no case {point}\n\n{HELP}"))?,
        _ => return Err(HELP.into()),
    };
    if axis == "memory" {
        options.windows = 0;
    }
    options.frames = options.frames.min(WINDOW_BYTES_MAX / case.frame_bytes).max(1);
    let print = |what: &str, unit: &str, window: usize, value: f64| {
        println!("{axis},{point},{what},{unit},{window},{value:.2}");
    };
    Bench::new(case, &options)?.run(&options, &print)?;
    // Streams are followed from their beginning, by a driver of their own.
    match Case::hard(point, options.scale) {
        Some(case) if axis == "hard" && case.streams => driver(case, &options, &print),
        _ => Ok(()),
    }
}

/// What, in which unit, in which window, how much.
type Print<'a> = &'a dyn Fn(&str, &str, usize, f64);

/// A case with its tracker.
struct Bench {
    case: Case,
    work: Work,
    /// Frames that the tracker has been given.
    given: u64,
    /// Any packet.
    sample: Option<Packet<FlowKey>>,
    out: Out,
    /// What was allocated, and resident, before there was a tracker.
    before: (u64, u64),
}

/// What frames become flows in.
struct Work {
    ingest: Ingest<ByFiveTuple>,
    tracker: FlowTracker<ByFiveTuple>,
    /// Of every packet, where a case wants it so.
    hash: Option<u64>,
    packets: Vec<Packet<FlowKey>>,
    /// What the tracker told.
    events: u64,
}

impl Bench {
    fn new(case: Case, options: &Options) -> Result<Self, Box<dyn Error>> {
        let mut out = Out::new(case.gap_ns);
        // Its memory is taken before the tracker's, which is what is measured.
        out.loaded.bytes = vec![1; CHUNK * 4 * case.frame_bytes];
        out.loaded.frames = vec![(1, 1); CHUNK * 4];
        out.clear();
        let before = (counting::allocated(), resident()?);
        let config = TrackerConfig {
            max_flows: case.max_flows,
            key_hash: case.key_hash,
            ..TrackerConfig::default()
        };
        let mut ingest = ingest(&config);
        if case.known_key || options.only.is_some() {
            ingest.set_fixed_seed();
        }
        let tracker = FlowTracker::new(ByFiveTuple::default(), config)?;
        let (hash, packets) = (case.hash, Vec::with_capacity(2 * BATCH));
        let work = Work { ingest, tracker, hash, packets, events: 0 };
        Ok(Self { case, work, given: 0, sample: None, out, before })
    }

    fn run(mut self, options: &Options, print: Print<'_>) -> Result<(), Box<dyn Error>> {
        self.open();
        print("live", "flows", 0, self.work.tracker.len() as f64);
        let flows = self.work.tracker.len().max(1) as f64;
        let (allocated, resident) =
            (counting::allocated() - self.before.0, resident()? - self.before.1);
        print("accounted", "bytes", 0, allocated as f64);
        print("resident", "bytes", 0, resident as f64);
        print("accounted-a-flow", "bytes", 0, allocated as f64 / flows);
        print("resident-a-flow", "bytes", 0, resident as f64 / flows);
        let wanted = |work: &str| options.only.as_deref().is_none_or(|only| only == work);
        for window in 0..options.windows {
            let created = self.work.tracker.counters().created;
            if wanted("process") {
                let (units, ns) = self.process(options.frames);
                print("process", "ns", window, ns / units as f64);
                print("process", "frames", window, units as f64);
                let created = self.work.tracker.counters().created - created;
                print("opened", "percent", window, 100.0 * created as f64 / units as f64);
            }
            if wanted("decode") || wanted("ingest") || wanted("tracker") {
                self.parts(options.frames, &wanted, window, print);
            }
        }
        if options.windows > 0 {
            self.account(print);
        }
        Ok(())
    }

    /// Gives the tracker all that comes before what is measured.
    fn open(&mut self) {
        while !self.case.traffic.is_open() {
            self.out.clear();
            for _ in 0..CHUNK {
                if !self.case.traffic.is_open() {
                    self.case.traffic.open(&mut self.out);
                }
            }
            self.give(process);
        }
        let mut left = self.case.settle;
        while left > 0 {
            self.make(left.min(CHUNK));
            left -= left.min(CHUNK);
            self.give(process);
        }
    }

    /// Makes at least so many frames; fewer than two more.
    fn make(&mut self, frames: usize) {
        self.out.clear();
        while self.out.loaded.frames.len() < frames {
            self.case.traffic.next(&mut self.out);
        }
    }

    /// Frames to flows, in batches: nanoseconds for all that were made.
    fn give(&mut self, process: Process) -> f64 {
        let frames = frames(&self.out.loaded);
        self.given += frames.len() as u64;
        let begin = Instant::now();
        process(&mut self.work, &frames);
        let ns = begin.elapsed().as_nanos() as f64;
        self.sample = self.sample.or(self.work.packets.first().copied());
        ns
    }

    fn process(&mut self, frames: usize) -> (usize, f64) {
        self.make(frames);
        let ns = self.give(measured_process);
        (self.out.loaded.frames.len(), ns)
    }

    /// The same by its parts, on new frames.
    fn parts(
        &mut self,
        count: usize,
        wanted: &dyn Fn(&str) -> bool,
        window: usize,
        print: Print<'_>,
    ) {
        self.make(count);
        let frames = frames(&self.out.loaded);
        self.given += frames.len() as u64;
        let time = |work: &str, run: &mut dyn FnMut()| {
            let begin = Instant::now();
            run();
            print(work, "ns", window, begin.elapsed().as_nanos() as f64 / frames.len() as f64);
            print(work, "frames", window, frames.len() as f64);
        };
        if wanted("decode") {
            time("decode", &mut || measured_decode(&frames));
        }
        // Touched beforehand, or it is the first touch of this memory that is measured.
        let mut packets: Vec<Packet<FlowKey>> = Vec::new();
        if let Some(packet) = self.sample {
            packets.resize(frames.len() + 1, packet);
            packets.clear();
        }
        let mut batch = Vec::with_capacity(2 * BATCH);
        if wanted("ingest") {
            // With a fragment table of its own, and a seed, for the packets below are those that count.
            let mut ingest = ingest(self.work.tracker.config());
            time("ingest", &mut || measured_ingest(&mut ingest, &frames, &mut batch));
        }
        for chunk in frames.chunks(BATCH) {
            self.work.ingest.batch(chunk, &mut packets);
        }
        if let Some(hash) = self.work.hash {
            packets.iter_mut().for_each(|packet| packet.hash = hash);
        }
        let Work { tracker, events, .. } = &mut self.work;
        if wanted("tracker") {
            time("tracker", &mut || measured_tracker(tracker, &packets, events));
        } else {
            // They are accounted in any case, where nothing is counted.
            track(tracker, &packets, events);
        }
    }

    /// Everything is somewhere: frames in packets or waiting for their first fragment, packets in flows that live or have ended.
    fn account(&mut self, print: Print<'_>) {
        let (ingest, tracker) = (self.work.ingest.counters(), self.work.tracker.counters());
        let live: u64 = self
            .work
            .tracker
            .iter()
            .map(|(_, stats)| stats.initiator.packets + stats.responder.packets)
            .sum();
        assert_eq!(tracker.packets, live + tracker.packets_ended, "packets in flows");
        assert_eq!(ingest.unmatched, 0, "every frame has a flow");
        let ended: u64 = tracker.ended.iter().sum();
        assert_eq!(tracker.created, ended + self.work.tracker.len() as u64, "flows that began");
        assert!(self.work.tracker.len() <= self.case.max_flows && self.work.events > 0);
        print("given", "frames", 0, self.given as f64);
        print("accounted", "frames", 0, (tracker.packets + ingest.held) as f64);
        print("created", "flows", 0, tracker.created as f64);
        for (reason, &count) in EndReason::ALL.iter().zip(&tracker.ended) {
            if count > 0 {
                print(&format!("ended-{reason:?}").to_lowercase(), "flows", 0, count as f64);
            }
        }
        print("unattributed", "fragments", 0, ingest.fragments_unattributed as f64);
        assert_eq!(self.given, tracker.packets + ingest.held, "frames given");
    }
}

/// With reassembly.
fn driver(case: Case, options: &Options, print: Print<'_>) -> Result<(), Box<dyn Error>> {
    if options.only.as_deref().is_some_and(|only| only != "driver") {
        return Ok(());
    }
    let mut bench = Bench::new(case, options)?;
    let config = TrackerConfig { max_flows: bench.case.max_flows, ..TrackerConfig::default() };
    let reassembly = ReassemblyConfig::default();
    let mut driver = FlowDriver::new(ByFiveTuple::default(), config, reassembly)?;
    let mut streams = Streams::default();
    while !bench.case.traffic.is_open() {
        bench.case.traffic.open(&mut bench.out);
    }
    driver.process(&frames(&bench.out.loaded), &mut streams, &mut |_: FlowEvent<FlowKey>| {});
    for window in 0..options.windows {
        bench.make(options.frames);
        let frames = frames(&bench.out.loaded);
        let begin = Instant::now();
        measured_driver(&mut driver, &frames, &mut streams);
        let ns = begin.elapsed().as_nanos() as f64;
        print("driver", "ns", window, ns / frames.len() as f64);
        print("driver", "frames", window, frames.len() as f64);
    }
    assert!(streams.bytes > 0 && streams.gap_bytes == 0, "{streams:?}");
    Ok(())
}

/// [`measured_process`], or the same where nothing is measured.
type Process = fn(&mut Work, &[Frame<'_>]);

#[inline(never)]
fn measured_process(work: &mut Work, frames: &[Frame<'_>]) {
    process(work, frames);
}

/// Frames to flows, in batches.
#[inline(always)]
fn process(work: &mut Work, frames: &[Frame<'_>]) {
    for batch in frames.chunks(BATCH) {
        work.packets.clear();
        work.ingest.batch(batch, &mut work.packets);
        if let Some(hash) = work.hash {
            work.packets.iter_mut().for_each(|packet| packet.hash = hash);
        }
        work.tracker.process_packets(&work.packets, &mut |_: FlowEvent<FlowKey>| work.events += 1);
    }
}

/// Resident bytes of this process.
fn resident() -> Result<u64, Box<dyn Error>> {
    Ok(counting::resident().ok_or("/proc does not say what is resident")?)
}
