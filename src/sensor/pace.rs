//! When a frame is due: a replay at the speed of the capture, or a multiple of it.
//!
//! Contract: time runs with the capture's timestamps from the first frame on; frames that are late
//! (or whose time goes back) are due at once. Waiting never lasts longer than a tick, so that timers go on
//! and a signal is heard.

use std::time::{Duration, Instant};

use super::stop::Stop;
use crate::time::Timestamp;

/// The longest sleep without a look at the timers.
const TICK: Duration = Duration::from_millis(50);

/// The clock of a paced replay.
#[derive(Debug)]
pub struct Pacer {
    times: f64,
    stop: Stop,
    origin: Option<(Instant, Timestamp)>,
}

impl Pacer {
    /// `times` seconds of capture a second.
    pub fn new(times: f64, stop: Stop) -> Self {
        Self { times, stop, origin: None }
    }

    /// The capture's time now: that of `first` when the clock starts with it.
    pub fn now(&mut self, first: Timestamp) -> Timestamp {
        let (started, origin) = *self.origin.get_or_insert_with(|| (Instant::now(), first));
        origin.plus_nanos((started.elapsed().as_secs_f64() * self.times * 1e9) as u64)
    }

    /// Sleeps towards `due`, for a tick at most. `false` when told to stop.
    pub fn sleep_towards(&mut self, due: Timestamp) -> bool {
        let ahead = due.nanos_since(self.now(due)) as f64 / self.times;
        let nap = Duration::from_nanos(ahead as u64).min(TICK);
        !self.stop.wait_timeout(nap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_time_runs_at_its_multiple_of_real_time() {
        let mut pacer = Pacer::new(1000.0, Stop::new());
        let first = Timestamp::new(100, 0);
        assert!(pacer.now(first).since(first) < Duration::from_secs(10));
        let due = first.plus_nanos(20_000_000_000);
        let started = Instant::now();
        while pacer.now(first) < due {
            assert!(pacer.sleep_towards(due));
        }
        let took = started.elapsed();
        assert!((Duration::from_millis(15)..Duration::from_secs(5)).contains(&took), "{took:?}");
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let stop = Stop::new();
        stop.raise();
        let mut pacer = Pacer::new(1.0, stop);
        pacer.now(Timestamp::ZERO);
        assert!(!pacer.sleep_towards(Timestamp::MAX));
    }
}
