//! What few flows ever have, in a slab beside their entries.
//!
//! Contract: grows by one chunk at a time and never moves what is in it, so that no packet waits for
//! more than a chunk to be made; what is vacated is used again before it grows.

use super::stats::Totals;
use super::tcp::Loss;
use crate::prefetch::prefetch;

/// What few flows ever have: losses, updates, ICMP errors, counts beyond 32 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// What was lost or sent again on its TCP connection.
    pub loss: Loss,
    /// What updates have told so far, by [`End`](crate::net::End).
    pub reported: Totals,
    /// Packets that the entry's counters had no room for, by [`End`](crate::net::End).
    pub spilled: [u64; 2],
    /// Updates told.
    pub updates: u32,
    /// ICMP errors that quoted the flow.
    pub icmp_errors: u32,
}

/// Where a flow's [`Extra`] is, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraId(u32);

impl ExtraId {
    /// It has none.
    pub const NONE: Self = Self(u32::MAX);
}

/// Extras of a chunk: 26 KiB, a few microseconds to make.
const CHUNK: usize = 256;

/// What a flow without any has.
static NOTHING: Extra =
    Extra { loss: Loss::NONE, reported: Totals::NONE, spilled: [0; 2], updates: 0, icmp_errors: 0 };

/// The slab.
#[derive(Debug)]
pub struct Extras {
    chunks: Vec<Box<[Extra]>>,
    /// The one vacated last; its `updates` is the one vacated before it.
    vacant: ExtraId,
    /// How many were ever used.
    used: u32,
}

impl Extras {
    /// For as many as `max` flows: takes the memory for the list of chunks alone.
    pub fn new(max: usize) -> Self {
        let chunks = Vec::with_capacity(max.div_ceil(CHUNK));
        Self { chunks, vacant: ExtraId::NONE, used: 0 }
    }

    /// What a flow has.
    #[inline]
    pub fn get(&self, id: ExtraId) -> &Extra {
        let index = id.0 as usize;
        self.chunks.get(index / CHUNK).map_or(&NOTHING, |chunk| &chunk[index % CHUNK])
    }

    /// Asks for what a flow has, if it has one.
    #[inline]
    pub fn prefetch(&self, id: ExtraId) {
        let extra = self.get(id);
        prefetch(extra);
        prefetch(&extra.icmp_errors);
    }

    fn at(&mut self, id: ExtraId) -> &mut Extra {
        &mut self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }

    /// What a flow has, to be changed; it has one from now on.
    #[inline]
    pub fn edit(&mut self, id: &mut ExtraId) -> &mut Extra {
        if *id == ExtraId::NONE {
            *id = self.take();
        }
        self.at(*id)
    }

    #[inline(never)]
    fn take(&mut self) -> ExtraId {
        let id = self.vacant;
        if id != ExtraId::NONE {
            let extra = self.at(id);
            let next = ExtraId(extra.updates);
            *extra = NOTHING;
            self.vacant = next;
            return id;
        }
        if self.used as usize == self.chunks.len() * CHUNK {
            self.chunks.push(vec![NOTHING; CHUNK].into_boxed_slice());
        }
        self.used += 1;
        ExtraId(self.used - 1)
    }

    /// Takes back what a flow had.
    #[inline]
    pub fn vacate(&mut self, id: ExtraId) {
        if id != ExtraId::NONE {
            let next = self.vacant.0;
            self.at(id).updates = next;
            self.vacant = id;
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.chunks.clear();
        (self.vacant, self.used) = (ExtraId::NONE, 0);
    }
}

/// One flow's [`Extra`], whether it has one yet or not.
#[derive(Debug)]
pub struct ExtraOf<'a> {
    /// All of them.
    pub extras: &'a mut Extras,
    /// Which is the flow's.
    pub id: &'a mut ExtraId,
}

impl ExtraOf<'_> {
    /// To look at.
    pub fn get(&self) -> &Extra {
        self.extras.get(*self.id)
    }

    /// To be changed; the flow has one from now on.
    pub fn edit(&mut self) -> &mut Extra {
        self.extras.edit(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list: each flow keeps its own, and what is vacated comes back empty.
        #[test]
        fn behaves_like_a_list_of_options(
            ops in prop::collection::vec((0..3u8, 0..600usize), 1..2000)
        ) {
            let mut extras = Extras::new(600);
            let mut flows = vec![(ExtraId::NONE, 0u32); 600];
            let mut most = 0;
            for (op, flow) in ops {
                let (id, errors) = &mut flows[flow];
                if op == 0 {
                    extras.vacate(*id);
                    (*id, *errors) = (ExtraId::NONE, 0);
                } else {
                    *errors += 1;
                    extras.edit(id).icmp_errors += 1;
                }
                prop_assert_eq!(extras.get(*id).updates, 0);
                most = most.max(flows.iter().filter(|(id, _)| *id != ExtraId::NONE).count());
                prop_assert_eq!(extras.used as usize, most);
            }
            for (id, errors) in flows {
                prop_assert_eq!(extras.get(id).icmp_errors, errors);
            }
        }
    }
}
