//! AF_PACKET on real interfaces: veth pairs in namespaces of the tests' own.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;
#[cfg(feature = "sensor")]
#[path = "support/rss.rs"]
mod rss;
#[path = "support/suite.rs"]
mod suite;
#[path = "support/wire.rs"]
mod wire;

#[cfg(feature = "sensor")]
#[path = "af_packet/fanout.rs"]
mod fanout;

use std::process::Command;
use std::time::Duration;

use flowscope::capture::Capture;
use flowscope::capture::af_packet::{
    AfPacket, Builder, Config, Fanout, FanoutMode, Instruction, Times,
};
use flowscope::capture::live::LiveCapture;

use net::{PEER, PORT, Sender, drop_capabilities, ip, namespace};
use suite::{finish, read};

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
    AfPacket::open(PORT, suite::ID, &config).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(builder: Builder, name: &str) -> String {
    let config = builder.build().expect("a valid configuration");
    match AfPacket::open(name, 0, &config) {
        Ok(_) => panic!("{name} was opened"),
        Err(error) => error.to_string(),
    }
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
        suite::more_than_can_be_taken_is_counted(open(tiny()), 20_000, 200);
    }
}

#[test]
fn the_ledger_balances_when_it_is_stopped_under_load() {
    if namespace(1) {
        suite::it_balances_when_stopped_under_load(open(tiny()));
    }
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

#[cfg(feature = "pcap-live")]
#[test]
fn an_expression_in_the_kernel_means_what_it_means_on_a_file() {
    use flowscope::capture::filter::Filter;
    use flowscope::{Frame, LinkType, Timestamp};

    if !namespace(1) {
        return;
    }
    let mut frames = suite::of_captures();
    frames.extend(suite::of_every_tag());
    // The last frame of each piece, which every filter lets through.
    let last = {
        let mut frame = wire::udp(9, 9, 60);
        frame[12..14].copy_from_slice(&[0x99, 0x99]);
        frame
    };
    let sender = Sender::new(PEER);
    for (expression, is_exact) in suite::EXPRESSIONS {
        // First, for behind `vlan` it would be looked for four bytes further.
        let expression = format!("ether proto 0x9999 or ({expression})");
        let filter = Filter::compile(&expression).expect("it compiles");
        let wanted = |data: &Vec<u8>| {
            let (wire_len, link) = (data.len() as u32, LinkType::ETHERNET);
            filter.matches(&Frame { ts: Timestamp::ZERO, wire_len, link, interface: 0, data })
        };
        assert!(wanted(&last), "{expression}");
        let program = filter.in_kernel(LinkType::ETHERNET).expect("a program");
        let mut capture = open(small().filter(program));
        let mut got = 0;
        for piece in frames.chunks(1000) {
            piece.iter().chain([&last]).for_each(|frame| sender.send(frame).expect("sent"));
            let mut came = Vec::new();
            while came.last().is_none_or(|(frame, _)| *frame != last) {
                let more = read(&mut capture, 1);
                assert!(!more.is_empty(), "{expression}: frames are missing");
                came.extend(more);
            }
            came.pop();
            got += came.len();
            let came: Vec<_> = came.into_iter().map(|(frame, _)| frame).collect();
            let of_those = came.iter().filter(|frame| wanted(frame));
            assert!(of_those.eq(piece.iter().filter(|frame| wanted(frame))), "{expression}");
            assert!(!is_exact || came.iter().all(wanted), "{expression}: more than that");
        }
        assert!(got < frames.len(), "{expression}: nothing was refused");
        assert_eq!(finish(&mut capture).0, 0, "{expression}");
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
    if namespace(1) {
        let config = small().build().expect("valid");
        suite::only_what_comes_is_captured(|name| {
            AfPacket::open(name, suite::ID, &config).expect("an interface")
        });
    }
}

#[test]
fn a_frame_has_the_time_at_which_it_came() {
    if namespace(1) {
        suite::frames_have_the_time_at_which_they_came(open(small()));
    }
}

/// Whose NICs stamp frames is not to be had here: what they do is tested on blocks and on made-up NICs.
#[test]
fn the_times_of_a_nic_that_is_none_are_refused_and_nothing_is_left_open() {
    if !namespace(1) {
        return;
    }
    let text = refusal(small().times(Times::Hardware), PORT);
    assert_eq!(
        text,
        "fscap0: the NIC's own time is asked for, of every frame: it has no NIC that stamps what it receives; \
         take the kernel's time; `ethtool -T fscap0` shows what a NIC can (receive filter modes: all)"
    );
    assert!(ip(&format!("-d link show {PORT}")).contains("promiscuity 0 "), "a socket was left");
    let mut capture = open(small().times(Times::Kernel));
    assert!(!capture.description().contains("the NIC's own times"));
    Sender::new(PEER).send(&wire::udp(1, 1, 100)).expect("sent");
    assert_eq!(read(&mut capture, 1).len(), 1);
    // It was asked for the kernel's.
    assert_eq!((capture.without_hardware_time(), capture.remark()), (0, None));
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
fn each_flow_is_on_one_socket_of_a_group_in_both_directions() {
    if !namespace(1) {
        return;
    }
    let fanout = Some(Fanout { group: 7, mode: FanoutMode::Hash });
    let builder = || small().wait(Duration::ZERO).fanout(fanout);
    let mut captures = [open(builder()), open(builder())];
    assert!(captures[0].description().contains("fanout group 7 by hash"));
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
    let capture = open(small());
    let sender = Sender::new(PEER);
    drop_capabilities(&(0..=40).collect::<Vec<_>>());
    let text = refusal(small(), PORT);
    assert!(text.contains("AF_PACKET needs CAP_NET_RAW") && text.contains("setcap"), "{text}");
    suite::everything_but_opening_works_without_rights(capture, &sender);
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
        &["joining fanout group 7 by cpu: Invalid argument", "choose another number"],
    );
    drop(first);
    drop(open(by(FanoutMode::Cpu)));
    drop(open(by(FanoutMode::Qm)));

    ip(&format!("link set {PORT} down"));
    says(&refusal(small(), PORT), &["Network is down", "set the interface up first"]);
}
