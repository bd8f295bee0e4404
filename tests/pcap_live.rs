//! libpcap on real interfaces: veth pairs in namespaces of the tests' own.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;
#[path = "support/suite.rs"]
mod suite;
#[path = "support/tun.rs"]
mod tun;
#[path = "support/wire.rs"]
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowscope::capture::Capture;
use flowscope::capture::filter::Filter;
use flowscope::capture::live::LiveCapture;
use flowscope::capture::pcap_live::{Builder, Config, PcapLive};
use flowscope::{Frame, LinkType, Timestamp};

use net::{PEER, PORT, Sender, drop_capabilities, ip, namespace};
use suite::{finish, read};
use tun::Tun;

/// 16 MiB, in blocks of 256 KiB. A block is taken when its time is over, however little is in it.
fn small() -> Builder {
    Config::builder().buffer_bytes(16 << 20).wait(Duration::from_millis(20))
}

/// The least that can be: four blocks.
fn tiny() -> Builder {
    small().buffer_bytes(1 << 20).retire(Duration::from_millis(2))
}

fn open(builder: Builder) -> PcapLive {
    let config = builder.build().expect("a valid configuration");
    PcapLive::open(PORT, suite::ID, &config).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(builder: Builder, name: &str) -> String {
    let config = builder.build().expect("a valid configuration");
    match PcapLive::open(name, 0, &config) {
        Ok(_) => panic!("{name} was opened"),
        Err(error) => error.to_string(),
    }
}

fn filtered(expression: &str) -> Builder {
    small().filter(Some(expression.to_owned()))
}

#[test]
fn every_frame_of_the_captures_arrives_byte_for_byte() {
    if namespace(1) {
        suite::every_frame_of_the_captures_arrives(open(small()));
    }
}

#[test]
fn tags_of_every_kind_are_where_they_were() {
    if namespace(1) {
        suite::tags_are_where_they_were(open(small()));
    }
}

#[test]
fn more_than_can_be_taken_is_counted_to_the_frame() {
    if namespace(1) {
        suite::more_than_can_be_taken_is_counted(open(tiny()), 40_000, 200);
    }
}

#[test]
fn the_ledger_balances_when_it_is_stopped_under_load() {
    if namespace(1) {
        suite::it_balances_when_stopped_under_load(open(tiny()));
    }
}

#[test]
fn what_the_host_sends_is_not_captured_and_what_comes_it_still_gets() {
    if namespace(1) {
        let config = small().build().expect("valid");
        suite::only_what_comes_is_captured(|name| {
            PcapLive::open(name, suite::ID, &config).expect("an interface")
        });
    }
}

#[test]
fn a_frame_has_the_time_at_which_it_came() {
    if namespace(1) {
        suite::frames_have_the_time_at_which_they_came(open(small()));
    }
}

#[test]
fn an_empty_batch_comes_when_nothing_does() {
    if namespace(1) {
        suite::an_empty_batch_comes_when_nothing_does(open(small()));
    }
}

#[test]
fn an_interface_that_goes_away_under_load_is_an_error_and_then_the_end() {
    for command in [format!("link del {PORT}"), format!("link set {PORT} down")] {
        if !namespace(1) {
            return;
        }
        let capture = open(small());
        suite::an_interface_that_goes_away_is_an_error_and_then_the_end(capture, &command);
    }
}

#[test]
fn frames_that_come_while_it_is_opened_are_neither_offered_nor_delivered() {
    if !namespace(1) {
        return;
    }
    let done = AtomicBool::new(false);
    let sender = Sender::new(PEER);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sender.send(&wire::udp(1, 0, 100)).expect("sent");
            }
        });
        for _ in 0..5 {
            let mut capture = open(tiny());
            let mut read = suite::read(&mut capture, 100).len() as u64;
            let (left, counts) = finish(&mut capture);
            read += left as u64;
            assert_eq!(counts.delivered, read, "{counts:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_long_frame_comes_whole_or_cut_as_asked() {
    if !namespace(1) {
        return;
    }
    for name in [PORT, PEER] {
        ip(&format!("link set {name} mtu 9000"));
    }
    let lengths = [60, 1514, 4096, 9014].into_iter().cycle().take(400);
    let frames: Vec<_> = lengths.enumerate().map(|(n, len)| wire::udp(7, n as u32, len)).collect();
    let mut capture = open(small());
    suite::send_and_compare(&mut capture, &frames);
    assert_eq!(finish(&mut capture).1.offered, 400);

    let mut capture = open(small().frame_bytes(96));
    let sender = Sender::new(PEER);
    let tagged = wire::tagged(wire::udp(7, 1, 9000), &[[0x81, 0, 0, 7]]);
    for frame in [&frames[0], &frames[3], &tagged] {
        sender.send(frame).expect("sent");
    }
    let got = read(&mut capture, 3);
    for (sent, (data, wire_len)) in [&frames[0], &frames[3], &tagged].into_iter().zip(&got) {
        assert_eq!(*wire_len as usize, sent.len());
        assert_eq!(data[..], sent[..sent.len().min(96)]);
    }
    assert_eq!(finish(&mut capture).1.delivered, 3);
}

#[test]
fn a_filter_in_the_kernel_means_what_it_means_on_a_file() {
    if !namespace(1) {
        return;
    }
    let mut frames = suite::of_captures();
    frames.extend(suite::of_every_tag());
    let sender = Sender::new(PEER);
    for (expression, _) in suite::EXPRESSIONS {
        let filter = Filter::compile(expression).expect("it compiles");
        let wanted: Vec<_> =
            frames.iter().filter(|frame| filter.matches(&ethernet(frame))).collect();
        let mut capture = open(filtered(expression));
        assert!(capture.description().contains("filter of "), "{}", capture.description());
        let mut got = Vec::new();
        for piece in frames.chunks(1000) {
            piece.iter().for_each(|frame| sender.send(frame).expect("sent"));
            let wanted = piece.iter().filter(|frame| filter.matches(&ethernet(frame))).count();
            got.extend(read(&mut capture, wanted));
        }
        let (left, counts) = finish(&mut capture);
        assert_eq!(left, 0, "{expression}");
        assert_eq!(got.len(), wanted.len(), "{expression}");
        let same = got.iter().zip(&wanted).all(|((got, _), wanted)| got == *wanted);
        assert!(same, "{expression}: other frames");
        assert_eq!(counts.offered, wanted.len() as u64, "{expression}");
    }
}

fn ethernet(data: &[u8]) -> Frame<'_> {
    let wire_len = data.len() as u32;
    Frame { ts: Timestamp::ZERO, wire_len, link: LinkType::ETHERNET, interface: 0, data }
}

#[test]
fn what_the_kernel_lets_through_and_the_filter_does_not_is_not_offered() {
    if !namespace(1) {
        return;
    }
    // Of a tagged frame the kernel does not know the length.
    let mut capture = open(filtered("greater 150"));
    let sender = Sender::new(PEER);
    let tag = [0x81, 0, 0, 7];
    for number in 0..300 {
        sender.send(&wire::tagged(wire::udp(1, number, 100), &[tag])).expect("sent");
        sender.send(&wire::udp(1, number, 100)).expect("sent");
    }
    // 150 with its tag.
    sender.send(&wire::tagged(wire::udp(1, 1, 146), &[tag])).expect("sent");
    let got = read(&mut capture, 1);
    assert_eq!(got[0].1, 150);
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered, counts.delivered), (0, 1, 1));
}

#[test]
fn the_loopback_interface_gives_each_frame_once() {
    if !namespace(1) {
        return;
    }
    ip("link set lo up");
    let config = small().build().expect("valid");
    let mut capture = PcapLive::open("lo", suite::ID, &config).expect("it opens");
    let sender = Sender::new("lo");
    (0..10).for_each(|n| sender.send(&wire::udp(1, n, 100)).expect("sent"));
    assert_eq!(read(&mut capture, 10).len(), 10);
    let (left, counts) = finish(&mut capture);
    assert_eq!((left, counts.offered, counts.delivered), (0, 10, 10));
}

#[test]
fn interfaces_without_ethernet_are_read_and_filtered_where_that_can_be() {
    // What frames begin with, and how many bytes come before their IP header.
    let cases = [
        (tun::NONE, LinkType::RAW, 0, "filter of "),
        (tun::PPP, LinkType::LINUX_SLL, 16, "filter in user space"),
    ];
    for (hardware, link, header, where_filtered) in cases {
        if !namespace(1) {
            return;
        }
        let mut tun = match Tun::new("fstun0", hardware) {
            Ok(tun) => tun,
            Err(error) => return net::skip(&format!("no tun device can be made: {error}")),
        };
        let config = filtered("udp and greater 100").build().expect("valid");
        let mut capture = PcapLive::open("fstun0", suite::ID, &config).expect("it opens");
        assert_eq!(capture.link(), link);
        let description = capture.description();
        assert!(description.contains(where_filtered), "{description}");
        let packet = |number, bytes| wire::udp(1, number, bytes)[14..].to_vec();
        for number in 0..300 {
            let mut tcp = packet(number, 200);
            tcp[9] = 6;
            tun.receive(&tcp);
            tun.receive(&packet(number, 60));
            tun.receive(&packet(number, 200));
        }
        let mut got = Vec::new();
        let start = Instant::now();
        while got.len() < 300 && start.elapsed() < suite::PATIENCE {
            let batch = capture.with_batch(|batch| {
                got.extend(batch.iter().map(|f| (f.link, f.wire_len, f.data.to_vec())));
            });
            batch.expect("no error").expect("not the end");
        }
        for (number, (found, wire_len, data)) in got.iter().enumerate() {
            assert_eq!((*found, *wire_len as usize), (link, header + 186));
            assert_eq!(data[header..], packet(number as u32, 200));
        }
        let (left, counts) = finish(&mut capture);
        assert_eq!((left, counts.offered, counts.delivered), (0, 300, 300), "{link}");
    }
}

#[test]
fn everything_but_opening_works_without_rights() {
    if !namespace(1) {
        return;
    }
    let capture = open(small());
    let sender = Sender::new(PEER);
    drop_capabilities(&(0..=40).collect::<Vec<_>>());
    let text = refusal(small(), PORT);
    assert!(text.contains("libpcap needs CAP_NET_RAW") && text.contains("setcap"), "{text}");
    suite::everything_but_opening_works_without_rights(capture, &sender);
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
    says(&refusal(small(), "a234567890123456"), &["no such interface"]);
    // Before the interface is looked for.
    says(&refusal(filtered("tcp prot 80"), "fsnone"), &["tcp prot 80", "does not compile"]);
    let start = Instant::now();
    says(&refusal(filtered(&"udp or ".repeat(3000)), "fsnone"), &["at most 16384"]);
    assert!(start.elapsed() < Duration::from_secs(1));
    ip(&format!("link set {PORT} down"));
    says(&refusal(small(), PORT), &["not up", "set the interface up first"]);
}
