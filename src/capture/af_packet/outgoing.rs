//! What the host sends is not captured: nor by a group, whose kernel does not ask what its sockets ignore.
//!
//! Contract: since Linux 6.2 a group is told so by a flag (`PACKET_FANOUT_FLAG_IGNORE_OUTGOING`). Older kernels do not look at flags
//! that they do not know: they take it and do nothing. There the filter of each socket does it.

use crate::capture::bpf::Instruction;

/// The first kernel that knows the flag.
const KNOWN_SINCE: (u32, u32) = (6, 2);

/// Whether the running kernel does what the flag says; an unreadable version is taken for one that does not.
pub(super) fn group_is_told() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    version(&release).is_some_and(|version| version >= KNOWN_SINCE)
}

/// The first two numbers of a release, as `uname -r` has it.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `program` for what came, and nothing of what goes out. It is three instructions longer, four when it was empty.
pub(super) fn left_out(program: &[Instruction]) -> Vec<Instruction> {
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`: where a program finds which way a frame goes.
    const WAY: u32 = 0xffff_f000 + 4;
    const OUTGOING: u32 = libc::PACKET_OUTGOING as u32;
    let op = |code, jf, k| Instruction { code, jt: 0, jf, k };
    let mut all = vec![op(0x20, 0, WAY), op(0x15, 1, OUTGOING), op(0x06, 0, 0)];
    if program.is_empty() {
        all.push(op(0x06, 0, u32::MAX));
    }
    all.extend(program);
    all
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::{AsFd, AsRawFd};

    use super::super::socket::PacketSocket;
    use super::*;
    use crate::capture::gate;

    #[test]
    fn releases_of_distributions_are_read_too() {
        assert_eq!(version("6.18.44-fc-v657\n"), Some((6, 18)));
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.14.0-503.el9.x86_64"), Some((5, 14)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
        assert_eq!(version(""), None);
    }

    /// On a thread of its own, whose namespace has a loopback interface where nothing else goes on.
    #[test]
    #[allow(unsafe_code)]
    fn a_filter_leaves_out_what_goes_out_and_nothing_else() {
        // SAFETY:
        // - the call takes no pointer.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            assert!(std::env::var_os("CI").is_none(), "CI, and no namespace can be made");
            eprintln!("SKIPPED: no network namespace can be made, root is needed");
            return;
        }
        // SAFETY:
        // - all zeros are an `ifreq`: bytes and numbers.
        let mut lo: libc::ifreq = unsafe { std::mem::zeroed() };
        lo.ifr_name[..2].copy_from_slice(&[b'l', b'o'].map(|letter| letter as libc::c_char));
        lo.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let any = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        // SAFETY:
        // - the descriptor is open, and the call reads one `ifreq` with a name that ends (netdevice(7)).
        let up = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const lo) };
        assert_eq!(up, 0, "{}", std::io::Error::last_os_error());
        let only_udp = [(0x30, 0, 23), (0x15, 1, 17), (0x06, 0, u32::MAX), (0x06, 0, 0)]
            .map(|(code, jf, k)| Instruction { code, jt: 0, jf, k });
        let program = |program: &[Instruction]| {
            let mut socket = PacketSocket::new().expect("a socket");
            // An empty one is one that is taken off.
            gate::shut(socket.as_fd()).expect("shut");
            gate::let_in(socket.as_fd(), program).expect("the kernel takes it");
            socket.bind("lo", false).expect("bound");
            socket
        };
        let sockets = [
            program(&[]),
            program(&left_out(&[])),
            program(&only_udp),
            program(&left_out(&only_udp)),
        ];
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let to = udp.local_addr().expect("an address");
        for _ in 0..10 {
            udp.send_to(b"twice on a loopback: out and in", to).expect("sent");
        }
        let counts = sockets.map(|socket| socket.statistics().expect("counts").tp_packets);
        assert_eq!(counts, [20, 10, 20, 10]);
    }
}
