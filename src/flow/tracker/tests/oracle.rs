//! Flows against a map that is swept after every packet: the records must be the same.

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
