//! Frames for tests that care about flows, not about bytes: Ethernet, IPv4, small numbers.

use flowscope::{Frame, LinkType, Timestamp};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// Frames that have been made, in order; each at a time of its own.
#[derive(Default)]
pub struct Wire {
    frames: Vec<(Timestamp, Vec<u8>)>,
    now_ns: u64,
}

/// Who sends to whom: the client's port tells connections apart.
#[derive(Clone, Copy)]
pub enum From {
    Client(u16),
    Server(u16),
}

impl Wire {
    pub fn new() -> Self {
        Self { frames: Vec::new(), now_ns: 1_700_000_000_000_000_000 }
    }

    pub fn wait_ms(&mut self, ms: u64) -> &mut Self {
        self.now_ns += ms * 1_000_000;
        self
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now_ns)
    }

    pub fn tcp(&mut self, from: From, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> &mut Self {
        let mut segment = ports(from, 80).to_vec();
        segment.extend_from_slice(&seq.to_be_bytes());
        segment.extend_from_slice(&ack.to_be_bytes());
        segment.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend_from_slice(payload);
        self.ipv4(6, from, &segment)
    }

    /// SYN, SYN-ACK, ACK: the client's bytes start at 101, the server's at 501.
    pub fn handshake(&mut self, port: u16) -> &mut Self {
        self.tcp(From::Client(port), 100, 0, SYN, b"")
            .tcp(From::Server(port), 500, 101, SYN | ACK, b"")
            .tcp(From::Client(port), 101, 501, ACK, b"")
    }

    /// Closes what [`Wire::handshake`] opened, without data in between.
    pub fn close(&mut self, port: u16) -> &mut Self {
        self.tcp(From::Client(port), 101, 501, FIN | ACK, b"")
            .tcp(From::Server(port), 501, 102, FIN | ACK, b"")
            .tcp(From::Client(port), 102, 502, ACK, b"")
    }

    pub fn udp(&mut self, from: From, payload: &[u8]) -> &mut Self {
        let mut datagram = ports(from, 53).to_vec();
        datagram.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        datagram.extend_from_slice(&[0, 0]);
        datagram.extend_from_slice(payload);
        self.ipv4(17, from, &datagram)
    }

    /// GRE of 4 bytes: neither TCP nor UDP.
    pub fn gre(&mut self) -> &mut Self {
        self.ipv4(47, From::Client(0), &[0, 0, 8, 0])
    }

    /// Has no IP, hence no 5-tuple.
    pub fn arp(&mut self) -> &mut Self {
        let mut frame = ethernet(0x0806);
        frame.extend_from_slice(&[0; 28]);
        self.push(frame)
    }

    fn ipv4(&mut self, proto: u8, from: From, rest: &[u8]) -> &mut Self {
        let (client, server) = ([10, 0, 0, 1], [192, 0, 2, 1]);
        let (src, dst) = match from {
            From::Client(_) => (client, server),
            From::Server(_) => (server, client),
        };
        let mut frame = ethernet(0x0800);
        frame.extend_from_slice(&[0x45, 0]);
        frame.extend_from_slice(&(20 + rest.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0x40, 0, 64, proto, 0, 0]);
        frame.extend_from_slice(&src);
        frame.extend_from_slice(&dst);
        frame.extend_from_slice(rest);
        self.push(frame)
    }

    fn push(&mut self, frame: Vec<u8>) -> &mut Self {
        self.now_ns += 1_000_000;
        self.frames.push((Timestamp::from_nanos(self.now_ns), frame));
        self
    }

    /// The frames since the last call, to a function that takes them.
    pub fn send(&mut self, take: impl FnOnce(&[Frame<'_>])) {
        let frames: Vec<Frame<'_>> = self
            .frames
            .iter()
            .map(|(ts, data)| Frame {
                ts: *ts,
                wire_len: data.len() as u32,
                link: LinkType::ETHERNET,
                interface: 0,
                data,
            })
            .collect();
        take(&frames);
        self.frames.clear();
    }
}

fn ethernet(ether_type: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend_from_slice(&ether_type.to_be_bytes());
    frame
}

fn ports(from: From, server: u16) -> [u8; 4] {
    let (src, dst) = match from {
        From::Client(port) => (port, server),
        From::Server(port) => (server, port),
    };
    let (src, dst) = (src.to_be_bytes(), dst.to_be_bytes());
    [src[0], src[1], dst[0], dst[1]]
}
