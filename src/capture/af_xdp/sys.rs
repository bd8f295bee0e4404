//! System calls that no crate of ours wraps: what the kernel tells about sockets.
//!
//! Contract: every pointer passed is to a local of the right size; what comes back is plain numbers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::config::BusyPoll;
use crate::capture::sys::{option, set_option};

/// Has the driver polled by who reads the socket, and not by interrupts where those are put off.
pub(super) fn set_busy_poll(fd: BorrowedFd<'_>, busy_poll: BusyPoll) -> io::Result<()> {
    let set = |name, value| set_option(fd, libc::SOL_SOCKET, name, value);
    set(libc::SO_PREFER_BUSY_POLL, 1)?;
    // That it is not 0 is what counts: a call that does not block polls once.
    set(libc::SO_BUSY_POLL, busy_poll.micros as libc::c_int)?;
    set(libc::SO_BUSY_POLL_BUDGET, busy_poll.budget.into())
}

/// Wakes up a driver that waits for frames to write to; polls it, here and now, where that is on.
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;
    use crate::capture::nic::{Capability, Rights};

    #[test]
    fn busy_polling_is_in_force_once_it_is_set_and_refused_without_the_right() {
        // The options are those of every socket.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let set = set_busy_poll(socket.as_fd(), BusyPoll { micros: 70, budget: 33 });
        if !Rights::effective().has(Capability::NET_ADMIN) {
            assert_eq!(set.map_err(|error| error.raw_os_error()), Err(Some(libc::EPERM)));
            return;
        }
        set.expect("a kernel of 5.11 or newer");
        let get = |name| option(socket.as_fd(), libc::SOL_SOCKET, name).expect("it tells");
        // The kernel does not tell the budget.
        assert_eq!([libc::SO_PREFER_BUSY_POLL, libc::SO_BUSY_POLL].map(get), [1, 70]);
    }
}
