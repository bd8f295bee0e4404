//! [`FlowDriver`]: a tracker and its byte streams in one call.
//!
//! Contract: as [`FlowTracker`], sans-IO; time comes in with the frames. A flow's bytes are told
//! before its end, and its end before the start of a flow that takes its place.

use crate::event::EventSink;
use crate::flow::config::ConfigError;
use crate::flow::{FlowExtractor, FlowTracker, Packet, TrackerConfig};
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
        self.process_meanwhile(frames, consumer, sink, &mut |_| ());
    }

    /// The same with [`meanwhile`](FlowTracker::process_meanwhile).
    pub fn process_meanwhile<C: StreamSink<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        consumer: &mut C,
        sink: &mut S,
        meanwhile: &mut impl FnMut(usize),
    ) {
        let mut watching = self.reassembler.watching(consumer);
        self.tracker.process_meanwhile(frames, &mut watching, sink, meanwhile);
    }

    /// The same of packets that an [`Ingest`](crate::flow::ingest::Ingest) made of `frames` elsewhere.
    pub fn process_packets<C: StreamSink<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        packets: &[Packet<E::Key>],
        frames: &[Frame<'_>],
        consumer: &mut C,
        sink: &mut S,
    ) {
        let mut watching = self.reassembler.watching(consumer);
        self.tracker.process_packets_observed(packets, frames, &mut watching, sink);
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

    /// The tracker, but for packets and ends, which the reassembler must hear of.
    #[cfg(feature = "sensor")]
    pub(crate) fn tracker_mut(&mut self) -> &mut FlowTracker<E> {
        &mut self.tracker
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{AnomalyKind, EventLog, FlowEvent};
    use crate::flow::{ByFiveTuple, FlowId, FlowKey};
    use crate::frame::LinkType;
    use crate::net::Side;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    /// An IPv4 packet with a TCP segment of the initiator.
    fn packet(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (40 + payload.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend([0x30, 0x39, 0, 80]);
        packet.extend(seq.to_be_bytes());
        packet.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        packet
    }

    #[derive(Default)]
    struct Log(Vec<String>);

    impl StreamSink<FlowKey> for Log {
        fn data(&mut self, _: &FlowKey, _: FlowId, side: Side, offset: u64, bytes: &[u8]) {
            self.0.push(format!("{side:?} {offset} {}", bytes.escape_ascii()));
        }

        fn gap(&mut self, _: &FlowKey, _: FlowId, side: Side, offset: u64, len: u64) {
            self.0.push(format!("{side:?} {offset} -{len}"));
        }

        fn end(&mut self, _: &FlowKey, _: FlowId, side: Side, offset: u64) {
            self.0.push(format!("{side:?} {offset} end"));
        }
    }

    #[test]
    fn frames_become_streams_and_time_skips_their_holes() {
        let reassembly =
            ReassemblyConfig { gap_timeout: Duration::from_secs(2), ..Default::default() };
        let tracker = TrackerConfig::default();
        let mut driver = FlowDriver::new(ByFiveTuple::default(), tracker, reassembly)
            .unwrap()
            .with_emit_anomalies(true);
        let (mut log, mut events) = (Log::default(), EventLog::default());
        let packets = [packet(99, SYN, b""), packet(100, ACK, b"one"), packet(108, ACK, b"three")];
        let start = Timestamp::new(1000, 0);
        let frames = packets.each_ref().map(|data| Frame {
            ts: start,
            wire_len: data.len() as u32,
            link: LinkType::RAW,
            interface: 0,
            data,
        });
        driver.process(&frames, &mut log, &mut events);
        assert_eq!(log.0, ["Initiator 0 one"]);
        assert!(driver.poll_timeout().is_some_and(|due| due <= Timestamp::new(1002, 0)));
        while driver.handle_timeout(Timestamp::new(1002, 0), &mut log, &mut events) {}
        assert_eq!(log.0[1..], ["Initiator 3 -5", "Initiator 8 three"]);
        let gap = AnomalyKind::StreamGap { side: Side::Initiator, bytes: 5 };
        let is_gap = |event: &FlowEvent<FlowKey>| matches!(event, FlowEvent::Anomaly { kind, .. } if *kind == gap);
        assert_eq!(events.0.iter().filter(|event| is_gap(event)).count(), 1);
        driver.drain(&mut log, &mut events);
        assert_eq!(log.0[3..], ["Initiator 13 end"]);
        assert!(matches!(events.0.last(), Some(FlowEvent::Ended { .. })));
        assert_eq!(driver.reassembly_counters().side(Side::Initiator).delivered_bytes, 8);
    }

    #[test]
    fn either_configuration_may_be_refused() {
        let tracker = TrackerConfig { max_flows: 0, ..Default::default() };
        let refused = FlowDriver::new(ByFiveTuple::default(), tracker, Default::default());
        assert_eq!(refused.unwrap_err(), DriverConfigError::Tracker(ConfigError::MaxFlows(0)));
        let reassembly = ReassemblyConfig { side_bytes_max: 1, ..Default::default() };
        let refused = FlowDriver::new(ByFiveTuple::default(), Default::default(), reassembly);
        let error = DriverConfigError::Reassembly(ReassemblyConfigError::SideBytes(1));
        assert_eq!(refused.unwrap_err(), error);
    }
}
