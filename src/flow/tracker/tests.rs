//! A tracker's behaviour, told as conversations.

mod merging;

use std::time::Duration;

use super::*;
use crate::event::{AnomalyKind, EventLog, FlowEvent};
use crate::flow::{ByFiveTuple, FlowKey, IdleTimeouts, TcpState};
use crate::frame::LinkType;
use crate::net::{End, TcpFlags};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = SYN | ACK;
const FIN: u8 = 0x11;
const RST: u8 = 0x04;
const RST_ACK: u8 = RST | ACK;
const PSH: u8 = 0x18;

/// Who speaks: the client 10.0.0.2:40000, or the server 10.0.0.1:80 (the lower end of the key).
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Client,
    Server,
}
use Who::{Client, Server};

/// A conversation with one tracker; each line is one segment, a millisecond after the last.
struct Talk {
    tracker: FlowTracker<ByFiveTuple>,
    log: EventLog<FlowKey>,
    now: Timestamp,
    port: u16,
    /// Packets that did not come by the ingest.
    merged: u64,
}

const MS: u64 = 1_000_000;

impl Talk {
    fn new() -> Self {
        Self::with(TrackerConfig { max_flows: 16, ..TrackerConfig::default() })
    }

    fn with(config: TrackerConfig) -> Self {
        let tracker = FlowTracker::new(ByFiveTuple::default(), config).expect("valid");
        Self {
            tracker,
            log: EventLog::default(),
            now: Timestamp::new(1_700_000_000, 0),
            port: 40000,
            merged: 0,
        }
    }

    fn frame(&mut self, data: &[u8]) {
        self.now = self.now.plus_nanos(MS);
        let frame = Frame {
            ts: self.now,
            wire_len: data.len() as u32,
            link: LinkType::ETHERNET,
            interface: 0,
            data,
        };
        self.tracker.process(&[frame], &mut self.log);
    }

    fn tcp(&mut self, who: Who, flags: u8, seq: u32, ack: u32, len: usize) {
        self.tcp_window(who, flags, seq, ack, len, 1000);
    }

    fn tcp_window(&mut self, who: Who, flags: u8, seq: u32, ack: u32, len: usize, window: u16) {
        let (src, dst, sport, dport) = match who {
            Client => ([10, 0, 0, 2], [10, 0, 0, 1], self.port, 80),
            Server => ([10, 0, 0, 1], [10, 0, 0, 2], 80, self.port),
        };
        let mut header = etherparse::TcpHeader::new(sport, dport, seq, window);
        header.acknowledgment_number = ack;
        (header.fin, header.syn, header.rst, header.psh, header.ack) =
            (flags & 1 != 0, flags & SYN != 0, flags & RST != 0, flags & 8 != 0, flags & ACK != 0);
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(src, dst, 64)
            .tcp_header(header);
        let mut data = Vec::new();
        builder.write(&mut data, &vec![b'x'; len]).expect("written to memory");
        self.frame(&data);
    }

    fn udp(&mut self, who: Who, port: u16, len: usize) {
        let (src, dst, sport, dport) = match who {
            Client => ([10, 0, 0, 2], [10, 0, 0, 1], port, 53),
            Server => ([10, 0, 0, 1], [10, 0, 0, 2], 53, port),
        };
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(src, dst, 64)
            .udp(sport, dport);
        let mut data = Vec::new();
        builder.write(&mut data, &vec![0; len]).expect("written to memory");
        self.frame(&data);
    }

    fn handshake(&mut self) {
        self.tcp(Client, SYN, 100, 0, 0);
        self.tcp(Server, SYN_ACK, 500, 101, 0);
        self.tcp(Client, ACK, 101, 501, 0);
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now.plus_nanos(secs * 1000 * MS);
        while self.tracker.handle_timeout(self.now, &mut self.log) {}
    }

    fn state(&self) -> TcpState {
        let (_, stats) = self.tracker.iter().next().expect("a live flow");
        stats.tcp_state.expect("TCP")
    }

    /// Drains, and gives reason and statistics of every flow that ended, in order.
    fn ended(&mut self) -> Vec<(EndReason, FlowStats)> {
        self.tracker.drain(&mut self.log);
        self.check_ledger();
        self.log
            .0
            .iter()
            .filter_map(|event| match event {
                FlowEvent::Ended { reason, stats, .. } => Some((*reason, *stats)),
                _ => None,
            })
            .collect()
    }

    fn only(&mut self) -> (EndReason, FlowStats) {
        let ended = self.ended();
        assert_eq!(ended.len(), 1, "one flow: {ended:#?}");
        ended[0]
    }

    fn check_ledger(&self) {
        let (ingest, flows) = (self.tracker.ingest_counters(), self.tracker.counters());
        assert_eq!(ingest.frames, ingest.unmatched + ingest.held + ingest.packets);
        assert_eq!(ingest.packets + self.merged, flows.packets);
        assert_eq!(flows.packets, flows.packets_ended, "all have ended");
        assert_eq!(flows.created, flows.ended.iter().sum::<u64>());
    }

    fn anomalies(&self) -> Vec<AnomalyKind> {
        self.log
            .0
            .iter()
            .filter_map(|event| match event {
                FlowEvent::Anomaly { kind, .. } => Some(*kind),
                _ => None,
            })
            .collect()
    }

    fn established(&self) -> usize {
        self.log.0.iter().filter(|event| matches!(event, FlowEvent::Established { .. })).count()
    }
}

#[test]
fn an_ordinary_connection_ends_as_fin_with_its_history() {
    let mut talk = Talk::new();
    talk.handshake();
    assert_eq!(talk.established(), 1);
    talk.tcp(Client, PSH, 101, 501, 10);
    talk.tcp(Server, PSH, 501, 111, 20);
    talk.tcp(Client, FIN, 111, 521, 0);
    assert_eq!(talk.state(), TcpState::FinWait1);
    talk.tcp(Server, FIN, 521, 112, 0);
    assert_eq!(talk.state(), TcpState::LastAck);
    talk.tcp(Client, ACK, 112, 522, 0);
    assert_eq!(talk.state(), TcpState::TimeWait);
    let (reason, stats) = talk.only();
    assert_eq!(reason, EndReason::Fin);
    assert_eq!(stats.history.to_string(), "ShADdFf");
    assert_eq!((stats.initiator.packets, stats.responder.packets), (5, 3));
    assert_eq!(stats.initiator_end, End::B, "10.0.0.2 is the upper end");
    assert_eq!(stats.initiator.tcp_flags.to_string(), "APSF");
    assert!(!stats.midstream);
}

#[test]
fn a_syn_ack_seen_before_the_syn_does_not_turn_the_flow_round() {
    let mut talk = Talk::new();
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Client, ACK, 101, 501, 0);
    assert_eq!(talk.state(), TcpState::Established);
    assert_eq!(talk.established(), 1);
    let (_, stats) = talk.only();
    assert_eq!(stats.initiator_end, End::B);
    assert_eq!((stats.initiator.packets, stats.responder.packets), (2, 1));
    assert_eq!(stats.history.to_string(), "hSA");
}

#[test]
fn data_that_overtook_the_syn_is_the_same_connection() {
    let mut talk = Talk::new();
    talk.tcp(Server, PSH, 501, 101, 10);
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    let (_, stats) = talk.only();
    assert_eq!(stats.initiator_end, End::B, "the client opened");
    assert!(!stats.midstream);
    assert_eq!(stats.history.to_string(), "d^Sh");
}

#[test]
fn a_connection_picked_up_in_mid_stream_closes_like_any_other() {
    let mut talk = Talk::new();
    talk.tcp(Server, PSH, 9000, 700, 100);
    talk.tcp(Client, ACK, 700, 9100, 0);
    talk.tcp(Client, FIN, 700, 9100, 0);
    talk.tcp(Server, FIN, 9100, 701, 0);
    talk.tcp(Client, ACK, 701, 9101, 0);
    assert_eq!(talk.state(), TcpState::TimeWait);
    let (reason, stats) = talk.only();
    assert_eq!(reason, EndReason::Fin);
    assert!(stats.midstream);
    assert_eq!(stats.initiator_end, End::A, "seen first");
    assert_eq!(talk.established(), 0, "no handshake was seen");
}

#[test]
fn a_simultaneous_open_is_one_connection() {
    let mut talk = Talk::new();
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, SYN, 500, 0, 0);
    assert_eq!(talk.state(), TcpState::SynReceived);
    talk.tcp(Client, SYN_ACK, 100, 501, 0);
    assert_eq!(talk.established(), 0);
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    assert_eq!(talk.state(), TcpState::Established);
    assert_eq!(talk.established(), 1);
    let (_, stats) = talk.only();
    assert_eq!(stats.initiator_end, End::B);
}

#[test]
fn a_simultaneous_close_ends_as_fin() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Client, FIN, 101, 501, 0);
    talk.tcp(Server, FIN, 501, 101, 0);
    assert_eq!(talk.state(), TcpState::Closing);
    talk.tcp(Client, ACK, 102, 502, 0);
    assert_eq!(talk.state(), TcpState::LastAck);
    talk.tcp(Server, ACK, 502, 102, 0);
    assert_eq!(talk.state(), TcpState::TimeWait);
    assert_eq!(talk.only().0, EndReason::Fin);
}

#[test]
fn both_fins_with_the_last_ack_lost_end_soon_and_as_fin() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Client, FIN, 101, 501, 0);
    talk.tcp(Server, FIN, 501, 102, 0);
    talk.wait(6);
    assert!(talk.tracker.is_empty(), "the closing timeout is short");
    assert_eq!(talk.only().0, EndReason::Fin);
}

#[test]
fn stragglers_after_the_close_make_no_ghost_flow() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Client, PSH, 101, 501, 10);
    talk.tcp(Client, FIN, 111, 501, 0);
    talk.tcp(Server, FIN, 501, 112, 0);
    talk.tcp(Client, ACK, 112, 502, 0);
    // Late ACK, repeated FIN, repeated data, late RST.
    talk.tcp(Server, ACK, 501, 111, 0);
    talk.tcp(Server, FIN, 501, 112, 0);
    talk.tcp(Client, PSH, 101, 501, 10);
    talk.tcp(Server, RST, 502, 0, 0);
    assert_eq!(talk.tracker.len(), 1);
    let (reason, stats) = talk.only();
    assert_eq!(reason, EndReason::Fin);
    assert_eq!(stats.packets(), 11);
    assert_eq!(stats.initiator.retransmitted, 1);
    assert_eq!(stats.responder.retransmitted, 1, "the FIN");
}

#[test]
fn a_syn_that_comes_after_the_whole_connection_belongs_to_it() {
    let mut talk = Talk::new();
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    talk.tcp(Client, PSH, 101, 501, 39);
    talk.tcp(Client, FIN, 140, 501, 0);
    talk.tcp(Server, FIN, 501, 141, 0);
    talk.tcp(Client, ACK, 141, 502, 0);
    talk.tcp(Client, SYN, 100, 0, 0);
    let (reason, stats) = talk.only();
    assert_eq!(reason, EndReason::Fin);
    assert_eq!(stats.packets(), 6);
}

#[test]
fn a_stray_syn_ack_neither_opens_nor_disturbs() {
    let mut talk = Talk::new();
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    talk.tcp(Client, SYN_ACK, 77_777, 101, 0);
    talk.tcp(Client, ACK, 101, 501, 0);
    assert_eq!(talk.state(), TcpState::Established);
    let (_, stats) = talk.only();
    assert_eq!(stats.packets(), 4);
    assert_eq!(stats.initiator.retransmitted, 0);
}

#[test]
fn at_the_end_of_time_no_record_is_due_at_every_packet() {
    let mut talk = Talk::new();
    talk.now = Timestamp::MAX;
    for _ in 0..5 {
        talk.udp(Client, 1, 10);
    }
    assert_eq!(talk.tracker.counters().updates, 0);
    assert_eq!(talk.only().1.packets(), 5);
}

#[test]
fn three_rsts_are_one_flow() {
    let mut talk = Talk::new();
    for _ in 0..3 {
        talk.tcp(Server, RST, 500, 0, 0);
    }
    let (reason, stats) = talk.only();
    assert_eq!(reason, EndReason::Rst);
    assert_eq!(stats.packets(), 3);
}

#[test]
fn a_new_syn_on_a_live_tuple_ends_the_old_flow() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Client, SYN, 7_000_000, 0, 0);
    talk.tcp(Server, SYN_ACK, 8_000_000, 7_000_001, 0);
    let ended = talk.ended();
    assert_eq!(ended.len(), 2);
    assert_eq!(ended[0].0, EndReason::Superseded);
    assert_eq!(ended[0].1.packets(), 3);
    assert_eq!(ended[1].1.packets(), 2);
    assert_eq!(ended[1].1.history.to_string(), "Sh");
}

#[test]
fn a_new_syn_on_a_closed_tuple_ends_the_old_flow_as_it_closed() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Client, FIN, 101, 501, 0);
    talk.tcp(Server, FIN, 501, 102, 0);
    talk.tcp(Client, ACK, 102, 502, 0);
    talk.tcp(Client, SYN, 900, 0, 0);
    assert_eq!(talk.tracker.len(), 1);
    let ended = talk.ended();
    assert_eq!(ended[0].0, EndReason::Fin);
    assert_eq!(ended[0].1.packets(), 6);
    assert_eq!(ended[1].1.packets(), 1);
}

#[test]
fn a_repeated_syn_is_a_retransmission_not_a_new_flow() {
    let mut talk = Talk::new();
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    talk.tcp(Client, ACK, 101, 501, 0);
    talk.tcp(Client, SYN, 100, 0, 0);
    let (_, stats) = talk.only();
    assert_eq!(stats.initiator.retransmitted, 3);
    assert_eq!(stats.responder.retransmitted, 1);
}

#[test]
fn a_rst_outside_the_window_is_counted_and_not_believed() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Server, RST, 501 + 5000, 0, 0);
    assert_eq!(talk.state(), TcpState::Established);
    assert_eq!(talk.tracker.counters().rst_out_of_window, 1);
    assert!(matches!(talk.anomalies()[..], [AnomalyKind::RstOutOfWindow { seq: 5501, .. }]));
    talk.tcp(Server, RST, 501 + 999, 0, 0);
    assert_eq!(talk.state(), TcpState::Closed, "the client's window is 1 000 bytes");
    let (reason, stats) = talk.only();
    assert_eq!(reason, EndReason::Rst);
    assert_eq!(stats.responder.packets, 3, "both RSTs are packets of the flow");
}

#[test]
fn scans_end_as_what_was_seen_of_them() {
    // Refused.
    let mut talk = Talk::new();
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, RST_ACK, 0, 101, 0);
    let (reason, stats) = talk.only();
    assert_eq!((reason, stats.history.to_string().as_str()), (EndReason::Rst, "Sr"));
    // A refusal of something else is no refusal.
    let mut talk = Talk::new();
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, RST_ACK, 0, 77, 0);
    assert_eq!(talk.state(), TcpState::SynSent);
    // Half open: the scanner resets what it opened.
    let mut talk = Talk::new();
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.tcp(Server, SYN_ACK, 500, 101, 0);
    talk.tcp(Client, RST, 101, 0, 0);
    let (reason, stats) = talk.only();
    assert_eq!((reason, stats.history.to_string().as_str()), (EndReason::Rst, "ShR"));
    assert_eq!(talk.established(), 0);
    // Filtered: no answer, gone after the embryonic timeout.
    let mut talk = Talk::new();
    talk.tcp(Client, SYN, 100, 0, 0);
    talk.wait(11);
    assert!(talk.tracker.is_empty());
    assert_eq!(talk.only().0, EndReason::Idle);
}

#[test]
fn sequence_numbers_wrap_around() {
    let mut talk = Talk::new();
    let start = u32::MAX - 5;
    talk.tcp(Client, SYN, start, 0, 0);
    talk.tcp(Server, SYN_ACK, 500, start.wrapping_add(1), 0);
    talk.tcp(Client, ACK, start.wrapping_add(1), 501, 0);
    talk.tcp(Client, PSH, start.wrapping_add(1), 501, 100);
    talk.tcp(Client, PSH, start.wrapping_add(101), 501, 100);
    talk.tcp(Client, PSH, start.wrapping_add(101), 501, 100);
    talk.tcp(Server, ACK, 501, start.wrapping_add(201), 0);
    talk.tcp(Client, FIN, start.wrapping_add(201), 501, 0);
    talk.tcp(Server, FIN, 501, start.wrapping_add(202), 0);
    talk.tcp(Client, ACK, start.wrapping_add(202), 502, 0);
    assert_eq!(talk.state(), TcpState::TimeWait);
    let (_, stats) = talk.only();
    assert_eq!(stats.initiator.retransmitted, 1);
    assert_eq!(stats.initiator.out_of_order, 0);
}

#[test]
fn a_segment_that_fills_a_hole_is_out_of_order_and_its_copy_a_retransmission() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Client, PSH, 101, 501, 10);
    talk.tcp(Client, PSH, 121, 501, 10);
    talk.tcp(Client, PSH, 111, 501, 10);
    talk.tcp(Client, PSH, 111, 501, 10);
    talk.tcp(Client, ACK, 130, 501, 0);
    let (_, stats) = talk.only();
    assert_eq!((stats.initiator.out_of_order, stats.initiator.retransmitted), (1, 1));
    assert_eq!(stats.history.to_string(), "ShADT");
}

#[test]
fn idle_timeouts_go_by_protocol_and_state() {
    let mut talk = Talk::new();
    talk.udp(Client, 1000, 10);
    talk.handshake();
    talk.wait(59);
    assert_eq!(talk.tracker.len(), 2);
    talk.wait(2);
    assert_eq!(talk.tracker.len(), 1, "UDP is gone after 60 s");
    talk.wait(200);
    assert_eq!(talk.tracker.len(), 1);
    talk.wait(40);
    assert!(talk.tracker.is_empty(), "established TCP after 300 s");
    assert!(talk.ended().iter().all(|(reason, _)| *reason == EndReason::Idle));
}

#[test]
fn a_packet_after_the_idle_timeout_starts_another_flow_without_any_sweep() {
    let mut talk = Talk::new();
    talk.udp(Client, 1000, 10);
    talk.now = talk.now.plus_nanos(60_000 * MS);
    talk.udp(Client, 1000, 10);
    assert_eq!(talk.ended().len(), 2);
}

#[test]
fn a_key_may_have_a_timeout_of_its_own() {
    let mut talk = Talk::new();
    let config = TrackerConfig { max_flows: 16, ..TrackerConfig::default() };
    talk.tracker =
        FlowTracker::new(ByFiveTuple::default(), config).expect("valid").with_idle_override(
            |key| (key.port_a == 53 && key.port_b == 1000).then_some(Duration::from_secs(2)),
        );
    talk.udp(Client, 1000, 10);
    talk.udp(Client, 1001, 10);
    talk.wait(3);
    assert_eq!(talk.tracker.len(), 1);
}

#[test]
fn an_active_timeout_tells_what_there_is_and_records_add_up() {
    let mut talk = Talk::with(TrackerConfig {
        max_flows: 4,
        active_timeout: Some(Duration::from_secs(60)),
        ..TrackerConfig::default()
    });
    for _ in 0..10 {
        talk.udp(Client, 1000, 10);
        talk.wait(20);
    }
    let (_, stats) = talk.only();
    let mut told = 0;
    let updates: Vec<_> = talk
        .log
        .0
        .iter()
        .filter_map(|event| match event {
            FlowEvent::Updated { stats, .. } => Some(*stats),
            _ => None,
        })
        .collect();
    for (index, update) in updates.iter().enumerate() {
        assert_eq!(update.updates as usize, index);
        told += update.unreported().packets.iter().sum::<u64>();
    }
    assert!(updates.len() >= 2);
    assert_eq!(stats.packets(), 10, "totals are of the whole flow");
    assert_eq!(told + stats.unreported().packets.iter().sum::<u64>(), 10);
}

#[test]
fn an_established_conversation_stays_while_slighter_flows_can_go() {
    let mut talk = Talk::with(TrackerConfig { max_flows: 4, ..TrackerConfig::default() });
    talk.handshake();
    talk.udp(Client, 1, 10);
    talk.udp(Server, 1, 10);
    // Room for two more: a flood of one-packet flows and unanswered SYNs.
    for port in 100..150 {
        talk.udp(Client, port, 10);
        talk.port = 40000 + port;
        talk.tcp(Client, SYN, 1, 0, 0);
        talk.tcp(Client, SYN, 1, 0, 0);
    }
    let live: Vec<_> = talk.tracker.iter().map(|(_, stats)| stats.packets()).collect();
    assert_eq!(live.len(), 4);
    assert!(live.contains(&3), "the conversation");
    let evicted = talk.tracker.counters().ended[EndReason::Evicted as usize];
    assert_eq!(evicted, 98);
    assert_eq!(talk.anomalies().len(), 98);
    let ended = talk.ended();
    assert!(
        ended
            .iter()
            .filter(|(reason, _)| *reason == EndReason::Evicted)
            .all(|(_, s)| s.packets() <= 2)
    );
}

#[test]
fn closed_connections_make_room_first_and_are_no_eviction() {
    let mut talk = Talk::with(TrackerConfig { max_flows: 2, ..TrackerConfig::default() });
    talk.handshake();
    talk.tcp(Client, RST, 101, 0, 0);
    talk.udp(Client, 1, 10);
    talk.udp(Client, 2, 10);
    assert!(talk.anomalies().is_empty());
    assert_eq!(talk.ended()[0].0, EndReason::Rst);
}

#[test]
fn time_that_goes_back_ends_nothing_and_overflows_nothing() {
    let mut talk = Talk::new();
    talk.udp(Client, 1, 10);
    let late = talk.now;
    talk.now = Timestamp::ZERO;
    for _ in 0..3 {
        talk.udp(Client, 2, 10);
        talk.udp(Client, 1, 10);
    }
    talk.now = Timestamp::MAX;
    talk.udp(Server, 3, 10);
    let ended = talk.ended();
    assert_eq!(ended.len(), 3, "{ended:#?}");
    assert_eq!(ended.iter().map(|(_, stats)| stats.packets()).sum::<u64>(), 8);
    let first = ended.iter().find(|(_, stats)| stats.packets() == 4).expect("port 1");
    assert_eq!(first.1.last, late);
}

#[test]
fn forgetting_and_shrinking_leave_a_reason() {
    let mut talk = Talk::new();
    for port in 1..=5 {
        talk.udp(Client, port, 10);
    }
    let key = *talk.tracker.iter().next().expect("live").0;
    assert!(talk.tracker.forget(&key, &mut talk.log));
    assert!(!talk.tracker.forget(&key, &mut talk.log));
    talk.tracker.set_max_flows(2, &mut talk.log).expect("smaller");
    assert_eq!(talk.tracker.len(), 2);
    assert!(talk.tracker.set_max_flows(17, &mut talk.log).is_err());
    let reasons: Vec<_> = talk.ended().into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons[0], EndReason::Forgotten);
    assert_eq!(reasons[1..3], [EndReason::Evicted; 2]);
    assert_eq!(reasons[3..], [EndReason::Drained; 2]);
}

/// A frame with an ICMP error that quotes a packet of the client's from port 1000.
fn port_unreachable() -> Vec<u8> {
    let mut quoted = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
        .udp(1000, 53)
        .write(&mut quoted, &[0; 10])
        .expect("written to memory");
    quoted.truncate(28);
    let mut data = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut data, &quoted)
        .expect("written to memory");
    data
}

#[test]
fn an_icmp_error_that_comes_after_a_flow_s_time_is_not_the_flow_s() {
    let mut talk = Talk::new();
    talk.udp(Client, 1000, 10);
    // The time is over, and nobody has looked at the timers since.
    talk.now = talk.now.plus_nanos(61_000 * MS);
    talk.frame(&port_unreachable());
    let ended = talk.ended();
    let udp = ended.iter().find(|(_, stats)| stats.proto.0 == 17).expect("UDP").1;
    assert_eq!((udp.packets(), udp.icmp_errors), (1, 0));
    assert_eq!(talk.tracker.counters().icmp_related, 0);
}

#[test]
fn an_icmp_error_is_a_flow_of_its_own_and_known_to_the_flow_it_quotes() {
    let mut talk = Talk::new();
    talk.udp(Client, 1000, 10);
    talk.frame(&port_unreachable());
    assert_eq!(talk.tracker.len(), 2);
    let ended = talk.ended();
    let udp = ended.iter().find(|(_, stats)| stats.proto.0 == 17).expect("UDP").1;
    assert_eq!((udp.packets(), udp.icmp_errors), (1, 1));
    assert_eq!(talk.tracker.counters().icmp_related, 1);
}

#[test]
fn every_packet_is_an_event_only_when_asked_for() {
    let count = |talk: &Talk| {
        talk.log.0.iter().filter(|event| matches!(event, FlowEvent::Packet { .. })).count()
    };
    let mut talk = Talk::new();
    talk.handshake();
    assert_eq!(count(&talk), 0);
    let mut talk =
        Talk::with(TrackerConfig { max_flows: 4, emit_packets: true, ..TrackerConfig::default() });
    talk.handshake();
    assert_eq!(count(&talk), 3);
}

#[test]
fn the_flags_of_a_side_are_their_union() {
    let mut talk = Talk::new();
    talk.handshake();
    let (_, stats) = talk.only();
    assert_eq!(stats.initiator.tcp_flags, TcpFlags(SYN | ACK));
    assert_eq!(stats.responder.tcp_flags, TcpFlags(SYN | ACK));
}

/// Flows against a map that is swept after every packet: the records must be the same.
mod oracle {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const IDLE: u64 = 10;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Record {
        port: u16,
        first: u64,
        last: u64,
        packets: u64,
        idle: bool,
    }

    proptest! {
        #[test]
        fn records_are_those_of_a_map_swept_at_every_packet(
            steps in prop::collection::vec((0..6u16, 0..12u64), 1..150),
            per_call in 1..40usize,
        ) {
            let start = Timestamp::new(1_700_000_000, 0);
            let mut live: BTreeMap<u16, Record> = BTreeMap::new();
            let mut expected = Vec::new();
            let mut now = 0;
            let mut packets = Vec::new();
            for (port, later) in steps {
                now += later;
                live.retain(|_, record| {
                    let over = now - record.last > IDLE;
                    if over {
                        expected.push(Record { idle: true, ..*record });
                    }
                    !over
                });
                let fresh = Record { port, first: now, last: now, packets: 0, idle: false };
                let record = live.entry(port).or_insert(fresh);
                record.last = now;
                record.packets += 1;
                packets.push((port, now));
            }
            expected.extend(live.into_values());
            expected.sort();

            let config = TrackerConfig {
                max_flows: 8,
                idle: IdleTimeouts { udp: Duration::from_secs(IDLE), ..IdleTimeouts::default() },
                ..TrackerConfig::default()
            };
            let mut tracker = FlowTracker::new(ByFiveTuple::default(), config).expect("valid");
            let mut log = EventLog::default();
            let bytes: Vec<_> = packets
                .iter()
                .map(|&(port, _)| {
                    let mut data = Vec::new();
                    etherparse::PacketBuilder::ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
                        .udp(port, 9)
                        .write(&mut data, &[0; 4])
                        .expect("written to memory");
                    data
                })
                .collect();
            let frames: Vec<_> = packets
                .iter()
                .zip(&bytes)
                .map(|(&(_, secs), data)| Frame {
                    ts: start.plus_nanos(secs * 1_000_000_000),
                    wire_len: data.len() as u32,
                    link: LinkType::RAW,
                    interface: 0,
                    data,
                })
                .collect();
            for frames in frames.chunks(per_call) {
                tracker.process(frames, &mut log);
            }
            // Idle or drained depends on how far the wheel got, so leave the reason to that.
            let secs = |ts: Timestamp| ts.nanos_since(start) / 1_000_000_000;
            tracker.drain(&mut log);
            let mut found: Vec<_> = log
                .0
                .iter()
                .filter_map(|event| match event {
                    FlowEvent::Ended { key, stats, .. } => {
                        let tuple = key.from_end(stats.initiator_end);
                        Some(Record {
                            port: tuple.src_port,
                            first: secs(stats.first),
                            last: secs(stats.last),
                            packets: stats.packets(),
                            idle: false,
                        })
                    }
                    _ => None,
                })
                .collect();
            found.sort();
            for record in &mut expected {
                record.idle = false;
            }
            expected.sort();
            prop_assert_eq!(found, expected);
        }

        /// Any sequence of TCP segments on few tuples: the ledger balances and nothing panics.
        #[test]
        fn any_segments_are_accounted_to_the_last(
            segments in prop::collection::vec(
                (any::<bool>(), any::<u8>(), 0..4u32, 0..4u32, 0..3usize, 0..4u16, 0..3u64), 0..200)
        ) {
            let mut talk = Talk::with(TrackerConfig { max_flows: 3, ..TrackerConfig::default() });
            for (client, flags, seq, ack, len, port, wait) in segments {
                talk.port = 40000 + port;
                let spread = |n: u32| n.wrapping_mul(0x5555_5555).wrapping_sub(1);
                let who = if client { Client } else { Server };
                talk.tcp(who, flags & 0x3f, spread(seq), spread(ack), len);
                prop_assert!(talk.tracker.len() <= 3);
                if wait == 0 {
                    talk.wait(3);
                }
            }
            talk.ended();
        }
    }
}
