//! In-order byte streams, one per side of a TCP connection.
//!
//! A [`Reassembler`] watches a tracker and hands what each side sent to a [`StreamSink`]: in-order
//! data straight from the frame, without a copy; data that came early when what was missing is
//! there, or is given up. It owns no time and no flows: the tracker says when a flow ends, the
//! packets and [`Reassembler::handle_timeout`] say what time it is.
//!
//! # Contract
//!
//! - For each stream the sink is told consecutive stretches from offset 0 on, each byte once, as
//!   data or as a gap, and then the end, once. One lost segment never stops a stream.
//! - **Overlap policy: the first copy of a byte stays.** Later copies are dropped; where they
//!   differ from bytes that are still held it is an
//!   [`OverlapConflict`](crate::AnomalyKind::OverlapConflict). Bytes that were handed over are not
//!   kept, so a conflict with those cannot be seen.
//! - A hole is skipped when it is [`gap_timeout`](ReassemblyConfig::gap_timeout) old; sooner when
//!   the receiver acknowledges bytes behind it, or when its side has no memory left to wait.
//! - Memory follows what arrives: a word for each flow the tracker may hold, two streams for
//!   each TCP flow that sent anything but RSTs, and a buffer for each stream with a hole,
//!   bounded per side and in all by [`ReassemblyConfig`]. It is reused, not returned.
//! - Snapped payload is a gap of the bytes that were not captured, told at once; nobody waits.
//!
//! | part | noun |
//! |---|---|
//! | `reassembler` | the streams of all flows, as an observer of a tracker |
//! | `stream` | one side: sequence numbers → offsets, order |
//! | `segments` | what is held of one side, in blocks from one pool |
//! | `holes` | which streams have a hole, and until when |
//! | `tell` | counters, anomalies and the consumer |

mod config;
mod counters;
mod holes;
mod reassembler;
mod segments;
mod stream;
mod tell;

#[cfg(test)]
mod tests;

pub use config::{OverflowPolicy, ReassemblyConfig, ReassemblyConfigError};
pub use counters::{ReassemblyCounters, SideCounters};
pub use reassembler::{Reassembler, Watching};

use crate::flow::FlowId;
use crate::net::Side;

/// Who takes the bytes. `flow` names the flow until its `Ended` event, and is used again after.
///
/// Called from the packet path: be quick. `flow` and `side` together name one stream: which end
/// counts as the initiator is settled when a flow's first byte is told. Should the tracker learn
/// better later (only in mid-stream, when data come before a reordered SYN), its statistics say so.
pub trait StreamSink<K> {
    /// The next bytes of a side. `offset` counts from the start of its stream.
    fn data(&mut self, key: &K, flow: FlowId, side: Side, offset: u64, bytes: &[u8]);

    /// `len` bytes are missing and will not come.
    fn gap(&mut self, key: &K, flow: FlowId, side: Side, offset: u64, len: u64) {
        let _ = (key, flow, side, offset, len);
    }

    /// The side's FIN was reached, or the flow is over; `offset` is the length of the stream.
    fn end(&mut self, key: &K, flow: FlowId, side: Side, offset: u64) {
        let _ = (key, flow, side, offset);
    }
}

/// Takes nothing: for counting only.
impl<K> StreamSink<K> for () {
    #[inline]
    fn data(&mut self, _: &K, _: FlowId, _: Side, _: u64, _: &[u8]) {}
}
