//! What only some flows have, by the slot of their entry.
//!
//! Contract: memory is taken by the chunk, when the first slot of one is changed, so that flows which have nothing here cost next to
//! nothing; nothing is moved, and no packet waits for more than a chunk to be made. A slot keeps what was put there last,
//! whichever flow is there.

use crate::prefetch::prefetch;

/// Slots of a chunk: one to eight kilobytes, some hundred nanoseconds to make.
const CHUNK: usize = 64;

/// Values by slot.
#[derive(Debug)]
pub(crate) struct BySlot<T> {
    /// Those that were not made are empty.
    chunks: Box<[Box<[T]>]>,
}

impl<T: Default> BySlot<T> {
    /// For slots below `max`.
    pub(crate) fn new(max: usize) -> Self {
        let chunks = std::iter::repeat_with(Box::default).take(max.div_ceil(CHUNK)).collect();
        Self { chunks }
    }

    /// What a slot has, if its chunk was ever made.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.chunks.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)
    }

    /// The same, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    /// What a slot has, to be changed; it has something from now on. `None` where there is no such slot.
    #[inline]
    pub(crate) fn edit(&mut self, slot: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(slot as usize / CHUNK)?;
        if chunk.is_empty() {
            Self::make(chunk);
        }
        chunk.get_mut(slot as usize % CHUNK)
    }

    #[cold]
    fn make(chunk: &mut Box<[T]>) {
        *chunk = std::iter::repeat_with(T::default).take(CHUNK).collect();
    }

    /// Asks for the line in which a slot's value begins.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(value) = self.get(slot) {
            prefetch(value);
        }
    }

    /// Takes all of its memory at once, and has it touched.
    pub(crate) fn touch(&mut self) {
        self.chunks.iter_mut().for_each(Self::make);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_its_own_and_others_take_no_memory() {
        let last = 3 * CHUNK as u32 - 1;
        let mut values = BySlot::new(last as usize + 1);
        assert_eq!(values.get(last), None);
        assert_eq!(values.get_mut(last), None);
        for (slot, value) in [(last, 7u64), (last - 1, 8), (0, 9), (last, 10)] {
            *values.edit(slot).unwrap() = value;
        }
        assert_eq!([last, last - 1, 0].map(|slot| values.get(slot).copied()), [10, 8, 9].map(Some));
        assert_eq!(values.get_mut(1), Some(&mut 0), "made with its neighbours");
        assert_eq!(values.get(CHUNK as u32), None, "between them");
        assert_eq!(values.edit(last + 1), None, "no such slot");
        values.touch();
        assert!(values.chunks.iter().all(|chunk| chunk.len() == CHUNK));
    }
}
