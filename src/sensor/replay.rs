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
use super::direct::{Direct, PacketTracking};
use super::http::{Listener, Readiness, Server};
use super::input::{StoppableInput, Stopped};
use super::ledger::Ledger;
use super::options::{ReplayOptions, Speed};
use super::pace::Pacer;
use super::pages::Growing;
use super::progress::Progress;
use super::read::{Position, ReadEnd, ReadLoop};
use super::run::{
    Outcome, SummaryFile, open_outputs, outcome, report, serve, start_sinks,
    warn_of_uncovered_links,
};
use super::shard::{Board, Thread};
use super::steer::{Reading, Steer, WorkerError, WorkerParts, read_in_shares};
use super::stop::Stop;
use super::summary::{RunFacts, Summary};
use crate::capture::CaptureError;
use crate::capture::file::{CaptureFiles, OpenOptions};
use crate::driver::FlowDriver;
use crate::export::sink::{SinkHandle, WrittenBy};
use crate::export::{RecordWriter, Sink, WhenFull};
use crate::flow::FlowTracker;
use crate::flow::ingest::Ingest;

/// Replays, and says how it ended. `Err` is for what failed before the first frame, and for bugs.
/// A second SIGINT or SIGTERM ends the process with `code_at_once`.
pub fn run(mut options: ReplayOptions, code_at_once: i32) -> anyhow::Result<Outcome> {
    let stop = Stop::new();
    stop.on_signals(code_at_once, None::<fn()>).context("signals cannot be watched")?;
    let has_all = allowed().len() <= options.workers;
    let by = if has_all { WrittenBy::Giver } else { WrittenBy::Thread };
    let mut sinks = start_sinks(open_outputs(&options.outputs)?, by)?;
    let summary_file = options.summary.as_deref().map(SummaryFile::create).transpose()?;
    let named = |sink: &Sink| (sink.name().to_owned(), sink.handle());
    let board = Board::new(options.workers, options.workers, sinks.iter().map(named).collect());
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

/// How many files all workers together read at most, for each may have a buffer of a quarter of a mebibyte: beyond that one thread reads
/// for all.
const READERS_MAX: usize = 1024;

/// What reading gave.
struct Read {
    end: ReadEnd,
    links: Vec<(crate::frame::LinkType, u64)>,
}

fn read(
    options: &mut ReplayOptions,
    capture: CaptureFiles,
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
    let filter = options.filter.take();
    let looping = |number: usize, pacer| {
        let shard = Arc::clone(&board.readers[number]);
        ReadLoop::new(filter.clone(), pacer, stop.clone(), board.clone(), shard)
    };
    let (workers, asked) = (options.workers, options.cores.as_ref());
    // What is read as fast as it goes, and can be read more than once, every worker reads for itself.
    let is_alone = options.speed == Speed::Max && options.files.len() * workers <= READERS_MAX;
    let others = if is_alone { again(&capture, workers - 1)? } else { Vec::new() };
    let beside = |(number, capture)| Reading { reading: looping(number, None).beside(), capture };
    let others: Vec<_> = (1..).zip(others).map(beside).collect();
    let is_steered = others.len() + 1 < workers;
    if is_steered && options.reassemble {
        anyhow::bail!(
            "--reassemble needs the frames' bytes, which with --workers {workers} are there only where every worker reads for itself: \
             give at most {} files, not compressed, at the highest speed, or leave out --workers",
            READERS_MAX / workers
        );
    }
    let threads = workers + usize::from(is_steered);
    let pinning = match asked {
        // One thread that reads and tracks is left alone, unless it is told where to be.
        None if workers == 1 => Pinning::default(),
        // Nor are more threads than cores: where another happens to be, a worker that cannot leave falls behind.
        None if allowed().len() < threads => Pinning::default(),
        _ => Pinning::choose(workers, asked, &[])?,
    };
    if let Some(server) = server {
        server.set_readiness(Readiness::Reading);
    }
    let mut readings = Readings { first: Reading { reading: looping(0, pacer), capture }, others };
    let tracker =
        || Ok(Growing::new(FlowTracker::new(options.extractor, options.worker_tracker())?));
    let end = if options.reassemble {
        let driver = || {
            let streams = options.worker_streams();
            let driver = FlowDriver::new(options.extractor, options.worker_tracker(), streams)?;
            Ok(Growing::new(driver.with_emit_anomalies(true)))
        };
        readings.track(parts(options, board, driver)?, options, &pinning)?
    } else if is_steered {
        readings.steer(parts(options, board, tracker)?, options, &pinning)?
    } else {
        readings.track(parts(options, board, tracker)?, options, &pinning)?
    };
    let reading = &mut readings.first.reading;
    reading.store();
    warn_of_uncovered_links(reading);
    Ok(Read { end, links: reading.links().to_vec() })
}

/// What is read, by whom.
struct Readings {
    first: Reading<CaptureFiles>,
    /// Where more than one worker reads for itself.
    others: Vec<Reading<CaptureFiles>>,
}

impl Readings {
    /// Each worker reads for itself.
    fn track<T: PacketTracking + Send>(
        &mut self,
        workers: Vec<WorkerParts<T>>,
        options: &ReplayOptions,
        pinning: &Pinning,
    ) -> Result<ReadEnd, WorkerError> {
        let Self { first, others } = self;
        match <[_; 1]>::try_from(workers) {
            Ok([WorkerParts { tracking, records, shard, .. }]) => {
                pinning.pin(Thread::Worker(0));
                let Reading { reading, capture } = first;
                let mut direct = Direct::new(tracking, records, shard);
                let end = reading.run(capture, &mut direct, position);
                direct.finish(reading.now(), reading.figures());
                Ok(end)
            }
            Err(workers) => {
                let ingest = || Ingest::new(options.extractor, &options.tracker);
                read_in_shares(first, std::mem::take(others), position, ingest, workers, pinning)
            }
        }
    }

    /// This thread reads for the workers.
    fn steer<T: PacketTracking + Send + 'static>(
        &mut self,
        workers: Vec<WorkerParts<T>>,
        options: &ReplayOptions,
        pinning: &Pinning,
    ) -> Result<ReadEnd, WorkerError> {
        let Reading { reading, capture } = &mut self.first;
        let ingest = Ingest::new(options.extractor, &options.tracker);
        let mut steer = Steer::start(ingest, workers, pinning)?;
        let end = reading.run(capture, &mut steer, position);
        steer.finish(reading.now(), reading.figures())?;
        Ok(end)
    }
}

/// The same capture so many times more; none of one that is to be read once.
fn again(capture: &CaptureFiles, times: usize) -> Result<Vec<CaptureFiles>, CaptureError> {
    let all: Option<Vec<_>> = (0..times).map(|_| capture.again()).collect::<Result<_, _>>()?;
    Ok(all.unwrap_or_default())
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

/// What the workers are made of.
fn parts<T>(
    options: &ReplayOptions,
    board: &Board,
    tracking: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<WorkerParts<T>>> {
    let handles: Vec<SinkHandle> = board.sinks.iter().map(|(_, sink)| sink.clone()).collect();
    let parts = |shard: &Arc<_>| {
        Ok(WorkerParts {
            tracking: tracking()?,
            records: RecordWriter::new(handles.clone(), options.community_id, WhenFull::Wait),
            shard: Arc::clone(shard),
            live: None,
        })
    };
    board.workers.iter().map(parts).collect()
}
