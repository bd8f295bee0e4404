//! Stretches: whatever is in a file, what scouts find and what is read where they were wrong is what is read from the beginning.

use proptest::prelude::*;

use super::pcap::{VARIANTS, Variant, plain};
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
    let mut scout = files.scout().expect("a mapped pcap file");
    while let Some(place) = files.place() {
        let stretch = place / CaptureFiles::STRETCH;
        let (mut picks, mut tally) = (Vec::new(), Tally::default());
        let found = scout.look_through(stretch, |frame, at| {
            tally.add(frame);
            picks.push(Pick { at, late_ns: 0 });
        });
        match found {
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
    if files.scout().is_none() {
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
fn only_a_mapped_pcap_file_by_itself_has_scouts() {
    let directory = Directory::new("scouts");
    let file = directory.file("x.pcap", &plain(3));
    let scout =
        |paths: &[_], options| CaptureFiles::open(paths, options).unwrap().scout().is_some();
    assert!(!scout(&[&file], OpenOptions::new().mmap(false)), "it is read");
    assert!(!scout(&[&file, &file], OpenOptions::new()), "two are merged");
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
}
