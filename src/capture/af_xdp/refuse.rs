//! Every refusal: what was asked, what was found, what to do.

use std::io::{self, ErrorKind};

use super::config::{Config, Mode};
use crate::capture::CaptureError;
use crate::capture::nic::{Capability, Interface, Rights};
use crate::capture::refuse::{error, refusal};

/// Bytes of a frame beside what the MTU counts: an Ethernet header and two tags.
const LINK_BYTES: u32 = 14 + 2 * 4;

/// The capabilities that it takes, of those that this thread has.
pub(super) fn missing_rights(name: &str, rights: Rights) -> Option<CaptureError> {
    let needed = [Capability::NET_RAW, Capability::NET_ADMIN, Capability::BPF, Capability::PERFMON];
    let missing = rights.missing(&needed);
    if missing.is_empty() {
        return None;
    }
    Some(refusal(
        name,
        "AF_XDP needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON",
        ErrorKind::PermissionDenied,
        format!("this process has no {}", missing.join(" and no ")),
        "give it these capabilities (AmbientCapabilities= of systemd, or setcap on the binary), or start it as root",
    ))
}

/// Whether frames of this interface may be taken in this way.
pub(super) fn unfit(name: &str, interface: &Interface, config: &Config) -> Option<CaptureError> {
    if !interface.is_ethernet {
        return Some(refusal(
            name,
            "AF_XDP reads Ethernet frames",
            ErrorKind::Unsupported,
            "this interface has others or none".into(),
            "capture it by AF_PACKET",
        ));
    }
    if let Some(queue) = config.queues.iter().find(|&&queue| queue >= interface.queues) {
        return Some(refusal(
            name,
            format!("queue {queue} is asked for"),
            ErrorKind::NotFound,
            match interface.queues {
                1 => "the interface receives on queue 0 only".into(),
                queues => format!("the interface receives on queues 0 to {}", queues - 1),
            },
            "choose one of them, or add queues with `ethtool -L`",
        ));
    }
    if !config.take_traffic {
        let found = match (&interface.addresses[..], interface.master) {
            ([], None) => None,
            ([], Some(master)) => Some(format!("it is a port of interface {master}")),
            (addresses, _) => {
                let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                Some(format!("it has the address {}", list.join(", ")))
            }
        };
        if let Some(found) = found {
            return Some(refusal(
                name,
                "AF_XDP would take the frames that the host itself needs",
                ErrorKind::AddrInUse,
                found,
                "capture it by AF_PACKET, which only copies; or say that its traffic may be taken (take_traffic)",
            ));
        }
    }
    if let Some(program) = interface.program {
        return Some(refusal(
            name,
            "an XDP program is to be attached",
            ErrorKind::ResourceBusy,
            match program {
                0 => "another one is attached already".into(),
                id => format!("another one is attached already, number {id}"),
            },
            "end the program that it belongs to (`bpftool net` shows it), or take it off with `ip link set … xdp off`",
        ));
    }
    let longest = interface.mtu.saturating_add(LINK_BYTES);
    if longest > config.room_bytes() && !config.multi_buffer {
        return Some(refusal(
            name,
            format!(
                "frames of up to {longest} bytes (MTU {}) are to be taken whole",
                interface.mtu
            ),
            ErrorKind::InvalidInput,
            format!("a frame of the UMEM has room for {}", config.room_bytes()),
            "allow several buffers for a frame, make the frames of the UMEM larger, or the MTU smaller",
        ));
    }
    None
}

/// Whether frames come in several buffers.
pub(super) fn needs_multi_buffer(interface: &Interface, config: &Config) -> bool {
    config.multi_buffer && interface.mtu.saturating_add(LINK_BYTES) > config.room_bytes()
}

/// What to do when memory for a queue is refused.
pub(super) fn no_memory(
    name: &str,
    queue: u32,
    config: &Config,
    system: io::Error,
) -> CaptureError {
    let mebibytes = config.queue_bytes().div_ceil(1 << 20);
    let what = format!("queue {queue}: {mebibytes} MiB of memory for {} frames", config.frames);
    let mend = match system.raw_os_error() {
        Some(libc::ENOBUFS) => {
            "it is more than RLIMIT_MEMLOCK allows: give CAP_IPC_LOCK, raise the limit (LimitMEMLOCK= of systemd, \
             `ulimit -l`), or take fewer frames"
        }
        Some(libc::ENOMEM) if config.huge_pages => {
            "set huge pages aside (`sysctl vm.nr_hugepages`), or do without them"
        }
        Some(libc::EINVAL) if config.huge_pages => {
            "with huge pages the memory is a multiple of their size: take more frames"
        }
        Some(libc::EPERM) => "give CAP_NET_RAW and CAP_BPF",
        _ => "take fewer frames",
    };
    error(name, what, system, mend)
}

/// What to do when a socket cannot be bound.
pub(super) fn not_bound(
    name: &str,
    queue: u32,
    config: &Config,
    system: io::Error,
) -> CaptureError {
    let how = match config.mode {
        Mode::Native => "natively",
        Mode::ZeroCopy => "without a copy",
        Mode::Copy => "with a copy",
        Mode::Generic => "behind the driver",
    };
    let what = format!("binding a socket to queue {queue}, {how}");
    let mend = match system.raw_os_error() {
        Some(libc::EBUSY) => {
            "another AF_XDP socket has the queue: end its program, or choose another queue"
        }
        Some(libc::EOPNOTSUPP) if config.mode == Mode::ZeroCopy => {
            "the driver has no zero-copy: ask for native mode, which copies where it must"
        }
        Some(libc::EOPNOTSUPP) => {
            "the kernel or driver has no AF_XDP of this kind: capture it by AF_PACKET"
        }
        Some(libc::ENETDOWN) => "set the interface up first",
        Some(libc::ENODEV) => "the interface went away meanwhile",
        Some(libc::EPERM) => "give CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
        Some(libc::ENOBUFS) => "raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK",
        _ => "try another mode, or capture it by AF_PACKET",
    };
    error(name, what, system, mend)
}

/// What to do when the interface does not take frames to others.
pub(super) fn not_promiscuous(name: &str, system: io::Error) -> CaptureError {
    let mend = match system.raw_os_error() {
        Some(libc::EPERM) => "give CAP_NET_RAW",
        _ => "do without (promiscuous), where frames to this host alone are wanted",
    };
    error(name, "making the interface promiscuous", system, mend)
}

/// What to do when the program does not load.
pub(super) fn not_loaded(name: &str, system: io::Error) -> CaptureError {
    let mend = match system.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "give CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        _ => "capture it by AF_PACKET; a kernel of 5.9 or newer should load it, please report this",
    };
    error(name, "loading the XDP program", system, mend)
}

/// What to do when the program cannot be attached.
pub(super) fn not_attached(name: &str, config: &Config, system: io::Error) -> CaptureError {
    let mend = match system.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program came first: end the program that it belongs to"
        }
        Some(libc::EOPNOTSUPP) if config.mode != Mode::Generic => {
            "the driver runs no XDP programs: capture it by AF_PACKET, or ask for generic mode by name"
        }
        Some(libc::EINVAL | libc::ERANGE) => {
            "the driver refuses the program: its MTU may be too large, or LRO on (`ethtool -K … lro off`)"
        }
        Some(libc::EPERM) => "give CAP_NET_ADMIN and CAP_BPF",
        _ => "capture it by AF_PACKET",
    };
    error(name, "attaching the XDP program", system, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        let all = 1 << 13 | 1 << 12 | 1 << 39 | 1 << 38;
        let text =
            |bits| missing_rights("eth9", Rights::from_bits(bits)).map(|error| error.to_string());
        assert_eq!(text(all), None);
        assert_eq!(text(1 << 13 | 1 << 12 | 1 << 21), None, "CAP_SYS_ADMIN contains both");
        let one = text(1 << 12 | 1 << 39 | 1 << 38).expect("one is missing");
        assert!(one.contains("this process has no CAP_NET_RAW; give it"), "{one}");
        let none = text(0).expect("all are missing");
        assert!(
            none.contains("no CAP_NET_RAW and no CAP_NET_ADMIN and no CAP_BPF and no CAP_PERFMON;"),
            "{none}"
        );
    }

    #[test]
    fn a_frame_that_fits_to_the_byte_is_fit_and_one_more_is_not() {
        let config = Config::builder().multi_buffer(false).build().expect("valid");
        let mut interface =
            Interface { is_ethernet: true, queues: 1, mtu: 1792 - 22, ..Interface::default() };
        assert!(unfit("eth9", &interface, &config).is_none());
        assert!(!needs_multi_buffer(&interface, &config));
        interface.mtu += 1;
        let text = unfit("eth9", &interface, &config).expect("too long").to_string();
        assert!(text.contains("frames of up to 1793 bytes (MTU 1771)"), "{text}");
        assert!(text.contains("room for 1792; allow several buffers"), "{text}");
        let config = Config::builder().build().expect("valid");
        assert!(
            unfit("eth9", &interface, &config).is_none() && needs_multi_buffer(&interface, &config)
        );
    }

    #[test]
    fn what_the_host_needs_is_not_taken_unasked() {
        let config = Config::builder().build().expect("valid");
        let free = Interface { is_ethernet: true, queues: 2, mtu: 1500, ..Interface::default() };
        assert!(unfit("eth9", &free, &config).is_none());
        let addressed =
            Interface { addresses: vec!["10.0.0.1".parse().expect("an address")], ..free.clone() };
        let text = unfit("eth9", &addressed, &config).expect("refused").to_string();
        assert!(text.contains("it has the address 10.0.0.1; capture it by AF_PACKET"), "{text}");
        let port = Interface { master: Some(7), ..free.clone() };
        let text = unfit("eth9", &port, &config).expect("refused").to_string();
        assert!(text.contains("it is a port of interface 7;"), "{text}");
        let taking = Config::builder().take_traffic(true).build().expect("valid");
        assert!(unfit("eth9", &addressed, &taking).is_none());
        let busy = Interface { program: Some(11), ..free };
        let text = unfit("eth9", &busy, &taking).expect("refused").to_string();
        assert!(text.contains("another one is attached already, number 11;"), "{text}");
    }
}
