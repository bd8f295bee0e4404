//! The binary on real interfaces: veth pairs in namespaces of the tests' own, frames sent into one end, records out.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[allow(dead_code, reason = "shared with the backends' tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;
#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
#[path = "support/run.rs"]
mod run;
#[path = "live/steered.rs"]
mod steered;
#[path = "support/tun.rs"]
mod tun;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use net::{PEER, PORT, Sender, ip, namespace};
use run::{Live, Scratch, flowscope, json, lines, replay, until};

const BACKENDS: [&str; 3] = ["af-xdp", "af-packet", "pcap"];

/// Records without what depends on when frames came, and how many there are of each.
fn records(path: &str) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(path).expect("records");
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let mut record: Value = serde_json::from_str(line).expect("a record is JSON");
        let fields = record.as_object_mut().expect("an object");
        ["start", "end", "duration"].iter().for_each(|name| drop(fields.remove(*name)));
        *counts.entry(record.to_string()).or_default() += 1;
    }
    counts
}

fn replayed(scratch: &Scratch, frames: &[Vec<u8>], more: &[&str]) -> BTreeMap<String, usize> {
    records(&replay(scratch, frames, more))
}

/// Those of the captures, and datagrams of 200 flows of many lengths, every other with a tag: however few flows the captures have.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = wire::of_captures(1514);
    frames.extend((0..200).map(|flow| {
        let datagram = wire::udp(7000 + flow, 0, 60 + usize::from(flow));
        if flow % 2 == 0 { datagram } else { wire::tagged(datagram, &[[0x81, 0, 0, 7]]) }
    }));
    frames
}

fn balanced(summary: &Value) {
    assert_eq!(summary["ledger"]["balanced"], true, "{summary:#}");
}

/// What the queues of a summary add up to: offered, delivered, dropped.
fn sums(summary: &Value) -> (u64, u64, u64) {
    let queues = summary["queues"].as_array().expect("queues");
    let sum = |of: &dyn Fn(&Value) -> u64| queues.iter().map(of).sum::<u64>();
    let dropped = |queue: &Value| {
        let reasons = queue["dropped"].as_object().expect("reasons");
        reasons.values().filter_map(Value::as_u64).sum::<u64>()
    };
    (
        sum(&|queue| queue["offered"].as_u64().unwrap_or(0)),
        sum(&|queue| queue["delivered"].as_u64().unwrap_or(0)),
        sum(&dropped),
    )
}

/// Sends frames to a live run and replays them, both with what `both` says: its summary, and its records, which are those of the
/// replay.
fn live_and_replayed(
    backend: &str,
    frames: &[Vec<u8>],
    both: &[&str],
    of_live: &[&str],
) -> (Value, BTreeMap<String, usize>) {
    let scratch = Scratch::new(&format!("all-{backend}"));
    let (out, sum) = (scratch.path("live.jsonl"), scratch.path("summary.json"));
    let output = format!("jsonl:{out}");
    let mut arguments = vec!["-i", PORT, "--backend", backend, "--output", &output];
    arguments.extend(["--summary", &sum]);
    arguments.extend(both);
    arguments.extend(of_live);
    let live = Live::start(&arguments);
    let sender = Sender::new(PEER);
    for (number, frame) in frames.iter().enumerate() {
        sender.send(frame).expect("sent");
        // Slowly enough for a machine that does other things too.
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{backend}: {messages}");
    let summary = json(&sum);
    balanced(&summary);
    let (found, expected) = (records(&out), replayed(&scratch, frames, both));
    assert!(expected.len() > 100, "only {} kinds of records", expected.len());
    let wrong: Vec<_> = expected.iter().filter(|(line, n)| found.get(*line) != Some(n)).collect();
    assert!(wrong.is_empty() && found.len() == expected.len(), "{backend}: {wrong:#?}");
    (summary, found)
}

#[test]
fn every_frame_of_the_captures_gives_the_records_that_a_replay_gives() {
    let frames = frames();
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let (summary, _) = live_and_replayed(backend, &frames, &[], &[]);
        assert_eq!(sums(&summary), (frames.len() as u64, frames.len() as u64, 0), "{backend}");
    }
}

#[test]
fn a_filter_gives_the_records_of_a_replay_and_runs_in_the_kernel_where_it_can() {
    let frames = frames();
    let all = frames.len() as u64;
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        // The kernel lets tagged frames through, whose lengths it does not know.
        let filter = ["--filter", "not port 80 and (udp or vlan) and greater 100"];
        let (summary, _) = live_and_replayed(backend, &frames, &filter, &[]);
        let (offered, delivered, dropped) = sums(&summary);
        let filtered = summary["frames_filtered"].as_u64().expect("a number");
        assert_eq!((offered, dropped), (delivered, 0), "{backend}");
        let in_user_space = delivered - filtered;
        assert!((1..all).contains(&in_user_space), "{backend}: {in_user_space} are wanted");
        match backend {
            "af-xdp" => assert_eq!(offered, all),
            "pcap" => assert_eq!(filtered, 0),
            _ => assert!(filtered > 0 && offered < all / 2, "{offered} of {all}, {filtered}"),
        }
    }
}

#[test]
fn what_no_other_backend_reads_is_captured_by_libpcap() {
    if !namespace(1) {
        return;
    }
    let mut tun = match tun::Tun::new("fstun0", tun::PPP) {
        Ok(tun) => tun,
        Err(error) => return net::skip(&format!("no tun device can be made: {error}")),
    };
    let scratch = Scratch::new("tun");
    let sum = scratch.path("summary.json");
    let live = Live::start(&["-i", "fstun0", "--summary", &sum]);
    (0..100).for_each(|number| tun.receive(&wire::udp(1, number, 100)[14..]));
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    assert!(messages.contains("libpcap is tried, because AF_PACKET will not do"), "{messages}");
    assert!(messages.contains("fstun0: libpcap, Linux cooked v1"), "{messages}");
    let summary = json(&sum);
    balanced(&summary);
    assert_eq!(summary["packets_tracked"], 100, "{summary:#}");
}

#[test]
fn the_two_directions_of_a_tap_are_one_flow() {
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        ip("link add fscap1 type veth peer name fsgen1");
        ip("link set fscap1 up");
        ip("link set fsgen1 up");
        let scratch = Scratch::new(&format!("tap-{backend}"));
        let (out, sum) = (scratch.path("live.jsonl"), scratch.path("summary.json"));
        let output = format!("jsonl:{out}");
        let live = Live::start(&[
            "-i",
            PORT,
            "-i",
            "fscap1",
            "--backend",
            backend,
            "--output",
            &output,
            "--summary",
            &sum,
        ]);
        let senders = [Sender::new(PEER), Sender::new("fsgen1")];
        for number in 0..50 {
            let request = wire::udp(7, number, 100);
            let mut answer = request.clone();
            // Addresses and ports the other way round.
            answer[26..30].copy_from_slice(&request[30..34]);
            answer[30..34].copy_from_slice(&request[26..30]);
            answer[34..36].copy_from_slice(&request[36..38]);
            answer[36..38].copy_from_slice(&request[34..36]);
            senders[0].send(&request).expect("sent");
            // Who is seen first has opened: a busy machine has both frames waiting by the time it looks.
            std::thread::sleep(Duration::from_millis(if number == 0 { 300 } else { 5 }));
            senders[1].send(&answer).expect("sent");
            std::thread::sleep(Duration::from_millis(5));
        }
        live.signal(libc::SIGINT);
        let (code, messages) = live.end();
        assert_eq!(code, Some(0), "{backend}: {messages}");
        let summary = json(&sum);
        balanced(&summary);
        assert_eq!(summary["queues"].as_array().map(Vec::len), Some(2), "{summary:#}");
        let text = std::fs::read_to_string(&out).expect("records");
        let record: Value = serde_json::from_str(text.trim()).expect("one record");
        assert_eq!(
            (&record["packets_initiator"], &record["packets_responder"]),
            (&50.into(), &50.into())
        );
        assert_eq!(record["dst_port"], 53);
    }
}

/// More than any ring has room for.
const TOO_MANY: u64 = 120_000;

fn send_too_many() {
    let sender = Sender::new(PEER);
    for number in 0..TOO_MANY {
        sender.send(&wire::udp(number as u16 % 100, number as u32, 1400)).expect("sent");
    }
}

/// Ends a run that was sent too many: what it lost is counted, and the rest was tracked.
fn lost_to_the_frame(live: Live, summary: &str) {
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    let summary = json(summary);
    balanced(&summary);
    let (offered, delivered, dropped) = sums(&summary);
    assert_eq!(offered, TOO_MANY, "{summary:#}");
    assert_eq!(offered, delivered + dropped);
    assert!(dropped > 0 && delivered > 0, "{delivered} came, {dropped} did not");
    assert_eq!(summary["packets_tracked"], delivered);
    assert!(messages.contains("LOST (ring_full)"), "{messages}");
}

fn stands_still(backend: &str, more: &[&str]) {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new(&format!("still-{backend}"));
    let sum = scratch.path("summary.json");
    let arguments = ["-i", PORT, "--backend", backend, "--summary", &sum];
    let live = Live::start(&[&arguments[..], more].concat());
    live.signal(libc::SIGSTOP);
    send_too_many();
    live.signal(libc::SIGCONT);
    lost_to_the_frame(live, &sum);
}

#[test]
fn what_a_sensor_that_stood_still_lost_is_counted_to_the_frame() {
    BACKENDS.iter().for_each(|backend| stands_still(backend, &[]));
}

#[test]
fn an_interface_that_is_away_at_the_end_is_told_and_what_came_before_is_kept() {
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let scratch = Scratch::new(&format!("gone-{backend}"));
        let sum = scratch.path("summary.json");
        let live = Live::start(&["-i", PORT, "--backend", backend, "--summary", &sum]);
        let sender = Sender::new(PEER);
        (0..1000).for_each(|number| sender.send(&wire::udp(1, number, 100)).expect("sent"));
        std::thread::sleep(Duration::from_millis(300));
        ip(&format!("link del {PORT}"));
        live.until_said("is away: waiting for it to come back", 1);
        live.signal(libc::SIGTERM);
        let (code, messages) = live.end();
        assert_eq!(code, Some(3), "{backend}: {messages}");
        let summary = json(&sum);
        balanced(&summary);
        assert_eq!(summary["packets_tracked"], 1000, "{backend}");
        assert!(
            summary["errors"][0].as_str().is_some_and(|error| error.contains(PORT)),
            "{summary:#}"
        );
    }
}

/// Sends frames of a flow, the so-manieth of the run, until it is there.
fn watched_again(live: &Live, flow: u16) {
    let created = || {
        let (_, text) = live.page("/metrics");
        let line = text.lines().find(|line| line.contains("flows_created_total{l4=\"udp\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a metric")
    };
    let sender = Sender::new(PEER);
    let mut number = 0;
    until("the flow is tracked", || {
        // Not every one: the other end of the pair may be down.
        let _ = sender.send(&wire::udp(flow, number, 100));
        number += 1;
        std::thread::sleep(Duration::from_millis(5));
        created() >= u64::from(flow)
    });
}

fn comes_back(backend: &str, more: &[&str]) {
    if !namespace(2) {
        return;
    }
    let scratch = Scratch::new(&format!("back-{backend}"));
    let sum = scratch.path("summary.json");
    let arguments = ["-i", PORT, "--backend", backend, "--summary", &sum];
    let live = Live::start(&[&arguments[..], more].concat());
    watched_again(&live, 1);
    // Set down and up, then removed and made anew.
    ip(&format!("link set {PORT} down"));
    live.until_said("was set down", 1);
    ip(&format!("link set {PORT} up"));
    // AF_XDP's sockets stay where they are; the others are opened again.
    live.until_said("was set up", 1);
    watched_again(&live, 2);
    let times = live.text().matches("is watched again").count();
    ip(&format!("link del {PORT}"));
    live.until_said("is gone", 1);
    let queues = "numrxqueues 2 numtxqueues 2";
    ip(&format!("link add {PORT} {queues} type veth peer name {PEER} {queues}"));
    [PORT, PEER].iter().for_each(|name| drop(ip(&format!("link set {name} up"))));
    live.until_said("is watched again", times + 1);
    watched_again(&live, 3);
    ip(&format!("link set {PORT} mtu 1400"));
    live.until_said("MTU was 1500 and is 1400", 1);
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{backend}: {messages}");
    let summary = json(&sum);
    balanced(&summary);
    let (offered, delivered, dropped) = sums(&summary);
    assert_eq!(offered, delivered + dropped, "{backend}");
    assert_eq!(summary["packets_tracked"], delivered, "{backend}");
    assert_eq!(summary["flows"], 3, "{backend}: {summary:#}");
    assert!(summary["errors"].as_array().is_some_and(|errors| errors.len() >= 2), "{summary:#}");
}

#[test]
fn an_interface_that_comes_back_is_watched_again_and_the_counts_go_on() {
    BACKENDS.iter().for_each(|backend| comes_back(backend, &[]));
    // It takes the right to load a program to open a group again.
    comes_back("af-packet", &["--fanout", "ebpf"]);
}

/// How many records a tunnel has that carries many flows, with two workers.
fn records_of_a_tunnel(mode: &str) -> usize {
    let scratch = Scratch::new(&format!("tunnel-{mode}"));
    let (sum, out) = (scratch.path("summary.json"), scratch.path("live.jsonl"));
    let output = format!("jsonl:{out}");
    let arguments = ["-i", PORT, "--backend", "af-packet", "--workers", "2", "--fanout", mode];
    let live = Live::start(&[&arguments[..], &["--output", &output, "--summary", &sum]].concat());
    assert!(live.said(&format!(" by {mode}")), "{}", live.text());
    let sender = Sender::new(PEER);
    for flow in 0..64 {
        let inner = &wire::udp(flow, 0, 100)[14..];
        // IPv4 in GRE.
        let mut frame = wire::udp(1, 0, 46)[..34].to_vec();
        frame[16..18].copy_from_slice(&(24 + inner.len() as u16).to_be_bytes());
        frame[23] = 47;
        frame.extend([0, 0, 8, 0]);
        frame.extend(inner);
        sender.send(&frame).expect("sent");
    }
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    let summary = json(&sum);
    balanced(&summary);
    assert_eq!((sums(&summary), &summary["packets_tracked"]), ((64, 64, 0), &64.into()));
    lines(&out)
}

#[test]
fn a_tunnel_is_one_record_where_our_program_spreads_and_one_of_each_worker_where_the_kernel_does() {
    for (mode, records) in [("ebpf", 1), ("hash", 2)] {
        if !namespace(1) {
            return;
        }
        assert_eq!(records_of_a_tunnel(mode), records, "{mode}");
    }
}

/// Stops one thread of a run, as a debugger does, until it is dropped.
struct Held(i32);

impl Held {
    fn new(live: &Live, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", live.child.id());
        let is_it = |id: &i32| {
            let comm = std::fs::read_to_string(format!("{tasks}/{id}/comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        };
        let mut thread = 0;
        // It may not have begun.
        until("there is a thread of that name", || {
            let ids = std::fs::read_dir(&tasks).expect("threads");
            let mut ids = ids.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
            thread = ids.find(is_it).unwrap_or(0);
            thread != 0
        });
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: these requests read and write no memory; the thread is one of our child's.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, null, null), 0);
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, null, null), 0);
            let mut status = 0;
            assert_eq!(libc::waitpid(thread, &raw mut status, libc::__WALL), thread);
        }
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the request reads and writes no memory.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, null, null) };
    }
}

#[test]
fn a_worker_that_stands_still_is_told_and_systemd_is_told_nothing_until_it_goes_on() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("stalled");
    let path = scratch.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    let told = || {
        let mut bytes = [0; 256];
        let mut all = Vec::new();
        while let Ok(len) = socket.recv(&mut bytes) {
            all.push(String::from_utf8_lossy(&bytes[..len]).trim().to_owned());
        }
        all
    };
    let environment = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "10000000")];
    let live = Live::start_with(&["-i", PORT, "--backend", "af-packet"], &environment);
    let mut all = Vec::new();
    until("systemd is told", || {
        all.extend(told());
        all.iter().any(|text| text == "WATCHDOG=1")
    });
    assert_eq!(all[0], "READY=1", "{all:?}");
    until("it is ready", || live.page("/readyz") == (200, "reading\n".to_owned()));
    let held = Held::new(&live, "worker-0");
    until("it is told", || live.page("/readyz") == (503, "worker 0 stands still\n".to_owned()));
    assert!(live.page("/metrics").1.contains("flowscope_worker_stalled{worker=\"0\"} 1"));
    told();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(told(), Vec::<String>::new());
    drop(held);
    until("it goes on", || live.page("/readyz").0 == 200);
    until("systemd is told", || told().contains(&"WATCHDOG=1".to_owned()));
    assert!(live.page("/metrics").1.contains("flowscope_worker_stalled{worker=\"0\"} 0"));
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    assert!(told().contains(&"STOPPING=1".to_owned()));
}

#[test]
fn a_hangup_goes_on_in_a_new_file_and_no_record_is_lost() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("hangup");
    let (out, moved) = (scratch.path("live.jsonl"), scratch.path("live.jsonl.1"));
    let output = format!("jsonl:{out}");
    let live = Live::start(&["-i", PORT, "--output", &output, "--idle-timeout", "udp=100ms"]);
    let sender = Sender::new(PEER);
    (0..10).for_each(|flow| sender.send(&wire::udp(flow, 0, 100)).expect("sent"));
    until("ten records", || lines(&out) == 10);
    std::fs::rename(&out, &moved).expect("moved");
    live.signal(libc::SIGHUP);
    until("a new file", || Path::new(&out).exists());
    (10..15).for_each(|flow| sender.send(&wire::udp(flow, 0, 100)).expect("sent"));
    until("five records", || lines(&out) == 5);
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    assert_eq!((lines(&moved), lines(&out)), (10, 5));
}

/// The capabilities of a process as the kernel tells them: permitted, effective, bounding.
fn rights(pid: u32) -> [u64; 3] {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    ["CapPrm:", "CapEff:", "CapBnd:"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        u64::from_str_radix(line[name.len()..].trim(), 16).expect("a number")
    })
}

#[test]
fn rights_that_it_does_not_need_are_given_up_and_another_user_may_go_on() {
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    const IPC_LOCK: u64 = 1 << 14;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    for (backend, more, kept) in [
        ("af-packet", &[][..], NET_RAW),
        ("af-packet", &["--workers", "2", "--fanout", "ebpf"], NET_RAW | PERFMON | BPF),
        ("af-xdp", &[], NET_ADMIN | NET_RAW | IPC_LOCK | PERFMON | BPF),
    ] {
        if !namespace(1) {
            return;
        }
        let scratch = Scratch::new(&format!("rights-{backend}"));
        let sum = scratch.path("summary.json");
        let arguments = ["-i", PORT, "--backend", backend, "--user", "nobody", "--summary", &sum];
        let live = Live::start(&[&arguments[..], more].concat());
        assert_eq!(rights(live.child.id()), [kept; 3], "{backend}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", live.child.id()));
        let status = status.expect("its status");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
        // Every thread, not only the first one.
        for thread in std::fs::read_dir(format!("/proc/{}/task", live.child.id())).expect("it") {
            let path = thread.expect("a thread").path().join("status");
            let status = std::fs::read_to_string(path).expect("its status");
            let line = status.lines().find(|line| line.starts_with("CapEff:")).expect("a line");
            assert_eq!(u64::from_str_radix(line[7..].trim(), 16), Ok(kept), "{status}");
        }
        let sender = Sender::new(PEER);
        (0..500).for_each(|number| sender.send(&wire::udp(1, number, 100)).expect("sent"));
        std::thread::sleep(Duration::from_millis(300));
        live.signal(libc::SIGTERM);
        let (code, messages) = live.end();
        assert_eq!(code, Some(0), "{backend}: {messages}");
        let summary = json(&sum);
        balanced(&summary);
        assert_eq!(sums(&summary), (500, 500, 0), "{backend}");
        assert!(!std::fs::read_to_string("/proc/net/dev").expect("it").is_empty());
    }
}

#[test]
fn without_rights_the_missing_capability_is_named() {
    for (backend, named) in
        [("af-packet", "CAP_NET_RAW"), ("af-xdp", "CAP_"), ("auto", "CAP_NET_RAW")]
    {
        if !namespace(1) {
            return;
        }
        let run = Command::new("setpriv")
            .args(["--bounding-set", "-all", "--inh-caps", "-all", "--"])
            .arg(env!("CARGO_BIN_EXE_flowscope"))
            .args(["live", "-i", PORT, "--backend", backend])
            .env_remove("RUST_LOG")
            .output()
            .expect("setpriv, of util-linux");
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{backend}: {message}");
        assert!(message.contains(named), "{backend}: {message}");
    }
}

#[test]
fn busy_polling_is_said_and_loses_no_frame() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("busy-poll");
    let sum = scratch.path("summary.json");
    let live =
        Live::start(&["-i", PORT, "--backend", "af-xdp", "--busy-poll", "70", "--summary", &sum]);
    assert!(live.said(", busy polling for 70 µs, 64 frames at a time"), "{}", live.text());
    let sender = Sender::new(PEER);
    (0..500).for_each(|n| sender.send(&wire::udp(n as u16, n, 100)).expect("sent"));
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    let summary = json(&sum);
    balanced(&summary);
    assert_eq!(sums(&summary), (500, 500, 0));
}

#[test]
fn what_cannot_be_captured_is_refused_by_name() {
    let refusal = |arguments: &[&str]| {
        let run = flowscope(&["live"]).args(arguments).output().expect("it runs");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let (code, message) = refusal(&["-i", "eth9", "-i", "eth9"]);
    assert!(code == Some(2) && message.contains("eth9 is given twice"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--workers", "0"]);
    assert!(code == Some(2) && message.contains("1 to 128"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--filter", "tcp prot 80"]);
    assert!(code == Some(2) && message.contains("tcp prot 80"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--user", "no such user"]);
    assert!(code == Some(2) && message.contains("no such user"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--metrics", "192.0.2.1:9"]);
    assert!(code == Some(1) && message.contains("192.0.2.1:9"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--steer"]);
    assert!(code == Some(2) && message.contains("by --workers N"), "{message}");
    let core = flowscope::sensor::cores::allowed()[0].to_string();
    let (code, message) = refusal(&["-i", "eth9", "--steer", "--workers", "1", "--cores", &core]);
    assert!(code == Some(2) && message.contains("1 of the 2 cores"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--filter", &["port 1"; 200].join(" or ")]);
    assert!(code == Some(2) && message.contains("at most 512 are taken"), "{message}");
    let of_one: [(&[&str], &str, [&str; 3]); 3] = [
        (&["--fanout", "ebpf"], "af-packet", ["auto", "af-xdp", "pcap"]),
        (&["--busy-poll", "50"], "af-xdp", ["auto", "af-packet", "pcap"]),
        (&["--hardware-times"], "af-packet", ["auto", "af-xdp", "pcap"]),
    ];
    for (option, only, others) in of_one {
        for backend in others {
            let (code, message) =
                refusal(&[&["-i", "eth9", "--backend", backend], option].concat());
            let found = format!("{} with --backend {backend}: it is of {only} alone", option[0]);
            assert!(code == Some(2) && message.contains(&found), "{message}");
        }
    }
    let steered = ["-i", "eth9", "--steer", "--workers", "2", "--fanout", "hash"];
    let (code, message) = refusal(&steered);
    assert!(code == Some(2) && message.contains("cannot be used with"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--fanout", "bpf"]);
    assert!(code == Some(2) && message.contains("give hash, ebpf, qm or cpu"), "{message}");
    let times = ["-i", "eth9", "--backend", "af-xdp", "--hardware-times"];
    let (code, message) = refusal(&times);
    assert!(code == Some(2) && message.contains("can neither say which port"), "{message}");
    let lo = ["-i", "lo", "--backend", "af-packet", "--hardware-times"];
    let (code, message) = refusal(&lo);
    assert!(code == Some(1) && message.contains("`ethtool -T lo` shows"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--backend", "af-xdp", "--busy-poll", "0"]);
    assert!(code == Some(2) && message.contains("1..=10000"), "{message}");
    let (code, message) = refusal(&[]);
    assert!(code == Some(2) && message.contains("--interface"), "{message}");
    for backend in ["auto", "af-xdp", "af-packet", "pcap"] {
        let (code, message) = refusal(&["-i", "nosuchport", "--backend", backend]);
        assert!(code == Some(1) && message.contains("nosuchport"), "{backend}: {message}");
    }
    assert!(!Path::new("/sys/class/net/nosuchport").exists());
}
