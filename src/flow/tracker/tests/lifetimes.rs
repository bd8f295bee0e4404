//! How long flows live and what ends them: timeouts, room, time that jumps; and what is told meanwhile.

use super::*;
use crate::flow::table::PROBES_MAX;

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
            |key| (key.port_a() == 53 && key.port_b() == 1000).then_some(Duration::from_secs(2)),
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
fn a_packet_that_comes_late_does_not_turn_its_flow_back() {
    let mut talk = Talk::new();
    talk.udp(Client, 1000, 10);
    talk.udp(Client, 1000, 10);
    let before = talk.now;
    talk.udp(Client, 1000, 10);
    talk.tracker.process(&[frame_at(before, &datagram(Client, 1000, 10))], &mut talk.log);
    let last = talk.now;
    let (_, stats) = talk.only();
    assert_eq!((stats.last, stats.packets()), (last, 4));
}

/// Of two interfaces one may be some seconds behind.
#[test]
fn a_flow_whose_own_time_is_behind_lives_by_the_clock() {
    let mut talk = Talk::new();
    talk.udp(Client, 1000, 10);
    talk.udp(Client, 1000, 10);
    let behind = talk.now;
    talk.wait(4);
    talk.udp(Client, 1001, 10);
    talk.tracker.process(&[frame_at(behind, &datagram(Client, 1000, 10))], &mut talk.log);
    talk.wait(58);
    assert_eq!(talk.tracker.len(), 2, "one is 62 s old by its own time, and was seen 58 s ago");
    talk.wait(6);
    assert!(talk.tracker.is_empty());
}

#[test]
fn a_flow_of_two_packets_is_no_slight_one_any_more() {
    let mut talk = Talk::with(TrackerConfig { max_flows: 32, ..TrackerConfig::default() });
    for port in [1000..1031, 1000..1031, 2000..2002].into_iter().flatten() {
        talk.udp(Client, port, 10);
    }
    let evicted: Vec<_> =
        talk.ended().into_iter().filter(|(reason, _)| *reason == EndReason::Evicted).collect();
    assert_eq!(evicted.len(), 1);
    assert_eq!(evicted[0].1.packets(), 1, "the one that had a single packet made room");
}

#[test]
fn forgetting_and_shrinking_leave_a_reason() {
    let mut talk = Talk::new();
    for port in 1..=5 {
        talk.udp(Client, port, 10);
    }
    let key = talk.tracker.iter().next().expect("live").0;
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

/// As if somebody knew the key of the hash: all packets bring the same one.
#[test]
fn keys_that_collide_on_purpose_displace_each_other_and_are_counted() {
    const FLOWS: u16 = 2000;
    let mut talk = Talk::with(TrackerConfig { max_flows: 4096, ..TrackerConfig::default() });
    let mut ingest =
        crate::flow::ingest::Ingest::new(ByFiveTuple::default(), &TrackerConfig::default());
    let mut packets = Vec::new();
    for port in 0..FLOWS {
        let mut data = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
            .udp(port, 9)
            .write(&mut data, &[0; 4])
            .expect("written to memory");
        let frame = Frame {
            ts: talk.now,
            wire_len: data.len() as u32,
            link: LinkType::RAW,
            interface: 0,
            data: &data,
        };
        ingest.batch(&[frame], &mut packets);
    }
    packets.iter_mut().for_each(|packet| packet.hash = 7 << 32);
    talk.tracker.process_packets(&packets, &mut talk.log);
    let displaced = u64::from(FLOWS) - u64::from(PROBES_MAX);
    assert_eq!(talk.tracker.len(), PROBES_MAX as usize);
    assert_eq!(talk.tracker.counters().ended[EndReason::Evicted as usize], displaced);
    let collision = AnomalyKind::FlowTableCollision { probes: PROBES_MAX };
    assert_eq!(talk.anomalies(), vec![collision; displaced as usize]);
    // Who was there first is there still, and is found.
    talk.tracker.process_packets(&packets[..16], &mut talk.log);
    assert_eq!(talk.tracker.counters().created, u64::from(FLOWS));
    talk.tracker.drain(&mut talk.log);
    let counters = talk.tracker.counters();
    assert_eq!(counters.packets, u64::from(FLOWS) + 16);
    assert_eq!(counters.packets, counters.packets_ended);
}

#[test]
fn more_packets_than_32_bits_count_are_counted() {
    let mut talk = Talk::new();
    talk.udp(Client, 1000, 10);
    let (key, _) = talk.tracker.iter().next().expect("a live flow");
    let mut ingest =
        crate::flow::ingest::Ingest::new(ByFiveTuple::default(), &TrackerConfig::default());
    let mut data = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
        .udp(1000, 53)
        .write(&mut data, &[0; 10])
        .expect("written to memory");
    let frame = Frame {
        ts: talk.now,
        wire_len: data.len() as u32,
        link: LinkType::ETHERNET,
        interface: 0,
        data: &data,
    };
    let mut packets = Vec::new();
    ingest.batch(&[frame], &mut packets);
    packets[0].hash = talk.tracker.ingest.hash(&key);
    // As fragments that waited come: many at once.
    packets[0].frames = u32::MAX;
    for times in 1..=3 {
        talk.tracker.process_packets(&packets, &mut talk.log);
        let stats = talk.tracker.get(&key).expect("live");
        assert_eq!(stats.initiator.packets, 1 + times * u64::from(u32::MAX));
    }
    talk.tracker.drain(&mut talk.log);
    assert_eq!(talk.tracker.counters().packets_ended, 1 + 3 * u64::from(u32::MAX));
    assert_eq!(talk.tracker.counters().created, 1);
}

#[test]
fn pages_that_were_touched_or_are_small_change_nothing() {
    const FLOWS: usize = 80_000;
    let mut talk = Talk::with(TrackerConfig { max_flows: FLOWS, ..TrackerConfig::default() });
    let page = talk.tracker.touch_huge_page().unwrap();
    assert_eq!(page.len(), 2 << 20 >> 7, "entries of 128 bytes");
    talk.tracker.use_small_pages(page.start + 1);
    talk.handshake();
    assert_eq!((talk.tracker.flows_most(), talk.tracker.len()), (1, 1));
    let (_, stats) = talk.only();
    assert_eq!((stats.packets(), stats.history.to_string().as_str()), (3, "ShA"));
    // Behind the end there is nothing to touch, nor to ask for.
    let mut talk = Talk::with(TrackerConfig { max_flows: 1, ..TrackerConfig::default() });
    talk.tracker.use_small_pages(usize::MAX);
    talk.handshake();
    assert_eq!(talk.tracker.touch_huge_page(), None);
}

#[test]
fn memory_that_was_touched_changes_nothing() {
    let config = TrackerConfig { max_flows: 5000, touch_memory: true, ..TrackerConfig::default() };
    let mut talk = Talk::with(config);
    assert!(talk.tracker.is_empty());
    talk.handshake();
    let (_, stats) = talk.only();
    assert_eq!((stats.packets(), stats.history.to_string().as_str()), (3, "ShA"));
}
