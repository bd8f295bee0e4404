//! [`FlowTracker`]: frames with their times in, events out.

use super::config::{ConfigError, TrackerConfig};
use super::extract::FlowExtractor;
use super::ingest::{Ingest, IngestCounters};
use super::packet::Packet;
use super::stats::FlowStats;
use crate::event::{EndReason, EventSink};
use crate::frame::Frame;
use crate::net::End;
use crate::obs::Hooks;
use crate::time::{Timestamp, duration_ns};

/// A flow's place in its tracker: stable while the flow lives, reused afterwards, always below
/// `max_flows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

/// Watches the packets of flows as a tracker accounts them: how reassembly hooks in. Static
/// dispatch; `()` watches nothing.
pub trait FlowObserver<K> {
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

/// Where the packets went, for the ledger: plain numbers that are always kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerCounters {
    /// Frames counted into flows.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Flows that began.
    pub created: u64,
    /// Flows that ended, by [`EndReason`] in the order of its numbers.
    pub ended: [u64; EndReason::ALL.len()],
    /// Interim updates.
    pub updates: u64,
    /// Packets in the flows that ended.
    pub packets_ended: u64,
    /// ICMP errors related to the flow that they quote.
    pub icmp_related: u64,
    /// RSTs outside the window.
    pub rst_out_of_window: u64,
}

/// The flow table, its timers and its state machines.
#[derive(Debug)]
pub struct FlowTracker<E: FlowExtractor> {
    ingest: Ingest<E>,
    counters: TrackerCounters,
    config: TrackerConfig,
}

impl<E: FlowExtractor> FlowTracker<E> {
    /// Takes the memory for `config.max_flows` flows.
    pub fn new(extractor: E, config: TrackerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let fragment_timeout_ns = duration_ns(config.fragment_timeout);
        let ingest = Ingest::new(extractor, config.max_datagrams, fragment_timeout_ns);
        Ok(Self { ingest, counters: TrackerCounters::default(), config })
    }

    /// Accounts a batch of frames. Any length; best in the hundreds.
    pub fn process<S: EventSink<E::Key>>(&mut self, frames: &[Frame<'_>], sink: &mut S) {
        self.process_observed(frames, &mut (), sink);
    }

    /// [`process`](Self::process), with an observer.
    pub fn process_observed<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        observer: &mut O,
        sink: &mut S,
    ) {
        let _ = (frames, observer, sink);
        todo!()
    }

    /// Accounts packets that an [`Ingest`] made elsewhere.
    pub fn process_packets<S: EventSink<E::Key>>(
        &mut self,
        packets: &[Packet<E::Key>],
        sink: &mut S,
    ) {
        let _ = (packets, sink);
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) next has work: changes with every call that
    /// takes frames or time. `None` with nothing due ever.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Ends what is due at `now`, a bounded number of flows a call: `true` when more is due, so
    /// call again.
    pub fn handle_timeout<S: EventSink<E::Key>>(&mut self, now: Timestamp, sink: &mut S) -> bool {
        self.handle_timeout_observed(now, &mut (), sink)
    }

    /// [`handle_timeout`](Self::handle_timeout), with an observer.
    pub fn handle_timeout_observed<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        now: Timestamp,
        observer: &mut O,
        sink: &mut S,
    ) -> bool {
        let _ = (now, observer, sink);
        todo!()
    }

    /// Ends every flow: closed connections as such, the rest as [`EndReason::Drained`].
    pub fn drain<S: EventSink<E::Key>>(&mut self, sink: &mut S) {
        self.drain_observed(&mut (), sink);
    }

    /// [`drain`](Self::drain), with an observer.
    pub fn drain_observed<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        observer: &mut O,
        sink: &mut S,
    ) {
        let _ = (observer, sink);
        todo!()
    }

    /// Live flows.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there is no live flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the frames went before the table.
    pub fn ingest_counters(&self) -> &IngestCounters {
        self.ingest.counters()
    }

    /// Where the packets went.
    pub fn counters(&self) -> &TrackerCounters {
        &self.counters
    }

    /// What it was configured with.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }
}
