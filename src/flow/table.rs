//! Key → slot: open addressing with linear probing over 8-byte buckets.
//!
//! Contract: a fixed number of buckets, at most two thirds full, never rehashed; erasing shifts the
//! rest of the cluster back, so there are no tombstones that pile up, and no pause. The table knows tags and
//! slots only: keys live in the caller's slab, and the caller says whether a slot's key is the one.
//! No entry is further than [`PROBES_MAX`] buckets from its home, so that no search is longer; and erasing looks at no more than
//! [`SHIFTS_MAX`] buckets. Only in a cluster that is longer, as somebody makes it who knows the hash, a stone is left, which the next
//! entry that comes by takes away.
//!
//! hashbrown's `HashTable` was considered: it erases by tombstone and then rehashes everything in
//! place when they pile up, which at a million flows stops the world for tens of milliseconds.

use crate::pages::ask_for_huge;
use crate::prefetch::prefetch;

/// A bucket: tag in the upper half, slot plus one in the lower; 0 is empty.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bucket(u64);

impl Bucket {
    const EMPTY: Self = Self(0);

    #[inline]
    fn new(tag: u32, slot: u32) -> Self {
        Self(u64::from(tag) << 32 | u64::from(slot + 1))
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is left at `index` of an entry that is gone while others behind it are not. Its tag's home is the next bucket: no
    /// search for that tag comes by, and it may always move.
    fn stone(index: u32) -> Self {
        Self(u64::from(index.wrapping_add(1)) << 32 | u64::from(STONE))
    }

    #[inline]
    fn is_stone(self) -> bool {
        self.0 as u32 == STONE
    }

    /// Whether an entry may be put here.
    #[inline]
    fn is_free(self) -> bool {
        self.is_empty() || self.is_stone()
    }

    #[inline]
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// [`NONE`] when empty.
    #[inline]
    fn slot(self) -> u32 {
        (self.0 as u32).wrapping_sub(1)
    }
}

/// No slot.
pub const NONE: u32 = u32::MAX;

/// The part of a key's hash that the table keeps: its low bits choose the bucket, all of it
/// weeds out nearly every other key.
#[inline]
pub fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Buckets that a search looks at before it gives up: 4 KiB. With a hash that nobody can aim at and a table
/// two thirds full, one search in 10^15 is as long.
pub const PROBES_MAX: u32 = 512;

/// Buckets that are looked at to close the gap of an entry that is gone. The longest cluster that chance makes in a million flows
/// is a tenth of it.
pub const SHIFTS_MAX: u32 = 4 * PROBES_MAX;

/// In the place of a slot: more than any, for they are less than 2^30.
const STONE: u32 = u32::MAX;

/// What became of a slot that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It is in.
    Done,
    /// Nothing was done: the table is full.
    Full,
    /// It is in, in the place of this slot, which is out: every bucket that it may be in was taken.
    InPlaceOf(u32),
}

/// Maps tags to slots.
#[derive(Clone)]
pub struct Table {
    /// Each a [`Bucket`]: as integers that are zero their memory is the kernel's zeroes, and not written to before it is used.
    buckets: Box<[u64]>,
    mask: u32,
    len: u32,
    max: u32,
}

impl Table {
    /// Takes the memory for `max` entries, 1 to 2^30: 12 to 24 bytes an entry.
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, 1 << 30);
        let len = (max + max / 2).next_power_of_two().max(4);
        let mut buckets = vec![Bucket::EMPTY.0; len].into_boxed_slice();
        ask_for_huge(&mut buckets);
        Self { buckets, mask: (len - 1) as u32, len: 0, max: max as u32 }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets every entry.
    pub fn clear(&mut self) {
        self.buckets.fill(Bucket::EMPTY.0);
        self.len = 0;
    }

    #[inline]
    fn at(&self, index: u32) -> Bucket {
        Bucket(self.buckets[self.place(index)])
    }

    #[inline]
    fn put(&mut self, index: u32, bucket: Bucket) {
        let place = self.place(index);
        self.buckets[place] = bucket.0;
    }

    /// Where a bucket is: as many places as there are, without a check.
    #[inline]
    fn place(&self, index: u32) -> usize {
        index as usize & (self.buckets.len() - 1)
    }

    /// Asks for the bucket where the search for a tag begins.
    #[inline]
    pub fn prefetch(&self, tag: u32) {
        prefetch(&self.buckets[self.place(tag)]);
    }

    /// A slot with this tag, whose key may still be another, or [`NONE`]. For looking ahead: it touches buckets and nothing else.
    ///
    /// Which of the first two it is in is not a branch: it would be guessed wrongly nearly as often as it is the second.
    #[inline]
    pub fn peek(&self, tag: u32) -> u32 {
        // A bucket's slot if it has the tag, or else more than any slot.
        let slot = |index| (self.at(index).0 ^ u64::from(tag) << 32).wrapping_sub(1);
        let least = slot(tag).min(slot(tag.wrapping_add(1)));
        u32::try_from(least).unwrap_or_else(|_| self.peek_on(tag))
    }

    /// The same where neither of them has the tag. A call: of most flows that are there one has it.
    #[inline(never)]
    fn peek_on(&self, tag: u32) -> u32 {
        self.find(tag, |_| true).unwrap_or(NONE)
    }

    /// The slot with this tag for which `is_key` holds.
    #[inline]
    pub fn find(&self, tag: u32, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        // Ends at an empty bucket as a rule: at least a third of them are.
        for probe in 0..PROBES_MAX {
            let bucket = self.at(tag.wrapping_add(probe));
            if bucket.is_empty() {
                return None;
            }
            if bucket.tag() == tag && is_key(bucket.slot()) {
                return Some(bucket.slot());
            }
        }
        None
    }

    /// Adds a slot. The caller has made sure that its key is not there yet. Where all of its buckets are taken it
    /// takes the last one: whoever makes tags collide loses the newest there, mostly their own.
    #[inline]
    pub fn insert(&mut self, tag: u32, slot: u32) -> Inserted {
        if self.len >= self.max {
            return Inserted::Full;
        }
        for probe in 0..PROBES_MAX {
            let index = tag.wrapping_add(probe);
            if self.at(index).is_free() {
                self.put(index, Bucket::new(tag, slot));
                self.len += 1;
                return Inserted::Done;
            }
        }
        let last = tag.wrapping_add(PROBES_MAX - 1);
        let old = self.at(last);
        self.put(last, Bucket::new(tag, slot));
        Inserted::InPlaceOf(old.slot())
    }

    /// Has all of its memory touched, so that the kernel clears none of it while packets wait.
    pub fn touch(&mut self) {
        std::hint::black_box(&mut self.buckets);
        self.buckets.fill(Bucket::EMPTY.0);
        self.len = 0;
        std::hint::black_box(&mut self.buckets);
    }

    /// Takes a slot out; `false` when it is not there.
    pub fn remove(&mut self, tag: u32, slot: u32) -> bool {
        self.remove_within(tag, slot, SHIFTS_MAX)
    }

    /// The same, having looked at so many buckets behind it.
    #[inline]
    fn remove_within(&mut self, tag: u32, slot: u32, shifts_max: u32) -> bool {
        let gone = Bucket::new(tag, slot);
        for probe in 0..PROBES_MAX {
            let index = tag.wrapping_add(probe);
            let bucket = self.at(index);
            if bucket == gone {
                self.close_gap(index, shifts_max);
                self.len -= 1;
                return true;
            }
            if bucket.is_empty() {
                break;
            }
        }
        false
    }

    /// Knuth's algorithm R: whatever may not be passed over on the way from its home moves into the hole, which moves on.
    #[inline]
    fn close_gap(&mut self, gap: u32, shifts_max: u32) {
        let mut hole = gap;
        for shift in 1..=shifts_max {
            let next = gap.wrapping_add(shift);
            let bucket = self.at(next);
            if bucket.is_empty() {
                self.put(hole, Bucket::EMPTY);
                return;
            }
            let from_home = next.wrapping_sub(bucket.tag()) & self.mask;
            let from_hole = next.wrapping_sub(hole) & self.mask;
            if from_home >= from_hole {
                let moved = if bucket.is_stone() { Bucket::stone(hole) } else { bucket };
                self.put(hole, moved);
                hole = next;
            }
        }
        self.put(hole, Bucket::stone(hole));
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("len", &self.len)
            .field("buckets", &self.buckets.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    #[test]
    fn a_full_table_refuses_and_still_finds() {
        let mut table = Table::new(3);
        for slot in 0..3 {
            assert_eq!(table.insert(7, slot), Inserted::Done);
        }
        assert_eq!(table.insert(7, 3), Inserted::Full);
        assert_eq!(table.find(7, |slot| slot == 2), Some(2));
        assert_eq!(table.find(7, |slot| slot == 3), None);
    }

    #[test]
    fn clusters_wrap_around_the_end() {
        let mut table = Table::new(4);
        for slot in 0..4 {
            assert_eq!(table.insert(u32::MAX, slot), Inserted::Done);
        }
        assert!(table.remove(u32::MAX, 0));
        for slot in 1..4 {
            assert_eq!(table.find(u32::MAX, |s| s == slot), Some(slot));
        }
    }

    /// One tag for all, as if somebody knew the key of the hash.
    #[test]
    fn tags_that_all_collide_make_no_search_long() {
        let mut table = Table::new(4 * PROBES_MAX as usize);
        for slot in 0..PROBES_MAX {
            assert_eq!(table.insert(7, slot), Inserted::Done);
        }
        // A stranger in the same cluster, and with it a hole that a removal must move there.
        assert_eq!(table.insert(8, 9000), Inserted::Done);
        let mut last = PROBES_MAX - 1;
        for slot in 1000..1100 {
            assert_eq!(table.insert(7, slot), Inserted::InPlaceOf(last));
            last = slot;
        }
        assert_eq!(table.len(), PROBES_MAX as usize + 1);
        assert_eq!(table.find(8, |_| true), Some(9000));
        let mut looked_at = 0;
        let found = table.find(7, |slot| {
            looked_at += 1;
            slot == 999
        });
        assert_eq!((found, looked_at), (None, PROBES_MAX));
        // The stranger moves up into the hole, as the last of the cluster.
        assert!(table.remove(7, 0));
        assert_eq!(table.find(8, |_| true), Some(9000));
        assert_eq!(table.insert(7, 0), Inserted::InPlaceOf(9000));
    }

    /// A cluster that is longer than a removal looks at, as if somebody knew where keys go.
    #[test]
    fn a_removal_looks_at_a_bounded_part_of_a_long_cluster() {
        let len = SHIFTS_MAX + 100;
        let mut table = Table::new(2 * len as usize);
        // Each but the first is one bucket from its home.
        assert_eq!(table.insert(0, len), Inserted::Done);
        for slot in 0..len {
            assert_eq!(table.insert(slot, slot), Inserted::Done);
        }
        let full = |table: &Table| {
            table.buckets.iter().filter(|&&bucket| bucket != Bucket::EMPTY.0).count()
        };
        let before = full(&table);
        assert!(table.remove(0, len));
        assert_eq!((full(&table), table.len()), (before, before - 1), "a stone is left");
        for slot in 0..len {
            assert_eq!(table.find(slot, |_| true), Some(slot));
        }
        // The next entry that comes by takes its place.
        assert_eq!(table.insert(SHIFTS_MAX - 10, len), Inserted::Done);
        assert_eq!(full(&table), before);
    }

    proptest! {
        /// Tags so close to each other that all are one cluster, and removals that look at next to nothing of it.
        #[test]
        fn stones_are_passed_over_and_taken_away(
            ops in prop::collection::vec((any::<bool>(), 0..60u32, 0..40u32), 0..400),
            shifts_max in 1..6u32,
        ) {
            // More buckets than a search looks at: none comes around to what it would not come by.
            let mut table = Table::new(PROBES_MAX as usize);
            let mut oracle: BTreeMap<u32, u32> = BTreeMap::new();
            for (add, slot, tag) in ops {
                if add {
                    if let Entry::Vacant(place) = oracle.entry(slot) {
                        prop_assert_eq!(table.insert(tag, slot), Inserted::Done);
                        place.insert(tag);
                    }
                } else if let Some(tag) = oracle.remove(&slot) {
                    prop_assert!(table.remove_within(tag, slot, shifts_max));
                } else {
                    prop_assert!(!table.remove_within(tag, slot, shifts_max));
                }
                prop_assert_eq!(table.len(), oracle.len());
                // Each stone is one bucket before its home, however often it moved.
                let buckets = (0..).zip(table.buckets.iter().copied().map(Bucket));
                for (index, bucket) in buckets.filter(|(_, bucket)| bucket.is_stone()) {
                    prop_assert_eq!(bucket.tag() & table.mask, (index + 1) & table.mask);
                }
                for tag in 0..40 {
                    let mut expected: Vec<u32> =
                        oracle.iter().filter(|(_, t)| **t == tag).map(|(slot, _)| *slot).collect();
                    let mut found = Vec::new();
                    let _ = table.find(tag, |slot| {
                        found.push(slot);
                        false
                    });
                    found.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(table.peek(tag) == NONE, expected.is_empty());
                    prop_assert_eq!(found, expected);
                }
            }
        }

        /// Few tags, so that clusters collide, overlap and wrap.
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((any::<bool>(), 0..24u32, any::<u8>()), 0..400)) {
            let mut table = Table::new(20);
            let mut oracle: BTreeMap<u32, u32> = BTreeMap::new();
            for (add, slot, tag) in ops {
                let tag = u32::from(tag) * 0x0101_0101;
                if add {
                    if !oracle.contains_key(&slot) {
                        let fits = oracle.len() < 20;
                        let expected = if fits { Inserted::Done } else { Inserted::Full };
                        prop_assert_eq!(table.insert(tag, slot), expected);
                        if fits {
                            oracle.insert(slot, tag);
                        }
                    }
                } else if let Some(tag) = oracle.remove(&slot) {
                    prop_assert!(table.remove(tag, slot));
                } else {
                    prop_assert!(!table.remove(tag, slot));
                }
                prop_assert_eq!(table.len(), oracle.len());
                for (&slot, &tag) in &oracle {
                    prop_assert_eq!(table.find(tag, |s| s == slot), Some(slot));
                    prop_assert_ne!(table.peek(tag), NONE);
                }
            }
        }
    }
}
