//! AF_XDP on real interfaces: veth pairs in namespaces of the tests' own.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[path = "support/wire.rs"]
mod frames;
#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;
#[cfg(feature = "sensor")]
#[path = "support/rss.rs"]
mod rss;
#[path = "af_xdp/shunting.rs"]
mod shunting;
#[cfg(feature = "sensor")]
#[path = "af_xdp/steering.rs"]
mod steering;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowscope::capture::af_xdp::{AfXdp, Builder, BusyPoll, Config, Mode, ModeInForce};
use flowscope::capture::live::{DropReason, LiveCapture, QueueCounts};
use flowscope::capture::{Capture, CaptureError};
use xsk_rs::config::{LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{Socket, Umem};

use net::{PEER, PORT, Sender, drop_capabilities, ip, namespace};

/// No test waits longer for frames that do not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// 8 MiB a queue: what is allowed without CAP_IPC_LOCK, and quick to get.
fn small() -> Builder {
    Config::builder().frames(4096).rx_ring(2048).wait(Duration::from_millis(20))
}

fn open(builder: Builder) -> Vec<AfXdp> {
    let config = builder.build().expect("a valid configuration");
    AfXdp::open(PORT, 3, &config).unwrap_or_else(|error| panic!("{error}"))
}

fn open_one(builder: Builder) -> AfXdp {
    let mut all = open(builder);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn refusal(builder: Builder, name: &str) -> String {
    let config = builder.build().expect("a valid configuration");
    match AfXdp::open(name, 0, &config) {
        Ok(_) => panic!("{name} was opened"),
        Err(error) => error.to_string(),
    }
}

/// Reads until `frames` came, in order.
fn read(capture: &mut AfXdp, frames: usize) -> Vec<Vec<u8>> {
    let (start, mut got) = (Instant::now(), Vec::new());
    while got.len() < frames && start.elapsed() < PATIENCE {
        let batch = capture.with_batch(|batch| {
            got.extend(batch.iter().map(|frame| frame.data.to_vec()));
        });
        assert!(batch.expect("no error").is_some(), "the capture ended by itself");
    }
    got
}

/// Stops it and takes what is left; the counts are final then.
fn finish(capture: &mut AfXdp) -> (usize, QueueCounts) {
    capture.stop().expect("it stops");
    let mut left = 0;
    while capture.with_batch(|batch| left += batch.len()).expect("no error").is_some() {}
    assert!(matches!(capture.with_batch(|_| ()), Ok(None)), "the end is the end");
    let counts = capture.counts().expect("counts");
    assert_eq!(counts.offered, counts.delivered + counts.dropped_total(), "{counts:?}");
    assert_eq!(counts.dropped[DropReason::Driver as usize], 0, "unexplained: {counts:?}");
    (left, counts)
}

/// Sends all of `frames` and reads them again, in pieces that fit every ring.
fn send_and_compare(capture: &mut AfXdp, frames: &[Vec<u8>]) {
    let sender = Sender::new(PEER);
    for (piece, sent) in frames.chunks(200).enumerate() {
        for frame in sent {
            sender.send(frame).unwrap_or_else(|error| panic!("{} bytes: {error}", frame.len()));
        }
        let got = read(capture, sent.len());
        assert_eq!(got.len(), sent.len(), "piece {piece}: frames are missing");
        for (index, (sent, got)) in sent.iter().zip(&got).enumerate() {
            assert!(sent == got, "piece {piece}, frame {index}: {sent:02x?} came as {got:02x?}");
        }
    }
}

#[test]
fn every_frame_of_the_captures_arrives_byte_for_byte() {
    if !namespace(1) {
        return;
    }
    for mode in [Mode::Native, Mode::Generic] {
        let mut capture = open_one(small().mode(mode));
        let in_force = if mode == Mode::Native { ModeInForce::Copy } else { ModeInForce::Generic };
        assert_eq!(capture.mode(), in_force, "veth has no zero-copy");
        let frames = frames::of_captures(1514);
        send_and_compare(&mut capture, &frames);
        let (left, counts) = finish(&mut capture);
        assert_eq!((left, counts.offered), (0, frames.len() as u64), "{mode:?}");
        assert_eq!(counts.dropped_total(), 0);
        let verdicts = capture.verdicts().expect("verdicts");
        assert_eq!((verdicts.seen, verdicts.redirected), (counts.offered, counts.offered));
    }
}

/// Sockets of this process that have their driver polled for so long. The kernel does not tell the budget.
fn polling_sockets(micros: u32) -> usize {
    let option = |fd: i32, name: i32| {
        let (mut value, mut bytes) = (0u32, size_of::<u32>() as libc::socklen_t);
        // SAFETY: value and length live until the call returns, and the value has that length.
        let got = unsafe {
            let to = (&raw mut value).cast();
            libc::getsockopt(fd, libc::SOL_SOCKET, name, to, &raw mut bytes)
        };
        (got == 0).then_some(value)
    };
    let listing = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let numbers = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let polls = |fd: &i32| {
        option(*fd, libc::SO_DOMAIN) == Some(libc::AF_XDP as u32)
            && option(*fd, libc::SO_PREFER_BUSY_POLL) == Some(1)
            && option(*fd, libc::SO_BUSY_POLL) == Some(micros)
    };
    numbers.filter(polls).count()
}

/// On veth nothing is polled by it: the options are taken and the way of a frame stays as it was. So this says that no frame is
/// lost or comes twice, and nothing about speed.
#[test]
fn with_busy_polling_every_frame_arrives_byte_for_byte_as_well() {
    if !namespace(1) {
        return;
    }
    // A time that no other test has.
    let busy_poll = Some(BusyPoll { micros: 237, budget: 37 });
    for mode in [Mode::Native, Mode::Generic] {
        let mut capture = open_one(small().mode(mode).busy_poll(busy_poll));
        assert_eq!(polling_sockets(237), 1);
        let text = capture.description();
        assert!(text.contains(", busy polling for 237 µs, 37 frames at a time"), "{text}");
        let frames = frames::of_captures(1514);
        send_and_compare(&mut capture, &frames);
        let (left, counts) = finish(&mut capture);
        assert_eq!((left, counts.offered), (0, frames.len() as u64), "{mode:?}");
        assert_eq!((counts.delivered, counts.dropped_total()), (counts.offered, 0));
    }
    // Of several sockets each has it.
    let mut captures = open(small().sockets_per_queue(2).busy_poll(busy_poll));
    assert_eq!(polling_sockets(237), 2);
    let start = Instant::now();
    let batch = captures[1].with_batch(|batch| batch.len()).expect("no error");
    assert_eq!(batch, Some(0));
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(15), "it polled and did not wait: {waited:?}");
    drop(captures);
    assert_eq!(polling_sockets(237), 0);
    assert!(!open_one(small()).description().contains("busy polling"));
}

#[test]
fn a_large_mtu_is_taken_in_several_buffers_and_nothing_is_cut() {
    if !namespace(1) {
        return;
    }
    for name in [PORT, PEER] {
        ip(&format!("link set {name} mtu 9000"));
    }
    let mut capture = open_one(small());
    assert!(capture.description().contains("several buffers"), "{}", capture.description());
    let lengths = [60, 1514, 1792, 1793, 3584, 3585, 4096, 9014].into_iter().cycle().take(400);
    let frames: Vec<_> =
        lengths.enumerate().map(|(n, len)| frames::udp(7, n as u32, len)).collect();
    send_and_compare(&mut capture, &frames);
    let (_, counts) = finish(&mut capture);
    assert_eq!((counts.offered, counts.dropped_total()), (400, 0));

    drop(capture);
    let text = refusal(small().multi_buffer(false), PORT);
    assert!(
        text.contains("frames of up to 9022 bytes (MTU 9000)") && text.contains("room for 1792"),
        "{text}"
    );
}

#[test]
fn a_frame_longer_than_its_room_is_counted_and_left_to_the_kernel() {
    if !namespace(1) {
        return;
    }
    let mut capture = open_one(small());
    // After it was opened, when nobody looks at the MTU any more.
    for name in [PORT, PEER] {
        ip(&format!("link set {name} mtu 3000"));
    }
    let sender = Sender::new(PEER);
    for bytes in [100, 1792, 1793, 3014] {
        sender.send(&frames::udp(1, 0, bytes)).expect("sent");
    }
    assert_eq!(read(&mut capture, 2).iter().map(Vec::len).collect::<Vec<_>>(), [100, 1792]);
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered), (0, 4));
    assert_eq!(counts.dropped[DropReason::Socket as usize], 2, "{counts:?}");
}

#[test]
fn one_queue_is_spread_over_several_sockets_by_flow() {
    if !namespace(1) {
        return;
    }
    let mut captures = open(small().sockets_per_queue(3));
    assert_eq!(captures.iter().map(AfXdp::socket).collect::<Vec<_>>(), [0, 1, 2]);
    let sender = Sender::new(PEER);
    let (flows, rounds) = (100u16, 30u32);
    let mut seen = vec![Vec::new(); captures.len()];
    for number in 0..rounds {
        for flow in 0..flows {
            sender.send(&frames::udp(flow, number, 80)).expect("sent");
        }
        // More frames go around than there are: each socket gives back what it read.
        for (capture, seen) in captures.iter_mut().zip(&mut seen) {
            capture.with_batch(|_| ()).expect("no error");
            capture
                .with_batch(|batch| seen.extend(batch.iter().map(|f| f.data[28..30].to_vec())))
                .expect("no error");
        }
    }
    let totals: Vec<_> = captures.iter_mut().map(|capture| finish(capture).1).collect();
    let offered: u64 = totals.iter().map(|counts| counts.offered).sum();
    assert_eq!(offered, u64::from(flows) * u64::from(rounds));
    for counts in &totals {
        assert_eq!(counts.dropped_total(), 0, "{counts:?}");
        assert!(counts.offered > offered / 10, "spread unevenly: {totals:?}");
    }
    for flow in 0..flows {
        let on = seen.iter().filter(|seen| seen.contains(&flow.to_be_bytes().to_vec())).count();
        assert!(on <= 1, "flow {flow} came on {on} sockets");
    }
}

#[test]
fn each_queue_has_a_capture_of_its_own() {
    if !namespace(2) {
        return;
    }
    let captures = open(small());
    assert_eq!(captures.iter().map(AfXdp::queue).collect::<Vec<_>>(), [0, 1]);
    drop(captures);
    let only = open_one(small().queues(&[1]));
    assert_eq!(only.queue(), 1);
}

#[test]
fn more_than_can_be_taken_is_counted_to_the_frame() {
    if !namespace(1) {
        return;
    }
    let cases = [
        (DropReason::RingFull, small().rx_ring(64).frames(4096), 64),
        (DropReason::FillRingEmpty, small().rx_ring(4096).frames(64), 64),
    ];
    for (reason, builder, room) in cases {
        let mut capture = open_one(builder);
        let sender = Sender::new(PEER);
        let sent = 5000u64;
        for number in 0..sent {
            sender.send(&frames::udp(1, number as u32, 100)).expect("sent");
            // A slow reader: one batch for hundreds of frames.
            if number % 500 == 499 {
                capture.with_batch(|_| ()).expect("no error");
            }
        }
        let (_, counts) = finish(&mut capture);
        assert_eq!(counts.offered, sent, "{reason:?}: {counts:?}");
        assert_eq!(
            counts.dropped[reason as usize],
            counts.dropped_total(),
            "{reason:?}: {counts:?}"
        );
        assert!((room..=room * 12).contains(&counts.delivered), "{reason:?}: {counts:?}");
    }
}

#[test]
fn the_ledger_balances_when_it_is_stopped_under_load() {
    if !namespace(1) {
        return;
    }
    let mut capture = open_one(small().rx_ring(64).frames(256));
    let done = AtomicBool::new(false);
    let sender = Sender::new(PEER);
    let (read, counts, sent) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0u64;
            while !done.load(Ordering::Relaxed) {
                sent += u64::from(sender.send(&frames::udp(1, sent as u32, 100)).is_ok());
            }
            sent
        });
        let (start, mut read) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(300) {
            capture.with_batch(|batch| read += batch.len()).expect("no error");
        }
        let (left, counts) = finish(&mut capture);
        // Frames still come, and go to the kernel.
        let before = capture.verdicts().expect("verdicts").closed;
        std::thread::sleep(Duration::from_millis(50));
        let verdicts = capture.verdicts().expect("verdicts");
        assert!(verdicts.closed > before, "{verdicts:?}");
        assert_eq!(verdicts.seen, verdicts.redirected + verdicts.closed);
        assert_eq!(capture.counts().expect("counts"), counts, "what is final does not change");
        done.store(true, Ordering::Relaxed);
        ((read + left) as u64, counts, sending.join().expect("the sender"))
    });
    assert_eq!(counts.delivered, read);
    assert!(read > 1000 && sent > counts.offered, "{sent} sent, {counts:?}");
}

#[test]
fn frames_that_are_not_ip_are_left_to_the_kernel_when_asked() {
    if !namespace(1) {
        return;
    }
    let mut capture = open_one(small().ip_only(true));
    let sender = Sender::new(PEER);
    let mut arp = frames::udp(1, 1, 60);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for frame in [frames::udp(1, 1, 60), arp, frames::udp(1, 2, 60)] {
        sender.send(&frame).expect("sent");
    }
    assert_eq!(read(&mut capture, 2).len(), 2);
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered), (0, 2));
    assert_eq!(capture.verdicts().expect("verdicts").not_ip, 1);
}

#[test]
fn a_frame_has_the_time_at_which_the_driver_had_it() {
    if !namespace(1) {
        return;
    }
    let now =
        || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    for kernel_time in [true, false] {
        let mut capture = open_one(small().kernel_time(kernel_time));
        let sender = Sender::new(PEER);
        let before = now();
        (0..100).for_each(|n| sender.send(&frames::udp(1, n, 100)).expect("sent"));
        let sent = now();
        // Long enough to tell the two apart, whatever else this machine does.
        std::thread::sleep(Duration::from_millis(200));
        let (mut times, start) = (Vec::new(), Instant::now());
        while times.len() < 100 && start.elapsed() < PATIENCE {
            capture
                .with_batch(|batch| times.extend(batch.iter().map(|frame| frame.ts.as_nanos())))
                .expect("no error");
        }
        assert_eq!(times.len(), 100);
        assert!(times.is_sorted(), "{times:?}");
        // The two clocks are read one after the other: a thread may lose its core in between.
        let slack = 20_000_000;
        let while_sending = before - slack..=sent + slack;
        let inside = times.iter().filter(|&time| while_sending.contains(time)).count();
        assert_eq!(inside, if kernel_time { 100 } else { 0 }, "{before} {sent} {times:?}");
    }
}

#[test]
fn an_empty_batch_comes_when_nothing_does() {
    if !namespace(1) {
        return;
    }
    let mut capture = open_one(small().spin(Duration::ZERO));
    let start = Instant::now();
    let batch = capture.with_batch(|batch| batch.len()).expect("no error");
    assert_eq!(batch, Some(0));
    let waited = start.elapsed();
    assert!((Duration::from_millis(15)..Duration::from_secs(2)).contains(&waited), "{waited:?}");
}

#[test]
fn an_interface_that_goes_away_under_load_is_an_error_and_then_the_end() {
    if !namespace(1) {
        return;
    }
    let mut capture = open_one(small());
    let done = AtomicBool::new(false);
    let sender = Sender::new(PEER);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                // Fails from the moment that the interface is gone.
                let _ = sender.send(&frames::udp(1, number, 100));
                number += 1;
            }
        });
        read(&mut capture, 1000);
        ip(&format!("link del {PORT}"));
        let (start, mut error) = (Instant::now(), None);
        while error.is_none() && start.elapsed() < PATIENCE {
            match capture.with_batch(|_| ()) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(found) => error = Some(found),
            }
        }
        done.store(true, Ordering::Relaxed);
        let error = error.expect("an error, in time");
        assert!(matches!(error, CaptureError::Live { .. }));
        let text = error.to_string();
        assert!(text.contains("fscap0: queue 0: no more frames come: Network is down"), "{text}");
    });
    assert!(matches!(capture.with_batch(|_| ()), Ok(None)));
    capture.stop().expect("nothing is left to be stopped");
    let counts = capture.counts().expect("they are still there");
    assert!(counts.offered >= 1000);
    assert_eq!(counts.offered, counts.delivered + counts.dropped_total(), "{counts:?}");
}

/// Set for the child that [`nothing_stays_attached_after_a_kill`] starts.
const CHILD: &str = "FLOWSCOPE_TEST_AF_XDP_CHILD";

#[test]
fn nothing_stays_attached_after_a_kill() {
    if std::env::var_os(CHILD).is_some() {
        let capture = open_one(small());
        println!("\nattached");
        std::thread::sleep(PATIENCE);
        drop(capture);
        return;
    }
    if !namespace(1) {
        return;
    }
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "nothing_stays_attached_after_a_kill", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    let attached = out.lines().map_while(Result::ok).any(|line| line.contains("attached"));
    let before = ip(&format!("-d link show {PORT}"));
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    assert!(attached && before.contains("prog/xdp"), "{before}");
    assert!(before.contains("promiscuity 1"), "a NIC would keep frames to other hosts: {before}");
    let start = Instant::now();
    while ip(&format!("link show {PORT}")).contains("prog/xdp") {
        assert!(start.elapsed() < Duration::from_secs(5), "the program is still attached");
        std::thread::sleep(Duration::from_millis(10));
    }
    let after = ip(&format!("-d link show {PORT}"));
    assert!(after.contains("promiscuity 0"), "{after}");
    // And the queue is free again.
    send_and_compare(&mut open_one(small()), &[frames::udp(1, 1, 100)]);
}

#[test]
fn an_interface_is_promiscuous_while_it_is_captured_unless_asked_not_to() {
    if !namespace(2) {
        return;
    }
    let promiscuity = |count: u32| {
        let shown = ip(&format!("-d link show {PORT}"));
        assert!(shown.contains(&format!("promiscuity {count} ")), "{count}: {shown}");
    };
    drop(open(small().promiscuous(false)));
    promiscuity(0);
    let mut captures = open(small());
    assert!(captures[0].description().ends_with(", promiscuous"));
    promiscuity(1);
    captures.pop();
    promiscuity(1);
    captures.clear();
    promiscuity(0);
    let capture = open(small().promiscuous(false));
    promiscuity(0);
    assert!(!capture[0].description().contains("promiscuous"));
}

#[test]
fn everything_but_opening_works_without_rights() {
    if !namespace(1) {
        return;
    }
    let mut capture = open_one(small());
    let sender = Sender::new(PEER);
    drop_capabilities(&(0..=40).collect::<Vec<_>>());
    assert!(refusal(small(), PORT).contains("no CAP_NET_RAW and no CAP_NET_ADMIN and no CAP_BPF"));
    (0..10).for_each(|n| sender.send(&frames::udp(1, n, 100)).expect("sent"));
    assert_eq!(read(&mut capture, 10).len(), 10);
    let (_, counts) = finish(&mut capture);
    assert_eq!((counts.offered, counts.delivered), (10, 10));
    drop(capture);
    assert!(!ip(&format!("link show {PORT}")).contains("prog/xdp"), "it is still attached");
}

#[test]
fn what_cannot_be_opened_is_refused_with_a_reason_and_a_way_out() {
    if !namespace(2) {
        return;
    }
    let says = |text: &str, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in: {text}"));
        assert!(!ip(&format!("link show {PORT}")).contains("prog/xdp"), "something was attached");
    };
    says(&refusal(small(), "fsnone"), &["fsnone: no such interface: No such device", "ip link"]);
    says(
        &refusal(small().queues(&[0, 7]), PORT),
        &["queue 7 is asked for: the interface receives on queues 0 to 1"],
    );
    says(&refusal(small(), "lo"), &["lo: AF_XDP reads Ethernet frames", "AF_PACKET"]);
    says(
        &refusal(small().mode(Mode::ZeroCopy), PORT),
        &["queue 0, without a copy", "not supported", "native mode"],
    );

    ip(&format!("addr add 192.0.2.1/24 dev {PORT}"));
    says(&refusal(small(), PORT), &["it has the address 192.0.2.1;", "take_traffic", "AF_PACKET"]);
    drop(open(small().take_traffic(true)));
    ip(&format!("addr del 192.0.2.1/24 dev {PORT}"));

    let first = open(small());
    let text = refusal(small(), PORT);
    assert!(text.contains("another one is attached already, number "), "{text}");
    drop(first);

    // In threads, which keep what they lose to themselves.
    let without = |bits: &'static [u32], builder: Builder| {
        let thread = std::thread::spawn(move || {
            drop_capabilities(bits);
            refusal(builder, PORT)
        });
        thread.join().expect("a refusal")
    };
    const NET_ADMIN: u32 = 12;
    const NET_RAW: u32 = 13;
    const IPC_LOCK: u32 = 14;
    const SYS_ADMIN: u32 = 21;
    const BPF: u32 = 39;
    says(&without(&[NET_RAW], small()), &["this process has no CAP_NET_RAW;"]);
    says(&without(&[NET_ADMIN], small()), &["this process has no CAP_NET_ADMIN;"]);
    says(&without(&[SYS_ADMIN, BPF], small()), &["this process has no CAP_BPF;", "setcap"]);
    let large = Config::builder().frames(1 << 20);
    says(&without(&[IPC_LOCK], large), &["2048 MiB of memory", "RLIMIT_MEMLOCK", "CAP_IPC_LOCK"]);
}

#[test]
fn a_queue_that_another_socket_has_is_busy_for_a_second_and_then_refused() {
    if !namespace(1) {
        return;
    }
    let frames = 64.try_into().expect("not zero");
    let (umem, _) = Umem::new(UmemConfig::default(), frames, false).expect("memory");
    let socket = SocketConfig::builder()
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .build();
    let name = PORT.parse().expect("a name");
    // SAFETY: nothing else is bound to the queue, and no program is loaded with it.
    let other = unsafe { Socket::new(socket, &umem, &name, 0) }.expect("a socket");
    let start = Instant::now();
    let text = refusal(small(), PORT);
    let waited = start.elapsed();
    assert!(text.contains("queue 0, natively: Device or resource busy"), "{text}");
    assert!(text.contains("another AF_XDP socket has the queue"), "{text}");
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    // One that is given free in time is no obstacle.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            // The memory has a descriptor of the first socket.
            drop((other, umem));
        });
        let mut capture = open_one(small());
        send_and_compare(&mut capture, &[frames::udp(1, 1, 100)]);
    });
}
