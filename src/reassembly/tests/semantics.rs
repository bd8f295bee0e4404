//! One test for each thing that the contract says.

use super::*;

#[test]
fn in_order_data_pass_through_at_once() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(100, b"hello "));
    assert_eq!(bench.initiator(), [data(0, b"hello ")]);
    bench.send(seg(106, b"world"));
    assert_eq!(bench.initiator(), [data(6, b"world")]);
    assert_eq!(bench.reassembler.streams_waiting(), 0);
    assert_eq!(bench.counters().delivered_bytes, 11);
}

#[test]
fn early_data_wait_for_what_is_missing() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(106, b"world"));
    bench.send(seg(103, b"lo "));
    assert_eq!(bench.initiator(), []);
    assert_eq!(bench.reassembler.streams_waiting(), 1);
    bench.send(seg(100, b"hel"));
    assert_eq!(bench.initiator(), [data(0, b"hello world")]);
    assert_eq!(bench.reassembler.streams_waiting(), 0);
    assert_eq!(bench.reassembler.held_bytes(), 0);
    assert_eq!(bench.counters().out_of_order_segments, 2);
    assert_eq!(bench.counters().retransmitted_segments, 0);
    assert_eq!(bench.anomalies(), []);
}

#[test]
fn both_sides_have_streams_of_their_own() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(499, b"").with(SYN).from(End::B).ack(100));
    bench.send(seg(100, b"ask").ack(500));
    bench.send(seg(500, b"answer").from(End::B).ack(103));
    assert_eq!(bench.initiator(), [data(0, b"ask")]);
    assert_eq!(bench.told(0, Side::Responder), [data(0, b"answer")]);
}

#[test]
fn the_initiator_may_be_recognised_late_but_not_after_the_first_byte() {
    let mut bench = Bench::new(config());
    bench.send(seg(500, b"").ack(1).from(End::A));
    bench.send(seg(503, b"wer").from(End::A));
    bench.initiator_end = End::B;
    bench.wait(5000);
    bench.send(seg(1, b"ask").from(End::B));
    assert_eq!(bench.told(0, Side::Responder), [Told::Gap(0, 3), data(3, b"wer")]);
    bench.initiator_end = End::A;
    bench.send(seg(506, b"!").from(End::A));
    bench.send(seg(509, b"more").from(End::A));
    bench.wait(5000).tick();
    let told = [data(6, b"!"), Told::Gap(7, 2), data(9, b"more")];
    assert_eq!(bench.told(0, Side::Responder), told);
    bench.end_flow(0);
    assert_eq!(bench.told(0, Side::Responder), [Told::End(13)]);
    assert_eq!(bench.initiator(), [data(0, b"ask"), Told::End(3)]);
}

#[test]
fn a_hole_that_never_fills_is_skipped_after_the_timeout() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(110, b"later"));
    let due = bench.reassembler.poll_timeout();
    assert_eq!(due, Some(bench.now.plus_nanos(3000 * MS)));
    bench.wait(2999);
    assert!(!bench.tick());
    assert_eq!(bench.initiator(), []);
    bench.wait(1);
    assert!(!bench.tick());
    assert_eq!(bench.initiator(), [Told::Gap(0, 10), data(10, b"later")]);
    assert_eq!(bench.anomalies(), [AnomalyKind::StreamGap { side: Side::Initiator, bytes: 10 }]);
    assert_eq!(bench.reassembler.poll_timeout(), None);
    bench.send(seg(115, b" and on"));
    assert_eq!(bench.initiator(), [data(15, b" and on")]);
    // Too late now.
    bench.send(seg(100, b"0123456789"));
    assert_eq!(bench.initiator(), []);
    assert_eq!((bench.counters().gap_bytes, bench.counters().behind_bytes), (10, 10));
}

#[test]
fn packets_tell_the_time_as_well_as_timeouts_do() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(110, b"later"));
    bench.wait(3000).send(seg(100, b"0123456789"));
    assert_eq!(bench.initiator(), [Told::Gap(0, 10), data(10, b"later")]);
}

#[test]
fn a_hole_behind_a_hole_ages_from_when_it_was_seen() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(102, b"c"));
    bench.wait(1000).send(seg(104, b"e"));
    bench.wait(1000).send(seg(100, b"ab"));
    assert_eq!(bench.initiator(), [data(0, b"abc")]);
    bench.wait(1999).tick();
    assert_eq!(bench.initiator(), []);
    bench.wait(1).tick();
    assert_eq!(bench.initiator(), [Told::Gap(3, 1), data(4, b"e")]);
}

#[test]
fn filling_a_hole_from_behind_does_not_make_it_younger() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    for seq in (101..131).rev() {
        bench.wait(100).send(seg(seq, b"x"));
    }
    assert_eq!(bench.initiator(), []);
    bench.wait(100).send(seg(131, b"x"));
    assert_eq!(bench.initiator(), [Told::Gap(0, 1), data(1, &[b'x'; 31])]);
}

#[test]
fn acknowledged_holes_are_skipped_sooner_but_not_at_once() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(499, b"").with(SYN).from(End::B).ack(100));
    bench.send(seg(105, b"later"));
    bench.send(seg(500, b"").from(End::B).ack(110));
    bench.wait(199).send(seg(500, b"").from(End::B).ack(110));
    assert_eq!(bench.initiator(), []);
    bench.wait(1).send(seg(500, b"").from(End::B).ack(110));
    assert_eq!(bench.initiator(), [Told::Gap(0, 5), data(5, b"later")]);
}

#[test]
fn an_acknowledgement_that_overtakes_its_data_loses_nothing() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(500, b"").from(End::B).ack(110));
    bench.wait(150).send(seg(105, b"world"));
    bench.wait(150).send(seg(100, b"hello"));
    assert_eq!(bench.initiator(), [data(0, b"helloworld")]);
}

#[test]
fn acknowledgements_below_the_held_data_change_nothing() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(105, b"later"));
    bench.send(seg(500, b"").from(End::B).ack(104));
    bench.wait(1000).send(seg(500, b"").from(End::B).ack(100));
    assert_eq!(bench.initiator(), []);
    assert_eq!(bench.reassembler.streams_waiting(), 1);
}

#[test]
fn the_first_copy_of_a_byte_stays() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(103, b"DEF"));
    bench.send(seg(102, b"cdefg"));
    let conflict = AnomalyKind::OverlapConflict { side: Side::Initiator, bytes: 3 };
    assert_eq!(bench.anomalies(), [conflict]);
    bench.send(seg(100, b"abcdefgh"));
    assert_eq!(bench.anomalies(), [conflict]);
    assert_eq!(bench.initiator(), [data(0, b"abcDEFgh")]);
    assert_eq!(bench.counters().conflict_bytes, 6);
}

#[test]
fn equal_copies_are_no_conflict() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(103, b"def"));
    bench.send(seg(103, b"def"));
    assert_eq!(bench.counters().retransmitted_segments, 1);
    bench.send(seg(100, b"abcdef"));
    assert_eq!(bench.initiator(), [data(0, b"abcdef")]);
    assert_eq!(bench.anomalies(), []);
}

#[test]
fn retransmissions_and_keepalives_tell_nothing() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(100, b"hello"));
    bench.send(seg(100, b"hello"));
    bench.send(seg(104, b"\0"));
    bench.send(seg(104, b""));
    bench.send(seg(103, b"lo, you"));
    assert_eq!(bench.initiator(), [data(0, b"hello, you")]);
    assert_eq!(bench.counters().retransmitted_segments, 2);
    assert_eq!(bench.counters().behind_bytes, 8);
    // And again while bytes are held.
    bench.send(seg(120, b"far"));
    bench.send(seg(109, b"u"));
    assert_eq!(bench.counters().retransmitted_segments, 3);
}

#[test]
fn midstream_starts_with_the_first_segment_seen() {
    let mut bench = Bench::new(config());
    bench.send(seg(1000, b"second"));
    bench.send(seg(995, b"first"));
    bench.send(seg(1006, b" third"));
    assert_eq!(bench.initiator(), [data(0, b"second third")]);
    assert_eq!(bench.counters().before_start_bytes, 5);
    assert_eq!(bench.counters().retransmitted_segments, 0);
}

#[test]
fn a_bare_acknowledgement_is_a_start_too() {
    let mut bench = Bench::new(config());
    bench.send(seg(1000, b"").ack(7));
    bench.send(seg(1003, b"def"));
    bench.send(seg(1000, b"abc"));
    assert_eq!(bench.initiator(), [data(0, b"abcdef")]);
}

#[test]
fn a_syn_that_comes_late_moves_the_start_of_an_empty_stream() {
    let mut bench = Bench::new(config());
    bench.send(seg(104, b"").ack(7));
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(100, b"early"));
    assert_eq!(bench.initiator(), [data(0, b"early")]);
}

#[test]
fn a_second_syn_with_another_number_wins_before_data_only() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(8999, b"").with(SYN));
    bench.send(seg(9000, b"data"));
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(9004, b" more"));
    assert_eq!(bench.initiator(), [data(0, b"data more")]);
}

#[test]
fn data_on_a_syn_come_after_it() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"fast ").with(SYN));
    bench.send(seg(105, b"open"));
    assert_eq!(bench.initiator(), [data(0, b"fast open")]);
}

#[test]
fn sequence_numbers_wrap() {
    let mut bench = Bench::new(config());
    bench.send(seg(u32::MAX - 3, b"").with(SYN));
    bench.send(seg(1, b"efgh"));
    bench.send(seg(u32::MAX - 2, b"abcd"));
    bench.send(seg(5, b"ij").with(FIN));
    assert_eq!(bench.initiator(), [data(0, b"abcdefghij"), Told::End(10)]);
    let mut bench = Bench::new(config());
    bench.send(seg(u32::MAX, b"x").with(SYN));
    bench.send(seg(1, b"y"));
    assert_eq!(bench.initiator(), [data(0, b"xy")]);
}

#[test]
fn a_stream_ends_at_its_fin_when_all_is_there() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(102, b"c").with(FIN));
    assert_eq!(bench.initiator(), []);
    bench.send(seg(100, b"ab"));
    assert_eq!(bench.initiator(), [data(0, b"abc"), Told::End(3)]);
    bench.send(seg(102, b"c").with(FIN));
    bench.send(seg(103, b"").with(FIN));
    bench.send(seg(104, b"beyond"));
    bench.end_flow(0);
    assert_eq!(bench.initiator(), []);
    assert_eq!(bench.counters().beyond_end_bytes, 6);
}

#[test]
fn a_fin_before_held_data_is_not_believed() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(103, b"def"));
    bench.send(seg(102, b"").with(FIN));
    bench.send(seg(100, b"abc"));
    assert_eq!(bench.initiator(), [data(0, b"abcdef")]);
}

#[test]
fn data_in_order_go_no_further_than_a_fin_that_came_before_them() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(103, b"").with(FIN).ack(500));
    bench.send(seg(100, b"abcde").ack(500));
    assert_eq!(bench.initiator(), [data(0, b"abc"), Told::End(3)]);
    assert_eq!(bench.counters().beyond_end_bytes, 2);
}

#[test]
fn a_flow_that_ends_tells_what_is_held_and_its_end() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(499, b"").with(SYN).from(End::B));
    bench.send(seg(102, b"c"));
    bench.send(seg(105, b"f"));
    bench.send(seg(107, b"").with(FIN));
    bench.end_flow(0);
    let rest = [
        Told::Gap(0, 2),
        data(2, b"c"),
        Told::Gap(3, 2),
        data(5, b"f"),
        Told::Gap(6, 1),
        Told::End(7),
    ];
    assert_eq!(bench.initiator(), rest);
    assert_eq!(bench.told(0, Side::Responder), [Told::End(0)]);
    assert_eq!(bench.reassembler.flows(), 0);
    assert_eq!(bench.reassembler.streams_waiting(), 0);
    assert_eq!(bench.reassembler.held_bytes(), 0);
}

#[test]
fn a_side_that_was_never_seen_has_no_end() {
    let mut bench = Bench::new(config());
    bench.send(seg(100, b"alone"));
    bench.end_flow(0);
    assert_eq!(bench.initiator(), [data(0, b"alone"), Told::End(5)]);
    assert_eq!(bench.told(0, Side::Responder), []);
}

#[test]
fn a_flow_number_used_again_starts_afresh() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(105, b"held"));
    bench.end_flow(0);
    bench.initiator();
    bench.send(seg(5_000_099, b"").with(SYN));
    bench.send(seg(5_000_100, b"new"));
    bench.wait(10_000).tick();
    assert_eq!(bench.initiator(), [data(0, b"new")]);
}

#[test]
fn what_a_rst_carries_is_no_data() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(100, b"refused").with(RST));
    bench.send(seg(100, b"data"));
    assert_eq!(bench.initiator(), [data(0, b"data")]);
}

#[test]
fn flows_that_only_send_rsts_cost_nothing() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(RST));
    assert_eq!(bench.reassembler.flows(), 0);
    bench.end_flow(0);
    bench.end_flow(77);
    bench.send(seg(0, b"no such flow").of(77));
    assert_eq!(bench.log.0, []);
}

#[test]
fn a_snapped_tail_is_a_gap_at_once() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(100, b"head").cut(96));
    bench.send(seg(200, b"next").cut(96));
    let told = [data(0, b"head"), Told::Gap(4, 96), data(100, b"next"), Told::Gap(104, 96)];
    assert_eq!(bench.initiator(), told);
    assert_eq!(bench.counters().cut_bytes, 192);
    assert_eq!(bench.counters().gap_bytes, 0);
    assert_eq!(bench.anomalies(), []);
}

#[test]
fn a_snapped_segment_that_is_early_is_told_in_its_turn() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(200, b"next").cut(96));
    bench.send(seg(100, b"head").cut(96));
    let told = [data(0, b"head"), Told::Gap(4, 96), data(100, b"next"), Told::Gap(104, 96)];
    assert_eq!(bench.initiator(), told);
}

#[test]
fn a_segment_outside_the_window_is_dropped() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(100 + (16 << 20), b"x"));
    bench.send(seg(100 + (16 << 20) - 1, b"y"));
    assert_eq!(bench.counters().dropped_ooo_segments, 1);
    let seq = 100 + (16 << 20);
    let far = AnomalyKind::OutOfOrderSegment { side: Side::Initiator, seq };
    assert_eq!(bench.anomalies(), [far]);
    assert_eq!(bench.reassembler.held_bytes(), 2048);
}

#[test]
fn acknowledgements_vouch_for_segments_beyond_the_window() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    let far = 100 + (100 << 20);
    bench.send(seg(500, b"").from(End::B).ack(far));
    bench.send(seg(far, b"after the loss"));
    bench.wait(200).send(seg(far + 14, b", on"));
    assert_eq!(bench.counters().dropped_ooo_segments, 0);
    assert_eq!(
        bench.initiator(),
        [Told::Gap(0, 100 << 20), data(100 << 20, b"after the loss, on")]
    );
}

#[test]
fn a_stream_that_is_elsewhere_for_good_goes_on_there() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(102, b"held"));
    bench.send(seg(1 << 30, b"lost"));
    bench.wait(2000).send(seg((1 << 30) + 4, b"lost"));
    bench.wait(1000).send(seg((1 << 30) + 8, b"found"));
    bench.send(seg((1 << 30) + 13, b" again"));
    let at = (1 << 30) + 8 - 100;
    let told = [Told::Gap(0, 2), data(2, b"held"), Told::Gap(6, at - 6), data(at, b"found again")];
    assert_eq!(bench.initiator(), told);
    assert_eq!(bench.counters().dropped_ooo_segments, 2);
}

#[test]
fn forged_segments_far_away_do_not_move_a_stream_that_goes_on() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    for n in 0..50 {
        bench.wait(100).send(seg(100 + n, b"x"));
        bench.send(seg(1 << 30, b"forged"));
        bench.send(seg(3 << 30, b"forged"));
    }
    assert_eq!(bench.initiator(), [data(0, &[b'x'; 50])]);
    assert_eq!(bench.counters().dropped_ooo_segments, 100);
}

#[test]
fn a_full_side_slides_over_its_oldest_hole() {
    let mut bench = Bench::new(small());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(110, &[1; 2048]));
    bench.send(seg(3000, &[2; 2048]));
    assert_eq!(bench.initiator(), []);
    bench.send(seg(6000, &[3; 10]));
    assert_eq!(bench.initiator(), [Told::Gap(0, 10), data(10, &[1; 2048])]);
    let side = Side::Initiator;
    let told = [
        AnomalyKind::BufferOverflow { side, bytes: 10 },
        AnomalyKind::StreamGap { side, bytes: 10 },
    ];
    assert_eq!(bench.anomalies(), told);
    assert_eq!(bench.counters().dropped_oversize_bytes, 10);
    bench.send(seg(2158, &[4; 842]));
    let mut bytes = vec![4; 842];
    bytes.extend([2; 2048]);
    assert_eq!(bench.initiator(), [data(2058, &bytes)]);
}

#[test]
fn a_segment_larger_than_the_whole_buffer_is_told_all_the_same() {
    let mut bench = Bench::new(small());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(110, &[7; 60_000]));
    assert_eq!(bench.initiator(), [Told::Gap(0, 10), data(10, &[7; 60_000])]);
    assert_eq!(bench.reassembler.held_bytes(), 0);
}

#[test]
fn full_memory_lets_nobody_wait() {
    let mut bench = Bench::new(small());
    for flow in 0..4 {
        bench.send(seg(99, b"").with(SYN).of(flow));
        bench.send(seg(110, b"held").of(flow));
    }
    assert_eq!(bench.reassembler.held_bytes(), 8192);
    bench.send(seg(99, b"").with(SYN).of(4));
    bench.send(seg(110, b"told").of(4));
    assert_eq!(bench.told(4, Side::Initiator), [Told::Gap(0, 10), data(10, b"told")]);
    assert_eq!(bench.counters().dropped_oversize_bytes, 10);
    // The others fill as if nothing had been.
    bench.send(seg(100, b"0123456789").of(2));
    assert_eq!(bench.told(2, Side::Initiator), [data(0, b"0123456789held")]);
}

#[test]
fn a_full_side_drops_the_flow_when_told_so() {
    let mut bench = Bench::new(ReassemblyConfig { overflow: OverflowPolicy::DropFlow, ..small() });
    bench.send(seg(99, b"").with(SYN));
    assert_eq!(bench.send(seg(110, &[1; 4096])), Verdict::Keep);
    assert_eq!(bench.send(seg(5000, &[2; 100])), Verdict::Drop);
    let overflow = AnomalyKind::BufferOverflow { side: Side::Initiator, bytes: 100 };
    assert_eq!(bench.anomalies(), [overflow]);
    assert_eq!(bench.counters().dropped_oversize_bytes, 100);
    bench.end_flow(0);
    let told = [Told::Gap(0, 10), data(10, &[1; 4096]), Told::End(4106)];
    assert_eq!(bench.initiator(), told);
}

#[test]
fn tiny_segments_are_charged_by_the_block() {
    let mut bench = Bench::new(ReassemblyConfig { side_bytes_max: 64 << 10, ..config() });
    bench.send(seg(99, b"").with(SYN));
    for n in 0..10_000 {
        bench.send(seg(101 + 2 * n, b"x"));
        assert!(bench.reassembler.held_bytes() <= 64 << 10);
    }
    let counters = bench.counters();
    assert_eq!(counters.gaps, 10_000 - 32);
    assert_eq!(counters.dropped_oversize_bytes, counters.gap_bytes);
}

#[test]
fn consecutive_segments_share_blocks() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    for n in 0..100 {
        bench.send(seg(101 + n * 100, &[n as u8; 100]));
    }
    assert_eq!(bench.reassembler.held_bytes(), 10_000usize.next_multiple_of(2048));
}

#[test]
fn counters_are_kept_without_anomaly_events() {
    let mut bench = Bench::new(small());
    bench.reassembler.set_emit_anomalies(false);
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(110, &[7; 60_000]));
    bench.send(seg(1 << 30, b"far"));
    assert_eq!(bench.anomalies(), []);
    assert_eq!(bench.counters().dropped_oversize_bytes, 10);
    assert_eq!(bench.counters().dropped_ooo_segments, 1);
}

#[test]
fn bytes_without_their_frame_are_a_gap() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.send(seg(100, b"").cut(40));
    bench.send(seg(140, b"seen"));
    assert_eq!(bench.initiator(), [Told::Gap(0, 40), data(40, b"seen")]);
}

#[test]
fn a_clock_that_jumps_does_no_harm() {
    let mut bench = Bench::new(config());
    bench.send(seg(99, b"").with(SYN));
    bench.now = Timestamp::MAX;
    bench.send(seg(105, b"a"));
    bench.now = Timestamp::ZERO;
    bench.send(seg(107, b"b"));
    assert!(!bench.tick());
    bench.now = Timestamp::MAX;
    bench.tick();
    bench.end_flow(0);
    let told = [Told::Gap(0, 5), data(5, b"a"), Told::Gap(6, 1), data(7, b"b"), Told::End(8)];
    assert_eq!(bench.initiator(), told);
}

#[test]
fn timeouts_are_worked_off_in_bounded_steps() {
    let config = ReassemblyConfig::default();
    let mut reassembler: Reassembler<u32> = Reassembler::new(1000, &config).unwrap();
    reassembler.set_emit_anomalies(false);
    let mut bench = Bench::new(config);
    bench.reassembler = reassembler;
    for flow in 0..1000 {
        bench.send(seg(100, b"").ack(1).of(flow));
        bench.send(seg(101, b"x").of(flow));
    }
    bench.wait(3000);
    let mut calls = 1;
    while bench.tick() {
        calls += 1;
    }
    assert_eq!(calls, 4);
    assert_eq!(bench.reassembler.streams_waiting(), 0);
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let refused = |config: ReassemblyConfig| config.validate().unwrap_err();
    let error = refused(ReassemblyConfig { side_bytes_max: 100, ..config() });
    assert_eq!(error, ReassemblyConfigError::SideBytes(100));
    let error = refused(ReassemblyConfig { total_bytes_max: 4096, ..config() });
    assert_eq!(error, ReassemblyConfigError::TotalBytes { total: 4096, side: 1 << 20 });
    let error = refused(ReassemblyConfig { window_bytes: 1, ..config() });
    assert_eq!(error, ReassemblyConfigError::WindowBytes(1));
    let error = refused(ReassemblyConfig { gap_timeout: Duration::ZERO, ..config() });
    assert_eq!(error, ReassemblyConfigError::ZeroTimeout("gap_timeout"));
}
