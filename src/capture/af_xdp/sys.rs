//! System calls that no crate of ours wraps: what the kernel tells about sockets.
//!
//! Contract: every pointer passed is to a local of the right size; what comes back is plain numbers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::capture::sys::option;

/// Wakes up a driver that waits for frames to write to.
pub(super) fn wake_up(fd: BorrowedFd<'_>) {
    // SAFETY:
    // - no buffer is passed, so nothing is written; whatever it says, the next call tries again.
    let _ = unsafe {
        let nothing = std::ptr::null_mut();
        libc::recvfrom(
            fd.as_raw_fd(),
            nothing,
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

/// Whether the kernel writes frames right into the UMEM (`XDP_OPTIONS`).
pub(super) fn is_zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(option(fd, libc::SOL_XDP, libc::XDP_OPTIONS)? & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Nanoseconds of `CLOCK_REALTIME` and `CLOCK_MONOTONIC`, one right after the other.
pub(super) fn clocks_ns() -> (u64, u64) {
    let read = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY:
        // - `time` lives until the call returns.
        // - the two clocks exist on every Linux, so that it does not fail.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    (read(libc::CLOCK_REALTIME), read(libc::CLOCK_MONOTONIC))
}
