//! A file that is written for weeks and read soon or never: what is on the disk leaves the page cache.
//!
//! Left alone, the kernel keeps records until memory is short, writes them in bursts, and stops whoever writes once too much of
//! memory waits to be written. Here it is told to begin with every [`STEP_BYTES`], and to let go of what was written a while ago
//! (posix_fadvise(2), `POSIX_FADV_DONTNEED`, which does both). So the same pages are used again and again; where free memory is the
//! host's, in a virtual machine, fresh ones cost more than all that is written into them. Of a file of up to
//! [`LEFT_BYTES`] the kernel is told nothing: that much is no burden, telling is up to a sixteenth of a replay's time, and who has replayed
//! a capture looks at its records next.
//!
//! Contract: bytes and errors are the file's own; what is told is advice, and where it is not taken nothing else changes. The last
//! [`KEPT_BYTES`] stay, for who follows the file. A thread of its own tells it, because a slow disk may make it wait: the writer never does, and
//! what the thread does not come to, the kernel writes when it likes.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// A file that is no longer is left alone.
const LEFT_BYTES: u64 = 512 << 20;
/// Of a longer one the kernel is told so often.
const STEP_BYTES: u64 = 1 << 20;
/// What was written last and stays.
const KEPT_BYTES: u64 = 16 << 20;
/// How far back is looked for pages that were not on the disk the last time.
const REACH_BYTES: u64 = 128 << 20;
/// Steps that the thread may be behind before it misses some; the next one then stands for them too.
const STEPS_WAITING: usize = 16;

/// Writes to a file and lets go of it behind.
#[derive(Debug)]
pub(super) struct DropBehind {
    file: File,
    /// Bytes in the file.
    at: u64,
    thread: Thread,
}

/// Who tells the kernel.
#[derive(Debug)]
enum Thread {
    /// There was nothing to tell yet.
    Later,
    Runs(SyncSender<u64>),
    /// It could not be had, or nothing can be told of this file.
    Ended,
}

impl DropBehind {
    /// Of a file that is written from `at` on, where its end is.
    pub(super) fn new(file: File, at: u64) -> Self {
        Self { file, at, thread: Thread::Later }
    }

    /// The whole steps from `told` on end at `end` now.
    fn tell(&mut self, told: u64, end: u64) {
        if let Thread::Later = self.thread {
            let started = self.file.try_clone().and_then(|file| start(file, told));
            self.thread = started.map_or(Thread::Ended, Thread::Runs);
        }
        if let Thread::Runs(steps) = &self.thread
            && let Err(TrySendError::Disconnected(_)) = steps.try_send(end)
        {
            self.thread = Thread::Ended;
        }
    }
}

impl Write for DropBehind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let more = self.file.write_vectored(slices)?;
        let told = whole_steps(self.at);
        self.at += more as u64;
        let end = whole_steps(self.at);
        if end > told.max(LEFT_BYTES) {
            self.tell(told, end);
        }
        Ok(more)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn whole_steps(bytes: u64) -> u64 {
    bytes / STEP_BYTES * STEP_BYTES
}

/// The thread, which ends when nobody can tell it anything any more, or when there is nothing to be told of such a file.
fn start(file: File, told: u64) -> io::Result<SyncSender<u64>> {
    let (steps, ends) = sync_channel(STEPS_WAITING);
    std::thread::Builder::new()
        .name("drop-behind".to_owned())
        .spawn(move || run(&ends, told, |range| let_go(&file, range)))?;
    Ok(steps)
}

/// For each end, says of what is new that it is to be written, and of what is far behind that it is not needed.
fn run(ends: &Receiver<u64>, mut told: u64, mut let_go: impl FnMut(Range<u64>) -> io::Result<()>) {
    while let Ok(end) = ends.recv() {
        let old = end.saturating_sub(REACH_BYTES)..end.saturating_sub(KEPT_BYTES);
        if let_go(told..end).and_then(|()| let_go(old)).is_err() {
            return;
        }
        told = end;
    }
}

/// Begins to write what is dirty of a range, and takes out of the page cache what is not.
#[cfg(target_os = "linux")]
fn let_go(file: &File, range: Range<u64>) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};
    // A length of 0 would be all that follows.
    let Some(len) = std::num::NonZeroU64::new(range.end.saturating_sub(range.start)) else {
        return Ok(());
    };
    Ok(fadvise(file, range.start, Some(len), Advice::DontNeed)?)
}

#[cfg(not(target_os = "linux"))]
fn let_go(_: &File, _: Range<u64>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use std::io::{Read, Seek, SeekFrom};

    use super::*;
    #[cfg(target_os = "linux")]
    use crate::capture::cached::{cached_pages, is_in_memory, page_bytes};

    #[test]
    fn a_file_is_left_alone_until_it_is_long() {
        let path = std::env::temp_dir().join(format!("flowscope-behind-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        let mut file = DropBehind::new(file, LEFT_BYTES - 2 * STEP_BYTES);
        let step = vec![b'x'; STEP_BYTES as usize];
        for _ in 0..2 {
            file.write_all(&step).unwrap();
            assert!(matches!(file.thread, Thread::Later));
        }
        file.write_all(&step).unwrap();
        assert!(matches!(file.thread, Thread::Runs(_)));
        std::fs::remove_file(&path).unwrap();
    }

    /// What is told of a file that was told of up to `told` and has these ends, up to the first refusal.
    fn told_of(told: u64, ends: &[u64], refuses: bool) -> Vec<(u64, u64)> {
        let (steps, receiver) = sync_channel(ends.len());
        ends.iter().for_each(|&end| steps.send(end).unwrap());
        drop(steps);
        let mut ranges = Vec::new();
        run(&receiver, told, |range| {
            ranges.push((range.start, range.end));
            if refuses { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
        });
        ranges
    }

    #[test]
    fn what_is_new_is_written_and_what_is_far_behind_is_let_go_of() {
        const STEP: u64 = STEP_BYTES;
        let kept = KEPT_BYTES;
        assert_eq!(
            told_of(0, &[STEP, 3 * STEP], false),
            [(0, STEP), (0, 0), (STEP, 3 * STEP), (0, 0)]
        );
        assert_eq!(told_of(kept, &[kept + STEP], false), [(kept, kept + STEP), (0, STEP)]);
        // Of a long file, what is in reach.
        let far = 10 * REACH_BYTES;
        assert_eq!(
            told_of(far - STEP, &[far], false),
            [(far - STEP, far), (far - REACH_BYTES, far - kept)]
        );
        // What cannot be told anything is not told again.
        assert_eq!(told_of(0, &[STEP, 2 * STEP], true), [(0, STEP)]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_long_file_has_all_its_bytes_and_little_of_the_page_cache() {
        const LEN: usize = 4 * KEPT_BYTES as usize;
        // Beside the program: of a file in memory nothing can be let go of.
        let here = std::env::current_exe().unwrap();
        let path = here.with_file_name(format!("drop-behind-{}", std::process::id()));
        let whole: Vec<u8> = (0..=u8::MAX).cycle().take(LEN + STEP_BYTES as usize).collect();
        let (first, last) = whole.split_at(LEN);
        // Behind a hole, so that it is long.
        let mut file = File::create_new(&path).unwrap();
        file.set_len(LEFT_BYTES).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        let mut file = DropBehind::new(file, LEFT_BYTES);
        for piece in first.chunks(100_000) {
            file.write_all(piece).unwrap();
        }
        // Until the disk has it; what comes next lets go of it.
        file.file.sync_all().unwrap();
        file.write_all(last).unwrap();
        let all = 0..(LEFT_BYTES as usize + whole.len());
        let cached = || cached_pages(&file.file, &all).map(|pages| pages * page_bytes() as u64);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut left = if is_in_memory(&path) { None } else { cached() };
        while left > Some(LEN as u64 / 2) && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(10));
            left = cached();
        }
        let mut bytes = Vec::new();
        let mut written = File::open(&path).unwrap();
        written.seek(SeekFrom::Start(LEFT_BYTES)).unwrap();
        written.read_to_end(&mut bytes).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(bytes == whole, "{} of {} bytes, or others", bytes.len(), whole.len());
        let Some(left) = left else {
            let why = "this file system is in memory, or this kernel does not say what is cached";
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("SKIPPED in part: {why}");
            return;
        };
        assert!(left <= LEN as u64 / 2, "{left} bytes in the page cache");
    }
}
