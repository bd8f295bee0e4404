//! AF_PACKET on real interfaces: veth pairs in namespaces of the tests' own.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;
#[path = "support/wire.rs"]
mod wire;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowscope::LinkType;
use flowscope::capture::af_packet::{AfPacket, Builder, Config, Fanout, FanoutMode, Instruction};
use flowscope::capture::live::{DropReason, LiveCapture, QueueCounts};
use flowscope::capture::{BATCH_FRAMES_MAX, Capture, CaptureError};

use net::{PEER, PORT, Sender, drop_capabilities, ip, namespace};

/// No test waits longer for frames that do not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes IPv4 without a tag and UDP; what it takes, to `bytes_max`.
fn only_udp(bytes_max: u32) -> Vec<Instruction> {
    let program = [
        (0x28, 0, 0, 12),
        (0x15, 0, 3, 0x800),
        (0x30, 0, 0, 23),
        (0x15, 0, 1, 17),
        (0x06, 0, 0, bytes_max),
        (0x06, 0, 0, 0),
    ];
    program.map(|(code, jt, jf, k)| Instruction { code, jt, jf, k }).to_vec()
}

/// 16 MiB. A block that is given after its time is taken, however little is in it: 64 times 10 ms is how long a test may be
/// off its core between two reads.
fn small() -> Builder {
    Config::builder().block_bytes(256 * 1024).blocks(64).wait(Duration::from_millis(20))
}

/// The least that can be: two blocks of 64 KiB.
fn tiny() -> Builder {
    small().block_bytes(64 * 1024).blocks(2).retire(Duration::from_millis(2))
}

fn open(builder: Builder) -> AfPacket {
    let config = builder.build().expect("a valid configuration");
    AfPacket::open(PORT, 3, &config).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(builder: Builder, name: &str) -> String {
    let config = builder.build().expect("a valid configuration");
    match AfPacket::open(name, 0, &config) {
        Ok(_) => panic!("{name} was opened"),
        Err(error) => error.to_string(),
    }
}

/// Reads until `frames` came, in order: their bytes, and their lengths on the wire.
fn read(capture: &mut AfPacket, frames: usize) -> Vec<(Vec<u8>, u32)> {
    let (start, mut got) = (Instant::now(), Vec::new());
    while got.len() < frames && start.elapsed() < PATIENCE {
        let batch = capture.with_batch(|batch| {
            assert!(batch.len() <= BATCH_FRAMES_MAX);
            for frame in batch {
                assert_eq!((frame.interface, frame.link), (3, LinkType::ETHERNET));
                got.push((frame.data.to_vec(), frame.wire_len));
            }
        });
        assert!(batch.expect("no error").is_some(), "the capture ended by itself");
    }
    got
}

/// Stops it and takes what is left; the counts are final then.
fn finish(capture: &mut AfPacket) -> (usize, QueueCounts) {
    capture.stop().expect("it stops");
    let mut left = 0;
    while capture.with_batch(|batch| left += batch.len()).expect("no error").is_some() {}
    assert!(matches!(capture.with_batch(|_| ()), Ok(None)), "the end is the end");
    let counts = capture.counts().expect("counts");
    balanced(&counts);
    (left, counts)
}

/// Every frame is accounted for, and those that were dropped were so for want of room.
fn balanced(counts: &QueueCounts) {
    assert_eq!(counts.offered, counts.delivered + counts.dropped_total(), "{counts:?}");
    assert_eq!(counts.dropped[DropReason::RingFull as usize], counts.dropped_total(), "{counts:?}");
}

/// Sends all of `frames` and reads them again.
fn send_and_compare(capture: &mut AfPacket, frames: &[Vec<u8>]) {
    let sender = Sender::new(PEER);
    for (piece, sent) in frames.chunks(1000).enumerate() {
        for frame in sent {
            sender.send(frame).unwrap_or_else(|error| panic!("{} bytes: {error}", frame.len()));
        }
        let got = read(capture, sent.len());
        assert_eq!(got.len(), sent.len(), "piece {piece}: frames are missing");
        for (index, (sent, (got, wire_len))) in sent.iter().zip(&got).enumerate() {
            assert!(sent == got, "piece {piece}, frame {index}: {sent:02x?} came as {got:02x?}");
            assert_eq!(sent.len(), *wire_len as usize, "piece {piece}, frame {index}");
        }
    }
}

/// A frame with tags of these types between addresses and type.
fn tagged(mut frame: Vec<u8>, tags: &[[u8; 4]]) -> Vec<u8> {
    frame.splice(12..12, tags.concat());
    frame
}

#[test]
fn every_frame_of_the_captures_arrives_byte_for_byte() {
    if !namespace(1) {
        return;
    }
    let mut capture = open(small());
    let mut frames = wire::of_captures(1514);
    let with_tag = |frame: &Vec<u8>| frame[12..14] == [0x81, 0] || frame[12..14] == [0x88, 0xa8];
    // The kernel throws away what ends within a tag, or right behind it.
    frames.retain(|frame| !with_tag(frame) || frame.len() >= 20);
    let tags = frames.iter().filter(|frame| with_tag(frame)).count();
    assert!(tags > 10 || std::env::var_os("CI").is_none(), "only {tags} frames with a tag");
    send_and_compare(&mut capture, &frames);
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered), (0, frames.len() as u64));
    assert_eq!((counts.delivered, counts.dropped_total()), (counts.offered, 0));
    eprintln!("{} frames, {tags} with a tag", frames.len());
}

#[test]
fn tags_of_every_kind_are_where_they_were() {
    if !namespace(1) {
        return;
    }
    let (c, s) = ([0x81, 0, 0xef, 0xff], [0x88, 0xa8, 0x20, 0x07]);
    let zero = [0x81, 0, 0, 0];
    let tags: [&[[u8; 4]]; 6] = [&[c], &[s], &[zero], &[s, c], &[c, c], &[s, c, zero]];
    let all = (0..600).map(|n| match tags.get(n % 7) {
        Some(tags) => tagged(wire::udp(7, n as u32, 46 + n), tags),
        None => wire::udp(7, n as u32, 46 + n),
    });
    let mut capture = open(small());
    send_and_compare(&mut capture, &all.collect::<Vec<_>>());
    assert_eq!(finish(&mut capture).1.offered, 600);
}

#[test]
fn more_than_can_be_taken_is_counted_to_the_frame() {
    if !namespace(1) {
        return;
    }
    let mut capture = open(tiny());
    let sender = Sender::new(PEER);
    let sent = 20_000u64;
    for number in 0..sent {
        sender.send(&wire::udp(1, number as u32, 200)).expect("sent");
        // A slow reader: one batch for thousands of frames.
        if number % 2000 == 1999 {
            capture.with_batch(|_| ()).expect("no error");
        }
    }
    let running = capture.counts().expect("counts");
    assert!(running.offered == sent && running.underway() > 0, "{running:?}");
    let (left, counts) = finish(&mut capture);
    assert_eq!(counts.offered, sent, "{counts:?}");
    assert!(counts.dropped_total() > 0 && left > 0, "{counts:?}");
    assert_eq!(counts.delivered, running.delivered + left as u64);
    eprintln!("{counts:?}");
}

#[test]
fn the_ledger_balances_when_it_is_stopped_under_load() {
    if !namespace(1) {
        return;
    }
    let mut capture = open(tiny());
    let done = AtomicBool::new(false);
    let sender = Sender::new(PEER);
    let (read, counts, sent) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0u64;
            while !done.load(Ordering::Relaxed) {
                sent += u64::from(sender.send(&wire::udp(1, sent as u32, 100)).is_ok());
            }
            sent
        });
        let (start, mut read, mut last) = (Instant::now(), 0, None);
        // Round and round the ring: what comes, comes once and in order.
        let mut take = |batch: &[flowscope::Frame<'_>]| {
            for frame in batch {
                let number = frame.data[42..46].try_into().map(u32::from_be_bytes).expect("four");
                assert_eq!(frame.data, wire::udp(1, number, 100));
                assert!(last < Some(number), "{number} after {last:?}");
                last = Some(number);
            }
            batch.len()
        };
        while start.elapsed() < Duration::from_millis(500) {
            read += capture.with_batch(&mut take).expect("no error").expect("not the end");
        }
        capture.stop().expect("it stops");
        while let Some(more) = capture.with_batch(&mut take).expect("no error") {
            read += more;
        }
        let (left, counts) = finish(&mut capture);
        assert_eq!(left, 0);
        // Frames still come, and are none of ours.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(capture.counts().expect("counts"), counts, "what is final does not change");
        done.store(true, Ordering::Relaxed);
        (read as u64, counts, sending.join().expect("the sender"))
    });
    assert_eq!(counts.delivered, read);
    assert!(read > 1000 && sent > counts.offered, "{sent} sent, {counts:?}");
    eprintln!("{sent} sent, {counts:?}");
}

#[test]
fn a_filter_says_in_the_kernel_what_is_meant_for_us_and_how_much_of_it() {
    if !namespace(1) {
        return;
    }
    let sender = Sender::new(PEER);
    for (bytes_max, bytes) in [(u32::MAX, 200), (96, 96)] {
        let mut capture = open(small().filter(only_udp(bytes_max)));
        for number in 0..50 {
            let udp = wire::udp(1, number, 200);
            let mut tcp = udp.clone();
            tcp[23] = 6;
            sender.send(&tcp).expect("sent");
            sender.send(&udp).expect("sent");
        }
        let got = read(&mut capture, 50);
        for (number, (data, wire_len)) in got.iter().enumerate() {
            assert_eq!((*wire_len, &data[..]), (200, &wire::udp(1, number as u32, 200)[..bytes]));
        }
        let (left, counts) = finish(&mut capture);
        assert_eq!((left, counts.offered, counts.delivered), (0, 50, 50));
    }
}

#[test]
fn a_frame_longer_than_a_block_is_cut_and_keeps_its_length_on_the_wire() {
    if !namespace(1) {
        return;
    }
    for name in [PORT, PEER] {
        ip(&format!("link set {name} mtu 65535"));
    }
    let mut capture = open(tiny());
    let frame = wire::udp(1, 1, 65_534);
    Sender::new(PEER).send(&frame).expect("sent");
    let got = read(&mut capture, 1);
    let [(data, wire_len)] = &got[..] else { panic!("{} frames", got.len()) };
    assert_eq!(*wire_len, 65_534);
    assert!(data.len() > 65_000 && data.len() < 65_534, "{}", data.len());
    assert!(frame.starts_with(data));
    assert_eq!(finish(&mut capture).1.delivered, 1);
}

#[test]
fn what_the_host_sends_is_not_captured_and_what_comes_it_still_gets() {
    if !namespace(1) {
        return;
    }
    ip(&format!("addr add 192.0.2.1/24 dev {PORT}"));
    let mut capture = open(small());
    // Its answer to the question who has its address goes out of the port.
    let mut question = vec![0xff; 6];
    question.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    question.extend([2, 0, 0, 0, 0, 9, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    let config = small().build().expect("valid");
    let mut other_end = AfPacket::open(PEER, 3, &config).expect("the other end");
    Sender::new(PEER).send(&question).expect("sent");
    let got = read(&mut capture, 1);
    assert_eq!(got[0].0, question);
    let answer = read(&mut other_end, 1);
    assert_eq!(answer[0].0[20..22], [0, 2], "an answer");
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered), (0, 1), "the answer was captured as well");
}

#[test]
fn a_frame_has_the_time_at_which_it_came() {
    if !namespace(1) {
        return;
    }
    let now =
        || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let mut capture = open(small());
    let sender = Sender::new(PEER);
    let before = now();
    (0..100).for_each(|n| sender.send(&wire::udp(1, n, 100)).expect("sent"));
    let sent = now();
    std::thread::sleep(Duration::from_millis(50));
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 100 && start.elapsed() < PATIENCE {
        capture
            .with_batch(|batch| times.extend(batch.iter().map(|frame| frame.ts.as_nanos())))
            .expect("no error");
    }
    assert!(times.len() == 100 && times.is_sorted(), "{times:?}");
    assert!(before <= times[0] && times[99] <= sent, "{before} {sent} {times:?}");
}

#[test]
fn an_empty_batch_comes_when_nothing_does() {
    if !namespace(1) {
        return;
    }
    let mut capture = open(small());
    let start = Instant::now();
    let batch = capture.with_batch(|batch| batch.len()).expect("no error");
    assert_eq!(batch, Some(0));
    let waited = start.elapsed();
    assert!((Duration::from_millis(15)..Duration::from_secs(2)).contains(&waited), "{waited:?}");
    assert_eq!(finish(&mut capture), (0, QueueCounts::default()));
}

#[test]
fn an_interface_that_goes_away_under_load_is_an_error_and_then_the_end() {
    for command in [format!("link del {PORT}"), format!("link set {PORT} down")] {
        if !namespace(1) {
            return;
        }
        let mut capture = open(small());
        let done = AtomicBool::new(false);
        let sender = Sender::new(PEER);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    // Fails from the moment that the interface is gone.
                    let _ = sender.send(&wire::udp(1, number, 100));
                    number += 1;
                }
            });
            read(&mut capture, 1000);
            ip(&command);
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
            assert!(text.contains("fscap0: no more frames come: Network is down"), "{text}");
        });
        assert!(matches!(capture.with_batch(|_| ()), Ok(None)), "{command}");
        capture.stop().expect("nothing is left to be stopped");
        let counts = capture.counts().expect("they are still there");
        assert!(counts.offered >= 1000);
        balanced(&counts);
    }
}

#[test]
fn each_flow_is_on_one_socket_of_a_group_in_both_directions() {
    if !namespace(1) {
        return;
    }
    let fanout = Some(Fanout { group: 7, mode: FanoutMode::Hash });
    let builder = || small().wait(Duration::ZERO).fanout(fanout);
    let mut captures = [open(builder()), open(builder())];
    assert!(captures[0].description().contains("fanout group 7 by flow"));
    let sender = Sender::new(PEER);
    let (flows, rounds) = (100u16, 30u32);
    let mut seen = vec![Vec::new(); captures.len()];
    let take = |seen: &mut Vec<_>, batch: &[flowscope::Frame<'_>]| {
        for frame in batch {
            let back = frame.data[26..28] == [10, 1];
            let at = if back { 32 } else { 28 };
            seen.push((frame.data[at..at + 2].to_vec(), back));
        }
    };
    for number in 0..rounds {
        for flow in 0..flows {
            let mut frame = wire::udp(flow, number, 80);
            if number % 2 == 1 {
                // Back: addresses and ports change places.
                frame[26..34].rotate_left(4);
                frame[34..38].rotate_left(2);
            }
            sender.send(&frame).expect("sent");
        }
        for (capture, seen) in captures.iter_mut().zip(&mut seen) {
            capture.with_batch(|batch| take(seen, batch)).expect("no error");
        }
    }
    let mut totals = Vec::new();
    for (capture, seen) in captures.iter_mut().zip(&mut seen) {
        capture.stop().expect("it stops");
        while capture.with_batch(|batch| take(seen, batch)).expect("no error").is_some() {}
        totals.push(finish(capture).1);
    }
    let offered: u64 = totals.iter().map(|counts| counts.offered).sum();
    let delivered: u64 = totals.iter().map(|counts| counts.delivered).sum();
    let sent = u64::from(flows) * u64::from(rounds);
    assert_eq!((offered, delivered), (sent, sent), "{totals:?}");
    assert!(totals.iter().all(|counts| counts.offered > sent / 10), "uneven: {totals:?}");
    for flow in 0..flows {
        let id = flow.to_be_bytes().to_vec();
        let on = |back| {
            let has = |seen: &&Vec<_>| seen.contains(&(id.clone(), back));
            (seen.iter().position(|seen| has(&seen)), seen.iter().filter(has).count())
        };
        assert_eq!(on(false), on(true), "flow {flow}: its directions are apart");
        assert_eq!(on(false).1, 1, "flow {flow} is on several sockets");
    }
}

#[test]
fn fragments_come_to_a_group_as_the_datagram_that_they_were() {
    if !namespace(1) {
        return;
    }
    let fanout = Some(Fanout { group: 7, mode: FanoutMode::Hash });
    let mut capture = open(small().fanout(fanout));
    let whole = wire::udp(1, 1, 200);
    let fragment = |from: usize, until: usize, more: bool| {
        let mut frame = [&whole[..34], &whole[34..][from..until]].concat();
        frame[16..18].copy_from_slice(&((20 + until - from) as u16).to_be_bytes());
        let field = (from / 8) as u16 | u16::from(more) << 13;
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        frame
    };
    let sender = Sender::new(PEER);
    for frame in [fragment(80, 166, false), fragment(0, 80, true)] {
        sender.send(&frame).expect("sent");
    }
    let got = read(&mut capture, 1);
    // Its checksum is made anew.
    let rest = |frame: &[u8]| [&frame[..24], &frame[26..]].concat();
    assert_eq!((rest(&got[0].0), got[0].1), (rest(&whole), 200));
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered), (0, 1));
}

#[test]
fn everything_but_opening_works_without_rights() {
    if !namespace(1) {
        return;
    }
    let mut capture = open(small());
    let sender = Sender::new(PEER);
    drop_capabilities(&(0..=40).collect::<Vec<_>>());
    let text = refusal(small(), PORT);
    assert!(text.contains("AF_PACKET needs CAP_NET_RAW") && text.contains("setcap"), "{text}");
    (0..10).for_each(|n| sender.send(&wire::udp(1, n, 100)).expect("sent"));
    assert_eq!(read(&mut capture, 10).len(), 10);
    let (_, counts) = finish(&mut capture);
    assert_eq!((counts.offered, counts.delivered), (10, 10));
}

/// Set for the child that [`a_ring_that_there_is_no_room_for_is_refused`] starts.
const CHILD: &str = "FLOWSCOPE_TEST_AF_PACKET_CHILD";

#[test]
fn a_ring_that_there_is_no_room_for_is_refused() {
    if !namespace(1) {
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        // A limit of the whole process, and so not for one that runs other tests.
        let limit = libc::rlimit { rlim_cur: 256 << 20, rlim_max: 256 << 20 };
        // SAFETY: the limit outlives the call, which only reads it.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        let text = refusal(small().blocks(1024), PORT);
        assert!(text.contains("a ring of 256 MiB (1024 blocks of 256 KiB): Cannot"), "{text}");
        assert!(text.contains("take fewer blocks"), "{text}");
        return;
    }
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_ring_that_there_is_no_room_for_is_refused", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a child");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && !said.contains("SKIPPED"), "{said}");
}

#[test]
fn what_cannot_be_opened_is_refused_with_a_reason_and_a_way_out() {
    if !namespace(1) {
        return;
    }
    let says = |text: &str, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in: {text}"));
    };
    says(&refusal(small(), "fsnone"), &["fsnone: no such interface: No such device", "ip link"]);
    says(&refusal(small(), ""), &["no such interface"]);
    says(&refusal(small(), "fs\0cap"), &["no such interface"]);
    for name in ["a234567890123456", "a2345678901234567890"] {
        says(&refusal(small(), name), &["at most 15 bytes: this one has", "not an altname"]);
    }
    let endless = vec![Instruction { code: 0x28, jt: 0, jf: 0, k: 12 }];
    says(
        &refusal(small().filter(endless), PORT),
        &["attaching a filter of length 1: Invalid argument", "end in a return"],
    );

    let by = |mode| small().fanout(Some(Fanout { group: 7, mode }));
    let first = open(by(FanoutMode::Hash));
    says(
        &refusal(by(FanoutMode::Cpu), PORT),
        &["joining fanout group 7 by processor: Invalid argument", "choose another number"],
    );
    drop(first);
    drop(open(by(FanoutMode::Cpu)));
    drop(open(by(FanoutMode::Qm)));

    ip(&format!("link set {PORT} down"));
    says(&refusal(small(), PORT), &["Network is down", "set the interface up first"]);
}
