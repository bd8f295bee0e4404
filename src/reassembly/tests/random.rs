//! Random segments against a simple oracle: a map of bytes in which the first copy stays.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

/// A segment of a stream: where it is, and what came of its bytes on the way.
#[derive(Clone, Copy, Debug)]
struct Cutting {
    at: u16,
    len: u16,
    /// Added to each byte: not 0 makes a copy that differs.
    tamper: u8,
    cut: u8,
    wait_ms: u8,
    ack: Option<u16>,
}

fn cuttings(stream: u16) -> impl Strategy<Value = Vec<Cutting>> {
    let tamper = prop_oneof![9 => Just(0u8), 1 => any::<u8>()];
    let cut = prop_oneof![9 => Just(0u8), 1 => any::<u8>()];
    let cutting = (0..stream, 0..1500u16, tamper, cut, any::<u8>(), any::<Option<u16>>()).prop_map(
        |(at, len, tamper, cut, wait_ms, ack)| Cutting { at, len, tamper, cut, wait_ms, ack },
    );
    proptest::collection::vec(cutting, 0..60)
}

/// The byte at an offset of the stream.
fn byte(at: u64, tamper: u8) -> u8 {
    (at.wrapping_mul(31) >> 2) as u8 ^ tamper
}

fn bytes(at: u64, len: u64, tamper: u8) -> Vec<u8> {
    (at..at + len).map(|at| byte(at, tamper)).collect()
}

/// What the consumer was told, with the contract checked on the way.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    bytes: BTreeMap<u64, u8>,
    end: Option<u64>,
}

fn story(told: Vec<Told>) -> Story {
    let mut story = Story::default();
    let mut next = 0;
    for told in told {
        assert_eq!(story.end, None, "told after the end");
        match told {
            Told::Data(at, bytes) => {
                assert_eq!(at, next);
                assert!(!bytes.is_empty());
                next += bytes.len() as u64;
                story.bytes.extend((at..).zip(bytes));
            }
            Told::Gap(at, len) => {
                assert_eq!(at, next);
                assert!(len > 0);
                next += len;
            }
            Told::End(at) => {
                assert_eq!(at, next);
                story.end = Some(at);
            }
        }
    }
    story
}

/// Never gives up of itself, and has room for everything.
fn patient() -> ReassemblyConfig {
    ReassemblyConfig {
        gap_timeout: Duration::MAX,
        acked_gap_timeout: Duration::MAX,
        ..ReassemblyConfig::default()
    }
}

/// Sends the cuttings and calls `each` after each; returns what the oracle makes of them. Bytes
/// that the first copy lacked because it was cut stay missing.
fn send_all(
    bench: &mut Bench,
    isn: u32,
    cuttings: &[Cutting],
    each: &mut dyn FnMut(&Bench),
) -> Story {
    let mut known = BTreeMap::new();
    let mut end = 0;
    for cutting in cuttings {
        let Cutting { at, len, tamper, cut, wait_ms, ack } = *cutting;
        let (at, len, cut) = (u64::from(at), u64::from(len), u64::from(cut));
        bench.wait(u64::from(wait_ms));
        if let Some(ack) = ack {
            let ack = isn.wrapping_add(1).wrapping_add(u32::from(ack));
            bench.send(seg(1, b"").from(End::B).ack(ack));
        }
        let bytes = bytes(at, len, tamper);
        let seq = isn.wrapping_add(1).wrapping_add(at as u32);
        bench.send(seg(seq, &bytes).cut(cut as u32));
        for (at, byte) in (at..).zip(bytes) {
            known.entry(at).or_insert(Some(byte));
        }
        for at in at + len..at + len + cut {
            known.entry(at).or_insert(None);
        }
        end = end.max(if len + cut > 0 { at + len + cut } else { 0 });
        each(bench);
    }
    let bytes = known.into_iter().filter_map(|(at, byte)| Some((at, byte?))).collect();
    Story { bytes, end: Some(end) }
}

/// A segment of a conversation.
#[derive(Clone, Debug)]
struct Line {
    end: End,
    /// From where its side is, or back from there.
    ahead: i32,
    len: u16,
    cut: u8,
    wait_ms: u16,
    flags: TcpFlags,
    /// From where the other side is.
    ack: Option<i16>,
}

fn conversation() -> impl Strategy<Value = Vec<Line>> {
    let end = any::<bool>().prop_map(|is_b| if is_b { End::B } else { End::A });
    let ahead = prop_oneof![12 => Just(0), 2 => -300..300, 2 => Just(70_000)];
    let len = prop_oneof![1 => Just(0u16), 1 => 1..200u16];
    let cut = prop_oneof![12 => Just(0u8), 1 => any::<u8>()];
    let flags = prop_oneof![20 => Just(NONE), 2 => Just(FIN), 1 => Just(SYN), 1 => Just(RST)];
    let ack = proptest::option::weighted(0.9, prop_oneof![4 => Just(0i16), 1 => -300..300i16]);
    let line = (end, ahead, len, cut, 0..800u16, flags, ack).prop_map(
        |(end, ahead, len, cut, wait_ms, flags, ack)| Line {
            end,
            ahead,
            len,
            cut,
            wait_ms,
            flags,
            ack,
        },
    );
    proptest::collection::vec(line, 0..60)
}

/// Everything that is told of it, the counters last. `also` are flags of each segment.
fn told_of(lines: &[Line], isn: [u32; 2], also: TcpFlags) -> String {
    let mut bench = Bench::new(ReassemblyConfig {
        side_bytes_max: 2 * 2048,
        gap_timeout: Duration::from_millis(3000),
        acked_gap_timeout: Duration::from_millis(1000),
        window_bytes: 1 << 16,
        ..ReassemblyConfig::default()
    });
    let mut next = isn;
    for line in lines {
        bench.wait(u64::from(line.wait_ms));
        let (at, other) = (line.end as usize, line.end.other() as usize);
        let seq = next[at].wrapping_add_signed(line.ahead);
        let ends = seq.wrapping_add(u32::from(line.len) + u32::from(line.cut));
        let ends = ends.wrapping_add(u32::from(line.flags.has(SYN)));
        if (0..1000).contains(&line.ahead) {
            next[at] = ends;
        }
        let bytes = bytes(u64::from(seq), line.len.into(), 0);
        let mut seg =
            seg(seq, &bytes).from(line.end).cut(line.cut.into()).with(line.flags).with(also);
        if let Some(ack) = line.ack {
            seg = seg.ack(next[other].wrapping_add_signed(ack.into()));
        }
        // Who opened becomes known after a while.
        bench.initiator_end = if bench.log.0.len() < 2 { line.end } else { End::B };
        bench.send(seg);
    }
    bench.end_flow(0);
    format!("{:?} {:?} {:?}", bench.log.0, bench.events.0, bench.reassembler.counters())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// A segment with URG is none of those that everything is made for, and means the same.
    #[test]
    fn common_segments_are_told_as_any_other_way(
        lines in conversation(),
        isn in prop_oneof![any::<[u32; 2]>(), Just([u32::MAX - 500, 7])],
    ) {
        let urgent = TcpFlags(0x20);
        prop_assert_eq!(told_of(&lines, isn, NONE), told_of(&lines, isn, urgent));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn with_room_enough_every_byte_is_told_as_it_came_first(
        cuttings in cuttings(20_000),
        isn in prop_oneof![any::<u32>(), u32::MAX - 20_000..=u32::MAX],
    ) {
        let mut bench = Bench::new(patient());
        bench.send(seg(isn, b"").with(SYN));
        let oracle = send_all(&mut bench, isn, &cuttings, &mut |_| {});
        bench.end_flow(0);
        prop_assert_eq!(&story(bench.initiator()), &oracle);
        prop_assert_eq!(bench.reassembler.held_bytes(), 0);
        let counters = bench.counters();
        prop_assert_eq!(counters.delivered_bytes, oracle.bytes.len() as u64);
        prop_assert_eq!(counters.dropped_oversize_bytes, 0);
        let end = counters.delivered_bytes + counters.gap_bytes + counters.cut_bytes;
        prop_assert_eq!(Some(end), oracle.end);
    }

    #[test]
    fn a_shuffled_stream_with_duplicates_comes_out_whole(
        cuts in proptest::collection::btree_set(1..20_000u64, 0..40),
        order in any::<u64>(),
        duplicate in any::<u64>(),
        isn in any::<u32>(),
    ) {
        let mut edges: Vec<u64> = cuts.into_iter().collect();
        edges.insert(0, 0);
        edges.push(20_000);
        let mut pieces: Vec<(u64, u64)> = edges.windows(2).map(|w| (w[0], w[1])).collect();
        let copies: Vec<_> = pieces
            .iter()
            .enumerate()
            .filter(|(n, _)| duplicate >> (n % 64) & 1 == 1)
            .map(|(_, piece)| *piece)
            .collect();
        pieces.extend(copies);
        // Any order will do that the seed decides.
        pieces.sort_by_key(|&(start, _)| (start ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bench = Bench::new(patient());
        bench.send(seg(isn, b"").with(SYN));
        let first = isn.wrapping_add(1);
        bench.send(seg(first.wrapping_add(20_000), b"").with(FIN));
        for (start, end) in pieces {
            bench.send(seg(first.wrapping_add(start as u32), &bytes(start, end - start, 0)));
        }
        let told = bench.initiator();
        prop_assert_eq!(told, [data(0, &bytes(0, 20_000, 0)), Told::End(20_000)]);
        prop_assert_eq!(bench.anomalies(), []);
        prop_assert_eq!(bench.reassembler.held_bytes(), 0);
    }

    #[test]
    fn with_little_room_bounds_hold_and_no_byte_is_made_up(
        cuttings in cuttings(60_000),
        isn in any::<u32>(),
    ) {
        let config = ReassemblyConfig {
            side_bytes_max: 4 * 2048,
            total_bytes_max: 6 * 2048,
            window_bytes: 1 << 16,
            gap_timeout: Duration::from_millis(1000),
            ..ReassemblyConfig::default()
        };
        let mut bench = Bench::new(config);
        bench.send(seg(isn, b"").with(SYN));
        // Another flow takes a part of the memory.
        bench.send(seg(99, b"").with(SYN).of(1));
        bench.send(seg(110, &[0; 5000]).of(1));
        let mut last = 0;
        let oracle = send_all(&mut bench, isn, &cuttings, &mut |bench| {
            assert!(bench.reassembler.held_bytes() <= 6 * 2048);
            let counters = bench.counters();
            let told = counters.delivered_bytes + counters.gap_bytes + counters.cut_bytes;
            assert!(told >= last);
            last = told;
        });
        bench.end_flow(0);
        bench.end_flow(1);
        let found = story(bench.initiator());
        prop_assert!(oracle.end >= found.end);
        // Bytes may be missing where a hole was skipped, and then a later copy may be the first
        // that is told, but each is a copy that was sent.
        for (at, found) in &found.bytes {
            let is_sent = cuttings.iter().any(|c| {
                let start = u64::from(c.at);
                (start..start + u64::from(c.len)).contains(at) && byte(*at, c.tamper) == *found
            });
            prop_assert!(is_sent, "byte {at} was never sent as {found}");
        }
        let other = [Told::Gap(0, 10), data(10, &[0; 5000]), Told::End(5010)];
        prop_assert_eq!(bench.told(1, Side::Initiator), other);
        prop_assert_eq!(bench.reassembler.held_bytes(), 0);
        prop_assert_eq!(bench.reassembler.streams_waiting(), 0);
        let counters = bench.counters();
        prop_assert!(counters.gap_bytes >= counters.dropped_oversize_bytes);
    }
}
