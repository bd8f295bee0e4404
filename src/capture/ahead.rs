//! Asking memory for the bytes of a file that is mapped, before a parser comes to them.

use super::trails::{LINE_BYTES, Trails};
use crate::prefetch::prefetch;

/// How far ahead of the parser bytes are fetched: a few frames.
const AHEAD_BYTES: usize = 2048;
/// They are fetched when so many are wanting: a few small frames' worth at a time.
const STEP_BYTES: usize = 512;

/// Pages that are fetched by turns. The processor's own fetching ends at a page's end, so that several at once come sooner than one after
/// the other: 20 to 23 GB/s instead of 14.
const PAGES: usize = 4;
const PAGE_BYTES: usize = 4096;
/// So far ahead they are: the parser is not there before all lines of them have come.
const BLOCK_BYTES: usize = PAGES * PAGE_BYTES;

/// Fetches what a parser will come to, line by line.
///
/// A record's header says where the next one is, so that over a map each frame would wait for memory: 50 ns a frame
/// on workload C, 23 with this, 40 for the kernel's copy of a read.
pub(super) struct Ahead {
    /// How many bytes are left behind those that were asked for.
    beyond: usize,
    /// More is asked for when no more than this is left; 0 for never.
    again: usize,
    /// The address up to which the parser has passed what the next block's lines were asked for.
    passed: usize,
    /// Where there are records, if that was found out before.
    pub(super) trails: Option<Trails>,
}

impl Ahead {
    /// For bytes that are in the cache: nothing is asked for.
    pub(super) fn at_hand() -> Self {
        Self { beyond: 0, again: 0, passed: 0, trails: None }
    }

    /// For bytes that come from memory.
    pub(super) fn far() -> Self {
        Self { beyond: usize::MAX, again: usize::MAX, passed: 0, trails: Some(Trails::default()) }
    }

    /// The parser is where `rest` begins, which ends where all that it sees ends.
    #[inline(always)]
    pub(super) fn of(&mut self, rest: &[u8]) {
        if rest.len() <= self.again {
            self.ask(rest);
        }
    }

    #[inline(always)]
    fn ask(&mut self, rest: &[u8]) {
        self.ask_pages(rest);
        // What was passed over in one step, of a frame longer than all this, is not fetched any more.
        let from = rest.len().saturating_sub(self.beyond);
        let ahead = rest.get(from..AHEAD_BYTES.min(rest.len())).unwrap_or_default();
        // A line that is begun is left for the next time. Every second one, in the hope that the processor fetches pairs, was slower.
        let mut lines = ahead.chunks_exact(LINE_BYTES);
        lines.by_ref().for_each(|line| prefetch(&line[0]));
        self.beyond = rest.len() - from - (ahead.len() - lines.remainder().len());
        self.again = self.beyond.saturating_add(AHEAD_BYTES - STEP_BYTES);
    }

    /// Of each page of the next block as many lines as the parser has passed in a page's worth of this one.
    #[inline(always)]
    fn ask_pages(&mut self, rest: &[u8]) {
        let here = rest.as_ptr().addr();
        let block = here & !(BLOCK_BYTES - 1);
        // What a frame passed over is not asked for any more.
        self.passed = self.passed.max(block);
        while self.passed <= here {
            let begin = (self.passed - block) / PAGES;
            for page in (block + BLOCK_BYTES..).step_by(PAGE_BYTES).take(PAGES) {
                for at in (begin..begin + STEP_BYTES / PAGES).step_by(LINE_BYTES) {
                    rest.get(page + at - here).into_iter().for_each(prefetch);
                }
            }
            self.passed += STEP_BYTES;
        }
    }
}
