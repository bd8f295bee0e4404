//! Decompression that loses nothing: gzip of any number of members, zstd of any number of frames.
//!
//! Contract: when the compressed data is damaged, every byte decompressed before the damage is given first, and then
//! the error. The readers of the compression crates drop what a call had produced when that call finds the damage,
//! up to a whole buffer of good frames; so their step-by-step decoders are used here instead.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation, OutBuffer};

/// How much compressed data is taken at a time.
const INPUT_BYTES: usize = 64 * 1024;
/// Base-2 logarithm of the largest window that gzip has (RFC 1951 section 2).
const GZIP_WINDOW_LOG: u8 = 15;
/// Base-2 logarithm of the largest window that a zstd frame may ask for: 128 MiB, what `zstd -d` allows without
/// being told more.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// How much of a zstd frame is shown first. A frame shown whole is decoded in one go, all or nothing; one whose start
/// was shown before is decoded block by block.
const ZSTD_FIRST_BYTES: usize = 4;

/// Gives what `reader`'s data is when decompressed.
pub(super) struct Unpack<R> {
    reader: R,
    decoder: Decoder,
    input: Vec<u8>,
    /// Where in `input` the data not yet decompressed begins and ends.
    start: usize,
    end: usize,
    /// Whether a member or frame has begun and not ended.
    inside: bool,
    /// Found after bytes that had to be given first.
    failure: Option<io::Error>,
}

enum Decoder {
    Gzip(Decompress),
    Zstd(Zstd<'static>),
}

/// What one step did.
struct Step {
    used: usize,
    written: usize,
    /// Whether a member or frame ended with it.
    ended: bool,
    failure: Option<io::Error>,
}

impl<R: Read> Unpack<R> {
    /// Reads gzip (RFC 1952).
    pub(super) fn gzip(reader: R) -> Self {
        Self::new(reader, Decoder::Gzip(Decompress::new_gzip(GZIP_WINDOW_LOG)))
    }

    /// Reads zstd (RFC 8878).
    pub(super) fn zstd(reader: R) -> io::Result<Self> {
        let mut decoder = Zstd::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
        Ok(Self::new(reader, Decoder::Zstd(decoder)))
    }

    fn new(reader: R, decoder: Decoder) -> Self {
        let input = vec![0; INPUT_BYTES];
        Self { reader, decoder, input, start: 0, end: 0, inside: false, failure: None }
    }
}

impl<R: Read> Read for Unpack<R> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        // Every turn uses up input, gives output, or returns.
        loop {
            let mut over = false;
            if self.start == self.end {
                // Both before the call: it may fail with `Interrupted` and be made again.
                (self.start, self.end) = (0, 0);
                self.end = self.reader.read(&mut self.input)?.min(self.input.len());
                over = self.end == 0;
                if over && !self.inside {
                    return Ok(0);
                }
            }
            let input = self.input.get(self.start..self.end).unwrap_or_default();
            let step = self.decoder.step(input, output, self.inside);
            self.start = (self.start + step.used).min(self.end);
            self.inside = !step.ended;
            match step {
                Step { written: 0, failure: Some(failure), .. } => return Err(failure),
                Step { written: 0, used: 0, ended: false, .. } => {
                    let what = if over {
                        "the compressed data is cut short"
                    } else {
                        "the compressed data is damaged"
                    };
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                Step { written: 0, .. } => {}
                Step { written, failure, .. } => {
                    self.failure = failure;
                    return Ok(written);
                }
            }
        }
    }
}

impl Decoder {
    /// Decompresses from `input` to `output`, both as far as it goes.
    fn step(&mut self, input: &[u8], output: &mut [u8], inside: bool) -> Step {
        match self {
            Self::Gzip(gzip) => {
                if !inside {
                    *gzip = Decompress::new_gzip(GZIP_WINDOW_LOG);
                }
                let before = (gzip.total_in(), gzip.total_out());
                let status = gzip.decompress(input, output, FlushDecompress::None);
                Step {
                    used: (gzip.total_in() - before.0) as usize,
                    written: (gzip.total_out() - before.1) as usize,
                    ended: matches!(status, Ok(Status::StreamEnd)),
                    failure: status.err().map(|_| damaged("gzip data is damaged")),
                }
            }
            Self::Zstd(zstd) => {
                let shown = if inside { input.len() } else { input.len().min(ZSTD_FIRST_BYTES) };
                let mut input = InBuffer::around(&input[..shown]);
                let mut output = OutBuffer::around(output);
                let hint = zstd.run(&mut input, &mut output);
                Step {
                    used: input.pos(),
                    written: output.pos(),
                    ended: matches!(hint, Ok(0)),
                    failure: hint
                        .err()
                        .map(|error| damaged(&format!("zstd data is damaged: {error}"))),
                }
            }
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
