//! Arbitrary segments, acknowledgements, pauses and ends of four flows in little memory: what is
//! told is consecutive, each byte is where its sequence number puts it, and the bounds hold.
//!
//! Input: configuration (1 byte), then operations of 6 bytes each; see `Operation`. A payload byte
//! is the low byte of its sequence number, so `byte - offset` is the same all along a stream.

#![no_main]

use std::time::Duration;

use flowscope::decode::{Payload, TcpHeader};
use flowscope::flow::packet::Role;
use flowscope::flow::{
    FlowId, FlowObserver, FlowStats, History, Packet, SideStats, Totals, Verdict,
};
use flowscope::frame::{Frame, LinkType};
use flowscope::net::{End, IpProto, Side, TcpFlags};
use flowscope::obs::Hooks;
use flowscope::reassembly::{OverflowPolicy, Reassembler, ReassemblyConfig, StreamSink};
use flowscope::{EndReason, FlowEvent, Timestamp};
use libfuzzer_sys::fuzz_target;

const FLOWS: usize = 4;
const LEN_MAX: usize = 255 * 32;

/// Byte `n` is `n` modulo 256.
static BYTES: [u8; 256 + LEN_MAX] = {
    let mut bytes = [0; 256 + LEN_MAX];
    let mut n = 0;
    while n < bytes.len() {
        bytes[n] = n as u8;
        n += 1;
    }
    bytes
};

/// A stream as its consumer knows it.
#[derive(Clone, Copy, Default)]
struct Heard {
    next: u64,
    /// `byte - offset`, once a byte was told.
    skew: Option<u8>,
    is_over: bool,
}

/// What the consumer knows, by flow and side.
#[derive(Default)]
struct Consumer {
    heard: [[Heard; 2]; FLOWS],
    told: u64,
}

impl Consumer {
    fn at(&mut self, flow: FlowId, side: Side, offset: u64, len: u64) -> &mut Heard {
        let heard = &mut self.heard[flow.0 as usize][side as usize];
        assert!(!heard.is_over, "told after the end");
        assert_eq!(heard.next, offset, "told out of order");
        assert!(len > 0, "told nothing");
        heard.next += len;
        self.told += len;
        heard
    }
}

impl StreamSink<u8> for Consumer {
    fn data(&mut self, _: &u8, flow: FlowId, side: Side, offset: u64, bytes: &[u8]) {
        let heard = self.at(flow, side, offset, bytes.len() as u64);
        let skew = *heard.skew.get_or_insert(bytes[0].wrapping_sub(offset as u8));
        let expected = (offset as u8).wrapping_add(skew);
        assert_eq!(
            *bytes,
            BYTES[usize::from(expected)..][..bytes.len()],
            "told in the wrong place"
        );
    }

    fn gap(&mut self, _: &u8, flow: FlowId, side: Side, offset: u64, len: u64) {
        self.at(flow, side, offset, len);
    }

    fn end(&mut self, _: &u8, flow: FlowId, side: Side, offset: u64) {
        let heard = &mut self.heard[flow.0 as usize][side as usize];
        assert!(!heard.is_over, "ended twice");
        assert_eq!(heard.next, offset, "ended elsewhere");
        heard.is_over = true;
    }
}

/// Six bytes: what, which flow and flags, a 16-bit distance, a length, and how to scale them.
struct Operation<'a>(&'a [u8; 6]);

impl Operation<'_> {
    fn kind(&self) -> u8 {
        self.0[0] & 7
    }

    fn flow(&self) -> u32 {
        u32::from(self.0[0] >> 3) % FLOWS as u32
    }

    fn end(&self) -> End {
        if self.0[0] & 0x20 == 0 { End::A } else { End::B }
    }

    fn initiator_end(&self) -> End {
        if self.0[0] & 0x40 == 0 { End::A } else { End::B }
    }

    fn flags(&self) -> TcpFlags {
        TcpFlags(self.0[1])
    }

    /// From near the start of the sequence space, which is just below the wrap, to all over it.
    fn seq(&self) -> u32 {
        let distance = u32::from(u16::from_be_bytes([self.0[2], self.0[3]]));
        let scale = [1, 1, 1, 1, 257, 1 << 10, 1 << 14, 1 << 16][usize::from(self.0[5] & 7)];
        0xffff_e000_u32.wrapping_add(distance.wrapping_mul(scale))
    }

    fn len(&self) -> u32 {
        u32::from(self.0[4]) << [0, 3, 4, 5][usize::from(self.0[5] >> 3 & 3)]
    }

    /// How much of it was captured.
    fn captured(&self) -> u32 {
        self.len() >> [0, 0, 0, 0, 0, 1, 4, 16][usize::from(self.0[5] >> 5)]
    }
}

fn config(choice: u8) -> ReassemblyConfig {
    let side_bytes_max = [2048, 4096, 16 << 10, 1 << 20][usize::from(choice & 3)];
    ReassemblyConfig {
        side_bytes_max,
        total_bytes_max: side_bytes_max * [1, 2][usize::from(choice >> 2 & 1)],
        window_bytes: [1 << 16, 1 << 24][usize::from(choice >> 3 & 1)],
        overflow: [OverflowPolicy::SlidingWindow, OverflowPolicy::DropFlow]
            [usize::from(choice >> 4 & 1)],
        gap_timeout: Duration::from_millis(300),
        acked_gap_timeout: Duration::from_millis(20),
    }
}

struct Run {
    reassembler: Reassembler<u8>,
    consumer: Consumer,
    hooks: Hooks,
    now: Timestamp,
    total_bytes_max: usize,
}

impl Run {
    fn segment(&mut self, operation: &Operation<'_>) {
        let flags = operation.flags();
        let seq = operation.seq();
        let offset = u32::from(seq.wrapping_add(u32::from(flags.has(TcpFlags::SYN))) as u8);
        let captured = operation.captured();
        let packet = Packet {
            key: operation.flow() as u8,
            hash: 0,
            ts: self.now,
            clock: self.now,
            wire_bytes: 0,
            frames: 1,
            end: operation.end(),
            role: Role::Packet,
            proto: IpProto::TCP,
            vlan: 0,
            is_reply: false,
            tcp: Some(TcpHeader {
                src: 0,
                dst: 0,
                seq,
                ack: seq.rotate_right(3),
                flags,
                window: 0,
                header_len: 20,
                window_scale: None,
            }),
            payload: Payload { offset, captured, wire: operation.len() },
            frame: 0,
        };
        let frame = Frame {
            ts: self.now,
            wire_len: 0,
            link: LinkType::ETHERNET,
            interface: 0,
            data: &BYTES,
        };
        let Self { reassembler, consumer, hooks, .. } = self;
        let flow = FlowId(operation.flow());
        let verdict = reassembler.watching(consumer).on_packet(
            flow,
            operation.initiator_end(),
            &packet,
            Some(&frame),
            &mut |_: FlowEvent<u8>| {},
            hooks,
        );
        if verdict == Verdict::Drop {
            self.end_flow(flow);
        }
    }

    fn end_flow(&mut self, flow: FlowId) {
        let stats = FlowStats {
            first: self.now,
            last: self.now,
            initiator_end: End::A,
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
        let Self { reassembler, consumer, hooks, .. } = self;
        let sink = &mut |_: FlowEvent<u8>| {};
        let reason = EndReason::Drained;
        reassembler.watching(consumer).on_end(flow, &(flow.0 as u8), &stats, reason, sink, hooks);
        for heard in &mut self.consumer.heard[flow.0 as usize] {
            assert!(heard.is_over || heard.next == 0, "no end");
            *heard = Heard::default();
        }
    }

    fn tick(&mut self) {
        let Self { reassembler, consumer, hooks, now, .. } = self;
        while reassembler.handle_timeout(*now, consumer, &mut |_: FlowEvent<u8>| {}, hooks) {}
        assert!(reassembler.poll_timeout().is_none_or(|due| due > *now), "something is overdue");
    }

    fn check(&self) {
        let reassembler = &self.reassembler;
        assert!(reassembler.held_bytes() <= self.total_bytes_max, "too much is held");
        assert_eq!(reassembler.held_bytes() == 0, reassembler.streams_waiting() == 0);
        let told: u64 = Side::BOTH
            .iter()
            .map(|side| reassembler.counters().side(*side))
            .map(|side| side.delivered_bytes + side.gap_bytes + side.cut_bytes)
            .sum();
        assert_eq!(told, self.consumer.told, "counted something else than told");
    }
}

fuzz_target!(|input: &[u8]| {
    let [choice, operations @ ..] = input else { return };
    let config = config(*choice);
    let mut reassembler = Reassembler::new(FLOWS, &config).expect("a valid configuration");
    reassembler.set_emit_anomalies(choice >> 5 & 1 == 1);
    let mut run = Run {
        reassembler,
        consumer: Consumer::default(),
        hooks: Hooks::default(),
        now: Timestamp::new(1, 0),
        total_bytes_max: config.total_bytes_max,
    };
    for operation in operations.as_chunks::<6>().0 {
        let operation = Operation(operation);
        match operation.kind() {
            0..=4 => run.segment(&operation),
            5 => run.now = run.now.plus_nanos(u64::from(operation.0[1]) * 2_000_000),
            6 => run.tick(),
            _ => run.end_flow(FlowId(operation.flow())),
        }
        run.check();
    }
    for flow in 0..FLOWS as u32 {
        run.end_flow(FlowId(flow));
    }
    run.check();
    assert_eq!((run.reassembler.flows(), run.reassembler.held_bytes()), (0, 0), "left over");
});
