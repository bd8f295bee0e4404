//! Which slots are due when: a timer wheel that is touched when a deadline comes, not when it moves.
//!
//! Contract: a slot is in the wheel at most once. It is handed out by [`Wheel::pop_due`] not before its
//! deadline and at most [`TICK_NS`] after it, or earlier when the deadline was beyond the wheel's
//! horizon; the caller looks at the real deadline then and schedules it again. Every operation is
//! O(1) but for a scan of `WORDS` words.
//!
//! There is one ring per [`Class`], so that the same lists say what is worth least when room is needed:
//! within a class, what would have expired first.

use super::entry::touch;
use crate::pages::{ask_for_small, room};
use crate::prefetch::prefetch;
use crate::time::Timestamp;

/// Ticks are 2^27 ns, about 134 ms.
const TICK_SHIFT: u32 = 27;
/// Length of a tick in nanoseconds.
pub const TICK_NS: u64 = 1 << TICK_SHIFT;
/// Buckets of a ring: the horizon is about 550 s, beyond the usual idle timeouts.
const BUCKETS: u64 = 4096;
/// Words of a ring's occupancy bitmap.
const WORDS: usize = BUCKETS as usize / 64;
/// No slot.
const NIL: u32 = u32::MAX;
/// Marks a `prev` that is a list head rather than a slot.
const HEAD: u32 = 1 << 31;

/// What a flow is worth when room is needed, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Closed; it waits for stragglers.
    Closed,
    /// One packet, or SYNs that nobody answered.
    Slight,
    /// Everything else.
    Normal,
}

const CLASSES: usize = 3;

#[derive(Clone, Copy)]
struct Link {
    next: u32,
    /// A slot, `HEAD | list` or `NIL` when not in the wheel.
    prev: u32,
}

const UNLINKED: Link = Link { next: NIL, prev: NIL };

/// The wheel.
#[derive(Clone)]
pub struct Wheel {
    links: Vec<Link>,
    heads: Box<[u32]>,
    occupied: [[u64; WORDS]; CLASSES],
    /// The tick that is being emptied: every scheduled tick is in `cursor .. cursor + BUCKETS`.
    cursor: u64,
    /// No slot's tick is before this one: until then there is nothing to look for.
    quiet_until: u64,
    len: usize,
}

#[inline]
fn tick(ts: Timestamp) -> u64 {
    ts.as_nanos() >> TICK_SHIFT
}

impl Wheel {
    /// For slots below `max`; memory is taken as slots are first used, up to 8 bytes each.
    pub fn new(max: usize) -> Self {
        Self {
            links: room(max),
            heads: vec![NIL; CLASSES * BUCKETS as usize].into_boxed_slice(),
            occupied: [[0; WORDS]; CLASSES],
            cursor: 0,
            quiet_until: u64::MAX,
            len: 0,
        }
    }

    /// Scheduled slots.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a slot is scheduled.
    pub fn contains(&self, slot: u32) -> bool {
        self.links.get(slot as usize).is_some_and(|link| link.prev != NIL)
    }

    /// Asks for what moving a slot touches of its own.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        if let Some(link) = self.links.get(slot as usize) {
            prefetch(link);
        }
    }

    /// Has all of its memory touched, so that the kernel clears none of it while packets wait.
    pub fn touch(&mut self) {
        touch(&mut self.links);
    }

    /// What is of slots that begin so many from here is to come in small pages.
    pub fn use_small_pages(&mut self, ahead: usize) {
        ask_for_small(self.links.spare_capacity_mut().get_mut(ahead..).unwrap_or_default());
    }

    /// Forgets every slot.
    pub fn clear(&mut self) {
        self.links.clear();
        self.heads.fill(NIL);
        self.occupied = [[0; WORDS]; CLASSES];
        self.quiet_until = u64::MAX;
        self.len = 0;
    }

    /// Schedules a slot, or moves it. `now` is only looked at when the wheel is empty.
    pub fn schedule(&mut self, slot: u32, class: Class, deadline: Timestamp, now: Timestamp) {
        if self.contains(slot) {
            self.cancel(slot);
        }
        if self.len == 0 {
            self.cursor = tick(now);
        }
        // The tick after the deadline's: when it comes, the deadline has passed.
        let due = (tick(deadline) + 1).clamp(self.cursor, self.cursor + BUCKETS - 1);
        self.quiet_until = self.quiet_until.min(due);
        let bucket = due % BUCKETS;
        let list = class as u32 * BUCKETS as u32 + bucket as u32;
        let index = slot as usize;
        let next = self.heads[list as usize];
        let link = Link { next, prev: HEAD | list };
        match self.links.get_mut(index) {
            Some(place) => *place = link,
            None => {
                // All but the last slot of those there are as a rule.
                self.links.resize(index, UNLINKED);
                self.links.push(link);
            }
        }
        if next != NIL {
            self.links[next as usize].prev = slot;
        }
        self.heads[list as usize] = slot;
        self.occupied[class as usize][bucket as usize / 64] |= 1 << (bucket % 64);
        self.len += 1;
    }

    /// Takes a slot out, if it is in.
    pub fn cancel(&mut self, slot: u32) {
        let Some(&Link { next, prev }) = self.links.get(slot as usize) else { return };
        if prev == NIL {
            return;
        }
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        if prev & HEAD == 0 {
            self.links[prev as usize].next = next;
        } else {
            let list = prev & !HEAD;
            self.heads[list as usize] = next;
            if next == NIL {
                let (class, bucket) = (list / BUCKETS as u32, list % BUCKETS as u32);
                self.occupied[class as usize][bucket as usize / 64] &= !(1 << (bucket % 64));
            }
        }
        self.links[slot as usize] = UNLINKED;
        self.len -= 1;
    }

    /// Takes out one slot that is due at `now`.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        let limit = tick(now);
        if self.len == 0 || limit < self.cursor {
            return None;
        }
        if limit < self.quiet_until {
            self.cursor = limit;
            return None;
        }
        // Time jumped by more than a revolution: all are due, whatever their tick.
        self.cursor = self.cursor.max(limit.saturating_sub(BUCKETS - 1));
        let due = self.next_occupied()?;
        self.quiet_until = due;
        if due > limit {
            self.cursor = limit;
            return None;
        }
        self.cursor = due;
        let bucket = (due % BUCKETS) as usize;
        let slot = (0..CLASSES)
            .map(|class| self.heads[class * BUCKETS as usize + bucket])
            .find(|&slot| slot != NIL)?;
        self.cancel(slot);
        Some(slot)
    }

    /// A slot of the lowest class there is, and in it the one whose turn is next, and when that
    /// is. It stays in.
    pub fn least(&self) -> Option<(u32, Timestamp)> {
        (0..CLASSES).find_map(|class| {
            let due = self.next_occupied_of(class)?;
            let slot = self.heads[class * BUCKETS as usize + (due % BUCKETS) as usize];
            Some((slot, Timestamp::from_nanos(due.saturating_mul(TICK_NS))))
        })
    }

    /// When [`pop_due`](Self::pop_due) next has something.
    pub fn next_due(&self) -> Option<Timestamp> {
        let due = self.next_occupied()?;
        Some(Timestamp::from_nanos(due.saturating_mul(TICK_NS)))
    }

    fn next_occupied(&self) -> Option<u64> {
        (0..CLASSES).filter_map(|class| self.next_occupied_of(class)).min()
    }

    fn next_occupied_of(&self, class: usize) -> Option<u64> {
        let words = &self.occupied[class];
        let start = self.cursor % BUCKETS;
        let (first, shift) = (start as usize / 64, start % 64);
        // The word of the cursor twice: from the cursor on, and at last up to it.
        (0..=WORDS).find_map(|turn| {
            let index = (first + turn) % WORDS;
            let mask = match turn {
                0 => u64::MAX << shift,
                WORDS => !(u64::MAX << shift),
                _ => u64::MAX,
            };
            let word = words[index] & mask;
            (word != 0).then(|| {
                let bucket = index as u64 * 64 + u64::from(word.trailing_zeros());
                self.cursor + (bucket + BUCKETS - start) % BUCKETS
            })
        })
    }
}

impl std::fmt::Debug for Wheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel").field("len", &self.len).field("cursor", &self.cursor).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(ticks: u64) -> Timestamp {
        Timestamp::from_nanos(ticks * TICK_NS)
    }

    #[test]
    fn nothing_comes_before_its_deadline_nor_much_later() {
        let mut wheel = Wheel::new(4);
        wheel.schedule(0, Class::Normal, at(10), at(0));
        assert_eq!(wheel.next_due(), Some(at(11)));
        assert_eq!(wheel.pop_due(at(10)), None);
        assert_eq!(wheel.pop_due(at(11)), Some(0));
        assert_eq!(wheel.pop_due(at(11)), None);
    }

    #[test]
    fn a_jump_of_years_pops_all_at_once() {
        let mut wheel = Wheel::new(4);
        for slot in 0..4 {
            wheel.schedule(slot, Class::Normal, at(u64::from(slot) * 100), at(0));
        }
        let far = at(1 << 34);
        let mut popped: Vec<_> = std::iter::from_fn(|| wheel.pop_due(far)).collect();
        popped.sort_unstable();
        assert_eq!(popped, [0, 1, 2, 3]);
        wheel.schedule(1, Class::Normal, Timestamp::MAX, far);
        assert_eq!(wheel.pop_due(far), None);
    }

    #[test]
    fn the_least_is_of_the_lowest_class_and_then_the_first() {
        let mut wheel = Wheel::new(4);
        wheel.schedule(0, Class::Normal, at(1), at(0));
        wheel.schedule(1, Class::Slight, at(9), at(0));
        wheel.schedule(2, Class::Slight, at(5), at(0));
        assert_eq!(wheel.least(), Some((2, at(6))));
        wheel.schedule(0, Class::Closed, at(99), at(0));
        assert_eq!(wheel.least(), Some((0, at(100))));
    }

    proptest! {
        /// Against a map of deadlines: what is due comes out, nothing else, nothing twice.
        #[test]
        fn behaves_like_a_map_of_deadlines(
            ops in prop::collection::vec((0..3u8, 0..16u32, 0..6000u64, 0..3u8), 1..200)
        ) {
            let mut wheel = Wheel::new(16);
            let mut oracle: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 5000u64;
            for (op, slot, delta, class) in ops {
                let class = [Class::Closed, Class::Slight, Class::Normal][usize::from(class)];
                match op {
                    0 => {
                        // Also deadlines in the past.
                        let deadline = now + delta - 1000;
                        wheel.schedule(slot, class, at(deadline), at(now));
                        oracle.insert(slot, deadline);
                    }
                    1 => {
                        wheel.cancel(slot);
                        oracle.remove(&slot);
                    }
                    _ => {
                        now += delta;
                        let mut again = Vec::new();
                        while let Some(slot) = wheel.pop_due(at(now)) {
                            let deadline = oracle[&slot];
                            if deadline < now {
                                oracle.remove(&slot);
                            } else {
                                // Beyond the horizon when it was scheduled.
                                again.push(slot);
                                prop_assert!(again.len() <= 3 * 16);
                                wheel.schedule(slot, Class::Normal, at(deadline), at(now));
                            }
                        }
                        prop_assert!(oracle.values().all(|&deadline| deadline >= now));
                    }
                }
                prop_assert_eq!(wheel.len(), oracle.len());
                prop_assert_eq!(wheel.least().is_some(), !oracle.is_empty());
                prop_assert_eq!(wheel.next_due().is_some(), !oracle.is_empty());
            }
        }
    }
}
