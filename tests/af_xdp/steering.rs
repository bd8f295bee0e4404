//! One meaning of RSS: the program in the kernel and Rust send the same frames to the same worker.

use std::os::fd::{FromRawFd, OwnedFd};

use flowscope::capture::af_xdp::{Program, ProgramConfig};
use flowscope::sensor::rss::Steering;

use crate::net::skip;
use crate::rss::{damaged, deepest, worker};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// What the kernel lends a frame in a test run, beside what it keeps.
const BYTES_MAX: usize = 3000;

/// Any AF_XDP socket: in a test run nothing is sent to it.
pub fn any_socket() -> Option<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the descriptor is new and nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A program with `workers` sockets on one queue.
fn program(
    workers: u32,
    ip_only: bool,
    room_bytes: Option<u32>,
) -> Option<(Program, Vec<OwnedFd>)> {
    let config = ProgramConfig {
        queues: 1,
        sockets_per_queue: workers,
        ip_only,
        stamped: false,
        room_bytes,
        shunt: None,
    };
    let mut program = match Program::load(&config) {
        Ok(program) => program,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            skip(&format!("no program can be loaded, root is needed: {error}"));
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mut sockets = Vec::new();
    for slot in 0..workers {
        let Some(socket) = any_socket() else {
            skip("no AF_XDP socket can be made");
            return None;
        };
        program.open_slot(slot, &socket).expect("a slot");
        sockets.push(socket);
    }
    Some((program, sockets))
}

/// Runs the program on a frame: its verdict, and which slot counted.
fn run(program: &mut Program, before: &mut [u64], frame: &[u8]) -> (u32, usize) {
    let verdict = program.try_on(frame).unwrap_or_else(|error| panic!("{frame:02x?}: {error}"));
    for (slot, seen) in before.iter_mut().enumerate() {
        let now = program.verdicts(slot as u32).expect("counters").seen;
        if std::mem::replace(seen, now) != now {
            return (verdict, slot);
        }
    }
    panic!("no slot counted the frame");
}

/// Holds both to the same answer for every frame; how many were IP.
fn compare(
    workers: u32,
    ip_only: bool,
    room: Option<u32>,
    frames: impl Iterator<Item = Vec<u8>>,
) -> usize {
    let Some((mut program, _sockets)) = program(workers, ip_only, room) else { return usize::MAX };
    let steering = Steering::new(workers as usize);
    let mut seen = vec![0; workers as usize];
    let mut ip = 0;
    for frame in frames {
        let expected = match worker(&steering, &frame) {
            Some(worker) => {
                ip += 1;
                (XDP_REDIRECT, worker)
            }
            None => (if ip_only { XDP_PASS } else { XDP_REDIRECT }, 0),
        };
        let found = run(&mut program, &mut seen, &frame);
        assert_eq!(found, expected, "(verdict, worker) of {frame:02x?}");
    }
    ip
}

#[test]
fn the_program_and_rust_agree_on_every_frame_of_the_captures() {
    let frames = super::frames::of_captures(BYTES_MAX);
    for (workers, ip_only, room) in
        [(1, false, Some(4000)), (3, true, Some(4000)), (8, false, None)]
    {
        let ip = compare(workers, ip_only, room, frames.iter().cloned());
        assert!(ip > frames.len() / 2, "only {ip} of {} frames are IP", frames.len());
    }
}

#[test]
fn the_program_and_rust_agree_on_damaged_frames() {
    let frames = super::frames::of_captures(BYTES_MAX);
    let ip = compare(8, true, Some(4000), damaged(&frames, 60_000));
    assert!(ip > 20_000, "only {ip} frames are IP");
}

#[test]
fn the_deepest_headers_that_are_walked_are_the_same_in_both() {
    let frames = deepest(&super::frames::udp(77, 1, 80)[14..]);
    let count = frames.len();
    let ip = compare(8, true, Some(4000), frames.into_iter());
    // 33 or more tags, 65 or more labels.
    assert!(ip == usize::MAX || ip == count - 3 - 3, "{ip} of {count} are IP");
}

#[test]
fn a_frame_without_a_socket_is_passed_on() {
    let Some((mut program, _sockets)) = program(2, false, Some(1792)) else { return };
    let mut seen = [0; 2];
    let frame = super::frames::udp(1, 1, 100);
    let (verdict, slot) = run(&mut program, &mut seen, &frame);
    assert_eq!(verdict, XDP_REDIRECT);
    program.close_slot(slot as u32).expect("closed");
    assert_eq!(run(&mut program, &mut seen, &frame), (XDP_PASS, slot));
    let verdicts = program.verdicts(slot as u32).expect("counters");
    assert_eq!((verdicts.seen, verdicts.redirected, verdicts.closed), (2, 1, 1));
}

#[test]
fn sockets_of_several_queues_are_workers_of_one_table() {
    let (queues, sockets_per_queue) = (2, 3);
    let config = ProgramConfig {
        queues,
        sockets_per_queue,
        ip_only: false,
        stamped: false,
        room_bytes: None,
        shunt: None,
    };
    let mut program = match Program::load(&config) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            return skip(&format!("no program can be loaded, root is needed: {error}"));
        }
        loaded => loaded.expect("it loads"),
    };
    let workers = queues * sockets_per_queue;
    let steering = Steering::new(workers as usize);
    let (mut seen, mut used) = (vec![0; workers as usize], vec![0; workers as usize]);
    for flow in 0..300 {
        let frame = super::frames::udp(flow, 1, 60);
        let worker = worker(&steering, &frame).expect("IP");
        // A test run is on queue 0, whose sockets are the first of the map.
        let (_, slot) = run(&mut program, &mut seen, &frame);
        assert_eq!(slot, worker / queues as usize, "flow {flow}, worker {worker}");
        used[slot] += 1;
    }
    assert!(used[..3].iter().all(|&frames| frames > 60) && used[3..] == [0; 3], "{used:?}");
}
