//! Where a segment lies in its side's sequence space: in order, after a hole, into it, or seen before.

use super::super::extra::ExtraOf;
use super::{Track, before, bit};
use crate::decode::TcpHeader;
use crate::net::{End, TcpFlags};

/// What was lost, overtaken or sent again, by [`End`]: most connections have none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Where bytes are missing: from the lowest to the highest that may be.
    hole: [(u32, u32); 2],
    /// Segments whose bytes had all been seen before.
    pub retransmitted: [u32; 2],
    /// Segments that came after later ones and brought new bytes.
    pub out_of_order: [u32; 2],
}

impl Loss {
    /// Nothing.
    pub const NONE: Self = Self { hole: [(0, 0); 2], retransmitted: [0; 2], out_of_order: [0; 2] };

    /// Counts a segment whose bytes had all been seen before.
    pub fn count_retransmitted(&mut self, end: End) {
        let count = &mut self.retransmitted[end as usize];
        *count = count.saturating_add(1);
    }
}

impl Track {
    /// Places a segment in its side's sequence space; `true` for a retransmission.
    pub(super) fn take_seq(
        &mut self,
        extra: &mut ExtraOf<'_>,
        end: End,
        tcp: &TcpHeader,
        payload: u32,
    ) -> bool {
        let at = end as usize;
        let control =
            u32::from(tcp.flags.has(TcpFlags::SYN)) + u32::from(tcp.flags.has(TcpFlags::FIN));
        let (seq, next) = (tcp.seq, tcp.seq.wrapping_add(payload).wrapping_add(control));
        if !self.is(bit::SEQ_KNOWN, end) {
            self.set(bit::SEQ_KNOWN, end);
            self.seq_end[at] = next;
            return false;
        }
        let expected = self.seq_end[at];
        if seq == expected {
            self.seq_end[at] = next;
            return false;
        }
        if before(expected, seq) {
            // Bytes are missing before it. A second hole makes the first one longer: what lies
            // between is then taken for new when it comes again, which is the smaller error.
            let hole = &mut extra.edit().loss.hole[at];
            *hole = if hole.0 == hole.1 { (expected, seq) } else { (hole.0, seq) };
            self.seq_end[at] = next;
            return false;
        }
        let fin = tcp.flags.has(TcpFlags::FIN);
        if !fin && (payload == 0 || (payload == 1 && next == expected)) {
            // Nothing in it, or a keep-alive (RFC 9293 section 3.8.4).
            return false;
        }
        let hole = extra.get().loss.hole[at];
        if before(hole.0, next) && before(seq, hole.1) && hole.0 != hole.1 {
            let rest = if !before(hole.0, seq) { (next, hole.1) } else { (hole.0, seq) };
            let loss = &mut extra.edit().loss;
            loss.hole[at] = if before(rest.0, rest.1) { rest } else { (0, 0) };
            loss.out_of_order[at] = loss.out_of_order[at].saturating_add(1);
            return false;
        }
        if before(expected, next) {
            self.seq_end[at] = next;
            return false;
        }
        extra.edit().loss.count_retransmitted(end);
        true
    }
}
