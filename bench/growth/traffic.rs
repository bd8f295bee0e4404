//! Traffic of one kind, made frame by frame for as long as it is wanted.
//!
//! Contract: the same parameters give the same frames. Addresses, ports and lengths are those of a flow's number, so that
//! nothing but a TCP connection's sequence numbers is kept of a flow.

use std::net::IpAddr;

use crate::workload::rng::Rng;
use crate::workload::wire::{self, ACK, Builder, Ends, FIN, PSH, RST, SYN, Segment};
use crate::workload::{Loaded, START_NS};

/// Makes frames.
pub trait Traffic {
    /// Frames before anything is measured: they open what is to be open.
    fn open(&mut self, out: &mut Out);
    /// Whether all is open.
    fn is_open(&self) -> bool;
    /// The next frames, at least one.
    fn next(&mut self, out: &mut Out);
}

/// Where frames go, and what they are built in.
#[derive(Debug)]
pub struct Out {
    pub loaded: Loaded,
    builder: Builder,
    now_ns: u64,
    gap_ns: u64,
    payload: Vec<u8>,
}

/// Ethernet, IPv4 and UDP; and TCP.
const UDP_HEADERS: usize = 14 + 20 + 8;
const TCP_HEADERS: usize = 14 + 20 + 20;

impl Out {
    /// One frame every `gap_ns`.
    pub fn new(gap_ns: u64) -> Self {
        let payload = vec![b'x'; 1 << 16];
        Self {
            loaded: Loaded::default(),
            builder: Builder::new(60),
            now_ns: START_NS,
            gap_ns,
            payload,
        }
    }

    /// Forgets the frames, and keeps their memory.
    pub fn clear(&mut self) {
        self.loaded.bytes.clear();
        self.loaded.frames.clear();
    }

    fn udp(&mut self, ends: &Ends, frame_bytes: usize) {
        self.now_ns += self.gap_ns;
        let payload = &self.payload[..frame_bytes.saturating_sub(UDP_HEADERS)];
        self.loaded.push(self.now_ns, self.builder.udp(ends, payload));
    }

    /// A UDP frame as a fragment.
    fn fragment(&mut self, ends: &Ends, frame_bytes: usize, id: u16, offset: u16, more: bool) {
        self.udp(ends, frame_bytes);
        let start = self.loaded.bytes.len() - frame_bytes;
        wire::fragment(&mut self.loaded.bytes[start..], id, offset, more);
    }

    fn tcp(&mut self, ends: &Ends, flags: u8, seq: u32, ack: u32, data_bytes: usize) {
        self.now_ns += self.gap_ns;
        let options: &[u8] = if flags & SYN != 0 { &[2, 4, 5, 0xb4, 1, 3, 3, 7] } else { &[] };
        let segment = Segment { seq, ack, flags, options, payload: &self.payload[..data_bytes] };
        self.loaded.push(self.now_ns, self.builder.tcp(ends, &segment));
    }
}

/// The ends of the flow with a number below 2^24, which are those of no other.
pub fn ends(number: u32) -> Ends {
    let mixed = Rng::new(u64::from(number)).next();
    let inside = number.wrapping_mul(0x9e37_79b1) & 0xff_ffff;
    let v4 = |first: u8, rest: u32| {
        let [_, b, c, d] = rest.to_be_bytes();
        IpAddr::from([first, b, c, d])
    };
    Ends {
        src: v4(10, inside),
        // Above or below the source, so that it is now the lower and now the upper end of the key.
        dst: v4(if mixed & 1 == 0 { 5 } else { 172 }, (mixed >> 8) as u32 & 0xff_ffff),
        src_port: 1024 + (mixed >> 32) as u16 % 60_000,
        dst_port: [443, 80, 53, 123][(mixed >> 2) as usize & 3],
    }
}

/// Live flows in random order: how many, and what they are like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Flows, below 2^24.
    pub flows: u32,
    /// Bytes of a frame, at least those of its headers.
    pub frame_bytes: usize,
    /// TCP is every flow whose number this divides; 0 for none.
    pub tcp_every: u32,
    /// Of four frames, how many are the responder's.
    pub replies_of_four: u32,
    /// Segments of a connection come in groups of eight, last one first.
    pub reversed: bool,
}

/// See [`Shape`].
#[derive(Debug)]
pub struct Steady {
    shape: Shape,
    opened: u32,
    /// What both sides of a connection have sent.
    sent: Vec<[u32; 2]>,
    rng: Rng,
}

impl Steady {
    pub fn new(shape: Shape) -> Self {
        let sent = vec![[0; 2]; if shape.tcp_every == 0 { 0 } else { shape.flows as usize }];
        Self { shape, opened: 0, sent, rng: Rng::new(4) }
    }

    fn is_tcp(&self, number: u32) -> bool {
        self.shape.tcp_every != 0 && number.is_multiple_of(self.shape.tcp_every)
    }
}

/// A connection's first sequence numbers.
fn isn(number: u32) -> [u32; 2] {
    [number.wrapping_mul(0x85eb_ca6b), number.wrapping_mul(0xc2b2_ae35)]
}

impl Traffic for Steady {
    fn open(&mut self, out: &mut Out) {
        let number = self.opened;
        self.opened += 1;
        let ends = ends(number);
        if !self.is_tcp(number) {
            out.udp(&ends, self.shape.frame_bytes);
            return;
        }
        let [a, b] = isn(number);
        out.tcp(&ends, SYN, a, 0, 0);
        if self.shape.replies_of_four > 0 {
            out.tcp(&ends.reversed(), SYN | ACK, b, a.wrapping_add(1), 0);
        }
        out.tcp(&ends, ACK, a.wrapping_add(1), b.wrapping_add(1), 0);
    }

    fn is_open(&self) -> bool {
        self.opened == self.shape.flows
    }

    fn next(&mut self, out: &mut Out) {
        let number = self.rng.below(self.shape.flows);
        let side = usize::from(self.rng.below(4) < self.shape.replies_of_four);
        let ends = if side == 0 { ends(number) } else { ends(number).reversed() };
        if !self.is_tcp(number) {
            out.udp(&ends, self.shape.frame_bytes);
            return;
        }
        let bytes = self.shape.frame_bytes - TCP_HEADERS;
        let isn = isn(number);
        let sent = &mut self.sent[number as usize];
        let at = if self.shape.reversed {
            // The eighth segment first, then the seventh.
            let (count, bytes) = (sent[side] / bytes as u32, bytes as u32);
            (count / 8 * 8 + 7 - count % 8) * bytes
        } else {
            sent[side]
        };
        let seq = isn[side].wrapping_add(1).wrapping_add(at);
        let ack = isn[1 - side].wrapping_add(1).wrapping_add(sent[1 - side]);
        sent[side] = sent[side].wrapping_add(bytes as u32);
        out.tcp(&ends, ACK | PSH, seq, ack, bytes);
    }
}

/// TCP connections from the SYN to the last ACK, a thousand at a time; each that is over makes room for a new one.
#[derive(Debug)]
pub struct Lives {
    /// Packets of a connection: 0, and it goes on for ever; 1, a SYN without an answer; 2, one that is refused; from 6 on a
    /// handshake, data and a close.
    packets: u32,
    live: Vec<(u32, u32)>,
    numbers: u32,
    rng: Rng,
}

const AT_ONCE: u32 = 1000;
/// Packets of a handshake, and of a close.
const HANDSHAKE: u32 = 3;
const CLOSE: u32 = 3;

impl Lives {
    pub fn new(packets: u32) -> Self {
        assert!(!(3..HANDSHAKE + CLOSE).contains(&packets), "no connection has {packets} packets");
        let live = (0..AT_ONCE).map(|number| (number, 0)).collect();
        Self { packets, live, numbers: AT_ONCE, rng: Rng::new(5) }
    }

    /// One packet of the connection at this place.
    fn step(&mut self, place: usize, out: &mut Out) {
        const BYTES: u32 = 10;
        let (number, step) = self.live[place];
        let ends = ends(number & 0xff_ffff);
        let [a, b] = isn(number).map(|isn| isn.wrapping_add(1));
        let back = ends.reversed();
        // Data goes one way, four of five packets; the fifth acknowledges.
        let data = |steps: u32| (steps - steps / 5).wrapping_mul(BYTES);
        let closing = self.packets.saturating_sub(CLOSE);
        let total = a.wrapping_add(data(closing.saturating_sub(HANDSHAKE)));
        match (self.packets, step) {
            (_, 0) => out.tcp(&ends, SYN, a.wrapping_sub(1), 0, 0),
            (2, _) => out.tcp(&back, RST | ACK, 0, a, 0),
            (_, 1) => out.tcp(&back, SYN | ACK, b.wrapping_sub(1), a, 0),
            (_, 2) => out.tcp(&ends, ACK, a, b, 0),
            (packets, step) if packets == 0 || step < closing => {
                let steps = step - HANDSHAKE;
                let seq = a.wrapping_add(data(steps));
                if data(steps + 1) == data(steps) {
                    out.tcp(&back, ACK, b, seq, 0);
                } else {
                    out.tcp(&ends, ACK | PSH, seq, b, BYTES as usize);
                }
            }
            (_, step) if step == closing => out.tcp(&ends, FIN | ACK, total, b, 0),
            (_, step) if step == closing + 1 => {
                out.tcp(&back, FIN | ACK, b, total.wrapping_add(1), 0);
            }
            _ => out.tcp(&ends, ACK, total.wrapping_add(1), b.wrapping_add(1), 0),
        }
        self.live[place].1 += 1;
        if self.packets != 0 && self.live[place].1 == self.packets {
            self.live[place] = (self.numbers, 0);
            self.numbers += 1;
        }
    }
}

impl Traffic for Lives {
    fn open(&mut self, out: &mut Out) {
        for place in 0..self.live.len() {
            for _ in 0..HANDSHAKE.min(self.packets.max(1)) {
                self.step(place, out);
            }
        }
    }

    fn is_open(&self) -> bool {
        self.numbers > AT_ONCE || self.live.iter().all(|&(_, step)| step > 0)
    }

    fn next(&mut self, out: &mut Out) {
        let place = self.rng.below(AT_ONCE) as usize;
        self.step(place, out);
    }
}

/// Every frame a flow of its own.
#[derive(Debug)]
pub struct Flood {
    /// A SYN, or a datagram.
    pub tcp: bool,
    /// So many come before anything is measured.
    pub open: u32,
    pub sent: u32,
}

impl Traffic for Flood {
    fn open(&mut self, out: &mut Out) {
        self.next(out);
    }

    fn is_open(&self) -> bool {
        self.sent >= self.open
    }

    fn next(&mut self, out: &mut Out) {
        let ends = ends(self.sent & 0xff_ffff);
        self.sent += 1;
        if self.tcp { out.tcp(&ends, SYN, self.sent, 0, 0) } else { out.udp(&ends, 64) }
    }
}

/// Datagrams of UDP with these ends, in random order.
#[derive(Debug)]
pub struct Chosen {
    ends: Vec<Ends>,
    opened: usize,
    rng: Rng,
}

impl Chosen {
    pub fn new(ends: Vec<Ends>) -> Self {
        Self { ends, opened: 0, rng: Rng::new(6) }
    }
}

impl Traffic for Chosen {
    fn open(&mut self, out: &mut Out) {
        out.udp(&self.ends[self.opened], 64);
        self.opened += 1;
    }

    fn is_open(&self) -> bool {
        self.opened == self.ends.len()
    }

    fn next(&mut self, out: &mut Out) {
        let number = self.rng.below(self.ends.len() as u32) as usize;
        out.udp(&self.ends[number], 64);
    }
}

/// What comes of a datagram that was sent in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// The first fragment, then the last.
    InOrder,
    /// The last one first.
    Reversed,
    /// The last one alone, of a datagram that is never whole.
    LastOnly,
}

/// Fragments of datagrams, a thousand pairs of hosts.
#[derive(Debug)]
pub struct Fragments {
    pub pieces: Pieces,
    pub sent: u32,
    pub open: u32,
}

impl Traffic for Fragments {
    fn open(&mut self, out: &mut Out) {
        self.next(out);
    }

    fn is_open(&self) -> bool {
        self.sent >= self.open
    }

    fn next(&mut self, out: &mut Out) {
        const BYTES: usize = 74;
        const SECOND_AT: u16 = (BYTES - 14 - 20) as u16;
        let (ends, id) = (ends(self.sent % 1000), (self.sent / 1000) as u16);
        self.sent += 1;
        let first = |out: &mut Out| out.fragment(&ends, BYTES, id, 0, true);
        let last = |out: &mut Out| out.fragment(&ends, BYTES, id, SECOND_AT, false);
        match self.pieces {
            Pieces::InOrder => {
                first(out);
                last(out);
            }
            Pieces::Reversed => {
                last(out);
                first(out);
            }
            Pieces::LastOnly => last(out),
        }
    }
}
