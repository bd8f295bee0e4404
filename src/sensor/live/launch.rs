//! The threads of a live run, started once the captures are open.
//!
//! Contract: two shapes, whose reading loop is the same. Run to completion: worker `i` is a pinned thread with queue `i` of every
//! interface, a tracker and its records; frames never change hands. Steered: one pinned thread reads all queues of all interfaces and
//! hands descriptors to pinned workers; it waits for a slow one, and the rings count what they lose meanwhile. Nobody waits for
//! an output.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use crossbeam_utils::CachePadded;

use crate::capture::live::LiveCapture;
use crate::export::{RecordWriter, Sink, WhenFull};
use crate::flow::ingest::Ingest;
use crate::flow::{ByFiveTuple, FlowTracker};
use crate::frame::LinkType;
use crate::sensor::backends::{Again, Dealt, Opened, Run};
use crate::sensor::cores::Pinning;
use crate::sensor::direct::{Direct, Tracking};
use crate::sensor::http::{Listener, Server};
use crate::sensor::options::LiveOptions;
use crate::sensor::ports;
use crate::sensor::post::Post;
use crate::sensor::queues::Queues;
use crate::sensor::read::{ReadEnd, ReadLoop, Stage};
use crate::sensor::run::{serve, warn_of_uncovered_links};
use crate::sensor::shard::{Board, Pulse, QueueShard, ReaderFigures, ReaderShard, Thread};
use crate::sensor::shunt::ShuntTracker;
use crate::sensor::shunt::yard::Yard;
use crate::sensor::steer::{Steer, WorkerError, WorkerParts};
use crate::sensor::stop::Stop;
use crate::sensor::watch::{Seat, Watch, WatchEnd};
use crate::time::Timestamp;

/// What starts the threads.
pub(super) struct Launch<'a> {
    pub(super) options: &'a LiveOptions,
    pub(super) stop: Stop,
    pub(super) sinks: &'a [Sink],
    pub(super) listener: Option<Listener>,
}

/// A run under way.
pub(super) struct Launched {
    pub(super) board: Board,
    pub(super) server: Option<Server>,
    /// The threads that read.
    pub(super) readers: Vec<JoinHandle<Done>>,
    pub(super) watch: JoinHandle<WatchEnd>,
    /// What shunts; it ends after those that read.
    pub(super) yard: Option<JoinHandle<()>>,
}

/// What a thread that reads leaves.
pub(super) struct Done {
    pub(super) end: ReadEnd,
    pub(super) links: Vec<(LinkType, u64)>,
    /// How the workers ended that it steered to.
    pub(super) steered: Result<(), WorkerError>,
}

impl Run for Launch<'_> {
    type Out = anyhow::Result<Launched>;

    fn run<C: LiveCapture + Send + 'static>(
        self,
        captures: Dealt<C>,
        again: Again<C>,
    ) -> anyhow::Result<Launched> {
        let Self { options, stop, sinks, listener } = self;
        let (lists, steered_to) = match captures {
            Dealt::Workers(lists) => (lists, None),
            Dealt::Reader(captures, workers) => (vec![captures], Some(workers)),
        };
        let workers = steered_to.unwrap_or(lists.len());
        let (asked, near) = (options.cores.as_ref(), ports::cores_near(&options.wanted.interfaces));
        let pinning = match steered_to {
            None => Pinning::choose(workers, asked, &near)?,
            Some(workers) => Pinning::with_reader(workers, asked, &near)?,
        };
        let named = |sink: &Sink| (sink.name().to_owned(), sink.handle());
        let mut board = Board::new(lists.len(), workers, sinks.iter().map(named).collect());
        let threads = (0..workers).map(Thread::Worker).chain(steered_to.map(|_| Thread::Reader));
        board.pulses =
            threads.map(|thread| Arc::new(CachePadded::new(Pulse::new(thread)))).collect();
        let reading = match steered_to {
            None => &board.pulses[..],
            Some(workers) => &board.pulses[workers..],
        }
        .to_vec();
        let Seated { queues, seats, posts } =
            Seated::new(lists, &reading, &options.wanted.interfaces, &mut board);
        // How links are is looked at before anybody is told that frames are read.
        let watch =
            Watch::new(options.wanted.interfaces.clone(), seats, posts, &board.pulses, again);
        // Only now is it known how many queues there are to have metrics.
        let server = listener.map(|listener| serve(listener, &board)).transpose()?;

        let (sides, yard) = match &options.wanted.shunt {
            Some(wanted) => {
                let (sides, yard) = Yard::start(wanted, queues.len())
                    .context("the thread that shunts could not be started")?;
                (Some(sides), Some(yard))
            }
            None => (None, None),
        };
        let threads = Threads { options, stop: &stop, board: &board, pinning };
        let readers = match (steered_to, sides) {
            (None, None) => threads.run_to_completion(queues, Ok)?,
            (None, Some(sides)) => {
                let mut sides = sides.into_iter();
                threads.run_to_completion(queues, |tracker| {
                    let side = sides.next().context("there is a side for each worker")?;
                    Ok(ShuntTracker::new(tracker, side))
                })?
            }
            (Some(_), _) => threads.steered(queues)?,
        };
        let watch = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch.run(&stop))
            .context("the watch could not be started")?;
        Ok(Launched { board, server, readers, watch, yard })
    }
}

/// The captures of each thread that reads, and how the watch finds them.
struct Seated<C> {
    queues: Vec<Queues<C>>,
    seats: Vec<Seat>,
    posts: Vec<Arc<Post<C>>>,
}

impl<C: LiveCapture> Seated<C> {
    /// A list of captures for each of `pulses`; the board learns of their queues.
    fn new(
        lists: Vec<Vec<Opened<C>>>,
        pulses: &[Arc<CachePadded<Pulse>>],
        interfaces: &[String],
        board: &mut Board,
    ) -> Self {
        let mut seated = Self { queues: Vec::new(), seats: Vec::new(), posts: Vec::new() };
        for (reader, (captures, pulse)) in lists.into_iter().zip(pulses).enumerate() {
            let mut queues = Vec::with_capacity(captures.len());
            for (slot, Opened { capture, interface, queue }) in captures.into_iter().enumerate() {
                match pulse.thread() {
                    Thread::Worker(worker) => tracing::info!(worker, "{}", capture.description()),
                    Thread::Reader => tracing::info!("{}", capture.description()),
                }
                let port = interfaces.iter().position(|name| *name == interface);
                let port = port.unwrap_or_default();
                seated.seats.push(Seat { port, queue: queue.clone(), reader, slot });
                let shard = Arc::new(CachePadded::new(QueueShard::new(interface, queue)));
                board.queues.push(Arc::clone(&shard));
                queues.push((capture, shard));
            }
            let post = Arc::default();
            seated.posts.push(Arc::clone(&post));
            seated.queues.push(Queues::new(queues, post, Arc::clone(pulse)));
        }
        seated
    }
}

/// What every thread of a run is made from.
struct Threads<'a> {
    options: &'a LiveOptions,
    stop: &'a Stop,
    board: &'a Board,
    pinning: Pinning,
}

impl Threads<'_> {
    /// A worker for each of `queues`, which reads and tracks, by what `tracking` makes of a tracker.
    fn run_to_completion<C: LiveCapture + Send + 'static, T: Tracking + Send + 'static>(
        self,
        queues: Vec<Queues<C>>,
        mut tracking: impl FnMut(FlowTracker<ByFiveTuple>) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<JoinHandle<Done>>> {
        let worker = |(number, queues)| {
            let shard = Arc::clone(&self.board.workers[number]);
            let tracking = tracking(self.tracker()?)?;
            let direct = Direct::new(tracking, self.records(), shard).live();
            let finish = |direct: Direct<_>, last, figures: &mut _| {
                direct.finish(last, figures);
                Ok(())
            };
            self.start(Thread::Worker(number), number, queues, direct, finish)
        };
        queues.into_iter().enumerate().map(worker).collect()
    }

    /// A reader for all of `queues`, and workers that it steers to.
    fn steered<C: LiveCapture + Send + 'static>(
        self,
        queues: Vec<Queues<C>>,
    ) -> anyhow::Result<Vec<JoinHandle<Done>>> {
        let Self { options, board, .. } = self;
        let parts = |(shard, pulse): (&Arc<_>, &Arc<_>)| {
            anyhow::Ok(WorkerParts {
                tracking: self.tracker()?,
                records: self.records(),
                shard: Arc::clone(shard),
                live: Some(Arc::clone(pulse)),
            })
        };
        let parts = board.workers.iter().zip(&board.pulses).map(parts);
        let parts = parts.collect::<anyhow::Result<Vec<_>>>()?;
        let ingest = Ingest::new(options.extractor, &options.tracker);
        let mut steer = Some(Steer::start(ingest, parts, &self.pinning)?);
        // One list was dealt, for one reader.
        let reader = |queues| {
            let steer = steer.take()?;
            Some(self.start(Thread::Reader, 0, queues, steer, Steer::finish))
        };
        queues.into_iter().filter_map(reader).collect()
    }

    /// A tracker with its share of the flows.
    fn tracker(&self) -> anyhow::Result<FlowTracker<ByFiveTuple>> {
        let mut config = self.options.tracker.clone();
        config.max_flows = config.max_flows.div_ceil(self.board.workers.len().max(1));
        config.touch_memory = true;
        Ok(FlowTracker::new(self.options.extractor, config)?)
    }

    fn records(&self) -> RecordWriter {
        let handles = self.board.sinks.iter().map(|(_, sink)| sink.clone()).collect();
        RecordWriter::new(handles, self.options.community_id, WhenFull::Drop)
    }

    /// Starts a thread that reads, by its number.
    fn start<C: LiveCapture + Send + 'static, S: Stage + Send + 'static>(
        &self,
        thread: Thread,
        number: usize,
        queues: Queues<C>,
        stage: S,
        finish: Finish<S>,
    ) -> anyhow::Result<JoinHandle<Done>> {
        let filter = self.options.wanted.filter.clone();
        let (stop, board) = (self.stop.clone(), self.board.clone());
        let shard = Arc::clone(&board.readers[number]);
        let reading =
            ReadLoop::new(filter, None, stop, board, Arc::clone(&shard)).with_clock(wall_clock);
        let pinning = self.pinning.clone();
        let reader = Reader { queues, reading, stage, finish, shard };
        std::thread::Builder::new()
            .name(thread.name())
            .spawn(move || {
                pinning.pin(thread);
                reader.run()
            })
            .with_context(|| format!("{thread} could not be started: try fewer --workers"))
    }
}

/// How what follows a reading loop ends.
type Finish<S> = fn(S, Timestamp, &mut ReaderFigures) -> Result<(), WorkerError>;

/// The work of a thread that reads.
struct Reader<C, S> {
    queues: Queues<C>,
    reading: ReadLoop,
    stage: S,
    finish: Finish<S>,
    shard: Arc<CachePadded<ReaderShard>>,
}

impl<C: LiveCapture, S: Stage> Reader<C, S> {
    fn run(self) -> Done {
        let Self { mut queues, mut reading, mut stage, finish, shard } = self;
        let mut end = reading.run(&mut queues, &mut stage, Queues::position);
        if end.stopped {
            if let Err(error) = queues.stop() {
                end.errors.push(error);
            }
            reading.run_out(&mut queues, &mut stage, Queues::position, &mut end);
        }
        let steered = finish(stage, reading.now(), reading.figures());
        shard.store(reading.figures());
        warn_of_uncovered_links(&reading);
        Done { end, links: reading.links().to_vec(), steered }
    }
}

/// The time that captured frames are stamped with.
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
