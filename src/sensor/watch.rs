//! Looks after a live run while its workers are at work, on a thread of its own, once a second.
//!
//! Contract: nothing here is on the packet path. A port that went away is opened again when it is back and up, and its captures go
//! to the workers that had them; what changes about a port is logged; a worker that stands still is told as a metric, by
//! `/readyz` and by the silence that makes systemd's watchdog act (sd_notify(3)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::backends::{Again, Opened};
use super::post::Post;
use super::shard::Pulse;
use super::stop::Stop;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// A worker stands still when so many looks in a row found it in the same turn: a turn takes milliseconds.
const STALLED_LOOKS: u32 = 5;
/// Interruptions that the summary tells.
const TOLD_MAX: usize = 64;

/// Which thread reads a queue, and as which of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The interface, by its place on the command line.
    pub port: usize,
    /// The queue's label.
    pub queue: String,
    /// The reading loop: a worker's, or the only one.
    pub reader: usize,
    /// Which of its queues.
    pub slot: usize,
}

/// What a watched run leaves.
#[derive(Debug, Default)]
pub struct WatchEnd {
    /// What went wrong with the ports, in order; the first 64.
    pub interruptions: Vec<String>,
    /// Whether a port was away at the end.
    pub is_away: bool,
}

/// The watch over a run.
pub struct Watch<C> {
    ports: Vec<Watched>,
    seats: Vec<Seat>,
    posts: Vec<Arc<Post<C>>>,
    threads: Vec<(Arc<CachePadded<Pulse>>, Beats)>,
    reopen: Again<C>,
    end: WatchEnd,
}

/// A port, as it was last seen.
#[derive(Debug)]
struct Watched {
    name: String,
    link: Option<Link>,
    /// Captures that have not ended.
    open: usize,
    /// Since when they are ending, or have ended.
    away_since: Option<Instant>,
    /// Why it could not be opened again: told once for each reason.
    refused: Option<String>,
}

/// What may change about a port while it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    is_up: bool,
    has_carrier: bool,
    mtu: u32,
    queues: u32,
}

impl<C> Watch<C> {
    /// `reopen` opens the captures of a port anew, all of them.
    pub fn new(
        ports: Vec<String>,
        seats: Vec<Seat>,
        posts: Vec<Arc<Post<C>>>,
        pulses: &[Arc<CachePadded<Pulse>>],
        reopen: Again<C>,
    ) -> Self {
        let watched = |(number, name): (usize, String)| Watched {
            link: Link::of(&name),
            open: seats.iter().filter(|seat| seat.port == number).count(),
            name,
            away_since: None,
            refused: None,
        };
        let ports = ports.into_iter().enumerate().map(watched).collect();
        let threads = pulses.iter().map(|pulse| (Arc::clone(pulse), Beats::default())).collect();
        Self { ports, seats, posts, threads, reopen, end: WatchEnd::default() }
    }

    /// Watches until the stop.
    pub fn run(mut self, stop: &Stop) -> WatchEnd {
        systemd::ready();
        while !stop.wait_timeout(LOOK) {
            self.look();
        }
        systemd::stopping();
        self.take_losses();
        self.end.is_away = self.ports.iter().any(|watched| watched.away_since.is_some());
        self.end
    }

    fn look(&mut self) {
        self.take_losses();
        for watched in &mut self.ports {
            watched.log_changes();
        }
        for number in 0..self.ports.len() {
            self.reopen_if_back(number);
        }
        let mut is_well = true;
        for (pulse, beats) in &mut self.threads {
            let (was, is) = (pulse.is_stalled(), beats.look(pulse.turns()));
            if is && !was {
                tracing::error!("{} stands still: frames wait for it", pulse.thread());
            } else if was && !is {
                tracing::warn!("{} goes on", pulse.thread());
            }
            pulse.set_stalled(is);
            is_well &= !is;
        }
        if is_well {
            systemd::watchdog();
        }
    }

    fn take_losses(&mut self) {
        for (reader, post) in self.posts.iter().enumerate() {
            for loss in post.losses() {
                let seat = |seat: &&Seat| (seat.reader, seat.slot) == (reader, loss.slot);
                let Some(Seat { port, queue, .. }) = self.seats.iter().find(seat) else { continue };
                let watched = &mut self.ports[*port];
                if watched.away_since.is_none() {
                    watched.away_since = Some(Instant::now());
                    tracing::warn!(interface = %watched.name, "is away: waiting for it to come back");
                }
                match loss.error {
                    None => watched.open = watched.open.saturating_sub(1),
                    Some(error) => {
                        tracing::warn!(interface = %watched.name, queue, "{error}");
                        if self.end.interruptions.len() < TOLD_MAX {
                            self.end.interruptions.push(error.to_string());
                        }
                    }
                }
            }
        }
    }

    /// Once every capture of a port has ended and the port is there and up.
    fn reopen_if_back(&mut self, number: usize) {
        let watched = &mut self.ports[number];
        let Some(since) = watched.away_since else { return };
        let may_be_up =
            cfg!(not(target_os = "linux")) || watched.link.is_some_and(|link| link.is_up);
        if watched.open > 0 || !may_be_up {
            return;
        }
        let mut seats: Vec<_> = self.seats.iter().filter(|seat| seat.port == number).collect();
        let found = (self.reopen)(number).map_err(|error| error.to_string()).and_then(|opened| {
            let seat_of = |opened: &Opened<C>| seats.iter().any(|seat| seat.queue == opened.queue);
            if opened.len() == seats.len() && opened.iter().all(seat_of) {
                return Ok(opened);
            }
            Err(format!(
                "it came back with {} queues and had {}: start again",
                opened.len(),
                seats.len()
            ))
        });
        let name = &watched.name;
        match found {
            Err(reason) => {
                if watched.refused.as_ref() != Some(&reason) {
                    tracing::warn!(interface = %name, "is back and cannot be opened yet: {reason}");
                    watched.refused = Some(reason);
                }
            }
            Ok(opened) => {
                tracing::info!(interface = %name, "is watched again, after {:.0?}", since.elapsed());
                watched.open = opened.len();
                watched.away_since = None;
                watched.refused = None;
                for Opened { capture, queue, .. } in opened {
                    let Some(at) = seats.iter().position(|seat| seat.queue == queue) else {
                        continue;
                    };
                    let seat = seats.swap_remove(at);
                    if let Some(post) = self.posts.get(seat.reader) {
                        post.arrive(seat.slot, capture);
                    }
                }
            }
        }
    }
}

impl Watched {
    fn log_changes(&mut self) {
        let link = Link::of(&self.name);
        let name = &self.name;
        match (self.link, link) {
            (Some(was), Some(is)) if was != is => {
                if was.is_up != is.is_up {
                    tracing::warn!(interface = %name, "was set {}", if is.is_up { "up" } else { "down" });
                }
                if was.has_carrier != is.has_carrier {
                    let what = if is.has_carrier { "has a link again" } else { "has no link" };
                    tracing::warn!(interface = %name, "{what}");
                }
                if was.mtu != is.mtu {
                    tracing::warn!(interface = %name, "MTU was {} and is {}", was.mtu, is.mtu);
                }
                if was.queues != is.queues {
                    let (was, is) = (was.queues, is.queues);
                    tracing::warn!(interface = %name, "had {was} receive queues and has {is}: start again to have a worker for each");
                }
            }
            (None, Some(_)) => tracing::warn!(interface = %name, "is there again"),
            (Some(_), None) => tracing::warn!(interface = %name, "is gone"),
            _ => {}
        }
        self.link = link;
    }
}

impl Link {
    /// As the kernel tells it now; `None` when there is no such interface.
    #[cfg(target_os = "linux")]
    fn of(name: &str) -> Option<Self> {
        let found = crate::capture::nic::Interface::find(name).ok()?;
        Some(Self {
            is_up: found.is_up,
            has_carrier: found.has_carrier,
            mtu: found.mtu,
            queues: found.queues,
        })
    }

    /// Not known elsewhere: opening it shows whether it is there.
    #[cfg(not(target_os = "linux"))]
    fn of(_: &str) -> Option<Self> {
        None
    }
}

/// What is remembered of a worker's turns.
#[derive(Clone, Copy, Debug, Default)]
struct Beats {
    turns: u64,
    same: u32,
}

impl Beats {
    /// Whether it stands still, given how many turns it has begun.
    fn look(&mut self, turns: u64) -> bool {
        self.same = if turns == self.turns { self.same.saturating_add(1) } else { 0 };
        self.turns = turns;
        self.same >= STALLED_LOOKS
    }
}

/// What systemd is told, where it started us and asked for it.
#[cfg(target_os = "linux")]
mod systemd {
    use sd_notify::{NotifyState, notify, watchdog_enabled};

    pub(super) fn ready() {
        tell(NotifyState::Ready);
    }

    pub(super) fn stopping() {
        tell(NotifyState::Stopping);
    }

    pub(super) fn watchdog() {
        if watchdog_enabled().is_some() {
            tell(NotifyState::Watchdog);
        }
    }

    fn tell(state: NotifyState<'_>) {
        if let Err(error) = notify(&[state]) {
            tracing::warn!("systemd cannot be told how the run is: {error}");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod systemd {
    pub(super) fn ready() {}
    pub(super) fn stopping() {}
    pub(super) fn watchdog() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureError;
    use crate::sensor::post::Loss;

    #[test]
    fn a_worker_stands_still_after_five_looks_at_the_same_turn_and_not_before() {
        let mut beats = Beats::default();
        assert!(!beats.look(7));
        let looks: Vec<_> = (0..6).map(|_| beats.look(7)).collect();
        assert_eq!(looks, [false, false, false, false, true, true]);
        assert!(!beats.look(8));
        assert!(!beats.look(8));
    }

    /// Two queues of a port that both workers have one of; the port is the loopback interface, which is always there.
    #[test]
    fn captures_of_a_port_that_is_back_go_to_the_workers_that_had_them() {
        let seat = |reader: usize| Seat { port: 0, queue: reader.to_string(), reader, slot: 0 };
        let posts: Vec<Arc<Post<u32>>> = (0..2).map(|_| Arc::default()).collect();
        let mut opened = 0;
        let reopen = move |_| {
            opened += 1;
            let one = |queue: u32| Opened {
                capture: 10 + queue,
                interface: "lo".to_owned(),
                queue: queue.to_string(),
            };
            // The first time it has one queue less.
            Ok(if opened == 1 { vec![one(0)] } else { vec![one(1), one(0)] })
        };
        let (ports, seats) = (vec!["lo".to_owned()], vec![seat(0), seat(1)]);
        let mut watch = Watch::new(ports, seats, posts.clone(), &[], Box::new(reopen));
        watch.ports[0].link = Some(Link { is_up: true, has_carrier: true, mtu: 1, queues: 1 });
        let ended = || Loss { slot: 0, error: None };
        posts[1].lose(ended());
        watch.take_losses();
        watch.reopen_if_back(0);
        assert!(posts[1].arrivals().is_empty(), "the other queue is still open");
        posts[0].lose(Loss { slot: 0, error: Some(CaptureError::NoFile) });
        posts[0].lose(ended());
        watch.take_losses();
        watch.reopen_if_back(0);
        assert!(posts[1].arrivals().is_empty(), "one queue is not enough");
        watch.reopen_if_back(0);
        assert_eq!(posts[0].arrivals(), [(0, 10)]);
        assert_eq!(posts[1].arrivals(), [(0, 11)]);
        watch.reopen_if_back(0);
        assert!(posts[1].arrivals().is_empty(), "it is not away any more");
        assert_eq!(watch.end.interruptions.len(), 1);
    }
}
