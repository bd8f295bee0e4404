//! Packets that were counted elsewhere, and are merged into their flow.
//!
//! Contract: plain numbers; who counted says how many and how late, and the flow adds up as if its packets had come one by one. What
//! only the packets themselves could tell (sequence numbers) is forgotten, not guessed.

use crate::net::{End, IpProto, TcpFlags};
use crate::time::Timestamp;

/// What one end sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountedSide {
    /// Frames.
    pub packets: u64,
    /// Their bytes on the wire, link header included.
    pub bytes: u64,
    /// Time of the last of them.
    pub last: Timestamp,
    /// Union of their TCP flags.
    pub tcp_flags: TcpFlags,
    /// Whether there was a TCP segment with payload.
    pub has_data: bool,
    /// Whether there was a TCP segment with nothing but an ACK.
    pub has_ack: bool,
    /// Whether there was a TCP window closed to zero.
    pub has_zero_window: bool,
}

/// What was counted of a flow, by [`End`]. Never a SYN, FIN or RST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By end A and by end B.
    pub sides: [CountedSide; 2],
}

impl Counted {
    /// Frames of both ends.
    pub fn packets(&self) -> u64 {
        self.sides.iter().map(|side| side.packets).sum()
    }

    /// Bytes of both ends.
    pub fn bytes(&self) -> u64 {
        self.sides.iter().map(|side| side.bytes).sum()
    }

    /// What one end sent.
    pub fn side(&self, end: End) -> &CountedSide {
        &self.sides[end as usize]
    }

    /// What came since `before` was counted, and moves `before` on. A side of which no new packet is known is left as it was:
    /// who counts may be in the middle of one.
    pub fn since(&self, before: &mut Self) -> Self {
        let mut new = Self::default();
        for ((side, before), new) in self.sides.iter().zip(&mut before.sides).zip(&mut new.sides) {
            if side.packets == before.packets {
                continue;
            }
            *new = CountedSide {
                packets: side.packets.wrapping_sub(before.packets),
                bytes: side.bytes.wrapping_sub(before.bytes),
                ..*side
            };
            *before = *side;
        }
        new
    }

    /// Adds what another counted of the same flow.
    pub fn add(&mut self, other: &Self) {
        for (side, other) in self.sides.iter_mut().zip(&other.sides) {
            side.packets += other.packets;
            side.bytes += other.bytes;
            side.last = side.last.max(other.last);
            side.tcp_flags = side.tcp_flags.union(other.tcp_flags);
            side.has_data |= other.has_data;
            side.has_ack |= other.has_ack;
            side.has_zero_window |= other.has_zero_window;
        }
    }
}

/// A flow's counts and what it is of, for [`FlowTracker::merge`](super::FlowTracker::merge).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shunted<K> {
    /// Its key.
    pub key: K,
    /// IP protocol.
    pub proto: IpProto,
    /// What came since the last time.
    pub counted: Counted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(a: (u64, u64), b: (u64, u64)) -> Counted {
        let side = |(packets, bytes)| CountedSide { packets, bytes, ..CountedSide::default() };
        Counted { sides: [side(a), side(b)] }
    }

    #[test]
    fn what_is_new_adds_up_and_bytes_wait_for_their_packet() {
        let mut before = Counted::default();
        let mut sum = Counted::default();
        for seen in [
            counted((3, 300), (0, 0)),
            counted((3, 400), (1, 60)),
            counted((4, 400), (1, 60)),
            counted((4, 400), (9, 540)),
        ] {
            let new = seen.since(&mut before);
            assert!(new.sides.iter().all(|side| (side.packets == 0) == (side.bytes == 0)));
            sum.add(&new);
        }
        assert_eq!(sum, counted((4, 400), (9, 540)));
        assert_eq!((sum.packets(), sum.bytes()), (13, 940));
        assert_eq!(sum.side(End::B).packets, 9);
    }
}
