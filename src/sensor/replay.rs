//! A replay: capture files in, records and a summary out.
//!
//! Contract: what cannot work (an output that cannot be opened, an address that is taken) is refused before
//! the first frame; whatever ends the run, flows that live end with a record, records are written or
//! counted as dropped, and the ledger is drawn up.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;

use super::cores::{Pinning, allowed};
use super::direct::{Direct, Tracking};
use super::http::{Listener, Readiness, Server};
use super::input::{StoppableInput, Stopped};
use super::ledger::Ledger;
use super::options::{ReplayOptions, Speed};
use super::pace::Pacer;
use super::progress::Progress;
use super::read::{Position, ReadEnd, ReadLoop};
use super::run::{
    Outcome, SummaryFile, open_outputs, outcome, report, serve, start_sinks,
    warn_of_uncovered_links,
};
use super::shard::{Board, Thread};
use super::steer::{Reading, Steer, WorkerParts, read_in_turns};
use super::stop::Stop;
use super::summary::{RunFacts, Summary};
use crate::capture::CaptureError;
use crate::capture::file::{CaptureFiles, OpenOptions};
use crate::driver::FlowDriver;
use crate::export::sink::SinkHandle;
use crate::export::{RecordWriter, Sink, WhenFull};
use crate::flow::ingest::Ingest;
use crate::flow::{ByFiveTuple, FlowTracker};
use crate::reassembly::ReassemblyConfig;

/// Replays, and says how it ended. `Err` is for what failed before the first frame, and for bugs.
/// A second SIGINT or SIGTERM ends the process with `code_at_once`.
pub fn run(mut options: ReplayOptions, code_at_once: i32) -> anyhow::Result<Outcome> {
    let stop = Stop::new();
    stop.on_signals(code_at_once, None::<fn()>).context("signals cannot be watched")?;
    let mut sinks = start_sinks(open_outputs(&options.outputs)?)?;
    let summary_file = options.summary.as_deref().map(SummaryFile::create).transpose()?;
    let named = |sink: &Sink| (sink.name().to_owned(), sink.handle());
    let board = Board::new(1, options.workers, sinks.iter().map(named).collect());
    let server = match options.metrics {
        Some(addr) => Some(serve(Listener::bind(addr)?, &board)?),
        None => None,
    };
    let opened = open_captures(&options.files, options.speed, &stop);
    let started = Instant::now();

    let read = match opened {
        Ok(capture) => read(&mut options, capture, &stop, &board, server.as_ref())?,
        Err(error) if Stopped::is(&error) => {
            Read { end: ReadEnd { errors: Vec::new(), stopped: true }, links: Vec::new() }
        }
        Err(error) => {
            let end = ReadEnd { errors: vec![error], stopped: false };
            Read { end, links: Vec::new() }
        }
    };
    sinks.iter_mut().for_each(Sink::finish);

    let figures = board.figures();
    let ledger = Ledger::at_end(&figures);
    let outcome = outcome(&figures, &ledger, &read.end, &stop);
    let facts = RunFacts {
        outcome: outcome.label(),
        errors: read.end.errors.iter().map(ToString::to_string).collect(),
        files: options.files.len(),
        elapsed: started.elapsed(),
        links: &read.links,
        reassembled: options.reassemble,
        queues: Vec::new(),
    };
    let summary = Summary::new(&figures, ledger, facts);
    report(&summary, &board, outcome);
    if let Some(file) = summary_file {
        file.write(&summary)?;
    }
    if let Some(server) = &server
        && options.hold
    {
        let failed = !matches!(outcome, Outcome::Complete | Outcome::Interrupted);
        server.set_readiness(if failed { Readiness::Failed } else { Readiness::Holding });
        tracing::info!("holding until SIGINT or SIGTERM");
        stop.wait();
    }
    Ok(outcome)
}

/// What reading gave.
struct Read {
    end: ReadEnd,
    links: Vec<(crate::frame::LinkType, u64)>,
}

fn read(
    options: &mut ReplayOptions,
    mut capture: CaptureFiles,
    stop: &Stop,
    board: &Board,
    server: Option<&Server>,
) -> anyhow::Result<Read> {
    let _progress = (options.progress && std::io::stderr().is_terminal())
        .then(|| Progress::start(Arc::new(board.clone()), capture.bytes_total()))
        .transpose()
        .context("the progress bar needs a thread")?;
    let pacer = match options.speed {
        Speed::Max => None,
        Speed::Times(times) => Some(Pacer::new(times, stop.clone())),
    };
    let shard = Arc::clone(&board.readers[0]);
    let filter = options.filter.take();
    let mut reading = ReadLoop::new(filter, pacer, stop.clone(), board.clone(), Arc::clone(&shard));
    let tracks = Tracks::new(options, board)?;
    let asked = options.cores.as_ref();
    // What keeps nobody waiting is read by the workers themselves.
    let in_turns = options.speed == Speed::Max && capture.bytes_total().is_some();
    let threads = options.workers + usize::from(!in_turns);
    let pinning = match &tracks {
        // One thread that reads and tracks is left alone, unless it is told where to be.
        Tracks::Here(_) | Tracks::HereWithStreams(_) if asked.is_none() => Pinning::default(),
        // Nor are more threads than cores: where another happens to be, a worker that cannot leave falls behind.
        Tracks::Steered(_) if asked.is_none() && allowed().len() < threads => Pinning::default(),
        _ => Pinning::choose(options.workers, asked, &[])?,
    };
    if let Some(server) = server {
        server.set_readiness(Readiness::Reading);
    }
    let end = match tracks {
        Tracks::Here(direct) => {
            pinning.pin(Thread::Worker(0));
            run_here(&mut reading, &mut capture, *direct)
        }
        Tracks::HereWithStreams(direct) => {
            pinning.pin(Thread::Worker(0));
            run_here(&mut reading, &mut capture, *direct)
        }
        Tracks::Steered(workers) => {
            let ingest = Ingest::new(options.extractor, &options.tracker);
            if in_turns {
                let reading = Reading {
                    reading: &mut reading,
                    capture: &mut capture,
                    position,
                    lasting: CaptureFiles::lasting,
                };
                read_in_turns(reading, ingest, workers, &pinning)?
            } else {
                let mut steer = Steer::start(ingest, workers, &pinning)?;
                let end = reading.run(&mut capture, &mut steer, position);
                steer.finish(reading.now(), reading.figures())?;
                end
            }
        }
    };
    shard.store(reading.figures());
    warn_of_uncovered_links(&reading);
    Ok(Read { end, links: reading.links().to_vec() })
}

fn run_here<T: Tracking>(
    reading: &mut ReadLoop,
    capture: &mut CaptureFiles,
    mut direct: Direct<T>,
) -> ReadEnd {
    let end = reading.run(capture, &mut direct, position);
    direct.finish(reading.now(), reading.figures());
    end
}

/// A stop interrupts reading standard input, where one can wait for ever.
fn open_captures(
    files: &[PathBuf],
    speed: Speed,
    stop: &Stop,
) -> Result<CaptureFiles, CaptureError> {
    // A batch that waits for its time may wait for longer than a map is safe.
    let options = OpenOptions::new().mmap(speed == Speed::Max);
    if !files.iter().any(|file| file.as_os_str() == "-") {
        return CaptureFiles::open(files, options);
    }
    let stdin = StoppableInput::stdin(stop)
        .map_err(|error| CaptureError::Open { file: "standard input".to_owned(), error })?;
    CaptureFiles::open_with_stdin(files, options, stdin)
}

fn position(capture: &CaptureFiles) -> Position {
    Position { frames: capture.frames(), file_bytes: capture.bytes_read(), ..Position::default() }
}

/// Who tracks.
enum Tracks {
    Here(Box<Direct<FlowTracker<ByFiveTuple>>>),
    HereWithStreams(Box<Direct<FlowDriver<ByFiveTuple>>>),
    Steered(Vec<WorkerParts>),
}

impl Tracks {
    fn new(options: &ReplayOptions, board: &Board) -> anyhow::Result<Self> {
        let handles: Vec<SinkHandle> = board.sinks.iter().map(|(_, sink)| sink.clone()).collect();
        let records = || RecordWriter::new(handles.clone(), options.community_id, WhenFull::Wait);
        let tracker = || FlowTracker::new(options.extractor, options.worker_tracker());
        if let [shard] = board.workers.as_slice() {
            let shard = Arc::clone(shard);
            if !options.reassemble {
                return Ok(Self::Here(Box::new(Direct::new(tracker()?, records(), shard))));
            }
            let streams = ReassemblyConfig::default();
            let driver = FlowDriver::new(options.extractor, options.worker_tracker(), streams)?
                .with_emit_anomalies(true);
            return Ok(Self::HereWithStreams(Box::new(Direct::new(driver, records(), shard))));
        }
        let parts = |shard: &Arc<_>| {
            let shard = Arc::clone(shard);
            Ok(WorkerParts { tracker: tracker()?, records: records(), shard, live: None })
        };
        board.workers.iter().map(parts).collect::<anyhow::Result<_>>().map(Self::Steered)
    }
}
