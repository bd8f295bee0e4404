//! Keys that differ in little are flows of their own, whatever their hash.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::decode::Payload;
use crate::flow::key::tests::any_tuple;
use crate::flow::packet::Role;
use crate::flow::{FiveTuple, Packet};

/// A datagram, with the hash that all of them have.
fn packet(tuple: &FiveTuple, ts: Timestamp) -> Packet<FlowKey> {
    let (key, end) = tuple.canonical();
    Packet {
        key,
        hash: 7 << 32,
        ts,
        clock: ts,
        wire_bytes: 60,
        frames: 1,
        end,
        role: Role::Packet,
        proto: tuple.proto,
        vlan: 0,
        is_reply: false,
        tcp: None,
        payload: Payload::default(),
        frame: u32::MAX,
    }
}

proptest! {
    #[test]
    fn each_key_has_its_own_packets(
        tuples in prop::collection::vec(any_tuple(), 1..200),
        touch_memory: bool,
    ) {
        let mut talk =
            Talk::with(TrackerConfig { max_flows: 512, touch_memory, ..TrackerConfig::default() });
        // Twice, in another order: where others with other keys have been the second time.
        for turn in 0..2 {
            let mut packets: Vec<_> = tuples.iter().map(|tuple| packet(tuple, talk.now)).collect();
            // Flows with many packets are looked at in another way.
            packets = packets.repeat(4);
            packets[..].rotate_left(turn * tuples.len() / 2);
            let mut expected: BTreeMap<String, u64> = BTreeMap::new();
            for packet in &packets {
                *expected.entry(format!("{:?}", packet.key)).or_default() += packet.wire_bytes;
            }
            talk.tracker.process_packets(&packets, &mut talk.log);
            let told = |(key, stats): (FlowKey, FlowStats)| (format!("{key:?}"), stats.bytes());
            prop_assert_eq!(talk.tracker.iter().map(told).collect::<BTreeMap<_, _>>(), expected.clone());
            talk.log.0.clear();
            talk.tracker.drain(&mut talk.log);
            let ended: BTreeMap<_, _> = (talk.log.0.drain(..))
                .filter_map(|event| match event {
                    FlowEvent::Ended { key, stats, .. } => Some(told((key, stats))),
                    _ => None,
                })
                .collect();
            prop_assert_eq!(ended, expected);
        }
    }
}
