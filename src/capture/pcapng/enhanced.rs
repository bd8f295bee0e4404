//! The block that nearly all frames of a pcapng file are in, read without asking for any other.
//!
//! Contract: gives what a [step](PcapNg::step) would give for an Enhanced Packet Block, or leaves it to that: whatever is wrong with it, and a
//! length that forgot its padding.

use std::ops::Range;

use super::{
    BLOCK_BYTES_MAX, Clocked, ENHANCED_PACKET, Order, PACKET_FIELDS, PcapNg, State, TRAILER_BYTES,
};
use crate::capture::FRAME_BYTES_MAX;
use crate::capture::ahead::Ahead;
use crate::capture::trails::Records;
use crate::frame::Frame;
use crate::prefetch::prefetch_early_ends;

/// An Enhanced Packet Block up to its frame.
pub(in crate::capture) const ENHANCED_HEAD_BYTES: usize = 8 + PACKET_FIELDS;
/// From the end of the block before to the end of what is looked at of nearly every frame.
const LOOKED_AT_BYTES: usize = TRAILER_BYTES + ENHANCED_HEAD_BYTES + 14 + 20 + 20;
/// A frame that is guessed has a link-layer header.
const GUESS_FRAME_BYTES_MIN: usize = 14;

impl PcapNg {
    /// The Enhanced Packet Blocks that come next and begin before `end`, as far as nothing is wrong with them: how many there were, of how
    /// many bytes.
    #[inline(always)]
    pub(in crate::capture) fn packets_before<'a>(
        &mut self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        end: usize,
        mut take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, usize) {
        if self.state != State::Block {
            return (0, 0);
        }
        if let Some(trails) = &mut ahead.trails {
            let places = trails.next(self, bytes, max, end);
            let (count, used) = self.packets_at(bytes, places, &mut take);
            if count > 0 {
                return (count, used);
            }
        }
        // The byte order is chosen once a batch, not once a field.
        let (count, used) = match self.order {
            Order::Little => self.one_by_one(bytes, ahead, max, end, u32::from_le_bytes, take),
            Order::Big => self.one_by_one(bytes, ahead, max, end, u32::from_be_bytes, take),
        };
        ahead.judge(count, used);
        (count, used)
    }

    #[inline(always)]
    fn one_by_one<'a>(
        &mut self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        end: usize,
        u32_of: impl Fn([u8; 4]) -> u32,
        mut take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, usize) {
        let interfaces = self.interfaces.get(self.section..).unwrap_or_default();
        // A block that begins with fewer bytes left is left.
        let least = bytes.len().checked_sub(end).map_or(0, |beyond| beyond + 1);
        let (mut rest, mut count, mut last) = (bytes, 0, self.last);
        while count < max && rest.len() >= least {
            ahead.of(rest);
            let Some((frame, next)) = enhanced_block(rest, interfaces, &u32_of) else { break };
            last = frame.ts;
            take(frame, bytes.len() - rest.len() + ENHANCED_HEAD_BYTES);
            rest = next;
            count += 1;
        }
        self.last = last;
        self.has_packets |= count > 0;
        (count, bytes.len() - rest.len())
    }

    /// Frames of the blocks that begin at these places, up to the first one with which something is wrong: how many there were, and where the
    /// last of them ends.
    #[inline(never)]
    pub(in crate::capture) fn packets_at<'a>(
        &mut self,
        bytes: &'a [u8],
        places: impl Iterator<Item = usize>,
        take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, usize) {
        match self.order {
            Order::Little => self.each_at(bytes, places, u32::from_le_bytes, take),
            Order::Big => self.each_at(bytes, places, u32::from_be_bytes, take),
        }
    }

    #[inline(always)]
    fn each_at<'a>(
        &mut self,
        bytes: &'a [u8],
        places: impl Iterator<Item = usize>,
        u32_of: impl Fn([u8; 4]) -> u32,
        mut take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, usize) {
        let interfaces = self.interfaces.get(self.section..).unwrap_or_default();
        let (mut count, mut end, mut last) = (0, 0, self.last);
        for place in places {
            let rest = bytes.get(place..).unwrap_or_default();
            let Some((frame, next)) = enhanced_block(rest, interfaces, &u32_of) else { break };
            last = frame.ts;
            take(frame, place + ENHANCED_HEAD_BYTES);
            end = bytes.len() - next.len();
            count += 1;
        }
        self.last = last;
        self.has_packets |= count > 0;
        (count, end)
    }

    /// Where the first Enhanced Packet Block begins that nothing is wrong with, before `end`. Its two lengths are the same: nothing else looks like
    /// that but what is a capture itself.
    pub(in crate::capture) fn guess(&self, bytes: &[u8], end: usize) -> Option<usize> {
        let interfaces = self.interfaces.get(self.section..).unwrap_or_default();
        let is_block = |place: usize| {
            let rest = bytes.get(place..).unwrap_or_default();
            match self.order {
                Order::Little => enhanced_block(rest, interfaces, &u32::from_le_bytes).is_some(),
                Order::Big => enhanced_block(rest, interfaces, &u32::from_be_bytes).is_some(),
            }
        };
        // All blocks of a file are of a multiple of four bytes.
        (0..end).step_by(4).find(|&place| is_block(place))
    }

    /// Somebody else has looked at what `passed` ends with: Enhanced Packet Blocks.
    pub(in crate::capture) fn pass(&mut self, passed: &[u8]) {
        self.has_packets = true;
        let Some((_, trailer)) = passed.split_last_chunk::<TRAILER_BYTES>() else { return };
        let last = passed.len().checked_sub(self.order.u32(*trailer) as usize);
        if let Some(last) = last {
            self.packets_at(passed, std::iter::once(last), |_, _| ());
        }
    }

    /// The head of a common Enhanced Packet Block of an interface of this section.
    #[inline(always)]
    fn enhanced_at(&self, bytes: &[u8]) -> Option<Enhanced> {
        let block = match self.order {
            Order::Little => Enhanced::of(bytes, &u32::from_le_bytes),
            Order::Big => Enhanced::of(bytes, &u32::from_be_bytes),
        };
        block.filter(|block| block.interface < self.interfaces.len() - self.section)
    }
}

/// What an Enhanced Packet Block says before its frame.
struct Enhanced {
    /// Its length, a multiple of four that leaves room for the frame.
    total: usize,
    interface: usize,
    ticks: u64,
    captured: usize,
    wire_len: u32,
}

impl Enhanced {
    /// What `bytes` begin with; `None` if it is another block, or something about it is uncommon.
    #[inline(always)]
    fn of(bytes: &[u8], u32_of: &impl Fn([u8; 4]) -> u32) -> Option<Self> {
        let (fields, _) = bytes.first_chunk::<ENHANCED_HEAD_BYTES>()?.as_chunks::<4>();
        let &[kind, total, interface, high, low, captured, wire_len] = fields else { return None };
        let (total, captured) = (u32_of(total) as usize, u32_of(captured) as usize);
        let is_common = u32_of(kind) == ENHANCED_PACKET
            && total.is_multiple_of(4)
            && total <= BLOCK_BYTES_MAX
            && captured <= FRAME_BYTES_MAX
            && ENHANCED_HEAD_BYTES + captured + TRAILER_BYTES <= total;
        is_common.then(|| Self {
            total,
            interface: u32_of(interface) as usize,
            ticks: u64::from(u32_of(high)) << 32 | u64::from(u32_of(low)),
            captured,
            wire_len: u32_of(wire_len),
        })
    }
}

/// The frame of an Enhanced Packet Block with which nothing is wrong, and what follows; `None` for all else.
#[inline(always)]
fn enhanced_block<'a>(
    bytes: &'a [u8],
    interfaces: &[Clocked],
    u32_of: &impl Fn([u8; 4]) -> u32,
) -> Option<(Frame<'a>, &'a [u8])> {
    let Enhanced { total, interface, ticks, captured, wire_len } = Enhanced::of(bytes, u32_of)?;
    let (block, next) = bytes.split_at_checked(total)?;
    let (body, trailer) = block.split_last_chunk::<TRAILER_BYTES>()?;
    let clocked = interfaces.get(interface)?;
    if u32_of(*trailer) as usize != total {
        return None;
    }
    let frame = Frame {
        ts: clocked.time(ticks),
        wire_len,
        link: clocked.interface.link,
        interface: clocked.interface.id,
        data: body.get(ENHANCED_HEAD_BYTES..)?.get(..captured)?,
    };
    Some((frame, next))
}

/// Trails lead through Enhanced Packet Blocks alone.
impl Records for PcapNg {
    /// The second length is for who comes along: it is where the next block begins, which was not asked for yet.
    #[inline(always)]
    fn end_of(&self, bytes: &[u8], place: usize) -> Option<usize> {
        let block = self.enhanced_at(bytes.get(place..)?)?;
        let end = place + block.total;
        (end <= bytes.len()).then_some(end)
    }

    /// Their type.
    fn mark(&self) -> Range<usize> {
        0..4
    }

    fn is_like_one(&self, bytes: &[u8]) -> bool {
        self.enhanced_at(bytes).is_some_and(|block| {
            let lengths = block.captured..=FRAME_BYTES_MAX;
            block.captured >= GUESS_FRAME_BYTES_MIN && lengths.contains(&(block.wire_len as usize))
        })
    }

    #[inline(always)]
    fn ask_for(bytes: &[u8], place: usize) {
        let before = place.saturating_sub(TRAILER_BYTES);
        prefetch_early_ends::<LOOKED_AT_BYTES>(bytes.get(before..).unwrap_or_default());
    }
}
