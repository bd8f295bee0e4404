//! A connection's history string, in the letters that Zeek's `conn.log` made known.
//!
//! | letter | what was seen |
//! |---|---|
//! | `s` | SYN without ACK |
//! | `h` | SYN with ACK |
//! | `a` | ACK without payload |
//! | `d` | payload |
//! | `f` | FIN |
//! | `r` | RST |
//! | `t` | a retransmission |
//! | `w` | a window closed to zero |
//! | `i` | FIN and RST in one segment |
//! | `q` | SYN and FIN, or SYN and RST, in one segment |
//! | `^` | the initiator was recognised only after other packets |
//!
//! Upper case by the initiator, lower case by the responder; each once a side, in the order in
//! which they were first seen.

use std::fmt;

use crate::net::End;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// SYN without ACK.
    Syn = 1,
    /// SYN with ACK.
    SynAck,
    /// ACK without payload.
    Ack,
    /// Payload.
    Data,
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// A retransmission.
    Retransmission,
    /// A window closed to zero.
    ZeroWindow,
    /// FIN and RST at once.
    Inconsistent,
    /// SYN and FIN, or SYN and RST, at once.
    MultiFlag,
    /// The initiator was recognised late.
    Flipped,
}

/// Letters by mark; index 0 is none.
const LETTERS: &[u8; 12] = b"\0SHADFRTWIQ^";

impl Mark {
    /// Every mark, in the order of their numbers, which begin with 1.
    pub const ALL: [Self; 11] = [
        Self::Syn,
        Self::SynAck,
        Self::Ack,
        Self::Data,
        Self::Fin,
        Self::Rst,
        Self::Retransmission,
        Self::ZeroWindow,
        Self::Inconsistent,
        Self::MultiFlag,
        Self::Flipped,
    ];

    /// This mark's bit in a mask of those already seen.
    #[inline]
    pub const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Five bits a letter: the mark, and 16 for end B.
const BITS: u32 = 5;
const FROM_B: u8 = 16;
const FLIPPED: u8 = Mark::Flipped as u8;

/// What happened on a TCP connection, in order. Displays as the string.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct History {
    packed: [u8; 13],
}

impl History {
    /// Letters that fit: the first ones, and no connection known has more.
    pub const MAX_LETTERS: usize = 20;

    fn get(self) -> u128 {
        let mut bytes = [0; 16];
        bytes[..13].copy_from_slice(&self.packed);
        u128::from_le_bytes(bytes)
    }

    fn of(packed: u128) -> Self {
        let [packed @ .., _, _, _] = packed.to_le_bytes();
        Self { packed }
    }

    /// With marks by `end` appended, as many as fit.
    ///
    /// By value: what was just written to memory in other pieces than it is read in cannot be read before all that was written earlier.
    #[must_use]
    pub(crate) fn with(self, marks: impl IntoIterator<Item = Mark>, end: End) -> Self {
        let mut packed = self.get();
        for mark in marks {
            let len = (128 - packed.leading_zeros()).div_ceil(BITS);
            if len as usize >= Self::MAX_LETTERS {
                break;
            }
            let from = if end == End::B && mark != Mark::Flipped { FROM_B } else { 0 };
            packed |= u128::from(mark as u8 | from) << (len * BITS);
        }
        Self::of(packed)
    }

    /// Seen from the initiator: afterwards end A is who opened.
    pub(crate) fn seen_from(self, initiator: End) -> Self {
        if initiator == End::B {
            let mut packed = 0;
            for (index, code) in self.codes().enumerate() {
                let turned = if code == FLIPPED { code } else { code ^ FROM_B };
                packed |= u128::from(turned) << (index as u32 * BITS);
            }
            return Self::of(packed);
        }
        self
    }

    fn codes(self) -> impl Iterator<Item = u8> {
        let packed = self.get();
        (0..Self::MAX_LETTERS as u32)
            .map(move |index| (packed >> (index * BITS)) as u8 & 31)
            .take_while(|&code| code != 0)
    }

    /// The letters, in order.
    pub fn letters(self) -> impl Iterator<Item = char> {
        self.codes().map(|code| {
            let letter = LETTERS.get(usize::from(code & 15)).copied().unwrap_or(b'?') as char;
            if code & FROM_B != 0 { letter.to_ascii_lowercase() } else { letter }
        })
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.letters().try_for_each(|letter| fmt::Write::write_char(f, letter))
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "History({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_in_order_and_know_their_side() {
        let mut history = History::default();
        for (mark, end) in [
            (Mark::Syn, End::A),
            (Mark::SynAck, End::B),
            (Mark::Ack, End::A),
            (Mark::Data, End::A),
            (Mark::Flipped, End::B),
        ] {
            history = history.with([mark], end);
        }
        assert_eq!(history.to_string(), "ShAD^");
        assert_eq!(history.seen_from(End::B).to_string(), "sHad^");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let history = History::default().with([Mark::MultiFlag; 40], End::B);
        assert_eq!(history.to_string(), "q".repeat(History::MAX_LETTERS));
    }
}
