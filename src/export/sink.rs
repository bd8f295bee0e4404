//! The writing end: a thread, which takes full buffers from a bounded queue, or whoever has a full buffer.
//!
//! Contract: every record handed to a sink is counted once, as written or as dropped under a
//! [`DropReason`]; counts are exact to the record when a write breaks off half-way. Who hands over a chunk chooses
//! whether to wait for room or to drop its records, where another thread writes. After the first failed write a sink takes and drops, so that nobody waits for it.
//! A file can be opened anew while records come, for who moved it away: between two chunks, so that each record is in one file or
//! the other.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;

use super::drop_behind::DropBehind;
use super::queue::{Queue, Taken};
use super::text::LINE_BYTES_MAX;
use super::turns::Turns;

/// Size of a buffer of records: about one write.
const CHUNK_BYTES: usize = 128 * 1024;

/// Files are written in pieces that begin and end at a multiple of this: the kernel then takes up the pages of each
/// together, which takes two thirds of the time.
const WRITE_BYTES: u64 = 128 * 1024;

/// Chunks that one write takes of at most.
const SLICES_MAX: usize = 4;

/// Buffers that wait for a sink at most.
const CHUNKS_QUEUED_MAX: usize = 16;

/// Whole records in one buffer.
#[derive(Debug, Default)]
pub struct Chunk {
    /// All of it is there from the beginning, so that records are put together where they stay.
    buffer: Vec<u8>,
    len: usize,
    records: u64,
}

impl Chunk {
    /// An empty one in a buffer, whatever is in there.
    fn new(buffer: Vec<u8>) -> Self {
        Self { buffer, len: 0, records: 0 }
    }

    /// The text, one line a record.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// How many records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Where the next record goes; `None` when it is full.
    pub fn room(&mut self) -> Option<&mut [u8; LINE_BYTES_MAX]> {
        self.buffer[self.len..].first_chunk_mut()
    }

    /// A record of so many bytes was put there.
    pub fn add(&mut self, bytes: usize) {
        self.len += bytes;
        self.records += 1;
    }

    /// The same records as in another chunk, in place of what it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.buffer.resize(other.buffer.len(), 0);
        self.buffer[..other.len].copy_from_slice(other.bytes());
        (self.len, self.records) = (other.len, other.records);
    }

    /// Whether there may be no room in it for another record.
    pub fn is_full(&self) -> bool {
        self.len + LINE_BYTES_MAX > CHUNK_BYTES
    }
}

/// Why records were dropped instead of written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// Whoever read the output went away (a pipe was closed).
    ReaderGone,
    /// The operating system refused the write.
    WriteFailed,
    /// The output was slower than the traffic, which does not wait.
    QueueFull,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::ReaderGone, Self::WriteFailed, Self::QueueFull];

    /// As metrics and summaries spell it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ReaderGone => "reader_gone",
            Self::WriteFailed => "write_failed",
            Self::QueueFull => "queue_full",
        }
    }
}

/// What became of the records of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Records handed to the operating system.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
}

/// Where a sink writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, made anew.
    File(PathBuf),
}

impl Target {
    /// `-` is standard output.
    pub fn parse(text: &str) -> Self {
        if text == "-" { Self::Stdout } else { Self::File(PathBuf::from(text)) }
    }

    /// As messages name it.
    pub fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// A sink that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write records to {name}: {source}: choose a path that can be written")]
pub struct OpenError {
    name: String,
    source: io::Error,
}

/// A target that was opened, without a thread that writes to it yet.
pub struct Opened {
    name: String,
    output: Box<dyn Write + Send>,
    /// Where it can be opened anew.
    path: Option<PathBuf>,
}

impl Opened {
    /// Opens the target; a file is made anew.
    pub fn open(target: &Target) -> Result<Self, OpenError> {
        let name = target.name();
        Ok(match target {
            Target::Stdout => Self::of(name, io::stdout()),
            Target::File(path) => {
                let file = File::create(path)
                    .map_err(|source| OpenError { name: name.clone(), source })?;
                Self { path: Some(path.clone()), ..Self::of(name, DropBehind::new(file, 0)) }
            }
        })
    }

    /// Anything that can be written to.
    pub fn of(name: String, output: impl Write + Send + 'static) -> Self {
        Self { name, output: Box::new(output), path: None }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenBy {
    /// A thread of the sink's own: a slow output holds nobody up before its queue is full.
    Thread,
    /// Whoever hands over a chunk, at once; or who is writing, who then finds it. For who has all cores, where a thread takes its time
    /// from who makes the chunks, and finds them in no cache.
    Giver,
}

/// A running sink. Dropping it without [`finish`](Self::finish) leaves its thread to end by itself.
#[derive(Debug)]
pub struct Sink {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    way: Way,
    recycled: ArrayQueue<Vec<u8>>,
    written: AtomicU64,
    bytes: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    failed: AtomicBool,
    error: Mutex<Option<String>>,
    /// The file is to be opened anew before the next chunk.
    reopen: AtomicBool,
}

/// How a chunk comes to be written.
#[derive(Debug)]
enum Way {
    /// By the thread that takes it out.
    Queue(Box<Queue<Chunk>>),
    /// By who has it, or who is writing.
    Turns(Box<Turns<Writer, Chunk>>),
}

impl Sink {
    /// Writes to what was opened, by a thread that is started here or without one.
    pub fn start(opened: Opened, by: WrittenBy) -> Result<Self, OpenError> {
        let name = opened.name.clone();
        let writer = Writer::new(opened);
        if by == WrittenBy::Giver {
            let shared =
                Arc::new(Shared::new(Way::Turns(Box::new(Turns::new(writer, CHUNKS_QUEUED_MAX)))));
            return Ok(Self { name, shared, thread: None });
        }
        let shared = Arc::new(Shared::new(Way::Queue(Box::new(Queue::new(CHUNKS_QUEUED_MAX)))));
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || of_thread.run(writer))
            .map_err(|source| OpenError { name: name.clone(), source })?;
        Ok(Self { name, shared, thread: Some(thread) })
    }

    /// What it writes to, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another handle on the same sink, for another thread.
    pub fn handle(&self) -> SinkHandle {
        SinkHandle { shared: Arc::clone(&self.shared) }
    }

    /// No more chunks come: writes what waits, ends the thread.
    pub fn finish(&mut self) {
        match &self.shared.way {
            Way::Queue(queue) => queue.close(),
            Way::Turns(turns) => turns.after_all(take(&self.shared)).finish(&self.shared),
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(sink = %self.name, "the export thread panicked");
        }
    }
}

/// Hands chunks to a sink, and reads its counts.
#[derive(Clone, Debug)]
pub struct SinkHandle {
    shared: Arc<Shared>,
}

impl SinkHandle {
    /// Hands over a chunk, waiting for room or until it is written; an empty one is not worth a wake-up, and a full one is worth one
    /// with some others.
    pub fn push(&self, chunk: Chunk) {
        if chunk.records == 0 {
            return;
        }
        let pushed = match &self.shared.way {
            Way::Turns(turns) => return turns.take(chunk, take(&self.shared)),
            // A chunk that was handed over before it was full is one that somebody waits for.
            Way::Queue(queue) if chunk.is_full() => queue.push_without_hurry(chunk),
            Way::Queue(queue) => queue.push(chunk),
        };
        if let Err(chunk) = pushed {
            self.shared.drop_records(DropReason::WriteFailed, chunk.records);
        }
    }

    /// Hands over a chunk if there is room at once; else its records are dropped.
    pub fn push_or_drop(&self, chunk: Chunk) {
        match &self.shared.way {
            Way::Turns(_) => self.push(chunk),
            Way::Queue(queue) => {
                if chunk.records != 0
                    && let Err(chunk) = queue.try_push(chunk)
                {
                    self.shared.drop_records(DropReason::QueueFull, chunk.records);
                }
            }
        }
    }

    /// A file is opened anew before anything more is written to it: the path may be another file by now. A sink that had failed
    /// tries again. Does nothing to standard output.
    pub fn reopen(&self) {
        match &self.shared.way {
            Way::Turns(turns) => turns.after_all(take(&self.shared)).reopen(&self.shared),
            Way::Queue(queue) => {
                self.shared.reopen.store(true, Ordering::SeqCst);
                // Wakes a thread that has nothing to do; in a full queue it has.
                let _ = queue.try_push(Chunk::default());
            }
        }
    }

    /// An empty chunk, whose buffer was used before if there is such a one.
    pub fn chunk(&self) -> Chunk {
        Chunk::new(self.shared.recycled.pop().unwrap_or_else(|| vec![0; CHUNK_BYTES]))
    }

    /// Whether it only drops by now.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// What the first failed write said.
    pub fn error(&self) -> Option<String> {
        self.shared.error.lock().map_or(None, |error| error.clone())
    }

    /// What became of the records so far.
    pub fn counts(&self) -> SinkCounts {
        SinkCounts {
            written: self.shared.written.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            dropped: std::array::from_fn(|i| self.shared.dropped[i].load(Ordering::Relaxed)),
        }
    }
}

impl Shared {
    fn new(way: Way) -> Self {
        Self {
            way,
            recycled: ArrayQueue::new(CHUNKS_QUEUED_MAX + 2),
            written: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: Default::default(),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
            reopen: AtomicBool::new(false),
        }
    }

    /// What the thread does.
    fn run(&self, mut writer: Writer) {
        let Way::Queue(queue) = &self.way else { return };
        loop {
            let taken = queue.pop_soon();
            if self.reopen.swap(false, Ordering::SeqCst) {
                writer.reopen(self);
            }
            match taken {
                Taken::Item(chunk) => writer.take(self, chunk),
                // What was held back has waited for long enough.
                Taken::Nothing => writer.write(self, Until::End),
                Taken::Closed => break,
            }
        }
        writer.finish(self);
    }

    fn recycle(&self, chunk: Chunk) {
        if chunk.buffer.len() == CHUNK_BYTES {
            // A full recycle queue has enough buffers: this one is freed.
            let _ = self.recycled.push(chunk.buffer);
        }
    }

    fn note(&self, error: &io::Error) -> DropReason {
        if let Ok(mut first) = self.error.lock() {
            first.get_or_insert_with(|| error.to_string());
        }
        self.failed.store(true, Ordering::Relaxed);
        match error.kind() {
            io::ErrorKind::BrokenPipe => DropReason::ReaderGone,
            _ => DropReason::WriteFailed,
        }
    }

    fn drop_records(&self, reason: DropReason, records: u64) {
        self.dropped[reason as usize].fetch_add(records, Ordering::Relaxed);
    }
}

/// What a writer does with a chunk.
fn take(shared: &Shared) -> impl FnMut(&mut Writer, Chunk) {
    |writer, chunk| writer.take(shared, chunk)
}

/// An output on the way: what waits for it, and whether it has failed.
#[derive(Debug)]
struct Writer {
    name: String,
    /// Where it can be opened anew.
    path: Option<PathBuf>,
    pages: Pages,
    /// Why it only drops.
    failure: Option<DropReason>,
}

impl Writer {
    fn new(opened: Opened) -> Self {
        let Opened { name, output, path } = opened;
        Self { name, path, pages: Pages::new(output), failure: None }
    }

    fn take(&mut self, shared: &Shared, chunk: Chunk) {
        let until = if chunk.is_full() { Until::Boundary } else { Until::End };
        match self.failure {
            Some(reason) => {
                shared.drop_records(reason, chunk.records);
                shared.recycle(chunk);
            }
            None => {
                self.pages.push(chunk);
                self.write(shared, until);
            }
        }
    }

    /// Writes what waits and counts what became of its records, until it fails.
    fn write(&mut self, shared: &Shared, until: Until) {
        let Self { pages, failure, .. } = self;
        let goal = match until {
            _ if failure.is_some() => return,
            Until::Boundary => pages.end() / WRITE_BYTES * WRITE_BYTES,
            Until::End => pages.end(),
        };
        while pages.at < goal {
            match pages.write(goal) {
                Ok(more) => {
                    shared.bytes.fetch_add(more as u64, Ordering::Relaxed);
                    while let Some(chunk) = pages.pop_written() {
                        shared.written.fetch_add(chunk.records, Ordering::Relaxed);
                        shared.recycle(chunk);
                    }
                }
                Err(error) => {
                    // Lines that went out whole.
                    let written = pages.written().filter(|&&byte| byte == b'\n').count() as u64;
                    shared.written.fetch_add(written, Ordering::Relaxed);
                    let waiting: u64 = pages.waiting.drain(..).map(|chunk| chunk.records).sum();
                    let reason = shared.note(&error);
                    shared.drop_records(reason, waiting - written);
                    *failure = Some(reason);
                    return;
                }
            }
        }
    }

    fn reopen(&mut self, shared: &Shared) {
        let Some(path) = self.path.clone() else { return };
        // Into the old one, which may be the same: its end is where the new one goes on.
        self.write(shared, Until::End);
        match reopened(&path) {
            Ok((file, at)) => {
                tracing::info!(output = %self.name, "opened anew");
                self.pages = Pages { at, ..Pages::new(Box::new(DropBehind::new(file, at))) };
                self.failure = None;
                shared.failed.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(output = %self.name, %error, "could not be opened anew, the old file is kept");
            }
        }
    }

    /// No more chunks come.
    fn finish(&mut self, shared: &Shared) {
        self.write(shared, Until::End);
        if self.failure.is_none()
            && let Err(error) = self.pages.output.flush()
        {
            shared.note(&error);
        }
    }
}

/// How much of what waits is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// Up to the last multiple of [`WRITE_BYTES`]; the rest waits for more.
    Boundary,
    /// All of it: there may not be more for a while.
    End,
}

/// An output, and the chunks that are not written to it in whole.
struct Pages {
    output: Box<dyn Write + Send>,
    /// How many bytes there are in it.
    at: u64,
    /// None of them empty.
    waiting: VecDeque<Chunk>,
    /// How many bytes of the first chunk are written.
    done: usize,
}

impl Pages {
    fn new(output: Box<dyn Write + Send>) -> Self {
        Self { output, at: 0, waiting: VecDeque::new(), done: 0 }
    }

    fn push(&mut self, chunk: Chunk) {
        // Every one that waits is of use to a write.
        if chunk.len != 0 {
            self.waiting.push_back(chunk);
        }
    }

    /// Where it would be with all that waits.
    fn end(&self) -> u64 {
        let waiting: usize = self.waiting.iter().map(|chunk| chunk.len).sum();
        self.at + (waiting - self.done) as u64
    }

    /// One write towards `goal`, which is further than it is and no further than its end.
    fn write(&mut self, goal: u64) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut room = usize::try_from(goal - self.at).unwrap_or(usize::MAX);
        let mut done = self.done;
        for (slice, chunk) in slices.iter_mut().zip(&self.waiting) {
            let bytes = chunk.bytes().get(done..).unwrap_or_default();
            *slice = IoSlice::new(&bytes[..bytes.len().min(room)]);
            room -= slice.len();
            done = 0;
        }
        loop {
            match self.output.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => {
                    self.at += more as u64;
                    self.done += more;
                    return Ok(more);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes out a chunk that is written in whole.
    fn pop_written(&mut self) -> Option<Chunk> {
        self.done = self.done.checked_sub(self.waiting.front()?.len)?;
        self.waiting.pop_front()
    }

    /// What is written of the first chunk.
    fn written(&self) -> impl Iterator<Item = &u8> {
        self.waiting.iter().take(1).flat_map(|chunk| &chunk.bytes()[..self.done])
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Not made anew: when nobody moved it, what was written stays.
fn reopened(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let at = file.metadata()?.len();
    Ok((file, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [WrittenBy; 2] = [WrittenBy::Thread, WrittenBy::Giver];

    /// Takes `room` bytes, then says what a closed pipe says.
    struct Narrow {
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_is_counted_to_the_record() {
        for by in BOTH {
            let pipe = Opened::of("a pipe".to_owned(), Narrow { room: 11 });
            let mut sink = Sink::start(pipe, by).unwrap();
            let handle = sink.handle();
            for _ in 0..3 {
                handle.push(chunk("1234\n1234\n"));
            }
            sink.finish();
            let counts = handle.counts();
            assert_eq!((counts.written, counts.bytes), (2, 11));
            assert_eq!(counts.dropped, [4, 0, 0]);
            assert!(handle.failed());
            assert!(handle.error().is_some());
        }
    }

    /// Remembers each write.
    #[derive(Clone, Default)]
    struct Writes(Arc<std::sync::Mutex<Vec<Vec<u8>>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let len = bytes.len();
            self.0.lock().unwrap().push(bytes);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink whose writes are remembered.
    fn remembering(by: WrittenBy) -> (Writes, Sink) {
        let writes = Writes::default();
        let opened = Opened::of("writes".to_owned(), writes.clone());
        (writes, Sink::start(opened, by).unwrap())
    }

    /// A full chunk of lines of ten bytes.
    fn full(byte: u8) -> Chunk {
        let line = [&[byte; 9][..], b"\n"].concat();
        let records = (CHUNK_BYTES - LINE_BYTES_MAX) / line.len() + 1;
        chunk(std::str::from_utf8(&line.repeat(records)).unwrap())
    }

    /// A chunk of these lines.
    fn chunk(lines: &str) -> Chunk {
        let mut chunk = Chunk::new(vec![0; CHUNK_BYTES]);
        for line in lines.split_inclusive('\n') {
            chunk.room().unwrap()[..line.len()].copy_from_slice(line.as_bytes());
            chunk.add(line.len());
        }
        chunk
    }

    #[test]
    fn full_chunks_are_written_from_boundary_to_boundary_and_others_at_once() {
        BOTH.into_iter().for_each(full_chunks_are_written_from_boundary_to_boundary);
    }

    fn full_chunks_are_written_from_boundary_to_boundary(by: WrittenBy) {
        let (writes, mut sink) = remembering(by);
        let handle = sink.handle();
        let mut expected = Vec::new();
        for number in 0..100 {
            let chunk = full(b'a' + number % 26);
            expected.extend_from_slice(chunk.bytes());
            handle.push(chunk);
        }
        let last = chunk("the last\n");
        expected.extend_from_slice(last.bytes());
        let records = 100 * full(b'a').records + 1;
        handle.push(last);
        until(|| handle.counts().written == records);
        sink.finish();
        let writes = writes.0.lock().unwrap();
        // A machine that gave the other thread nothing to do for a while may have made it write what it had.
        let aligned =
            writes.iter().filter(|write| (write.len() as u64).is_multiple_of(WRITE_BYTES)).count();
        assert!(aligned > writes.len() / 2, "{aligned} of {}", writes.len());
        assert_eq!(writes.concat(), expected);
        assert_eq!(handle.counts().bytes, expected.len() as u64);
    }

    #[test]
    fn what_is_held_back_is_written_when_nothing_comes() {
        let (writes, mut sink) = remembering(WrittenBy::Thread);
        let handle = sink.handle();
        for number in 1..=3 {
            handle.push(full(b'x'));
            until(|| handle.counts().written == number * full(b'x').records);
            // Longer than it takes to look again some times, with nothing to write.
            std::thread::sleep(std::time::Duration::from_millis(700));
        }
        sink.finish();
        assert_eq!(writes.0.lock().unwrap().concat(), full(b'x').bytes().repeat(3));
        assert!(!handle.failed());
    }

    #[test]
    fn who_hands_over_writes_before_it_goes_on() {
        let (writes, mut sink) = remembering(WrittenBy::Giver);
        let handle = sink.handle();
        handle.push(chunk("one\n"));
        assert_eq!(handle.counts().written, 1);
        handle.push_or_drop(chunk("two\n"));
        assert_eq!(writes.0.lock().unwrap().concat(), b"one\ntwo\n");
        // All but what is behind the last boundary; the end writes that.
        handle.push(full(b'x'));
        handle.push(full(b'y'));
        let written = writes.0.lock().unwrap().concat().len() as u64;
        assert_eq!((written, handle.counts().bytes), (WRITE_BYTES, WRITE_BYTES));
        sink.finish();
        assert_eq!(handle.counts().written, 2 + 2 * full(b'x').records);
    }

    #[test]
    fn of_several_chunks_that_break_off_each_record_is_counted_once() {
        let size = full(b'x').bytes().len();
        let rooms = [0, 5, 10, size - 1, size, size + 1, 2 * size + 15, 3 * size + 9];
        for (room, by) in rooms.into_iter().flat_map(|room| BOTH.map(|by| (room, by))) {
            let narrow = Opened::of("a pipe".to_owned(), Narrow { room });
            let mut sink = Sink::start(narrow, by).unwrap();
            let handle = sink.handle();
            for _ in 0..5 {
                handle.push(full(b'x'));
            }
            sink.finish();
            let counts = handle.counts();
            let dropped = 5 * full(b'x').records - room as u64 / 10;
            assert_eq!((counts.written, counts.bytes), (room as u64 / 10, room as u64));
            assert_eq!(counts.dropped, [dropped, 0, 0], "{room}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named() {
        let path = std::env::temp_dir().join("no such directory").join("out");
        let error = Opened::open(&Target::File(path.clone())).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }

    /// Waits, for up to 10 s.
    fn until(mut what: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !what() {
            assert!(std::time::Instant::now() < deadline, "it did not happen in 10 s");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_and_no_record_is_in_neither() {
        BOTH.into_iter().for_each(a_file_that_was_moved_away_is_opened_anew);
    }

    fn a_file_that_was_moved_away_is_opened_anew(by: WrittenBy) {
        let dir = std::env::temp_dir().join(format!("flowscope-reopen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (path, moved) = (dir.join("out"), dir.join("out.1"));
        let opened = Opened::open(&Target::File(path.clone())).unwrap();
        let mut sink = Sink::start(opened, by).unwrap();
        let handle = sink.handle();
        handle.push(chunk("first\n"));
        until(|| handle.counts().written == 1);
        std::fs::rename(&path, &moved).unwrap();
        handle.push(chunk("second\n"));
        until(|| handle.counts().written == 2);
        handle.reopen();
        until(|| path.exists());
        handle.push(chunk("third\n"));
        until(|| handle.counts().written == 3);
        // Not moved this time: it goes on in the same file.
        handle.reopen();
        handle.push(chunk("fourth\n"));
        sink.finish();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "first\nsecond\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\nfourth\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
