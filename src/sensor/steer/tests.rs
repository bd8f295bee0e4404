//! Steering against its oracle: whatever the traffic, the number of workers and the moments at which
//! parcels go out, the records are those that one tracker makes on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use proptest::prelude::*;

use super::*;
use crate::export::Sink;
use crate::flow::TrackerConfig;
use crate::frame::LinkType;
use crate::sensor::direct::Direct;
use crate::sensor::shard::Board;

/// What frame a host sends; ports, identifiers and addresses are few, so that frames meet in flows.
#[derive(Clone, Debug)]
enum Kind {
    Udp,
    /// Flags, and where it is in its stream.
    Tcp(u8, u16),
    /// A fragment of a datagram: identification, offset in eights of bytes, whether more follow.
    Fragment(u16, u16, bool),
    Echo(bool),
    /// An ICMP error that quotes a UDP packet of the other host.
    Unreachable,
    /// No IP at all.
    Noise,
}

#[derive(Clone, Debug)]
struct Sent {
    kind: Kind,
    /// Hosts and ports, each from a few.
    from: u8,
    to: u8,
    port: u8,
    after_ms: u64,
}

/// What happens to a stage between two frames.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Nothing,
    Batch,
    Tick,
    Flush,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Udp),
        4 => (prop::sample::select(vec![0x02, 0x12, 0x10, 0x18, 0x11, 0x04]), 0..300u16)
            .prop_map(|(flags, at)| Kind::Tcp(flags, at)),
        4 => (0..3u16, prop::sample::select(vec![0, 0, 3, 6]), any::<bool>())
            .prop_map(|(id, offset, more)| Kind::Fragment(id, offset, more || offset == 0)),
        1 => any::<bool>().prop_map(Kind::Echo),
        2 => Just(Kind::Unreachable),
        1 => Just(Kind::Noise),
    ]
}

/// Gaps are mostly short, and now and then longer than every idle timeout or than fragments are held.
fn sent() -> impl Strategy<Value = (Sent, Cut)> {
    let after_ms = prop_oneof![8 => 0..50u64, 2 => 1_000..20_000u64, 1 => 30_000..400_000u64];
    let cut = prop_oneof![
        6 => Just(Cut::Nothing), 2 => Just(Cut::Batch), 2 => Just(Cut::Tick), 1 => Just(Cut::Flush)
    ];
    (kind(), 1..5u8, 1..5u8, 1..4u8, after_ms, cut).prop_map(
        |(kind, from, to, port, after_ms, cut)| (Sent { kind, from, to, port, after_ms }, cut),
    )
}

fn ipv4(from: u8, to: u8, proto: u8, id: u16, fragment: u16, upper: &[u8]) -> Vec<u8> {
    let total = (20 + upper.len()) as u16;
    let mut packet = vec![0x45, 0];
    for field in [total, id, fragment] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend([64, proto, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    packet.extend(upper);
    packet
}

fn udp(from: u8, to: u8) -> Vec<u8> {
    vec![0x9c, from, 0, to, 0, 24, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
}

impl Sent {
    fn packet(&self) -> Vec<u8> {
        let Self { from, to, port, .. } = *self;
        match self.kind {
            Kind::Udp => ipv4(from, to, 17, 0, 0, &udp(port, port)),
            Kind::Tcp(flags, at) => {
                let [high, low] = at.to_be_bytes();
                let ports = [0x9c, port, 0x9c, port];
                let rest = [0, 0, high, low, 0, 0, low, high, 0x50, flags, 4, 0, 0, 0, 0, 0];
                ipv4(from, to, 6, 0, 0, &[&ports[..], &rest, b"data"].concat())
            }
            Kind::Fragment(id, offset, more) => {
                let upper = if offset == 0 { udp(port, port) } else { vec![0; 24] };
                ipv4(from, to, 17, id, offset | u16::from(more) << 13, &upper)
            }
            Kind::Echo(reply) => {
                ipv4(from, to, 1, 0, 0, &[if reply { 0 } else { 8 }, 0, 0, 0, 0, port, 0, 1])
            }
            Kind::Unreachable => {
                let quoted = ipv4(to, from, 17, 0, 0, &udp(port, port));
                ipv4(from, to, 1, 0, 0, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat())
            }
            Kind::Noise => vec![0xff; 30],
        }
    }
}

/// Where a sink writes, to be read after it has finished.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a run gave.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The records in order of their text, but for those of lost fragments.
    records: Vec<String>,
    /// Packets and bytes of fragments without a first one, by their addresses.
    ///
    /// Only these sums are one tracker's. Such fragments are handed on long after their own time, and whether
    /// their flow is over by then is judged by the tracker's clock, which a worker gets from its own packets.
    lost: BTreeMap<[String; 2], [u64; 2]>,
    reader: ReaderFigures,
    /// Frames and bytes in flows, packets told by records, live flows.
    workers: [u64; 4],
}

fn outcome(run: impl FnOnce(RecordsOf<'_>, &Board) -> ReaderFigures, workers: usize) -> Outcome {
    let text = Shared::default();
    let mut sink = Sink::start("test".to_owned(), text.clone()).unwrap();
    let board = Board::new(workers, vec![("test".to_owned(), sink.handle())]);
    let records = || RecordWriter::new(vec![sink.handle()], false);
    let reader = run(&records, &board);
    sink.finish();
    let bytes = std::mem::take(&mut *text.0.lock().unwrap());
    let (mut records, mut lost) = (Vec::new(), BTreeMap::new());
    for line in String::from_utf8(bytes).unwrap().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |field: &str| record[field].as_u64().unwrap();
        if (number("proto"), number("src_port"), number("dst_port")) != (17, 0, 0) {
            records.push(line.to_owned());
            continue;
        }
        let mut ends = ["src_ip", "dst_ip"].map(|ip| record[ip].as_str().unwrap().to_owned());
        ends.sort();
        let [packets, bytes] = lost.entry(ends).or_insert([0, 0]);
        *packets += number("packets_initiator") + number("packets_responder");
        *bytes += number("bytes_initiator") + number("bytes_responder");
    }
    records.sort();
    let WorkerFigures { tracked, tracked_bytes, packets_told, live, .. } = board.figures().workers;
    Outcome { records, lost, reader, workers: [tracked, tracked_bytes, packets_told, live] }
}

type RecordsOf<'a> = &'a dyn Fn() -> RecordWriter;

fn tracker() -> FlowTracker<ByFiveTuple> {
    FlowTracker::new(ByFiveTuple::default(), config()).unwrap()
}

/// Room for every flow that can be, because which one is evicted depends on what else is in its table. Few
/// datagrams, so that fragments have to make room.
fn config() -> TrackerConfig {
    TrackerConfig { max_flows: 1_000, max_datagrams: 4, ..TrackerConfig::default() }
}

/// Hands the frames to a stage, cut as asked; returns the last time.
fn feed(stage: &mut impl Stage, frames: &[Frame<'_>], cuts: &[Cut]) -> (Timestamp, ReaderFigures) {
    let mut figures = ReaderFigures::default();
    let mut now = Timestamp::ZERO;
    let mut from = 0;
    for (index, cut) in cuts.iter().enumerate() {
        if *cut == Cut::Nothing && index + 1 != cuts.len() {
            continue;
        }
        stage.frames(&frames[from..=index]);
        from = index + 1;
        now = frames[index].ts;
        match cut {
            Cut::Tick => stage.tick(now, &mut figures),
            Cut::Flush => stage.flush(),
            Cut::Nothing | Cut::Batch => {}
        }
    }
    (now, figures)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_number_of_workers_makes_the_records_of_one_tracker(
        sent in prop::collection::vec(sent(), 1..400), workers in 1..=4usize,
    ) {
        let mut ts = Timestamp::new(1_700_000_000, 0);
        let packets: Vec<(Timestamp, Vec<u8>)> = sent.iter().map(|(sent, _)| {
            ts = ts.plus_nanos(sent.after_ms * 1_000_000);
            (ts, sent.packet())
        }).collect();
        let frames: Vec<Frame<'_>> = packets.iter().map(|(ts, data)| Frame {
            ts: *ts, wire_len: data.len() as u32, link: LinkType::RAW, interface: 0, data,
        }).collect();
        let cuts: Vec<Cut> = sent.iter().map(|(_, cut)| *cut).collect();

        let alone = outcome(|records, board| {
            let mut direct = Direct::new(tracker(), records(), Arc::clone(&board.workers[0]));
            let (now, mut figures) = feed(&mut direct, &frames, &cuts);
            direct.finish(now, &mut figures);
            figures
        }, 1);
        let steered = outcome(|records, board| {
            let parts = board.workers.iter().map(|shard| WorkerParts {
                tracker: tracker(), records: records(), shard: Arc::clone(shard),
            });
            let timeout_ns = crate::time::duration_ns(config().fragment_timeout);
            let ingest = Ingest::new(ByFiveTuple::default(), config().max_datagrams, timeout_ns);
            let mut steer = Steer::start(ingest, parts.collect()).unwrap();
            let (now, mut figures) = feed(&mut steer, &frames, &cuts);
            steer.finish(now, &mut figures).unwrap();
            figures
        }, workers);

        let [tracked, _, told, live] = alone.workers;
        prop_assert_eq!((told, live), (tracked, 0));
        prop_assert_eq!(alone, steered);
    }
}

/// The traffic of the property above is worth something only when it reaches what is special.
#[test]
fn the_random_traffic_has_fragments_errors_and_several_workers() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let tree = prop::collection::vec(sent(), 400).new_tree(&mut runner).unwrap();
    let steering = Steering::new(4);
    let mut ingest = Ingest::new(ByFiveTuple::default(), 4, 1_000_000_000);
    let (mut workers, mut packets) = (BTreeSet::new(), Vec::new());
    for (sent, _) in tree.current() {
        let data = sent.packet();
        let ts = Timestamp::new(1_700_000_000, 0);
        let wire_len = data.len() as u32;
        let frame = Frame { ts, wire_len, link: LinkType::RAW, interface: 0, data: &data };
        ingest.batch(&[frame], &mut packets);
    }
    ingest.drain(&mut packets);
    workers.extend(packets.iter().map(|packet| steering.worker(&packet.key)));
    let counters = ingest.counters();
    assert_eq!(workers.len(), 4);
    assert!(counters.icmp_quotes > 10 && counters.unmatched > 10, "{counters:?}");
    assert!(counters.fragments_unattributed > 10, "{counters:?}");
    assert!(packets.iter().any(|packet| packet.frames > 1), "no fragments waited for a first one");
}
