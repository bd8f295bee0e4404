//! Any bytes as a capture file: no panic, an end in bounded steps, and the same frames and errors whether the bytes
//! are in memory or come as a stream in pieces.
#![no_main]

use std::io::{Cursor, Read};

use flowscope::Frame;
use flowscope::capture::file::CaptureFiles;
use flowscope::capture::{Capture, CaptureError};
use libfuzzer_sys::fuzz_target;

/// A stream that gives at most `size` bytes a call.
struct Pieces {
    bytes: Cursor<Vec<u8>>,
    size: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.size.min(buffer.len());
        self.bytes.read(&mut buffer[..size])
    }
}

/// Everything that a capture tells, as a digest and the errors' texts.
fn outcome(files: Result<CaptureFiles, CaptureError>) -> (u64, u64, Vec<String>) {
    let (mut digest, mut errors) = (0u64, Vec::new());
    let mut files = match files {
        Ok(files) => files,
        Err(error) => return (0, 0, vec![error.to_string()]),
    };
    let mut add = |value: u64| digest = (digest ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let frame = |add: &mut dyn FnMut(u64), frame: &Frame<'_>| {
        add(frame.ts.as_nanos());
        add(u64::from(frame.wire_len));
        add(u64::from(frame.link.0) << 16 | u64::from(frame.interface));
        add(frame.data.iter().fold(frame.data.len() as u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte))));
    };
    loop {
        match files.with_batch(|batch| {
            assert!(!batch.is_empty());
            batch.iter().for_each(|it| frame(&mut add, it));
        }) {
            Ok(Some(())) => assert!(errors.is_empty()),
            Ok(None) => return (digest, files.frames(), errors),
            Err(error) => errors.push(error.to_string()),
        }
        assert!(errors.len() <= 1, "one file breaks once");
    }
}

fuzz_target!(|input: &[u8]| {
    // The first byte says whether to compare with a stream as well, and in what pieces.
    let Some((how, bytes)) = input.split_first() else { return };
    let held = outcome(CaptureFiles::from_bytes("file", bytes.to_vec()));
    // What decompresses to more than a little takes a stream of single bytes too long.
    if held.1 < 1000 && how % 4 == 0 {
        let pieces = Pieces { bytes: Cursor::new(bytes.to_vec()), size: 1 + usize::from(how / 4) };
        let streamed = outcome(CaptureFiles::from_reader("file", pieces));
        // How much the zstd decoder has given when it finds damage depends on the pieces.
        let is_damaged_zstd = [&streamed, &held].iter().any(|it| it.2.iter().any(|text| text.contains("zstd data is")));
        assert!(is_damaged_zstd || streamed == held, "{streamed:?} {held:?}");
    }
});
