//! Writing pcap files: nanoseconds, in this machine's byte order, one link type a file.

use std::io::{self, Write};

use crate::frame::{Frame, LinkType};

/// Magic number of a pcap file with nanoseconds.
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// Snapshot length told in the header: no frame is longer.
const SNAPSHOT_BYTES: u32 = 256 * 1024;

/// Writes frames as a pcap file. Give it a buffered writer: it writes twice a frame.
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file's header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, link: LinkType) -> io::Result<Self> {
        let mut header = [0; 24];
        header[..4].copy_from_slice(&MAGIC_NANOS.to_ne_bytes());
        header[4..6].copy_from_slice(&2u16.to_ne_bytes());
        header[6..8].copy_from_slice(&4u16.to_ne_bytes());
        header[16..20].copy_from_slice(&SNAPSHOT_BYTES.to_ne_bytes());
        header[20..].copy_from_slice(&u32::from(link.0).to_ne_bytes());
        out.write_all(&header)?;
        Ok(Self { out })
    }

    /// Writes one frame; its link type and interface are not stored. Times past the year 2106 are written as that.
    ///
    /// # Errors
    /// `InvalidInput` for a frame longer than a file can hold (256 KiB), else those of the writer below.
    pub fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let captured = u32::try_from(frame.data.len())
            .ok()
            .filter(|captured| *captured <= SNAPSHOT_BYTES)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "a frame longer than 256 KiB")
            })?;
        let nanos = frame.ts.as_nanos();
        let secs = u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX);
        let mut header = [0; 16];
        header[..4].copy_from_slice(&secs.to_ne_bytes());
        header[4..8].copy_from_slice(&((nanos % 1_000_000_000) as u32).to_ne_bytes());
        header[8..12].copy_from_slice(&captured.to_ne_bytes());
        header[12..].copy_from_slice(&frame.wire_len.to_ne_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(frame.data)
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}
