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
    // SAFETY: sysconf with this name
    // - takes an integer and touches no memory of ours.
    let page_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
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
