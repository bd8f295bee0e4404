//! The flow library that others publish as `flowscope`, measured by `bench/peers.sh` as a peer: its own reader, tracker and writer.
//!
//! `records FILE FLOWS OUT` reads a capture and writes each flow that ended as a line; `memory FILE FLOWS RUNS` tracks frames that are in
//! memory, and prints how many there are and what one took in nanoseconds, the least and the median of the runs.

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
    let args: Vec<String> = std::env::args().collect();
    let [_, what, file, flows, last] = args.as_slice() else {
        return Err("records FILE FLOWS OUT, or memory FILE FLOWS RUNS".into());
    };
    let views = || PcapFlowSource::open(file).map(PcapFlowSource::views);
    match what.as_str() {
        "records" => {
            let mut tracker = tracker(flows)?;
            let mut records = FlowEventNdjsonWriter::new(BufWriter::new(File::create(last)?));
            for view in views()? {
                for event in tracker.track(&view?) {
                    records.write_event(&event)?;
                }
            }
            for event in tracker.finish() {
                records.write_event(&event)?;
            }
            records.finish()?;
        }
        "memory" => {
            let views = views()?.collect::<Result<Vec<_>, _>>()?;
            let mut took = Vec::new();
            for _ in 0..last.parse::<usize>()?.max(1) {
                let mut tracker = tracker(flows)?;
                let begin = Instant::now();
                let mut ended = 0;
                for view in &views {
                    ended += tracker.track(view).len();
                }
                took.push(begin.elapsed().as_nanos() as f64 / views.len() as f64);
                std::hint::black_box(ended);
            }
            took.sort_by(f64::total_cmp);
            println!("{} {:.1} {:.1}", views.len(), took[0], took[took.len() / 2]);
        }
        _ => return Err(format!("no {what}").into()),
    }
    Ok(())
}
