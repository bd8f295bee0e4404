//! Several live captures read as one: a worker has one queue of every interface.
//!
//! Contract: frames are lent by one capture at a time, in turn; an empty batch says that none of them had a frame. Who waits for frames is the capture where there is
//! one, and this where there are several; those are to be opened so that they do not wait. What became of a queue's frames
//! is looked at once a second, and for the last time when it ended. A capture that ends is told to the [watch](super::watch), which may send
//! another in its place: the counts go on. All is over only after a stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::post::{Loss, Post};
use super::read::Position;
use super::shard::{Pulse, QueueShard};
use crate::capture::live::{LiveCapture, QueueCounts};
use crate::capture::{Capture, CaptureError};
use crate::frame::Frame;

/// How often a queue's counts are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long all queues are left alone after a round in which none had a frame. A ring of 16 384 frames takes that long
/// at 30 M frames a second.
const REST: Duration = Duration::from_micros(500);

/// The same while there is no queue at all.
const REST_WITHOUT_QUEUES: Duration = Duration::from_millis(20);

/// A queue's capture, and where its counts are published.
#[derive(Debug)]
struct Queue<C> {
    /// None once it ended, until another takes its place.
    capture: Option<C>,
    shard: Arc<CachePadded<QueueShard>>,
    /// Those of the captures before this one.
    before: QueueCounts,
    counts: QueueCounts,
}

impl<C: LiveCapture> Queue<C> {
    fn look(&mut self) {
        // What cannot be read now stays what it was: the ledger would say so at the end.
        if let Some(capture) = &mut self.capture
            && let Ok(counts) = capture.counts()
        {
            self.counts = self.before.plus(&counts);
            self.shard.store(&self.counts);
        }
    }

    /// The capture is over: its counts are final.
    fn close(&mut self) {
        self.look();
        self.before = self.counts;
        if let Some(remark) = self.capture.take().and_then(|capture| capture.remark()) {
            tracing::warn!("{remark}");
        }
    }
}

/// The captures of one worker.
#[derive(Debug)]
pub struct Queues<C> {
    queues: Vec<Queue<C>>,
    next: usize,
    looked: Instant,
    post: Arc<Post<C>>,
    pulse: Arc<CachePadded<Pulse>>,
    turns: u64,
    is_stopped: bool,
}

impl<C: LiveCapture> Queues<C> {
    /// Reads from all of them, in turn. `pulse` beats with every batch.
    pub fn new(
        captures: Vec<(C, Arc<CachePadded<QueueShard>>)>,
        post: Arc<Post<C>>,
        pulse: Arc<CachePadded<Pulse>>,
    ) -> Self {
        let queue = |(capture, shard)| Queue {
            capture: Some(capture),
            shard,
            before: QueueCounts::default(),
            counts: QueueCounts::default(),
        };
        let queues = captures.into_iter().map(queue).collect();
        Self { queues, next: 0, looked: Instant::now(), post, pulse, turns: 0, is_stopped: false }
    }

    /// No new frames are taken from now on; those in the rings still come.
    ///
    /// # Errors
    /// The first refusal; the others were told all the same.
    pub fn stop(&mut self) -> Result<(), CaptureError> {
        self.take_arrivals();
        self.is_stopped = true;
        let mut result = Ok(());
        for capture in self.queues.iter_mut().filter_map(|queue| queue.capture.as_mut()) {
            result = result.and(capture.stop());
        }
        result
    }

    /// What became of the frames of all of them, as far as it was looked at.
    pub fn position(&self) -> Position {
        let mut position = Position::default();
        for Queue { counts, .. } in &self.queues {
            position.frames += counts.offered;
            position.shunted += counts.shunted;
            position.shunted_bytes += counts.shunted_bytes;
            for (sum, dropped) in position.dropped.iter_mut().zip(counts.dropped) {
                *sum += dropped;
            }
        }
        position
    }

    fn look_if_due(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.queues.iter_mut().for_each(Queue::look);
            self.take_arrivals();
        }
    }

    fn take_arrivals(&mut self) {
        for (slot, capture) in self.post.arrivals() {
            if let Some(queue) = self.queues.get_mut(slot) {
                queue.capture = Some(capture);
            }
        }
    }
}

impl<C: LiveCapture> Capture for Queues<C> {
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        self.turns = self.turns.wrapping_add(1);
        self.pulse.beat(self.turns);
        let mut f = Some(f);
        let mut open = 0;
        for _ in 0..self.queues.len() {
            let slot = self.next;
            self.next = (self.next + 1) % self.queues.len();
            let queue = &mut self.queues[slot];
            let Some(capture) = &mut queue.capture else { continue };
            // An empty batch is kept back while another queue may have frames.
            let taken = capture.with_batch(|frames| match frames {
                [] => None,
                frames => f.take().map(|f| f(frames)),
            });
            match taken {
                Ok(Some(None)) => open += 1,
                Ok(Some(Some(result))) => {
                    self.look_if_due();
                    return Ok(Some(result));
                }
                Ok(None) => {
                    queue.close();
                    if !self.is_stopped {
                        self.post.lose(Loss { slot, error: None });
                    }
                }
                Err(error) if self.is_stopped => return Err(error),
                Err(error) => {
                    open += 1;
                    self.post.lose(Loss { slot, error: Some(error) });
                }
            }
        }
        match open {
            0 if self.is_stopped => return Ok(None),
            0 => std::thread::sleep(REST_WITHOUT_QUEUES),
            _ if self.queues.len() > 1 => std::thread::sleep(REST),
            _ => {}
        }
        self.look_if_due();
        Ok(f.take().map(|f| f(&[])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::live::DropReason;
    use crate::frame::LinkType;
    use crate::sensor::shard::Thread;
    use crate::time::Timestamp;

    /// Gives so many batches of one frame, then empty ones until it is stopped.
    struct Script {
        frames: u64,
        given: u64,
        breaks: bool,
        stopped: bool,
    }

    impl Capture for Script {
        fn with_batch<R>(
            &mut self,
            f: impl FnOnce(&[Frame<'_>]) -> R,
        ) -> Result<Option<R>, CaptureError> {
            if self.given == self.frames {
                if std::mem::take(&mut self.breaks) {
                    self.stopped = true;
                    return Err(CaptureError::NoFile);
                }
                return Ok(if self.stopped { None } else { Some(f(&[])) });
            }
            self.given += 1;
            let data = [self.frames as u8; 60];
            let frame = Frame {
                ts: Timestamp::from_nanos(self.given),
                wire_len: 60,
                link: LinkType::ETHERNET,
                interface: 0,
                data: &data,
            };
            Ok(Some(f(&[frame])))
        }
    }

    impl LiveCapture for Script {
        fn counts(&mut self) -> Result<QueueCounts, CaptureError> {
            let mut dropped = [0; DropReason::ALL.len()];
            dropped[DropReason::RingFull as usize] = 1;
            let (offered, delivered) = (self.given + 1, self.given);
            Ok(QueueCounts { offered, delivered, dropped, ..QueueCounts::default() })
        }

        fn stop(&mut self) -> Result<(), CaptureError> {
            self.stopped = true;
            Ok(())
        }

        fn description(&self) -> String {
            "a script".to_owned()
        }
    }

    type Shards = Vec<Arc<CachePadded<QueueShard>>>;

    fn queues(scripts: &[(u64, bool)]) -> (Queues<Script>, Shards, Arc<Post<Script>>) {
        let shards: Vec<_> = (0..scripts.len())
            .map(|queue| Arc::new(CachePadded::new(QueueShard::new("x".into(), queue.to_string()))))
            .collect();
        let script = |&(frames, breaks)| Script { frames, given: 0, breaks, stopped: false };
        let captures = scripts.iter().map(script).zip(shards.iter().cloned()).collect();
        let post = Arc::new(Post::default());
        let pulse = Arc::new(CachePadded::new(Pulse::new(Thread::Worker(0))));
        (Queues::new(captures, Arc::clone(&post), pulse), shards, post)
    }

    #[test]
    fn queues_take_turns_and_a_busy_one_does_not_starve_the_others() {
        let (mut queues, ..) = queues(&[(100, false), (3, false)]);
        let mut seen = Vec::new();
        for _ in 0..8 {
            queues.with_batch(|frames| seen.extend(frames.iter().map(|f| f.data[0]))).unwrap();
        }
        assert_eq!(seen, [100, 3, 100, 3, 100, 3, 100, 100]);
    }

    #[test]
    fn a_batch_is_empty_only_when_no_queue_has_a_frame() {
        let (mut queues, ..) = queues(&[(0, false), (2, false), (0, false)]);
        let mut sizes = Vec::new();
        for _ in 0..4 {
            queues.with_batch(|frames| sizes.push(frames.len())).unwrap();
        }
        assert_eq!(sizes, [1, 1, 0, 0]);
    }

    #[test]
    fn what_is_in_the_rings_comes_after_the_stop_and_the_counts_are_final_then() {
        let (mut queues, shards, _) = queues(&[(5, false), (2, false)]);
        queues.stop().unwrap();
        let mut frames = 0;
        while queues.with_batch(|batch| frames += batch.len()).unwrap().is_some() {}
        assert_eq!(frames, 7);
        let position = queues.position();
        assert_eq!((position.frames, position.dropped.iter().sum::<u64>()), (9, 2));
        assert_eq!(shards[0].load().delivered, 5);
        assert!(queues.with_batch(|_| ()).unwrap().is_none());
    }

    #[test]
    fn one_that_breaks_is_told_and_the_others_go_on_until_another_takes_its_place() {
        let (mut queues, shards, post) = queues(&[(1, true), (4, false)]);
        let mut frames = 0;
        for _ in 0..12 {
            queues.with_batch(|batch| frames += batch.len()).unwrap().unwrap();
        }
        assert_eq!(frames, 5);
        let losses: Vec<_> =
            post.losses().into_iter().map(|loss| (loss.slot, loss.error.is_some())).collect();
        assert_eq!(losses, [(0, true), (0, false)]);
        assert!(post.losses().is_empty());
        assert_eq!(shards[0].load().offered, 2);
        post.arrive(0, Script { frames: 3, given: 0, breaks: false, stopped: false });
        queues.stop().unwrap();
        while queues.with_batch(|batch| frames += batch.len()).unwrap().is_some() {}
        assert_eq!(frames, 8);
        // Each script says that one frame was lost before it.
        assert_eq!(shards[0].load().delivered, 1 + 3);
        assert_eq!(shards[0].load().offered, 2 + 4);
        assert!(queues.pulse.turns() > 12);
    }

    #[test]
    fn without_a_capture_time_goes_on_until_the_stop() {
        let (mut queues, _, post) = queues(&[(0, true)]);
        for _ in 0..3 {
            assert_eq!(queues.with_batch(|batch| batch.len()).unwrap(), Some(0));
        }
        assert_eq!(post.losses().len(), 2);
        queues.stop().unwrap();
        assert_eq!(queues.with_batch(|batch| batch.len()).unwrap(), None);
    }
}
