//! [`Reassembler`]: the streams of every TCP flow of a tracker.

use super::StreamSink;
use super::config::{OverflowPolicy, ReassemblyConfig, ReassemblyConfigError};
use super::counters::ReassemblyCounters;
use super::holes::{Holes, Owner};
use super::segments::Piece;
use super::stream::{Limits, Segment, Step, Stream};
use super::tell::{Book, Ears, Teller};
use crate::decode::TcpHeader;
use crate::event::{EndReason, EventSink};
use crate::flow::by_slot::BySlot;
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
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Pair {
    /// By the [`End`] that sends them: who opened the conversation may be found out late, who
    /// sends may not.
    streams: [Stream; 2],
    /// Who is told as the initiator: the latest opinion when the first byte is told, and that one
    /// ever after, because a consumer takes a flow and a side for one stream. `None` for a flow without streams.
    initiator_end: Option<End>,
}

impl Pair {
    /// Takes an opinion of who opened the conversation; returns the one that holds.
    #[inline]
    fn initiator_end(&mut self, opinion: End) -> End {
        match self.initiator_end {
            Some(initiator_end) if self.streams.iter().any(Stream::has_told) => initiator_end,
            _ => *self.initiator_end.insert(opinion),
        }
    }
}

/// The streams of a tracker's flows.
///
/// Watches a tracker by way of [`watching`](Self::watching), or is told by a
/// [`FlowDriver`](crate::FlowDriver). The same reassembler must see every packet and every end of
/// the flows of one tracker.
#[derive(Debug)]
pub struct Reassembler<K> {
    pairs: BySlot<Pair>,
    /// Flows that have streams.
    flows: usize,
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
    /// For a tracker of `max_flows`. Takes its memory as streams come.
    pub fn new(max_flows: usize, config: &ReassemblyConfig) -> Result<Self, ReassemblyConfigError> {
        config.validate()?;
        Ok(Self {
            pairs: BySlot::new(max_flows),
            flows: 0,
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
        self.flows
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
        let Some(pair) = self.pairs.get_mut(held.owner.flow.0) else { return };
        let stream = &mut pair.streams[held.owner.end as usize];
        let owner = held.owner.by_ref();
        let mut teller = Teller::new(&owner, now, &mut self.book, ears);
        stream.expire(&mut held.segments, pool, now, &self.limits, &mut teller);
        self.holes.settle(store, stream, &self.limits);
    }

    /// The segment that everything is made for: neither SYN nor FIN, of streams that are open and have no hole, and what it carries is
    /// the next of its stream. `false`: it is of another kind, and nothing was changed.
    #[inline(always)]
    fn common<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        flow: FlowId,
        initiator_end: End,
        packet: &Packet<K>,
        tcp: &TcpHeader,
        bytes: &[u8],
        ears: &mut Ears<'_, C, S>,
    ) -> bool {
        let Some(pair) = self.pairs.get_mut(flow.0) else { return false };
        let wire = packet.payload.wire;
        let [a, b] = &mut pair.streams;
        let (stream, other) = match packet.end {
            End::A => (a, b),
            End::B => (b, a),
        };
        let is_common = stream.is_plain()
            & other.store.is_none()
            & tcp.is_plain()
            & (bytes.len() == wire as usize)
            & (stream.is_next(tcp.seq) | (wire == 0));
        if !is_common {
            return false;
        }
        other.acknowledged(tcp.ack, &self.limits);
        if wire != 0 {
            let initiator_end = pair.initiator_end(initiator_end);
            let owner = Owner { key: &packet.key, flow, end: packet.end, initiator_end };
            let mut teller = Teller::new(&owner, packet.ts, &mut self.book, ears);
            pair.streams[packet.end as usize].take_next(bytes, &mut teller);
        }
        true
    }

    /// Any TCP segment of a flow, not a RST.
    #[inline(never)]
    fn segment<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        mut owner: Owner<&K>,
        packet: &Packet<K>,
        tcp: &TcpHeader,
        bytes: &[u8],
        ears: &mut Ears<'_, C, S>,
    ) -> Verdict {
        let ack = tcp.flags.has(TcpFlags::ACK).then_some(tcp.ack);
        let segment = &Segment {
            seq: tcp.seq,
            syn: tcp.flags.has(TcpFlags::SYN),
            fin: tcp.flags.has(TcpFlags::FIN),
            bytes,
            wire: packet.payload.wire.max(bytes.len() as u32),
            ts: packet.ts,
        };
        let flow = owner.flow.0;
        let Some(pair) = self.pairs.edit(flow) else { return Verdict::Keep };
        self.flows += usize::from(pair.initiator_end.is_none());
        owner.initiator_end = pair.initiator_end(owner.initiator_end);
        if let Some(ack) = ack {
            pair.streams[owner.end.other() as usize].acknowledged(ack, &self.limits);
        }
        if pair.streams.iter().any(|stream| stream.store.is_some()) {
            self.expire_waiting(&owner, segment.ts, ears);
        }
        let Some(pair) = self.pairs.get_mut(flow) else { return Verdict::Keep };
        let stream = &mut pair.streams[owner.end as usize];
        let mut teller = Teller::new(&owner, segment.ts, &mut self.book, ears);
        let Step::Store(piece) = stream.segment(segment, &self.limits, &mut teller) else {
            return Verdict::Keep;
        };
        self.stored(&owner, piece, segment, ears)
    }

    /// Ages are judged by the flow's own packets first, so that what is told does not depend on when the timers are looked at.
    #[inline(never)]
    fn expire_waiting<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        owner: &Owner<&K>,
        now: Timestamp,
        ears: &mut Ears<'_, C, S>,
    ) {
        let Some(pair) = self.pairs.get(owner.flow.0) else { return };
        let waiting = [pair.streams[0].store, pair.streams[1].store];
        for store in waiting.into_iter().flatten() {
            if let Some((held, _)) = self.holes.get(store) {
                held.owner.initiator_end = owner.initiator_end;
                self.expire(store, now, ears);
            }
        }
    }

    /// What is left to do with a segment of a stream that has a hole.
    #[inline(never)]
    fn stored<C: StreamSink<K>, S: EventSink<K>>(
        &mut self,
        owner: &Owner<&K>,
        piece: Piece<'_>,
        segment: &Segment<'_>,
        ears: &mut Ears<'_, C, S>,
    ) -> Verdict {
        let Some(pair) = self.pairs.get_mut(owner.flow.0) else { return Verdict::Keep };
        let stream = &mut pair.streams[owner.end as usize];
        let Some((store, segments, pool)) = self.holes.open(stream.store, *owner) else {
            return Verdict::Keep;
        };
        let mut teller = Teller::new(owner, segment.ts, &mut self.book, ears);
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
        let Some(pair) = self.pairs.get_mut(flow.0) else { return };
        if pair.initiator_end.is_none() {
            return;
        }
        let initiator_end = pair.initiator_end(stats.initiator_end);
        for end in [initiator_end, initiator_end.other()] {
            let stream = &mut pair.streams[end as usize];
            let owner = Owner { key, flow, end, initiator_end };
            let mut teller = Teller::new(&owner, stats.last, &mut self.book, ears);
            match stream.store.and_then(|store| Some((store, self.holes.get(store)?))) {
                Some((store, (held, pool))) => {
                    stream.finish(Some((&mut held.segments, pool)), &mut teller);
                    self.holes.settle(store, stream, &self.limits);
                }
                None => stream.finish(None, &mut teller),
            }
        }
        *pair = Pair::default();
        self.flows -= 1;
    }
}

impl<K: Copy, C: StreamSink<K>> FlowObserver<K> for Watching<'_, K, C> {
    #[inline]
    fn prefetch(&self, flow: FlowId) {
        if let Some(pair) = self.reassembler.pairs.get(flow.0) {
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
        let Some(tcp) = packet.tcp.as_ref().filter(|_| packet.role == Role::Packet) else {
            return Verdict::Keep;
        };
        // What a RST carries is a message about it, not data (RFC 9293 section 3.5.2).
        if tcp.flags.has(TcpFlags::RST) {
            return Verdict::Keep;
        }
        let bytes = frame.map_or(&[][..], |frame| packet.payload.of(frame.data));
        let mut ears = Ears { consumer: &mut *self.consumer, sink, hooks };
        if !self.reassembler.common(flow, initiator_end, packet, tcp, bytes, &mut ears) {
            let owner = Owner { key: &packet.key, flow, end: packet.end, initiator_end };
            return self.reassembler.segment(owner, packet, tcp, bytes, &mut ears);
        }
        Verdict::Keep
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
