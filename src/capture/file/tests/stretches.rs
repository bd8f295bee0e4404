//! Stretches: whatever is in a file, what scouts find and what is read where they were wrong is what is read from the beginning.

use std::path::PathBuf;

use proptest::prelude::*;

use super::pcap::{VARIANTS, Variant, plain};
use super::pcapng::{Odd, Writer, filled_ng, odd};
use super::streams::Directory;
use super::*;
use crate::capture::stretch::{Pick, Picks, Scout, Stretches, Tally};

/// How a file's stretches were read.
#[derive(Default)]
struct Read {
    seen: Vec<Seen>,
    errors: Vec<String>,
    /// Stretches that began where the one before them ended.
    right: usize,
    /// Batches of others.
    wrong: usize,
}

/// What a worker of several does, for all of them: of each stretch every third frame is looked at again, in three turns.
fn in_stretches(files: &mut CaptureFiles) -> Read {
    let mut read = Read::default();
    let mut scout = files.scout();
    while let Some(place) = files.place() {
        let stretch = place / CaptureFiles::STRETCH;
        let (mut picks, mut tally) = (Vec::new(), Tally::default());
        let found = scout.as_mut().map(|scout| {
            scout.look_through(stretch, |frame, at| {
                tally.add(frame);
                picks.push(Pick { at, late_ns: 0 });
            })
        });
        match found.flatten() {
            Some(found) if found.start == place && found.end > place => {
                read.right += 1;
                let frames = tally.frames;
                let mut thirds = [const { Vec::new() }; 3];
                for (turn, third) in thirds.iter_mut().enumerate() {
                    let picks: Vec<_> = picks.iter().skip(turn).step_by(3).copied().collect();
                    files.pick(
                        Picks { stretch, picks: &picks, end: found.end, frames },
                        |frames, picks| {
                            assert_eq!(frames.len(), picks.len());
                            third.extend(frames.iter().map(seen));
                        },
                    );
                }
                // Three turns have counted them three times.
                files.frames -= 2 * frames;
                let each = |at: usize| thirds[at % 3][at / 3].clone();
                read.seen.extend((0..picks.len()).map(each));
            }
            _ => {
                let end = (stretch + 1) * CaptureFiles::STRETCH;
                match files.with_batch_before(end, |frames| frames.iter().map(seen).collect()) {
                    Ok(Some(frames)) => {
                        read.wrong += 1;
                        read.seen.extend::<Vec<_>>(frames);
                    }
                    Ok(None) => break,
                    Err(error) => read.errors.push(error.to_string()),
                }
            }
        }
    }
    // What has no stretches any more.
    loop {
        match files.with_batch(|frames| read.seen.extend(frames.iter().map(seen))) {
            Ok(Some(())) => read.wrong += 1,
            Ok(None) => break,
            Err(error) => read.errors.push(error.to_string()),
        }
    }
    assert!(matches!(files.with_batch(|_| ()), Ok(None)), "the end stays the end");
    assert_eq!(files.frames(), read.seen.len() as u64);
    read
}

/// Of a file that must be mapped; `None`, loudly, where none can be.
fn both_ways(test: &str, bytes: &[u8]) -> Option<Read> {
    let directory = Directory::new(test);
    let file = directory.file("x.pcap", bytes);
    let open = || CaptureFiles::open(&[&file], OpenOptions::new()).unwrap();
    let mut files = open();
    if files.place().is_none() {
        eprintln!("skipped: {test}: no file is mapped here");
        assert!(std::env::var_os("CI").is_none(), "CI must not skip this");
        return None;
    }
    let (seen, errors) = drained(open());
    let one_by_one = drained(CaptureFiles::open(&[&file], OpenOptions::new().mmap(false)).unwrap());
    assert!((&seen, &errors) == (&one_by_one.0, &one_by_one.1), "mapped and read differ");
    let read = in_stretches(&mut files);
    assert!(read.seen == seen, "{} frames for {}", read.seen.len(), seen.len());
    assert_eq!(read.errors, errors);
    Some(read)
}

/// A file of frames of these lengths, with this in them.
pub(super) fn filled(
    variant: Variant,
    lengths: impl Iterator<Item = usize>,
    content: &[u8],
) -> Vec<u8> {
    let mut bytes = variant.header(1);
    for (number, length) in (0..).zip(lengths) {
        let data: Vec<_> = content.iter().cycle().take(length).copied().collect();
        let captured = length as u32;
        bytes.extend(variant.record(
            1_767_225_600 + number / 1_000,
            number % 1_000,
            captured,
            captured + 4,
            &data,
        ));
    }
    bytes
}

#[test]
fn every_variant_is_found_in_all_its_stretches() {
    for variant in VARIANTS {
        let lengths = (0..4_000).map(|n| 60 + n * 7 % 1_400);
        let bytes = filled(variant, lengths, b"GET / HTTP/1.1\r\n\0\0\0\0");
        let stretches = bytes.len().div_ceil(CaptureFiles::STRETCH as usize);
        let Some(read) = both_ways("variants", &bytes) else { return };
        assert_eq!((read.right, read.wrong), (stretches, 0), "{variant:?}");
    }
}

/// Each stretch begins within a frame that holds a whole capture file of small frames.
#[test]
fn a_capture_within_a_capture_is_not_taken_for_it() {
    let inner = plain(4_000);
    let bytes = filled(VARIANTS[0], std::iter::repeat_n(200_000, 24), &inner);
    let Some(read) = both_ways("inner", &bytes) else { return };
    assert_eq!(read.seen.len(), 24);
    assert!(read.wrong > 4, "{} batches: who was deceived?", read.wrong);
}

/// What looks like no record to a guess is read nevertheless.
#[test]
fn empty_frames_are_read_one_after_the_other() {
    let bytes = filled(VARIANTS[0], std::iter::repeat_n(0, 40_000), &[]);
    let Some(read) = both_ways("empty", &bytes) else { return };
    assert_eq!(read.seen.len(), 40_000);
    assert_eq!(read.right, 1, "the first stretch's begin is known");
}

#[test]
fn every_packet_of_pcapng_is_found_in_all_stretches() {
    for big in [false, true] {
        let lengths = (0..4_000).map(|n| 60 + n * 7 % 1_400);
        let content = b"GET / HTTP/1.1\r\n\x06\0\0\0\x40\0\0\0\0\0\0\x06\0\0\0\x40";
        let bytes = filled_ng(big, [1, 1], lengths, content).bytes;
        let stretches = bytes.len().div_ceil(CaptureFiles::STRETCH as usize);
        let Some(read) = both_ways("pcapng", &bytes) else { return };
        // The first one begins with the interfaces.
        assert_eq!(read.right, stretches - 1);
        assert!(read.wrong <= CaptureFiles::STRETCH as usize / 60 / BATCH_FRAMES_MAX);
    }
}

/// So long until a section or an interface comes anew. Then numbers of interfaces may mean others.
#[test]
fn a_pcapng_file_has_stretches_until_it_is_described_anew() {
    type Change = fn(&mut Writer);
    let changes: [Change; 2] = [
        |writer| _ = writer.section(true).interface(1, 0, &[(9, &[3])]).interface(101, 0, &[]),
        |writer| _ = writer.interface(101, 0, &[]),
    ];
    for (packets, change) in [4_000, 100, 0].into_iter().flat_map(|n| changes.map(|c| (n, c))) {
        let mut writer = filled_ng(false, [1, 1], std::iter::repeat_n(1_000, packets), b"x");
        let right = (writer.bytes.len() / CaptureFiles::STRETCH as usize).saturating_sub(1);
        if packets == 0 {
            writer.simple(40, &[3; 40]);
        }
        change(&mut writer);
        for number in 0..4_000 {
            writer.enhanced(0, number, 1_000, &[b'x'; 1_000]);
        }
        let Some(read) = both_ways("anew", &writer.bytes) else { return };
        assert!((right..=right + 1).contains(&read.right), "{} of {right}", read.right);
        assert_eq!(read.seen.len(), packets.max(1) + 4_000);
    }
}

/// Also when nobody here looked at that one.
#[test]
fn a_frame_without_a_time_is_as_late_as_the_one_before_it() {
    let mut writer = filled_ng(false, [1, 1], std::iter::repeat_n(1_000, 4_000), b"x");
    writer.simple(40, &[3; 40]);
    let Some(read) = both_ways("simple", &writer.bytes) else { return };
    assert!(read.right > 5, "{}", read.right);
    assert_eq!(read.seen[4_000].nanos, read.seen[3_999].nanos);
}

#[test]
fn only_a_mapped_file_by_itself_of_one_link_type_has_scouts() {
    let directory = Directory::new("scouts");
    let file = directory.file("x.pcap", &plain(3));
    let scout =
        |paths: &[PathBuf], options| CaptureFiles::open(paths, options).unwrap().scout().is_some();
    assert!(!scout(std::slice::from_ref(&file), OpenOptions::new().mmap(false)), "it is read");
    assert!(!scout(&[file.clone(), file], OpenOptions::new()), "two are merged");
    for (links, has) in [([1, 1], true), ([1, 101], false)] {
        let bytes = filled_ng(false, links, [60].into_iter(), b"x").bytes;
        assert_eq!(scout(&[directory.file("x.pcapng", &bytes)], OpenOptions::new()), has);
    }
    let mut late = Writer::new(false);
    late.interface(1, 0, &[]);
    assert!(!scout(&[directory.file("x.pcapng", &late.bytes)], OpenOptions::new()), "no packet");
    late.block(0xbad, &vec![0; CaptureFiles::STRETCH as usize]).enhanced(0, 1, 60, &[1; 60]);
    assert!(!scout(&[directory.file("x.pcapng", &late.bytes)], OpenOptions::new()), "far away");
    let mut held = CaptureFiles::from_bytes("held", plain(3)).unwrap();
    assert!(held.scout().is_none() && held.place().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Lengths, content, damage and ends of any kind.
    #[test]
    fn any_file_is_read_alike_in_stretches(
        lengths in prop::collection::vec(
            prop_oneof![8 => 0..1_600usize, 1 => 0..20usize, 1 => 2_000..70_000usize],
            1..60,
        ),
        frames in 1..2_000usize,
        content in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 1..200),
        variant in prop::sample::select(&VARIANTS[..]),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let lengths = lengths.into_iter().cycle().take(frames);
        let mut bytes = filled(variant, lengths, &content);
        let header = variant.header(1).len();
        if let Some((at, byte)) = damage && bytes.len() > header {
            let at = header + at.index(bytes.len() - header);
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(header + cut.index(bytes.len() - header + 1));
        }
        both_ways("any", &bytes);
    }

    #[test]
    fn any_pcapng_file_is_read_alike_in_stretches(
        lengths in prop::collection::vec(
            prop_oneof![8 => 0..1_600usize, 1 => 0..20usize, 1 => 2_000..70_000usize],
            1..60,
        ),
        frames in 1..2_000usize,
        content in prop::collection::vec(prop_oneof![Just(0u8), Just(6), any::<u8>()], 1..200),
        big in any::<bool>(),
        odd in prop::collection::vec((0..2_000usize, odd()), 0..4),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let lengths = lengths.into_iter().cycle().take(frames);
        let mut bytes = Odd::among(&odd, big, lengths, &content);
        let head = filled_ng(big, [1, 1], std::iter::empty(), &[]).bytes.len();
        if let Some((at, byte)) = damage {
            let at = head + at.index(bytes.len() - head);
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(head + cut.index(bytes.len() - head + 1));
        }
        both_ways("any-ng", &bytes);
    }
}
