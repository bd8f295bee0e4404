//! TCP: states, histories, sequence numbers, strays.

use super::*;

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
fn the_flags_of_a_side_are_their_union() {
    let mut talk = Talk::new();
    talk.handshake();
    let (_, stats) = talk.only();
    assert_eq!(stats.initiator.tcp_flags, TcpFlags(SYN | ACK));
    assert_eq!(stats.responder.tcp_flags, TcpFlags(SYN | ACK));
}
