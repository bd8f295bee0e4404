//! Packets that were counted elsewhere are as good as seen.

use super::*;
use crate::flow::{Counted, CountedSide, Shunted};

/// What a segment of `len` bytes takes on the wire.
const HEADERS: u64 = 54;

impl Talk {
    fn key(&self) -> FlowKey {
        self.tracker.iter().next().expect("a live flow").0
    }

    /// The server, which is end A, sent so many segments of `len` bytes; the client as many ACKs.
    fn merge(&mut self, key: FlowKey, packets: u64, len: u64) {
        self.now = self.now.plus_nanos(MS);
        let side = |bytes, tcp_flags, has_data| CountedSide {
            packets,
            bytes: packets * bytes,
            last: self.now,
            tcp_flags: TcpFlags(tcp_flags),
            has_data,
            has_ack: !has_data,
            has_zero_window: false,
        };
        let sides = [side(HEADERS + len, PSH, true), side(HEADERS, ACK, false)];
        let shunted = Shunted { key, proto: key.proto(), counted: Counted { sides } };
        self.merged += shunted.counted.packets();
        self.tracker.merge(&shunted, &mut (), &mut self.log);
    }
}

/// Both ways of the same conversation: seen, and merged after the first data.
fn seen_and_merged(packets: u64) -> [Vec<(EndReason, FlowStats)>; 2] {
    [false, true].map(|merged| {
        let mut talk = Talk::new();
        talk.handshake();
        talk.tcp(Server, PSH, 501, 101, 1000);
        talk.tcp(Client, ACK, 101, 1501, 0);
        let mut seq = 1501;
        if merged {
            talk.now = talk.now.plus_nanos((2 * packets - 1) * MS);
            talk.merge(talk.key(), packets, 1000);
            seq += 1000 * packets as u32;
        } else {
            for _ in 0..packets {
                talk.tcp(Server, PSH, seq, 101, 1000);
                seq += 1000;
                talk.tcp(Client, ACK, 101, seq, 0);
            }
        }
        talk.tcp(Server, FIN, seq, 101, 0);
        talk.tcp(Client, FIN, 101, seq + 1, 0);
        talk.tcp(Server, ACK, seq + 1, 102, 0);
        talk.ended()
    })
}

#[test]
fn a_flow_adds_up_as_if_its_packets_had_been_seen_and_ends_by_its_fins() {
    let [seen, merged] = seen_and_merged(500);
    assert_eq!(seen, merged);
    let (reason, stats) = merged[0];
    assert_eq!((reason, stats.tcp_state), (EndReason::Fin, Some(TcpState::TimeWait)));
    assert_eq!(stats.responder.bytes, 500 * (HEADERS + 1000) + 1000 + 4 * HEADERS);
    assert_eq!(stats.history.to_string(), "ShAdfFa");
}

#[test]
fn a_reset_that_comes_up_is_believed_although_what_it_answers_was_only_counted() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Server, PSH, 501, 101, 1000);
    let key = talk.key();
    talk.merge(key, 2_000_000, 1400);
    // 2.8 GB later.
    talk.tcp(Server, RST, 501u32.wrapping_add(2_800_001_000), 0, 0);
    assert_eq!(talk.state(), TcpState::Closed);
    let ended = talk.ended();
    assert_eq!((ended.len(), ended[0].0), (1, EndReason::Rst));
}

#[test]
fn one_that_was_not_merged_into_does_not_believe_it() {
    let mut talk = Talk::new();
    talk.handshake();
    talk.tcp(Server, PSH, 501, 101, 1000);
    talk.tcp(Server, RST, 501u32.wrapping_add(2_800_001_000), 0, 0);
    assert_eq!(talk.state(), TcpState::Established);
}

#[test]
fn what_is_merged_keeps_a_flow_alive_and_an_interim_record_tells_it_once() {
    let mut talk = Talk::with(TrackerConfig {
        max_flows: 16,
        idle: IdleTimeouts { tcp_established: Duration::from_secs(10), ..IdleTimeouts::default() },
        active_timeout: Some(Duration::from_secs(30)),
        ..TrackerConfig::default()
    });
    talk.handshake();
    let key = talk.key();
    for _ in 0..20 {
        talk.wait(5);
        talk.merge(key, 10, 100);
    }
    assert_eq!(talk.tracker.len(), 1, "it was never silent for 10 s");
    talk.wait(9);
    assert_eq!(talk.tracker.len(), 1);
    talk.wait(5);
    assert_eq!(talk.tracker.len(), 0);
    let ended = talk.ended();
    let (reason, stats) = ended[0];
    assert_eq!((ended.len(), reason, stats.packets()), (1, EndReason::Idle, 403));
    assert!((2..=4).contains(&stats.updates), "{} interim records", stats.updates);
    let told: u64 =
        stats.unreported().packets.iter().sum::<u64>() + stats.reported.packets.iter().sum::<u64>();
    assert_eq!(told, 403);
}

#[test]
fn what_comes_after_the_end_begins_another_flow_and_nothing_is_lost() {
    let mut talk = Talk::new();
    talk.handshake();
    let key = talk.key();
    assert!(talk.tracker.forget(&key, &mut talk.log));
    talk.merge(key, 7, 100);
    let ended = talk.ended();
    assert_eq!(ended.iter().map(|(_, stats)| stats.packets()).collect::<Vec<_>>(), [3, 14]);
    assert_eq!(talk.tracker.counters().packets, 17);
}

#[test]
fn only_what_is_large_and_goes_on_is_told_to_be_large() {
    let mut talk = Talk::new();
    talk.handshake();
    let key = talk.key();
    // The only flow there is.
    let flow = FlowId(0);
    assert_eq!(talk.tracker.large(flow, 3 * HEADERS), Some(key));
    assert_eq!(talk.tracker.large(flow, 3 * HEADERS + 1), None);
    talk.tcp(Client, FIN, 101, 501, 0);
    assert_eq!(talk.tracker.large(flow, 1), None, "one side has closed");
    assert!(talk.tracker.forget(&key, &mut talk.log));
    assert_eq!(talk.tracker.large(flow, 0), None);
    assert_eq!(talk.tracker.large(FlowId(9), 0), None);
}
