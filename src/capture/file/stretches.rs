//! A capture file in stretches: one pcap file that is mapped, for anywhere in it is as near as its begin.
//!
//! Where the first record of a stretch begins is [guessed](Pcap::guess): a record's header has no mark.

use std::ops::Range;

use super::{CaptureFiles, Format, recycled, rest};
use crate::capture::ahead::Ahead;
use crate::capture::map::{MARGIN_BYTES, Map};
use crate::capture::pcap::{HEADER_BYTES, Pcap};
use crate::capture::stretch::{Pick, Picks, Scout, Stretches};
use crate::capture::trails::{REACH_BYTES, Records, ask_for_guess};
use crate::capture::{BATCH_FRAMES_MAX, Capture, CaptureError};
use crate::frame::{Frame, LinkType};

/// What trails lead through at once; small enough for a few of them to be in a core's own cache, large enough for what a stretch costs beside
/// its frames to be nothing.
const STRETCH_BYTES: usize = REACH_BYTES;

// What a view makes ready from a stretch's begin on is all of it.
const _: () = assert!(STRETCH_BYTES <= MARGIN_BYTES);

/// Frames are asked for so many ahead.
const PICKS_AHEAD: usize = 64;

/// Looks through stretches of a file, with a view of its own.
pub struct FileScout {
    map: Map,
    pcap: Pcap,
    ahead: Ahead,
}

impl Scout for FileScout {
    fn link(&self) -> LinkType {
        self.pcap.interface.link
    }

    fn look_through(
        &mut self,
        stretch: u64,
        mut take: impl FnMut(&Frame<'_>, u32),
    ) -> Option<Range<u64>> {
        let from = usize::try_from(stretch).ok()?.checked_mul(STRETCH_BYTES)?;
        if !self.map.advance(from) {
            return None;
        }
        let bytes = self.map.bytes().get(from..)?;
        ask_for_guess(bytes);
        let first = match from {
            0 => HEADER_BYTES,
            _ => self.pcap.guess(bytes, STRETCH_BYTES)?,
        };
        let record_bytes = self.pcap.record_bytes();
        let mut end = first;
        // All at once, or as far as trails lead at a time.
        while end < STRETCH_BYTES {
            let (used, _) = self.pcap.parse_before(
                bytes.get(end..)?,
                &mut self.ahead,
                usize::MAX,
                STRETCH_BYTES - end,
                // Within a stretch.
                |frame, data_at| take(&frame, (end + data_at - record_bytes) as u32),
            );
            if used == 0 {
                break;
            }
            end += used;
        }
        let begin = (from + first) as u64;
        Some(begin..(from + end) as u64)
    }
}

impl Stretches for CaptureFiles {
    const STRETCH: u64 = STRETCH_BYTES as u64;

    type Scout = FileScout;

    fn scout(&self) -> Option<FileScout> {
        let [reader] = self.readers.as_slice() else { return None };
        let Format::Pcap(pcap) = &reader.format else { return None };
        let map = reader.source.map()?.again();
        Some(FileScout { map, pcap: *pcap, ahead: Ahead::far() })
    }

    fn place(&mut self) -> Option<u64> {
        let [reader] = self.readers.as_mut_slice() else { return None };
        reader.advance();
        let is_anywhere = reader.source.is_mapped() && matches!(reader.format, Format::Pcap(_));
        (is_anywhere && reader.is_open()).then_some(reader.at as u64)
    }

    fn with_batch_before<R>(
        &mut self,
        end: u64,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        let Some(at) = self.place() else { return self.with_batch(f) };
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        self.batch_of_one::<R, true>(left, f)
    }

    fn pick(
        &mut self,
        Picks { stretch, picks, end, frames }: Picks<'_>,
        mut f: impl FnMut(&[Frame<'_>], &[Pick]),
    ) {
        let [reader] = self.readers.as_mut_slice() else { return };
        let Format::Pcap(pcap) = &reader.format else { return };
        let from = stretch as usize * STRETCH_BYTES;
        let bytes = rest(&reader.source, from);
        let ask = |pick: &Pick| Pcap::ask_for(bytes, pick.at as usize);
        picks.iter().take(PICKS_AHEAD).for_each(ask);
        let mut ahead = picks.iter().skip(PICKS_AHEAD);
        for picks in picks.chunks(BATCH_FRAMES_MAX) {
            let mut lent = recycled(std::mem::take(&mut self.scratch));
            let places = picks.iter().map(|pick| {
                ahead.next().into_iter().for_each(ask);
                pick.at as usize
            });
            pcap.records_at(bytes, places, |frame, _| lent.push(frame));
            f(&lent, picks);
            self.scratch = recycled(lent);
        }
        self.frames += frames;
        reader.at = end as usize;
    }
}
