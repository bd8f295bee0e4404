//! A reassembler on a bench: segments in by hand, what is told kept.

mod random;
mod semantics;

use std::time::Duration;

use super::*;
use crate::decode::{Payload, TcpHeader};
use crate::event::{AnomalyKind, EndReason, EventLog, FlowEvent};
use crate::flow::observer::{FlowObserver, Verdict};
use crate::flow::packet::{Packet, Role};
use crate::flow::{FlowStats, History, SideStats, Totals};
use crate::frame::{Frame, LinkType};
use crate::net::{End, IpProto, TcpFlags};
use crate::obs::Hooks;
use crate::time::Timestamp;

const FIN: TcpFlags = TcpFlags::FIN;
const SYN: TcpFlags = TcpFlags::SYN;
const RST: TcpFlags = TcpFlags::RST;
const ACK: TcpFlags = TcpFlags::ACK;
const NONE: TcpFlags = TcpFlags(0);

const MS: u64 = 1_000_000;

/// What a consumer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Data(u64, Vec<u8>),
    Gap(u64, u64),
    End(u64),
}

#[derive(Debug, Default)]
struct Log(Vec<(u32, Side, Told)>);

impl StreamSink<u32> for Log {
    fn data(&mut self, _: &u32, flow: FlowId, side: Side, offset: u64, bytes: &[u8]) {
        self.0.push((flow.0, side, Told::Data(offset, bytes.to_vec())));
    }

    fn gap(&mut self, _: &u32, flow: FlowId, side: Side, offset: u64, len: u64) {
        self.0.push((flow.0, side, Told::Gap(offset, len)));
    }

    fn end(&mut self, _: &u32, flow: FlowId, side: Side, offset: u64) {
        self.0.push((flow.0, side, Told::End(offset)));
    }
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug)]
struct Seg<'a> {
    flow: u32,
    end: End,
    seq: u32,
    ack: Option<u32>,
    flags: TcpFlags,
    bytes: &'a [u8],
    cut: u32,
}

fn seg(seq: u32, bytes: &[u8]) -> Seg<'_> {
    Seg { flow: 0, end: End::A, seq, ack: None, flags: NONE, bytes, cut: 0 }
}

impl Seg<'_> {
    fn with(self, flags: TcpFlags) -> Self {
        Self { flags: self.flags.union(flags), ..self }
    }

    fn from(self, end: End) -> Self {
        Self { end, ..self }
    }

    fn of(self, flow: u32) -> Self {
        Self { flow, ..self }
    }

    fn ack(self, ack: u32) -> Self {
        Self { ack: Some(ack), ..self }
    }

    fn cut(self, cut: u32) -> Self {
        Self { cut, ..self }
    }
}

struct Bench {
    reassembler: Reassembler<u32>,
    log: Log,
    events: EventLog<u32>,
    hooks: Hooks,
    now: Timestamp,
    initiator_end: End,
}

impl Bench {
    fn new(config: ReassemblyConfig) -> Self {
        let mut reassembler = Reassembler::new(16, &config).unwrap();
        reassembler.set_emit_anomalies(true);
        Self {
            reassembler,
            log: Log::default(),
            events: EventLog::default(),
            hooks: Hooks::default(),
            now: Timestamp::from_nanos(1_000_000_000),
            initiator_end: End::A,
        }
    }

    fn wait(&mut self, ms: u64) -> &mut Self {
        self.now = self.now.plus_nanos(ms * MS);
        self
    }

    fn tick(&mut self) -> bool {
        let Self { reassembler, log, events, hooks, .. } = self;
        reassembler.handle_timeout(self.now, log, events, hooks)
    }

    fn send(&mut self, seg: Seg<'_>) -> Verdict {
        // A frame with a header's worth of other bytes before the payload.
        let mut data = vec![0xee; 7];
        data.extend_from_slice(seg.bytes);
        let captured = seg.bytes.len() as u32;
        let flags = if seg.ack.is_some() { seg.flags.union(ACK) } else { seg.flags };
        let packet = Packet {
            key: 1000 + seg.flow,
            hash: 0,
            ts: self.now,
            clock: self.now,
            wire_bytes: 0,
            frames: 1,
            end: seg.end,
            role: Role::Packet,
            proto: IpProto::TCP,
            vlan: 0,
            is_reply: false,
            tcp: Some(TcpHeader {
                src: 1,
                dst: 2,
                seq: seg.seq,
                ack: seg.ack.unwrap_or(0),
                flags,
                window: 65535,
                header_len: 20,
                window_scale: None,
            }),
            payload: Payload { offset: 7, captured, wire: captured + seg.cut },
            frame: 0,
        };
        let frame = Frame {
            ts: self.now,
            wire_len: data.len() as u32 + seg.cut,
            link: LinkType::ETHERNET,
            interface: 0,
            data: &data,
        };
        let Self { reassembler, log, events, hooks, .. } = self;
        let flow = FlowId(seg.flow);
        let mut watching = reassembler.watching(log);
        watching.on_packet(flow, self.initiator_end, &packet, Some(&frame), events, hooks)
    }

    fn end_flow(&mut self, flow: u32) {
        let stats = FlowStats {
            first: self.now,
            last: self.now,
            initiator_end: self.initiator_end,
            initiator: SideStats::default(),
            responder: SideStats::default(),
            proto: IpProto::TCP,
            vlan: None,
            tcp_state: None,
            midstream: false,
            history: History::default(),
            icmp_errors: 0,
            reply_first: false,
            reported: Totals::default(),
            updates: 0,
        };
        let Self { reassembler, log, events, hooks, .. } = self;
        let key = 1000 + flow;
        let reason = EndReason::Drained;
        reassembler.watching(log).on_end(FlowId(flow), &key, &stats, reason, events, hooks);
    }

    /// What was told of a side since the last time, consecutive data joined.
    fn told(&mut self, flow: u32, side: Side) -> Vec<Told> {
        let mut told: Vec<Told> = Vec::new();
        let (mine, others) = self.log.0.drain(..).partition(|(f, s, _)| (*f, *s) == (flow, side));
        self.log.0 = others;
        let mine: Vec<_> = mine;
        for (_, _, next) in mine {
            match (told.last_mut(), &next) {
                (Some(Told::Data(_, bytes)), Told::Data(_, more)) => bytes.extend_from_slice(more),
                _ => told.push(next),
            }
        }
        told
    }

    fn initiator(&mut self) -> Vec<Told> {
        self.told(0, Side::Initiator)
    }

    fn anomalies(&mut self) -> Vec<AnomalyKind> {
        let kinds = self.events.0.drain(..).filter_map(|event| match event {
            FlowEvent::Anomaly { kind, .. } => Some(kind),
            _ => None,
        });
        kinds.collect()
    }

    fn counters(&self) -> SideCounters {
        *self.reassembler.counters().side(Side::Initiator)
    }
}

fn data(offset: u64, bytes: &[u8]) -> Told {
    Told::Data(offset, bytes.to_vec())
}

fn config() -> ReassemblyConfig {
    ReassemblyConfig::default()
}

/// Two blocks a side.
fn small() -> ReassemblyConfig {
    ReassemblyConfig { side_bytes_max: 4096, total_bytes_max: 8192, ..config() }
}
