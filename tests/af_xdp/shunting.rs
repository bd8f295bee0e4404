//! The program counts frames of shunted flows as Rust would, and takes no frame that Rust would see more in.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use flowscope::capture::af_xdp::{Program, ProgramConfig};
use flowscope::capture::shunt::{ShuntConfig, ShuntSlot, Shunts};
use flowscope::decode::{Layers, Transport, decode};
use flowscope::flow::{ByFiveTuple, Counted, Extracted, FlowExtractor, FlowKey};
use flowscope::net::{End, IpProto, TcpFlags};
use flowscope::{Frame, LinkType, Timestamp};

use crate::net::skip;
use crate::steering::any_socket;

const XDP_DROP: u32 = 1;
const XDP_REDIRECT: u32 = 4;

const BYTES_MAX: usize = 3000;

fn program(by_vlan: bool, flows_max: u32) -> Option<(Program, Arc<dyn Shunts>, OwnedFd)> {
    let config = ProgramConfig {
        queues: 1,
        sockets_per_queue: 1,
        ip_only: false,
        stamped: false,
        room_bytes: Some(4000),
        shunt: Some(ShuntConfig { readers: 1, by_vlan, flows_max }),
    };
    let mut program = match Program::load(&config) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            skip(&format!("no program can be loaded, root is needed: {error}"));
            return None;
        }
        loaded => loaded.expect("it loads"),
    };
    let socket = any_socket()?;
    program.open_slot(0, &socket).expect("a slot");
    let shunts = program.shunts().expect("a table");
    Some((program, shunts, socket))
}

fn layers(data: &[u8]) -> Layers {
    let (link, ts) = (LinkType::ETHERNET, Timestamp::ZERO);
    decode(&Frame { ts, wire_len: data.len() as u32, link, interface: 0, data })
}

/// A flow's counts as they should be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    packets: [u64; 2],
    bytes: [u64; 2],
    flags: [TcpFlags; 2],
    data: [bool; 2],
}

impl Expected {
    fn add(&mut self, data: &[u8], layers: &Layers, end: End) {
        let at = end as usize;
        self.packets[at] += 1;
        self.bytes[at] += data.len() as u64;
        if let Transport::Tcp(tcp) = layers.transport {
            self.flags[at] = self.flags[at].union(tcp.flags);
            self.data[at] |= layers.payload.wire > 0;
        }
    }

    fn of(counted: &Counted) -> Self {
        Self {
            packets: counted.sides.map(|side| side.packets),
            bytes: counted.sides.map(|side| side.bytes),
            flags: counted.sides.map(|side| side.tcp_flags),
            data: counted.sides.map(|side| side.has_data),
        }
    }
}

/// Whether it opens or closes a connection.
fn signals(layers: &Layers) -> bool {
    const SIGNALS: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;
    matches!(layers.transport, Transport::Tcp(tcp) if tcp.flags.0 & SIGNALS != 0)
}

/// What may not be shunted whatever its flow is.
fn must_come(layers: &Layers) -> bool {
    layers.fault.is_some()
        || layers.ip.is_none_or(|ip| {
            ip.fragment.is_some() || !matches!(ip.proto, IpProto::TCP | IpProto::UDP)
        })
        || signals(layers)
}

/// Shunts the flow of every frame, anew where it was closed, and holds what is counted to what Rust makes of the same frames.
/// How many were counted, and how many came.
fn compare(by_vlan: bool, frames: impl Iterator<Item = Vec<u8>>) -> Option<[usize; 2]> {
    let (mut program, shunts, _socket) = program(by_vlan, 1024)?;
    let extractor = ByFiveTuple { vlan: by_vlan, interface: false };
    let mut flows: HashMap<FlowKey, (ShuntSlot, Expected)> = HashMap::new();
    let check = |key: &FlowKey, (slot, expected): &(ShuntSlot, Expected)| {
        assert_eq!(&Expected::of(&shunts.read(*slot).expect("counts")), expected, "{key:?}");
    };
    let ([mut counted, mut came], mut bytes) = ([0, 0], 0);
    for frame in frames {
        let layers = layers(&frame);
        let found = extractor.extract(&layers);
        if let Some(Extracted { key, .. }) = found
            && !flows.contains_key(&key)
            && flows.len() < 1024
        {
            let slot = shunts.insert(&key, 0).expect("inserted").expect("room");
            assert_eq!(shunts.insert(&key, 0).expect("no error"), None, "it is there already");
            flows.insert(key, (slot, Expected::default()));
        }
        match program.try_on(&frame).expect("it runs") {
            XDP_REDIRECT => {
                came += 1;
                if let Some(Extracted { key, .. }) = found
                    && signals(&layers)
                    && let Some(flow) = flows.remove(&key)
                {
                    shunts.remove(&key, 0).expect("taken out");
                    // No program is running that could still count.
                    check(&key, &flow);
                    shunts.free(flow.0);
                }
            }
            XDP_DROP => {
                assert!(!must_come(&layers), "{frame:02x?}: {layers:?}");
                let Extracted { key, end } = found.expect("a flow");
                let (_, expected) = flows.get_mut(&key).expect("a flow that is shunted");
                expected.add(&frame, &layers, end);
                counted += 1;
                bytes += frame.len() as u64;
            }
            verdict => panic!("{verdict}: {frame:02x?}"),
        }
    }
    flows.iter().for_each(|(key, flow)| check(key, flow));
    let verdicts = program.verdicts(0).expect("verdicts");
    assert_eq!((verdicts.shunted, verdicts.redirected), (counted as u64, came as u64));
    assert_eq!(verdicts.shunted_bytes, bytes);
    Some([counted, came])
}

#[test]
fn what_is_counted_of_the_captures_is_what_rust_makes_of_them() {
    let frames = super::frames::of_captures(BYTES_MAX);
    for by_vlan in [false, true] {
        let Some([counted, came]) = compare(by_vlan, frames.iter().cloned()) else { return };
        assert!(counted > frames.len() / 4 && came > 100, "{counted} counted, {came} came");
    }
}

#[test]
fn damaged_frames_come_or_are_counted_as_rust_has_them() {
    let frames = super::frames::of_captures(BYTES_MAX);
    let mut random = super::rss::random();
    let damaged = (0..40_000).map(|_| {
        let mut frame = frames[random(frames.len())].clone();
        if random(2) == 0 {
            // Not the addresses, or hardly any would be of a flow that is shunted.
            let at = random(frame.len().min(26));
            let telling = [0, 4, 6, 0x11, 0x45, 0x46, 0x60, 0x81, 0x88, 0x86, 0xdd, 0x20, 0x40];
            frame[at] = telling[random(telling.len())];
        }
        if random(2) == 0 {
            let at = 34 + random(20);
            if let Some(byte) = frame.get_mut(at) {
                *byte = random(256) as u8;
            }
        }
        if random(4) == 0 {
            frame.truncate(14.max(random(120)).min(frame.len()));
        }
        frame
    });
    let Some([counted, came]) = compare(true, damaged) else { return };
    assert!(counted > 4000 && came > 4000, "{counted} counted, {came} came");
}

#[test]
fn a_table_has_room_for_so_many_flows_and_a_place_that_is_given_back_counts_from_0() {
    let Some((mut program, shunts, _socket)) = program(false, 2) else { return };
    let frame = |flow| super::frames::udp(flow, 1, 100);
    let key = |flow| ByFiveTuple::default().extract(&layers(&frame(flow))).expect("a flow").key;
    let first = shunts.insert(&key(1), 0).expect("no error").expect("room");
    shunts.insert(&key(2), 0).expect("no error").expect("room");
    assert_eq!(shunts.insert(&key(3), 0).expect("no error"), None);
    assert_eq!(program.try_on(&frame(1)).expect("it runs"), XDP_DROP);
    assert_eq!(program.try_on(&frame(3)).expect("it runs"), XDP_REDIRECT);
    shunts.remove(&key(1), 0).expect("removed");
    shunts.remove(&key(1), 0).expect("no harm in it");
    assert_eq!(program.try_on(&frame(1)).expect("it runs"), XDP_REDIRECT);
    shunts.settle();
    assert_eq!(shunts.read(first).expect("counts").packets(), 1);
    shunts.free(first);
    let third = shunts.insert(&key(3), 0).expect("no error").expect("room again");
    assert_eq!(shunts.read(third).expect("counts"), Counted::default());
    assert_eq!(program.try_on(&frame(3)).expect("it runs"), XDP_DROP);
    // Of another reader it is not.
    shunts.remove(&key(2), 0).expect("removed");
    shunts.settle();
    assert_eq!(program.try_on(&frame(2)).expect("it runs"), XDP_REDIRECT);
    // The table can be read when the program is gone.
    drop(program);
    assert_eq!(shunts.read(third).expect("counts").bytes(), 100);
}

#[test]
fn a_signal_closes_the_flow_until_it_is_put_in_anew() {
    let Some((mut program, shunts, _socket)) = program(false, 2) else { return };
    let tcp = |flags| {
        let mut frame = Vec::new();
        let mut header = etherparse::TcpHeader::new(1000, 80, 1, 1000);
        (header.syn, header.fin, header.rst) = flags;
        header.ack = true;
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp_header(header)
            .write(&mut frame, &[7; 100])
            .expect("written to memory");
        frame
    };
    let plain = tcp((false, false, false));
    let key = ByFiveTuple::default().extract(&layers(&plain)).expect("a flow").key;
    for signal in [(true, false, false), (false, true, false), (false, false, true)] {
        let slot = shunts.insert(&key, 0).expect("no error").expect("room");
        assert_eq!(program.try_on(&plain).expect("it runs"), XDP_DROP);
        assert_eq!(program.try_on(&tcp(signal)).expect("it runs"), XDP_REDIRECT);
        assert_eq!(program.try_on(&plain).expect("it runs"), XDP_REDIRECT, "it is closed");
        shunts.remove(&key, 0).expect("taken out");
        shunts.settle();
        assert_eq!(shunts.read(slot).expect("counts").packets(), 1);
        shunts.free(slot);
    }
}

#[test]
fn what_no_socket_takes_is_not_counted_for_a_flow() {
    let Some((mut program, shunts, _socket)) = program(false, 2) else { return };
    let frame = super::frames::udp(1, 1, 100);
    let key = ByFiveTuple::default().extract(&layers(&frame)).expect("a flow").key;
    let slot = shunts.insert(&key, 0).expect("no error").expect("room");
    program.close_slot(0).expect("closed");
    assert_eq!(program.try_on(&frame).expect("it runs"), 2, "passed on");
    assert_eq!(shunts.read(slot).expect("counts").packets(), 0);
}
