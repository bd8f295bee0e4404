//! Frames → packets: decode, attribute fragments, extract keys, hash; in batches.
//!
//! A tracker has one of its own. With software steering the reader has the only one, and sends
//! packets to trackers on other cores.

use foldhash::fast::RandomState;

use super::extract::FlowExtractor;
use super::packet::Packet;
use crate::decode::Layers;
use crate::frame::Frame;
use crate::time::Timestamp;

/// Turns frames into packets with keys.
#[derive(Debug)]
pub struct Ingest<E: FlowExtractor> {
    extractor: E,
    hasher: RandomState,
    counters: IngestCounters,
}

/// Where the frames went. `frames = unmatched + held + packets`, at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounters {
    /// Frames taken in.
    pub frames: u64,
    /// Frames that the extractor has no key for.
    pub unmatched: u64,
    /// Bytes on the wire of those.
    pub unmatched_bytes: u64,
    /// Unmatched frames by [`Fault`](crate::decode::Fault), in the order of its numbers; those
    /// without a fault are simply not of the kind that the key wants.
    pub faults: [u64; 7],
    /// Frames handed on, fragments included.
    pub packets: u64,
    /// Later fragments waiting for their first one.
    pub held: u64,
    /// Later fragments whose first one did not come in time.
    pub fragments_unattributed: u64,
    /// ICMP errors that quote a packet.
    pub icmp_quotes: u64,
}

impl<E: FlowExtractor> Ingest<E> {
    /// `max_datagrams` and `fragment_timeout_ns` bound the fragment table.
    pub fn new(extractor: E, max_datagrams: usize, fragment_timeout_ns: u64) -> Self {
        let _ = (max_datagrams, fragment_timeout_ns);
        Self { extractor, hasher: RandomState::default(), counters: IngestCounters::default() }
    }

    /// Appends the packets of `frames` to `packets`; [`Packet::frame`] counts from 0 in `frames`.
    pub fn batch(&mut self, frames: &[Frame<'_>], packets: &mut Vec<Packet<E::Key>>) {
        let _ = (frames, packets, &self.extractor, &self.hasher);
        todo!()
    }

    /// Gives up on datagrams whose time is over, and appends the fragments that waited.
    pub fn handle_timeout(&mut self, now: Timestamp, packets: &mut Vec<Packet<E::Key>>) {
        let _ = (now, packets);
        todo!()
    }

    /// Gives up on all datagrams.
    pub fn drain(&mut self, packets: &mut Vec<Packet<E::Key>>) {
        let _ = packets;
        todo!()
    }

    /// Where the frames went.
    pub fn counters(&self) -> &IngestCounters {
        &self.counters
    }

    /// The layers of a frame, for callers that want more than a key.
    pub fn layers(&self, frame: &Frame<'_>) -> Layers {
        crate::decode::decode(frame)
    }
}
