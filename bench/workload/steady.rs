//! Workloads A and B: flows of equal length in random order, all alive from begin to end.

use super::rng::Rng;
use super::wire::{ACK, Builder, Ends, PSH, SYN, Segment};
use super::{FlowTruth, START_NS, SideTruth, TCP, Truth, UDP, scaled, v4};

/// What A and B differ in.
#[derive(Debug)]
pub struct Shape {
    seed: u64,
    flows: u32,
    packets_per_flow: u32,
    tcp_every: Option<u32>,
}

/// 10 k flows of 200 packets, UDP.
pub const A: Shape = Shape { seed: 0xa, flows: 10_000, packets_per_flow: 200, tcp_every: None };
/// 1 M flows of 4 packets, every second one TCP.
pub const B: Shape = Shape { seed: 0xb, flows: 1_000_000, packets_per_flow: 4, tcp_every: Some(2) };

const FRAME_BYTES: usize = 64;
/// One frame a microsecond: a capture of 2 or 4 seconds, so that nothing times out.
const GAP_NS: u64 = 1000;
// Not 53: nfpcapd ends a DNS flow with every packet, which would count against it.
const SERVICES: [u16; 8] = [500, 80, 123, 443, 443, 443, 4500, 5060];

/// Makes the frames.
pub fn generate(shape: &Shape, scale: f64, emit: &mut dyn FnMut(u64, &[u8])) -> Truth {
    let mut rng = Rng::new(shape.seed);
    let flow_count = scaled(shape.flows, scale);
    let mut flows: Vec<FlowTruth> = (0..flow_count)
        .map(|number| {
            let tcp = shape.tcp_every.is_some_and(|every| number % every == 0);
            FlowTruth {
                ends: ends(number, &mut rng),
                proto: if tcp { TCP } else { UDP },
                sides: [SideTruth::default(); 2],
            }
        })
        .collect();
    let mut order: Vec<u32> =
        (0..flow_count).flat_map(|flow| (0..shape.packets_per_flow).map(move |_| flow)).collect();
    rng.shuffle(&mut order);

    let mut builder = Builder::new(FRAME_BYTES);
    for (number, &index) in order.iter().enumerate() {
        let flow = &mut flows[index as usize];
        let frame = if flow.proto == TCP {
            tcp(&mut builder, flow, index)
        } else {
            builder.udp(&flow.ends, &[b'x'; FRAME_BYTES - 14 - 20 - 8])
        };
        assert_eq!(frame.len(), FRAME_BYTES);
        emit(START_NS + number as u64 * GAP_NS, frame);
        flow.sides[0].packets += 1;
        flow.sides[0].bytes += FRAME_BYTES as u64;
    }
    Truth { flows }
}

/// Different for every number below 2^24: the address in 10.0.0.0/8 is.
fn ends(number: u32, rng: &mut Rng) -> Ends {
    // An odd factor permutes the numbers modulo a power of two.
    let inside = v4(10, number.wrapping_mul(0x9e37_79b1) & 0xff_ffff);
    // Above or below 10.0.0.0/8, so that the sender is now the lower and now the upper end of the key.
    let outside = v4(if rng.chance(500) { 5 } else { 172 }, rng.below(1 << 24));
    Ends {
        src: inside,
        dst: outside,
        src_port: 1024 + rng.below(64_000) as u16,
        dst_port: SERVICES[rng.below(SERVICES.len() as u32) as usize],
    }
}

/// The client's half of a conversation: SYN, ACK, then data. It is not closed.
fn tcp<'a>(builder: &'a mut Builder, flow: &mut FlowTruth, index: u32) -> &'a [u8] {
    const DATA: [u8; FRAME_BYTES - 14 - 20 - 20] = [b'x'; 10];
    let isn = index.wrapping_mul(0x85eb_ca6b);
    let ack = isn.rotate_left(16);
    let sent = flow.sides[0].stream_bytes as u32;
    let seq = isn.wrapping_add(1).wrapping_add(sent);
    let segment = match flow.sides[0].packets {
        0 => Segment { seq: isn, flags: SYN, options: &[2, 4, 5, 0xb4], ..Segment::default() },
        1 => Segment { seq, ack, flags: ACK, ..Segment::default() },
        _ => {
            flow.sides[0].stream_bytes += DATA.len() as u64;
            Segment { seq, ack, flags: ACK | PSH, payload: &DATA, ..Segment::default() }
        }
    };
    builder.tcp(&flow.ends, &segment)
}
