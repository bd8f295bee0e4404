//! What every refusal of a live capture is made of: what was asked, what was found, what to do.

use std::fmt::Display;
use std::io;

use super::CaptureError;

/// An error of this interface.
pub(super) fn error(
    name: &str,
    what: impl Display,
    error: io::Error,
    mend: impl Display,
) -> CaptureError {
    let (interface, what, mend) = (name.to_owned(), what.to_string(), mend.to_string());
    CaptureError::Live { interface, what, error, mend }
}

/// The same, where it is we who say no.
#[cfg(all(any(feature = "af-packet", feature = "af-xdp"), target_os = "linux"))]
pub(super) fn refusal(
    name: &str,
    what: impl Display,
    kind: io::ErrorKind,
    found: String,
    mend: impl Display,
) -> CaptureError {
    error(name, what, io::Error::new(kind, found), mend)
}

/// Finds the interface.
pub(super) fn unknown(name: &str, system: io::Error) -> CaptureError {
    error(
        name,
        "no such interface",
        system,
        "name one that `ip link` shows in this network namespace",
    )
}

/// Why a capture of a packet socket ended before it was stopped.
#[cfg(any(feature = "af-packet", feature = "pcap-live"))]
pub(super) fn gone(name: &str, system: io::Error) -> CaptureError {
    let mend = "the interface was set down or removed: open it again when it is back";
    error(name, "no more frames come", system, mend)
}
