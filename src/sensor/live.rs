//! A live run: interfaces in, records and metrics out, until a signal.
//!
//! Contract: run to completion. Worker `i` is a pinned thread with queue `i` of every interface, a tracker and its records; frames
//! never change hands. What cannot work is refused before the first frame. At the end nothing new is taken, what is in the
//! rings is tracked, every live flow ends with a record, and the ledger is drawn up: what the queues were offered is what they lost,
//! by reason, and what the workers tracked, filtered or could not match.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use crossbeam_utils::CachePadded;

use super::backends::{self, Again, Opened, Run};
use super::cores::Pinning;
use super::direct::Direct;
use super::http::{Listener, Readiness, Server};
use super::ledger::Ledger;
use super::options::LiveOptions;
use super::ports;
use super::privileges;
use super::queues::Queues;
use super::read::{ReadEnd, ReadLoop};
use super::run::{
    Outcome, SummaryFile, open_outputs, outcome, report, serve, start_sinks,
    warn_of_uncovered_links,
};
use super::shard::{Board, QueueShard, ReaderShard};
use super::stop::Stop;
use super::summary::{RunFacts, Summary};
use super::watch::{Seat, Watch, WatchEnd};
use crate::capture::filter::Filter;
use crate::capture::live::LiveCapture;
use crate::export::sink::SinkHandle;
use crate::export::{RecordWriter, Sink, WhenFull};
use crate::flow::{ByFiveTuple, FlowTracker, TrackerConfig};
use crate::frame::LinkType;
use crate::time::Timestamp;

/// Captures until a signal, and says how it ended. `Err` is for what failed before the first frame, and for bugs.
/// A second SIGINT or SIGTERM ends the process with `code_at_once`.
pub fn run(options: &LiveOptions, code_at_once: i32) -> anyhow::Result<Outcome> {
    let outputs = open_outputs(&options.outputs)?;
    let summary_file = options.summary.as_deref().map(SummaryFile::create).transpose()?;
    let listener = options.metrics.map(Listener::bind).transpose()?;
    let stop = Stop::new();
    // What it sets is put back when it goes: after the queues are closed, and whatever ended the run.
    let _ports = ports::prepare(options, &stop)?;
    if let (Some(user), true) = (&options.user, options.tune) {
        let dir = &options.state_dir;
        user.take_over(dir).with_context(|| format!("{} cannot be given away", dir.display()))?;
    }
    // From here on there are threads, which inherit what is left.
    let needed = privileges::needed(options.wanted.backend, options.tune);
    let kept = privileges::drop_to(needed, options.user.as_ref())?;
    tracing::info!("rights kept: {kept}");
    let mut sinks = start_sinks(outputs)?;
    let handles: Vec<_> = sinks.iter().map(Sink::handle).collect();
    stop.on_signals(code_at_once, Some(move || handles.iter().for_each(SinkHandle::reopen)))
        .context("signals cannot be watched")?;
    let started = Instant::now();
    let launch = Launch { options, stop: stop.clone(), sinks: &sinks, listener };
    let Launched { board, server, workers, watch } = backends::open(&options.wanted, launch)??;
    if let Some(server) = &server {
        server.set_readiness(Readiness::Reading);
    }

    let mut end = ReadEnd::default();
    let mut links: Vec<(LinkType, u64)> = Vec::new();
    for (number, worker) in workers.into_iter().enumerate() {
        let Ok(done) = worker.join() else {
            anyhow::bail!("worker {number} panicked: its flows are lost; please report it");
        };
        end.errors.extend(done.end.errors);
        end.stopped |= done.end.stopped;
        for (link, frames) in done.links {
            match links.iter_mut().find(|(known, _)| *known == link) {
                Some((_, sum)) => *sum += frames,
                None => links.push((link, frames)),
            }
        }
    }
    // Workers may also end because every output failed.
    stop.raise();
    let Ok(watched) = watch.join() else {
        anyhow::bail!("the watch panicked: please report it");
    };
    sinks.iter_mut().for_each(Sink::finish);

    let figures = board.figures();
    let ledger = Ledger::at_end(&figures);
    // A signal is how a live run ends.
    let outcome = match outcome(&figures, &ledger, &end, &stop) {
        Outcome::Interrupted | Outcome::Complete if watched.is_away => Outcome::CaptureBroken,
        Outcome::Interrupted => Outcome::Complete,
        outcome => outcome,
    };
    let facts = RunFacts {
        outcome: outcome.label(),
        errors: watched
            .interruptions
            .into_iter()
            .chain(end.errors.iter().map(ToString::to_string))
            .collect(),
        files: 0,
        elapsed: started.elapsed(),
        links: &links,
        reassembled: false,
        queues: board.queues.iter().map(|queue| (&***queue).into()).collect(),
    };
    let summary = Summary::new(&figures, ledger, facts);
    report(&summary, &board, outcome);
    if let Some(file) = summary_file {
        file.write(&summary)?;
    }
    Ok(outcome)
}

/// What starts the workers, once the captures are open.
struct Launch<'a> {
    options: &'a LiveOptions,
    stop: Stop,
    sinks: &'a [Sink],
    listener: Option<Listener>,
}

/// A run under way.
struct Launched {
    board: Board,
    server: Option<Server>,
    workers: Vec<JoinHandle<Done>>,
    watch: JoinHandle<WatchEnd>,
}

/// What a worker leaves.
struct Done {
    end: ReadEnd,
    links: Vec<(LinkType, u64)>,
}

impl Run for Launch<'_> {
    type Out = anyhow::Result<Launched>;

    fn run<C: LiveCapture + Send + 'static>(
        self,
        captures: Vec<Vec<Opened<C>>>,
        again: Again<C>,
    ) -> anyhow::Result<Launched> {
        let options = self.options;
        let count = captures.len();
        let named = |sink: &Sink| (sink.name().to_owned(), sink.handle());
        let mut board = Board::new(count, count, self.sinks.iter().map(named).collect());
        let mut of_workers = Vec::with_capacity(count);
        let (mut seats, mut posts) = (Vec::new(), Vec::with_capacity(count));
        for (worker, captures) in captures.into_iter().enumerate() {
            let mut queues = Vec::with_capacity(captures.len());
            for (slot, Opened { capture, interface, queue }) in captures.into_iter().enumerate() {
                tracing::info!(worker, "{}", capture.description());
                let port = options.wanted.interfaces.iter().position(|name| *name == interface);
                let port = port.unwrap_or_default();
                seats.push(Seat { port, queue: queue.clone(), worker, slot });
                let shard = Arc::new(CachePadded::new(QueueShard::new(interface, queue)));
                board.queues.push(Arc::clone(&shard));
                queues.push((capture, shard));
            }
            let (post, pulse) = (Arc::default(), Arc::default());
            posts.push(Arc::clone(&post));
            board.pulses.push(Arc::clone(&pulse));
            of_workers.push(Queues::new(queues, post, pulse));
        }
        // Only now is it known how many queues there are to have metrics.
        let server = self.listener.map(|listener| serve(listener, &board)).transpose()?;

        let handles: Vec<SinkHandle> = board.sinks.iter().map(|(_, sink)| sink.clone()).collect();
        let tracker_config = TrackerConfig {
            max_flows: options.tracker.max_flows.div_ceil(count.max(1)),
            ..options.tracker.clone()
        };
        let near = ports::cores_near(&options.wanted.interfaces);
        let pinning = Pinning::choose(count, options.cores.as_ref(), &near)?;
        let mut workers = Vec::with_capacity(count);
        for (number, queues) in of_workers.into_iter().enumerate() {
            let tracker = FlowTracker::new(options.extractor, tracker_config.clone())?;
            let records = RecordWriter::new(handles.clone(), options.community_id, WhenFull::Drop);
            let filter = options.filter.as_deref().map(Filter::compile).transpose()?;
            let shard = Arc::clone(&board.readers[number]);
            let worker = Worker {
                number,
                pinning: pinning.clone(),
                queues,
                reading: ReadLoop::new(
                    filter,
                    None,
                    self.stop.clone(),
                    board.clone(),
                    Arc::clone(&shard),
                )
                .with_clock(wall_clock),
                direct: Direct::new(tracker, records, Arc::clone(&board.workers[number])).live(),
                shard,
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker.run())
                .with_context(|| {
                    format!("worker {number} could not be started: try fewer --workers")
                })?;
            workers.push(thread);
        }
        let watch =
            Watch::new(options.wanted.interfaces.clone(), seats, posts, &board.pulses, again);
        let stop = self.stop;
        let watch = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch.run(&stop))
            .context("the watch could not be started")?;
        Ok(Launched { board, server, workers, watch })
    }
}

/// A pinned thread's work.
struct Worker<C> {
    number: usize,
    pinning: Pinning,
    queues: Queues<C>,
    reading: ReadLoop,
    direct: Direct<FlowTracker<ByFiveTuple>>,
    shard: Arc<CachePadded<ReaderShard>>,
}

impl<C: LiveCapture> Worker<C> {
    fn run(self) -> Done {
        let Self { number, pinning, mut queues, mut reading, mut direct, shard } = self;
        pinning.pin(number);
        let mut end = reading.run(&mut queues, &mut direct, Queues::position);
        if end.stopped {
            if let Err(error) = queues.stop() {
                end.errors.push(error);
            }
            reading.run_out(&mut queues, &mut direct, Queues::position, &mut end);
        }
        direct.finish(reading.now(), reading.figures());
        shard.store(reading.figures());
        warn_of_uncovered_links(&reading);
        Done { end, links: reading.links().to_vec() }
    }
}

/// The time that captured frames are stamped with.
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
