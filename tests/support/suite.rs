//! What every live capture of packet sockets promises, whatever it is made of: scenarios that take an opened capture.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowscope::LinkType;
use flowscope::capture::live::{DropReason, LiveCapture, QueueCounts};
use flowscope::capture::{BATCH_FRAMES_MAX, CaptureError};

use crate::net::{PEER, PORT, Sender, ip};
use crate::wire;

/// No test waits longer for frames that do not come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The number that captures of the suite are opened with.
pub const ID: u16 = 3;

/// Filters of every kind of question: of the bytes before the tag, at it and behind it, at fixed places and found ones, of the
/// tag itself, of several tags, of lengths, and the contrary of each. And whether the kernel can answer it alone, which gets frames
/// without their tag.
#[allow(dead_code, reason = "for backends that filter in the kernel")]
pub const EXPRESSIONS: [(&str, bool); 18] = [
    ("udp", true),
    ("not udp", true),
    ("tcp port 80 or udp port 53", true),
    ("not (tcp port 80 or udp port 53)", true),
    ("ip6", true),
    ("not ip and not ip6", true),
    ("ether host 02:00:00:00:00:02", true),
    ("ether proto 0x8100", true),
    ("vlan", true),
    ("not vlan", true),
    ("vlan and udp port 53", true),
    ("vlan 7", true),
    ("vlan and vlan and ip", true),
    ("not (vlan and ip)", true),
    ("greater 100 and udp", false),
    ("less 100", false),
    ("ether[14:2] & 0xfff = 7", true),
    ("ether[14] = 0x45 or tcp[tcpflags] & tcp-syn != 0", false),
];

/// Reads until `frames` came, in order: their bytes, and their lengths on the wire.
pub fn read(capture: &mut impl LiveCapture, frames: usize) -> Vec<(Vec<u8>, u32)> {
    let (start, mut got) = (Instant::now(), Vec::new());
    while got.len() < frames && start.elapsed() < PATIENCE {
        let batch = capture.with_batch(|batch| {
            assert!(batch.len() <= BATCH_FRAMES_MAX);
            for frame in batch {
                assert_eq!((frame.interface, frame.link), (ID, LinkType::ETHERNET));
                got.push((frame.data.to_vec(), frame.wire_len));
            }
        });
        assert!(batch.expect("no error").is_some(), "the capture ended by itself");
    }
    got
}

/// Stops it and takes what is left; the counts are final then.
pub fn finish(capture: &mut impl LiveCapture) -> (usize, QueueCounts) {
    capture.stop().expect("it stops");
    let mut left = 0;
    while capture.with_batch(|batch| left += batch.len()).expect("no error").is_some() {}
    assert!(matches!(capture.with_batch(|_| ()), Ok(None)), "the end is the end");
    let counts = capture.counts().expect("counts");
    balanced(&counts);
    (left, counts)
}

/// Every frame is accounted for, and those that were dropped were so for want of room.
pub fn balanced(counts: &QueueCounts) {
    assert_eq!(counts.offered, counts.delivered + counts.dropped_total(), "{counts:?}");
    assert_eq!(counts.dropped[DropReason::RingFull as usize], counts.dropped_total(), "{counts:?}");
}

/// Sends all of `frames` and reads them again.
pub fn send_and_compare(capture: &mut impl LiveCapture, frames: &[Vec<u8>]) {
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

/// Every frame of the captures that a packet socket gets as it was sent: the kernel throws away what ends within a tag, or
/// right behind it.
pub fn of_captures() -> Vec<Vec<u8>> {
    let mut frames = wire::of_captures(1514);
    let with_tag = |frame: &Vec<u8>| frame[12..14] == [0x81, 0] || frame[12..14] == [0x88, 0xa8];
    frames.retain(|frame| !with_tag(frame) || frame.len() >= 20);
    let tags = frames.iter().filter(|frame| with_tag(frame)).count();
    assert!(tags > 10 || std::env::var_os("CI").is_none(), "only {tags} frames with a tag");
    eprintln!("{} frames, {tags} with a tag", frames.len());
    frames
}

/// 600 frames, with and without tags, of every kind and up to three deep.
pub fn of_every_tag() -> Vec<Vec<u8>> {
    let (c, s) = ([0x81, 0, 0xef, 0xff], [0x88, 0xa8, 0x20, 0x07]);
    let zero = [0x81, 0, 0, 0];
    let tags: [&[[u8; 4]]; 6] = [&[c], &[s], &[zero], &[s, c], &[c, c], &[s, c, zero]];
    let frame = |n: usize| match tags.get(n % 7) {
        Some(tags) => wire::tagged(wire::udp(7, n as u32, 46 + n), tags),
        None => wire::udp(7, n as u32, 46 + n),
    };
    (0..600).map(frame).collect()
}

pub fn every_frame_of_the_captures_arrives(mut capture: impl LiveCapture) {
    let frames = of_captures();
    send_and_compare(&mut capture, &frames);
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered), (0, frames.len() as u64));
    assert_eq!((counts.delivered, counts.dropped_total()), (counts.offered, 0));
}

pub fn tags_are_where_they_were(mut capture: impl LiveCapture) {
    send_and_compare(&mut capture, &of_every_tag());
    assert_eq!(finish(&mut capture).1.offered, 600);
}

/// `capture` has room for far less than `sent` frames of `bytes`.
pub fn more_than_can_be_taken_is_counted(mut capture: impl LiveCapture, sent: u64, bytes: usize) {
    let sender = Sender::new(PEER);
    for number in 0..sent {
        sender.send(&wire::udp(1, number as u32, bytes)).expect("sent");
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

pub fn it_balances_when_stopped_under_load(mut capture: impl LiveCapture) {
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

/// `open` opens whatever interface it is told, in this thread's namespace.
pub fn only_what_comes_is_captured<C: LiveCapture>(open: impl Fn(&str) -> C) {
    ip(&format!("addr add 192.0.2.1/24 dev {PORT}"));
    let mut capture = open(PORT);
    // Its answer to the question who has its address goes out of the port.
    let mut question = vec![0xff; 6];
    question.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    question.extend([2, 0, 0, 0, 0, 9, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    let mut other_end = open(PEER);
    Sender::new(PEER).send(&question).expect("sent");
    let got = read(&mut capture, 1);
    assert_eq!(got[0].0, question);
    let answer = read(&mut other_end, 1);
    assert_eq!(answer[0].0[20..22], [0, 2], "an answer");
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered), (0, 1), "the answer was captured as well");
}

pub fn frames_have_the_time_at_which_they_came(mut capture: impl LiveCapture) {
    let now =
        || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
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
    assert!(times.iter().any(|time| time % 1000 != 0), "microseconds: {times:?}");
}

/// The capture was told to wait 20 ms.
pub fn an_empty_batch_comes_when_nothing_does(mut capture: impl LiveCapture) {
    let start = Instant::now();
    let batch = capture.with_batch(|batch| batch.len()).expect("no error");
    assert_eq!(batch, Some(0));
    let waited = start.elapsed();
    assert!((Duration::from_millis(15)..Duration::from_secs(2)).contains(&waited), "{waited:?}");
    assert_eq!(finish(&mut capture), (0, QueueCounts::default()));
}

/// Takes the interface away by `command`.
pub fn an_interface_that_goes_away_is_an_error_and_then_the_end(
    mut capture: impl LiveCapture,
    command: &str,
) {
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
        ip(command);
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

/// Opened before this thread's rights were dropped.
pub fn everything_but_opening_works_without_rights(mut capture: impl LiveCapture, sender: &Sender) {
    (0..10).for_each(|n| sender.send(&wire::udp(1, n, 100)).expect("sent"));
    assert_eq!(read(&mut capture, 10).len(), 10);
    let (_, counts) = finish(&mut capture);
    assert_eq!((counts.offered, counts.delivered), (10, 10));
}
