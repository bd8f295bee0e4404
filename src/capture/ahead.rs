//! Asking memory for the bytes of a file that is mapped, before a parser comes to them.

use super::file::Format;
use super::map::MARGIN_BYTES;
use super::trails::{LINE_BYTES, REACH_BYTES, Records, Trails, WORTH_IT};
use crate::prefetch::{prefetch, prefetch_early};

/// How far ahead of the parser bytes are fetched: a few frames.
const AHEAD_BYTES: usize = 2048;
/// They are fetched when so many are wanting: a few small frames' worth at a time.
const STEP_BYTES: usize = 512;

/// Pages that are fetched by turns, where nothing is asked for between batches. The processor's own fetching ends at a page's end, so that
/// several at once come sooner than one after the other: 20 to 23 GB/s instead of 14.
const PAGES: usize = 4;
const PAGE_BYTES: usize = 4096;
/// So far ahead they are: the parser is not there before all lines of them have come.
const BLOCK_BYTES: usize = PAGES * PAGE_BYTES;

/// How far behind a batch bytes are asked for while it is worked on: a few batches of small frames, far less than the second cache.
const UPCOMING_BYTES: usize = 32 * 1024;

// What trails lead through next, and what is looked for behind that, is all ready.
const _: () = assert!(2 * REACH_BYTES <= MARGIN_BYTES);

/// What comes after a batch of a capture's frames: memory can be asked for it while the batch is worked on.
///
/// What is asked for a little at a time comes while something else is done; what is asked for at once is waited for. The default is of a capture
/// that does nothing of the kind.
#[derive(Default)]
pub struct Upcoming<'a>(Option<(&'a mut Ahead, &'a Format, &'a [u8])>);

impl<'a> Upcoming<'a> {
    /// `rest` is what comes after the batch.
    pub(super) fn new(ahead: &'a mut Ahead, format: &'a Format, rest: &'a [u8]) -> Self {
        Self(Some((ahead, format, rest)))
    }

    /// Asks for as much as so many eighths of a frame need: eight for each frame of the batch are the next batch's worth.
    #[inline(always)]
    pub fn ask(&mut self, eighths: usize) {
        if let Some((ahead, format, rest)) = &mut self.0 {
            match format {
                Format::Pcap(pcap) => ahead.of_upcoming(pcap, rest, eighths),
                Format::PcapNg(pcapng) => ahead.of_upcoming(&**pcapng, rest, eighths),
            }
        }
    }
}

impl std::fmt::Debug for Upcoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |(.., rest)| rest.len());
        f.debug_struct("Upcoming").field("bytes", &bytes).finish_non_exhaustive()
    }
}

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
    /// How many bytes are left behind those that were asked for while batches were worked on.
    beyond_upcoming: usize,
    /// Bytes of a record, as of late.
    record_bytes: usize,
    /// Where there are records, if that was found out before.
    pub(super) trails: Option<Trails>,
}

impl Ahead {
    /// For bytes that are in the cache: nothing is asked for.
    pub(super) fn at_hand() -> Self {
        Self {
            beyond: 0,
            again: 0,
            passed: 0,
            beyond_upcoming: usize::MAX,
            record_bytes: 0,
            trails: None,
        }
    }

    /// For bytes that come from memory.
    pub(super) fn far() -> Self {
        let (beyond, again) = (usize::MAX, usize::MAX);
        Self { beyond, again, trails: Some(Trails::default()), ..Self::at_hand() }
    }

    /// So many records that were parsed one by one had so many bytes.
    pub(super) fn judge(&mut self, records: usize, bytes: usize) {
        let Some(trails) = &mut self.trails else { return };
        if let Some(mean) = bytes.checked_div(records) {
            self.record_bytes = mean;
            trails.judge(mean);
        }
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
        if rest.len() < self.beyond_upcoming.saturating_add(BLOCK_BYTES) {
            self.ask_pages(rest);
        }
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
    #[cold]
    #[inline(never)]
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

    /// A batch is worked on after which `rest` comes. An eighth more than the batch needs is asked for, to get ahead.
    #[inline(always)]
    fn of_upcoming<R: Records>(&mut self, records: &R, rest: &[u8], eighths: usize) {
        let Some(trails) = &mut self.trails else { return };
        if self.record_bytes >= *WORTH_IT.start() {
            return trails.go_on(records, rest, eighths.saturating_mul(9) / 64);
        }
        let from = rest.len().saturating_sub(self.beyond_upcoming);
        let wanted = eighths.saturating_mul(self.record_bytes * 9) / 64;
        let to = from.saturating_add(wanted).min(UPCOMING_BYTES).min(rest.len());
        let mut at = from;
        while at < to {
            rest.get(at).into_iter().for_each(prefetch_early);
            at += LINE_BYTES;
        }
        self.beyond_upcoming = rest.len().saturating_sub(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::pcap::{HEADER_BYTES, Pcap};

    fn pcap() -> Pcap {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        header[20] = 1;
        Pcap::new(&header, 0).unwrap()
    }

    /// A batch's worth and an eighth more for each batch, but never further than the second cache is large.
    #[test]
    fn as_much_is_asked_for_as_a_batch_needs() {
        let (pcap, bytes) = (pcap(), vec![0; 1 << 20]);
        let mut ahead = Ahead::far();
        ahead.judge(128, 128 * 80);
        for eighths in [24; 16].iter().chain(&[80; 8]) {
            ahead.of_upcoming(&pcap, &bytes, *eighths);
        }
        let asked = bytes.len() - ahead.beyond_upcoming;
        assert!((128 * 80 * 9 / 8..128 * 80 * 3 / 2).contains(&asked), "{asked}");
        ahead.of_upcoming(&pcap, &bytes, usize::MAX);
        let most = bytes.len() - ahead.beyond_upcoming;
        assert!((UPCOMING_BYTES..UPCOMING_BYTES + LINE_BYTES).contains(&most), "{most}");
        // At the end there is no more.
        ahead.of_upcoming(&pcap, &bytes[bytes.len() - 100..], 1 << 20);
        assert_eq!(ahead.beyond_upcoming, 0);
        ahead.of_upcoming(&pcap, &[], 8);
        assert_eq!(ahead.beyond_upcoming, 0);
    }

    #[test]
    fn what_is_at_hand_is_not_asked_for() {
        let mut ahead = Ahead::at_hand();
        ahead.judge(128, 128 * 80);
        ahead.of_upcoming(&pcap(), &[0; 4096], 8 * 128);
        assert_eq!(ahead.beyond_upcoming, usize::MAX);
    }
}
