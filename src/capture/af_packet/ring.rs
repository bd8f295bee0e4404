//! The blocks of the ring, in turn: whose they are, and their frames.
//!
//! Contract: a block is touched only from when its status says that it is ours until it is given back, and it is given back
//! only when all of it was lent. Blocks become ours in the order of their places.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::MmapRaw;

use super::block::{Place, STATUS_AT};
use super::config::Config;
use crate::capture::BATCH_FRAMES_MAX;
use crate::capture::file::recycled;
use crate::frame::{Frame, LinkType};

/// The ring of one socket.
pub(super) struct Ring {
    memory: MmapRaw,
    block_bytes: usize,
    blocks: usize,
    /// The block whose turn it is.
    turn: usize,
    /// How far it was read; `None` while it is the kernel's.
    place: Option<Place>,
    /// The last batch's frames, taken out; kept for its room.
    scratch: Vec<Frame<'static>>,
    link: LinkType,
    interface: u16,
    /// Frames handed out.
    pub(super) delivered: u64,
    /// Those of them that had the NIC's own time.
    pub(super) by_hardware: u64,
    /// Frames that a block claimed and did not have: none, unless the kernel is wrong.
    pub(super) broken: u64,
}

impl Ring {
    /// `memory` is the ring that a socket made by `config`.
    pub(super) fn new(memory: MmapRaw, config: &Config, link: LinkType, interface: u16) -> Self {
        let (block_bytes, blocks) = (config.block_bytes as usize, config.blocks as usize);
        assert_eq!(memory.len(), block_bytes * blocks, "a ring of another configuration");
        Self {
            memory,
            block_bytes,
            blocks,
            turn: 0,
            place: None,
            scratch: Vec::with_capacity(BATCH_FRAMES_MAX),
            link,
            interface,
            delivered: 0,
            by_hardware: 0,
            broken: 0,
        }
    }

    /// Where the block begins whose turn it is.
    fn block(&self) -> *mut u8 {
        // SAFETY:
        // - `turn` is less than `blocks`, and the memory has that many blocks (checked in `new`).
        unsafe { self.memory.as_mut_ptr().add(self.turn * self.block_bytes) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY:
        // - a block has at least 64 KiB and begins at a multiple of the size of a page: the word is within, and aligned.
        // - the memory lives as long as `self`.
        // - it is never accessed in another way while it may change: we borrow a block only while its status is ours to set.
        unsafe { AtomicU32::from_ptr(self.block().add(STATUS_AT).cast()) }
    }

    /// Whether there are frames to lend. Takes the next block for that when it is ours.
    #[inline]
    pub(super) fn has_frames(&mut self) -> bool {
        // A block without a frame, if the kernel ever gives one, goes right back: once around at most.
        for _ in 0..self.blocks {
            if self.place.is_none() {
                if self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                    return false;
                }
                // SAFETY:
                // - as in `lend`.
                let block = unsafe { std::slice::from_raw_parts(self.block(), self.block_bytes) };
                self.place = Some(Place::first(block));
            }
            match self.place {
                Some(place) if place.is_end() => self.give_back(),
                _ => return true,
            }
        }
        false
    }

    /// Lends the next frames of the block whose turn it is; none, when there are none.
    #[inline]
    pub(super) fn lend<R>(&mut self, f: impl FnOnce(&[Frame<'_>]) -> R) -> R {
        let Some(mut place) = self.place else { return f(&[]) };
        // SAFETY:
        // - the memory has this block (see `block`), and lives as long as `self`.
        // - `place` is there, so its status said that it is ours, read with acquire: the kernel has written all of it and does
        //   not write again until the status is its own, which only `give_back` makes it. Meanwhile it reads the status at most.
        // - nothing else of ours refers to the block: what was borrowed in earlier calls ended with them, and `status` is
        //   not used before this borrow ends.
        let block = unsafe { std::slice::from_raw_parts_mut(self.block(), self.block_bytes) };
        let mut frames = recycled(std::mem::take(&mut self.scratch));
        let (link, interface) = (self.link, self.interface);
        let mut by_hardware = 0;
        place.walk(block, BATCH_FRAMES_MAX, |record| {
            by_hardware += u64::from(record.by_hardware);
            frames.push(Frame {
                ts: record.ts,
                wire_len: record.wire_len,
                link,
                interface,
                data: record.data,
            });
        });
        self.place = Some(place);
        self.delivered += frames.len() as u64;
        self.by_hardware += by_hardware;
        let result = f(&frames);
        self.scratch = recycled(frames);
        if place.is_end() {
            self.give_back();
        }
        result
    }

    /// Gives the block to the kernel, and turns to the next one.
    fn give_back(&mut self) {
        let Some(place) = self.place.take() else { return };
        self.broken += u64::from(place.broken);
        // Release: what we read and wrote comes before what the kernel writes there next.
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.turn = (self.turn + 1) % self.blocks;
    }
}

#[cfg(test)]
mod tests {
    use memmap2::MmapMut;

    use super::super::block::tests::{Laid, block, plain};
    use super::*;

    #[test]
    fn frames_are_counted_by_whose_time_they_have() {
        const FRAMES: u64 = BATCH_FRAMES_MAX as u64 + 44;
        let (nic, kernel) = (libc::TP_STATUS_TS_RAW_HARDWARE, libc::TP_STATUS_TS_SOFTWARE);
        let config = Config::builder().block_bytes(1 << 16).blocks(2).build().expect("valid");
        let mut memory = MmapMut::map_anon(config.ring_bytes() as usize).expect("memory");
        // More than fit one batch, then a few; as the kernel would give both blocks to us.
        for (number, (frames, times)) in
            [(FRAMES as usize, [nic, kernel]), (6, [0, nic])].iter().enumerate()
        {
            let frame =
                |n: usize| Laid { time: times[usize::from(n.is_multiple_of(3))], ..plain(60) };
            let at = number << 16;
            memory[at..at + (1 << 16)]
                .copy_from_slice(&block(&(0..*frames).map(frame).collect::<Vec<_>>()));
            memory[at + STATUS_AT] = libc::TP_STATUS_USER as u8;
        }
        let mut ring = Ring::new(memory.into(), &config, LinkType::ETHERNET, 0);
        let mut counts = Vec::new();
        while ring.has_frames() {
            ring.lend(|frames| assert!(!frames.is_empty()));
            counts.push((ring.delivered, ring.by_hardware));
        }
        // Every third is not by hardware in the first block, and is in the second.
        let by_hardware = |frames: u64| frames - frames.div_ceil(3);
        let first = BATCH_FRAMES_MAX as u64;
        let expected = [
            (first, by_hardware(first)),
            (FRAMES, by_hardware(FRAMES)),
            (FRAMES + 6, by_hardware(FRAMES) + 2),
        ];
        assert_eq!(counts, expected);
    }
}
