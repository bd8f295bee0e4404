//! pcapng files: sections of either byte order, interfaces each with their own clock, three kinds of packet block.
//!
//! Contract: sans-IO and total, like [`pcap`](super::pcap). Blocks that hold frames or describe sections and
//! interfaces must lie whole in the bytes at hand, and are at most [`BLOCK_BYTES_MAX`] long; every other block is
//! skipped at any length without being held. A Simple Packet Block has no time: its frame gets the time of the frame
//! before it in the file. A block length that is no multiple of four is rounded up, as some writers need it.
//!
//! Layout: draft-ietf-opsawg-pcapng, section 4; the obsolete Packet Block is in its appendix A.

mod enhanced;

use super::ahead::Ahead;
use super::file::Interface;
use super::pcap::Stop;
use super::{BrokenReason, FRAME_BYTES_MAX};
use crate::frame::{Frame, LinkType};
use crate::time::Timestamp;
pub(super) use enhanced::ENHANCED_HEAD_BYTES;

/// The longest block that is read as a whole: the longest frame and as much again for options.
pub(super) const BLOCK_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Block type and length, and the bytes after them: enough for a section's byte-order mark, and as long as the
/// shortest block there is.
const HEAD_BYTES: usize = 12;
/// The second length, at a block's end.
const TRAILER_BYTES: usize = 4;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const VERSION_MAJOR: u16 = 1;

/// Fields of an Enhanced Packet Block, and of the obsolete one, before the frame: interface (there with a count of
/// drops), two halves of the time, captured length, wire length.
const PACKET_FIELDS: usize = 20;
/// Field of a Simple Packet Block before the frame: wire length.
const SIMPLE_FIELDS: usize = 4;

const OPTION_END: u16 = 0;
const OPTION_IF_TSRESOL: u16 = 9;
const OPTION_IF_TSOFFSET: u16 = 14;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// State of a pcapng file between two calls.
#[derive(Clone, Debug)]
pub(super) struct PcapNg {
    order: Order,
    state: State,
    /// Interfaces of all sections so far, in the order in which they were described.
    interfaces: Vec<Clocked>,
    /// Where in `interfaces` those of this section begin.
    section: usize,
    /// Number of the file's first interface.
    first_id: u16,
    interfaces_max: usize,
    /// Time of the last frame, for those without one.
    last: Timestamp,
    /// Whether there was a packet.
    has_packets: bool,
    /// Whether there was a section or an interface behind one.
    is_described_anew: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a block.
    Block,
    /// Within a block that is of no interest, `left` bytes before its second length.
    Skip { left: u64, total: u32 },
}

/// An interface and how its timestamps count.
#[derive(Clone, Copy, Debug)]
struct Clocked {
    interface: Interface,
    unit: Unit,
    offset_ns: i64,
    /// Snapshot length; `u32::MAX` when there is none.
    snap_bytes: u32,
}

/// What a timestamp counts (option `if_tsresol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// This many nanoseconds.
    Nanos(u64),
    /// One part in this many of a nanosecond.
    NanosOver(u128),
    /// One second over two to this power, 0 to 127.
    SecondOver(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl PcapNg {
    /// Whether a file that begins so is pcapng.
    pub(super) fn is(first: [u8; 4]) -> bool {
        u32::from_le_bytes(first) == SECTION
    }

    /// At the beginning of a file, whose interfaces are numbered from `first_id` on.
    pub(super) fn new(first_id: u16, interfaces_max: usize) -> Self {
        Self {
            order: Order::Little,
            state: State::Block,
            interfaces: Vec::new(),
            section: 0,
            first_id,
            interfaces_max,
            last: Timestamp::ZERO,
            has_packets: false,
            is_described_anew: false,
        }
    }

    /// Interfaces described so far, in all sections.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = Interface> + '_ {
        self.interfaces.iter().map(|clocked| clocked.interface)
    }

    /// Whether the file may end here.
    pub(super) fn at_rest(&self) -> bool {
        self.state == State::Block
    }

    /// As [`Pcap::parse_before`](super::pcap::Pcap::parse_before).
    pub(super) fn parse_before<'a>(
        &mut self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        end: usize,
        mut take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, Stop) {
        let (mut at, mut given) = (0, 0);
        // Every turn but the last uses up bytes.
        loop {
            let (rest, left) = (bytes.get(at..).unwrap_or_default(), end.saturating_sub(at));
            let take_there = |frame, data_at| take(frame, at + data_at);
            let (count, used) = self.packets_before(rest, ahead, max - given, left, take_there);
            given += count;
            at += used;
            if given >= max || at >= end {
                return (at, Stop::Full);
            }
            if used > 0 {
                continue;
            }
            match self.step(rest) {
                Ok(Step::Passed(used)) => at += used,
                Ok(Step::Frame { used, frame, data_at }) => {
                    take(frame, at + data_at);
                    given += 1;
                    at += used;
                }
                Err(Halt { used, stop }) => return (at + used, stop),
            }
        }
    }

    /// The same file at its first packet; `None` if `bytes`, which it begins with, have none.
    pub(super) fn at_first_packet(&self, bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut head = Self::new(self.first_id, self.interfaces_max);
        loop {
            match head.step(bytes.get(at..).unwrap_or_default()) {
                Ok(Step::Passed(used)) => at += used,
                Ok(Step::Frame { .. }) => return Some(head),
                Err(_) => return None,
            }
        }
    }

    /// Whether nothing was described anew since the first packet: then every packet so far means what it would have [there](Self::at_first_packet).
    pub(super) fn is_as_described(&self) -> bool {
        !self.is_described_anew
    }

    /// The link type of all interfaces of this section, if there is one.
    pub(super) fn link(&self) -> Option<LinkType> {
        let mut links = self.interfaces.get(self.section..)?.iter().map(|one| one.interface.link);
        let link = links.next()?;
        links.all(|other| other == link).then_some(link)
    }

    /// One block, or as much of a skipped one as is there.
    #[inline]
    fn step<'a>(&mut self, rest: &'a [u8]) -> Result<Step<'a>, Halt> {
        if let State::Skip { left, total } = self.state {
            return self.skip(rest, left, total);
        }
        let Some((head, _)) = rest.split_first_chunk::<HEAD_BYTES>() else {
            return Err(Halt::starved("block's header", HEAD_BYTES as u64));
        };
        let [k0, k1, k2, k3, l0, l1, l2, l3, m0, m1, m2, m3] = *head;
        // A section header's type reads the same in both orders; its mark tells the order of what follows.
        if u32::from_le_bytes([k0, k1, k2, k3]) == SECTION {
            self.order = Order::of([m0, m1, m2, m3]).map_err(Halt::broken)?;
        }
        let order = self.order;
        let kind = order.u32([k0, k1, k2, k3]);
        let total = order.u32([l0, l1, l2, l3]);
        let Some((what, least)) = known(kind) else {
            if (total as usize) < HEAD_BYTES {
                let needed = HEAD_BYTES as u32;
                return Err(Halt::broken(BrokenReason::BlockTooShort {
                    what: "block",
                    claimed: total,
                    needed,
                }));
            }
            self.state = State::Skip { left: padded(total) - 8 - TRAILER_BYTES as u64, total };
            return Ok(Step::Passed(8));
        };
        if total < least {
            return Err(Halt::broken(BrokenReason::BlockTooShort {
                what,
                claimed: total,
                needed: least,
            }));
        }
        let long = padded(total);
        if long > BLOCK_BYTES_MAX as u64 {
            let max = BLOCK_BYTES_MAX;
            return Err(Halt::broken(BrokenReason::BlockTooLong { what, claimed: total, max }));
        }
        let used = long as usize;
        let Some((body, trailer)) =
            rest.get(8..used).and_then(<[u8]>::split_last_chunk::<TRAILER_BYTES>)
        else {
            return Err(Halt::starved(what, long));
        };
        let trailing = order.u32(*trailer);
        if trailing != total {
            return Err(Halt::broken(BrokenReason::BlockLengths { leading: total, trailing }));
        }
        if matches!(kind, SECTION | INTERFACE) {
            self.is_described_anew |= self.has_packets;
        }
        match kind {
            SECTION => self.section(body).map_err(Halt::broken)?,
            INTERFACE => self.interface(body).map_err(Halt::broken)?,
            _ => {
                self.has_packets = true;
                let frame = self.packet(kind, what, body).map_err(Halt::broken)?;
                let data_at = 8 + if kind == SIMPLE_PACKET { SIMPLE_FIELDS } else { PACKET_FIELDS };
                return Ok(Step::Frame { used, frame, data_at });
            }
        }
        Ok(Step::Passed(used))
    }

    fn skip<'a>(&mut self, rest: &'a [u8], left: u64, total: u32) -> Result<Step<'a>, Halt> {
        let here = left.min(rest.len() as u64);
        let left = left - here;
        let used = here as usize;
        let trailer = rest.get(used..).and_then(<[u8]>::first_chunk::<TRAILER_BYTES>);
        self.state = State::Skip { left, total };
        let Some(trailer) = trailer.filter(|_| left == 0) else {
            return Err(Halt {
                used,
                stop: Stop::Starved { what: "block", needed: left + TRAILER_BYTES as u64 },
            });
        };
        let trailing = self.order.u32(*trailer);
        if trailing != total {
            let reason = BrokenReason::BlockLengths { leading: total, trailing };
            return Err(Halt { used, stop: Stop::Broken(reason) });
        }
        self.state = State::Block;
        Ok(Step::Passed(used + TRAILER_BYTES))
    }

    /// A new section: byte order is set already, its interfaces follow.
    fn section(&mut self, body: &[u8]) -> Result<(), BrokenReason> {
        let (major, minor) = (self.order.u16_at(body, 4), self.order.u16_at(body, 6));
        if major != VERSION_MAJOR {
            return Err(BrokenReason::Version { format: "pcapng", major, minor, known: "1.x" });
        }
        self.section = self.interfaces.len();
        Ok(())
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), BrokenReason> {
        if self.interfaces.len() >= self.interfaces_max {
            return Err(BrokenReason::TooManyInterfaces { max: self.interfaces_max });
        }
        let order = self.order;
        let id =
            self.first_id.saturating_add(u16::try_from(self.interfaces.len()).unwrap_or(u16::MAX));
        let interface = Interface { id, link: LinkType(order.u16_at(body, 0)) };
        let snap_bytes = match order.u32_at(body, 4) {
            0 => u32::MAX,
            snap_bytes => snap_bytes,
        };
        let mut clocked = Clocked { interface, unit: Unit::Nanos(1_000), offset_ns: 0, snap_bytes };
        let mut options = body.get(8..).unwrap_or_default();
        // Every turn takes at least the four bytes of an option's header off the block.
        while let Some((&[c0, c1, l0, l1], rest)) = options.split_first_chunk::<4>() {
            let (code, len) = (order.u16([c0, c1]), usize::from(order.u16([l0, l1])));
            let Some(value) = rest.get(..len).filter(|_| code != OPTION_END) else { break };
            match (code, value) {
                (OPTION_IF_TSRESOL, [resolution, ..]) => clocked.unit = Unit::of(*resolution),
                (OPTION_IF_TSOFFSET, [a, b, c, d, e, f, g, h, ..]) => {
                    let secs = order.u64([*a, *b, *c, *d, *e, *f, *g, *h]) as i64;
                    clocked.offset_ns = secs.saturating_mul(NANOS_PER_SEC as i64);
                }
                _ => {}
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        self.interfaces.push(clocked);
        Ok(())
    }

    /// The frame of a packet block of any kind.
    #[inline]
    fn packet<'a>(
        &mut self,
        kind: u32,
        what: &'static str,
        body: &'a [u8],
    ) -> Result<Frame<'a>, BrokenReason> {
        let order = self.order;
        let known = self.interfaces.get(self.section..).unwrap_or_default();
        let number = match kind {
            SIMPLE_PACKET => 0,
            OBSOLETE_PACKET => u32::from(order.u16_at(body, 0)),
            _ => order.u32_at(body, 0),
        };
        let Some(clocked) = known.get(number as usize) else {
            return Err(BrokenReason::UnknownInterface { interface: number, known: known.len() });
        };
        let (captured, wire_len, data) = if kind == SIMPLE_PACKET {
            let data = body.get(SIMPLE_FIELDS..).unwrap_or_default();
            let wire_len = order.u32_at(body, 0);
            let captured = wire_len.min(clocked.snap_bytes).min(data.len() as u32);
            (captured, wire_len, data)
        } else {
            (
                order.u32_at(body, 12),
                order.u32_at(body, 16),
                body.get(PACKET_FIELDS..).unwrap_or_default(),
            )
        };
        if captured as usize > FRAME_BYTES_MAX {
            return Err(BrokenReason::FrameTooLong { claimed: captured, max: FRAME_BYTES_MAX });
        }
        let found = data.len();
        let Some(data) = data.get(..captured as usize) else {
            return Err(BrokenReason::FrameBeyondBlock { what, claimed: captured, found });
        };
        if kind != SIMPLE_PACKET {
            let ticks = u64::from(order.u32_at(body, 4)) << 32 | u64::from(order.u32_at(body, 8));
            self.last = clocked.time(ticks);
        }
        Ok(Frame {
            ts: self.last,
            wire_len,
            link: clocked.interface.link,
            interface: clocked.interface.id,
            data,
        })
    }
}

/// What a step found.
enum Step<'a> {
    /// Nothing to give; this many bytes are done with.
    Passed(usize),
    /// A frame, in a block of `used` bytes, its data from `data_at` on.
    Frame { used: usize, frame: Frame<'a>, data_at: usize },
}

/// Why a step could not be done, and how many bytes it was able to use up.
struct Halt {
    used: usize,
    stop: Stop,
}

impl Halt {
    fn starved(what: &'static str, needed: u64) -> Self {
        Self { used: 0, stop: Stop::Starved { what, needed } }
    }

    fn broken(reason: BrokenReason) -> Self {
        Self { used: 0, stop: Stop::Broken(reason) }
    }
}

/// Name of a block that must be read as a whole, and its shortest length.
fn known(kind: u32) -> Option<(&'static str, u32)> {
    Some(match kind {
        SECTION => ("section header block", 28),
        INTERFACE => ("interface description block", 20),
        OBSOLETE_PACKET => ("packet block", 32),
        SIMPLE_PACKET => ("simple packet block", 16),
        ENHANCED_PACKET => ("enhanced packet block", 32),
        _ => return None,
    })
}

/// A block's length with the padding that it should have counted.
fn padded(total: u32) -> u64 {
    u64::from(total).next_multiple_of(4)
}

impl Clocked {
    /// When it was after so many ticks.
    #[inline]
    fn time(&self, ticks: u64) -> Timestamp {
        Timestamp::from_nanos(self.unit.nanos(ticks).saturating_add_signed(self.offset_ns))
    }
}

impl Unit {
    /// From the option's value: the top bit chooses the base, 2 or 10, the rest is the exponent's size.
    fn of(resolution: u8) -> Self {
        let exponent = resolution & 0x7f;
        if resolution & 0x80 != 0 {
            return Self::SecondOver(exponent);
        }
        match exponent {
            0..=9 => Self::Nanos(10u64.pow((9 - exponent).into())),
            // A divisor that saturates is above any count of ticks, as it should be: no count makes a nanosecond.
            _ => Self::NanosOver(10u128.saturating_pow((exponent - 9).into())),
        }
    }

    #[inline]
    fn nanos(self, ticks: u64) -> u64 {
        match self {
            Self::Nanos(nanos) => ticks.saturating_mul(nanos),
            Self::NanosOver(parts) => u64::try_from(u128::from(ticks) / parts).unwrap_or(u64::MAX),
            Self::SecondOver(exponent) => {
                // 64 bits times 30 bits: no overflow before the shift, and the shift is below 128.
                let nanos = (u128::from(ticks) * u128::from(NANOS_PER_SEC)) >> exponent;
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
        }
    }
}

impl Order {
    fn of(mark: [u8; 4]) -> Result<Self, BrokenReason> {
        if u32::from_le_bytes(mark) == BYTE_ORDER_MAGIC {
            Ok(Self::Little)
        } else if u32::from_be_bytes(mark) == BYTE_ORDER_MAGIC {
            Ok(Self::Big)
        } else {
            Err(BrokenReason::ByteOrder { found: mark })
        }
    }

    #[inline]
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    #[inline]
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }

    /// The field at `at` of a block whose length was checked; 0 beyond it.
    #[inline]
    fn u16_at(self, body: &[u8], at: usize) -> u16 {
        self.u16(body.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default())
    }

    /// As [`Order::u16_at`].
    #[inline]
    fn u32_at(self, body: &[u8], at: usize) -> u32 {
        self.u32(body.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default())
    }
}
