//! [`FlowDriver`]: a tracker and its byte streams in one call.
//!
//! Contract: as [`FlowTracker`], sans-IO; time comes in with the frames. A flow's bytes are told
//! before its end, and its end before the start of a flow that takes its place.

use crate::event::EventSink;
use crate::flow::config::ConfigError;
use crate::flow::{FlowExtractor, FlowTracker, TrackerConfig};
use crate::frame::Frame;
use crate::obs::Hooks;
use crate::reassembly::{
    Reassembler, ReassemblyConfig, ReassemblyConfigError, ReassemblyCounters, StreamSink,
};
use crate::time::Timestamp;

/// A tracker that also reassembles.
#[derive(Debug)]
pub struct FlowDriver<E: FlowExtractor> {
    tracker: FlowTracker<E>,
    reassembler: Reassembler<E::Key>,
}

/// What a driver's configuration was refused for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverConfigError {
    /// By the tracker.
    #[error(transparent)]
    Tracker(#[from] ConfigError),
    /// By reassembly.
    #[error(transparent)]
    Reassembly(#[from] ReassemblyConfigError),
}

impl<E: FlowExtractor> FlowDriver<E> {
    /// Takes the memory for `tracker.max_flows` flows; that for streams as they come.
    pub fn new(
        extractor: E,
        tracker: TrackerConfig,
        reassembly: ReassemblyConfig,
    ) -> Result<Self, DriverConfigError> {
        reassembly.validate()?;
        let tracker = FlowTracker::new(extractor, tracker)?;
        let reassembler = Reassembler::new(tracker.config().max_flows, &reassembly)?;
        Ok(Self { tracker, reassembler })
    }

    /// Reports to these hooks instead of the default ones.
    #[must_use]
    pub fn with_hooks(mut self, hooks: Hooks) -> Self {
        self.tracker = self.tracker.with_hooks(hooks);
        self
    }

    /// Whether anomalies of reassembly are events; its counters are kept either way. Default no.
    #[must_use]
    pub fn with_emit_anomalies(mut self, emit: bool) -> Self {
        self.reassembler.set_emit_anomalies(emit);
        self
    }

    /// Accounts a batch of frames and tells what the streams have. Any length; best in the
    /// hundreds.
    pub fn process<C: StreamSink<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        consumer: &mut C,
        sink: &mut S,
    ) {
        self.tracker.process_observed(frames, &mut self.reassembler.watching(consumer), sink);
    }

    /// When [`handle_timeout`](Self::handle_timeout) next has work: changes with every call that
    /// takes frames or time. `None` with nothing due ever.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let due = [self.tracker.poll_timeout(), self.reassembler.poll_timeout()];
        due.into_iter().flatten().min()
    }

    /// Skips the holes and ends the flows that are due at `now`, a bounded number a call: `true`
    /// when more is due, so call again.
    pub fn handle_timeout<C: StreamSink<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        now: Timestamp,
        consumer: &mut C,
        sink: &mut S,
    ) -> bool {
        let hooks = self.tracker.hooks_mut();
        let holes = self.reassembler.handle_timeout(now, consumer, sink, hooks);
        let mut watching = self.reassembler.watching(consumer);
        self.tracker.handle_timeout_observed(now, &mut watching, sink) || holes
    }

    /// Ends every flow, and with it its streams: closed connections as such, the rest as
    /// [`EndReason::Drained`](crate::EndReason::Drained).
    pub fn drain<C: StreamSink<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        consumer: &mut C,
        sink: &mut S,
    ) {
        self.tracker.drain_observed(&mut self.reassembler.watching(consumer), sink);
    }

    /// The tracker inside.
    pub fn tracker(&self) -> &FlowTracker<E> {
        &self.tracker
    }

    /// What became of the streams' bytes.
    pub fn reassembly_counters(&self) -> &ReassemblyCounters {
        self.reassembler.counters()
    }

    /// The streams inside, to look at.
    pub fn reassembler(&self) -> &Reassembler<E::Key> {
        &self.reassembler
    }
}
