//! Frames byte by byte: Ethernet, IPv4 or IPv6, UDP or TCP, checksums included.

use std::net::IpAddr;

use super::{TCP, UDP};

/// Both ends, as one packet names them.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same version.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl Ends {
    /// As the answer names them.
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// What a TCP header says beside its ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// Options, a multiple of 4 bytes.
    pub options: &'a [u8],
    /// Data.
    pub payload: &'a [u8],
}

/// Control bits.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const PSH: u8 = 0x08;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// Builds one frame after the other in the same buffer.
#[derive(Debug)]
pub struct Builder {
    frame: Vec<u8>,
    len_min: usize,
    ip_id: u16,
}

const ETHERNET: usize = 14;

impl Builder {
    /// Shorter frames are padded to `len_min` bytes.
    pub fn new(len_min: usize) -> Self {
        Self { frame: Vec::with_capacity(1514), len_min, ip_id: 0 }
    }

    /// A UDP datagram.
    pub fn udp(&mut self, ends: &Ends, payload: &[u8]) -> &[u8] {
        let len = 8 + payload.len();
        let start = self.headers(ends, UDP, len);
        self.frame.extend_from_slice(&ends.src_port.to_be_bytes());
        self.frame.extend_from_slice(&ends.dst_port.to_be_bytes());
        self.frame.extend_from_slice(&(len as u16).to_be_bytes());
        self.frame.extend_from_slice(&[0, 0]);
        self.frame.extend_from_slice(payload);
        // RFC 768: a sum of zero is sent as all ones.
        let sum = self.transport_checksum(ends, UDP, start);
        self.finish(start + 6, if sum == 0 { 0xffff } else { sum })
    }

    /// A TCP segment.
    pub fn tcp(&mut self, ends: &Ends, segment: &Segment<'_>) -> &[u8] {
        let header = 20 + segment.options.len();
        let start = self.headers(ends, TCP, header + segment.payload.len());
        self.frame.extend_from_slice(&ends.src_port.to_be_bytes());
        self.frame.extend_from_slice(&ends.dst_port.to_be_bytes());
        self.frame.extend_from_slice(&segment.seq.to_be_bytes());
        self.frame.extend_from_slice(&segment.ack.to_be_bytes());
        self.frame.extend_from_slice(&[(header as u8 / 4) << 4, segment.flags, 0xfa, 0xf0]);
        self.frame.extend_from_slice(&[0; 4]);
        self.frame.extend_from_slice(segment.options);
        self.frame.extend_from_slice(segment.payload);
        let sum = self.transport_checksum(ends, TCP, start);
        self.finish(start + 16, sum)
    }

    /// Link and network header; returns where the transport starts.
    fn headers(&mut self, ends: &Ends, proto: u8, transport_len: usize) -> usize {
        self.frame.clear();
        self.frame.extend_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        match (ends.src, ends.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.ip_id = self.ip_id.wrapping_add(1);
                self.frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
                self.frame.extend_from_slice(&(20 + transport_len as u16).to_be_bytes());
                self.frame.extend_from_slice(&self.ip_id.to_be_bytes());
                self.frame.extend_from_slice(&[0x40, 0, 64, proto, 0, 0]);
                self.frame.extend_from_slice(&src.octets());
                self.frame.extend_from_slice(&dst.octets());
                let sum = fold(words(&self.frame[ETHERNET..]));
                self.frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                self.frame.extend_from_slice(&(transport_len as u16).to_be_bytes());
                self.frame.extend_from_slice(&[proto, 64]);
                self.frame.extend_from_slice(&src.octets());
                self.frame.extend_from_slice(&dst.octets());
            }
            _ => panic!("both ends of a packet have the same IP version"),
        }
        self.frame.len()
    }

    /// RFC 768, RFC 9293 section 3.1, RFC 8200 section 8.1.
    fn transport_checksum(&self, ends: &Ends, proto: u8, start: usize) -> u16 {
        let address = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => words(&addr.octets()),
            IpAddr::V6(addr) => words(&addr.octets()),
        };
        let transport = &self.frame[start..];
        fold(
            address(ends.src)
                + address(ends.dst)
                + u64::from(proto)
                + transport.len() as u64
                + words(transport),
        )
    }

    fn finish(&mut self, checksum_at: usize, checksum: u16) -> &[u8] {
        self.frame[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        if self.frame.len() < self.len_min {
            self.frame.resize(self.len_min, 0);
        }
        &self.frame
    }
}

/// Sum of the 16-bit words, the last one filled up with zero (RFC 1071).
fn words(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let sum: u64 = pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum();
    sum + rest.first().map_or(0, |&byte| u64::from(byte) << 8)
}

/// Makes an IPv4 frame of ours, with a header without options, a fragment: its datagram's `id`, where its bytes are in the
/// datagram (a multiple of 8) and whether more follow.
pub fn fragment(frame: &mut [u8], id: u16, offset: u16, more: bool) {
    let header = &mut frame[ETHERNET..ETHERNET + 20];
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
    header[10..12].fill(0);
    let sum = fold(words(header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
