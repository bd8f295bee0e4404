//! Frames to others: a port takes them for as long as somebody wants them.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::capture::sys::check;

/// Holds an interface promiscuous. The kernel counts who wants it, and forgets a socket that is closed: so it ends
/// with this value, and with the process, however that ends.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Makes the interface with this index take every frame.
    ///
    /// # Errors
    /// What the system said; it takes `CAP_NET_RAW`.
    pub fn hold(index: u32) -> io::Result<Self> {
        // Of no protocol, so that no frame is ever queued on it.
        // SAFETY:
        // - the call takes no pointer.
        let fd = check(unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)
        })?;
        // SAFETY:
        // - the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let membership = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY:
        // - pointer and length are those of `membership`, which lives until the call returns; the kernel only reads it.
        check(unsafe {
            let bytes = size_of::<libc::packet_mreq>() as libc::socklen_t;
            let from = (&raw const membership).cast();
            let (fd, level) = (socket.as_raw_fd(), libc::SOL_PACKET);
            libc::setsockopt(fd, level, libc::PACKET_ADD_MEMBERSHIP, from, bytes)
        })?;
        Ok(Self { _socket: socket })
    }
}
