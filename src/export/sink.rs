//! The writing end: one thread a sink, which takes full buffers from a bounded queue.
//!
//! Contract: every record handed to a sink is counted once, as written or as dropped under a
//! [`DropReason`]; counts are exact to the record when a write breaks off half-way. Who hands over a chunk chooses
//! whether to wait for room or to drop its records. After the first failed write a sink takes and drops, so that nobody waits for it.
//! A file can be opened anew while records come, for who moved it away: between two chunks, so that each record is in one file or
//! the other.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;

use super::queue::Queue;
use super::text::LINE_BYTES_MAX;

/// Size of a buffer of records: one write.
pub const CHUNK_BYTES: usize = 128 * 1024;

/// Buffers that wait for a sink at most.
const CHUNKS_QUEUED_MAX: usize = 16;

/// Whole records in one buffer.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The text, one line a record.
    pub bytes: Vec<u8>,
    /// How many records.
    pub records: u64,
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
                Self { path: Some(path.clone()), ..Self::of(name, file) }
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

/// A running sink. Dropping it without [`finish`](Self::finish) leaves its thread to end by itself.
#[derive(Debug)]
pub struct Sink {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue<Chunk>,
    recycled: ArrayQueue<Vec<u8>>,
    written: AtomicU64,
    bytes: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    failed: AtomicBool,
    error: std::sync::Mutex<Option<String>>,
    /// The file is to be opened anew before the next chunk.
    reopen: AtomicBool,
}

impl Sink {
    /// Starts a thread that writes to what was opened.
    pub fn start(opened: Opened) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            queue: Queue::new(CHUNKS_QUEUED_MAX),
            recycled: ArrayQueue::new(CHUNKS_QUEUED_MAX + 2),
            written: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: Default::default(),
            failed: AtomicBool::new(false),
            error: std::sync::Mutex::new(None),
            reopen: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let name = opened.name.clone();
        let thread = std::thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || of_thread.run(opened))
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
        self.shared.queue.close();
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
    /// Hands over a chunk, waiting for room; an empty one is not worth a wake-up, and a full one is worth one with some others.
    pub fn push(&self, chunk: Chunk) {
        if chunk.records == 0 {
            return;
        }
        // A chunk that was handed over before it was full is one that somebody waits for.
        let is_full = chunk.bytes.len() + LINE_BYTES_MAX > CHUNK_BYTES;
        let queue = &self.shared.queue;
        let pushed = if is_full { queue.push_without_hurry(chunk) } else { queue.push(chunk) };
        if let Err(chunk) = pushed {
            self.shared.drop_records(DropReason::WriteFailed, chunk.records);
        }
    }

    /// Hands over a chunk if there is room at once; else its records are dropped.
    pub fn push_or_drop(&self, chunk: Chunk) {
        if chunk.records != 0
            && let Err(chunk) = self.shared.queue.try_push(chunk)
        {
            self.shared.drop_records(DropReason::QueueFull, chunk.records);
        }
    }

    /// A file is opened anew before anything more is written to it: the path may be another file by now. A sink that had failed
    /// tries again. Does nothing to standard output.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::SeqCst);
        // Wakes a thread that has nothing to do; in a full queue it has.
        let _ = self.shared.queue.try_push(Chunk::default());
    }

    /// An empty buffer, used before if there is one.
    pub fn buffer(&self) -> Vec<u8> {
        self.shared.recycled.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
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
    fn run(&self, opened: Opened) {
        let Opened { name, mut output, path } = opened;
        let mut failure: Option<DropReason> = None;
        while let Some(chunk) = self.queue.pop() {
            if self.reopen.swap(false, Ordering::SeqCst)
                && let Some(path) = &path
            {
                match reopened(path) {
                    Ok(file) => {
                        tracing::info!(output = %name, "opened anew");
                        output = Box::new(file);
                        failure = None;
                        self.failed.store(false, Ordering::Relaxed);
                    }
                    Err(error) => {
                        tracing::error!(output = %name, %error, "could not be opened anew, the old file is kept");
                    }
                }
            }
            if let Some(reason) = failure {
                self.drop_records(reason, chunk.records);
            } else if let Err(broken) = self.write(&mut output, &chunk) {
                let reason = self.note(&broken.error);
                self.drop_records(reason, chunk.records - broken.written);
                failure = Some(reason);
            }
            let mut bytes = chunk.bytes;
            bytes.clear();
            if bytes.capacity() != 0 {
                // A full recycle queue has enough buffers: this one is freed.
                let _ = self.recycled.push(bytes);
            }
        }
        if failure.is_none()
            && let Err(error) = output.flush()
        {
            self.note(&error);
        }
    }

    fn write(&self, output: &mut impl Write, chunk: &Chunk) -> Result<(), Broken> {
        let mut done = 0;
        while done < chunk.bytes.len() {
            match output.write(&chunk.bytes[done..]) {
                Ok(0) => return Err(self.broken(io::ErrorKind::WriteZero.into(), chunk, done)),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error, chunk, done)),
            }
        }
        self.written.fetch_add(chunk.records, Ordering::Relaxed);
        self.bytes.fetch_add(done as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Counts the lines that went out whole.
    fn broken(&self, error: io::Error, chunk: &Chunk, done: usize) -> Broken {
        let written = chunk.bytes[..done].iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.written.fetch_add(written, Ordering::Relaxed);
        self.bytes.fetch_add(done as u64, Ordering::Relaxed);
        Broken { error, written }
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

struct Broken {
    error: io::Error,
    written: u64,
}

/// Not made anew: when nobody moved it, what was written stays.
fn reopened(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut sink = Sink::start(Opened::of("a pipe".to_owned(), Narrow { room: 11 })).unwrap();
        let handle = sink.handle();
        for _ in 0..3 {
            handle.push(Chunk { bytes: b"1234\n1234\n".to_vec(), records: 2 });
        }
        sink.finish();
        let counts = handle.counts();
        assert_eq!((counts.written, counts.bytes), (2, 11));
        assert_eq!(counts.dropped, [4, 0, 0]);
        assert!(handle.failed());
        assert!(handle.error().is_some());
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
        let dir = std::env::temp_dir().join(format!("flowscope-reopen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (path, moved) = (dir.join("out"), dir.join("out.1"));
        let mut sink = Sink::start(Opened::open(&Target::File(path.clone())).unwrap()).unwrap();
        let handle = sink.handle();
        let chunk = |text: &str| Chunk { bytes: text.as_bytes().to_vec(), records: 1 };
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
