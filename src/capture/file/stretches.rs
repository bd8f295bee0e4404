//! A capture file in stretches: one that is mapped, for anywhere in it is as near as its begin.
//!
//! Where the first record of a stretch begins is [guessed](Pcap::guess): a record's header has no mark. A pcapng file has stretches as long as
//! nothing is [described anew](PcapNg::is_as_described) behind its first packet, and if all frames have one link type; blocks that are no packets end a
//! stretch, and what is behind them is read by everybody.

use std::ops::Range;

use super::{CaptureFiles, Format, recycled, rest};
use crate::capture::ahead::Ahead;
use crate::capture::map::{MARGIN_BYTES, Map};
use crate::capture::pcap::{HEADER_BYTES, Pcap};
use crate::capture::pcapng::{ENHANCED_HEAD_BYTES, PcapNg};
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
    format: Format,
    link: LinkType,
    ahead: Ahead,
}

impl Scout for FileScout {
    fn link(&self) -> LinkType {
        self.link
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
        let first = match &self.format {
            Format::Pcap(_) if from == 0 => HEADER_BYTES,
            Format::Pcap(pcap) => pcap.guess(bytes, STRETCH_BYTES)?,
            Format::PcapNg(pcapng) => pcapng.guess(bytes, STRETCH_BYTES)?,
        };
        let head_bytes = match &self.format {
            Format::Pcap(pcap) => pcap.record_bytes(),
            Format::PcapNg(_) => ENHANCED_HEAD_BYTES,
        };
        let mut end = first;
        // All at once, or as far as trails lead at a time.
        while end < STRETCH_BYTES {
            let (rest, left) = (bytes.get(end..)?, STRETCH_BYTES - end);
            // Within a stretch.
            let take = |frame, data_at| take(&frame, (end + data_at - head_bytes) as u32);
            let used = match &mut self.format {
                Format::Pcap(pcap) => {
                    pcap.parse_before(rest, &mut self.ahead, usize::MAX, left, take).0
                }
                Format::PcapNg(pcapng) => {
                    pcapng.packets_before(rest, &mut self.ahead, usize::MAX, left, take).1
                }
            };
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
        let mut map = reader.source.map()?.again();
        let (format, link) = match &reader.format {
            Format::Pcap(pcap) => (Format::Pcap(*pcap), pcap.interface.link),
            Format::PcapNg(pcapng) => {
                // No more is looked at than was made ready.
                let bytes = map.advance(0).then(|| map.bytes())?;
                let first = pcapng.at_first_packet(bytes.get(..STRETCH_BYTES).unwrap_or(bytes))?;
                let link = first.link()?;
                (Format::PcapNg(Box::new(first)), link)
            }
        };
        Some(FileScout { map, format, link, ahead: Ahead::far() })
    }

    fn place(&mut self) -> Option<u64> {
        let [reader] = self.readers.as_mut_slice() else { return None };
        reader.advance();
        let is_anywhere = match &reader.format {
            Format::Pcap(_) => true,
            Format::PcapNg(pcapng) => pcapng.is_as_described(),
        };
        (is_anywhere && reader.source.is_mapped() && reader.is_open()).then_some(reader.at as u64)
    }

    fn with_batch_before<R>(
        &mut self,
        end: u64,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        let Some(at) = self.place() else { return self.with_batch(f) };
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        self.batch_of_one::<R, true>(left, |frames, _| f(frames))
    }

    fn pick(
        &mut self,
        Picks { stretch, picks, end, frames }: Picks<'_>,
        mut f: impl FnMut(&[Frame<'_>], &[Pick]),
    ) {
        let [reader] = self.readers.as_mut_slice() else { return };
        let from = stretch as usize * STRETCH_BYTES;
        let bytes = rest(&reader.source, from);
        let is_pcap = matches!(reader.format, Format::Pcap(_));
        let ask = |pick: &Pick| {
            let place = pick.at as usize;
            if is_pcap { Pcap::ask_for(bytes, place) } else { PcapNg::ask_for(bytes, place) }
        };
        picks.iter().take(PICKS_AHEAD).for_each(ask);
        let mut ahead = picks.iter().skip(PICKS_AHEAD);
        for picks in picks.chunks(BATCH_FRAMES_MAX) {
            let mut lent = recycled(std::mem::take(&mut self.scratch));
            let places = picks.iter().map(|pick| {
                ahead.next().into_iter().for_each(ask);
                pick.at as usize
            });
            match &mut reader.format {
                Format::Pcap(pcap) => pcap.records_at(bytes, places, |frame, _| lent.push(frame)),
                Format::PcapNg(pcapng) => {
                    pcapng.packets_at(bytes, places, |frame, _| lent.push(frame));
                }
            }
            f(&lent, picks);
            self.scratch = recycled(lent);
        }
        self.frames += frames;
        reader.at = end as usize;
        if let (Format::PcapNg(pcapng), Some(passed)) =
            (&mut reader.format, bytes.get(..reader.at - from))
        {
            pcapng.pass(passed);
        }
    }
}
