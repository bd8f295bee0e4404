//! What workers that read the same capture find out for each other: which frames are each worker's, stretch by stretch, and what there is
//! to be known of them, or where they are.
//!
//! Contract: each stretch is looked through by one worker, in the order of the capture, whoever has time for it, some stretches ahead of
//! where it is itself. What was found is kept until every worker is past it, or gone; nobody is further than so many stretches ahead of
//! who is last. Who waits, waits for somebody who is looking, or who tracks. What a scout cannot tell is found by everybody for
//! himself.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::capture::filter::Filter;
use crate::capture::stretch::{Pick, Picks, Scout, Tally};
use crate::decode::glance::{self, Glance, OnGlance};
use crate::frame::LinkType;
use crate::sensor::rss::Steering;

/// Stretches that are looked through ahead of who is furthest, for each worker.
const AHEAD_A_WORKER: u64 = 1;

/// Stretches that are kept for who is last, beyond those that are ahead.
const KEPT_MAX: u64 = 16;

/// Picks of frames of which nobody knows whose they are, of one stretch for all workers together: 1.8 MB, with their places among the
/// glances.
const UNTOLD_PICKS_MAX: usize = 1 << 15;

/// The stretch of who takes no part any more.
const GONE: u64 = u64::MAX;

/// What is known of the stretches that workers are at.
pub(super) struct Survey {
    state: Mutex<State>,
    changed: Condvar,
    workers: usize,
    /// Whose a frame is.
    pub(super) steering: Steering,
    /// Whether workers look at frames themselves, for their bytes.
    needs_frames: bool,
}

struct State {
    /// The stretch that `looks` begins with: the one of who is last.
    first: u64,
    looks: VecDeque<Look>,
    /// Which stretch each worker is at.
    at: Vec<u64>,
    /// Lists by worker, recycled.
    spare: Vec<Vec<Own>>,
    /// Workers that wait for a change. Waking nobody is a system call too.
    waiting: usize,
}

/// What became of a look at a stretch.
enum Look {
    Begun,
    Done(Arc<Found>),
    Failed,
}

/// What was found in a stretch.
pub(super) struct Found {
    stretch: u64,
    /// Where its first frame begins.
    begin: u64,
    /// Where its last frame ends.
    end: u64,
    /// Their link type.
    pub(super) link: LinkType,
    /// Frames that the filter wants.
    pub(super) kept: Tally,
    /// Frames that it does not want.
    pub(super) filtered: Tally,
    /// Those that it wants, by worker: its own, and all of which nobody knows whose they are.
    own: Vec<Own>,
    /// Whether it is known of all whose they are.
    pub(super) are_told: bool,
    /// Whether the picks say all: not where times go back further than one can say, or too many frames are everybody's.
    is_complete: bool,
}

/// Frames of a stretch that a worker has to look at, in order.
#[derive(Clone, Debug, Default)]
struct Own {
    /// What was seen of them; nothing of those that are among the picks. None at all where workers look at frames themselves.
    glances: Vec<Glance>,
    /// Where those are that the worker is to look at itself.
    picks: Vec<Pick>,
}

impl Own {
    fn clear(&mut self) {
        self.glances.clear();
        self.picks.clear();
    }
}

/// What a worker is to do next.
enum Next {
    /// Look through this stretch, with room for what is found.
    Look(u64, Vec<Own>),
    /// Go on with its own one, of which this is known.
    Known(Option<Arc<Found>>),
}

impl Survey {
    /// Of workers that look at frames themselves, or do not need to.
    pub(super) fn new(workers: usize, needs_frames: bool) -> Self {
        let state = State {
            first: 0,
            looks: VecDeque::new(),
            at: vec![0; workers],
            spare: Vec::new(),
            waiting: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            workers,
            steering: Steering::new(workers),
            needs_frames,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker is at this stretch.
    fn next(&self, worker: usize, stretch: u64) -> Next {
        let mut state = self.lock();
        if state.at[worker] != stretch {
            state.go(worker, stretch);
            self.wake(&state);
        }
        let ahead = AHEAD_A_WORKER * self.workers as u64;
        loop {
            let next = state.first + state.looks.len() as u64;
            if next < stretch + ahead && next < state.first + ahead + KEPT_MAX {
                state.looks.push_back(Look::Begun);
                let own = state.spare.pop().unwrap_or_else(|| vec![Own::default(); self.workers]);
                return Next::Look(next, own);
            }
            match state.look(stretch) {
                Some(Look::Done(found)) => return Next::Known(Some(Arc::clone(found))),
                Some(Look::Failed) => return Next::Known(None),
                Some(Look::Begun) | None => {
                    state.waiting += 1;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                }
            }
        }
    }

    /// What a look came to.
    fn tell(&self, stretch: u64, look: Look) {
        let mut state = self.lock();
        if let Some(begun) = state.look(stretch) {
            *begun = look;
        }
        self.wake(&state);
    }

    /// This worker looks and waits no more.
    pub(super) fn leave(&self, worker: usize) {
        let mut state = self.lock();
        state.go(worker, GONE);
        self.wake(&state);
    }

    fn wake(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }
}

impl State {
    /// What is known of a stretch that nobody is past.
    fn look(&mut self, stretch: u64) -> Option<&mut Look> {
        self.looks.get_mut(usize::try_from(stretch.checked_sub(self.first)?).ok()?)
    }

    fn go(&mut self, worker: usize, stretch: u64) {
        self.at[worker] = stretch;
        let last = self.at.iter().min().copied().unwrap_or(GONE);
        // Who is looking is not past what it looks at, or ahead of it.
        while self.first < last {
            match self.looks.pop_front() {
                Some(Look::Done(found)) => {
                    self.spare.extend(Arc::into_inner(found).map(|found| found.own));
                }
                Some(Look::Begun | Look::Failed) => {}
                None => {
                    self.first = last;
                    return;
                }
            }
            self.first += 1;
        }
    }
}

impl Found {
    /// Whether it is of frames that begin at `place`, which the one before it ends at.
    pub(super) fn follows(&self, place: u64) -> bool {
        self.begin == place && self.end > place && self.is_complete
    }

    /// Frames that a worker has to look at itself.
    pub(super) fn picks(&self, worker: usize) -> Picks<'_> {
        Picks {
            stretch: self.stretch,
            picks: &self.own[worker].picks,
            end: self.end,
            frames: self.kept.frames + self.filtered.frames,
        }
    }

    /// What was seen of a worker's frames: [nothing](Glance::is_told) of its picks. None, if it is to look at all of them itself.
    pub(super) fn glances(&self, worker: usize) -> &[Glance] {
        &self.own[worker].glances
    }

    /// What a scout finds in a stretch; `None` if it cannot tell.
    fn look(
        stretch: u64,
        mut own: Vec<Own>,
        scout: &mut impl Scout,
        survey: &Survey,
        filter: Option<&Filter>,
    ) -> Option<Self> {
        own.iter_mut().for_each(Own::clear);
        let (mut kept, mut filtered) = (Tally::default(), Tally::default());
        let mut late_ns_max = 0;
        let untold_max = UNTOLD_PICKS_MAX / own.len();
        let Survey { steering, needs_frames, .. } = survey;
        let mut deal = Deal {
            own,
            steering,
            needs_frames: *needs_frames,
            pick: Pick::default(),
            untold: 0,
            untold_max,
        };
        let places = scout.look_through(stretch, |frame, at| {
            if filter.is_some_and(|filter| !filter.matches(frame)) {
                filtered.add(frame);
                return;
            }
            kept.add(frame);
            let late_ns = kept.latest.nanos_since(frame.ts);
            late_ns_max = late_ns.max(late_ns_max);
            deal.pick = Pick { at, late_ns: late_ns as u32 };
            if deal.needs_frames {
                deal.untold(glance::words(frame));
            } else {
                glance::look(frame, late_ns as u32, &mut deal);
            }
        })?;
        Some(Self {
            stretch,
            begin: places.start,
            end: places.end,
            link: scout.link(),
            kept,
            filtered,
            are_told: deal.untold == 0,
            is_complete: deal.untold <= untold_max && u32::try_from(late_ns_max).is_ok(),
            own: deal.own,
        })
    }
}

/// Frames on their way to their workers' lists.
struct Deal<'a> {
    own: Vec<Own>,
    steering: &'a Steering,
    needs_frames: bool,
    /// The frame that is looked at.
    pick: Pick,
    /// Those of which nobody knows whose they are: everybody's.
    untold: usize,
    untold_max: usize,
}

impl OnGlance for Deal<'_> {
    #[inline(always)]
    fn told(&mut self, words: u16, glance: Glance) {
        self.own[self.steering.worker_by_words(words)].glances.push(glance);
    }

    #[inline(always)]
    fn untold(&mut self, words: Option<u16>) {
        let Self { own, steering, needs_frames, pick, .. } = self;
        let give = |own: &mut Own| {
            if !*needs_frames {
                own.glances.push(Glance::default());
            }
            own.picks.push(*pick);
        };
        if let Some(words) = words {
            return give(&mut own[steering.worker_by_words(words)]);
        }
        self.untold += 1;
        if self.untold <= self.untold_max {
            own.iter_mut().for_each(give);
        }
    }
}

/// A worker's part in it.
pub(super) struct Scouting<'a, S> {
    survey: &'a Survey,
    worker: usize,
    scout: S,
    filter: Option<Filter>,
}

impl<'a, S: Scout> Scouting<'a, S> {
    /// That of one with such a scout; without any, the others do not wait for it.
    pub(super) fn start(
        survey: &'a Survey,
        worker: usize,
        scout: Option<S>,
        filter: Option<Filter>,
    ) -> Option<Self> {
        let Some(scout) = scout else {
            survey.leave(worker);
            return None;
        };
        Some(Self { survey, worker, scout, filter })
    }

    /// What is known of a stretch that this worker has come to.
    pub(super) fn of(&mut self, stretch: u64) -> Option<Arc<Found>> {
        loop {
            match self.survey.next(self.worker, stretch) {
                Next::Known(found) => return found,
                Next::Look(stretch, own) => {
                    let Self { survey, scout, filter, .. } = self;
                    let mut told = Told { survey, stretch, look: Look::Failed };
                    let found = Found::look(stretch, own, scout, survey, filter.as_ref());
                    if let Some(found) = found {
                        told.look = Look::Done(Arc::new(found));
                    }
                }
            }
        }
    }
}

/// Who leaves, however, is not waited for.
impl<S> Drop for Scouting<'_, S> {
    fn drop(&mut self) {
        self.survey.leave(self.worker);
    }
}

/// A look that others wait for: they are told when it is over, however.
struct Told<'a> {
    survey: &'a Survey,
    stretch: u64,
    look: Look,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.survey.tell(self.stretch, std::mem::replace(&mut self.look, Look::Failed));
    }
}
