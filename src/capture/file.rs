//! Capture files as a [`Capture`]: one, several in time order, or standard input.
//!
//! Contract: frames of one file come in the file's order; frames of several files come merged by time, equal times
//! in the order in which the files were given. A file that breaks gives every frame before the break. What broke is
//! told at the very end, after the last frame of all files: one error a call, in the order of the files, then the end.
//! So a caller may stop at the first error and has still seen every frame.

mod stretches;

use std::io;
use std::path::Path;

use super::ahead::{Ahead, Upcoming};
use super::merge::Merge;
use super::pcap::{HEADER_BYTES, Pcap, Stop};
use super::pcapng::PcapNg;
use super::source::{BoxedRead, Source};
use super::{BATCH_FRAMES_MAX, BrokenReason, Capture, CaptureError};
use crate::frame::{Frame, LinkType};

/// The most files that are merged. Each one is open (or mapped) from the start, and has a share of the interface
/// numbers.
pub const FILES_MAX: usize = 1024;

/// How many interfaces all files together can have: as many as there are numbers.
const INTERFACES_MAX: usize = 1 << u16::BITS;

/// How capture files are opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    mmap: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mmap: true }
    }
}

impl OpenOptions {
    /// The defaults: files are mapped where that is safe, and quick.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether regular files that are not compressed may be mapped (the default), or are always read. A map saves the
    /// kernel's copy of every byte of a file that is in the page cache; others are read, for that is how the kernel reads ahead best.
    ///
    /// Truncating a file that is mapped ends the process that mapped it (SIGBUS). So files are mapped only under a read
    /// lease (Linux; the file is ours, or CAP_LEASE; nobody has it open for writing): who wants to write then waits for
    /// us, and within sixteen batches the file is read instead. The kernel makes them wait 45 s at most. Say no when sixteen batches may
    /// take longer than that. A file that grows is read as far as it went when it was opened.
    pub fn mmap(mut self, mmap: bool) -> Self {
        self.mmap = mmap;
        self
    }
}

/// An interface of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// As in [`Frame::interface`]: unlike that of any other interface of all files read together.
    pub id: u16,
    /// Its link type.
    pub link: LinkType,
}

/// One or more capture files, read as one capture.
pub struct CaptureFiles {
    readers: Vec<FileReader>,
    /// Only with several files.
    merge: Option<Merge>,
    /// The last batch's frames, taken out; kept for its room.
    scratch: Vec<Frame<'static>>,
    frames: u64,
}

impl CaptureFiles {
    /// Opens the files at `paths`; `-` is standard input. Reads as far as each one's first bytes: a file of no known
    /// format is refused here.
    ///
    /// # Errors
    /// [`CaptureError`], naming the file.
    pub fn open<P: AsRef<Path>>(paths: &[P], options: OpenOptions) -> Result<Self, CaptureError> {
        Self::open_with_stdin(paths, options, io::stdin())
    }

    /// The same with a standard input of the caller's: one that can be told to stop, for instance.
    ///
    /// # Errors
    /// [`CaptureError`], naming the file. What `stdin` fails with is within it.
    pub fn open_with_stdin<P: AsRef<Path>>(
        paths: &[P],
        options: OpenOptions,
        stdin: impl io::Read + Send + 'static,
    ) -> Result<Self, CaptureError> {
        if paths.iter().filter(|path| is_stdin(path.as_ref())).count() > 1 {
            return Err(CaptureError::StdinTwice);
        }
        let mut stdin = Some(stdin);
        let named = paths.iter().map(|path| {
            let path = path.as_ref();
            if is_stdin(path)
                && let Some(stdin) = stdin.take()
            {
                return ("standard input".to_owned(), Source::read(Box::new(stdin)));
            }
            (path.display().to_string(), Source::open(path, options.mmap))
        });
        Self::new(paths.len(), named)
    }

    /// Reads a capture file, compressed or not, from any stream; `name` is for errors.
    ///
    /// # Errors
    /// [`CaptureError`], naming the stream.
    pub fn from_reader(
        name: &str,
        reader: impl io::Read + Send + 'static,
    ) -> Result<Self, CaptureError> {
        let reader: BoxedRead = Box::new(reader);
        Self::new(1, std::iter::once_with(|| (name.to_owned(), Source::read(reader))))
    }

    /// Reads a capture file, compressed or not, that is in memory; `name` is for errors.
    ///
    /// # Errors
    /// [`CaptureError`], naming the file.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, CaptureError> {
        Self::new(1, std::iter::once_with(|| (name.to_owned(), Source::memory(bytes))))
    }

    pub(super) fn new(
        files: usize,
        sources: impl Iterator<Item = (String, io::Result<Source>)>,
    ) -> Result<Self, CaptureError> {
        if files == 0 {
            return Err(CaptureError::NoFile);
        }
        if files > FILES_MAX {
            return Err(CaptureError::TooManyFiles { found: files, max: FILES_MAX });
        }
        // Each file numbers its interfaces within a share of its own: so the numbers do not depend on how the
        // files interleave, nor on how a pipe happened to be read.
        let share = INTERFACES_MAX / files;
        let readers = sources
            .enumerate()
            .map(|(index, (name, source))| match source {
                Ok(source) => FileReader::new(name, source, (share * index) as u16, share),
                Err(error) => Err(CaptureError::Open { file: name, error }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let merge = (files > 1).then(|| Merge::new(files));
        Ok(Self { readers, merge, scratch: Vec::with_capacity(BATCH_FRAMES_MAX), frames: 0 })
    }

    /// Size of all files on disk in bytes, compressed ones as they are; `None` when one is a stream.
    pub fn bytes_total(&self) -> Option<u64> {
        self.readers.iter().map(|reader| reader.source.total()).sum()
    }

    /// Bytes taken from all files so far, counted as in [`CaptureFiles::bytes_total`]. Runs a little ahead of the frames
    /// handed out; reaches the total at the end of files that are whole.
    pub fn bytes_read(&self) -> u64 {
        self.readers.iter().map(|reader| reader.source.position(reader.at)).sum()
    }

    /// Frames handed out so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The same files from their beginning, for somebody who reads them beside this one: files that are mapped share their pages.
    /// `None` where one is a stream, or compressed: it is read once.
    ///
    /// # Errors
    /// [`CaptureError`], naming the file that cannot be read again.
    pub fn again(&self) -> Result<Option<Self>, CaptureError> {
        let sources = self
            .readers
            .iter()
            .map(|reader| reader.source.again().map(|source| (reader.name.clone(), source)));
        match sources.collect::<Option<Vec<_>>>() {
            Some(sources) => Self::new(sources.len(), sources.into_iter()).map(Some),
            None => Ok(None),
        }
    }

    /// The interfaces known so far, with the name of their file: a pcapng file may describe more of them as it goes.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, Interface)> + '_ {
        self.readers.iter().flat_map(|reader| {
            let (one, many) = match &reader.format {
                Format::Pcap(pcap) => (Some(pcap.interface), None),
                Format::PcapNg(pcapng) => (None, Some(pcapng.interfaces())),
            };
            one.into_iter()
                .chain(many.into_iter().flatten())
                .map(|interface| (reader.name.as_str(), interface))
        })
    }

    /// The next batch of the only file; `BOUNDED`, of records that begin less than `left` bytes from here.
    #[inline(always)]
    fn batch_of_one<R, const BOUNDED: bool>(
        &mut self,
        left: usize,
        f: impl FnOnce(&[Frame<'_>], &mut Upcoming<'_>) -> R,
    ) -> Result<Option<R>, CaptureError> {
        let [reader] = self.readers.as_mut_slice() else { return self.told() };
        while reader.is_open() {
            let mut frames = recycled(std::mem::take(&mut self.scratch));
            reader.advance();
            let FileReader { source, at, ahead, format, .. } = reader;
            let (bytes, take) = (rest(source, *at), |frame, _| frames.push(frame));
            let (used, stop) = if BOUNDED {
                format.parse_before(bytes, ahead, BATCH_FRAMES_MAX, left, take)
            } else {
                format.parse(bytes, ahead, BATCH_FRAMES_MAX, take)
            };
            reader.at += used;
            if !frames.is_empty() {
                let rest = rest(source, reader.at);
                let result = f(&frames, &mut Upcoming::new(ahead, format, rest));
                self.frames += frames.len() as u64;
                self.scratch = recycled(frames);
                return Ok(Some(result));
            }
            self.scratch = recycled(frames);
            reader.go_on(stop);
        }
        self.told()
    }

    /// Every file is at its end: what ended those that broke?
    fn told<R>(&mut self) -> Result<Option<R>, CaptureError> {
        match self.readers.iter_mut().find_map(FileReader::take_error) {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }
}

impl std::fmt::Debug for CaptureFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.readers.iter().map(|reader| &reader.name);
        let names = names.collect::<Vec<_>>();
        f.debug_struct("CaptureFiles")
            .field("files", &names)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl Capture for CaptureFiles {
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        self.with_batch_and_next(|frames, _| f(frames))
    }

    fn with_batch_and_next<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>], &mut Upcoming<'_>) -> R,
    ) -> Result<Option<R>, CaptureError> {
        if let Some(merge) = &mut self.merge {
            merge.refill(&mut self.readers);
            let mut frames = recycled(std::mem::take(&mut self.scratch));
            merge.take(&self.readers, &mut frames);
            if !frames.is_empty() {
                let result = f(&frames, &mut Upcoming::default());
                self.frames += frames.len() as u64;
                self.scratch = recycled(frames);
                return Ok(Some(result));
            }
            self.scratch = recycled(frames);
            return self.told();
        }
        self.batch_of_one::<R, false>(usize::MAX, f)
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The bytes at hand from `at` on.
fn rest(source: &Source, at: usize) -> &[u8] {
    source.bytes().get(at..).unwrap_or_default()
}

/// An empty vector for frames of any lifetime, with the room of a used one: collecting what a vector's own iterator
/// gives happens in place, so that no batch allocates (a test holds the standard library to that).
pub(super) fn recycled<'to>(mut frames: Vec<Frame<'_>>) -> Vec<Frame<'to>> {
    frames.clear();
    frames.into_iter().map_while(|_| None).collect()
}

/// One file: its bytes, the place in them, and the parser of its format.
pub(super) struct FileReader {
    name: String,
    source: Source,
    /// How far the bytes at hand are used.
    at: usize,
    /// What of them was asked for before it is needed.
    ahead: Ahead,
    format: Format,
    end: End,
}

pub(super) enum Format {
    Pcap(Pcap),
    PcapNg(Box<PcapNg>),
}

/// Whether a file is over, and why.
enum End {
    /// It is not.
    Open,
    /// It is, and this has not been told yet.
    Broken(CaptureError),
    /// It is, and there is nothing more to tell.
    Done,
}

impl FileReader {
    fn new(
        name: String,
        mut source: Source,
        first_id: u16,
        interfaces_max: usize,
    ) -> Result<Self, CaptureError> {
        let mut at = 0;
        while source.bytes().len() < HEADER_BYTES && source.more(&mut at, HEADER_BYTES as u64) {}
        let unpacked = source.unpacked();
        if let Some(error) = source.take_failure() {
            let offset = source.bytes().len() as u64;
            return Err(CaptureError::Read { file: name, offset, unpacked, error });
        }
        let bytes = source.bytes();
        let format = match (bytes.first_chunk::<4>(), bytes.first_chunk::<HEADER_BYTES>()) {
            _ if bytes.is_empty() => return Err(CaptureError::Empty { file: name }),
            (Some(first), _) if PcapNg::is(*first) => {
                Ok(Format::PcapNg(Box::new(PcapNg::new(first_id, interfaces_max))))
            }
            (Some(first), Some(header)) if Pcap::is(*first) => {
                at = HEADER_BYTES;
                Pcap::new(header, first_id).map(Format::Pcap)
            }
            (Some(first), _) if !Pcap::is(*first) => Err(BrokenReason::Magic { found: *first }),
            _ => Err(BrokenReason::Truncated {
                what: "file's header",
                needed: HEADER_BYTES as u64,
                found: bytes.len() as u64,
            }),
        };
        match format {
            Ok(format) => {
                let ahead = if source.is_mapped() { Ahead::far() } else { Ahead::at_hand() };
                Ok(Self { name, source, at, ahead, format, end: End::Open })
            }
            Err(reason) => Err(CaptureError::Broken { file: name, offset: 0, unpacked, reason }),
        }
    }

    /// To be called before bytes at hand are looked at.
    #[inline]
    fn advance(&mut self) {
        self.source.advance(&mut self.at);
        if !self.source.is_mapped() {
            self.ahead = Ahead::at_hand();
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.end, End::Open)
    }

    /// Bytes at hand, used ones included: what a lookahead's places count from.
    pub(super) fn bytes(&self) -> &[u8] {
        self.source.bytes()
    }

    /// Looks ahead for up to `max` frames, given to `take` with where in [`FileReader::bytes`] their data begins. Gives
    /// none only when the file is over. Frames looked at before are no longer at hand afterwards.
    pub(super) fn look_ahead(&mut self, max: usize, mut take: impl FnMut(Frame<'_>, usize)) {
        while self.is_open() {
            self.advance();
            let (at, mut given) = (self.at, 0);
            let bytes = rest(&self.source, at);
            let (used, stop) = self.format.parse(bytes, &mut self.ahead, max, |frame, data_at| {
                given += 1;
                take(frame, at + data_at);
            });
            self.at += used;
            if given > 0 {
                return;
            }
            self.go_on(stop);
        }
    }

    /// When the parser stopped without a frame: gets it more bytes, or ends the file.
    fn go_on(&mut self, stop: Stop) {
        let reason = match stop {
            Stop::Full => return,
            Stop::Starved { what, needed } => {
                if self.source.more(&mut self.at, needed) {
                    return;
                }
                let found = rest(&self.source, self.at).len() as u64;
                if let Some(error) = self.source.take_failure() {
                    let (file, unpacked) = (self.name.clone(), self.source.unpacked());
                    let offset = self.offset() + found;
                    self.end = End::Broken(CaptureError::Read { file, offset, unpacked, error });
                    return;
                }
                if found == 0 && self.format.at_rest() {
                    self.end = End::Done;
                    return;
                }
                BrokenReason::Truncated { what, needed, found }
            }
            Stop::Broken(reason) => reason,
        };
        let (file, unpacked) = (self.name.clone(), self.source.unpacked());
        self.end =
            End::Broken(CaptureError::Broken { file, offset: self.offset(), unpacked, reason });
    }

    /// Where the parser is in the file.
    fn offset(&self) -> u64 {
        self.source.base() + self.at as u64
    }

    fn take_error(&mut self) -> Option<CaptureError> {
        if !matches!(self.end, End::Broken(_)) {
            return None;
        }
        match std::mem::replace(&mut self.end, End::Done) {
            End::Broken(error) => Some(error),
            End::Open | End::Done => None,
        }
    }
}

impl Format {
    #[inline]
    fn parse<'a>(
        &mut self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, Stop) {
        match self {
            Self::Pcap(pcap) => pcap.parse(bytes, ahead, max, take),
            Self::PcapNg(pcapng) => pcapng.parse_before(bytes, ahead, max, usize::MAX, take),
        }
    }

    /// The same of records that begin before `end`.
    fn parse_before<'a>(
        &mut self,
        bytes: &'a [u8],
        ahead: &mut Ahead,
        max: usize,
        end: usize,
        take: impl FnMut(Frame<'a>, usize),
    ) -> (usize, Stop) {
        match self {
            Self::Pcap(pcap) => pcap.parse_before(bytes, ahead, max, end, take),
            Self::PcapNg(pcapng) => pcapng.parse_before(bytes, ahead, max, end, take),
        }
    }

    fn at_rest(&self) -> bool {
        match self {
            Self::Pcap(_) => true,
            Self::PcapNg(pcapng) => pcapng.at_rest(),
        }
    }
}

#[cfg(test)]
mod tests;
