//! System calls that no crate of ours wraps: what the kernel tells about sockets and interfaces.
//!
//! Contract: every pointer passed is to a local of the right size; what comes back is bytes or plain numbers.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::capture::sys::{check, option};

/// Answers of netlink come in pieces of at most this size.
const NETLINK_BYTES: usize = 32 * 1024;

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

/// Has an interface take frames to all hosts, for as long as the descriptor is open: `PACKET_MR_PROMISC` of a packet socket
/// of no protocol, which gets no frame. The kernel counts who wants it, and takes this one off the count when the process ends.
pub(super) fn promiscuous(index: u32) -> io::Result<OwnedFd> {
    // SAFETY:
    // - the call takes no pointer.
    let fd =
        check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY:
    // - the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let member = libc::packet_mreq {
        mr_ifindex: index as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY:
    // - pointer and length are those of `member`, which lives until the call returns; the kernel only reads it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const member).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
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

/// How many queues an interface receives on (`ETHTOOL_GCHANNELS`); not every driver tells.
pub(super) fn receive_queues(name: &str) -> io::Result<u32> {
    /// `struct ethtool_channels`.
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        max_rx: u32,
        max_tx: u32,
        max_other: u32,
        max_combined: u32,
        rx: u32,
        tx: u32,
        other: u32,
        combined: u32,
    }
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    // SAFETY:
    // - the call takes no pointer.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY:
    // - the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY:
    // - all fields of `ifreq` are integers, arrays of them, or a pointer that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY:
    // - `request` is the structure that SIOCETHTOOL takes, and names `channels`, which is the one that the command takes;
    //   both live until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })?;
    Ok(channels.rx + channels.combined)
}

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
