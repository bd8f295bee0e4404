//! What the page cache has of a file, and what it is told of how the file is read.
//!
//! Contract: both are hints. Where a system cannot say, a file counts as cached; where it cannot be told, nothing happens.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

/// How many pages are looked at, evenly spread.
#[cfg(target_os = "linux")]
const SAMPLES: usize = 16;

/// Whether most of a mapped file is in the page cache, by a look at some of its pages (mincore(2)): some microseconds.
#[cfg(target_os = "linux")]
pub(super) fn is_cached(file: &[u8]) -> bool {
    let page_bytes = page_bytes();
    let pages = file.len().div_ceil(page_bytes);
    let samples = SAMPLES.min(pages);
    let is_in = |sample: usize| {
        let mut told = 0;
        let page = file[sample * pages / samples * page_bytes..].as_ptr();
        // SAFETY: mincore
        // - is asked about one page, of a slice that is mapped, so that its answer is one byte, which `told` has room for;
        // - takes an address at a page's begin, or fails: a map begins at one, and the sample is whole pages further;
        // - reads and changes nothing of the page.
        let asked = unsafe { libc::mincore(page.cast_mut().cast(), 1, &raw mut told) };
        asked != 0 || told & 1 == 1
    };
    2 * (0..samples).filter(|sample| is_in(*sample)).count() >= samples
}

/// What cachestat(2) is told, and what it tells: `struct cachestat_range` and `struct cachestat` of linux/mman.h.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Range {
    from: u64,
    bytes: u64,
}
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Default)]
struct Told {
    cached: u64,
    dirty: u64,
    in_writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all of these bytes of a file are in the page cache: a microsecond for some hundred kilobytes. Not, where that is not known.
#[cfg(target_os = "linux")]
pub(super) fn is_all_cached(file: &std::fs::File, bytes: &std::ops::Range<usize>) -> bool {
    let page_bytes = page_bytes();
    let pages = bytes.start / page_bytes..bytes.end.div_ceil(page_bytes);
    cached_pages(file, bytes) == Some(pages.len() as u64)
}

/// How many pages of these bytes, which are some, are in the page cache. Nothing is known before Linux 6.5, and of a file that is somebody else's.
#[cfg(target_os = "linux")]
pub(crate) fn cached_pages(file: &std::fs::File, bytes: &std::ops::Range<usize>) -> Option<u64> {
    use std::os::fd::AsRawFd;
    /// asm-generic/unistd.h, which most architectures go by; others know no such number. The libc crate does not have it for most.
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = Range { from: bytes.start as u64, bytes: bytes.len() as u64 };
    let mut told = Told::default();
    // SAFETY: cachestat
    // - takes an open file descriptor, which `file` owns for the length of the call, and no flags;
    // - reads `range` and writes `told`, which are laid out as it has them and live longer than the call.
    let asked = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut told, 0)
    };
    // No bytes at all would mean all that follow.
    (asked == 0 && !bytes.is_empty()).then_some(told.cached)
}

#[cfg(target_os = "linux")]
pub(crate) fn page_bytes() -> usize {
    // SAFETY: sysconf with this name
    // - takes an integer and touches no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The file will be read from its beginning to its end: the kernel reads twice as far ahead (posix_fadvise(2)).
#[cfg(target_os = "linux")]
pub(super) fn read_in_order(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: posix_fadvise
    // - takes an open file descriptor, which `file` owns for the length of the call;
    // - takes integers besides, and touches no memory of ours. What it says of failures is not looked at.
    let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_cached(_: &[u8]) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
pub(super) fn read_in_order(_: &std::fs::File) {}

/// Whether a file's file system is tmpfs, where all is always in the page cache.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn is_in_memory(path: &std::path::Path) -> bool {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(path).unwrap().f_type as u64 == TMPFS
}
