//! Reassembled streams against those of the reference captures: per TCP connection and direction,
//! how many bytes, how many before the first hole, and the SHA-256 of those.
//!
//! Differences that are decisions, and their reasons, are in `docs/DECISIONS.md`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use flowscope::capture::Capture;
use flowscope::capture::file::{CaptureFiles, OpenOptions};
use flowscope::flow::{ByFiveTuple, FlowId, FlowKey, IdleTimeouts};
use flowscope::net::Side;
use flowscope::reassembly::{ReassemblyConfig, StreamSink};
use flowscope::{FlowDriver, FlowEvent, TrackerConfig};
use sha2::{Digest, Sha256};

/// Long enough for every pause in the captures; tshark parts no connections by time.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Source address and port, destination address and port.
type Direction = (String, u16, String, u16);

/// One stream, ours or expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Distinct bytes.
    total: u64,
    /// Bytes before the first hole.
    contig: u64,
    /// Of the contiguous bytes; empty when there are none, or they are not known.
    sha256: String,
    /// Some segments were cut by the snapshot length.
    is_cut: bool,
}

#[derive(Default)]
struct Recording {
    total: u64,
    contig: u64,
    hasher: Sha256,
    next: u64,
    has_hole: bool,
    ends: u32,
}

/// The streams of live flows, by key.
#[derive(Default)]
struct Recorder(RefCell<HashMap<FlowKey, [Recording; 2]>>);

impl StreamSink<FlowKey> for &Recorder {
    fn data(&mut self, key: &FlowKey, _: FlowId, side: Side, offset: u64, bytes: &[u8]) {
        let mut live = self.0.borrow_mut();
        let recording = &mut live.entry(*key).or_default()[side as usize];
        assert_eq!(recording.next, offset, "told out of order");
        assert!(!bytes.is_empty() && recording.ends == 0);
        recording.next += bytes.len() as u64;
        recording.total += bytes.len() as u64;
        if !recording.has_hole {
            recording.contig += bytes.len() as u64;
            recording.hasher.update(bytes);
        }
    }

    fn gap(&mut self, key: &FlowKey, _: FlowId, side: Side, offset: u64, len: u64) {
        let mut live = self.0.borrow_mut();
        let recording = &mut live.entry(*key).or_default()[side as usize];
        assert_eq!(recording.next, offset, "told out of order");
        assert!(len > 0 && recording.ends == 0);
        recording.next += len;
        recording.has_hole = true;
    }

    fn end(&mut self, key: &FlowKey, _: FlowId, side: Side, offset: u64) {
        let mut live = self.0.borrow_mut();
        let recording = &mut live.entry(*key).or_default()[side as usize];
        assert_eq!((recording.next, recording.ends), (offset, 0));
        recording.ends += 1;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The streams of a capture that carry data, in the order of their connections.
fn reassemble(path: &Path, config: ReassemblyConfig) -> BTreeMap<Direction, Vec<Outcome>> {
    let idle = IdleTimeouts {
        tcp_embryonic: FOREVER,
        tcp_established: FOREVER,
        tcp_half_closed: FOREVER,
        ..IdleTimeouts::default()
    };
    let tracker = TrackerConfig { idle, active_timeout: None, ..TrackerConfig::default() };
    let mut driver = FlowDriver::new(ByFiveTuple::default(), tracker, config).unwrap();
    let mut capture = CaptureFiles::open(&[path], OpenOptions::new()).unwrap();
    let recorder = Recorder::default();
    let mut outcomes: BTreeMap<Direction, Vec<Outcome>> = BTreeMap::new();
    let mut sink = |event| {
        let FlowEvent::Ended { key, stats, .. } = event else { return };
        let Some(recordings) = recorder.0.borrow_mut().remove(&key) else { return };
        for (side, recording) in Side::BOTH.into_iter().zip(recordings) {
            let end = match side {
                Side::Initiator => stats.initiator_end,
                Side::Responder => stats.initiator_end.other(),
            };
            let seen = key.from_end(end);
            let ip = |addr: flowscope::net::Addr| addr.to_ip(seen.version).to_string();
            let direction = (ip(seen.src), seen.src_port, ip(seen.dst), seen.dst_port);
            if recording.total > 0 {
                let sha256 = match recording.contig {
                    0 => String::new(),
                    _ => hex(&recording.hasher.finalize()),
                };
                outcomes.entry(direction).or_default().push(Outcome {
                    total: recording.total,
                    contig: recording.contig,
                    sha256,
                    is_cut: false,
                });
            }
        }
    };
    while capture
        .with_batch(|frames| driver.process(frames, &mut &recorder, &mut sink))
        .unwrap()
        .is_some()
    {}
    driver.drain(&mut &recorder, &mut sink);
    let reassembler = driver.reassembler();
    assert_eq!((reassembler.flows(), reassembler.held_bytes()), (0, 0), "left over");
    assert!(recorder.0.borrow().is_empty(), "streams that never ended");
    outcomes
}

/// What the oracle found, those that carry data, in the order of their connections.
fn expected(path: &Path) -> BTreeMap<Direction, Vec<Outcome>> {
    let mut outcomes: BTreeMap<Direction, Vec<Outcome>> = BTreeMap::new();
    let table = std::fs::read_to_string(path).unwrap();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_, src, sport, dst, dport, total, contig, _, sha256, _, tags] = fields[..] else {
            panic!("{}: {line}", path.display());
        };
        let number = |text: &str| text.parse::<u64>().unwrap();
        let direction =
            (src.to_owned(), number(sport) as u16, dst.to_owned(), number(dport) as u16);
        let is_cut = tags.split(',').any(|tag| tag == "trunc");
        let (total, contig) = (number(total), number(contig));
        if total > 0 || is_cut {
            let known = contig > 0 && !is_cut;
            let sha256 = if known { sha256.to_owned() } else { String::new() };
            outcomes.entry(direction).or_default().push(Outcome { total, contig, sha256, is_cut });
        }
    }
    outcomes
}

/// Whether ours is what was expected. The oracle leaves out segments that the snapshot length
/// cut; we tell what was captured of them, so there is at least as much.
fn agrees(ours: &Outcome, theirs: &Outcome) -> bool {
    if theirs.is_cut { ours.total >= theirs.total } else { ours == theirs }
}

/// Only true holes are skipped.
fn patient() -> ReassemblyConfig {
    ReassemblyConfig {
        side_bytes_max: 1 << 30,
        total_bytes_max: 1 << 30,
        window_bytes: 1 << 30,
        gap_timeout: FOREVER,
        acked_gap_timeout: FOREVER,
        ..ReassemblyConfig::default()
    }
}

#[test]
fn reassembled_streams_are_those_of_the_reference() {
    let Some(dir) = super::reference() else { return };
    let suffix = ".outer.streams.tsv";
    let mut names: Vec<String> = std::fs::read_dir(dir.join("expected"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no expected streams");
    let mut differences = String::new();
    let (mut streams, mut cut) = (0, 0);
    for name in &names {
        let expected = expected(&dir.join("expected").join(format!("{name}{suffix}")));
        let ours = reassemble(&dir.join("captures").join(name), patient());
        let mut directions: Vec<_> = expected.keys().chain(ours.keys()).collect();
        directions.sort();
        directions.dedup();
        for direction in directions {
            let none = Vec::new();
            let theirs = expected.get(direction).unwrap_or(&none);
            let mine = ours.get(direction).unwrap_or(&none);
            streams += theirs.len();
            cut += theirs.iter().filter(|outcome| outcome.is_cut).count();
            let same = mine.len() == theirs.len()
                && mine.iter().zip(theirs).all(|(mine, theirs)| agrees(mine, theirs));
            // A cut stream of which nothing was captured carries no data for us.
            let nothing = mine.is_empty() && theirs.iter().all(|o| o.is_cut && o.total == 0);
            if !same && !nothing {
                let _ = writeln!(
                    differences,
                    "{name} {direction:?}\n  ours     {mine:?}\n  expected {theirs:?}"
                );
            }
        }
    }
    assert!(differences.is_empty(), "streams that differ:\n{differences}");
    eprintln!("{streams} streams of {} captures agree, {cut} of them cut", names.len());
}
