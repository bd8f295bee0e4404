//! Workload C: TCP conversations from the handshake to the close, through a path that loses,
//! repeats and reorders.
//!
//! A connection is planned whole when it starts (its packets, as they pass the sensor), and plans are
//! merged by time. Losses are of two kinds: before the sensor, where the segment is first seen late
//! and out of order, and after it, where it is seen twice. No byte is missed for good, and no
//! acknowledgement runs ahead of what its sender can have got.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv6Addr};

use super::rng::Rng;
use super::wire::{ACK, Builder, Ends, FIN, PSH, RST, SYN, Segment};
use super::{FlowTruth, START_NS, SideTruth, TCP, Truth, scaled, v4};

const CONNECTIONS: u32 = 100_000;
/// Connections start evenly over this time.
const SPREAD_NS: f64 = 30e9;
const CLIENTS: u32 = 5_000;
const SERVERS: u32 = 500;
const FRAME_BYTES_MIN: usize = 60;
const PATTERN_BYTES: usize = 1 << 16;
const SEGMENT_BYTES_MAX: usize = 1460;

const LOST_BEFORE_PER_MILLE: u32 = 4;
const LOST_AFTER_PER_MILLE: u32 = 6;
const REORDERED_PER_MILLE: u32 = 10;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// One packet of a plan.
#[derive(Clone, Copy, Debug)]
struct Planned {
    at_ns: u64,
    side: usize,
    flags: u8,
    /// Stream offset, counted from the SYN.
    seq: u32,
    ack: u32,
    len: u16,
}

/// One connection whose packets are being emitted.
#[derive(Debug)]
struct Live {
    plan: Vec<Planned>,
    next: usize,
    isn: [u32; 2],
}

/// Makes the frames.
pub fn generate(scale: f64, emit: &mut dyn FnMut(u64, &[u8])) -> Truth {
    let mut rng = Rng::new(0xc);
    let count = scaled(CONNECTIONS, scale);
    let spread_ns = (SPREAD_NS * scale) as u64 + 1;
    let mut starts: Vec<u64> = (0..count).map(|_| START_NS + rng.range(0, spread_ns)).collect();
    starts.sort_unstable();
    let mut pattern: Vec<u8> = Vec::with_capacity(PATTERN_BYTES + SEGMENT_BYTES_MAX);
    pattern.extend((0..PATTERN_BYTES).map(|_| b' ' + rng.below(95) as u8));
    pattern.extend_from_within(..SEGMENT_BYTES_MAX);

    let mut builder = Builder::new(FRAME_BYTES_MIN);
    let mut flows: Vec<FlowTruth> = Vec::with_capacity(count as usize);
    let mut live: Vec<Live> = Vec::with_capacity(count as usize);
    // The next packet of every connection that has begun.
    let mut queue: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
    loop {
        let begun = live.len();
        let next_packet = queue.peek().map_or(u64::MAX, |&Reverse((at_ns, _))| at_ns);
        if let Some(&start_ns) = starts.get(begun).filter(|&&start| start <= next_packet) {
            let mut rng = Rng::new(0xc0 << 32 | begun as u64);
            let ends = ends(begun as u32, &mut rng);
            let (plan, sides) = Planner::new(&mut rng, ends.src.is_ipv6()).plan(start_ns);
            queue.push(Reverse((plan[0].at_ns, begun as u32)));
            live.push(Live { plan, next: 0, isn: [rng.next() as u32, rng.next() as u32] });
            flows.push(FlowTruth { ends, proto: TCP, sides });
            continue;
        }
        let Some(Reverse((at_ns, number))) = queue.pop() else { break };
        let (connection, flow) = (&mut live[number as usize], &mut flows[number as usize]);
        let packet = connection.plan[connection.next];
        let frame = build(&mut builder, &packet, number, &flow.ends, connection.isn, &pattern);
        emit(at_ns, frame);
        flow.sides[packet.side].packets += 1;
        flow.sides[packet.side].bytes += frame.len() as u64;
        connection.next += 1;
        match connection.plan.get(connection.next) {
            Some(next) => queue.push(Reverse((next.at_ns, number))),
            None => connection.plan = Vec::new(),
        }
    }
    Truth { flows }
}

/// A client's address and port are never used twice.
fn ends(number: u32, rng: &mut Rng) -> Ends {
    let (client, server) = (number % CLIENTS, rng.below(SERVERS));
    let (src, dst) = if client % 8 == 0 {
        let v6 = |net: u16, host: u32| {
            let [high, low] = [(host >> 16) as u16, host as u16];
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, high, low))
        };
        (v6(1, client), v6(if rng.chance(500) { 0 } else { 2 }, server))
    } else {
        (v4(10, client), v4(if rng.chance(500) { 5 } else { 192 }, server))
    };
    let dst_port = [443, 443, 443, 80, 22, 25, 8080, 3306][rng.below(8) as usize];
    Ends { src, dst, src_port: 20_000 + (number / CLIENTS) as u16, dst_port }
}

fn build<'a>(
    builder: &'a mut Builder,
    packet: &Planned,
    number: u32,
    ends: &Ends,
    isn: [u32; 2],
    pattern: &[u8],
) -> &'a [u8] {
    let side = packet.side;
    // MSS 1460, window scale 7 (RFC 9293 section 3.2, RFC 7323 section 2).
    let options: &[u8] = if packet.flags & SYN != 0 { &[2, 4, 5, 0xb4, 1, 3, 3, 7] } else { &[] };
    let offset =
        (number as usize * 2 + side).wrapping_mul(40_503).wrapping_add(packet.seq as usize)
            % PATTERN_BYTES;
    let segment = Segment {
        seq: isn[side].wrapping_add(packet.seq),
        ack: if packet.flags & ACK != 0 { isn[1 - side].wrapping_add(packet.ack) } else { 0 },
        flags: packet.flags,
        options,
        payload: &pattern[offset..offset + usize::from(packet.len)],
    };
    let ends = if side == CLIENT { *ends } else { ends.reversed() };
    builder.tcp(&ends, &segment)
}

/// What passes the sensor, before acknowledgements are known.
#[derive(Clone, Copy, Debug)]
enum Event {
    Syn,
    /// A data segment by its number; whether this copy arrives at its receiver.
    Data {
        segment: u32,
        arrives: bool,
    },
    Ack,
    Fin,
    Rst,
}

/// One side while a plan is made.
#[derive(Debug, Default)]
struct Sender {
    /// Where each segment starts in the stream, and its length.
    segments: Vec<(u32, u16)>,
    stream_bytes: u32,
    /// Which the sensor saw, and the highest of them.
    seen: Vec<bool>,
    seen_next: usize,
    /// Which the receiver has, and how many without a hole.
    arrived: Vec<bool>,
    arrived_in_order: usize,
    unacknowledged: u32,
    syn: bool,
    fin: bool,
    sent_end: u32,
}

impl Sender {
    /// What its peer acknowledges.
    fn acknowledged(&self) -> u32 {
        let data = match self.segments.get(self.arrived_in_order) {
            Some(&(start, _)) => start,
            None => self.stream_bytes,
        };
        u32::from(self.syn) + data + u32::from(self.fin)
    }
}

#[derive(Debug)]
struct Planner<'a> {
    rng: &'a mut Rng,
    segment_bytes_max: u16,
    /// From the sensor to the client and back, to the server and back.
    round_trip_ns: [u64; 2],
    /// Between segments of a burst.
    gap_ns: u64,
    senders: [Sender; 2],
    events: Vec<(u64, usize, Event)>,
}

impl<'a> Planner<'a> {
    fn new(rng: &'a mut Rng, v6: bool) -> Self {
        let round_trip_ns = [rng.range(200 * US, 5 * MS), rng.range(MS, 40 * MS)];
        let gap_ns = rng.range(12 * US, 400 * US);
        Self {
            rng,
            segment_bytes_max: SEGMENT_BYTES_MAX as u16 - if v6 { 20 } else { 0 },
            round_trip_ns,
            gap_ns,
            senders: Default::default(),
            events: Vec::new(),
        }
    }

    fn plan(mut self, start_ns: u64) -> (Vec<Planned>, [SideTruth; 2]) {
        self.events.push((start_ns, CLIENT, Event::Syn));
        match self.rng.below(1000) {
            // Nobody answers: the SYN is sent again after 1 s and 3 s (RFC 6298 section 5.5).
            0..30 => {
                self.events.push((start_ns + S, CLIENT, Event::Syn));
                self.events.push((start_ns + 3 * S, CLIENT, Event::Syn));
            }
            // Refused.
            30..50 => self.events.push((start_ns + self.round_trip_ns[SERVER], SERVER, Event::Rst)),
            outcome => {
                let end_ns = self.talk(start_ns);
                match outcome {
                    50..150 => {} // Stays open.
                    150..300 => {
                        let side = self.rng.below(2) as usize;
                        self.events.push((end_ns, side, Event::Rst));
                    }
                    _ => self.close(end_ns),
                }
            }
        }
        self.acknowledge()
    }

    /// The handshake and some requests with their answers; returns when all is quiet again.
    fn talk(&mut self, start_ns: u64) -> u64 {
        let [client_ns, server_ns] = self.round_trip_ns;
        let mut now = start_ns + server_ns;
        self.events.push((now, SERVER, Event::Syn));
        now += client_ns;
        self.events.push((now, CLIENT, Event::Ack));
        for _ in 0..1 + self.rng.below(3) {
            now += self.pause_ns();
            let request = 1 + self.rng.below(4) / 3;
            now = self.burst(CLIENT, request, now) + server_ns + self.rng.range(MS, 10 * MS);
            // Half of all answers have one segment, a quarter two or three, and so on: few
            // connections have most of the bytes.
            let octave = self.rng.next().trailing_zeros().min(9);
            let answer = (1 << octave) + self.rng.below(1 << octave);
            now = self.burst(SERVER, answer, now) + client_ns + server_ns + 6 * MS;
        }
        // Kept open for a while, for more that does not come.
        now + self.pause_ns()
    }

    /// Programs and people think: from half a millisecond to eight seconds, every octave as likely.
    /// So connections live for some seconds, and thousands of them at a time.
    fn pause_ns(&mut self) -> u64 {
        let octave_ns = (500 * US) << self.rng.below(14);
        self.rng.range(octave_ns, 2 * octave_ns)
    }

    /// `count` segments of one side; returns when the last of them is through.
    fn burst(&mut self, side: usize, count: u32, start_ns: u64) -> u64 {
        let round_trip_ns = self.round_trip_ns[CLIENT] + self.round_trip_ns[SERVER];
        let (mut now, mut last) = (start_ns, start_ns);
        let mut window = 10; // RFC 6928.
        let mut in_flight = 0;
        for _ in 0..count {
            // IMIX: three small, five middle and two full segments; with bare ACKs about 7:4:1.
            let len = match self.rng.below(10) {
                0..3 => 10,
                3..8 => 536,
                _ => self.segment_bytes_max,
            };
            let sender = &mut self.senders[side];
            let segment = sender.segments.len() as u32;
            sender.segments.push((sender.stream_bytes, len));
            sender.stream_bytes += u32::from(len);
            let again_ns = now + round_trip_ns + self.rng.range(4, 12) * self.gap_ns;
            let mut push = |at_ns, arrives| {
                self.events.push((at_ns, side, Event::Data { segment, arrives }));
                last = last.max(at_ns);
            };
            const REPEATED: u32 = LOST_BEFORE_PER_MILLE + LOST_AFTER_PER_MILLE;
            match self.rng.below(1000) {
                0..LOST_BEFORE_PER_MILLE => push(again_ns, true),
                LOST_BEFORE_PER_MILLE..REPEATED => {
                    push(now, false);
                    push(again_ns, true);
                }
                n if n < REPEATED + REORDERED_PER_MILLE => {
                    push(now + self.gap_ns * self.rng.range(1, 4) + self.gap_ns / 2, true);
                }
                _ => push(now, true),
            }
            now += self.gap_ns;
            in_flight += 1;
            if in_flight == window {
                now += round_trip_ns;
                in_flight = 0;
                window = (window * 2).min(128);
            }
        }
        last
    }

    /// Both sides close, either first (RFC 9293 section 3.6).
    fn close(&mut self, start_ns: u64) {
        let first = self.rng.below(2) as usize;
        let second = 1 - first;
        let answer_ns = start_ns + self.round_trip_ns[second];
        self.events.push((start_ns, first, Event::Fin));
        let fin_ns = if self.rng.chance(600) {
            answer_ns
        } else {
            self.events.push((answer_ns, second, Event::Ack));
            answer_ns + self.rng.range(MS, 30 * MS)
        };
        self.events.push((fin_ns, second, Event::Fin));
        // Now and then the last ACK is never seen.
        if !self.rng.chance(20) {
            self.events.push((fin_ns + self.round_trip_ns[first], first, Event::Ack));
        }
    }

    /// Walks the events in order of time, so that everyone acknowledges what arrived so far.
    fn acknowledge(self) -> (Vec<Planned>, [SideTruth; 2]) {
        let Self { mut events, mut senders, round_trip_ns, .. } = self;
        events.sort_by_key(|&(at_ns, ..)| at_ns);
        let mut truth = [SideTruth::default(); 2];
        for (sender, truth) in senders.iter_mut().zip(&mut truth) {
            sender.seen = vec![false; sender.segments.len()];
            sender.arrived = vec![false; sender.segments.len()];
            truth.stream_bytes = u64::from(sender.stream_bytes);
        }
        let mut plan: Vec<Planned> = Vec::with_capacity(events.len() * 2);
        for (at_ns, side, event) in events {
            let peer = &senders[1 - side];
            let ack = peer.acknowledged();
            let answers = if peer.syn { ACK } else { 0 };
            let seq = senders[side].sent_end;
            let packet = Planned { at_ns, side, flags: answers, seq, ack, len: 0 };
            let sender = &mut senders[side];
            match event {
                Event::Syn => {
                    sender.syn = true;
                    sender.sent_end = 1;
                    plan.push(Planned { flags: answers | SYN, seq: 0, ..packet });
                }
                Event::Ack => plan.push(packet),
                Event::Rst => plan.push(Planned { flags: answers | RST, ..packet }),
                Event::Fin => {
                    sender.fin = true;
                    sender.sent_end += 1;
                    plan.push(Planned { flags: answers | FIN, ..packet });
                }
                Event::Data { segment, arrives } => {
                    let index = segment as usize;
                    let (start, len) = sender.segments[index];
                    let last = index + 1 == sender.segments.len();
                    let flags = if last || len < 536 { ACK | PSH } else { ACK };
                    plan.push(Planned { flags, seq: 1 + start, len, ..packet });
                    sender.sent_end = sender.sent_end.max(1 + start + u32::from(len));
                    if std::mem::replace(&mut sender.seen[index], true) {
                        truth[side].retransmitted += 1;
                    } else if index < sender.seen_next {
                        truth[side].out_of_order += 1;
                    }
                    sender.seen_next = sender.seen_next.max(index + 1);
                    if !arrives || std::mem::replace(&mut sender.arrived[index], true) {
                        continue;
                    }
                    let in_order = index == sender.arrived_in_order;
                    while sender.arrived.get(sender.arrived_in_order) == Some(&true) {
                        sender.arrived_in_order += 1;
                    }
                    sender.unacknowledged += 1;
                    // Every second segment, and at once when one is missing or the last one came
                    // (RFC 5681 section 4.2).
                    if !in_order || last || sender.unacknowledged == 2 {
                        sender.unacknowledged = 0;
                        let ack = sender.acknowledged();
                        plan.push(Planned {
                            at_ns: at_ns + round_trip_ns[1 - side],
                            side: 1 - side,
                            flags: ACK,
                            seq: senders[1 - side].sent_end,
                            ack,
                            len: 0,
                        });
                    }
                }
            }
        }
        plan.sort_by_key(|packet| packet.at_ns);
        (plan, truth)
    }
}
