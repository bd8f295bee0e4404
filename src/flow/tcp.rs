//! The state of a TCP connection seen from outside (RFC 9293 section 3.3.2).
//!
//! [`TcpState`] and its one table say where a connection stands. [`Track`] is what an observer must
//! remember to tell which [`Signal`] a segment is; it is part of a flow's entry.
//! Sequence numbers are compared modulo 2^32 (RFC 9293 section 3.4).

mod sequence;
mod skipped;
mod state;

pub use sequence::Loss;
pub use state::{Signal, TcpState};

use std::mem::offset_of;

use super::extra::ExtraOf;
use super::history::Mark;
use crate::decode::TcpHeader;
use crate::net::{End, L4, TcpFlags};

/// A window scale nobody told: the largest, so that no true RST is disbelieved (RFC 7323 section 2.3).
const SCALE_UNKNOWN: u8 = 14;
/// How far before the first segment seen a late SYN of the same connection may be.
const LATE_SYN_REACH: u32 = 1 << 16;

/// Bits of [`Track::bits`]; the pairs are indexed by [`End`].
mod bit {
    pub const INITIATOR_B: u16 = 1;
    pub const MIDSTREAM: u16 = 1 << 1;
    pub const SYN_ACKED: u16 = 1 << 2;
    pub const FIN_SEEN: u16 = 1 << 4;
    pub const FIN_ACKED: u16 = 1 << 6;
    pub const SEQ_KNOWN: u16 = 1 << 8;
    pub const ACK_KNOWN: u16 = 1 << 10;
    pub const ISN_KNOWN: u16 = 1 << 12;
    /// The handshake was seen to complete.
    pub const ESTABLISHED: u16 = 1 << 15;
}

/// What an observer remembers of a connection for every packet: 40 bytes, indexed by [`End`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Track {
    /// The sequence number after the last one sent.
    seq_end: [u32; 2],
    /// The last acknowledgement sent.
    ack: [u32; 2],
    /// The last window advertised, not scaled.
    window: [u16; 2],
    /// Marks already in the history.
    seen: [u16; 2],
    flags: [TcpFlags; 2],
    /// Not at a multiple of four bytes: there LLVM reads four of them where two were just written, and waits for all that was written before.
    bits: u16,
    /// Window scales, four bits an end.
    scales: u8,
    state: TcpState,
    l4: L4,
    /// An ICMP reply was seen before any request.
    pub reply_first: bool,
    /// Initial sequence numbers, for odd moments only.
    isn: [u32; 2],
}

const _: () = assert!(!offset_of!(Track, bits).is_multiple_of(align_of::<Track>()));

/// What a segment turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Part of the connection.
    Ordinary,
    /// Part of it, and the handshake is complete now.
    Completed,
    /// A RST outside the window: counted, not believed.
    StrayRst,
    /// The first segment of another connection on the same tuple. Nothing was changed.
    NewConnection,
}

/// Whether a segment was one of those that everything is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// It was, and changed nothing but what is remembered for every packet.
    Yes,
    /// It was, and the first of its kind: this is new in the history.
    Marked(Mark),
    /// It was not, and nothing was changed: use [`Track::observe`].
    No,
}

/// What a plain segment says in a history.
#[inline]
const fn mark_of(payload: u32) -> Mark {
    if payload == 0 { Mark::Ack } else { Mark::Data }
}

/// `a` is before `b`.
#[inline]
const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Track {
    /// Of a flow without TCP headers: only says who was seen first.
    pub const fn untracked(first: End, l4: L4) -> Self {
        Self {
            seq_end: [0; 2],
            ack: [0; 2],
            window: [0; 2],
            seen: [0; 2],
            bits: if matches!(first, End::B) { bit::INITIATOR_B } else { 0 },
            flags: [TcpFlags(0); 2],
            scales: SCALE_UNKNOWN << 4 | SCALE_UNKNOWN,
            state: TcpState::SynSent,
            l4,
            reply_first: false,
            isn: [0; 2],
        }
    }

    /// Which idle timeouts apply. TCP only once a TCP header was seen: later fragments have none.
    #[inline]
    pub fn l4(&self) -> L4 {
        self.l4
    }

    #[inline]
    fn is(&self, bit: u16, end: End) -> bool {
        self.bits & bit << end as u16 != 0
    }

    #[inline]
    fn set(&mut self, bit: u16, end: End) {
        self.bits |= bit << end as u16;
    }

    /// Who opened.
    #[inline]
    pub fn initiator(&self) -> End {
        if self.bits & bit::INITIATOR_B != 0 { End::B } else { End::A }
    }

    /// Where the connection stands.
    #[inline]
    pub fn state(&self) -> TcpState {
        self.state
    }

    /// Whether it was picked up after its handshake.
    pub fn is_midstream(&self) -> bool {
        self.bits & bit::MIDSTREAM != 0
    }

    /// Union of the flags an end sent.
    pub fn flags(&self, end: End) -> TcpFlags {
        self.flags[end as usize]
    }

    /// Whether a segment is likely one that changes only what is remembered for every packet.
    #[inline]
    pub fn looks_common(&self, end: End, tcp: &TcpHeader, payload: u32) -> bool {
        (self.state == TcpState::Established)
            & tcp.is_plain()
            & (self.seen[end as usize] & mark_of(payload).bit() != 0)
    }

    /// The segment that everything is made for: in order, nothing but ACK and PSH, the connection
    /// established.
    #[inline]
    pub fn observe_common(&mut self, end: End, tcp: &TcpHeader, payload: u32) -> Common {
        let at = end as usize;
        let known = (bit::SEQ_KNOWN | bit::ACK_KNOWN) << at;
        let is_common = (self.state == TcpState::Established)
            & tcp.is_plain()
            & (tcp.seq == self.seq_end[at])
            & (self.bits & known == known)
            & (tcp.window != 0);
        if !is_common {
            return Common::No;
        }
        self.seq_end[at] = tcp.seq.wrapping_add(payload);
        if before(self.ack[at], tcp.ack) {
            self.ack[at] = tcp.ack;
        }
        self.window[at] = tcp.window;
        self.flags[at] = self.flags[at].union(tcp.flags);
        let mark = mark_of(payload);
        if self.seen[at] & mark.bit() != 0 {
            return Common::Yes;
        }
        self.seen[at] |= mark.bit();
        Common::Marked(mark)
    }

    /// The first segment of a connection, by `end`.
    pub fn open(
        &mut self,
        extra: &mut ExtraOf<'_>,
        end: End,
        tcp: &TcpHeader,
        payload: u32,
    ) -> Marks {
        *self = Self::untracked(end, L4::Tcp);
        let flags = tcp.flags;
        if flags.has(TcpFlags::RST) {
            self.state = TcpState::Closed;
            self.bits |= bit::MIDSTREAM;
        } else if flags.has(TcpFlags::SYN) {
            if flags.has(TcpFlags::ACK) {
                // The SYN is missing or still to come: whoever answers did not open.
                self.bits ^= bit::INITIATOR_B;
                self.state = TcpState::SynReceived;
                self.set(bit::SYN_ACKED, end.other());
            }
        } else {
            self.state = TcpState::Established;
            self.bits |= bit::MIDSTREAM;
        }
        let mut marks = Marks::default();
        self.take(extra, end, tcp, payload, &mut marks);
        marks
    }

    /// Any later segment.
    pub fn observe(
        &mut self,
        extra: &mut ExtraOf<'_>,
        end: End,
        tcp: &TcpHeader,
        payload: u32,
    ) -> (Seen, Marks) {
        let flags = tcp.flags;
        let mut marks = Marks::default();
        if flags.has(TcpFlags::RST) {
            if !self.believes_rst(end, tcp) {
                return (Seen::StrayRst, marks);
            }
        } else if flags.has(TcpFlags::SYN) {
            if self.is_new_connection(end, tcp) {
                return (Seen::NewConnection, marks);
            }
            if self.is_stray_answer(end, tcp) {
                // RFC 9293 section 3.10.7.3: only counted.
                self.flags[end as usize] = self.flags[end as usize].union(flags);
                return (Seen::Ordinary, marks);
            }
            self.take_syn(end, tcp, &mut marks);
        }
        let told = self.bits & bit::ESTABLISHED;
        self.take(extra, end, tcp, payload, &mut marks);
        let completed = self.bits & bit::ESTABLISHED != told;
        (if completed { Seen::Completed } else { Seen::Ordinary }, marks)
    }

    /// Whether a SYN, with or without ACK, opens another connection than this one.
    fn is_new_connection(&self, end: End, tcp: &TcpHeader) -> bool {
        let at = end as usize;
        let answers = tcp.flags.has(TcpFlags::ACK);
        if self.is(bit::ISN_KNOWN, end) {
            // An answer opens nothing while both sides know each other: it is a stray.
            return self.isn[at] != tcp.seq && (!answers || self.state.is_over());
        }
        // The first SYN from this side.
        match self.state {
            // The answer, or a SYN that crosses the other's: simultaneous open (RFC 9293 figure 7).
            TcpState::SynSent => false,
            // The answer to a SYN that somebody has reset already.
            _ if answers && self.is(bit::ISN_KNOWN, end.other()) => !self.acks_syn(end, tcp),
            // The SYN whose answer was seen before it.
            TcpState::SynReceived => {
                self.is(bit::ACK_KNOWN, end.other())
                    && tcp.seq.wrapping_add(1) != self.ack[end.other() as usize]
            }
            // Its SYN was overtaken, perhaps by the whole connection; or a new one.
            _ if self.is(bit::SEQ_KNOWN, end) => {
                let reach = self.seq_end[at].wrapping_sub(tcp.seq.wrapping_add(1));
                reach > LATE_SYN_REACH
            }
            _ if !self.state.is_over() => {
                self.is(bit::ACK_KNOWN, end.other())
                    && self.ack[end.other() as usize].wrapping_sub(tcp.seq) > LATE_SYN_REACH
            }
            _ => true,
        }
    }

    /// Whether a SYN-ACK answers something that was not asked, or differs from the answer given.
    fn is_stray_answer(&self, end: End, tcp: &TcpHeader) -> bool {
        if !tcp.flags.has(TcpFlags::ACK) {
            return false;
        }
        if self.is(bit::ISN_KNOWN, end) {
            return self.isn[end as usize] != tcp.seq;
        }
        self.state == TcpState::SynSent
            && self.is(bit::ISN_KNOWN, end.other())
            && !self.acks_syn(end, tcp)
    }

    /// Whether a segment from `end` acknowledges the other side's SYN and no more than it sent.
    fn acks_syn(&self, end: End, tcp: &TcpHeader) -> bool {
        let other = end.other() as usize;
        let acked = tcp.ack.wrapping_sub(self.isn[other]);
        acked >= 1 && acked <= self.seq_end[other].wrapping_sub(self.isn[other])
    }

    fn take_syn(&mut self, end: End, tcp: &TcpHeader, marks: &mut Marks) {
        if self.is(bit::ISN_KNOWN, end) {
            return;
        }
        let answers = tcp.flags.has(TcpFlags::ACK);
        // Who opened shows only now: a SYN after other packets, or an answer to one never seen.
        let opener = if answers { end.other() } else { end };
        let both = self.is(bit::ISN_KNOWN, end.other());
        if !both && opener != self.initiator() {
            self.bits ^= bit::INITIATOR_B;
            marks.push(Mark::Flipped, &mut self.seen[end as usize]);
        }
        if self.state == TcpState::SynSent {
            self.state = self.state.next(Signal::Answered);
        }
        if answers && (!both || self.acks_syn(end, tcp)) {
            self.set(bit::SYN_ACKED, end.other());
        }
        self.bits &= !bit::MIDSTREAM;
    }

    /// What every segment of the connection does: state, sequence space, windows, marks.
    fn take(
        &mut self,
        extra: &mut ExtraOf<'_>,
        end: End,
        tcp: &TcpHeader,
        payload: u32,
        marks: &mut Marks,
    ) {
        let at = end as usize;
        let flags = tcp.flags;
        let syn = flags.has(TcpFlags::SYN);
        let fin = flags.has(TcpFlags::FIN);
        let rst = flags.has(TcpFlags::RST);

        if syn && !rst {
            let again = self.is(bit::ISN_KNOWN, end);
            if again {
                extra.edit().loss.count_retransmitted(end);
            } else {
                self.isn[at] = tcp.seq;
                self.set(bit::ISN_KNOWN, end);
                self.scale(end, tcp);
            }
        }
        if flags.has(TcpFlags::ACK) && !rst {
            self.take_ack(end, tcp);
        }
        let mut retransmission = false;
        if rst {
            self.state = self.state.next(Signal::Rst);
        } else {
            retransmission = self.take_seq(extra, end, tcp, payload);
            if fin && !self.is(bit::FIN_SEEN, end) {
                let first = !self.is(bit::FIN_SEEN, end.other());
                self.set(bit::FIN_SEEN, end);
                self.state = self.state.next(if first { Signal::Fin } else { Signal::PeerFin });
            }
            self.window[at] = tcp.window;
        }
        self.flags[at] = self.flags[at].union(flags);

        let mut mark = |mark| marks.push(mark, &mut self.seen[at]);
        if retransmission {
            mark(Mark::Retransmission);
        }
        if syn && (fin || rst) {
            mark(Mark::MultiFlag);
        } else if syn {
            mark(if flags.has(TcpFlags::ACK) { Mark::SynAck } else { Mark::Syn });
        } else if fin && rst {
            mark(Mark::Inconsistent);
        }
        if payload > 0 && !rst {
            mark(Mark::Data);
        } else if !syn && !fin && !rst && flags.has(TcpFlags::ACK) {
            mark(Mark::Ack);
        }
        if fin {
            mark(Mark::Fin);
        }
        if rst {
            mark(Mark::Rst);
        } else if tcp.window == 0 && !syn {
            mark(Mark::ZeroWindow);
        }
    }

    fn take_ack(&mut self, end: End, tcp: &TcpHeader) {
        let (at, other) = (end as usize, end.other());
        let syn = tcp.flags.has(TcpFlags::SYN);
        if !self.is(bit::ACK_KNOWN, end) || before(self.ack[at], tcp.ack) {
            self.ack[at] = tcp.ack;
            self.set(bit::ACK_KNOWN, end);
        }
        if self.state.is_embryonic() {
            let covers = !self.is(bit::ISN_KNOWN, other) || self.acks_syn(end, tcp);
            if covers {
                self.set(bit::SYN_ACKED, other);
            }
            // The responder sends nothing but SYNs before it is established; and an initiator that
            // goes on after its SYN got an answer, seen or not.
            let goes_on = !syn && (covers || end != self.initiator());
            let both = self.is(bit::SYN_ACKED, End::A) && self.is(bit::SYN_ACKED, End::B);
            let challenge = self.state == TcpState::SynSent && end != self.initiator();
            if (both || goes_on) && !challenge {
                self.state = self.state.next(Signal::Established);
                self.bits |= bit::ESTABLISHED;
            }
        }
        if self.is(bit::FIN_SEEN, other)
            && !self.is(bit::FIN_ACKED, other)
            && !before(tcp.ack, self.seq_end[other as usize])
        {
            self.set(bit::FIN_ACKED, other);
            self.state = self.state.next(Signal::FinAcked);
        }
    }

    /// Scaling holds only when both SYNs offer it (RFC 7323 section 2.2).
    fn scale(&mut self, end: End, tcp: &TcpHeader) {
        let shift = end as u32 * 4;
        match tcp.window_scale {
            Some(scale) => {
                self.scales = self.scales & !(15 << shift) | scale.min(SCALE_UNKNOWN) << shift;
            }
            None => self.scales = 0,
        }
    }

    /// RFC 9293 section 3.5.3, RFC 5961 section 3: a RST counts when its sequence number is in the
    /// receiver's window, or, while the receiver has only sent SYN, when it acknowledges that.
    fn believes_rst(&self, end: End, tcp: &TcpHeader) -> bool {
        let (at, other) = (end as usize, end.other());
        let peer = other as usize;
        if self.state.is_over() {
            return true;
        }
        if tcp.flags.has(TcpFlags::ACK)
            && self.state.is_embryonic()
            && self.is(bit::SEQ_KNOWN, other)
            && end != self.initiator()
        {
            return tcp.ack == self.seq_end[peer] || !self.is(bit::ISN_KNOWN, other);
        }
        // What the sender itself would put there; its peer's ACK may not have been seen yet.
        if self.is(bit::SEQ_KNOWN, end) && tcp.seq == self.seq_end[at] {
            return true;
        }
        if !self.is(bit::ACK_KNOWN, other) {
            // Nothing known to judge by, but for a side that has sent nothing else: then its SYN. Where segments were only
            // counted, not even that.
            return !self.is(bit::ISN_KNOWN, end)
                || !self.is(bit::SEQ_KNOWN, end)
                || tcp.seq.wrapping_add(1) == self.seq_end[at];
        }
        let scale = self.scales >> (other as u32 * 4) & 15;
        let window = (u32::from(self.window[peer]) << scale).max(1);
        tcp.seq.wrapping_sub(self.ack[peer]) < window
    }

    /// Whether only SYNs were seen, and from one side.
    pub fn is_unanswered_syn(&self) -> bool {
        self.state == TcpState::SynSent
    }
}

/// Marks of one segment that were new to its side, in order: four bits each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks(u32);

impl Marks {
    /// Adds a mark that its side has not shown before. A segment has six at most, so that they fit.
    #[inline]
    fn push(&mut self, mark: Mark, seen: &mut u16) {
        if *seen & mark.bit() == 0 {
            *seen |= mark.bit();
            let end = u32::BITS - self.0.leading_zeros();
            self.0 |= (mark as u32) << (end.div_ceil(4) * 4);
        }
    }

    /// In the order in which they were added.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Mark> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let mark = Mark::ALL.get((rest & 15).wrapping_sub(1) as usize);
            rest >>= 4;
            mark.copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_compare_modulo_two_to_the_32() {
        assert!(before(u32::MAX, 0));
        assert!(before(0xffff_fff0, 0x10));
        assert!(!before(0x10, 0xffff_fff0));
        assert!(!before(5, 5));
    }

    #[test]
    fn a_track_is_40_bytes() {
        assert_eq!(size_of::<Track>(), 40);
    }
}
