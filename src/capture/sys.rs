//! System calls of every live capture: what the kernel tells about sockets and interfaces.
//!
//! Contract: every pointer passed is to a local of the right size; what comes back is plain numbers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(feature = "af-packet")]
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

/// The result of a system call that says -1 for an error.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The index of an interface in this thread's network namespace.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY:
    // - `name` ends with a zero byte and lives until the call returns.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The hardware type (`ARPHRD_…`) of an interface in this thread's network namespace.
#[cfg(feature = "af-packet")]
pub(super) fn hardware_type(name: &str) -> io::Result<u16> {
    // SAFETY:
    // - all fields are integers or arrays of them, or pointers that nobody follows.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY:
    // - the call takes no pointer.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY:
    // - the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY:
    // - `request` is what this request takes, and lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) })?;
    // SAFETY:
    // - the call wrote an address there; and any bytes are one.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// Sleeps until the socket has something, or a while. Whether there is something to be read; if not, its error may be why
/// this returned.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, wait: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // Bounded by the configuration to a minute.
    let milliseconds = wait.as_millis() as libc::c_int;
    // SAFETY:
    // - one entry is passed, and it lives until the call returns.
    let ready = check(unsafe { libc::poll(&mut poll, 1, milliseconds) });
    match ready {
        // A signal: the caller looks at what it may have changed.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        ready => ready.map(|count| count > 0 && poll.revents & libc::POLLIN != 0),
    }
}

/// An option of a socket that is a number.
pub(super) fn option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<u32> {
    let mut value = 0u32;
    let mut bytes = size_of_val(&value) as libc::socklen_t;
    // SAFETY:
    // - `value` has the four bytes that `bytes` tells, and both live until the call returns.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut bytes)
    })?;
    Ok(value)
}

/// Sets an option of a socket that is a number.
#[cfg(any(feature = "pcap-live", feature = "af-xdp"))]
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let bytes = size_of_val(&value) as libc::socklen_t;
    // SAFETY:
    // - pointer and length are those of `value`, which lives until the call returns; the kernel only reads it.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), bytes)
    })
    .map(drop)
}

/// What went wrong with a socket since it was last asked; that its interface is down or gone.
pub(super) fn socket_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    match option(fd, libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error as i32)),
    }
}

/// Returns when every processor is out of the packet path that it may have been in: what this thread changed before
/// is seen by whatever runs after.
pub(super) fn wait_for_packet_paths() {
    /// `MEMBARRIER_CMD_GLOBAL`: waits for one grace period of RCU, under which all packet processing runs.
    const GLOBAL: libc::c_int = 1;
    // SAFETY:
    // - the call takes no pointer.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done != 0 {
        // With full dynamic ticks the kernel does not offer it. No poll of a driver takes this long.
        std::thread::sleep(Duration::from_millis(50));
    }
}
