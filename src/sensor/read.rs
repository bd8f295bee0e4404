//! The reading loop: capture → pace → filter → what follows, a batch at a time.
//!
//! Contract: generic over the capture and over what follows, so that both are inlined; the same loop
//! for every backend and for both shapes. Every frame that the capture hands over is counted as
//! delivered once, and then as filtered or handed on.

use std::ops::ControlFlow;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::input::Stopped;
use super::pace::Pacer;
use super::shard::{Board, ReaderFigures, ReaderShard};
use super::stop::Stop;
use crate::capture::filter::Filter;
use crate::capture::live::DropReason;
use crate::capture::stretch::Tally;
use crate::capture::{BATCH_FRAMES_MAX, Capture, CaptureError, Upcoming};
use crate::export::sink::SinkHandle;
use crate::frame::{Frame, LinkType};
use crate::time::Timestamp;

/// What follows the reading loop.
pub trait Stage {
    /// Takes frames, in order, after which others come.
    fn frames(&mut self, frames: &[Frame<'_>], upcoming: &mut Upcoming<'_>);

    /// The capture's clock stands at `now`: timers run, figures are published.
    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures);

    /// Hands on what waits to be handed on in larger pieces: the source may be quiet for a while.
    fn flush(&mut self);
}

/// Link types that are told apart in the summary; frames of others are counted as one.
const LINKS_MAX: usize = 16;

/// Stands for all link types after the first 15.
pub const OTHER_LINKS: LinkType = LinkType(u16::MAX);

/// The loop, and what it counted.
#[derive(Debug)]
pub struct ReadLoop {
    filter: Option<Filter>,
    pacer: Option<Pacer>,
    stop: Stop,
    board: Board,
    shard: Arc<CachePadded<ReaderShard>>,
    /// What time it is while nothing comes; without it, the capture's time stands still then.
    clock: Option<fn() -> Timestamp>,
    /// Whether the last batch was empty.
    is_idle: bool,
    figures: ReaderFigures,
    links: Vec<(LinkType, u64)>,
    now: Timestamp,
    /// Reading goes no further than so many frames.
    until: u64,
    /// Whether another loop counts what both read.
    is_beside: bool,
}

/// How far a capture is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Frames that it had for us.
    pub frames: u64,
    /// Those of them that were lost, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Those of them that were counted for their flow and not handed on.
    pub shunted: u64,
    /// Their bytes on the wire.
    pub shunted_bytes: u64,
    /// Bytes that it read, as stored.
    pub file_bytes: u64,
}

/// How reading ended.
#[derive(Debug, Default)]
pub struct ReadEnd {
    /// What broke on the way.
    pub errors: Vec<CaptureError>,
    /// Whether it ended before the capture did.
    pub stopped: bool,
}

impl ReadEnd {
    /// How it ended for all, where several read the same frames: what broke is told once.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        let errors = if self.errors.is_empty() { other.errors } else { self.errors };
        Self { errors, stopped: self.stopped && other.stopped }
    }
}

impl ReadLoop {
    /// A loop that counts into one of the board's reader shards.
    pub fn new(
        filter: Option<Filter>,
        pacer: Option<Pacer>,
        stop: Stop,
        board: Board,
        shard: Arc<CachePadded<ReaderShard>>,
    ) -> Self {
        Self {
            filter,
            pacer,
            stop,
            board,
            shard,
            clock: None,
            is_idle: false,
            figures: ReaderFigures::default(),
            links: Vec::with_capacity(LINKS_MAX),
            now: Timestamp::ZERO,
            until: u64::MAX,
            is_beside: false,
        }
    }

    /// One that reads what another reads too: that one counts it, this one only what its stage [makes](Stage::tick) of it.
    #[must_use]
    pub fn beside(self) -> Self {
        Self { is_beside: true, ..self }
    }

    /// Looks at a clock with every empty batch, so that time goes on while nothing comes.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Reads until the end of the capture, a stop, or until every output has failed.
    /// `position` is asked once a batch how far the capture is.
    pub fn run<C: Capture, S: Stage>(
        &mut self,
        capture: &mut C,
        stage: &mut S,
        position: impl Fn(&C) -> Position,
    ) -> ReadEnd {
        self.run_by(capture, stage, position, Self::read)
    }

    /// The same by another way of reading than a batch of all frames at a time.
    pub(super) fn run_by<C, S: Stage>(
        &mut self,
        capture: &mut C,
        stage: &mut S,
        position: impl Fn(&C) -> Position,
        mut read: impl FnMut(&mut Self, &mut C, &mut S) -> Result<Option<()>, CaptureError>,
    ) -> ReadEnd {
        let mut end = ReadEnd::default();
        while self.step_by(capture, stage, &position, &mut end, &mut read).is_continue() {}
        end
    }

    /// One batch of [`run`](Self::run); `Break` at its end.
    pub fn step<C: Capture, S: Stage>(
        &mut self,
        capture: &mut C,
        stage: &mut S,
        position: &impl Fn(&C) -> Position,
        end: &mut ReadEnd,
    ) -> ControlFlow<()> {
        self.step_by(capture, stage, position, end, Self::read)
    }

    fn step_by<C, S: Stage>(
        &mut self,
        capture: &mut C,
        stage: &mut S,
        position: &impl Fn(&C) -> Position,
        end: &mut ReadEnd,
        read: impl FnOnce(&mut Self, &mut C, &mut S) -> Result<Option<()>, CaptureError>,
    ) -> ControlFlow<()> {
        end.stopped = self.stop.raised() || self.outputs_failed();
        if !end.stopped && self.turn(capture, stage, position, end, read) {
            return ControlFlow::Continue(());
        }
        self.publish(stage, position(capture));
        ControlFlow::Break(())
    }

    /// Reads what a capture that was told to stop still has.
    pub fn run_out<C: Capture, S: Stage>(
        &mut self,
        capture: &mut C,
        stage: &mut S,
        position: impl Fn(&C) -> Position,
        end: &mut ReadEnd,
    ) {
        self.run_until(u64::MAX, capture, stage, position, end);
    }

    /// Goes on to so many frames of the whole capture, or its end, whoever says stop.
    pub fn run_until<C: Capture, S: Stage>(
        &mut self,
        frames: u64,
        capture: &mut C,
        stage: &mut S,
        position: impl Fn(&C) -> Position,
        end: &mut ReadEnd,
    ) {
        self.until = frames;
        while self.frames() < frames && self.turn(capture, stage, &position, end, Self::read) {}
        self.publish(stage, position(capture));
    }

    /// One batch; `false` at the end of the capture.
    fn turn<C, S: Stage>(
        &mut self,
        capture: &mut C,
        stage: &mut S,
        position: &impl Fn(&C) -> Position,
        end: &mut ReadEnd,
        read: impl FnOnce(&mut Self, &mut C, &mut S) -> Result<Option<()>, CaptureError>,
    ) -> bool {
        match read(self, capture, stage) {
            Ok(Some(())) => self.publish(stage, position(capture)),
            Ok(None) => return false,
            // What was told to stop is not broken: the flag says so at the next turn.
            Err(error) if Stopped::is(&error) => {}
            // Others of several files may have more.
            Err(error) => end.errors.push(error),
        }
        true
    }

    /// Hands on the next batch.
    fn read<C: Capture, S: Stage>(
        &mut self,
        capture: &mut C,
        stage: &mut S,
    ) -> Result<Option<()>, CaptureError> {
        capture.with_batch_and_next(|frames, upcoming| self.batch(frames, upcoming, stage))
    }

    /// The latest time seen.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Frames that it read and that were due.
    pub fn frames(&self) -> u64 {
        self.figures.delivered
    }

    /// Publishes what was counted.
    pub fn store(&mut self) {
        if self.is_beside {
            self.shard.store(&mut self.figures.of_stage());
        } else {
            self.shard.store(&mut self.figures);
        }
    }

    /// What was counted; the caller adds what happens after the end.
    pub fn figures(&mut self) -> &mut ReaderFigures {
        &mut self.figures
    }

    /// Frames by link type.
    pub fn links(&self) -> &[(LinkType, u64)] {
        &self.links
    }

    /// The filter.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    fn outputs_failed(&self) -> bool {
        let mut sinks = self.board.sinks.iter().map(|(_, sink)| sink).peekable();
        sinks.peek().is_some() && sinks.all(SinkHandle::failed)
    }

    fn publish<S: Stage>(&mut self, stage: &mut S, position: Position) {
        self.figures.file_bytes = position.file_bytes;
        self.figures.offered = position.frames;
        self.figures.dropped = position.dropped;
        self.figures.shunted = position.shunted;
        self.figures.shunted_bytes = position.shunted_bytes;
        // While frames wait, it is as late as they say: a flow must not be over before its frames were looked at.
        let Some(clock) = self.clock.filter(|_| self.is_idle) else { return self.tick(stage) };
        self.now = self.now.max(clock());
        self.tick(stage);
        stage.flush();
    }

    fn tick<S: Stage>(&mut self, stage: &mut S) {
        stage.tick(self.now, &mut self.figures);
        self.store();
    }

    /// Hands on frames that are due.
    pub(super) fn batch<S: Stage>(
        &mut self,
        frames: &[Frame<'_>],
        upcoming: &mut Upcoming<'_>,
        stage: &mut S,
    ) {
        self.is_idle = frames.is_empty();
        let room = usize::try_from(self.until - self.frames()).unwrap_or(usize::MAX);
        let (frames, beyond) = frames.split_at(room.min(frames.len()));
        self.figures.not_due += beyond.len() as u64;
        if self.pacer.is_none() {
            return self.due(frames, upcoming, stage);
        }
        let mut rest = frames;
        while let Some(next) = rest.first() {
            let Some(pacer) = &mut self.pacer else { return };
            let clock = pacer.now(next.ts);
            let ready = rest.iter().take_while(|frame| frame.ts <= clock).count();
            let (due, later) = rest.split_at(ready);
            rest = later;
            if !due.is_empty() {
                self.due(due, upcoming, stage);
                continue;
            }
            stage.flush();
            let Some(pacer) = &mut self.pacer else { return };
            if !pacer.sleep_towards(next.ts) {
                self.figures.not_due += rest.len() as u64;
                return;
            }
            self.now = self.now.max(clock.min(next.ts));
            self.tick(stage);
        }
    }

    /// Frames whose time has come.
    fn due<S: Stage>(&mut self, frames: &[Frame<'_>], upcoming: &mut Upcoming<'_>, stage: &mut S) {
        self.tally(frames);
        let Some(filter) = &self.filter else { return stage.frames(frames, upcoming) };
        let Some(&first) = frames.first() else { return };
        let mut kept = [first; BATCH_FRAMES_MAX];
        for frames in frames.chunks(BATCH_FRAMES_MAX) {
            let mut len = 0;
            for frame in frames {
                if filter.matches(frame) {
                    kept[len] = *frame;
                    len += 1;
                } else {
                    self.figures.filtered += 1;
                    self.figures.filtered_bytes += u64::from(frame.wire_len);
                }
            }
            stage.frames(&kept[..len], upcoming);
        }
    }

    fn tally(&mut self, frames: &[Frame<'_>]) {
        let Some(first) = frames.first() else { return };
        let mut tally = Tally::default();
        let mut run = (first.link, 0);
        for frame in frames {
            tally.add(frame);
            if frame.link != run.0 {
                count_link(&mut self.links, run);
                run = (frame.link, 0);
            }
            run.1 += 1;
        }
        count_link(&mut self.links, run);
        self.count(&tally);
    }

    /// Counts frames that somebody else looked at for us, and those among them that the filter does not want.
    pub(super) fn count_looked_at(&mut self, link: LinkType, kept: &Tally, filtered: &Tally) {
        self.is_idle = false;
        for tally in [kept, filtered] {
            if tally.frames > 0 {
                count_link(&mut self.links, (link, tally.frames));
                self.count(tally);
            }
        }
        self.figures.filtered += filtered.frames;
        self.figures.filtered_bytes += filtered.bytes;
    }

    fn count(&mut self, tally: &Tally) {
        let figures = &mut self.figures;
        if figures.delivered == 0 || tally.earliest.as_nanos() < figures.first_ns {
            figures.first_ns = tally.earliest.as_nanos();
        }
        self.now = self.now.max(tally.latest);
        figures.last_ns = figures.last_ns.max(tally.latest.as_nanos());
        figures.delivered += tally.frames;
        figures.delivered_bytes += tally.bytes;
    }
}

fn count_link(links: &mut Vec<(LinkType, u64)>, (link, frames): (LinkType, u64)) {
    if let Some((_, count)) = links.iter_mut().find(|(known, _)| *known == link) {
        *count += frames;
    } else if links.len() < LINKS_MAX {
        links.push((link, frames));
    } else if let Some(others) = links.last_mut() {
        *others = (OTHER_LINKS, others.1 + frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame of long ago, then nothing, then the end.
    struct Quiet(u32);

    impl Capture for Quiet {
        fn with_batch<R>(
            &mut self,
            f: impl FnOnce(&[Frame<'_>]) -> R,
        ) -> Result<Option<R>, CaptureError> {
            self.0 += 1;
            let frame = Frame {
                ts: Timestamp::new(1_000, 0),
                wire_len: 60,
                link: LinkType::ETHERNET,
                interface: 0,
                data: &[0; 60],
            };
            Ok(match self.0 {
                1 => Some(f(&[frame])),
                2 => Some(f(&[])),
                _ => None,
            })
        }
    }

    /// What it was told of the time.
    #[derive(Default)]
    struct Told(Vec<u64>);

    impl Stage for Told {
        fn frames(&mut self, _: &[Frame<'_>], _: &mut Upcoming<'_>) {}

        fn tick(&mut self, now: Timestamp, _: &mut ReaderFigures) {
            self.0.push(now.as_nanos() / 1_000_000_000);
        }

        fn flush(&mut self) {}
    }

    #[test]
    fn the_clock_is_looked_at_only_when_nothing_waits() {
        let board = Board::new(1, 1, Vec::new());
        let shard = Arc::clone(&board.readers[0]);
        let mut reading = ReadLoop::new(None, None, Stop::new(), board, shard)
            .with_clock(|| Timestamp::new(5_000, 0));
        let mut told = Told::default();
        reading.run(&mut Quiet(0), &mut told, |_| Position::default());
        assert_eq!(told.0[..2], [1_000, 5_000]);
    }
}
