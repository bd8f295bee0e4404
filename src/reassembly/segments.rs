//! [`Segments`]: the bytes of one side that came ahead of a hole, and the [`Pool`] of blocks that
//! they lie in.
//!
//! Contract: blocks are sorted by offset, never empty and never overlap; the first copy of a byte
//! stays. A side has at most the blocks it is told, all sides together at most the pool's. A
//! stretch that was on the wire but not captured is a *void*: a block without bytes, charged like
//! one with bytes, so that no traffic makes bookkeeping that no bound covers.
//!
//! Cost: finding a place is a binary search, making room for a block moves at most half of the
//! side's block heads (32 bytes each). Buffers are taken from the pool and go back to it; nothing
//! is allocated once the pool has grown to what the traffic needs.

use std::collections::VecDeque;
use std::ops::Range;

use crate::time::Timestamp;

/// Bytes in a block: one full Ethernet segment fits, and the segments of a burst share blocks.
pub(crate) const BLOCK_BYTES: usize = 2048;

/// Block heads that an empty store keeps room for; more is given back, so that a burst on each
/// of many streams in turn does not stay in memory.
const HEADS_KEPT: usize = 16;

type Buffer = Box<[u8; BLOCK_BYTES]>;

/// The blocks of all sides: a bound, and the buffers that are free.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<Buffer>,
    used: usize,
    max: usize,
}

impl Pool {
    pub(crate) fn new(max: usize) -> Self {
        Self { free: Vec::new(), used: 0, max }
    }

    /// Blocks in use, voids included.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Charges one block; `false` when all are in use.
    fn charge(&mut self) -> bool {
        let room = self.used < self.max;
        self.used += usize::from(room);
        room
    }

    /// A buffer for a block that is charged already; its content is what was in it last.
    fn buffer(&mut self) -> Buffer {
        self.free.pop().unwrap_or_else(|| Box::new([0; BLOCK_BYTES]))
    }

    /// Takes a block back.
    pub(crate) fn put(&mut self, block: Block) {
        self.used -= 1;
        self.free.extend(block.buffer);
    }
}

/// Consecutive bytes of a stream, or a void of that length.
#[derive(Debug)]
pub(crate) struct Block {
    /// Where in the stream it starts.
    pub(crate) offset: u64,
    /// When its first byte came.
    pub(crate) since: Timestamp,
    /// At most [`BLOCK_BYTES`], but for a void. Not 0.
    len: u32,
    buffer: Option<Buffer>,
}

// What the module's costs are told in.
const _: () = assert!(size_of::<Block>() == 32);

impl Block {
    /// One past its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// Its bytes; `None` for a void.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        let buffer = self.buffer.as_ref()?;
        buffer.get(..self.len as usize)
    }

    /// How many bytes of `piece` differ from those held here. Voids differ from nothing.
    pub(crate) fn conflicts(&self, piece: &Piece<'_>) -> u64 {
        let common = self.offset.max(piece.at)..self.end().min(piece.data_end());
        let Some(held) = self.bytes() else { return 0 };
        if common.is_empty() {
            return 0;
        }
        let held =
            &held[(common.start - self.offset) as usize..(common.end - self.offset) as usize];
        let copy = piece.slice(common);
        if held == copy {
            return 0;
        }
        held.iter().zip(copy).filter(|(a, b)| a != b).count() as u64
    }
}

/// A stretch of a stream as a frame brings it: captured bytes, then some that were cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Where in the stream it starts.
    pub(crate) at: u64,
    /// The captured bytes.
    pub(crate) bytes: &'a [u8],
    /// How many bytes followed on the wire.
    pub(crate) cut: u32,
    /// When it came.
    pub(crate) ts: Timestamp,
}

impl<'a> Piece<'a> {
    /// One past the last captured byte.
    pub(crate) fn data_end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// One past the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.data_end() + u64::from(self.cut)
    }

    /// The captured bytes in a range of the stream that lies within them.
    pub(crate) fn slice(&self, range: Range<u64>) -> &'a [u8] {
        let range = (range.start - self.at) as usize..(range.end - self.at) as usize;
        self.bytes.get(range).unwrap_or(&[])
    }

    /// What is left from `at` on, which is not past the end.
    pub(crate) fn from(self, at: u64) -> Self {
        let skip = at.saturating_sub(self.at);
        let data = (self.bytes.len() as u64).min(skip);
        let cut = self.cut - (skip - data).min(u64::from(self.cut)) as u32;
        Self { at: self.at + skip, bytes: &self.bytes[data as usize..], cut, ..self }
    }

    /// What is left before `end`.
    pub(crate) fn until(self, end: u64) -> Self {
        let len = end.saturating_sub(self.at);
        let data = (self.bytes.len() as u64).min(len);
        let cut = (len - data).min(u64::from(self.cut)) as u32;
        Self { bytes: &self.bytes[..data as usize], cut, ..self }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.cut == 0
    }
}

impl Default for Hole {
    fn default() -> Self {
        Self { at: u64::MAX, since: Timestamp::ZERO, acked_at: None }
    }
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// Bytes that were new and are held now, or known to be cut.
    pub(crate) new: u64,
    /// Bytes that differ from those held first.
    pub(crate) conflicts: u64,
    /// Where in the stream there was no block left; what is before is dealt with.
    pub(crate) full_at: Option<u64>,
}

/// The blocks of one side, and since when it waits for what is missing before them.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    blocks: VecDeque<Block>,
    /// The first hole; means something while there are blocks. Kept by the stream.
    pub(crate) hole: Hole,
}

/// The hole before the first block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hole {
    /// Where in the stream it starts; `u64::MAX` before there is one.
    pub(crate) at: u64,
    /// When the first byte behind it came.
    pub(crate) since: Timestamp,
    /// When it was first known that the receiver has its bytes.
    pub(crate) acked_at: Option<Timestamp>,
}

impl Segments {
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The first block: it ends the first hole.
    pub(crate) fn front(&self) -> Option<&Block> {
        self.blocks.front()
    }

    /// One past the last byte held; 0 when none is.
    pub(crate) fn end(&self) -> u64 {
        self.blocks.back().map_or(0, Block::end)
    }

    /// Takes the first block when it starts at `offset`.
    pub(crate) fn pop_at(&mut self, offset: u64) -> Option<Block> {
        self.blocks.front().filter(|block| block.offset == offset)?;
        let block = self.blocks.pop_front();
        if self.blocks.is_empty() && self.blocks.capacity() > HEADS_KEPT {
            self.blocks.shrink_to(HEADS_KEPT);
        }
        block
    }

    /// Keeps what is new of `piece`, in at most `max` blocks.
    pub(crate) fn insert(&mut self, pool: &mut Pool, max: usize, piece: &Piece<'_>) -> Inserted {
        let mut done = Inserted::default();
        let end = piece.end();
        let mut pos = piece.at;
        let mut next = self.blocks.partition_point(|block| block.end() <= pos);
        while pos < end {
            let stop = self.blocks.get(next).map_or(end, |block| block.offset.min(end));
            if pos < stop {
                let (reached, index) = self.fill(pool, max, next, piece, pos..stop);
                done.new += reached - pos;
                (pos, next) = (reached, index);
                if pos < stop {
                    done.full_at = Some(pos);
                    break;
                }
            }
            if let Some(block) = self.blocks.get(next).filter(|_| pos < end) {
                done.conflicts += block.conflicts(piece);
                pos = block.end().min(end);
                next += 1;
            }
        }
        done
    }

    /// Fills a stretch that nothing covers, before block `next`. Returns how far it came and the
    /// index of the block that follows.
    fn fill(
        &mut self,
        pool: &mut Pool,
        max: usize,
        mut next: usize,
        piece: &Piece<'_>,
        range: Range<u64>,
    ) -> (u64, usize) {
        let data_end = piece.data_end();
        let mut pos = range.start;
        while pos < range.end {
            let is_data = pos < data_end;
            let stop = if is_data { range.end.min(data_end) } else { range.end };
            let room = self.room_after(next, pos, is_data);
            if room == 0 {
                if self.blocks.len() >= max || !pool.charge() {
                    break;
                }
                let buffer = is_data.then(|| pool.buffer());
                self.blocks.insert(next, Block { offset: pos, since: piece.ts, len: 0, buffer });
                next += 1;
                continue;
            }
            let Some(block) = next.checked_sub(1).and_then(|last| self.blocks.get_mut(last)) else {
                break;
            };
            let len = room.min(stop - pos);
            if let Some(buffer) = &mut block.buffer {
                let from = block.len as usize;
                buffer[from..from + len as usize].copy_from_slice(piece.slice(pos..pos + len));
            }
            block.len += len as u32;
            pos += len;
        }
        (pos, next)
    }

    /// How many bytes, or cut bytes, can be added to the block before `next`, should it end at
    /// `pos`.
    fn room_after(&self, next: usize, pos: u64, is_data: bool) -> u64 {
        let last = next.checked_sub(1).and_then(|last| self.blocks.get(last));
        match last {
            Some(block) if block.end() == pos && block.buffer.is_some() == is_data => {
                let max = if is_data { BLOCK_BYTES as u32 } else { u32::MAX };
                u64::from(max - block.len)
            }
            _ => 0,
        }
    }
}
