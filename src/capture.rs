//! Where frames come from: one trait for every source of frames, and capture files as one of them.
//!
//! Contract of every [`Capture`]:
//! - frames are lent, never copied: a batch borrows the source (a mapped file, a ring of the kernel) and goes
//!   back when the closure returns;
//! - a batch holds at most [`BATCH_FRAMES_MAX`] frames and nothing is allocated for it;
//! - what a length field in the input claims is checked before it is believed, and is never allocated.

#[cfg(all(feature = "af-packet", target_os = "linux"))]
pub mod af_packet;
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
pub mod af_xdp;
#[cfg(any(feature = "af-packet", feature = "pcap-live"))]
pub mod bpf;
pub mod fanout;
pub mod file;
#[cfg(feature = "pcap-live")]
pub mod filter;
pub mod live;
#[cfg(all(any(feature = "af-packet", feature = "af-xdp"), target_os = "linux"))]
pub mod nic;
#[cfg(feature = "pcap-live")]
pub mod pcap_live;
pub mod shunt;
pub mod stretch;
pub mod write;

mod ahead;
pub(crate) mod cached;
#[cfg(all(any(feature = "af-packet", feature = "af-xdp"), target_os = "linux"))]
mod ebpf;
#[cfg(all(any(feature = "af-packet", feature = "pcap-live"), target_os = "linux"))]
mod gate;
mod map;
mod merge;
mod pcap;
mod pcapng;
#[cfg(any(
    feature = "pcap-live",
    all(any(feature = "af-packet", feature = "af-xdp"), target_os = "linux")
))]
mod range;
#[cfg(any(
    feature = "pcap-live",
    all(any(feature = "af-packet", feature = "af-xdp"), target_os = "linux")
))]
mod refuse;
mod source;
#[cfg(all(
    any(feature = "af-packet", feature = "af-xdp", feature = "pcap-live"),
    target_os = "linux"
))]
mod sys;
mod trails;
mod unpack;

#[cfg(any(
    feature = "pcap-live",
    all(any(feature = "af-packet", feature = "af-xdp"), target_os = "linux")
))]
pub use range::OutOfRange;

pub use ahead::Upcoming;

use std::io;

use crate::frame::Frame;

/// The most frames that a batch holds.
pub const BATCH_FRAMES_MAX: usize = 128;

/// The longest frame that is read from a file, in captured bytes: the largest snapshot length that tcpdump and
/// Wireshark write. A record that claims more is taken for damage.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// A source of frames that lends them in batches.
pub trait Capture {
    /// Calls `f` with the next batch and returns what it returned.
    ///
    /// `Ok(None)` is the end: `f` was not called, and every later call says the same. A live capture that had
    /// nothing to give in time calls `f` with an empty batch. Frames that came before an error have been handed
    /// out before it is returned; after an error the next call goes on with what is left, if anything is.
    ///
    /// # Errors
    /// [`CaptureError`] when the source breaks.
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError>;

    /// The same; `f` can have memory asked for what comes next while it works.
    ///
    /// # Errors
    /// As [`with_batch`](Self::with_batch).
    fn with_batch_and_next<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>], &mut Upcoming<'_>) -> R,
    ) -> Result<Option<R>, CaptureError> {
        self.with_batch(|frames| f(frames, &mut Upcoming::default()))
    }
}

/// Why frames could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// No file was named.
    #[error("no capture file given: name at least one, or - for standard input")]
    NoFile,
    /// More files than are merged at a time.
    #[error(
        "{found} capture files given, at most {max} are merged at a time: merge some of them first"
    )]
    TooManyFiles {
        /// How many were given.
        found: usize,
        /// How many can be.
        max: usize,
    },
    /// Standard input was named more than once.
    #[error("standard input (-) is given more than once: it can be read only once")]
    StdinTwice,
    /// A file could not be opened.
    #[error("{file}: cannot be opened: {error}")]
    Open {
        /// The file as it was named.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// A file could not be read to its end; for a compressed one, mostly because it is damaged.
    #[error("{file}: cannot be read beyond byte {offset}{}: {error}", within(*.unpacked))]
    Read {
        /// The file as it was named.
        file: String,
        /// How many bytes of capture could be read (after decompression).
        offset: u64,
        /// Whether `offset` counts decompressed bytes.
        unpacked: bool,
        /// What the system or the decompressor said.
        error: io::Error,
    },
    /// A file has no byte in it.
    #[error(
        "{file}: is empty: not even a capture file's header is there; was the capture started?"
    )]
    Empty {
        /// The file as it was named.
        file: String,
    },
    /// A live capture could not be set up, or broke.
    #[error("{interface}: {what}: {error}; {mend}")]
    Live {
        /// The interface as it was named.
        interface: String,
        /// What was tried, and with what.
        what: String,
        /// What the system said.
        error: io::Error,
        /// What to do about it.
        mend: String,
    },
    /// A file's content breaks the rules of its format.
    #[error("{file}: broken at byte {offset}{}: {reason}", within(*.unpacked))]
    Broken {
        /// The file as it was named.
        file: String,
        /// Where the record or block that is wrong begins (after decompression).
        offset: u64,
        /// Whether `offset` counts decompressed bytes.
        unpacked: bool,
        /// What is wrong with it.
        reason: BrokenReason,
    },
}

fn within(unpacked: bool) -> &'static str {
    if unpacked { " of the decompressed data" } else { "" }
}

/// What is wrong with a capture file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenReason {
    /// The first bytes are of no known format.
    #[error(
        "not a capture file: it begins with {found:02x?}; pcap and pcapng are read, plain or as .gz or .zst"
    )]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The format is known, its version is not.
    #[error("version {major}.{minor} of {format} is not known, only {known} is")]
    Version {
        /// The format.
        format: &'static str,
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
        /// What is known.
        known: &'static str,
    },
    /// The file ends inside of something.
    #[error("the file ends within a {what}: {needed} bytes are needed, {found} are there")]
    Truncated {
        /// What is cut.
        what: &'static str,
        /// Bytes that it takes, or at least takes.
        needed: u64,
        /// Bytes that are left.
        found: u64,
    },
    /// A frame longer than [`FRAME_BYTES_MAX`].
    #[error(
        "a frame claims {claimed} captured bytes, at most {max} are possible: the record is damaged"
    )]
    FrameTooLong {
        /// Captured bytes claimed.
        claimed: u32,
        /// Captured bytes allowed.
        max: usize,
    },
    /// A pcapng block that must be read as a whole and is too long for that.
    #[error("one {what} claims {claimed} bytes, at most {max} are read: the block is damaged")]
    BlockTooLong {
        /// Which block.
        what: &'static str,
        /// Its length, as claimed.
        claimed: u32,
        /// The longest that is read.
        max: usize,
    },
    /// A pcapng block too short for what it must hold.
    #[error("one {what} claims {claimed} bytes, it needs at least {needed}: the block is damaged")]
    BlockTooShort {
        /// Which block.
        what: &'static str,
        /// Its length, as claimed.
        claimed: u32,
        /// The least that it can be.
        needed: u32,
    },
    /// A pcapng block's two lengths differ.
    #[error(
        "a block's length is {leading} at its start and {trailing} at its end: the block is damaged"
    )]
    BlockLengths {
        /// Length at the start.
        leading: u32,
        /// Length at the end.
        trailing: u32,
    },
    /// A pcapng packet block with a frame that does not fit into it.
    #[error("one {what} holds {found} bytes of frame and claims {claimed}: the block is damaged")]
    FrameBeyondBlock {
        /// Which block.
        what: &'static str,
        /// Captured bytes claimed.
        claimed: u32,
        /// Bytes that the block has for them.
        found: usize,
    },
    /// A pcapng section header with neither byte order's mark.
    #[error(
        "a section header has the byte-order mark {found:02x?}, neither order's: the block is damaged"
    )]
    ByteOrder {
        /// The mark found.
        found: [u8; 4],
    },
    /// A pcapng packet of an interface that its section did not describe.
    #[error(
        "a packet is of interface {interface}, its section has described {known}: blocks are missing or damaged"
    )]
    UnknownInterface {
        /// The interface named.
        interface: u32,
        /// How many the section has described up to here.
        known: usize,
    },
    /// More interfaces than can be told apart.
    #[error("more than {max} interfaces: split the file, or read fewer files at a time")]
    TooManyInterfaces {
        /// The most that a file can have here.
        max: usize,
    },
}
