//! One reader, several workers: what a steered run promises beyond the other shape.

use std::io::{BufRead, BufReader};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::net::{PEER, PORT, Sender, ip, namespace};
use crate::run::{Live, Scratch, json, lines, until};
use crate::{
    BACKENDS, Held, balanced, comes_back, live_and_replayed, lost_to_the_frame, send_too_many,
    stands_still, sums, wire,
};

/// How a steered run with two workers is asked for; libpcap has no other way.
fn steered(backend: &str) -> &'static [&'static str] {
    if backend == "pcap" { &["--workers", "2"] } else { &["--steer", "--workers", "2"] }
}

#[test]
fn a_steered_run_gives_the_records_of_a_replay_and_every_fragment_and_error_finds_its_flow() {
    const FLOWS: u16 = 200;
    let mut frames = wire::of_captures(1514);
    for flow in 5000..5000 + FLOWS {
        let whole = wire::udp(flow, 0, 100);
        let [first, later] = wire::fragments(&whole, flow);
        let error = wire::port_unreachable(&whole);
        // Later fragments before what says which flow they are of, and without it for a tenth.
        frames.extend([later, whole]);
        frames.extend((flow % 10 != 0).then_some(first));
        frames.push(error);
    }
    let all = frames.len() as u64;
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let (summary, records) = live_and_replayed(backend, &frames, &[], steered(backend));
        assert_eq!(sums(&summary), (all, all, 0), "{backend}");
        assert_eq!(summary["queues"].as_array().map(Vec::len), Some(1), "{summary:#}");
        let is_whole = |line: &&String| {
            line.contains("\"packets_initiator\":3,") && line.contains("\"icmp_errors\":1")
        };
        let whole = records.keys().filter(is_whole).count();
        assert!(whole >= usize::from(FLOWS) * 9 / 10, "{backend}: {whole} flows are whole");
    }
}

#[test]
fn what_a_steered_sensor_that_stood_still_lost_is_counted_to_the_frame() {
    BACKENDS.iter().for_each(|backend| stands_still(backend, steered(backend)));
}

#[test]
fn a_steered_worker_that_stands_still_is_told_and_the_reader_waits_for_it_and_what_is_lost_is_counted()
 {
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let scratch = Scratch::new(&format!("held-{backend}"));
        let sum = scratch.path("summary.json");
        let arguments = ["-i", PORT, "--backend", backend, "--summary", &sum];
        let live = Live::start(&[&arguments[..], steered(backend)].concat());
        let held = Held::new(&live, "worker-1");
        until("it is told", || live.page("/readyz").1 == "worker 1 stands still\n");
        // There is nothing for it that the reader would have to wait for. Others may have stood still on a busy machine.
        let lines = [("0", 0), ("1", 1), ("reader", 0)].map(|(thread, is_stalled)| {
            format!("flowscope_worker_stalled{{worker=\"{thread}\"}} {is_stalled}\n")
        });
        until("it is told of worker 1 alone", || {
            let metrics = live.page("/metrics").1;
            lines.iter().all(|line| metrics.contains(line))
        });
        send_too_many();
        drop(held);
        until("it goes on", || live.page("/readyz").0 == 200);
        // The reader alone, then: its workers have nothing to do, and go on.
        if backend == "af-packet" {
            let held = Held::new(&live, "reader");
            until("it is told", || live.page("/readyz").1 == "the reader stands still\n");
            drop(held);
        }
        lost_to_the_frame(live, &sum);
    }
}

#[test]
fn flows_of_a_steered_run_end_while_nothing_comes() {
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let scratch = Scratch::new(&format!("quiet-{backend}"));
        let out = scratch.path("live.jsonl");
        let output = format!("jsonl:{out}");
        let timeout = ["--idle-timeout", "udp=100ms"];
        let arguments = ["-i", PORT, "--backend", backend, "--output", &output];
        let live = Live::start(&[&arguments[..], &timeout, steered(backend)].concat());
        let sender = Sender::new(PEER);
        (0..40).for_each(|flow| sender.send(&wire::udp(flow, 0, 100)).expect("sent"));
        until("forty records", || lines(&out) == 40);
        live.signal(libc::SIGTERM);
        let (code, messages) = live.end();
        assert_eq!(code, Some(0), "{backend}: {messages}");
        assert_eq!(lines(&out), 40, "{backend}");
    }
}

/// A pipe as an output: nobody reads it until its test does.
struct Pipe {
    path: String,
    /// Open for both, or opening it would wait for a reader.
    both: std::fs::File,
}

impl Pipe {
    fn new(scratch: &Scratch) -> Self {
        let path = scratch.path("pipe");
        let name = std::ffi::CString::new(path.as_str()).expect("a path");
        // SAFETY: the name ends with a zero byte and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let both = std::fs::File::options().read(true).write(true).open(&path).expect("a pipe");
        Self { path, both }
    }

    /// Reads until whoever writes is done: how many lines.
    fn read(self) -> JoinHandle<usize> {
        let file = std::fs::File::open(&self.path).expect("a pipe");
        drop(self.both);
        std::thread::spawn(move || BufReader::new(file).lines().map_while(Result::ok).count())
    }
}

#[test]
fn records_that_an_output_does_not_take_are_dropped_and_counted_and_the_rest_is_written() {
    // Far more than pipe, buffers and queue hold.
    const FLOWS_A_TURN: u32 = 10_000;
    const TURNS_MAX: u32 = 20;
    for backend in BACKENDS {
        if !namespace(1) {
            return;
        }
        let scratch = Scratch::new(&format!("blocked-{backend}"));
        let pipe = Pipe::new(&scratch);
        let (sum, out) = (scratch.path("summary.json"), scratch.path("live.jsonl"));
        let outputs = [format!("jsonl:{}", pipe.path), format!("jsonl:{out}")];
        let arguments = ["-i", PORT, "--backend", backend, "--summary", &sum];
        let outputs = ["--output", &outputs[0], "--output", &outputs[1]];
        let timeout = ["--idle-timeout", "udp=50ms"];
        let live = Live::start(&[&arguments[..], &outputs, &timeout, steered(backend)].concat());
        let sender = Sender::new(PEER);
        let is_full = || {
            let line = "flowscope_records_dropped_total{output=\"1\",reason=\"queue_full\"} ";
            let text = live.page("/metrics").1;
            let line = text.lines().find_map(|text| text.strip_prefix(line));
            line.and_then(|count| count.parse::<u64>().ok()).expect("a metric") > 0
        };
        let mut turns = 0;
        while !is_full() {
            assert!(turns < TURNS_MAX, "{backend}: the output still takes records");
            for number in 0..FLOWS_A_TURN {
                sender.send(&wire::udp(number as u16, turns, 60)).expect("sent");
                if number % 64 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            turns += 1;
        }
        live.signal(libc::SIGTERM);
        // What waits is written: somebody reads now.
        let reader = pipe.read();
        let (code, messages) = live.end();
        let read = reader.join().expect("the reader");
        let summary = json(&sum);
        balanced(&summary);
        assert_eq!(code, Some(0), "{backend}: {messages}");
        let records = summary["records"].as_u64().expect("a number");
        assert!(records >= u64::from(FLOWS_A_TURN) / 2, "{backend}: {records}");
        let count = |output: usize, what: &str| {
            summary["outputs"][output].pointer(what).and_then(Value::as_u64).unwrap_or(0)
        };
        for output in [0, 1] {
            let (written, dropped) =
                (count(output, "/written"), count(output, "/dropped/queue_full"));
            assert_eq!(written + dropped, records, "{backend}: {summary:#}");
        }
        assert!(count(0, "/dropped/queue_full") > 0 && count(0, "/written") > 0, "{summary:#}");
        assert_eq!((read as u64, lines(&out) as u64), (count(0, "/written"), count(1, "/written")));
        assert!(messages.contains("queue_full"), "{backend}: {messages}");
    }
}

#[test]
fn several_ports_of_several_queues_have_one_reader_and_a_flow_is_one_record_wherever_it_came() {
    const FLOWS: u16 = 100;
    const ROUNDS: u32 = 6;
    for backend in BACKENDS {
        if !namespace(2) {
            return;
        }
        let queues = "numrxqueues 2 numtxqueues 2";
        ip(&format!("link add fscap1 {queues} type veth peer name fsgen1 {queues}"));
        ["fscap1", "fsgen1"].iter().for_each(|name| drop(ip(&format!("link set {name} up"))));
        let scratch = Scratch::new(&format!("ports-{backend}"));
        let (sum, out) = (scratch.path("summary.json"), scratch.path("live.jsonl"));
        let output = format!("jsonl:{out}");
        let arguments = ["-i", PORT, "-i", "fscap1", "--backend", backend];
        let more = ["--output", &output, "--summary", &sum];
        let workers: &[&str] =
            if backend == "pcap" { &["--workers", "3"] } else { &["--steer", "--workers", "3"] };
        let live = Live::start(&[&arguments[..], &more, workers].concat());
        let senders = [Sender::new(PEER), Sender::new("fsgen1")];
        for round in 0..ROUNDS {
            for flow in 0..FLOWS {
                let there = wire::udp(flow, round, 100);
                senders[0].send(&there).expect("sent");
                let mut back = there;
                back[26..34].rotate_left(4);
                back[34..38].rotate_left(2);
                senders[1].send(&back).expect("sent");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        live.signal(libc::SIGTERM);
        let (code, messages) = live.end();
        assert_eq!(code, Some(0), "{backend}: {messages}");
        let summary = json(&sum);
        balanced(&summary);
        let sent = u64::from(FLOWS) * u64::from(ROUNDS) * 2;
        assert_eq!(sums(&summary), (sent, sent, 0), "{backend}");
        // AF_XDP has a socket a queue; the others one for all of them.
        let found: Vec<_> = summary["queues"].as_array().expect("queues").iter().collect();
        let expected = if backend == "af-xdp" { 4 } else { 2 };
        assert_eq!(found.len(), expected, "{backend}: {summary:#}");
        for port in [PORT, "fscap1"] {
            let of_port = found.iter().filter(|queue| queue["interface"] == port);
            let offered: u64 = of_port.filter_map(|queue| queue["offered"].as_u64()).sum();
            assert_eq!(offered, sent / 2, "{backend}: {port}");
        }
        let text = std::fs::read_to_string(&out).expect("records");
        assert_eq!(text.lines().count(), usize::from(FLOWS), "{backend}");
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect("a record");
            for packets in ["packets_initiator", "packets_responder"] {
                assert_eq!(record[packets], ROUNDS, "{backend}: {line}");
            }
        }
    }
}

#[test]
fn a_port_that_comes_back_is_read_again_for_all_workers() {
    BACKENDS.iter().for_each(|backend| comes_back(backend, steered(backend)));
}
