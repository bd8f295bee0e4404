//! Questions to the kernel's routing tables: one request, and the messages of its answer.
//!
//! Contract: every pointer passed is to a local of the right size; what comes back is bytes, cut at the lengths that they name.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::capture::sys::check;

/// Answers of netlink come in pieces of at most this size.
const NETLINK_BYTES: usize = 32 * 1024;

/// Sends one request to the kernel's routing tables, and gives every message of its answer to `take`: type and content.
pub(super) fn route_request(
    kind: u16,
    dump: bool,
    body: &[u8],
    mut take: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    const HEADER_BYTES: usize = size_of::<libc::nlmsghdr>();
    const DONE: u16 = libc::NLMSG_DONE as u16;
    const ERROR: u16 = libc::NLMSG_ERROR as u16;
    // SAFETY:
    // - the call takes no pointer.
    let fd = check(unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    })?;
    // SAFETY:
    // - the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let flags = libc::NLM_F_REQUEST as u16 | if dump { libc::NLM_F_DUMP as u16 } else { 0 };
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and sender: there is one request, and the kernel knows who asks.
    message.extend([0; 8]);
    message.extend(body);
    // SAFETY:
    // - pointer and length are those of `message`, which lives until the call returns.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0u8; NETLINK_BYTES];
    loop {
        // SAFETY:
        // - pointer and length are those of `answer`, which lives until the call returns.
        let got =
            unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        let Ok(got) = usize::try_from(got) else {
            return Err(io::Error::last_os_error());
        };
        let mut rest = &answer[..got];
        while let Some((header, _)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let [a, b, c, d, e, f, ..] = *header;
            let bytes = u32::from_ne_bytes([a, b, c, d]) as usize;
            let Some(content) = rest.get(HEADER_BYTES..bytes) else { break };
            match (u16::from_ne_bytes([e, f]), content) {
                (DONE, _) => return Ok(()),
                (ERROR, &[a, b, c, d, ..]) => {
                    // Errors are negative; 0 is an acknowledgement.
                    let error = i32::from_ne_bytes([a, b, c, d]);
                    return if error == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(-error))
                    };
                }
                (kind, content) => take(kind, content),
            }
            rest = rest.get(bytes.next_multiple_of(4)..).unwrap_or_default();
        }
        if !dump || got == 0 {
            return Ok(());
        }
    }
}
