//! [`Reassembler`]: the streams of every TCP flow of a tracker.

use super::StreamSink;
use super::config::{OverflowPolicy, ReassemblyConfig, ReassemblyConfigError};
use super::counters::ReassemblyCounters;
use super::holes::{Holes, Owner};
use super::stream::{Limits, Segment, Step, Stream};
use super::tell::{Book, Ears, Teller};
use crate::event::{EndReason, EventSink};
use crate::flow::observer::{FlowObserver, Verdict};
use crate::flow::packet::{Packet, Role};
use crate::flow::{FlowId, FlowStats};
use crate::frame::Frame;
use crate::net::{End, TcpFlags};
use crate::obs::Hooks;
use crate::prefetch::prefetch;
use crate::time::{Timestamp, duration_ns};

/// Holes that one call of [`Reassembler::handle_timeout`] looks at.
const TIMEOUTS_PER_CALL: usize = 256;

/// The two streams of a flow: two cache lines, of which each packet changes both.
#[derive(Debug)]
#[repr(C, align(64))]
struct Pair {
    /// By the [`End`] that sends them: who opened the conversation may be found out late, who
    /// sends may not.
    streams: [Stream; 2],
    /// Who is told as the initiator: the latest opinion when the first byte is told, and that one
    /// ever after, because a consumer takes a flow and a side for one stream.
    initiator_end: End,
}

impl Pair {
    fn new(initiator_end: End) -> Self {
        Self { streams: Default::default(), initiator_end }
    }

    /// Takes an opinion of who opened the conversation; returns the one that holds.
    #[inline]
    fn initiator_end(&mut self, opinion: End) -> End {
        if !self.streams.iter().any(Stream::has_told) {
            self.initiator_end = opinion;
        }
        self.initiator_end
    }
}

/// The streams of a tracker's flows.
///
/// Watches a tracker by way of [`watching`](Self::watching), or is told by a
/// [`FlowDriver`](crate::FlowDriver). The same reassembler must see every packet and every end of
/// the flows of one tracker.
#[derive(Debug)]
pub struct Reassembler<K> {
    /// Place in `pairs` plus one, by flow; 0 for a flow without streams.
    places: Vec<u32>,
    /// Room for every flow is reserved, so it never moves; touched only as far as needed.
    pairs: Vec<Pair>,
    free: Vec<u32>,
    holes: Holes<K>,
    limits: Limits,
    book: Book,
}

/// A reassembler that watches a tracker and hands the bytes to a consumer.
#[derive(Debug)]
pub struct Watching<'a, K, C> {
    reassembler: &'a mut Reassembler<K>,
    consumer: &'a mut C,
}

impl<K: Copy> Reassembler<K> {
    /// For a tracker of `max_flows`. Takes four bytes a flow at start and the rest as streams come.
    pub fn new(max_flows: usize, config: &ReassemblyConfig) -> Result<Self, ReassemblyConfigError> {
        config.validate()?;
        Ok(Self {
            places: vec![0; max_flows],
            pairs: Vec::with_capacity(max_flows),
            free: Vec::new(),
            holes: Holes::new(config.total_blocks()),
            limits: Limits {
                side_blocks: config.side_blocks(),
                window_bytes: u64::from(config.window_bytes),
                drop_flow: config.overflow == OverflowPolicy::DropFlow,
                gap_timeout_ns: duration_ns(config.gap_timeout),
                acked_gap_timeout_ns: duration_ns(config.acked_gap_timeout),
            },
            book: Book::default(),
        })
    }

    /// Whether anomalies are events; the counters are kept either way. Default no.
    pub fn set_emit_anomalies(&mut self, emit: bool) {
        self.book.emit_anomalies = emit;
    }

    /// As an observer of a tracker, for one call.
    pub fn watching<'a, C>(&'a mut self, consumer: &'a mut C) -> Watching<'a, K, C> {
        Watching { reassembler: self, consumer }
    }

    /// What became of the bytes.
    pub fn counters(&self) -> &ReassemblyCounters {
        &self.book.counters
    }

    /// Memory in use for held bytes, in bytes: whole blocks, at most
    /// [`total_bytes_max`](ReassemblyConfig::total_bytes_max).
    pub fn held_bytes(&self) -> usize {
        self.holes.pool.used() * super::segments::BLOCK_BYTES
    }

    /// Streams that wait for a hole to fill.
    pub fn streams_waiting(&self) -> usize {
        self.holes.len()
    }

    /// Flows that have streams.
    pub fn flows(&self) -> usize {
        self.pairs.len() - self.free.len()
    }

    /// When [`handle_timeout`](Self::handle_timeout) next has work, or a little before: changes with
    /// every call that takes packets or time.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.holes.next_due()
    }

    /// Skips the holes that are over age at `now`, a bounded number a call: `true` when more is
    /// due, so call again.
    pub fn handle_timeout<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        now: Timestamp,
        consumer: &mut C,
        sink: &mut S,
        hooks: &mut Hooks,
    ) -> bool {
        let mut ears = Ears { consumer, sink, hooks };
        for _ in 0..TIMEOUTS_PER_CALL {
            match self.holes.pop_due(now, &self.limits) {
                Some(Some(store)) => self.expire(store, now, &mut ears),
                Some(None) => {}
                None => return false,
            }
        }
        self.holes.next_due().is_some_and(|due| due <= now)
    }

    /// Skips the holes of one stream that are over age.
    fn expire<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        store: u32,
        now: Timestamp,
        ears: &mut Ears<'_, C, S>,
    ) {
        let Some((held, pool)) = self.holes.get(store) else { return };
        let place = self.places.get(held.owner.flow.0 as usize).and_then(|&n| n.checked_sub(1));
        let Some(pair) = place.and_then(|place| self.pairs.get_mut(place as usize)) else { return };
        let stream = &mut pair.streams[held.owner.end as usize];
        let mut teller = Teller::new(&held.owner, now, &mut self.book, ears);
        stream.expire(&mut held.segments, pool, now, &self.limits, &mut teller);
        self.holes.settle(store, stream, &self.limits);
    }

    /// A TCP segment of a flow, not a RST.
    fn segment<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        mut owner: Owner<K>,
        ack: Option<u32>,
        segment: &Segment<'_>,
        ears: &mut Ears<'_, C, S>,
    ) -> Verdict {
        let Some(place) = self.place_or_new(&owner) else { return Verdict::Keep };
        let Some(pair) = self.pairs.get_mut(place) else { return Verdict::Keep };
        owner.initiator_end = pair.initiator_end(owner.initiator_end);
        if let Some(ack) = ack {
            pair.streams[owner.end.other() as usize].acknowledged(ack, &self.limits);
        }
        // Ages are judged by the flow's own packets first, so that what is told does not depend
        // on when the timers are looked at.
        let waiting = [pair.streams[0].store, pair.streams[1].store];
        for store in waiting.into_iter().flatten() {
            if let Some((held, _)) = self.holes.get(store) {
                held.owner.initiator_end = owner.initiator_end;
                self.expire(store, segment.ts, ears);
            }
        }
        let Some(pair) = self.pairs.get_mut(place) else { return Verdict::Keep };
        let stream = &mut pair.streams[owner.end as usize];
        let mut teller = Teller::new(&owner, segment.ts, &mut self.book, ears);
        let Step::Store(piece) = stream.segment(segment, &self.limits, &mut teller) else {
            return Verdict::Keep;
        };
        let Some((store, segments, pool)) = self.holes.open(stream.store, owner) else {
            return Verdict::Keep;
        };
        let verdict = stream.stored(segment, piece, segments, pool, &self.limits, &mut teller);
        self.holes.settle(store, stream, &self.limits);
        verdict
    }

    /// Tells what is left of a flow's streams, the initiator's first, and forgets them.
    fn end<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        flow: FlowId,
        key: &K,
        stats: &FlowStats,
        ears: &mut Ears<'_, C, S>,
    ) {
        let Some(place) = self.places.get_mut(flow.0 as usize).map(std::mem::take) else { return };
        let Some(place) = place.checked_sub(1) else { return };
        let Some(pair) = self.pairs.get_mut(place as usize) else { return };
        let initiator_end = pair.initiator_end(stats.initiator_end);
        for end in [initiator_end, initiator_end.other()] {
            let stream = &mut pair.streams[end as usize];
            let owner = Owner { key: *key, flow, end, initiator_end };
            let mut teller = Teller::new(&owner, stats.last, &mut self.book, ears);
            match stream.store.and_then(|store| Some((store, self.holes.get(store)?))) {
                Some((store, (held, pool))) => {
                    stream.finish(Some((&mut held.segments, pool)), &mut teller);
                    self.holes.settle(store, stream, &self.limits);
                }
                None => stream.finish(None, &mut teller),
            }
        }
        self.free.push(place);
    }

    /// Where a flow's streams are.
    #[inline]
    fn place_or_new(&mut self, owner: &Owner<K>) -> Option<usize> {
        let slot = self.places.get_mut(owner.flow.0 as usize)?;
        if *slot == 0 {
            let fresh = Pair::new(owner.initiator_end);
            *slot = match self.free.pop() {
                Some(place) => {
                    *self.pairs.get_mut(place as usize)? = fresh;
                    place + 1
                }
                None => {
                    self.pairs.push(fresh);
                    u32::try_from(self.pairs.len()).ok()?
                }
            };
        }
        Some(*slot as usize - 1)
    }
}

impl<K: Copy, C: StreamSink<K>> FlowObserver<K> for Watching<'_, K, C> {
    const PREFETCHES: bool = true;

    #[inline]
    fn prefetch_far(&self, flow: FlowId) {
        if let Some(place) = self.reassembler.places.get(flow.0 as usize) {
            prefetch(place);
        }
    }

    #[inline]
    fn prefetch_near(&self, flow: FlowId) {
        let place = self.reassembler.places.get(flow.0 as usize).and_then(|&n| n.checked_sub(1));
        if let Some(pair) = place.and_then(|place| self.reassembler.pairs.get(place as usize)) {
            prefetch(&pair.streams);
            prefetch(&pair.initiator_end);
        }
    }

    #[inline]
    fn on_packet<S: EventSink<K>>(
        &mut self,
        flow: FlowId,
        initiator_end: End,
        packet: &Packet<K>,
        frame: Option<&Frame<'_>>,
        sink: &mut S,
        hooks: &mut Hooks,
    ) -> Verdict {
        let Some(tcp) = packet.tcp.filter(|_| packet.role == Role::Packet) else {
            return Verdict::Keep;
        };
        // What a RST carries is a message about it, not data (RFC 9293 section 3.5.2).
        if tcp.flags.has(TcpFlags::RST) {
            return Verdict::Keep;
        }
        let bytes = frame.map_or(&[][..], |frame| packet.payload.of(frame.data));
        let wire = packet.payload.wire.max(bytes.len() as u32);
        let segment = Segment {
            seq: tcp.seq,
            syn: tcp.flags.has(TcpFlags::SYN),
            fin: tcp.flags.has(TcpFlags::FIN),
            bytes,
            wire,
            ts: packet.ts,
        };
        let ack = tcp.flags.has(TcpFlags::ACK).then_some(tcp.ack);
        let owner = Owner { key: packet.key, flow, end: packet.end, initiator_end };
        let mut ears = Ears { consumer: &mut *self.consumer, sink, hooks };
        self.reassembler.segment(owner, ack, &segment, &mut ears)
    }

    fn on_end<S: EventSink<K>>(
        &mut self,
        flow: FlowId,
        key: &K,
        stats: &FlowStats,
        _: EndReason,
        sink: &mut S,
        hooks: &mut Hooks,
    ) {
        let mut ears = Ears { consumer: &mut *self.consumer, sink, hooks };
        self.reassembler.end(flow, key, stats, &mut ears);
    }
}
