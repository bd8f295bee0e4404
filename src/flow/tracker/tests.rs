//! A tracker's behaviour, told as conversations.

mod merging;

use std::time::Duration;

use super::*;
use crate::event::{AnomalyKind, EventLog, FlowEvent};
use crate::flow::{ByFiveTuple, FlowKey, IdleTimeouts, TcpState};
use crate::frame::LinkType;
use crate::net::{End, TcpFlags};

mod connections;
mod keys;
mod lifetimes;
mod oracle;

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

fn datagram(who: Who, port: u16, len: usize) -> Vec<u8> {
    let (src, dst, sport, dport) = match who {
        Client => ([10, 0, 0, 2], [10, 0, 0, 1], port, 53),
        Server => ([10, 0, 0, 1], [10, 0, 0, 2], 53, port),
    };
    let builder =
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 64).udp(sport, dport);
    let mut data = Vec::new();
    builder.write(&mut data, &vec![0; len]).expect("written to memory");
    data
}

fn frame_at(ts: Timestamp, data: &[u8]) -> Frame<'_> {
    let wire_len = data.len() as u32;
    Frame { ts, wire_len, link: LinkType::ETHERNET, interface: 0, data }
}

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
        self.tracker.process(&[frame_at(self.now, data)], &mut self.log);
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
        self.frame(&datagram(who, port, len));
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

/// Each frame counts eight, in small pieces, wherever it is.
#[test]
fn what_is_done_meanwhile_is_done_evenly() {
    let datagrams = (0..4 * BATCH as u16).map(|n| datagram(Client, n % 50 + 1, 20));
    let datagrams: Vec<_> = datagrams.collect();
    let frames = (0..).zip(&datagrams).map(|(n, data)| frame_at(Timestamp::from_nanos(n), data));
    let frames: Vec<_> = frames.collect();
    for len in [0, 16, BATCH, 2 * BATCH + 32, 4 * BATCH] {
        let mut talk = Talk::with(TrackerConfig { max_flows: 64, ..TrackerConfig::default() });
        let mut pieces = Vec::new();
        let meanwhile = &mut |eighths| pieces.push(eighths);
        talk.tracker.process_meanwhile(&frames[..len], &mut (), &mut talk.log, meanwhile);
        assert_eq!(pieces.iter().sum::<usize>(), 8 * len, "{pieces:?}");
        assert!(pieces.iter().all(|eighths| *eighths <= 8 * STEP), "{pieces:?}");
        let mut same = Talk::with(TrackerConfig { max_flows: 64, ..TrackerConfig::default() });
        same.tracker.process(&frames[..len], &mut same.log);
        assert_eq!(talk.ended().len(), len.min(50));
        same.ended();
        assert_eq!(format!("{:?}", talk.log), format!("{:?}", same.log));
    }
}
