//! How reassembly hooks into a tracker.

use super::packet::Packet;
use super::stats::FlowStats;
use crate::event::{EndReason, EventSink};
use crate::frame::Frame;
use crate::net::End;
use crate::obs::Hooks;

/// A flow's place in its tracker: stable while the flow lives, reused afterwards, always below
/// `max_flows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

/// Watches the packets of flows as a tracker accounts them: how reassembly hooks in. Static
/// dispatch; `()` watches nothing.
pub trait FlowObserver<K> {
    /// A packet of this flow probably comes after some dozens of others: to ask for what the flow has here. The flow may be over by
    /// then, and another in its place.
    #[inline]
    fn prefetch(&self, _: FlowId) {}

    /// One packet, already counted. `frame` is the one it came from; `None` for fragments that
    /// waited, and for packets that were steered here without their bytes.
    fn on_packet<S: EventSink<K>>(
        &mut self,
        flow: FlowId,
        initiator_end: End,
        packet: &Packet<K>,
        frame: Option<&Frame<'_>>,
        sink: &mut S,
        hooks: &mut Hooks,
    ) -> Verdict;

    /// The flow is about to end; its [`Ended`](crate::FlowEvent::Ended) event follows.
    fn on_end<S: EventSink<K>>(
        &mut self,
        flow: FlowId,
        key: &K,
        stats: &FlowStats,
        reason: EndReason,
        sink: &mut S,
        hooks: &mut Hooks,
    );
}

/// What becomes of a flow after an observer saw a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It ends now, with [`EndReason::BufferOverflow`].
    Drop,
}

impl<K> FlowObserver<K> for () {
    #[inline]
    fn on_packet<S: EventSink<K>>(
        &mut self,
        _: FlowId,
        _: End,
        _: &Packet<K>,
        _: Option<&Frame<'_>>,
        _: &mut S,
        _: &mut Hooks,
    ) -> Verdict {
        Verdict::Keep
    }

    #[inline]
    fn on_end<S: EventSink<K>>(
        &mut self,
        _: FlowId,
        _: &K,
        _: &FlowStats,
        _: EndReason,
        _: &mut S,
        _: &mut Hooks,
    ) {
    }
}
