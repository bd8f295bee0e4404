//! Trails: whatever is in a file, what is found in several places at once is what is found one after the other.

use proptest::prelude::*;

use super::pcap::VARIANTS;
use super::pcapng::{Odd, filled_ng, odd};
use super::streams::Directory;
use super::stretches::filled;
use super::*;
use crate::capture::stretch::Stretches;

/// The least that all trails of a file of small frames find at once.
const WINDOW_BYTES_MIN: usize = 500 * 1024;

/// Frames with where each begins, how many there were at a time, and why it was over.
type Parsed = (Vec<(usize, Seen)>, Vec<usize>, String);

/// A file's format, and where its first record may begin.
fn format(bytes: &[u8]) -> (Format, usize) {
    if PcapNg::is(*bytes.first_chunk().unwrap()) {
        return (Format::PcapNg(Box::new(PcapNg::new(7, 9))), 0);
    }
    let pcap = Pcap::new(bytes.first_chunk().unwrap(), 7).unwrap();
    (Format::Pcap(pcap), HEADER_BYTES)
}

/// The first of them tell what frames there are, and then up to `max` at a time come.
fn parsed(bytes: &[u8], ahead: Ahead, max: usize) -> Parsed {
    parsed_asking(bytes, ahead, max, 0)
}

/// The same where so many eighths of a frame are asked for behind each batch.
fn parsed_asking(bytes: &[u8], mut ahead: Ahead, max: usize, eighths: usize) -> Parsed {
    let (mut format, mut at) = format(bytes);
    let (mut frames, mut counts) = (Vec::new(), Vec::new());
    loop {
        let max = if frames.is_empty() { BATCH_FRAMES_MAX } else { max };
        let before = frames.len();
        let (used, stop) = format.parse(&bytes[at..], &mut ahead, max, |frame, data_at| {
            frames.push((at + data_at, seen(&frame)));
        });
        at += used;
        Upcoming::new(&mut ahead, &format, &bytes[at..]).ask(eighths);
        counts.push(frames.len() - before);
        let why = match stop {
            Stop::Full => continue,
            Stop::Starved { what, needed } => format!("{what}, {needed} bytes, at {at}"),
            Stop::Broken(reason) => format!("{reason} at {at}"),
        };
        return (frames, counts, why);
    }
}

/// What the trails found at a time, all of which was there.
fn found(bytes: &[u8]) -> Vec<usize> {
    let (frames, counts, why) = parsed(bytes, Ahead::far(), usize::MAX);
    let (one_by_one, _, same) = parsed(bytes, Ahead::at_hand(), usize::MAX);
    assert!(frames == one_by_one, "{} frames for {}", frames.len(), one_by_one.len());
    assert_eq!(why, same);
    // However far it was looked ahead while batches were worked on.
    for eighths in [1, 8, 700, 8 * BATCH_FRAMES_MAX, usize::MAX] {
        let (asked, _, same) = parsed_asking(bytes, Ahead::far(), BATCH_FRAMES_MAX, eighths);
        assert!(asked == one_by_one, "{} frames for {}", asked.len(), one_by_one.len());
        assert_eq!(why, same);
    }
    counts
}

#[test]
fn all_trails_of_every_variant_find_their_records() {
    for variant in VARIANTS {
        let lengths = (0..6_000).map(|n| 60 + n * 7 % 1_400);
        let bytes = filled(variant, lengths, b"GET / HTTP/1.1\r\n\0\0\0\0");
        let counts = found(&bytes);
        let windows = bytes.len() / WINDOW_BYTES_MIN;
        assert!(windows > 5 && counts.len() <= windows + 3, "{variant:?}: {counts:?}");
    }
}

/// Every frame looks like the begin of a block, but is none.
#[test]
fn trails_of_pcapng_find_its_packet_blocks() {
    for big in [false, true] {
        let lengths = (0..6_000).map(|n| 60 + n * 7 % 1_400);
        let content = b"GET / HTTP/1.1\r\n\x06\0\0\0\x40\0\0\0\0\0\0\x06\0\0\0\x40\0\0\0\0";
        let bytes = filled_ng(big, [1, 101], lengths, content).bytes;
        let counts = found(&bytes);
        let windows = bytes.len() / WINDOW_BYTES_MIN;
        assert!(windows > 5 && counts.len() <= windows + 4, "{counts:?}");
    }
}

/// What a block's end says is not looked at by who follows a trail, but by who comes along it.
#[test]
fn a_second_length_that_is_wrong_is_told_where_it_is() {
    for at in [100, 150, 1_000, 1_999] {
        let writer = filled_ng(false, [1, 101], std::iter::repeat_n(500, 2_000), b"x");
        let mut bytes = writer.bytes;
        let block_bytes = 28 + 500 + 4;
        let first = bytes.len() - 2_000 * block_bytes;
        bytes[first + (at + 1) * block_bytes - 4] ^= 1;
        let (frames, _, why) = parsed(&bytes, Ahead::far(), usize::MAX);
        assert_eq!(frames.len(), at);
        let place = first + at * block_bytes;
        let damage = "length is 532 at its start and 533 at its end";
        assert!(why.contains(damage) && why.ends_with(&format!("at {place}")), "{why}");
        found(&bytes);
    }
}

/// Also when that one was found along a trail.
#[test]
fn a_frame_without_a_time_is_as_late_as_the_one_before_it() {
    let mut writer = filled_ng(false, [1, 101], std::iter::repeat_n(500, 2_000), b"x");
    writer.simple(40, &[3; 40]);
    for number in 0..2_000 {
        writer.enhanced(0, 1 << 51 | number, 500, &[b'x'; 500]);
    }
    let frames = parsed(&writer.bytes, Ahead::far(), usize::MAX).0;
    let nanos = |at: usize| frames[at].1.nanos;
    assert_eq!(nanos(2_000), nanos(1_999));
    assert!(nanos(1_997) < nanos(1_999) && nanos(2_000) < nanos(2_001));
    let counts = found(&writer.bytes);
    assert!(counts.len() < 20, "{counts:?}");
}

#[test]
fn small_and_huge_frames_are_found_one_after_the_other() {
    for length in [0, 60, 100, 20_000] {
        let bytes = filled(VARIANTS[0], std::iter::repeat_n(length, 1_000), b"x");
        assert_eq!(found(&bytes), [BATCH_FRAMES_MAX, 1_000 - BATCH_FRAMES_MAX], "{length}");
    }
}

/// A trail that is passed over by one frame is nobody's, and the next one goes on.
#[test]
fn a_frame_may_be_longer_than_a_trail() {
    let lengths = (0..2_000).map(|n| if n % 100 == 99 { 100_000 } else { 600 });
    let bytes = filled(VARIANTS[0], lengths, b"x");
    let counts = found(&bytes);
    assert!(counts.len() <= bytes.len() / WINDOW_BYTES_MIN + 5, "{counts:?}");
}

/// Each guess is at a record of the capture that the frames hold. Who was deceived goes on one by one, and tries again later.
#[test]
fn a_capture_within_a_capture_is_not_taken_for_it() {
    let inner = filled(VARIANTS[0], std::iter::repeat_n(30, 40), b"x");
    let bytes = filled(VARIANTS[0], std::iter::repeat_n(inner.len(), 3_000), &inner);
    let a_trail = 32 * 1024 / inner.len();
    let counts = parsed(&bytes, Ahead::far(), BATCH_FRAMES_MAX).1;
    let deceived = counts.iter().filter(|count| (1..=a_trail + 1).contains(*count)).count();
    let windows = bytes.len() / WINDOW_BYTES_MIN;
    assert!((windows / 3..=windows).contains(&deceived), "{deceived} of {windows}: {counts:?}");
    found(&bytes);
}

/// What records are known by changes, or is in every frame.
#[test]
fn times_may_be_anything() {
    for (first, step) in [(0x6900_ff00, 1), (0, 0), (0x6969_6969, 0), (5, 0x10_0000)] {
        let mut bytes = VARIANTS[0].header(1);
        for number in 0..3_000u32 {
            let seconds = first + number * step % 0x7000_0000;
            bytes.extend(VARIANTS[0].record(
                seconds,
                7,
                500,
                500,
                &[seconds.to_le_bytes()[3]; 500],
            ));
        }
        found(&bytes);
    }
}

/// Whatever was found for a batch, the next one of another kind goes on where it ended.
#[test]
fn a_file_may_be_read_in_turns_of_any_kind() {
    let lengths = (0..6_000).map(|n| 60 + n * 7 % 1_400);
    let bytes = filled(VARIANTS[0], lengths, b"GET / HTTP/1.1\r\n");
    let directory = Directory::new("turns");
    let file = directory.file("x.pcap", &bytes);
    let mut files = CaptureFiles::open(&[&file], OpenOptions::new()).unwrap();
    let mut read = Vec::new();
    for turn in 0.. {
        let take = |frames: &[Frame<'_>]| read.extend(frames.iter().map(seen));
        let batch = match (turn % 3, files.place()) {
            (0, Some(place)) => files.with_batch_before(place + 1 + turn * 97 % 10_000, take),
            _ => files.with_batch(take),
        };
        if batch.unwrap().is_none() {
            break;
        }
    }
    let (one_by_one, errors) = drained(CaptureFiles::from_bytes("x", bytes).unwrap());
    assert!(read == one_by_one, "{} frames for {}", read.len(), one_by_one.len());
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn files_of_large_frames_are_merged_like_any_others() {
    let directory = Directory::new("merged");
    let bytes = [7, 11].map(|step| {
        let lengths = (0..2_000).map(move |n| 60 + n * step % 1_400);
        filled(VARIANTS[0], lengths, b"GET / HTTP/1.1\r\n")
    });
    let files = [0, 1].map(|at| directory.file(&format!("{at}.pcap"), &bytes[at]));
    let mapped = drained(CaptureFiles::open(&files, OpenOptions::new()).unwrap());
    let read = drained(CaptureFiles::open(&files, OpenOptions::new().mmap(false)).unwrap());
    assert_eq!(mapped.0.len(), 4_000);
    assert!(mapped == read, "mapped and read differ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Blocks of any kind between packets of any length, damage and ends of any kind.
    #[test]
    fn any_blocks_are_found(
        lengths in prop::collection::vec(
            prop_oneof![8 => 200..1_600usize, 2 => 0..20usize, 1 => 2_000..70_000usize],
            1..60,
        ),
        frames in 1..3_000usize,
        content in prop::collection::vec(prop_oneof![Just(0u8), Just(6), any::<u8>()], 1..200),
        big in any::<bool>(),
        odd in prop::collection::vec((0..3_000usize, odd()), 0..6),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<[u8; 4]>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let lengths = lengths.into_iter().cycle().take(frames);
        let mut bytes = Odd::among(&odd, big, lengths, &content);
        if let Some((at, wrong)) = damage {
            let at = 4 + at.index(bytes.len() - 8);
            bytes[at..at + 4].copy_from_slice(&wrong);
        }
        if let Some(cut) = cut {
            bytes.truncate(4 + cut.index(bytes.len() - 3));
        }
        found(&bytes);
        let directory = Directory::new("blocks");
        let file = directory.file("x.pcapng", &bytes);
        let mapped = drained(CaptureFiles::open(&[&file], OpenOptions::new()).unwrap());
        let read = drained(CaptureFiles::open(&[&file], OpenOptions::new().mmap(false)).unwrap());
        prop_assert!(mapped == read, "mapped and read differ");
    }

    /// Lengths, content, damage and ends of any kind.
    #[test]
    fn any_records_are_found(
        lengths in prop::collection::vec(
            prop_oneof![8 => 200..1_600usize, 2 => 0..20usize, 1 => 2_000..70_000usize],
            1..60,
        ),
        frames in 1..3_000usize,
        content in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 1..200),
        variant in prop::sample::select(&VARIANTS[..]),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<[u8; 4]>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let lengths = lengths.into_iter().cycle().take(frames);
        let mut bytes = filled(variant, lengths, &content);
        if let Some((at, wrong)) = damage && bytes.len() > HEADER_BYTES + 4 {
            let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES - 4);
            bytes[at..at + 4].copy_from_slice(&wrong);
        }
        if let Some(cut) = cut {
            bytes.truncate(HEADER_BYTES + cut.index(bytes.len() - HEADER_BYTES + 1));
        }
        found(&bytes);
    }
}
