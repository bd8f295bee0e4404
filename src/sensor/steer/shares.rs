//! Steering without packets that travel: every worker reads the whole capture, and keeps the flows that are its own.
//!
//! Contract: what a worker tracks is what a [`Dealer`](super::dealer::Dealer) would have sent it, in the same order and with the same clock.
//! A frame that belongs to another worker [at a glance](glance) is passed over; all others are decoded by everybody, so that every worker knows
//! all fragments, and packets of other workers' flows are thrown away. Where frames can be found in stretches, workers find them
//! [together](super::survey): each glances at some of them, and passes over what another one did. What everybody sees is counted by the first worker, what
//! somebody keeps by who keeps it: the sums are those of one reader. Workers that are told to stop agree on a frame to stop at.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::survey::{Found, Scouting, Survey};
use super::worker::{Worker, WorkerParts};
use super::{WorkerError, name, tell_unmatched};
use crate::capture::stretch::{Pick, Stretches};
use crate::capture::{BATCH_FRAMES_MAX, CaptureError, Upcoming};
use crate::decode::glance::{self, Glance};
use crate::flow::ingest::{Chosen, Ingest, IngestCounters, Seen};
use crate::flow::packet::PacketSink;
use crate::flow::{ByFiveTuple, FlowKey, Packet};
use crate::frame::Frame;
use crate::obs::Hooks;
use crate::prefetch::prefetch;
use crate::sensor::cores::Pinning;
use crate::sensor::direct::PacketTracking;
use crate::sensor::read::{Position, ReadEnd, ReadLoop, Stage};
use crate::sensor::rss::Steering;
use crate::sensor::shard::{ReaderFigures, Thread};
use crate::time::Timestamp;

/// What was seen of frames is asked for so many ahead: another core wrote it.
const GLANCES_AHEAD: usize = 32;

/// What one worker reads with.
#[derive(Debug)]
pub struct Reading<C> {
    /// What reads.
    pub reading: ReadLoop,
    /// What is read.
    pub capture: C,
}

/// Reads a capture to its end, each worker for itself and pinned to its core, and waits for them. The first one reads with `first`,
/// all others with one of `others` each, which are of the same frames and [beside](ReadLoop::beside) it.
///
/// # Errors
/// [`WorkerError`]: a thread that the system refused, or a bug; the other workers end as at the end of the capture.
pub fn read_in_shares<C, P, T>(
    first: &mut Reading<C>,
    mut others: Vec<Reading<C>>,
    position: P,
    ingest: impl Fn() -> Ingest<ByFiveTuple>,
    workers: Vec<WorkerParts<T>>,
    pinning: &Pinning,
) -> Result<ReadEnd, WorkerError>
where
    C: Stretches + Send,
    P: Fn(&C) -> Position + Sync,
    T: PacketTracking + Send,
{
    let count = workers.len();
    debug_assert_eq!(others.len() + 1, count);
    let readings = std::iter::once(first).chain(&mut others);
    let (accord, survey) = (Accord::new(count), Survey::new(count, T::NEEDS_FRAMES));
    let (accord, survey, position) = (&accord, &survey, &position);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut ends = Vec::new();
        let mut result = Ok(());
        for ((worker, parts), reading) in workers.into_iter().enumerate().zip(readings) {
            let seat = Seat::new(accord);
            let share = Share::new(worker, survey.steering.clone(), ingest(), parts);
            let filter = reading.reading.filter().cloned();
            let scouting = Scouting::start(survey, worker, reading.capture.scout(), filter);
            let started = std::thread::Builder::new().name(name(worker)).spawn_scoped(scope, {
                move || {
                    pinning.pin(Thread::Worker(worker));
                    reading.run(share, position, scouting, seat)
                }
            });
            match started {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    result = Err(WorkerError::Start { worker, source });
                    for worker in worker + 1..count {
                        drop(Seat::new(accord));
                        survey.leave(worker);
                    }
                    break;
                }
            }
        }
        for (worker, thread) in threads.into_iter().enumerate() {
            match thread.join() {
                Ok(end) => ends.push(end),
                Err(_) => result = Err(WorkerError::Panicked(worker)),
            }
        }
        result.map(|()| ends.into_iter().reduce(ReadEnd::beside).unwrap_or_default())
    })
}

impl<C: Stretches> Reading<C> {
    fn run(
        &mut self,
        mut share: Share<impl PacketTracking>,
        position: impl Fn(&C) -> Position,
        mut scouting: Option<Scouting<'_, C::Scout>>,
        seat: Seat<'_>,
    ) -> ReadEnd {
        let Self { reading, capture } = self;
        let mut end = reading.run_by(capture, &mut share, &position, |reading, capture, share| {
            share.turn(reading, capture, &mut scouting)
        });
        // Before it meets the others: nobody waits for it here and there.
        drop(scouting);
        let last = seat.meet(reading.frames(), end.stopped);
        reading.run_until(last, capture, &mut share, &position, &mut end);
        share.finish(reading.now(), reading.figures());
        reading.store();
        end
    }
}

/// The flows of one worker, out of all frames.
struct Share<T> {
    ingest: Ingest<ByFiveTuple>,
    own: OwnPackets,
    /// Room for those of a batch.
    chosen: [Chosen; BATCH_FRAMES_MAX],
    tracking: Worker<T>,
    /// The latest time seen.
    latest: Timestamp,
    /// For frames without a key; of the first worker.
    hooks: Hooks,
}

impl<T: PacketTracking> Share<T> {
    fn new(
        worker: usize,
        steering: Steering,
        ingest: Ingest<ByFiveTuple>,
        parts: WorkerParts<T>,
    ) -> Self {
        Self {
            ingest,
            own: OwnPackets {
                steering,
                worker,
                packets: Vec::with_capacity(2 * BATCH_FRAMES_MAX),
                others: 0,
            },
            chosen: [Chosen::default(); BATCH_FRAMES_MAX],
            tracking: Worker::new(parts),
            latest: Timestamp::ZERO,
            hooks: Hooks::default(),
        }
    }

    /// Frames of one stretch, or one batch.
    fn turn<C: Stretches>(
        &mut self,
        reading: &mut ReadLoop,
        capture: &mut C,
        scouting: &mut Option<Scouting<'_, C::Scout>>,
    ) -> Result<Option<()>, CaptureError> {
        let looked = match scouting {
            Some(scouting) => capture.place().map(|place| (place, scouting)),
            None => None,
        };
        let Some((place, scouting)) = looked else {
            // Nobody waits for who does not come by stretches any more.
            *scouting = None;
            return capture
                .with_batch_and_next(|frames, upcoming| reading.batch(frames, upcoming, self));
        };
        let stretch = place / C::STRETCH;
        match scouting.of(stretch) {
            Some(found) if found.follows(place) && !self.may_give_up(&found) => {
                let worker = self.own.worker;
                let mut glances = found.glances(worker);
                capture.pick(found.picks(worker), |frames, picks| {
                    self.picked(frames, picks, &mut glances, found.are_told);
                });
                self.picked(&[], &[], &mut glances, found.are_told);
                reading.count_looked_at(found.link, &found.kept, &found.filtered);
                Ok(Some(()))
            }
            _ => {
                let end = (stretch + 1) * C::STRETCH;
                capture.with_batch_before(end, |frames| {
                    reading.batch(frames, &mut Upcoming::default(), self);
                })
            }
        }
    }

    /// Whether fragments may have to be given up on in a stretch.
    fn may_give_up(&self, found: &Found) -> bool {
        let latest = self.latest.max(found.kept.latest);
        // No fragment begins where all frames were told.
        let earliest = if found.are_told { latest } else { self.latest.min(found.kept.earliest) };
        self.ingest.may_give_up(earliest, latest)
    }

    /// Frames of a stretch that are this worker's, or may be, and what was seen of others up to the next one that is not there.
    fn picked(
        &mut self,
        frames: &[Frame<'_>],
        picks: &[Pick],
        glances: &mut &[Glance],
        are_told: bool,
    ) {
        // The latest time of all stretches before it is the ingest's since it was told the time at their end.
        let latest =
            |(frame, pick): (&Frame<'_>, &Pick)| frame.ts.plus_nanos(u64::from(pick.late_ns));
        let mut picked = frames.iter().zip(picks).enumerate();
        if T::NEEDS_FRAMES {
            let latest = picked.map(|(_, picked)| latest(picked));
            let unmatched = self.ingest.counters().unmatched;
            if are_told {
                self.ingest.batch_between(frames, latest, &mut self.own.packets);
            } else {
                self.ingest.batch_between(frames, latest, &mut self.own);
            }
            return self.ingested(frames, unmatched);
        }
        loop {
            let mut taken = 0;
            let seen = glances.iter().take(BATCH_FRAMES_MAX).map_while(|glance| {
                glances.get(taken + GLANCES_AHEAD).into_iter().for_each(prefetch);
                let seen = if glance.is_told() {
                    Seen::Glance(glance)
                } else {
                    let (index, picked) = picked.next()?;
                    Seen::Frame(index, picked.0, latest(picked))
                };
                taken += 1;
                Some(seen)
            });
            let unmatched = self.ingest.counters().unmatched;
            if are_told {
                self.ingest.batch_seen(seen, &mut self.own.packets);
            } else {
                self.ingest.batch_seen(seen, &mut self.own);
            }
            if taken == 0 {
                return;
            }
            *glances = &glances[taken..];
            self.ingested(frames, unmatched);
        }
    }

    fn batch(&mut self, frames: &[Frame<'_>]) {
        let (mut len, mut are_told) = (0, true);
        let (mut earliest, mut latest) = (self.latest, self.latest);
        for (index, frame) in (0..).zip(frames) {
            (earliest, latest) = (earliest.min(frame.ts), latest.max(frame.ts));
            // Without a branch, which would be guessed wrongly as often as not.
            self.chosen[len] = Chosen { index, latest };
            let words = glance::words(frame);
            are_told &= words.is_some();
            len += usize::from(words.is_none_or(|words| self.own.is_ours(words)));
        }
        self.latest = latest;
        // A frame that is passed over may be the one that shows that it is time to. No fragment begins where all frames were told.
        let earliest = if are_told { latest } else { earliest };
        let chosen = &self.chosen[..len];
        let unmatched = self.ingest.counters().unmatched;
        if self.ingest.may_give_up(earliest, latest) {
            self.ingest.batch(frames, &mut self.own);
        } else if are_told {
            self.ingest.batch_of(frames, chosen, &mut self.own.packets);
        } else {
            self.ingest.batch_of(frames, chosen, &mut self.own);
        }
        self.ingested(frames, unmatched);
    }

    /// Tracks the packets of these frames, before which so many had no key.
    fn ingested(&mut self, frames: &[Frame<'_>], unmatched: u64) {
        if self.own.worker == 0 {
            tell_unmatched(&mut self.hooks, self.ingest.counters().unmatched - unmatched);
        }
        self.track(frames);
    }

    fn track(&mut self, frames: &[Frame<'_>]) {
        if !self.own.packets.is_empty() {
            self.tracking.take(&self.own.packets, frames);
            self.own.packets.clear();
        }
    }

    /// What this worker counts of where the frames went.
    fn counters(&self) -> IngestCounters {
        let all = self.ingest.counters();
        let packets = all.packets - self.own.others;
        if self.own.worker == 0 {
            IngestCounters { frames: packets + all.unmatched + all.held, packets, ..*all }
        } else {
            IngestCounters { frames: packets, packets, ..IngestCounters::default() }
        }
    }

    /// The capture is over at `last`.
    fn finish(mut self, last: Timestamp, figures: &mut ReaderFigures) {
        self.tick(last, figures);
        self.ingest.drain(&mut self.own);
        self.track(&[]);
        figures.set_ingest(&self.counters());
        self.tracking.finish();
    }
}

impl<T: PacketTracking> Stage for Share<T> {
    #[inline]
    fn frames(&mut self, frames: &[Frame<'_>], _: &mut Upcoming<'_>) {
        frames.chunks(BATCH_FRAMES_MAX).for_each(|frames| self.batch(frames));
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        self.latest = self.latest.max(now);
        self.ingest.handle_timeout(now, &mut self.own);
        self.track(&[]);
        self.tracking.tick(now);
        figures.set_ingest(&self.counters());
    }

    fn flush(&mut self) {
        self.tracking.rest();
    }
}

/// Packets of one worker's flows.
struct OwnPackets {
    steering: Steering,
    worker: usize,
    packets: Vec<Packet<FlowKey>>,
    /// Frames in packets of other workers' flows.
    others: u64,
}

impl OwnPackets {
    /// Whether flows with these words in their addresses and ports are this worker's.
    #[inline(always)]
    fn is_ours(&self, words: u16) -> bool {
        self.steering.worker_by_words(words) == self.worker
    }
}

impl PacketSink<FlowKey> for OwnPackets {
    #[inline(always)]
    fn push(&mut self, packet: Packet<FlowKey>) {
        if self.steering.worker(&packet.key) == self.worker {
            self.packets.push(packet);
        } else {
            self.others += u64::from(packet.frames);
        }
    }
}

/// Where workers that stop meet, to stop at the same frame.
#[derive(Debug)]
struct Accord {
    meeting: Mutex<Meeting>,
    all_came: Condvar,
}

#[derive(Debug)]
struct Meeting {
    /// Workers that have not come.
    awaited: usize,
    /// Frames that the one had read who was furthest.
    furthest: u64,
}

impl Accord {
    fn new(workers: usize) -> Self {
        let meeting = Mutex::new(Meeting { awaited: workers, furthest: 0 });
        Self { meeting, all_came: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Meeting> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come(&self, frames: u64) -> MutexGuard<'_, Meeting> {
        let mut meeting = self.lock();
        meeting.furthest = meeting.furthest.max(frames);
        meeting.awaited -= 1;
        if meeting.awaited == 0 {
            self.all_came.notify_all();
        }
        meeting
    }
}

/// A worker's place at the meeting; who goes without a word, as in a panic, is not waited for.
struct Seat<'a> {
    accord: Option<&'a Accord>,
}

impl<'a> Seat<'a> {
    fn new(accord: &'a Accord) -> Self {
        Self { accord: Some(accord) }
    }

    /// How many frames all are to read. Who has read the whole capture knows; who was told to stop waits for the others.
    fn meet(mut self, frames: u64, is_stopped: bool) -> u64 {
        let Some(accord) = self.accord.take() else { return frames };
        let meeting = accord.come(frames);
        if !is_stopped {
            return frames;
        }
        let all = accord.all_came.wait_while(meeting, |meeting| meeting.awaited > 0);
        all.unwrap_or_else(PoisonError::into_inner).furthest
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(accord) = self.accord {
            drop(accord.come(0));
        }
    }
}
