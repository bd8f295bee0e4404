//! Software steering against one tracker: whatever comes, in whatever batches, any number of workers makes the same records.

use std::io::Write;
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;
use flowscope::capture::BATCH_FRAMES_MAX;
use flowscope::export::sink::Opened;
use flowscope::export::{RecordWriter, Sink, WhenFull};
use flowscope::flow::ingest::Ingest;
use flowscope::flow::{ByFiveTuple, FlowTracker};
use flowscope::sensor::cores::Pinning;
use flowscope::sensor::direct::Direct;
use flowscope::sensor::ledger::Ledger;
use flowscope::sensor::read::Stage;
use flowscope::sensor::shard::{Board, Pulse, ReaderFigures, Thread};
use flowscope::sensor::steer::{Steer, WorkerParts};
use flowscope::{Frame, LinkType, Timestamp, TrackerConfig};
use proptest::prelude::*;

/// One frame, by what is special in it.
#[derive(Clone, Debug)]
enum Kind {
    Udp {
        bytes: u8,
    },
    Tcp {
        flags: u8,
        seq: u8,
        ack: u8,
        bytes: u8,
    },
    FirstFragment {
        id: u8,
    },
    LaterFragment {
        id: u8,
        more: bool,
    },
    /// An ICMP error that quotes the flow's packet.
    Quote,
    Arp,
}

#[derive(Clone, Debug)]
struct Sent {
    kind: Kind,
    flow: u8,
    back: bool,
    /// Milliseconds since the frame before; now and then longer than timeouts.
    after_ms: u16,
}

fn sent() -> impl Strategy<Value = Sent> {
    let kind = prop_oneof![
        4 => any::<u8>().prop_map(|bytes| Kind::Udp { bytes }),
        6 => (prop::sample::select(vec![2u8, 18, 16, 24, 17, 4, 20]), 0..6u8, 0..6u8, 0..9u8)
            .prop_map(|(flags, seq, ack, bytes)| Kind::Tcp { flags, seq, ack, bytes }),
        1 => (0..3u8).prop_map(|id| Kind::FirstFragment { id }),
        2 => (0..3u8, any::<bool>()).prop_map(|(id, more)| Kind::LaterFragment { id, more }),
        1 => Just(Kind::Quote),
        1 => Just(Kind::Arp),
    ];
    let after_ms = prop_oneof![20 => 0..50u16, 1 => 5_000..40_000u16];
    (kind, 0..7u8, any::<bool>(), after_ms).prop_map(|(kind, flow, back, after_ms)| Sent {
        kind,
        flow,
        back,
        after_ms,
    })
}

fn ipv4(proto: u8, id: u8, fragment: u16, ends: (u8, bool), rest: &[u8]) -> Vec<u8> {
    let (flow, back) = ends;
    let (near, far) = ([10, 0, 0, flow], [192, 0, 2, 1 + flow / 2]);
    let (src, dst) = if back { (far, near) } else { (near, far) };
    let mut packet = vec![0x45, 0];
    packet.extend((20 + rest.len() as u16).to_be_bytes());
    packet.extend([0, id]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, proto, 0, 0]);
    packet.extend(src);
    packet.extend(dst);
    packet.extend(rest);
    packet
}

fn frame(Sent { kind, flow, back, .. }: &Sent) -> Vec<u8> {
    let (flow, back) = (*flow, *back);
    let near = 1000 + u16::from(flow);
    let (src, dst) = if back { (53, near) } else { (near, 53u16) };
    let udp = |bytes: usize| {
        let mut datagram = [src.to_be_bytes(), dst.to_be_bytes()].concat();
        datagram.extend((8 + bytes as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.resize(8 + bytes, 7);
        datagram
    };
    const MORE: u16 = 0x2000;
    let packet = match *kind {
        Kind::Udp { bytes } => ipv4(17, 0, 0, (flow, back), &udp(usize::from(bytes))),
        Kind::Tcp { flags, seq, ack, bytes } => {
            let mut segment = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            segment.extend((u32::from(seq) * 4).to_be_bytes());
            segment.extend((u32::from(ack) * 4).to_be_bytes());
            segment.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
            segment.resize(20 + usize::from(bytes), 7);
            ipv4(6, 0, 0, (flow, back), &segment)
        }
        Kind::FirstFragment { id } => ipv4(17, id, MORE, (flow, back), &udp(24)),
        Kind::LaterFragment { id, more } => {
            let offset = 4 | if more { MORE } else { 0 };
            ipv4(17, id, offset, (flow, back), &[7; 16])
        }
        Kind::Quote => {
            let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
            error.extend(ipv4(17, 0, 0, (flow, !back), &udp(0)));
            ipv4(1, 0, 0, (flow, back), &error)
        }
        Kind::Arp => return [&[2; 12][..], &[8, 6], &[0; 28]].concat(),
    };
    [&[2; 12][..], &[8, 0], &packet].concat()
}

/// An output in memory.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The records of a run, sorted, and whether it balances. 0 workers: without steering.
fn run(
    frames: &[Frame<'_>],
    cuts: &[usize],
    workers: usize,
    is_live: bool,
) -> (Vec<String>, Ledger) {
    let config = TrackerConfig {
        active_timeout: Some(std::time::Duration::from_secs(3)),
        ..TrackerConfig::default()
    };
    let text = Text::default();
    let mut sink = Sink::start(Opened::of("memory".to_owned(), text.clone())).unwrap();
    let board = Board::new(1, workers.max(1), vec![("memory".to_owned(), sink.handle())]);
    let parts = |worker: usize| WorkerParts {
        tracker: FlowTracker::new(ByFiveTuple::default(), config.clone()).unwrap(),
        records: RecordWriter::new(vec![sink.handle()], true, WhenFull::Wait),
        shard: Arc::clone(&board.workers[worker]),
        live: is_live.then(|| Arc::new(CachePadded::new(Pulse::new(Thread::Worker(worker))))),
    };
    let mut figures = ReaderFigures::default();
    let mut last = Timestamp::ZERO;
    let mut feed = |stage: &mut dyn FnMut(&[Frame<'_>], Timestamp, &mut ReaderFigures)| {
        let (mut rest, mut cuts) = (frames, cuts.iter().cycle());
        while !rest.is_empty() {
            let size = (*cuts.next().unwrap_or(&1)).clamp(1, BATCH_FRAMES_MAX).min(rest.len());
            let (batch, later) = rest.split_at(size);
            last = batch.iter().map(|frame| frame.ts).fold(last, Timestamp::max);
            stage(batch, last, &mut figures);
            rest = later;
        }
    };
    if workers == 0 {
        let WorkerParts { tracker, records, shard, .. } = parts(0);
        let mut direct = Direct::new(tracker, records, shard);
        feed(&mut |batch, now, figures| {
            direct.frames(batch);
            direct.tick(now, figures);
        });
        direct.finish(last, &mut figures);
    } else {
        let timeout_ns = config.fragment_timeout.as_nanos() as u64;
        let ingest = Ingest::new(ByFiveTuple::default(), config.max_datagrams, timeout_ns);
        let mut steer =
            Steer::start(ingest, (0..workers).map(parts).collect(), &Pinning::default()).unwrap();
        feed(&mut |batch, now, figures| {
            steer.frames(batch);
            steer.tick(now, figures);
            if batch.len() % 3 == 0 {
                steer.flush();
            }
        });
        steer.finish(last, &mut figures).unwrap();
    }
    sink.finish();
    figures.offered = frames.len() as u64;
    figures.delivered = figures.offered;
    figures.delivered_bytes = frames.iter().map(|frame| u64::from(frame.wire_len)).sum();
    board.readers[0].store(&mut figures);
    let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    let mut records: Vec<_> = text.lines().map(str::to_owned).collect();
    records.sort();
    (records, Ledger::at_end(&board.figures()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_number_of_workers_makes_the_records_of_one(
        sent in prop::collection::vec(sent(), 1..400),
        cuts in prop::collection::vec(1..90usize, 1..12),
        other_cuts in prop::collection::vec(1..300usize, 1..12),
    ) {
        let mut now_ns = 1_700_000_000_000_000_000;
        let made: Vec<(Timestamp, Vec<u8>)> = sent
            .iter()
            .map(|one| {
                now_ns += u64::from(one.after_ms) * 1_000_000 + 1;
                (Timestamp::from_nanos(now_ns), frame(one))
            })
            .collect();
        let frames: Vec<Frame<'_>> = made
            .iter()
            .map(|(ts, data)| Frame {
                ts: *ts,
                wire_len: data.len() as u32,
                link: LinkType::ETHERNET,
                interface: 0,
                data,
            })
            .collect();
        let (expected, ledger) = run(&frames, &cuts, 0, false);
        prop_assert!(ledger.balanced, "{ledger:#?}");
        for (workers, is_live) in (1..=4).flat_map(|workers| [(workers, false), (workers, true)]) {
            let (found, ledger) = run(&frames, &other_cuts, workers, is_live);
            prop_assert!(ledger.balanced, "{workers} workers: {ledger:#?}");
            // The whole lists would drown what differs.
            let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
            let extra: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
            let is_same = found == expected;
            prop_assert!(is_same, "{workers} workers: not {extra:#?} but {missing:#?}");
        }
    }
}
