//! An interface whose other end is a file: what is written to it comes in as a packet.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use crate::net::ip;

/// Hardware types: no link header (`ARPHRD_NONE`), and PPP, which AF_PACKET does not read and libpcap cooks.
#[allow(dead_code, reason = "not every user needs both")]
pub const NONE: i32 = 65534;
pub const PPP: i32 = 512;

pub struct Tun(File);

impl Tun {
    /// Makes it in this thread's namespace, and sets it up.
    pub fn new(name: &str, hardware: i32) -> io::Result<Self> {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        const TUNSETLINK: libc::c_ulong = 0x4004_54cd;
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: all fields are integers or arrays of them, or pointers that nobody follows.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: this one takes a number, and no pointer.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETLINK, hardware) } != 0 {
            return Err(io::Error::last_os_error());
        }
        ip(&format!("link set {name} up"));
        Ok(Self(file))
    }

    /// A packet comes in, from its IP header on.
    pub fn receive(&mut self, packet: &[u8]) {
        self.0.write_all(packet).expect("written");
    }
}
