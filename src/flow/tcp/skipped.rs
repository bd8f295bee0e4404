//! Segments of a connection that were only counted.

use super::super::history::Mark;
use super::super::shunted::CountedSide;
use super::{Marks, TcpState, Track, bit};
use crate::net::{End, L4};

impl Track {
    /// The handshake is over and nobody has closed or reset.
    pub fn is_established(&self) -> bool {
        self.state == TcpState::Established
    }

    /// `end` sent segments that nobody looked at beyond what `side` says. Where it is in its sequence space is not known any
    /// more, unless it has closed; the next segment that is seen says so.
    pub fn skip(&mut self, end: End, side: &CountedSide) -> Marks {
        let mut marks = Marks::default();
        if self.l4 != L4::Tcp {
            return marks;
        }
        if !self.is(bit::FIN_SEEN, end) {
            self.bits &= !((bit::SEQ_KNOWN | bit::ACK_KNOWN) << end as u16);
        }
        let at = end as usize;
        self.flags[at] = self.flags[at].union(side.tcp_flags);
        for (mark, is_seen) in [
            (Mark::Data, side.has_data),
            (Mark::Ack, side.has_ack),
            (Mark::ZeroWindow, side.has_zero_window),
        ] {
            if is_seen {
                marks.push(mark, &mut self.seen[at]);
            }
        }
        marks
    }
}
