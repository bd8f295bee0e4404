//! The binary with --shunt-above, on veth pairs in namespaces of the tests' own: records are those of a replay.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[allow(dead_code, reason = "shared with the backends' tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;

#[allow(dead_code, reason = "shared with other tests of the binary, which use other parts of it")]
#[path = "support/run.rs"]
mod run;

use std::time::Duration;

use serde_json::Value;

use net::{PEER, PORT, Sender, ip, namespace};
use run::{Live, Scratch, flowscope, json, replay, until};

const FIN: u8 = 0x11;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const PSH: u8 = 0x18;

/// Long enough for a flow to be shunted, on a machine that does other things too.
const A_WHILE: Duration = Duration::from_millis(600);

/// A live run that shunts; killed with the test.
struct Shunts {
    live: Live,
    scratch: Scratch,
}

impl Shunts {
    fn start(above: &str, more: &[&str]) -> Self {
        let scratch = Scratch::new("shunting");
        let (output, summary) =
            (format!("jsonl:{}", scratch.path("live.jsonl")), scratch.path("summary.json"));
        let mut arguments = vec!["-i", PORT, "--backend", "af-xdp", "--shunt-above", above];
        arguments.extend(["--output", &output, "--summary", &summary]);
        arguments.extend(more);
        Self { live: Live::start(&arguments), scratch }
    }

    /// Ends it: the summary, and the records.
    fn end(self) -> (Value, Vec<Value>) {
        self.live.signal(libc::SIGTERM);
        let (code, messages) = self.live.end();
        assert_eq!(code, Some(0), "{messages}");
        let summary = json(&self.scratch.path("summary.json"));
        assert_eq!(summary["ledger"]["balanced"], true, "{summary:#}");
        (summary, records(&self.scratch.path("live.jsonl")))
    }
}

fn records(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("records");
    text.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
}

/// All that is to be the same, in an order of its own.
fn comparable(records: Vec<Value>) -> Vec<String> {
    let plain = |mut record: Value| {
        let fields = record.as_object_mut().expect("an object");
        ["start", "end", "duration"].iter().for_each(|name| drop(fields.remove(*name)));
        record.to_string()
    };
    let mut all: Vec<_> = records.into_iter().map(plain).collect();
    all.sort();
    all
}

fn replayed(frames: &[Vec<u8>]) -> Vec<Value> {
    let scratch = Scratch::new("shunting-replay");
    records(&replay(&scratch, frames, &[]))
}

/// Frames, in the order in which they were sent.
struct Wire {
    sender: Sender,
    sent: Vec<Vec<u8>>,
}

/// A connection from 10.0.0.2 to 10.0.0.1, which is end A and sends most of it.
#[derive(Clone, Copy)]
struct Connection {
    port: u16,
    client: u32,
    server: u32,
}

impl Wire {
    fn new(interface: &str) -> Self {
        Self { sender: Sender::new(interface), sent: Vec::new() }
    }

    fn send(&mut self, frame: Vec<u8>) {
        self.sender.send(&frame).expect("sent");
        self.sent.push(frame);
        // Slowly enough for a machine that does other things too.
        if self.sent.len().is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn tcp(&mut self, of: &Connection, from_client: bool, flags: u8, payload: usize) {
        self.send(segment(of, from_client, flags, payload));
    }

    fn open(&mut self, port: u16) -> Connection {
        let mut of = Connection { port, client: 1000, server: 9000 };
        self.tcp(&of, true, SYN, 0);
        of.client += 1;
        self.tcp(&of, false, SYN_ACK, 0);
        of.server += 1;
        self.tcp(&of, true, ACK, 0);
        of
    }

    /// So many segments of 1000 bytes, each acknowledged.
    fn transfer(&mut self, of: &mut Connection, segments: usize) {
        for _ in 0..segments {
            self.tcp(of, false, PSH, 1000);
            of.server = of.server.wrapping_add(1000);
            self.tcp(of, true, ACK, 0);
        }
    }

    fn close(&mut self, of: &mut Connection) {
        self.tcp(of, false, FIN, 0);
        of.server += 1;
        self.tcp(of, true, FIN, 0);
        of.client += 1;
        self.tcp(of, false, ACK, 0);
    }
}

fn segment(of: &Connection, from_client: bool, flags: u8, payload: usize) -> Vec<u8> {
    let (client, server) = ([10, 0, 0, 2], [10, 0, 0, 1]);
    let (src, dst, ports, seq, ack) = if from_client {
        (client, server, (of.port, 80), of.client, of.server)
    } else {
        (server, client, (80, of.port), of.server, of.client)
    };
    let mut header = etherparse::TcpHeader::new(ports.0, ports.1, seq, 1000);
    (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    (header.psh, header.ack) = (flags & 8 != 0, flags & ACK != 0);
    header.acknowledgment_number = if header.ack { ack } else { 0 };
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(src, dst, 64)
        .tcp_header(header)
        .write(&mut frame, &vec![7; payload])
        .expect("written to memory");
    frame
}

fn count(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("{name} is missing: {summary:#}"))
}

/// One more pair of interfaces.
fn pair(port: &str, peer: &str) {
    ip(&format!("link add {port} type veth peer name {peer}"));
    [port, peer].iter().for_each(|name| drop(ip(&format!("link set {name} up"))));
}

/// A flow of every kind, of which one is large: what is sent while it is shunted does not come up, and the records do not tell.
#[test]
fn records_of_a_large_flow_and_of_small_ones_are_those_of_a_replay() {
    if !namespace(1) {
        return;
    }
    let live = Shunts::start("20kB", &[]);
    let mut wire = Wire::new(PEER);
    let mut large = wire.open(40_000);
    wire.transfer(&mut large, 50);
    std::thread::sleep(A_WHILE);
    let mut small: Vec<_> = (1..40).map(|port| wire.open(port)).collect();
    let before = wire.sent.len();
    wire.transfer(&mut large, 3000);
    let counted = (wire.sent.len() - before) as u64;
    for connection in &mut small {
        wire.transfer(connection, 3);
        wire.close(connection);
    }
    wire.close(&mut large);
    let (summary, live) = live.end();
    assert_eq!(comparable(live), comparable(replayed(&wire.sent)));
    let shunted = count(&summary, "packets_shunted");
    // A few more when it was quick.
    assert!((counted..=counted + 60).contains(&shunted), "{counted} and not {shunted}");
    assert_eq!(count(&summary, "flows_shunted"), 1);
    // They did not come up.
    assert_eq!(count(&summary, "frames"), wire.sent.len() as u64 - shunted);
    assert_eq!(summary["queues"][0]["shunted"], shunted);
    assert_eq!(summary["queues"][0]["offered"], wire.sent.len());
}

#[test]
fn a_reset_and_the_end_of_the_run_end_flows_that_are_shunted_with_all_their_packets() {
    if !namespace(1) {
        return;
    }
    let live = Shunts::start("20kB", &["--workers", "2"]);
    let mut wire = Wire::new(PEER);
    let mut flows: Vec<_> = (0..8).map(|port| wire.open(50_000 + port)).collect();
    flows.iter_mut().for_each(|flow| wire.transfer(flow, 50));
    std::thread::sleep(A_WHILE);
    flows.iter_mut().for_each(|flow| wire.transfer(flow, 500));
    std::thread::sleep(A_WHILE);
    for flow in &flows[..4] {
        wire.tcp(flow, false, RST, 0);
    }
    // Some are released, some are not, and all are counted.
    let (summary, live) = live.end();
    assert_eq!(comparable(live), comparable(replayed(&wire.sent)));
    let shunted = count(&summary, "packets_shunted");
    assert!((8 * 1000..=8 * 1060).contains(&shunted), "{shunted}");
    assert_eq!(count(&summary, "flows_shunted"), 8);
}

#[test]
fn a_flow_that_is_alive_in_the_kernel_is_not_silent_and_one_that_is_silent_ends() {
    if !namespace(1) {
        return;
    }
    let timeouts = ["--idle-timeout", "tcp-established=2s", "--active-timeout", "3s"];
    let live = Shunts::start("20kB", &timeouts);
    let mut wire = Wire::new(PEER);
    let mut flow = wire.open(40_000);
    wire.transfer(&mut flow, 50);
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(500));
        wire.transfer(&mut flow, 10);
    }
    std::thread::sleep(Duration::from_secs(4));
    // Over, and another one begins.
    wire.transfer(&mut flow, 1);
    std::thread::sleep(A_WHILE);
    let (summary, records) = live.end();
    assert!(count(&summary, "packets_shunted") >= 200, "{summary:#}");
    let packets =
        |record: &Value| count(record, "packets_initiator") + count(record, "packets_responder");
    let idle: Vec<_> = records.iter().filter(|record| record["reason"] == "idle").collect();
    assert_eq!(idle.len(), 1, "{records:#?}");
    assert_eq!(count(&summary, "flows"), 2, "{records:#?}");
    let interim = count(&summary, "records_interim");
    assert!((1..=3).contains(&interim), "{records:#?}");
    assert_eq!(records.iter().map(packets).sum::<u64>(), wire.sent.len() as u64);
}

#[test]
fn a_flow_of_both_ports_of_a_tap_is_counted_on_both_and_a_port_may_go_and_come_back() {
    if !namespace(1) {
        return;
    }
    pair("fscap1", "fsgen1");
    let live = Shunts::start("20kB", &["-i", "fscap1"]);
    let mut wires = [Wire::new(PEER), Wire::new("fsgen1")];
    let mut flow = Connection { port: 40_000, client: 1, server: 1 };
    let mut send = |wires: &mut [Wire; 2], segments| {
        for _ in 0..segments {
            wires[0].tcp(&flow, false, PSH, 1000);
            flow.server += 1000;
            wires[1].tcp(&flow, true, ACK, 0);
        }
    };
    send(&mut wires, 50);
    std::thread::sleep(A_WHILE);
    send(&mut wires, 500);
    ip("link del fscap1");
    pair("fscap1", "fsgen1");
    live.live.until_said("is watched again", 1);
    wires[1].sender = Sender::new("fsgen1");
    std::thread::sleep(A_WHILE);
    send(&mut wires, 200);
    std::thread::sleep(A_WHILE);
    let (summary, records) = live.end();
    let sent: usize = wires.iter().map(|wire| wire.sent.len()).sum();
    assert_eq!(count(&summary, "packets_tracked"), sent as u64, "{summary:#}");
    assert_eq!(records.len(), 1, "{records:#?}");
    let [a, b] = ["packets_initiator", "packets_responder"].map(|name| count(&records[0], name));
    assert_eq!((a, b), (750, 750), "{records:#?}");
    assert!(count(&summary, "packets_shunted") >= 1400, "{summary:#}");
}

#[test]
fn nothing_stays_after_a_kill() {
    if !namespace(1) {
        return;
    }
    let live = Shunts::start("1kB", &[]);
    let mut wire = Wire::new(PEER);
    let mut flow = wire.open(40_000);
    wire.transfer(&mut flow, 50);
    std::thread::sleep(A_WHILE);
    wire.transfer(&mut flow, 50);
    live.live.signal(libc::SIGKILL);
    live.live.end();
    until("the program is detached", || !ip(&format!("link show {PORT}")).contains("prog/xdp"));
    let live = Shunts::start("1MB", &[]);
    wire.transfer(&mut flow, 10);
    std::thread::sleep(A_WHILE);
    let (summary, _) = live.end();
    assert_eq!((count(&summary, "frames"), count(&summary, "packets_shunted")), (20, 0));
}

#[test]
fn what_it_does_not_go_with_is_refused_by_name() {
    let refusal = |arguments: &[&str]| {
        let mut run = flowscope(&["live", "-i", "eth9", "--shunt-above", "1MB"]);
        let run = run.args(arguments).output().expect("it runs");
        assert_eq!(run.status.code(), Some(2));
        String::from_utf8_lossy(&run.stderr).into_owned()
    };
    for backend in ["auto", "af-packet", "pcap"] {
        let text = refusal(&["--backend", backend]);
        let found = format!("--shunt-above with --backend {backend}: it is of af-xdp alone");
        assert!(text.contains(&found), "{text}");
    }
    let by_af_xdp = |more: &[&str]| refusal(&[&["--backend", "af-xdp"], more].concat());
    let text = by_af_xdp(&["--filter", "tcp"]);
    assert!(text.contains("judges frames one by one"), "{text}");
    let text = by_af_xdp(&["--steer", "--workers", "2"]);
    assert!(text.contains("--shunt-above with --steer"), "{text}");
    let text = by_af_xdp(&["--idle-timeout", "udp=500ms"]);
    assert!(text.contains("udp") && text.contains("at least 1s"), "{text}");
}
