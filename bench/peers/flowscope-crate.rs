//! The flow library that others publish as `flowscope`, measured by `bench/peers.sh` as a peer: its own reader, tracker and writer.
//!
//! `records FILE FLOWS OUT` reads a capture and writes each flow that ended as a line; `memory FILE FLOWS` tracks frames that are in
//! memory, and prints what one took in nanoseconds.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::time::Instant;

use flowscope::FlowTracker;
use flowscope::emit::FlowEventNdjsonWriter;
use flowscope::event::EventMask;
use flowscope::extract::FiveTuple;
use flowscope::pcap::PcapFlowSource;
use flowscope::tracker::FlowTrackerConfig;

fn tracker(flows: &str) -> Result<FlowTracker<FiveTuple>, Box<dyn Error>> {
    let mut config = FlowTrackerConfig::default();
    config.max_flows = flows.parse()?;
    // Everything but the end.
    let config = config.with_event_filter(EventMask::all() - EventMask::ENDED);
    Ok(FlowTracker::with_config(FiveTuple::bidirectional(), config))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["records", file, flows, out] => records(file, tracker(flows)?, out),
        ["memory", file, flows] => memory(file, tracker(flows)?),
        _ => Err("records FILE FLOWS OUT, or memory FILE FLOWS".into()),
    }
}

fn records(
    file: &str,
    mut tracker: FlowTracker<FiveTuple>,
    out: &str,
) -> Result<(), Box<dyn Error>> {
    let mut records = FlowEventNdjsonWriter::new(BufWriter::new(File::create(out)?));
    for view in PcapFlowSource::open(file)?.views() {
        for event in tracker.track(&view?) {
            records.write_event(&event)?;
        }
    }
    for event in tracker.finish() {
        records.write_event(&event)?;
    }
    records.finish()?;
    Ok(())
}

fn memory(file: &str, mut tracker: FlowTracker<FiveTuple>) -> Result<(), Box<dyn Error>> {
    let views = PcapFlowSource::open(file)?.views().collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let mut ended = 0;
    for view in &views {
        ended += tracker.track(view).len();
    }
    println!("{:.1}", begin.elapsed().as_nanos() as f64 / views.len() as f64);
    std::hint::black_box(ended);
    Ok(())
}
