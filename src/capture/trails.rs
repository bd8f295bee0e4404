//! Finding the records of a mapped file in several places at once.
//!
//! A record's header says where the next one is. Who follows that from record to record waits for memory each time, or asks for every line
//! in between: of large frames several times what anybody looks at. Here sixteen trails are followed by turns, each from where a record
//! [seems](Guesser::guess) to begin, and of each record the lines are asked for that will be looked at.
//!
//! Contract: a trail's begin may be wrong. What is told are the records from the first byte on, as far as each trail begins where the one
//! before it ends: those that are found one after the other.

use std::ops::{Range, RangeInclusive};

use memchr::memmem::Finder;

use crate::prefetch::prefetch_early;

/// As many as memory answers at once.
const TRAILS: usize = 16;
/// A few dozen frames for each guess; all trails together, as far as they are asked for, are in a core's second cache.
const TRAIL_BYTES: usize = 32 * 1024;
/// So far all trails lead together.
pub(super) const REACH_BYTES: usize = TRAILS * TRAIL_BYTES;
/// What is asked for of each trail before a guess: as long as most frames.
const GUESS_BYTES: usize = 512;
/// So many guesses are made at a time.
const GUESSES: usize = 4;
/// As many steps as that takes, or as asking for one of them: what is asked for, eight lines each time, is a while under way.
const PREPARE_STEPS: usize = 4;
/// What the processor fetches at a time.
pub(super) const LINE_BYTES: usize = 64;

/// Bytes a record, on average: of smaller ones nearly every line is looked at, and of larger ones a guess takes longer than its trail saves.
pub(super) const WORTH_IT: RangeInclusive<usize> = 192..=12 * 1024;

/// So many places are looked at for a guess: where what records are known by is common in the data, guessing takes too long.
const GUESSES_MAX: usize = 64;

/// Records of which each says where the next one begins, and that can be told from other bytes.
pub(super) trait Records {
    /// Where a record that begins at `place` ends, by what its begin says; `None` if none does that trails may lead through.
    fn end_of(&self, bytes: &[u8], place: usize) -> Option<usize>;

    /// Which of its bytes are the same in all records of about the same time.
    fn mark(&self) -> Range<usize>;

    /// Whether `bytes` seem to begin with a record: no further than its own begin is looked at.
    fn is_like_one(&self, bytes: &[u8]) -> bool;

    /// Asks for what will be looked at of the record at a place.
    fn ask_for(bytes: &[u8], place: usize);
}

/// Guesses where there are records of about the same time as the one that `bytes` begin with.
struct Guesser<'a, R> {
    records: &'a R,
    bytes: &'a [u8],
    mark: Finder<'a>,
    /// Where in a record it is.
    mark_at: usize,
}

/// Where there are records.
#[derive(Default)]
pub(super) struct Trails {
    /// Whether what came last is worth it.
    are_worth_it: bool,
    /// After guesses that were wrong nothing is looked for until no more than so many bytes are left.
    again: Option<usize>,
    /// Those that come next.
    found: Found,
    /// For those behind them.
    search: Search,
}

/// Records that follow each other.
#[derive(Default)]
struct Found {
    /// How many bytes there were from the first one on.
    left: usize,
    /// Where they begin, as seen from there.
    places: Vec<usize>,
    /// How many of them were taken.
    taken: usize,
    /// Where the last one ends.
    end: usize,
}

/// Follows trails from one place on: all at once, or so many steps at a time.
#[derive(Default)]
struct Search {
    /// How many bytes there are from that place on.
    left: usize,
    /// Recycled; none where nothing is looked for.
    trails: Vec<Trail>,
    /// Trails of which what a guess looks at was asked for.
    asked: usize,
    /// Those of which it was guessed where they begin.
    guessed: usize,
    /// The trail that goes on next.
    turn: usize,
    /// So many in a row were at their end.
    ended: usize,
}

/// Records that follow each other, from where one seems to begin.
#[derive(Default)]
struct Trail {
    /// Where it begins; `None` where nothing seems to.
    begin: Option<usize>,
    /// Where it goes on.
    place: usize,
    /// No record of it begins here or behind.
    end: usize,
    found: Vec<usize>,
}

impl Trails {
    /// Records had so many bytes, on average.
    pub(super) fn judge(&mut self, mean: usize) {
        self.are_worth_it = WORTH_IT.contains(&mean);
    }

    /// Where in `bytes` the next records begin, up to `max` and before `end`; nowhere where it is for others to find them. They count as taken.
    pub(super) fn next<'t, R: Records>(
        &'t mut self,
        records: &R,
        bytes: &[u8],
        max: usize,
        end: usize,
    ) -> impl ExactSizeIterator<Item = usize> + use<'t, R> {
        // Nothing is left, or somebody else has gone on from there.
        let passed = self.found.left.checked_sub(bytes.len());
        let passed = passed.filter(|passed| self.found.next() == Some(*passed));
        let passed = passed.unwrap_or_else(|| {
            self.find(records, bytes);
            0
        });
        let Found { places, taken, .. } = &mut self.found;
        let known = places.get(*taken..).unwrap_or_default();
        let count = known.partition_point(|place| place - passed < end).min(max);
        *taken += count;
        known[..count].iter().map(move |place| place - passed)
    }

    /// Goes so many steps towards records behind those that come next; `rest` is what comes after all that were taken.
    #[inline(always)]
    pub(super) fn go_on<R: Records>(&mut self, records: &R, rest: &[u8], steps: usize) {
        let left = self.found.left - self.found.end;
        let Some(bytes) = rest.len().checked_sub(left).and_then(|at| rest.get(at..)) else {
            return;
        };
        if self.search.left != left {
            self.begin(records, bytes);
        }
        self.search.go_on(records, bytes, steps);
    }

    fn find<R: Records>(&mut self, records: &R, bytes: &[u8]) {
        if self.search.left != bytes.len() || self.search.trails.is_empty() {
            self.begin(records, bytes);
        }
        self.search.go_on(records, bytes, usize::MAX);
        self.search.give(&mut self.found);
        if self.search.trails.is_empty() {
            return;
        }
        let (count, end) = (self.found.places.len(), self.found.end);
        end.checked_div(count).into_iter().for_each(|mean| self.judge(mean));
        self.again = (end < REACH_BYTES / 2).then(|| bytes.len().saturating_sub(REACH_BYTES));
    }

    /// Begins to look where `bytes` begin, if it is worth it.
    #[inline(never)]
    fn begin<R: Records>(&mut self, records: &R, bytes: &[u8]) {
        let is_early = self.again.is_some_and(|again| bytes.len() > again);
        let is_worth_it = self.are_worth_it && !is_early && records.end_of(bytes, 0).is_some();
        self.search.begin(bytes.len(), if is_worth_it { TRAILS } else { 0 });
    }
}

impl Found {
    /// Where the next one begins.
    fn next(&self) -> Option<usize> {
        self.places.get(self.taken).copied()
    }
}

impl Search {
    fn begin(&mut self, left: usize, trails: usize) {
        self.left = left;
        self.trails.resize_with(trails, Trail::default);
        // Who looks for the first one has its bytes.
        (self.asked, self.guessed, self.turn, self.ended) = (1, 0, 0, 0);
    }

    /// So many steps, some of them for a guess, or each to the next record of a trail; fewer once all are at their end.
    #[inline(always)]
    fn go_on<R: Records>(&mut self, records: &R, bytes: &[u8], mut steps: usize) {
        while steps > 0 && self.guessed < self.trails.len() {
            steps = steps.saturating_sub(PREPARE_STEPS);
            self.prepare(records, bytes);
        }
        let (mut turn, mut ended) = (self.turn, self.ended);
        while steps > 0 && ended < TRAILS {
            let Some(trail) = self.trails.get_mut(turn) else { break };
            turn = (turn + 1) % TRAILS;
            if trail.place >= trail.end {
                ended += 1;
                continue;
            }
            ended = 0;
            steps -= 1;
            let Some(next) = records.end_of(bytes, trail.place) else {
                trail.end = trail.place;
                continue;
            };
            trail.found.push(trail.place);
            trail.place = next;
            R::ask_for(bytes, next);
        }
        (self.turn, self.ended) = (turn, ended);
    }

    /// Asks for what one guess looks at, or makes a few guesses once that was done for all.
    #[inline(never)]
    fn prepare<R: Records>(&mut self, records: &R, bytes: &[u8]) {
        if self.asked < TRAILS {
            ask_for_guess(bytes.get(self.asked * TRAIL_BYTES..).unwrap_or_default());
            self.asked += 1;
            return;
        }
        let guesser = Guesser::new(records, bytes);
        for trail in self.trails.iter_mut().skip(self.guessed).take(GUESSES) {
            let from = self.guessed * TRAIL_BYTES;
            let end = from + TRAIL_BYTES;
            let begin = match self.guessed {
                0 => Some(0),
                _ => guesser.as_ref().and_then(|guesser| guesser.guess(from, end)),
            };
            trail.restart(begin, end);
            self.guessed += 1;
        }
    }

    /// What was found one after the other.
    fn give(&self, found: &mut Found) {
        (found.left, found.taken, found.end) = (self.left, 0, 0);
        found.places.clear();
        for trail in &self.trails {
            if trail.begin == Some(found.end) {
                found.places.extend_from_slice(&trail.found);
                found.end = trail.place;
            } else if trail.end > found.end {
                break;
            }
        }
    }
}

impl<'a, R: Records> Guesser<'a, R> {
    fn new(records: &'a R, bytes: &'a [u8]) -> Option<Self> {
        let mark = records.mark();
        Some(Self { records, bytes, mark_at: mark.start, mark: Finder::new(bytes.get(mark)?) })
    }

    /// Where from `from` on and before `end` the first record seems to begin. One look: who follows it finds out.
    fn guess(&self, from: usize, end: usize) -> Option<usize> {
        let marks = self.bytes.get(from + self.mark_at..)?;
        let marks = marks.get(..end - from).unwrap_or(marks);
        let mut places = self.mark.find_iter(marks).take(GUESSES_MAX).map(|found| from + found);
        places.find(|&place| {
            let rest = self.bytes.get(place..).unwrap_or_default();
            self.records.is_like_one(rest)
        })
    }
}

impl Trail {
    fn restart(&mut self, begin: Option<usize>, end: usize) {
        self.begin = begin;
        self.place = begin.unwrap_or(end);
        self.end = end;
        self.found.clear();
    }
}

/// Asks for what a guess looks at.
pub(super) fn ask_for_guess(bytes: &[u8]) {
    bytes
        .chunks(LINE_BYTES)
        .take(GUESS_BYTES / LINE_BYTES)
        .for_each(|line| prefetch_early(&line[0]));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Records of 500 bytes that begin with their mark, and how often their ends were asked.
    #[derive(Default)]
    struct Fixed(Cell<usize>);

    impl Records for Fixed {
        fn end_of(&self, bytes: &[u8], place: usize) -> Option<usize> {
            self.0.update(|asked| asked + 1);
            (place + 500 <= bytes.len()).then_some(place + 500)
        }

        fn mark(&self) -> Range<usize> {
            0..4
        }

        fn is_like_one(&self, _: &[u8]) -> bool {
            true
        }

        fn ask_for(_: &[u8], _: usize) {}
    }

    fn trails() -> Trails {
        let mut trails = Trails::default();
        trails.judge(500);
        trails
    }

    /// Takes a hundred records at a time; between them so many steps are gone. Returns how many ends were asked at each time.
    fn asked(bytes: &[u8], steps: usize) -> Vec<usize> {
        let (records, mut trails, mut at) = (Fixed::default(), trails(), 0);
        let mut asked = Vec::new();
        while at < bytes.len() {
            records.0.set(0);
            let places: Vec<_> = trails.next(&records, &bytes[at..], 100, usize::MAX).collect();
            asked.push(records.0.get());
            assert!(
                !places.is_empty()
                    && places.iter().copied().eq((0..).step_by(500).take(places.len()))
            );
            at += 500 * places.len();
            trails.go_on(&records, &bytes[at..], steps);
        }
        asked
    }

    #[test]
    fn what_was_looked_for_meanwhile_is_not_looked_for_again() {
        let mut record = [b'.'; 500];
        record[..4].copy_from_slice(b"mark");
        let bytes = record.repeat(10_000);
        let at_once = REACH_BYTES / 500;
        let asked_at_once = asked(&bytes, 0);
        assert!(
            asked_at_once.iter().filter(|asked| **asked > at_once).count() >= 9,
            "{asked_at_once:?}"
        );
        // A guess takes steps too, so that a few are left for the end.
        let few = asked(&bytes, 100);
        assert!(few[1..].iter().all(|asked| *asked < 2 * TRAILS + 100), "{few:?}");
        let more = asked(&bytes, 105);
        assert!(more[1..].iter().all(|asked| *asked == 0), "{more:?}");
    }

    /// Who goes on elsewhere gets what is there.
    #[test]
    fn what_was_looked_for_elsewhere_is_forgotten() {
        let mut record = [b'.'; 500];
        record[..4].copy_from_slice(b"mark");
        let bytes = record.repeat(10_000);
        let (records, mut trails) = (Fixed::default(), trails());
        let first = trails.next(&records, &bytes, usize::MAX, usize::MAX).len();
        for steps in [0, 3, 20, 500, 5_000] {
            let at = 500 * (first + steps);
            trails.go_on(&records, &bytes[500 * first..], steps);
            let places = trails.next(&records, &bytes[at..], usize::MAX, usize::MAX);
            assert!(places.len() > 1_000 && places.eq((0..).step_by(500).take(first)), "{steps}");
        }
    }
}
