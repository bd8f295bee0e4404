//! Every refusal: what was asked, what was found, what to do.

use std::io::{self, ErrorKind};

use super::config::{Config, Fanout};
use crate::capture::CaptureError;
use crate::capture::nic::{Capability, Rights, Stamps, Told};
use crate::capture::refuse::{error, refusal};

/// Longest name of an interface.
const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

/// A name that no interface can have.
pub(super) fn too_long(name: &str) -> Option<CaptureError> {
    (name.len() > NAME_BYTES_MAX).then(|| {
        refusal(
            name,
            format!("names of interfaces have at most {NAME_BYTES_MAX} bytes"),
            ErrorKind::InvalidInput,
            format!("this one has {}", name.len()),
            "name one that `ip link` shows in this network namespace, not an altname",
        )
    })
}

/// No socket.
pub(super) fn no_socket(name: &str, system: io::Error) -> CaptureError {
    match system.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => error(
            name,
            "AF_PACKET needs CAP_NET_RAW, and this process does not have it",
            system,
            "give it the capability (AmbientCapabilities= of systemd, or setcap on the binary), or start it as root",
        ),
        Some(libc::EAFNOSUPPORT) => error(
            name,
            "opening a packet socket",
            system,
            "load or build the kernel with CONFIG_PACKET",
        ),
        _ => error(name, "opening a packet socket", system, "allow more open files (`ulimit -n`)"),
    }
}

/// No ring.
pub(super) fn no_ring(name: &str, config: &Config, system: io::Error) -> CaptureError {
    let mebibytes = config.ring_bytes().div_ceil(1 << 20);
    let what = format!(
        "a ring of {mebibytes} MiB ({} blocks of {} KiB)",
        config.blocks,
        config.block_bytes >> 10
    );
    let mend = match system.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN) => {
            "the system has no memory for it: take fewer blocks, or smaller ones"
        }
        Some(libc::ENOPROTOOPT) => "it takes a kernel of 4.20 or newer",
        Some(libc::EPERM) => "give CAP_NET_RAW",
        _ => "take blocks of another size; please report this",
    };
    error(name, what, system, mend)
}

/// A NIC that does not stamp every frame.
pub(super) fn no_stamps(name: &str, stamps: Told<Stamps>) -> Option<CaptureError> {
    let found = match stamps {
        Ok(stamps) if stamps.all() => return None,
        Ok(stamps) if stamps.some() => "its NIC stamps some kinds of frames alone (PTP's)".into(),
        Ok(_) => "it has no NIC that stamps what it receives".into(),
        Err(untold) => untold.to_string(),
    };
    Some(refusal(
        name,
        "the NIC's own time is asked for, of every frame",
        ErrorKind::Unsupported,
        found,
        format!(
            "take the kernel's time; `ethtool -T {name}` shows what a NIC can (receive filter modes: all)"
        ),
    ))
}

/// A NIC that could stamp every frame and does not, or a socket that does not take its times.
pub(super) fn not_stamped(name: &str, system: io::Error) -> CaptureError {
    let mend = match system.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("give CAP_NET_ADMIN, or have it on before (`hwstamp_ctl -i {name} -r 1`)")
        }
        _ => format!("take the kernel's time; `ethtool -T {name}` shows what a NIC can"),
    };
    error(name, "having the NIC stamp every frame", system, mend)
}

/// No interface to bind to.
pub(super) fn not_bound(name: &str, system: io::Error) -> CaptureError {
    let mend = match system.raw_os_error() {
        Some(libc::ENETDOWN) => "set the interface up first (`ip link set … up`)",
        Some(libc::ENODEV | libc::ENXIO) => "the interface went away meanwhile",
        _ => "please report this",
    };
    error(name, "binding a packet socket to it", system, mend)
}

/// An interface whose frames we cannot read.
pub(super) fn unknown_link(name: &str, hardware: u16) -> CaptureError {
    refusal(
        name,
        "AF_PACKET reads Ethernet, loopback and raw IP interfaces",
        ErrorKind::Unsupported,
        format!("this one is of hardware type {hardware} (ARPHRD_ in linux/if_arp.h)"),
        "capture it by libpcap",
    )
}

/// A filter that the kernel does not take.
pub(super) fn no_filter(name: &str, instructions: usize, system: io::Error) -> CaptureError {
    let what = format!("attaching a filter of length {instructions}");
    let mend = match system.raw_os_error() {
        Some(libc::EINVAL) => {
            "it is no valid classic BPF program: every path must end in a return, and jumps stay within"
        }
        Some(libc::ENOMEM) => {
            "it is more than net.core.optmem_max allows: raise that, or shorten the filter"
        }
        _ => "please report this",
    };
    error(name, what, system, mend)
}

/// The capabilities that our program for a group takes, of those that this thread has.
pub(super) fn missing_rights(name: &str, rights: Rights) -> Option<CaptureError> {
    let missing = rights.missing(&[Capability::BPF, Capability::PERFMON]);
    (!missing.is_empty()).then(|| {
        refusal(
            name,
            "fanout by ebpf needs CAP_BPF and CAP_PERFMON",
            ErrorKind::PermissionDenied,
            format!("this process has no {}", missing.join(" and no ")),
            "give it these capabilities, or spread by hash, which does without",
        )
    })
}

/// Our program for a group that is not to be had, or that the group does not take: `what` was tried.
pub(super) fn not_spread(name: &str, what: &str, system: io::Error) -> CaptureError {
    let mend = "it takes a kernel of 5.8 or newer with CONFIG_BPF_SYSCALL: spread by hash";
    error(name, what, system, mend)
}

/// A group that does not take the socket.
pub(super) fn not_joined(name: &str, fanout: Fanout, system: io::Error) -> CaptureError {
    let what = format!("joining fanout group {} by {}", fanout.group, fanout.mode);
    let mend = match system.raw_os_error() {
        Some(libc::EINVAL) => {
            "the group exists with another mode or on another interface, or the interface is down: choose another number, or set it up"
        }
        Some(libc::ENOSPC) => "the group is full: open fewer sockets",
        Some(libc::ENOMEM) => "the system has no memory for it",
        _ => "choose another number",
    };
    error(name, what, system, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_refused_says_how_large_it_would_be() {
        let config = Config::builder().build().expect("valid");
        let refused =
            |errno| no_ring("eth9", &config, io::Error::from_raw_os_error(errno)).to_string();
        assert_eq!(
            refused(libc::ENOMEM),
            "eth9: a ring of 64 MiB (64 blocks of 1024 KiB): Cannot allocate memory (os error 12); the system has no \
             memory for it: take fewer blocks, or smaller ones"
        );
        assert!(refused(libc::ENOPROTOOPT).ends_with("it takes a kernel of 4.20 or newer"));
    }

    #[test]
    fn a_nic_that_stamps_too_little_is_refused_with_the_command_that_shows_it() {
        let hardware = libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE;
        let of = |by, filters| {
            no_stamps("eth9", Ok(Stamps { by, filters })).map(|error| error.to_string())
        };
        assert_eq!(of(hardware, 0b11), None);
        assert_eq!(
            of(hardware, 1 << 12 | 1).as_deref(),
            Some(
                "eth9: the NIC's own time is asked for, of every frame: its NIC stamps some kinds of frames alone (PTP's); \
                 take the kernel's time; `ethtool -T eth9` shows what a NIC can (receive filter modes: all)"
            )
        );
        assert!(of(0x18, 0).is_some_and(|text| text.contains("it has no NIC that stamps")));
        let denied = not_stamped("eth9", io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(denied.contains("give CAP_NET_ADMIN"), "{denied}");
    }

    #[test]
    fn what_a_program_of_ours_takes_is_named() {
        let of = |bits| missing_rights("eth9", Rights::from_bits(bits)).map(|e| e.to_string());
        let (perfmon, bpf, sys_admin) = (1 << 38, 1 << 39, 1 << 21);
        assert_eq!(of(sys_admin), None);
        assert_eq!(of(perfmon | bpf), None);
        assert_eq!(
            of(bpf).as_deref(),
            Some(
                "eth9: fanout by ebpf needs CAP_BPF and CAP_PERFMON: this process has no CAP_PERFMON; give it these \
                 capabilities, or spread by hash, which does without"
            )
        );
        assert!(of(perfmon).is_some_and(|text| text.contains("has no CAP_BPF;")));
        let old = io::Error::from_raw_os_error(libc::EINVAL);
        let text = not_spread("eth9", "loading the program", old).to_string();
        assert!(text.ends_with("CONFIG_BPF_SYSCALL: spread by hash"), "{text}");
    }

    #[test]
    fn the_longest_name_is_fifteen_bytes() {
        assert!(too_long("a23456789012345").is_none());
        let text = too_long("a234567890123456").map(|error| error.to_string());
        assert!(text.is_some_and(|text| text.contains("at most 15 bytes: this one has 16;")));
    }
}
