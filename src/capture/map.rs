//! A capture file mapped into memory, where that is safe.
//!
//! Contract: bytes of a [`Map`] can be read as long as [`Map::advance`] says so. Truncating a file takes the pages
//! from under whoever has it mapped (SIGBUS), so a file is mapped only under a read lease (fcntl(2), `F_SETLEASE`): nobody
//! has it open for writing, and who wants to write or truncate it waits until we were told and let go of it, for
//! `/proc/sys/fs/lease-break-time` (45 s) at most. We ask before every sixteenth batch or stretch. A lease takes Linux, a local file system, and
//! the file's owner or CAP_LEASE; without it the file is read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::Mmap;

use super::cached;

/// How much is made ready at a time, so that whoever parses has no page faults.
const WINDOW_BYTES: usize = 2 << 20;
/// So many bytes around one that is touched the kernel enters into the page table, if they are in the page cache (`fault_around_bytes`).
const ENTERED_BYTES: usize = 64 << 10;
/// More is made ready when so much of it is left.
pub(super) const MARGIN_BYTES: usize = WINDOW_BYTES / 2;
/// So much is let go of at a time: it interrupts every core that has a view.
const PASSED_BYTES: usize = 4 << 20;
/// The same where several have one, and each call stops them all.
const PASSED_BYTES_OF_SEVERAL: usize = 16 << 20;

/// The lease is asked about once in so many batches: a system call for some 40 µs of work.
const BATCHES_A_LOOK: u32 = 16;

/// A view of a file's bytes under a lease.
pub(super) struct Map {
    leased: Arc<Leased>,
    /// Which of the views it is.
    view: usize,
    /// Up to where its pages are known to be ready.
    ready: usize,
    /// Batches until the lease is asked about again.
    until_look: u32,
}

/// What goes back once nobody looks at the bytes any more.
struct Leased {
    /// Before `lease`, and so unmapped before that is given back.
    bytes: Mmap,
    lease: Lease,
    pages: Mutex<Pages>,
    /// Bytes could not be had.
    is_lost: AtomicBool,
}

/// What the views have in common: pages are made ready once, and let go of when all views are past them.
struct Pages {
    /// Up to where they were made ready, or somebody is about to.
    ready: usize,
    /// Up to where they were let go of.
    gone: usize,
    /// Where each view was when it last asked.
    at: Vec<usize>,
}

impl Leased {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Whoever panicked left nothing half done.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that nobody writes to.
struct Lease(File);

impl Drop for Lease {
    fn drop(&mut self) {
        // Of the file as it is open, by whatever descriptors. Not given back, the lease ends with the last of them.
        let _ = lease::give_back(&self.0);
    }
}

impl Map {
    /// Maps all of `file`. `Err` gives it back when that is not safe, cannot be done, or is slower than reading: what is to come from
    /// a disk comes sooner to who reads.
    pub(super) fn new(file: File) -> Result<Self, File> {
        if lease::take(&file).is_err() {
            return Err(file);
        }
        // SAFETY: the slice that the map lends must stay readable and must not change while it is borrowed.
        // - Readable: the map is private to us and unmapped only when dropped, after every borrow of it. The file is not
        //   truncated: the lease taken above, which is given back only after the map is gone, holds off whoever wants to,
        //   `advance` tells the caller before each sixteenth batch, and the caller has lease-break-time for sixteen. A disk that fails
        //   raises SIGBUS, which ends the process: loud, and not undefined behaviour; `advance`, or who makes ready, finds nearly
        //   all of that first.
        // - Unchanged: nobody has the file open for writing, and nobody gets to before the lease is back. Beyond that,
        //   every parser over these bytes takes each field out once, by value, checks the value it took, and bounds
        //   every slice by the map's length: changed bytes would give wrong frames, not bad accesses.
        match unsafe { Mmap::map(&file) } {
            Ok(bytes) if cached::is_cached(&bytes) => {
                let leased = Leased {
                    bytes,
                    lease: Lease(file),
                    pages: Mutex::new(Pages { ready: 0, gone: 0, at: Vec::new() }),
                    is_lost: AtomicBool::new(false),
                };
                Ok(Self::view(Arc::new(leased)))
            }
            _ => {
                // What cannot be given back goes with the file.
                let _ = lease::give_back(&file);
                Err(file)
            }
        }
    }

    /// All of the file, as long as it was.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.leased.bytes
    }

    /// One more view, from the beginning.
    pub(super) fn again(&self) -> Self {
        Self::view(Arc::clone(&self.leased))
    }

    fn view(leased: Arc<Leased>) -> Self {
        let mut pages = leased.pages();
        let view = pages.at.len();
        pages.at.push(0);
        drop(pages);
        Self { leased, view, ready: 0, until_look: 0 }
    }

    /// Makes the bytes from `at` on ready, for a batch of frames. `false` when the map must not be used any more:
    /// somebody waits for the file, or its bytes cannot be had.
    #[inline]
    pub(super) fn advance(&mut self, at: usize) -> bool {
        self.is_ours()
            && (self.ready == self.bytes().len() || at + MARGIN_BYTES < self.ready || self.next(at))
    }

    #[inline]
    fn is_ours(&mut self) -> bool {
        if self.until_look == 0 {
            self.until_look = BATCHES_A_LOOK;
            if !lease::holds(&self.leased.lease.0) {
                return false;
            }
        }
        self.until_look -= 1;
        true
    }

    #[cold]
    fn next(&mut self, at: usize) -> bool {
        let leased = &self.leased;
        // Each window begins where what is entered together does, if the map does.
        let end = (at / ENTERED_BYTES * ENTERED_BYTES + WINDOW_BYTES).min(leased.bytes.len());
        let mut pages = leased.pages();
        pages.at[self.view] = at;
        // Another view may be further, and make them ready just now: where this one comes first they are faulted in one by one.
        if pages.ready >= end {
            self.ready = pages.ready;
            return !leased.is_lost.load(Ordering::Relaxed);
        }
        let ready = pages.ready..end;
        let passed_bytes = if pages.at.len() > 1 { PASSED_BYTES_OF_SEVERAL } else { PASSED_BYTES };
        let passed = pages.at.iter().min().map_or(0, |at| at / passed_bytes * passed_bytes);
        let gone = pages.gone..passed.max(pages.gone);
        (pages.ready, pages.gone) = (ready.end, gone.end);
        drop(pages);
        self.ready = end;
        // Pages that stay in the page table count as ours: a process would seem to hold all of the file.
        if !gone.is_empty() {
            let_go(&leased.bytes, gone.start, gone.len());
        }
        if make_ready(leased, ready).is_err() {
            leased.is_lost.store(true, Ordering::Relaxed);
        }
        !leased.is_lost.load(Ordering::Relaxed)
    }

    /// The file, to be read on from wherever. Its map and its lease go once no view looks at the bytes any more.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(super) fn file(&self) -> io::Result<File> {
        self.leased.lease.0.try_clone()
    }
}

/// What it has not come to keeps no pages.
impl Drop for Map {
    fn drop(&mut self) {
        self.leased.pages().at[self.view] = usize::MAX;
    }
}

/// Reads the pages of a range and enters them into the page table: no fault is left for who parses.
///
/// Where all are in the page cache, one of all that the kernel enters together is touched, which takes two thirds of what populating takes.
/// Else they are populated, for touching a page that cannot be had ends the process.
#[cfg(target_os = "linux")]
fn make_ready(leased: &Leased, range: Range<usize>) -> io::Result<()> {
    let Leased { bytes, lease: Lease(file), .. } = leased;
    if !cached::is_all_cached(file, &range) {
        return populate(bytes, range.start, range.len());
    }
    bytes[range].iter().step_by(ENTERED_BYTES).for_each(|byte| {
        std::hint::black_box(*byte);
    });
    Ok(())
}

/// The same, whatever is in the page cache: each page is looked at. Says when one cannot be had.
#[cfg(target_os = "linux")]
fn populate(bytes: &Mmap, from: usize, len: usize) -> io::Result<()> {
    match bytes.advise_range(memmap2::Advice::PopulateRead, from, len) {
        // Kernels before 5.14 do not know it and fault page by page.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// Takes the pages of a range out of the page table; they stay in the page cache.
#[cfg(target_os = "linux")]
fn let_go(bytes: &Mmap, from: usize, len: usize) {
    // SAFETY:
    // - MADV_DONTNEED throws away what was written to private pages; nothing was, the map cannot be written to: who
    //   reads here again reads the same bytes from the file.
    // - The range is within the map, or the call fails and changes nothing, which does no harm.
    let _ = unsafe { bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, len) };
}

#[cfg(not(target_os = "linux"))]
fn make_ready(_: &Leased, _: Range<usize>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn let_go(_: &Mmap, _: usize, _: usize) {}

/// Read leases.
#[cfg(target_os = "linux")]
mod lease {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    /// asm-generic/fcntl.h, which every architecture that Rust has a Linux target for goes by. The libc crate does
    /// not have it.
    const F_SETSIG: libc::c_int = 10;

    fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: fcntl with these commands
        // - takes an open file descriptor, which `file` owns for the length of the call;
        // - takes an integer as its third argument and touches no memory of ours.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
            -1 => Err(io::Error::last_os_error()),
            value => Ok(value),
        }
    }

    /// Of the file as it is open: nobody may have it open for writing.
    pub(super) fn take(file: &File) -> io::Result<()> {
        // We ask whether the lease is wanted back. The signal that tells it is SIGIO, which ends a process that does
        // not handle it; this one is ignored by default.
        fcntl(file, F_SETSIG, libc::SIGURG)?;
        fcntl(file, libc::F_SETLEASE, libc::F_RDLCK).map(drop)
    }

    /// Whether it is ours and nobody wants it back.
    pub(super) fn holds(file: &File) -> bool {
        fcntl(file, libc::F_GETLEASE, 0).is_ok_and(|kind| kind == libc::F_RDLCK)
    }

    pub(super) fn give_back(file: &File) -> io::Result<()> {
        fcntl(file, libc::F_SETLEASE, libc::F_UNLCK).map(drop)
    }
}

/// There are none: nothing is mapped.
#[cfg(not(target_os = "linux"))]
mod lease {
    use std::fs::File;
    use std::io;

    pub(super) fn take(_: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn holds(_: &File) -> bool {
        false
    }

    pub(super) fn give_back(_: &File) -> io::Result<()> {
        Ok(())
    }
}
