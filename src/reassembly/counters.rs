//! What reassembly adds up to: plain numbers that are always kept.

use crate::net::Side;

/// What became of one side's bytes, summed over flows.
///
/// `delivered_bytes + gap_bytes + cut_bytes` is how far all streams of the side came, at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideCounters {
    /// Bytes handed to the consumer.
    pub delivered_bytes: u64,
    /// Holes that were skipped.
    pub gaps: u64,
    /// Their bytes.
    pub gap_bytes: u64,
    /// Bytes that the capture's snapshot length cut off.
    pub cut_bytes: u64,
    /// Segments that came ahead of a hole and were held.
    pub out_of_order_segments: u64,
    /// Segments that brought nothing new: retransmissions and keep-alives.
    pub retransmitted_segments: u64,
    /// Bytes that the stream was past when they came: retransmissions, or too late for a hole
    /// that was skipped.
    pub behind_bytes: u64,
    /// Bytes that belong before the start of a stream picked up in the middle.
    pub before_start_bytes: u64,
    /// Bytes behind the FIN.
    pub beyond_end_bytes: u64,
    /// Bytes of retransmissions that differ from those that were held.
    pub conflict_bytes: u64,
    /// Segments dropped because they were outside the window.
    pub dropped_ooo_segments: u64,
    /// Bytes given up because a buffer was full: the holes that were skipped for it, and what a
    /// flow that was dropped for it could not hold.
    pub dropped_oversize_bytes: u64,
}

/// What became of the bytes of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyCounters(pub(crate) [SideCounters; 2]);

impl ReassemblyCounters {
    /// One side, as it was seen when the bytes came.
    pub fn side(&self, side: Side) -> &SideCounters {
        &self.0[side as usize]
    }
}
