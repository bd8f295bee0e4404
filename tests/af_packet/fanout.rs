//! Groups of sockets: whole from their first frame, and, by our program, spread as Rust spreads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowscope::capture::Capture;
use flowscope::capture::af_packet::{AfPacket, Fanout, FanoutMode, FanoutProgram};
use flowscope::capture::live::LiveCapture;
use flowscope::sensor::rss::Steering;

use crate::net::{PEER, PORT, Sender, drop_capabilities, namespace, skip};
use crate::rss::{damaged, deepest, worker};
use crate::suite::{self, PATIENCE, finish};
use crate::{small, wire};

/// What the kernel lends a frame in a test run, beside what it keeps.
const BYTES_MAX: usize = 3000;

fn program(workers: u32) -> Option<FanoutProgram> {
    match FanoutProgram::load(workers) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            skip(&format!("no program can be loaded, root is needed: {error}"));
            None
        }
        loaded => Some(loaded.expect("it loads")),
    }
}

/// A test run takes no frame that ends with its Ethernet header, or within the header of IP right behind it.
fn taken_bytes_min(frame: &[u8]) -> usize {
    match frame[12..14] {
        [0x08, 0x00] => 14 + 20,
        [0x86, 0xdd] => 14 + 40,
        _ => 14 + 1,
    }
}

/// Holds both to the same answer for every frame; how many were IP.
fn compare(workers: u32, frames: impl Iterator<Item = Vec<u8>>) -> usize {
    let Some(program) = program(workers) else { return usize::MAX };
    let steering = Steering::new(workers as usize);
    let mut ip = 0;
    for frame in frames.filter(|frame| frame.len() >= taken_bytes_min(frame)) {
        let expected = worker(&steering, &frame);
        ip += usize::from(expected.is_some());
        let found = program.try_on(&frame).unwrap_or_else(|error| panic!("{frame:02x?}: {error}"));
        assert_eq!(found as usize, expected.unwrap_or(0), "worker of {frame:02x?}");
    }
    ip
}

#[test]
fn the_program_and_rust_agree_on_every_frame_of_the_captures() {
    let frames = wire::of_captures(BYTES_MAX);
    for workers in [1, 3, 8] {
        let ip = compare(workers, frames.iter().cloned());
        assert!(ip > frames.len() / 2, "only {ip} of {} frames are IP", frames.len());
    }
}

#[test]
fn the_program_and_rust_agree_on_damaged_frames() {
    let frames = wire::of_captures(BYTES_MAX);
    let ip = compare(8, damaged(&frames, 60_000));
    assert!(ip > 20_000, "only {ip} frames are IP");
}

#[test]
fn the_deepest_headers_that_are_walked_are_the_same_in_both() {
    let frames = deepest(&wire::udp(77, 1, 80)[14..]);
    let count = frames.len();
    let ip = compare(8, frames.into_iter());
    assert!(ip == usize::MAX || ip == count - 3 - 3, "{ip} of {count} are IP");
}

fn by(mode: FanoutMode) -> Fanout {
    Fanout { group: 7, mode }
}

fn open_group(mode: FanoutMode, sockets: usize) -> Vec<AfPacket> {
    let config = small().wait(Duration::ZERO).fanout(Some(by(mode))).build().expect("valid");
    AfPacket::open_group(PORT, suite::ID, &config, sockets).unwrap_or_else(|e| panic!("{e}"))
}

/// The datagram of `whole` the other way: addresses and ports change places.
fn back(whole: &[u8]) -> Vec<u8> {
    let mut frame = whole.to_vec();
    frame[26..34].rotate_left(4);
    frame[34..38].rotate_left(2);
    frame
}

/// An Ethernet frame of this type.
fn ethernet(ether_type: u16, rest: &[&[u8]]) -> Vec<u8> {
    let addresses: &[u8] = &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    [addresses, &ether_type.to_be_bytes(), &rest.concat()].concat()
}

/// The same datagram in all that it may come in: bare; behind one tag, and two; in MPLS; in PPPoE; in GRE, whose flow is the tunnel.
fn wrapped(frame: &[u8]) -> Vec<Vec<u8>> {
    let ip = &frame[14..];
    let mut gre = wire::udp(1, 0, 46)[14..34].to_vec();
    gre[2..4].copy_from_slice(&(24 + ip.len() as u16).to_be_bytes());
    gre[9] = 47;
    let pppoe = [0x11, 0, 0, 1, 0, 2 + ip.len() as u8, 0, 0x21];
    vec![
        frame.to_vec(),
        wire::tagged(frame.to_vec(), &[[0x81, 0, 0, 7]]),
        wire::tagged(frame.to_vec(), &[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 9]]),
        ethernet(0x8847, &[&[0, 1, 0, 64, 0, 2, 1, 64], ip]),
        ethernet(0x8864, &[&pppoe, ip]),
        ethernet(0x0800, &[&gre, &[0, 0, 8, 0], ip]),
    ]
}

/// Reads what there is on each of them: socket and bytes.
fn take(group: &mut [AfPacket], seen: &mut Vec<(usize, Vec<u8>)>) {
    for (socket, capture) in group.iter_mut().enumerate() {
        capture
            .with_batch(|batch| seen.extend(batch.iter().map(|f| (socket, f.data.to_vec()))))
            .expect("no error");
    }
}

/// Stops all of them and reads what is left: how many frames they were offered.
fn take_rest(group: &mut [AfPacket], seen: &mut Vec<(usize, Vec<u8>)>) -> u64 {
    let mut offered = 0;
    for (socket, capture) in group.iter_mut().enumerate() {
        capture.stop().expect("it stops");
        let mut rest = |batch: &[flowscope::Frame<'_>]| {
            seen.extend(batch.iter().map(|frame| (socket, frame.data.to_vec())));
        };
        while capture.with_batch(&mut rest).expect("no error").is_some() {}
        offered += finish(capture).1.offered;
    }
    offered
}

#[test]
fn each_frame_comes_to_the_worker_that_rust_names_in_tunnels_and_fragments_and_both_directions() {
    if !namespace(1) {
        return;
    }
    let workers = 3;
    let mut group = open_group(FanoutMode::Ebpf, workers);
    assert!(group[0].description().contains("fanout group 7 by ebpf"));
    let (sender, mut seen) = (Sender::new(PEER), Vec::new());
    let (mut sent, mut datagrams) = (0, 0);
    for flow in 0..60 {
        let there = wire::udp(flow, 0, 120);
        for frame in wrapped(&there).iter().chain(&wrapped(&back(&there))) {
            sender.send(frame).expect("sent");
            sent += 1;
        }
        // Both come as one frame, with the ports of the first.
        for fragment in wire::fragments(&there, flow).iter().rev() {
            sender.send(fragment).expect("sent");
        }
        datagrams += 1;
        take(&mut group, &mut seen);
    }
    let offered = take_rest(&mut group, &mut seen);
    assert_eq!((offered, seen.len()), (sent + datagrams, (sent + datagrams) as usize));
    let steering = Steering::new(workers);
    let mut shares = vec![0; workers];
    for (socket, frame) in &seen {
        assert_eq!(worker(&steering, frame), Some(*socket), "{frame:02x?}");
        shares[*socket] += 1;
    }
    // Seven of each flow and direction, the tunnel apart.
    assert!(shares.iter().all(|share| *share > sent / 10), "{shares:?}");
    let ends = |frame: &[u8]| (frame[26..38].to_vec(), back(frame)[26..38].to_vec());
    let bare: BTreeMap<_, _> = seen
        .iter()
        .filter(|(_, frame)| frame[12..14] == [8, 0] && frame[23] == 17)
        .map(|(socket, frame)| (ends(frame).0, (*socket, ends(frame).1)))
        .collect();
    assert_eq!(bare.len(), 120);
    assert!(bare.values().all(|(socket, other)| bare[other].0 == *socket), "directions apart");
}

#[test]
fn frames_of_the_captures_come_to_the_worker_that_rust_names() {
    if !namespace(1) {
        return;
    }
    let mut group = open_group(FanoutMode::Ebpf, 2);
    let (sender, mut seen) = (Sender::new(PEER), Vec::new());
    let frames = suite::of_captures();
    for piece in frames.chunks(100) {
        piece.iter().for_each(|frame| sender.send(frame).expect("sent"));
        take(&mut group, &mut seen);
    }
    let offered = take_rest(&mut group, &mut seen);
    assert_eq!(offered, seen.len() as u64);
    // Fragments of IPv4 come together, or never.
    assert!(seen.len() > frames.len() * 9 / 10, "{} of {}", seen.len(), frames.len());
    let steering = Steering::new(2);
    for (socket, frame) in &seen {
        assert_eq!(worker(&steering, frame).unwrap_or(0), *socket, "{frame:02x?}");
    }
}

#[test]
fn a_flow_that_goes_on_while_a_group_is_opened_is_on_one_socket_of_it() {
    const FLOWS: u16 = 64;
    for mode in [FanoutMode::Hash, FanoutMode::Ebpf] {
        if !namespace(1) {
            return;
        }
        let (done, mut seen) = (AtomicBool::new(false), Vec::new());
        let sender = Sender::new(PEER);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let mut number = 0u32;
                while !done.load(Ordering::Relaxed) {
                    for flow in 0..FLOWS {
                        sender.send(&wire::udp(flow, number, 100)).expect("sent");
                    }
                    number += 1;
                }
                number
            });
            for _ in 0..5 {
                let mut group = open_group(mode, 4);
                let (mut frames, start) = (Vec::new(), Instant::now());
                while frames.len() < 10 * usize::from(FLOWS) && start.elapsed() < PATIENCE {
                    take(&mut group, &mut frames);
                }
                let offered = take_rest_while_it_goes_on(&mut group, &mut frames);
                assert!(offered >= 10 * u64::from(FLOWS), "{offered} frames");
                seen.push(frames);
            }
            done.store(true, Ordering::Relaxed);
            assert!(sending.join().expect("the sender") > 10);
        });
        for frames in seen {
            let mut sockets = BTreeMap::<_, Vec<_>>::new();
            for (socket, frame) in frames {
                sockets.entry(frame[26..38].to_vec()).or_default().push(socket);
            }
            assert_eq!(sockets.len(), usize::from(FLOWS), "{mode}");
            for (flow, sockets) in sockets {
                let one = sockets.iter().all(|socket| *socket == sockets[0]);
                assert!(one, "{mode}: flow {flow:02x?} is on several: {sockets:?}");
            }
        }
    }
}

/// Stops all of them before any is read to its end, and reads what is left.
fn take_rest_while_it_goes_on(group: &mut [AfPacket], seen: &mut Vec<(usize, Vec<u8>)>) -> u64 {
    group.iter_mut().for_each(|capture| capture.stop().expect("it stops"));
    take_rest(group, seen)
}

#[test]
fn a_program_that_may_not_be_loaded_is_refused_with_the_capability_that_is_missing() {
    if !namespace(1) {
        return;
    }
    let config = |mode| small().fanout(Some(by(mode))).build().expect("valid");
    // CAP_SYS_ADMIN stands for the other two.
    drop_capabilities(&[21, 39]);
    let refused = AfPacket::open_group(PORT, 0, &config(FanoutMode::Ebpf), 2);
    let text = refused.map(drop).expect_err("refused").to_string();
    assert!(text.contains("this process has no CAP_BPF;") && text.contains("by hash"), "{text}");
    let group = AfPacket::open_group(PORT, 0, &config(FanoutMode::Hash), 2);
    assert_eq!(group.expect("opened").len(), 2);
}

#[test]
fn the_rights_that_are_asked_for_are_all_that_it_takes() {
    if !namespace(1) {
        return;
    }
    // CAP_NET_RAW, CAP_PERFMON, CAP_BPF are left.
    let others: Vec<_> = (0..=40).filter(|bit| ![13, 38, 39].contains(bit)).collect();
    drop_capabilities(&others);
    assert_eq!(open_group(FanoutMode::Ebpf, 2).len(), 2);
}
