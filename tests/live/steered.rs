//! One reader, several workers: what a steered run promises beyond the other shape.

use crate::net::{PEER, PORT, Sender, namespace};
use crate::run::{Live, Scratch, lines, until};
use crate::{
    BACKENDS, Held, live_and_replayed, lost_to_the_frame, send_too_many, stands_still, sums, wire,
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
        let metrics = live.page("/metrics").1;
        // There is nothing for it that the reader would have to wait for.
        for (thread, is_stalled) in [("0", 0), ("1", 1), ("reader", 0)] {
            let line = format!("flowscope_worker_stalled{{worker=\"{thread}\"}} {is_stalled}\n");
            assert!(metrics.contains(&line), "{backend}: not {line}");
        }
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
