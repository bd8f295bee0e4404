//! pcap files: microseconds and nanoseconds, both byte orders, and the "modified" records.
//!
//! Contract: sans-IO and total. [`Pcap::parse`] takes the bytes at hand, hands out frames that lie whole in them,
//! and says what it lacks. Nothing is believed: a captured length above [`FRAME_BYTES_MAX`] is damage, a wire
//! length below the captured length is handed on as it is, a fraction of a second of one second or more carries over.
//!
//! The parser is our own: records are so plain that a block parser's generality costs more than it saves.

use std::ops::Range;

use super::ahead::Ahead;
use super::file::Interface;
use super::trails::Records;
use super::{BrokenReason, FRAME_BYTES_MAX};
use crate::frame::{Frame, LinkType};
use crate::prefetch::prefetch_early_ends;
use crate::time::Timestamp;

/// Length of the file's header in bytes.
pub(super) const HEADER_BYTES: usize = 24;
/// Length of a record's header in bytes: seconds, fraction, captured length, wire length.
const RECORD_BYTES: usize = 16;
/// The same in the "modified" format (Kuznetzov's patch): interface index, protocol, packet type, padding follow.
const MODIFIED_RECORD_BYTES: u8 = 24;

const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
const MAGIC_MODIFIED: u32 = 0xa1b2_cd34;
/// The major version of every pcap file since 1998.
const VERSION_MAJOR: u16 = 2;
/// The link type's part of the header's last field; the bits above tell the length of the FCS.
const LINK_MASK: u32 = 0xffff;

/// From a record's begin to the end of what is looked at of nearly every frame.
const LOOKED_AT_BYTES: usize = RECORD_BYTES + 14 + 20 + 20;

/// So many records in a row are not taken for records by chance.
const GUESS_RECORDS: usize = 4;
/// A frame that is guessed has a link-layer header; zeros are no records.
const GUESS_FRAME_BYTES_MIN: u32 = 14;
/// So far apart are records that follow each other at most.
const GUESS_SECONDS: u32 = 24 * 60 * 60;

/// Why a parser stopped.
pub(super) enum Stop {
    /// It gave as many frames as it was asked for.
    Full,
    /// What follows is not whole.
    Starved {
        /// What is not.
        what: &'static str,
        /// How many bytes it takes at least, from where the parser stopped.
        needed: u64,
    },
    /// What follows is wrong.
    Broken(BrokenReason),
}

/// State of a pcap file: its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pcap {
    pub(super) interface: Interface,
    big_endian: bool,
    fraction_ns: u64,
    record_bytes: u8,
}

impl Pcap {
    /// Whether a file that begins so is pcap.
    pub(super) fn is(first: [u8; 4]) -> bool {
        order_and_magic(first).is_some()
    }

    /// From the file's header; the file's interface gets number `id`.
    pub(super) fn new(header: &[u8; HEADER_BYTES], id: u16) -> Result<Self, BrokenReason> {
        let first = [header[0], header[1], header[2], header[3]];
        let (big_endian, magic) =
            order_and_magic(first).ok_or(BrokenReason::Magic { found: first })?;
        let u16_at = |at: usize| {
            let bytes = [header[at], header[at + 1]];
            if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        let (major, minor) = (u16_at(4), u16_at(6));
        if major != VERSION_MAJOR {
            return Err(BrokenReason::Version { format: "pcap", major, minor, known: "2.x" });
        }
        let network = [header[20], header[21], header[22], header[23]];
        let network =
            if big_endian { u32::from_be_bytes(network) } else { u32::from_le_bytes(network) };
        Ok(Self {
            interface: Interface { id, link: LinkType((network & LINK_MASK) as u16) },
            big_endian,
            fraction_ns: if magic == MAGIC_NANOS { 1 } else { 1_000 },
            record_bytes: if magic == MAGIC_MODIFIED {
                MODIFIED_RECORD_BYTES
            } else {
                RECORD_BYTES as u8
            },
        })
    }

    /// Length of a record's header in bytes.
    pub(super) fn record_bytes(&self) -> usize {
        usize::from(self.record_bytes)
    }

    /// Gives up to `max` frames from the front of `bytes` to `take`, with where in `bytes` each one's data begins.
    /// Returns how many bytes were used up and why it stopped.
    #[inline]
    pub(super) fn parse<'a>(
        &self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, Stop) {
        self.parse_within(bytes, ahead, max, None, take)
    }

    /// The same of records that begin before `end`.
    #[inline]
    pub(super) fn parse_before<'a>(
        &self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        end: usize,
        take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, Stop) {
        self.parse_within(bytes, ahead, max, Some(end), take)
    }

    #[inline(always)]
    fn parse_within<'a>(
        &self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        end: Option<usize>,
        take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, Stop) {
        if let Some(trails) = &mut ahead.trails {
            let places = trails.next(self, bytes, max, end.unwrap_or(usize::MAX));
            if places.len() > 0 {
                return (self.along(bytes, places, take), Stop::Full);
            }
        }
        // A record that begins with fewer bytes left is left.
        let least = end.and_then(|end| bytes.len().checked_sub(end)).map_or(0, |beyond| beyond + 1);
        self.one_by_one(bytes, ahead, max, least, take)
    }

    /// Frames of records that lead to one another. A call, as [`along`](Self::along) is.
    #[inline(never)]
    fn one_by_one<'a>(
        &self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        least: usize,
        take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, Stop) {
        // The byte order is chosen once a batch, not once a field.
        let (count, used, stop) = if self.big_endian {
            self.records(bytes, ahead, max, least, u32::from_be_bytes, take)
        } else {
            self.records(bytes, ahead, max, least, u32::from_le_bytes, take)
        };
        ahead.judge(count, used);
        (used, stop)
    }

    /// Frames of records that trails lead to, and how many bytes they used up. A call: within [`Pcap::parse`] it would cost the other way registers.
    #[inline(never)]
    fn along<'a>(
        &self,
        bytes: &'a [u8],
        places: impl Iterator<Item = usize>,
        mut take: impl FnMut(Frame<'a>, usize),
    ) -> usize {
        let mut used = 0;
        self.records_at(bytes, places, |frame, data_at| {
            used = data_at + frame.data.len();
            take(frame, data_at);
        });
        used
    }

    /// Frames of records that begin at these places, as they were found there before.
    #[inline(never)]
    pub(super) fn records_at<'a>(
        &self,
        bytes: &'a [u8],
        places: impl Iterator<Item = usize>,
        take: impl FnMut(Frame<'a>, usize),
    ) {
        if self.big_endian {
            self.each_at(bytes, places, u32::from_be_bytes, take);
        } else {
            self.each_at(bytes, places, u32::from_le_bytes, take);
        }
    }

    #[inline(always)]
    fn each_at<'a>(
        &self,
        bytes: &'a [u8],
        places: impl Iterator<Item = usize>,
        u32_of: impl Fn([u8; 4]) -> u32,
        mut take: impl FnMut(Frame<'a>, usize),
    ) {
        // A copy, as in `records`.
        let pcap = *self;
        for place in places {
            let record = bytes.get(place..).and_then(|rest| pcap.record(rest, &u32_of));
            debug_assert!(record.is_some(), "a record was found at {place}");
            if let Some((frame, _)) = record {
                take(frame, place + pcap.record_bytes());
            }
        }
    }

    /// Where the first record in `bytes` seems to begin, which may be anywhere in them before `end`: the first place from which so many
    /// records follow each other, or the last ones of the file, that all look like one.
    pub(super) fn guess(&self, bytes: &[u8], end: usize) -> Option<usize> {
        if self.big_endian {
            (0..end).find(|&place| self.are_records(bytes, place, u32::from_be_bytes))
        } else {
            (0..end).find(|&place| self.are_records(bytes, place, u32::from_le_bytes))
        }
    }

    /// Whether the first bytes from `place` on look like records.
    #[inline(always)]
    fn are_records(&self, bytes: &[u8], place: usize, u32_of: impl Fn([u8; 4]) -> u32) -> bool {
        let mut rest = bytes.get(place..).unwrap_or_default();
        let mut seconds_before = None;
        for found in 0..GUESS_RECORDS {
            if rest.is_empty() && found > 0 {
                break;
            }
            let Some((seconds, record_bytes)) = self.is_record(rest, &u32_of) else { return false };
            if seconds.abs_diff(*seconds_before.get_or_insert(seconds)) > GUESS_SECONDS {
                return false;
            }
            let Some(next) = rest.get(record_bytes..) else { return false };
            rest = next;
        }
        true
    }

    /// The seconds and the length of what looks like a record.
    #[inline(always)]
    fn is_record(&self, bytes: &[u8], u32_of: &impl Fn([u8; 4]) -> u32) -> Option<(u32, usize)> {
        let [seconds, fraction, captured, wire] = fields(bytes)?.map(u32_of);
        let lengths = GUESS_FRAME_BYTES_MIN..=FRAME_BYTES_MAX as u32;
        let fits = lengths.contains(&captured)
            && (captured..=*lengths.end()).contains(&wire)
            && u64::from(fraction) * self.fraction_ns < 1_000_000_000;
        fits.then_some((seconds, self.record_bytes() + captured as usize))
    }

    /// How many frames there were, of how many bytes, and why no more. `least`: a record that begins with fewer bytes left is left.
    #[inline(always)]
    fn records<'a>(
        &self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        least: usize,
        u32_of: impl Fn([u8; 4]) -> u32,
        mut take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, usize, Stop) {
        // A copy, for otherwise it is read anew for each record.
        let pcap = *self;
        let (mut rest, mut count) = (bytes, 0);
        while count < max && rest.len() >= least {
            ahead.of(rest);
            let Some((frame, next)) = pcap.record(rest, &u32_of) else {
                return (count, bytes.len() - rest.len(), pcap.why_none(rest, &u32_of));
            };
            take(frame, bytes.len() - next.len() - frame.data.len());
            rest = next;
            count += 1;
        }
        (count, bytes.len() - rest.len(), Stop::Full)
    }

    /// The first record's frame, and what follows.
    #[inline(always)]
    fn record<'a>(
        &self,
        bytes: &'a [u8],
        u32_of: &impl Fn([u8; 4]) -> u32,
    ) -> Option<(Frame<'a>, &'a [u8])> {
        let [seconds, fraction, captured, wire] = fields(bytes)?;
        let captured = u32_of(captured) as usize;
        if captured > FRAME_BYTES_MAX {
            return None;
        }
        let header_bytes = self.record_bytes();
        let (record, next) = bytes.split_at_checked(header_bytes + captured)?;
        // Below 2^62 + 2^42: neither product nor sum can overflow.
        let nanos = u64::from(u32_of(seconds)) * 1_000_000_000
            + u64::from(u32_of(fraction)) * self.fraction_ns;
        let frame = Frame {
            ts: Timestamp::from_nanos(nanos),
            wire_len: u32_of(wire),
            link: self.interface.link,
            interface: self.interface.id,
            data: record.get(header_bytes..)?,
        };
        Some((frame, next))
    }

    /// Why `bytes` do not begin with a record.
    #[cold]
    fn why_none(&self, bytes: &[u8], u32_of: &impl Fn([u8; 4]) -> u32) -> Stop {
        let header_bytes = self.record_bytes();
        let header = Stop::Starved { what: "record's header", needed: header_bytes as u64 };
        let Some([_, _, captured, _]) = fields(bytes) else { return header };
        let captured = u32_of(captured);
        if captured as usize > FRAME_BYTES_MAX {
            let reason = BrokenReason::FrameTooLong { claimed: captured, max: FRAME_BYTES_MAX };
            return Stop::Broken(reason);
        }
        let needed = header_bytes as u64 + u64::from(captured);
        let what = if bytes.len() < header_bytes { "record's header" } else { "record" };
        Stop::Starved { what, needed }
    }
}

/// What a record's header begins with, each field by itself: seconds, their fraction, bytes captured and on the wire. As sixteen bytes
/// the compiler does not always put them together again.
#[inline(always)]
fn fields(bytes: &[u8]) -> Option<[[u8; 4]; 4]> {
    let (fields, _) = bytes.first_chunk::<RECORD_BYTES>()?.as_chunks();
    fields.first_chunk().copied()
}

impl Records for Pcap {
    #[inline(always)]
    fn end_of(&self, bytes: &[u8], place: usize) -> Option<usize> {
        let rest = bytes.get(place..)?;
        let (_, next) = if self.big_endian {
            self.record(rest, &u32::from_be_bytes)?
        } else {
            self.record(rest, &u32::from_le_bytes)?
        };
        Some(bytes.len() - next.len())
    }

    /// The upper half of their seconds, which is the same for 18 hours.
    fn mark(&self) -> Range<usize> {
        if self.big_endian { 0..2 } else { 2..4 }
    }

    fn is_like_one(&self, bytes: &[u8]) -> bool {
        if self.big_endian {
            self.is_record(bytes, &u32::from_be_bytes).is_some()
        } else {
            self.is_record(bytes, &u32::from_le_bytes).is_some()
        }
    }

    #[inline(always)]
    fn ask_for(bytes: &[u8], place: usize) {
        prefetch_early_ends::<LOOKED_AT_BYTES>(bytes.get(place..).unwrap_or_default());
    }
}

/// Byte order (big-endian?) and magic number of a pcap file that begins so.
fn order_and_magic(first: [u8; 4]) -> Option<(bool, u32)> {
    [(true, u32::from_be_bytes(first)), (false, u32::from_le_bytes(first))]
        .into_iter()
        .find(|(_, magic)| matches!(*magic, MAGIC_MICROS | MAGIC_NANOS | MAGIC_MODIFIED))
}
