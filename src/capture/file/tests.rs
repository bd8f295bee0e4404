//! Each format with bytes made here, damage of every kind, and the reference captures.

use super::*;

/// What a frame was, without a borrow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    nanos: u64,
    wire_len: u32,
    link: u16,
    interface: u16,
    data: Vec<u8>,
}

fn seen(frame: &Frame<'_>) -> Seen {
    Seen {
        nanos: frame.ts.as_nanos(),
        wire_len: frame.wire_len,
        link: frame.link.0,
        interface: frame.interface,
        data: frame.data.to_vec(),
    }
}

/// Everything that a capture gives: frames, then errors as they read.
fn drained(files: CaptureFiles) -> (Vec<Seen>, Vec<String>) {
    drained_with(files, |_| ())
}

/// The same with something done after each batch.
fn drained_with(
    mut files: CaptureFiles,
    mut after: impl FnMut(&CaptureFiles),
) -> (Vec<Seen>, Vec<String>) {
    let (mut frames, mut errors) = (Vec::new(), Vec::new());
    loop {
        let batch = files.with_batch(|batch| {
            assert!(!batch.is_empty() && batch.len() <= BATCH_FRAMES_MAX);
            frames.extend(batch.iter().map(seen));
        });
        match batch {
            Ok(Some(())) => {
                assert!(errors.is_empty(), "frames after an error");
                after(&files);
            }
            Ok(None) => break,
            Err(error) => errors.push(error.to_string()),
        }
    }
    assert!(matches!(files.with_batch(|_| ()), Ok(None)), "the end stays the end");
    assert_eq!(files.frames(), frames.len() as u64);
    (frames, errors)
}

mod pcap;
mod pcapng;
mod shared;
mod streams;
mod stretches;
mod trails;
