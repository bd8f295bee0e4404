//! The binary on real interfaces: veth pairs in namespaces of the tests' own, frames sent into one end, records out.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[allow(dead_code, reason = "shared with the backends' tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;
#[path = "support/tun.rs"]
mod tun;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flowscope::capture::write::PcapWriter;
use flowscope::{Frame, LinkType, Timestamp};
use serde_json::Value;

use net::{PEER, PORT, Sender, ip, namespace};

const BACKENDS: [&str; 3] = ["af-xdp", "af-packet", "pcap"];

/// A directory of a test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("flowscope-live-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a name in UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn flowscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowscope"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A live run; killed with the test.
struct Live {
    child: Child,
    messages: Option<JoinHandle<String>>,
}

impl Live {
    /// Starts it, and waits until frames come to it.
    fn start(arguments: &[&str]) -> Self {
        let mut command = flowscope(&["live", "--metrics", "127.0.0.1:0"]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("standard error"));
        let mut text = String::new();
        while !text.contains("serving metrics on") {
            assert_ne!(stderr.read_line(&mut text).expect("a line"), 0, "it ended:\n{text}");
        }
        let messages = std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| text += &(line + "\n"));
            text
        });
        Self { child, messages: Some(messages) }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and was not waited for, so that its number is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end: the exit code, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                break status.code();
            }
            assert!(Instant::now() < deadline, "it did not end in 30 s");
            std::thread::sleep(Duration::from_millis(10));
        };
        let messages = self.messages.take().map(|thread| thread.join().expect("the messages"));
        (code, messages.unwrap_or_default())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("JSON")
}

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
    let (capture, out) = (scratch.path("sent.pcap"), scratch.path("replayed.jsonl"));
    let file = std::fs::File::create(&capture).expect("a file");
    let mut writer =
        PcapWriter::new(std::io::BufWriter::new(file), LinkType::ETHERNET).expect("it");
    for (number, data) in frames.iter().enumerate() {
        let ts = Timestamp::from_nanos(1_700_000_000_000_000_000 + number as u64 * 10_000);
        let wire_len = data.len() as u32;
        let frame = Frame { ts, wire_len, link: LinkType::ETHERNET, interface: 0, data };
        writer.write(&frame).expect("a frame");
    }
    writer.finish().expect("written");
    let output = format!("jsonl:{out}");
    let mut run = flowscope(&["replay", &capture, "--output", &output]);
    let run = run.args(more).output().expect("it runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    records(&out)
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

/// Sends the frames of the captures to a live run, which must have them all: how many they are, its summary, and whether its
/// records are those of a replay.
fn live_and_replayed(backend: &str, frames: &[Vec<u8>], more: &[&str]) -> Value {
    let scratch = Scratch::new(&format!("all-{backend}"));
    let (out, sum) = (scratch.path("live.jsonl"), scratch.path("summary.json"));
    let output = format!("jsonl:{out}");
    let mut arguments = vec!["-i", PORT, "--backend", backend, "--output", &output];
    arguments.extend(["--summary", &sum]);
    arguments.extend(more);
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
    let (found, expected) = (records(&out), replayed(&scratch, frames, more));
    assert!(expected.len() > 100, "only {} kinds of records", expected.len());
    let wrong: Vec<_> = expected.iter().filter(|(line, n)| found.get(*line) != Some(n)).collect();
    assert!(wrong.is_empty() && found.len() == expected.len(), "{backend}: {wrong:#?}");
    summary
}

#[test]
fn every_frame_of_the_captures_gives_the_records_that_a_replay_gives() {
    let frames = wire::of_captures(1514);
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let summary = live_and_replayed(backend, &frames, &[]);
        assert_eq!(sums(&summary), (frames.len() as u64, frames.len() as u64, 0), "{backend}");
    }
}

#[test]
fn a_filter_gives_the_records_of_a_replay_and_runs_in_the_kernel_where_it_can() {
    let frames = wire::of_captures(1514);
    let all = frames.len() as u64;
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        // The kernel lets tagged frames through, whose lengths it does not know.
        let filter = ["--filter", "not port 80 and (udp or vlan) and greater 100"];
        let summary = live_and_replayed(backend, &frames, &filter);
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
            std::thread::sleep(Duration::from_millis(5));
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

#[test]
fn what_a_sensor_that_stood_still_lost_is_counted_to_the_frame() {
    const FRAMES: u64 = 120_000;
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let scratch = Scratch::new(&format!("still-{backend}"));
        let sum = scratch.path("summary.json");
        let live = Live::start(&["-i", PORT, "--backend", backend, "--summary", &sum]);
        let sender = Sender::new(PEER);
        live.signal(libc::SIGSTOP);
        // 1 400 bytes: more than any ring has room for.
        for number in 0..FRAMES {
            sender.send(&wire::udp(number as u16 % 100, number as u32, 1400)).expect("sent");
        }
        live.signal(libc::SIGCONT);
        live.signal(libc::SIGTERM);
        let (code, messages) = live.end();
        assert_eq!(code, Some(0), "{backend}: {messages}");
        let summary = json(&sum);
        balanced(&summary);
        let (offered, delivered, dropped) = sums(&summary);
        assert_eq!(offered, FRAMES, "{backend}: {summary:#}");
        assert_eq!(offered, delivered + dropped, "{backend}");
        assert!(dropped > 0 && delivered > 0, "{backend}: {delivered} came, {dropped} did not");
        assert_eq!(summary["packets_tracked"], delivered);
        assert!(messages.contains("LOST (ring_full)"), "{backend}: {messages}");
    }
}

#[test]
fn an_interface_that_goes_away_ends_the_run_with_code_3() {
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
    let (code, message) = refusal(&["-i", "eth9", "--backend", "pcap", "--workers", "2"]);
    assert!(code == Some(1) && message.contains("one capture for each interface"), "{message}");
    let (code, message) = refusal(&["-i", "eth9", "--filter", &["port 1"; 200].join(" or ")]);
    assert!(code == Some(2) && message.contains("at most 512 are taken"), "{message}");
    let (code, message) = refusal(&[]);
    assert!(code == Some(2) && message.contains("--interface"), "{message}");
    for backend in ["auto", "af-xdp", "af-packet", "pcap"] {
        let (code, message) = refusal(&["-i", "nosuchport", "--backend", backend]);
        assert!(code == Some(1) && message.contains("nosuchport"), "{backend}: {message}");
    }
    assert!(!Path::new("/sys/class/net/nosuchport").exists());
}
