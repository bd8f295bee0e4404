//! A file that is written for weeks and read soon or never: what is on the disk leaves the page cache.
//!
//! Left alone, the kernel keeps records until memory is short, writes them in bursts, and stops whoever writes once too much of
//! memory waits to be written. Here it is told to begin with every [`STEP_BYTES`], and to let go of what was written a while ago
//! (posix_fadvise(2), `POSIX_FADV_DONTNEED`, which does both). So the same pages are used again and again; where free memory is the
//! host's, in a virtual machine, fresh ones cost more than all that is written into them.
//!
//! Contract: bytes and errors are the file's own; what is told is advice, and where it is not taken nothing else changes. The last
//! [`KEPT_BYTES`] stay, for who follows the file. A disk that is slower than the records come holds them up by no more than
//! [`SPENT_MAX`] in every [`ROUND_BYTES`]: the rest of those the kernel writes when it likes.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

/// The kernel is told so often.
const STEP_BYTES: u64 = 1 << 20;
/// What was written last and stays.
const KEPT_BYTES: u64 = 16 << 20;
/// How far back is looked for pages that were not on the disk the last time.
const REACH_BYTES: u64 = 128 << 20;
/// What [`SPENT_MAX`] is for.
const ROUND_BYTES: u64 = 1 << 30;
/// What telling the kernel may take: some 0.2 s a round are usual, and a slow disk makes it wait.
const SPENT_MAX: Duration = Duration::from_millis(500);

/// Writes to a file and lets go of it behind.
#[derive(Debug)]
pub(super) struct DropBehind {
    file: File,
    trail: Trail,
}

impl DropBehind {
    /// Of a file that is written from `at` on, where its end is.
    pub(super) fn new(file: File, at: u64) -> Self {
        Self { file, trail: Trail::new(at) }
    }

    fn wrote(&mut self, more: usize) -> usize {
        self.trail.wrote(more as u64, |range| let_go(&self.file, range));
        more
    }
}

impl Write for DropBehind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let more = self.file.write(bytes)?;
        Ok(self.wrote(more))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let more = self.file.write_vectored(slices)?;
        Ok(self.wrote(more))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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

/// Where the writer is, and what is said of what lies behind.
#[derive(Debug)]
struct Trail {
    /// Bytes in the file.
    at: u64,
    /// Whole steps that the kernel was told to write.
    told: u64,
    /// How long that took in this round.
    spent: Duration,
    /// Not a file of which anything can be told.
    is_off: bool,
}

impl Trail {
    fn new(at: u64) -> Self {
        Self { at, told: at / STEP_BYTES * STEP_BYTES, spent: Duration::ZERO, is_off: false }
    }

    /// So many more bytes are in the file. Says by `let_go` which of them are not needed.
    fn wrote(&mut self, more: u64, mut let_go: impl FnMut(Range<u64>) -> io::Result<()>) {
        self.at += more;
        let end = self.at / STEP_BYTES * STEP_BYTES;
        if end == self.told {
            return;
        }
        if end / ROUND_BYTES != self.told / ROUND_BYTES {
            self.spent = Duration::ZERO;
        }
        let new = self.told..end;
        self.told = end;
        if self.is_off || self.spent >= SPENT_MAX {
            return;
        }
        let begun = Instant::now();
        let old = end.saturating_sub(REACH_BYTES)..end.saturating_sub(KEPT_BYTES);
        self.is_off = let_go(new).and_then(|()| let_go(old)).is_err();
        self.spent += begun.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a file that grows by pieces of these lengths.
    fn told(at: u64, pieces: &[u64]) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        let mut trail = Trail::new(at);
        for &piece in pieces {
            trail.wrote(piece, |range| {
                ranges.push((range.start, range.end));
                Ok(())
            });
        }
        ranges.retain(|(start, end)| start < end);
        ranges
    }

    #[test]
    fn whole_steps_are_written_once_and_let_go_of_when_they_are_far_behind() {
        const STEP: u64 = STEP_BYTES;
        assert!(told(0, &[STEP - 1]).is_empty());
        assert_eq!(told(0, &[STEP - 1, 1, 5]), [(0, STEP)]);
        assert_eq!(told(3 * STEP + 7, &[1, 2 * STEP]), [(3 * STEP, 5 * STEP)]);
        // Nothing is let go of before so much is kept; then all but that is.
        let kept = KEPT_BYTES / STEP;
        let ranges = told(0, &vec![STEP; kept as usize + 2]);
        assert_eq!(ranges.len() as u64, kept + 4);
        assert_eq!(ranges[kept as usize + 1..][..1], [(0, STEP)]);
        assert_eq!(ranges[kept as usize + 3..], [(0, 2 * STEP)]);
        // Of a long file, what is in reach.
        let far = 10 * REACH_BYTES;
        let expected = [(far, far + STEP), (far + STEP - REACH_BYTES, far + STEP - KEPT_BYTES)];
        assert_eq!(told(far, &[STEP]), expected);
    }

    #[test]
    fn a_slow_disk_is_left_alone_until_the_next_round() {
        let mut trail = Trail::new(0);
        let steps = ROUND_BYTES / STEP_BYTES;
        let mut asked = Vec::new();
        for step in 1..=steps + 1 {
            trail.wrote(STEP_BYTES, |new| {
                if new.end == step * STEP_BYTES {
                    asked.push(step);
                    std::thread::sleep(SPENT_MAX);
                }
                Ok(())
            });
        }
        // The last step of the first gibibyte ends where the next begins.
        assert_eq!(asked, [1, steps]);
    }

    #[test]
    fn what_cannot_be_told_anything_is_not_told_again() {
        let mut trail = Trail::new(0);
        let mut asked = 0;
        for _ in 0..3 {
            trail.wrote(STEP_BYTES, |_| {
                asked += 1;
                Err(io::ErrorKind::Unsupported.into())
            });
        }
        assert_eq!(asked, 1);
    }

    /// How many bytes of a file are in the page cache; `None` where that is not to be known.
    fn cached(path: &std::path::Path) -> Option<u64> {
        let output = std::process::Command::new("fincore")
            .args(["--bytes", "--noheadings", "--output", "RES"])
            .arg(path)
            .output();
        String::from_utf8(output.ok()?.stdout).ok()?.trim().parse().ok()
    }

    /// Whether a file is on tmpfs.
    fn is_in_memory(path: &std::path::Path) -> bool {
        let kind = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(path).output();
        kind.is_ok_and(|kind| kind.stdout == b"tmpfs\n")
    }

    #[test]
    fn a_long_file_has_all_its_bytes_and_little_of_the_page_cache() {
        const LEN: u64 = 4 * KEPT_BYTES;
        // Beside the program: of a file in memory nothing can be let go of.
        let here = std::env::current_exe().unwrap();
        let path = here.with_file_name(format!("drop-behind-{}", std::process::id()));
        let mut file = DropBehind::new(File::create(&path).unwrap(), 0);
        let piece: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        let mut left = LEN as usize;
        while left > 0 {
            let (half, rest) = piece[..left.min(piece.len())].split_at(piece.len().min(left) / 2);
            file.write_all(half).unwrap();
            file.write_all(rest).unwrap();
            left -= half.len() + rest.len();
        }
        // Until the disk has it; what comes next lets go of it.
        file.file.sync_all().unwrap();
        let in_memory = cached(&path);
        file.write_all(&vec![0; STEP_BYTES as usize]).unwrap();
        let left = cached(&path);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..LEN as usize].chunks(piece.len()).all(|part| *part == piece[..part.len()]));
        assert_eq!(bytes.len() as u64, LEN + STEP_BYTES);
        match left {
            _ if !cfg!(target_os = "linux") => {}
            // Memory is where such a file is.
            Some(left) if left >= LEN && is_in_memory(&path) => {
                eprintln!("SKIPPED in part: {} is in memory", path.display())
            }
            Some(left) => assert!(left <= LEN / 2, "{left} bytes, {in_memory:?} before"),
            None => eprintln!(
                "SKIPPED in part: there is no fincore (util-linux) to tell what is in memory"
            ),
        }
        std::fs::remove_file(&path).unwrap();
    }
}
