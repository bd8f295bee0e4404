//! Several live captures read as one: a worker has one queue of every interface.
//!
//! Contract: frames are lent by one capture at a time, in turn; an empty batch says that none of them had a frame. Who waits for frames is the capture where there is
//! one, and this where there are several; those are to be opened so that they do not wait. What became of a queue's frames
//! is looked at once a second, and for the last time when it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::read::Position;
use super::shard::QueueShard;
use crate::capture::live::{LiveCapture, QueueCounts};
use crate::capture::{Capture, CaptureError};
use crate::frame::Frame;

/// How often a queue's counts are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long all queues are left alone after a round in which none had a frame. A ring of 16 384 frames takes that long
/// at 30 M frames a second.
const REST: Duration = Duration::from_micros(500);

/// A queue's capture, and where its counts are published.
#[derive(Debug)]
struct Queue<C> {
    capture: C,
    shard: Arc<CachePadded<QueueShard>>,
    counts: QueueCounts,
    is_open: bool,
}

impl<C: LiveCapture> Queue<C> {
    fn look(&mut self) {
        // What cannot be read now stays what it was: the ledger would say so at the end.
        if let Ok(counts) = self.capture.counts() {
            self.counts = counts;
            self.shard.store(&counts);
        }
    }
}

/// The captures of one worker.
#[derive(Debug)]
pub struct Queues<C> {
    queues: Vec<Queue<C>>,
    next: usize,
    looked: Instant,
}

impl<C: LiveCapture> Queues<C> {
    /// Reads from all of them, in turn.
    pub fn new(captures: Vec<(C, Arc<CachePadded<QueueShard>>)>) -> Self {
        let queue = |(capture, shard)| Queue {
            capture,
            shard,
            counts: QueueCounts::default(),
            is_open: true,
        };
        let queues = captures.into_iter().map(queue).collect();
        Self { queues, next: 0, looked: Instant::now() }
    }

    /// No new frames are taken from now on; those in the rings still come.
    ///
    /// # Errors
    /// The first refusal; the others were told all the same.
    pub fn stop(&mut self) -> Result<(), CaptureError> {
        let mut result = Ok(());
        for queue in self.queues.iter_mut().filter(|queue| queue.is_open) {
            result = result.and(queue.capture.stop());
        }
        result
    }

    /// What became of the frames of all of them, as far as it was looked at.
    pub fn position(&self) -> Position {
        let mut position = Position::default();
        for Queue { counts, .. } in &self.queues {
            position.frames += counts.offered;
            for (sum, dropped) in position.dropped.iter_mut().zip(counts.dropped) {
                *sum += dropped;
            }
        }
        position
    }

    fn look_if_due(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.queues.iter_mut().filter(|queue| queue.is_open).for_each(Queue::look);
        }
    }
}

impl<C: LiveCapture> Capture for Queues<C> {
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        let mut f = Some(f);
        let mut is_open = false;
        for _ in 0..self.queues.len() {
            let at = self.next;
            self.next = (self.next + 1) % self.queues.len();
            let queue = &mut self.queues[at];
            if !queue.is_open {
                continue;
            }
            // An empty batch is kept back while another queue may have frames.
            let taken = queue.capture.with_batch(|frames| match frames {
                [] => None,
                frames => f.take().map(|f| f(frames)),
            });
            match taken {
                Ok(Some(None)) => is_open = true,
                Ok(Some(Some(result))) => {
                    self.look_if_due();
                    return Ok(Some(result));
                }
                Ok(None) => {
                    queue.is_open = false;
                    queue.look();
                }
                Err(error) => return Err(error),
            }
        }
        if !is_open {
            return Ok(None);
        }
        if self.queues.len() > 1 {
            std::thread::sleep(REST);
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
            Ok(QueueCounts { offered: self.given + 1, delivered: self.given, dropped })
        }

        fn stop(&mut self) -> Result<(), CaptureError> {
            self.stopped = true;
            Ok(())
        }

        fn description(&self) -> String {
            "a script".to_owned()
        }
    }

    fn queues(scripts: &[(u64, bool)]) -> (Queues<Script>, Vec<Arc<CachePadded<QueueShard>>>) {
        let shards: Vec<_> = (0..scripts.len())
            .map(|queue| Arc::new(CachePadded::new(QueueShard::new("x".into(), queue.to_string()))))
            .collect();
        let script = |&(frames, breaks)| Script { frames, given: 0, breaks, stopped: false };
        let captures = scripts.iter().map(script).zip(shards.iter().cloned()).collect();
        (Queues::new(captures), shards)
    }

    #[test]
    fn queues_take_turns_and_a_busy_one_does_not_starve_the_others() {
        let (mut queues, _) = queues(&[(100, false), (3, false)]);
        let mut seen = Vec::new();
        for _ in 0..8 {
            queues.with_batch(|frames| seen.extend(frames.iter().map(|f| f.data[0]))).unwrap();
        }
        assert_eq!(seen, [100, 3, 100, 3, 100, 3, 100, 100]);
    }

    #[test]
    fn a_batch_is_empty_only_when_no_queue_has_a_frame() {
        let (mut queues, _) = queues(&[(0, false), (2, false), (0, false)]);
        let mut sizes = Vec::new();
        for _ in 0..4 {
            queues.with_batch(|frames| sizes.push(frames.len())).unwrap();
        }
        assert_eq!(sizes, [1, 1, 0, 0]);
    }

    #[test]
    fn what_is_in_the_rings_comes_after_the_stop_and_the_counts_are_final_then() {
        let (mut queues, shards) = queues(&[(5, false), (2, false)]);
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
    fn one_that_breaks_is_told_once_and_the_others_go_on() {
        let (mut queues, shards) = queues(&[(1, true), (4, false)]);
        let (mut frames, mut errors) = (0, 0);
        for _ in 0..12 {
            match queues.with_batch(|batch| frames += batch.len()) {
                Ok(_) => {}
                Err(_) => errors += 1,
            }
        }
        assert_eq!((frames, errors), (5, 1));
        assert_eq!(shards[0].load().offered, 2);
    }
}
