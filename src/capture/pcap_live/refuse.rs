//! Every refusal: what was asked, what was found, what to do.

use std::io::{self, ErrorKind};

use super::config::Config;
use crate::capture::CaptureError;
use crate::capture::filter::FilterError;
use crate::capture::refuse::error;

/// What libpcap said, without the crate's prefix.
pub(super) fn said(error: pcap::Error) -> io::Error {
    match error {
        pcap::Error::PcapError(text) if !text.is_empty() => io::Error::other(text),
        error => io::Error::other(error.to_string()),
    }
}

/// A filter that does not compile.
pub(super) fn no_filter(name: &str, refused: FilterError) -> CaptureError {
    let system = io::Error::new(ErrorKind::InvalidInput, refused);
    error(name, "opening it with a filter", system, "nothing was opened")
}

/// An interface that libpcap does not open. It tells why in words alone, which differ from version to version.
pub(super) fn not_opened(name: &str, config: &Config, libpcap: pcap::Error) -> CaptureError {
    let system = said(libpcap);
    let text = system.to_string().to_lowercase();
    if ["cap_net_raw", "permi", "permitted"].iter().any(|word| text.contains(word)) {
        let what = if cfg!(target_os = "linux") {
            "libpcap needs CAP_NET_RAW, and this process does not have it"
        } else {
            "this process may not capture"
        };
        let mend = if cfg!(target_os = "linux") {
            "give it the capability (AmbientCapabilities= of systemd, or setcap on the binary), or start it as root"
        } else {
            "start it as root or administrator, or give it access to the devices that libpcap reads (/dev/bpf*)"
        };
        return error(name, what, system, mend);
    }
    let mend = if text.contains("not up") || text.contains("down") {
        "set the interface up first (`ip link set … up`)"
    } else if text.contains("memory") {
        "the system has no memory for it: take a smaller buffer"
    } else {
        "name an interface that `tcpdump -D` shows"
    };
    let what = format!("opening it by libpcap with a buffer of {} MiB", config.buffer_bytes >> 20);
    error(name, what, system, mend)
}

/// A gate that cannot be shut or opened.
pub(super) fn no_gate(name: &str, what: &str, system: io::Error) -> CaptureError {
    let mend = if system.kind() == ErrorKind::OutOfMemory {
        "it is more than net.core.optmem_max allows: raise that, or shorten the filter"
    } else {
        "set the interface up, or open it again; if that does not help, please report this"
    };
    error(name, what, system, mend)
}
