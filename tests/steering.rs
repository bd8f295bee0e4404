//! Software steering against one tracker: whatever comes, in whatever batches, any number of workers makes the same records.

use std::io::Write;
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;
use flowscope::capture::stretch::{Pick, Picks, Scout, Stretches};
use flowscope::capture::{BATCH_FRAMES_MAX, Capture, CaptureError, Upcoming};
use flowscope::export::sink::{Opened, WrittenBy};
use flowscope::export::{RecordWriter, Sink, WhenFull};
use flowscope::flow::ingest::Ingest;
use flowscope::flow::{ByFiveTuple, FlowTracker};
use flowscope::sensor::cores::Pinning;
use flowscope::sensor::direct::Direct;
use flowscope::sensor::ledger::Ledger;
use flowscope::sensor::read::{Position, ReadLoop, Stage};
use flowscope::sensor::shard::{Board, Pulse, ReaderFigures, Thread};
use flowscope::sensor::steer::{Reading, Steer, WorkerParts, read_in_shares};
use flowscope::sensor::stop::Stop;
use flowscope::{Frame, LinkType, Timestamp, TrackerConfig};
use proptest::prelude::*;

/// One frame, by what is special in it.
#[derive(Clone, Debug)]
enum Kind {
    Udp {
        bytes: u8,
    },
    /// The same behind a VLAN tag.
    Tagged {
        bytes: u8,
    },
    /// A datagram over IPv6, which is another flow.
    Wide {
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
        1 => any::<u8>().prop_map(|bytes| Kind::Tagged { bytes }),
        2 => any::<u8>().prop_map(|bytes| Kind::Wide { bytes }),
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

fn says() -> impl Strategy<Value = Says> {
    prop_oneof![
        6 => Just(Says::Truth),
        1 => Just(Says::Nothing),
        1 => Just(Says::BeginsLate),
        1 => Just(Says::EndsEarly),
    ]
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

fn ipv6(proto: u8, (flow, back): (u8, bool), rest: &[u8]) -> Vec<u8> {
    let (near, far) = ([[0x20; 15].as_slice(), &[flow]].concat(), [0xfd; 16].to_vec());
    let (src, dst) = if back { (far, near) } else { (near, far) };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([proto, 64]);
    packet.extend([src, dst].concat());
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
        Kind::Udp { bytes } | Kind::Tagged { bytes } => {
            ipv4(17, 0, 0, (flow, back), &udp(usize::from(bytes)))
        }
        Kind::Tcp { flags, seq, ack, bytes } => {
            let mut segment = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            segment.extend((u32::from(seq) * 4).to_be_bytes());
            segment.extend((u32::from(ack) * 4).to_be_bytes());
            segment.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
            segment.resize(20 + usize::from(bytes), 7);
            ipv4(6, 0, 0, (flow, back), &segment)
        }
        Kind::Wide { bytes } => ipv6(17, (flow, back), &udp(usize::from(bytes))),
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
    let tag: &[u8] = if let Kind::Tagged { .. } = kind { &[0x81, 0, 0, 7] } else { &[] };
    let ether_type = if let Kind::Wide { .. } = kind { [0x86, 0xdd] } else { [8, 0] };
    [&[2; 12][..], tag, &ether_type, &packet].concat()
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

/// Who reads and who tracks.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One thread does both.
    Direct,
    /// A reader for so many workers; whether it reads what does not wait.
    Steered(usize, bool),
    /// So many workers that each read everything, or find it together. One of them is told to stop once it has read so many frames.
    Shares(usize, Option<u64>, bool),
}

/// Frames in batches of these sizes, again and again. Their places are their numbers.
struct Cut<'a> {
    frames: &'a [Frame<'a>],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    given: u64,
    /// Who is told to stop once so many frames were given.
    stop: Option<(u64, Stop)>,
    /// What its scouts say of one stretch after the other, again and again; without any it has none.
    says: &'a [Says],
}

/// What a scout says of a stretch.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// All there is.
    Truth,
    /// That it cannot tell.
    Nothing,
    /// That it begins with its second frame.
    BeginsLate,
    /// That it is over before its last frame.
    EndsEarly,
}

impl<'a> Cut<'a> {
    fn new(frames: &'a [Frame<'a>], sizes: &'a [usize], says: &'a [Says]) -> Self {
        Self { frames, sizes: sizes.iter().cycle(), given: 0, stop: None, says }
    }

    fn give(&mut self, frames: u64) {
        self.given += frames;
        if let Some((_, stop)) = self.stop.take_if(|(at, _)| *at <= self.given) {
            stop.raise();
        }
    }
}

impl Capture for Cut<'_> {
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        self.with_batch_before(u64::MAX, f)
    }
}

impl<'a> Stretches for Cut<'a> {
    const STRETCH: u64 = 16;

    type Scout = Teller<'a>;

    fn scout(&self) -> Option<Teller<'a>> {
        (!self.says.is_empty()).then_some(Teller { frames: self.frames, says: self.says })
    }

    fn place(&mut self) -> Option<u64> {
        (self.given < self.frames.len() as u64).then_some(self.given)
    }

    fn with_batch_before<R>(
        &mut self,
        end: u64,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        let end = end.min(self.frames.len() as u64) as usize;
        let rest = &self.frames[(self.given as usize).min(end)..end];
        let size = self.sizes.next().unwrap_or(&1);
        let batch = &rest[..(*size).clamp(1, BATCH_FRAMES_MAX).min(rest.len())];
        if batch.is_empty() {
            return Ok(None);
        }
        self.give(batch.len() as u64);
        Ok(Some(f(batch)))
    }

    fn pick(&mut self, picks: Picks<'_>, mut f: impl FnMut(&[Frame<'_>], &[Pick])) {
        for some in picks.picks.chunks(5) {
            let frame = |pick: &Pick| {
                self.frames[(picks.stretch * Self::STRETCH) as usize + pick.at as usize]
            };
            f(&some.iter().map(frame).collect::<Vec<_>>(), some);
        }
        self.give(picks.frames);
        assert_eq!(self.given, picks.end);
    }
}

/// Looks through stretches, and says this and that of them.
struct Teller<'a> {
    frames: &'a [Frame<'a>],
    says: &'a [Says],
}

impl Scout for Teller<'_> {
    fn link(&self) -> LinkType {
        LinkType::ETHERNET
    }

    fn look_through(
        &mut self,
        stretch: u64,
        mut take: impl FnMut(&Frame<'_>, u32),
    ) -> Option<std::ops::Range<u64>> {
        let from = stretch as usize * Cut::STRETCH as usize;
        let end = self.frames.len().min(from + Cut::STRETCH as usize);
        let found = match self.says[stretch as usize % self.says.len()] {
            Says::Truth => from..end,
            Says::Nothing => return None,
            Says::BeginsLate => from + 1..end,
            Says::EndsEarly => from..end.saturating_sub(1).max(from),
        };
        for place in found.clone() {
            take(&self.frames[place], (place - from) as u32);
        }
        Some(found.start as u64..found.end as u64)
    }
}

/// Now and then flushed, as a source that is quiet for a while does it.
struct Flushed(Steer, usize);

impl Stage for Flushed {
    fn frames(&mut self, frames: &[Frame<'_>], upcoming: &mut Upcoming<'_>) {
        self.1 = frames.len();
        self.0.frames(frames, upcoming);
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        self.0.tick(now, figures);
        if self.1.is_multiple_of(3) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.0.flush();
    }
}

/// What a run came to.
struct Ran {
    /// Sorted.
    records: Vec<String>,
    ledger: Ledger,
    /// How many frames were looked at.
    frames: usize,
}

/// `cuts` say how the frames are cut into batches, and `others` how for all workers but the first, where each reads for itself.
fn run(
    frames: &[Frame<'_>],
    (cuts, others): (&[usize], &[usize]),
    says: &[Says],
    shape: Shape,
) -> Ran {
    let active_timeout = Some(std::time::Duration::from_secs(3));
    let config = TrackerConfig { active_timeout, ..TrackerConfig::default() };
    run_with(&config, frames, (cuts, others), says, shape)
}

fn run_with(
    config: &TrackerConfig,
    frames: &[Frame<'_>],
    (cuts, others): (&[usize], &[usize]),
    says: &[Says],
    shape: Shape,
) -> Ran {
    let (workers, is_live) = match shape {
        Shape::Direct => (1, false),
        Shape::Steered(workers, is_live) => (workers, is_live),
        Shape::Shares(workers, ..) => (workers, false),
    };
    let text = Text::default();
    let mut sink =
        Sink::start(Opened::of("memory".to_owned(), text.clone()), WrittenBy::Thread).unwrap();
    let board = Board::new(workers, workers, vec![("memory".to_owned(), sink.handle())]);
    let parts = |worker: usize| WorkerParts {
        tracking: FlowTracker::new(ByFiveTuple::default(), config.clone()).unwrap(),
        records: RecordWriter::new(vec![sink.handle()], true, WhenFull::Wait),
        shard: Arc::clone(&board.workers[worker]),
        live: is_live.then(|| Arc::new(CachePadded::new(Pulse::new(Thread::Worker(worker))))),
    };
    let ingest = || Ingest::new(ByFiveTuple::default(), config);
    let stop = Stop::new();
    let looping = |number: usize| {
        let shard = Arc::clone(&board.readers[number]);
        ReadLoop::new(None, None, stop.clone(), board.clone(), shard)
    };
    let says = if matches!(shape, Shape::Shares(.., true)) { says } else { &[] };
    let mut first = Reading { reading: looping(0), capture: Cut::new(frames, cuts, says) };
    let position = |capture: &Cut<'_>| Position { frames: capture.given, ..Position::default() };
    let Reading { reading, capture } = &mut first;
    match shape {
        Shape::Direct => {
            let WorkerParts { tracking, records, shard, .. } = parts(0);
            let mut direct = Direct::new(tracking, records, shard);
            reading.run(capture, &mut direct, position);
            direct.finish(reading.now(), reading.figures());
        }
        Shape::Steered(..) => {
            let parts = (0..workers).map(parts).collect();
            let mut steer = Flushed(Steer::start(ingest(), parts, &Pinning::default()).unwrap(), 0);
            reading.run(capture, &mut steer, position);
            steer.0.finish(reading.now(), reading.figures()).unwrap();
        }
        Shape::Shares(_, stop_at, _) => {
            let beside = |number| {
                let reading = looping(number).beside();
                Reading { reading, capture: Cut::new(frames, others, says) }
            };
            let mut others: Vec<_> = (1..workers).map(beside).collect();
            let told = others.last_mut().unwrap_or(&mut first);
            told.capture.stop = stop_at.map(|at| (at, stop.clone()));
            let parts = (0..workers).map(parts).collect();
            let pinning = Pinning::default();
            read_in_shares(&mut first, others, position, ingest, parts, &pinning).unwrap();
        }
    }
    first.reading.store();
    sink.finish();
    let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    let mut records: Vec<_> = text.lines().map(str::to_owned).collect();
    records.sort();
    let figures = board.figures();
    let frames = figures.reader.delivered as usize;
    Ran { records, ledger: Ledger::at_end(&figures), frames }
}

/// The whole lists would drown what differs.
fn assert_same(found: &Ran, expected: &Ran, shape: Shape) {
    assert!(found.ledger.balanced, "{shape:?}: {:#?}", found.ledger);
    let missing: Vec<_> = lacking(&expected.records, &found.records);
    let extra: Vec<_> = lacking(&found.records, &expected.records);
    assert!(found.records == expected.records, "{shape:?}: not {extra:#?} but {missing:#?}");
}

fn lacking<'a>(records: &'a [String], of: &[String]) -> Vec<&'a String> {
    records.iter().filter(|line| !of.contains(line)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_number_of_workers_makes_the_records_of_one(
        sent in prop::collection::vec(sent(), 1..400),
        cuts in prop::collection::vec(1..90usize, 1..12),
        other_cuts in prop_oneof![
            prop::collection::vec(1..300usize, 1..12),
            prop::collection::vec(1..3usize, 1..3),
        ],
        says in prop::collection::vec(says(), 1..9),
        stop_at in 1..300u64,
        goes_back_ms in prop::collection::vec(0..200u64, 1..5),
    ) {
        let mut now_ns = 1_700_000_000_000_000_000;
        // A capture's times need not be in order.
        let back_ns = goes_back_ms.iter().map(|&ms| ms.saturating_sub(100) * 1_000_000).cycle();
        let made: Vec<_> = sent
            .iter()
            .zip(back_ns)
            .map(|(one, back_ns)| {
                now_ns += u64::from(one.after_ms) * 1_000_000 + 1;
                (Timestamp::from_nanos(now_ns - back_ns), frame(one))
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
        let expected = run(&frames, (&cuts, &[]), &says, Shape::Direct);
        assert!(expected.ledger.balanced, "{:#?}", expected.ledger);
        for workers in 1..=4 {
            let shapes = [
                Shape::Steered(workers, false),
                Shape::Steered(workers, true),
                Shape::Shares(workers, None, false),
                Shape::Shares(workers, None, true),
            ];
            for shape in shapes {
                let found = run(&frames, (&other_cuts, &cuts), &says, shape);
                assert_eq!(found.frames, frames.len());
                assert_same(&found, &expected, shape);
            }
            // Told to stop, they agree on where.
            for together in [false, true] {
                let shape = Shape::Shares(workers, Some(stop_at), together);
                let found = run(&frames, (&other_cuts, &cuts), &says, shape);
                let least = frames.len().min(stop_at as usize);
                assert!(found.frames >= least, "{shape:?}: {}", found.frames);
                let expected = run(&frames[..found.frames], (&cuts, &[]), &says, Shape::Direct);
                assert_same(&found, &expected, shape);
            }
        }
    }
}

/// Six flows, long nothing, and then the same flows again, three seconds behind a frame of a seventh one.
#[test]
fn a_frame_that_comes_late_is_judged_by_the_latest_time_of_all() {
    let sent = |flow| frame(&Sent { kind: Kind::Udp { bytes: 4 }, flow, back: false, after_ms: 0 });
    let data: Vec<_> = (0..7).map(sent).collect();
    let mut counts = std::collections::BTreeSet::new();
    for silence_s in 4..400u64 {
        let first = (0..6).map(|flow| (flow, 0));
        let again = (0..6).map(|flow| (flow, silence_s - 3));
        let frames: Vec<_> = first
            .chain([(6, silence_s)])
            .chain(again)
            .map(|(flow, second)| Frame {
                ts: Timestamp::new(1_700_000_000 + second, 0),
                wire_len: data[flow].len() as u32,
                link: LinkType::ETHERNET,
                interface: 0,
                data: &data[flow],
            })
            .collect();
        let config = TrackerConfig { active_timeout: None, ..TrackerConfig::default() };
        let cuts = [frames.len()];
        let run = |shape| run_with(&config, &frames, (&cuts, &cuts), &[Says::Truth], shape);
        let (expected, shape) = (run(Shape::Direct), Shape::Shares(2, None, true));
        assert_same(&run(shape), &expected, shape);
        counts.insert(expected.records.len());
    }
    assert_eq!(counts, [13, 7].into(), "flows that are over by then, and flows that are not");
}
