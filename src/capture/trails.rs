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

use crate::prefetch::prefetch;

/// As many as memory answers at once.
const TRAILS: usize = 16;
/// A few dozen frames for each guess; all trails together, as far as they are asked for, are in a core's second cache.
const TRAIL_BYTES: usize = 32 * 1024;
/// So far all trails lead together.
pub(super) const REACH_BYTES: usize = TRAILS * TRAIL_BYTES;
/// What is asked for of each trail before a guess: as long as most frames.
const GUESS_BYTES: usize = 512;
/// What the processor fetches at a time.
pub(super) const LINE_BYTES: usize = 64;

/// Bytes a record, on average: of smaller ones nearly every line is looked at, and of larger ones a guess takes longer than its trail saves.
const WORTH_IT: RangeInclusive<usize> = 192..=12 * 1024;

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
    /// Recycled.
    trails: Vec<Trail>,
    /// How many bytes there were from where these were found on.
    from: usize,
    /// Where records begin, as seen from there.
    found: Vec<usize>,
    /// How many of them were taken.
    taken: usize,
}

/// Records that follow each other.
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
    /// So many records had so many bytes.
    pub(super) fn judge(&mut self, records: usize, bytes: usize) {
        if let Some(mean) = bytes.checked_div(records) {
            self.are_worth_it = WORTH_IT.contains(&mean);
        }
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
        let passed = self.from.checked_sub(bytes.len());
        let passed = passed.filter(|passed| self.found.get(self.taken) == Some(passed));
        let passed = passed.unwrap_or_else(|| {
            self.find(records, bytes);
            0
        });
        let known = self.found.get(self.taken..).unwrap_or_default();
        let count = known.partition_point(|place| place - passed < end).min(max);
        self.taken += count;
        known[..count].iter().map(move |place| place - passed)
    }

    fn find<R: Records>(&mut self, records: &R, bytes: &[u8]) {
        (self.from, self.taken) = (bytes.len(), 0);
        self.found.clear();
        let is_early = self.again.is_some_and(|again| bytes.len() > again);
        if !self.are_worth_it || is_early || records.end_of(bytes, 0).is_none() {
            return;
        }
        for number in 1..TRAILS {
            ask_for_guess(bytes.get(number * TRAIL_BYTES..).unwrap_or_default());
        }
        self.trails.resize_with(TRAILS, Trail::default);
        let guesser = Guesser::new(records, bytes);
        for (number, trail) in self.trails.iter_mut().enumerate() {
            let from = number * TRAIL_BYTES;
            let end = from + TRAIL_BYTES;
            let begin = match number {
                0 => Some(0),
                _ => guesser.as_ref().and_then(|guesser| guesser.guess(from, end)),
            };
            trail.restart(begin, end);
        }
        follow(&mut self.trails, records, bytes);
        let mut place = 0;
        for trail in &self.trails {
            if trail.begin == Some(place) {
                self.found.extend_from_slice(&trail.found);
                place = trail.place;
            } else if trail.end > place {
                break;
            }
        }
        self.judge(self.found.len(), place);
        self.again = (place < REACH_BYTES / 2).then(|| bytes.len().saturating_sub(REACH_BYTES));
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
    bytes.chunks(LINE_BYTES).take(GUESS_BYTES / LINE_BYTES).for_each(|line| prefetch(&line[0]));
}

/// Goes one record further on each trail, until all are at their end.
fn follow<R: Records>(trails: &mut [Trail], records: &R, bytes: &[u8]) {
    let mut go_on = true;
    while go_on {
        go_on = false;
        for trail in trails.iter_mut().filter(|trail| trail.place < trail.end) {
            let Some(next) = records.end_of(bytes, trail.place) else {
                trail.end = trail.place;
                continue;
            };
            go_on = true;
            trail.found.push(trail.place);
            trail.place = next;
            R::ask_for(bytes, next);
        }
    }
}
