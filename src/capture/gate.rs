//! The filter of a packet socket as a gate: what it refuses is neither counted nor written to the ring.
//!
//! Contract: who shuts a gate and then waits for the packet paths ([`wait_for_packet_paths`](super::sys::wait_for_packet_paths))
//! has final counts.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::bpf::Instruction;
use super::sys::check;

/// A program that takes nothing: `ret #0`.
const TAKES_NOTHING: Instruction = Instruction { code: 6, jt: 0, jf: 0, k: 0 };

/// Lets in nothing any more.
pub(super) fn shut(socket: BorrowedFd<'_>) -> io::Result<()> {
    let_in(socket, &[TAKES_NOTHING])
}

/// Lets in what `program` takes; all, when it is empty.
pub(super) fn let_in(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut program: Vec<_> = program
        .iter()
        .map(|&Instruction { code, jt, jf, k }| libc::sock_filter { code, jt, jf, k })
        .collect();
    let len =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let option = if len == 0 { libc::SO_DETACH_FILTER } else { libc::SO_ATTACH_FILTER };
    let value = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let bytes = size_of_val(&value) as libc::socklen_t;
    // SAFETY:
    // - pointer and length are those of `value`, and the program that it points to has `len` instructions; both live until
    //   the call returns. The kernel copies them. To detach, it looks at neither.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            bytes,
        )
    })
    .map(drop)
}
