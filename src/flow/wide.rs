//! The wide parts of keys, in a slab beside the entries.
//!
//! Contract: a slot's wide part is the one that was put there last. Memory is taken by the chunk, when the first slot of one is
//! given a wide part, so that traffic whose keys have none pays for none; no packet waits for more than a chunk to be made.

use crate::prefetch::prefetch;

/// Slots of a chunk: 7 KiB of the 5-tuple's wide parts, some hundred nanoseconds to make.
const CHUNK: usize = 256;

/// Wide parts by slot.
#[derive(Debug)]
pub struct Wides<W> {
    chunks: Box<[Box<[W]>]>,
}

impl<W: Copy + Default + Eq> Wides<W> {
    /// For slots below `max`.
    pub fn new(max: usize) -> Self {
        let chunks = std::iter::repeat_with(Box::default).take(max.div_ceil(CHUNK)).collect();
        Self { chunks }
    }

    /// Gives a slot its wide part.
    #[inline(never)]
    pub fn set(&mut self, slot: u32, wide: W) {
        let chunk = &mut self.chunks[slot as usize / CHUNK];
        if chunk.is_empty() {
            *chunk = Self::chunk();
        }
        chunk[slot as usize % CHUNK] = wide;
    }

    fn chunk() -> Box<[W]> {
        vec![W::default(); CHUNK].into_boxed_slice()
    }

    /// A slot's wide part, if it was ever given one.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&W> {
        self.chunks.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)
    }

    /// Whether a slot's wide part is this one. A call: few keys have one.
    #[inline(never)]
    pub fn is(&self, slot: u32, wide: &W) -> bool {
        self.get(slot) == Some(wide)
    }

    /// Asks for a slot's wide part.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        if let Some(wide) = self.get(slot) {
            prefetch(wide);
        }
    }

    /// Takes all of its memory at once, and has it touched.
    pub fn touch(&mut self) {
        self.chunks.fill_with(Self::chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_its_own_and_others_take_no_memory() {
        let mut wides = Wides::new(3 * CHUNK);
        let last = 3 * CHUNK as u32 - 1;
        assert_eq!(wides.get(last), None);
        wides.set(last, 7u64);
        wides.set(last - 1, 8);
        wides.set(0, 9);
        wides.set(last, 10);
        assert_eq!([last, last - 1, 0].map(|slot| wides.get(slot).copied()), [Some(10), Some(8), Some(9)]);
        assert_eq!(wides.get(CHUNK as u32), None, "between them");
        assert_eq!(wides.get(last + 1), None, "no such slot");
        assert!(wides.chunks[1].is_empty());
        wides.touch();
        assert!(wides.chunks.iter().all(|chunk| chunk.len() == CHUNK));
    }
}
