//! The generator of the line-rate runs, and flowscope behind it: what is sent is what is received, to the frame.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[path = "../bench"]
mod bench {
    pub mod load;
}
#[allow(dead_code, reason = "shared with the backends' tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::load::generator::{Generator, Plan, Sent, Size};
use flowscope::capture::Capture;
use flowscope::capture::af_xdp::{AfXdp, Config};
use flowscope::capture::live::LiveCapture;
use serde_json::Value;

use net::{PEER, PORT, collect_frames, namespace};

/// A machine that does other things may take a receiver off its core for longer than its ring is long. What was lost
/// is then counted to the frame, and the run is repeated so many times.
const RUNS_MAX: usize = 6;
const PATIENCE: Duration = Duration::from_secs(20);

fn plan(size: Size, flows: u32, rate: u64, time: Duration) -> Plan {
    // Workers take the first core.
    let last = std::thread::available_parallelism().map_or(0, |cores| cores.get() as u32 - 1);
    Plan { interface: PEER.to_owned(), size, flows, rate: Some(rate), time, cores: vec![last] }
}

/// Sends it all, however long a busy machine takes for it.
fn send(plan: &Plan) -> Sent {
    let mut generator = Generator::open(plan.clone()).expect("a generator");
    let sent = generator.run().expect("sent");
    assert_eq!(sent.attempted, sent.taken + sent.refused, "{sent:?}");
    sent
}

/// The one's complement sum of big-endian words: all ones where a checksum is right.
fn sum(bytes: &[u8], more: u32) -> u32 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<u32>() + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[test]
fn generated_frames_have_the_sizes_flows_and_checksums_that_were_asked_for() {
    const FLOWS: usize = 500;
    if !namespace(1) {
        return;
    }
    let config = Config::builder().frames(32_768).build().expect("valid");
    let mut capture = AfXdp::open(PORT, 0, &config).expect("open").remove(0);
    // 12 000 frames, which the ring has room for: nothing can be lost.
    let sent = send(&plan(Size::Imix, FLOWS as u32, 60_000, Duration::from_millis(200)));
    assert!(sent.refused == 0 && sent.taken > 1000, "{sent:?}");
    capture.stop().expect("stopped");
    let (mut sizes, mut flows) = ([0u64; 3], vec![0u64; FLOWS]);
    let start = Instant::now();
    let mut read = |data: &[u8]| {
        let size = [60, 590, 1514].iter().position(|&size| size == data.len());
        sizes[size.expect("a size of the mix")] += 1;
        let (ip, udp) = (&data[14..34], &data[34..]);
        let length = |at: &[u8]| usize::from(u16::from_be_bytes([at[0], at[1]]));
        assert_eq!((length(&ip[2..]), length(&udp[4..])), (data.len() - 14, data.len() - 34));
        assert_eq!(sum(ip, 0), 0xffff, "the header's checksum: {ip:x?}");
        // The pseudo-header: addresses, protocol, length.
        let pseudo = sum(&ip[12..], 17 + udp.len() as u32);
        assert_eq!(sum(udp, pseudo), 0xffff, "the datagram's checksum: {:x?}", &udp[..8]);
        flows[length(&ip[14..])] += 1;
    };
    while capture
        .with_batch(|batch| batch.iter().for_each(|frame| read(frame.data)))
        .expect("frames")
        .is_some()
    {
        assert!(start.elapsed() < PATIENCE);
    }
    let total = sent.taken;
    assert_eq!(sizes.iter().sum::<u64>(), total);
    let bytes = sizes[0] * 60 + sizes[1] * 590 + sizes[2] * 1514;
    assert_eq!(bytes, sent.bytes);
    // 7:4:1 in every twelve.
    for (found, of_twelve) in sizes.iter().zip([7, 4, 1]) {
        assert!(found.abs_diff(total * of_twelve / 12) <= of_twelve, "{sizes:?}");
    }
    // In turns: each as often as the others, or once more.
    let each = total / FLOWS as u64;
    assert!(flows.iter().all(|&frames| frames == each || frames == each + 1), "{flows:?}");
}

#[test]
fn at_full_rate_a_run_ends_in_time_and_what_finds_no_room_is_counted() {
    if !namespace(1) {
        return;
    }
    let config = Config::builder().frames(4096).rx_ring(2048).build().expect("valid");
    let mut capture = AfXdp::open(PORT, 0, &config).expect("open").remove(0);
    let mut plan = plan(Size::Bytes(60), 1000, 1, Duration::from_millis(300));
    plan.rate = None;
    let start = Instant::now();
    let sent = send(&plan);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // Far more than the ring has room for, and nobody reads: all but that is lost, and told.
    assert!(sent.taken > 4096, "{sent:?}");
    capture.stop().expect("stopped");
    while capture.with_batch(|_| ()).expect("frames").is_some() {}
    let counts = capture.counts().expect("counts");
    assert_eq!(counts.offered, sent.taken, "{sent:?}");
    assert_eq!(counts.delivered + counts.dropped_total(), sent.taken, "{counts:?}");
    assert!(counts.dropped_total() > 0 && counts.delivered > 0, "{counts:?}");
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan(Size::Bytes(60), 100, 1000, Duration::from_secs(1));
        change(&mut plan);
        Generator::open(plan).err().expect("refused").to_string()
    };
    let message = refused(&|plan| plan.size = Size::Bytes(20));
    assert!(message.contains("frames of 20 bytes: choose 42 to"), "{message}");
    let message = refused(&|plan| plan.flows = 0);
    assert!(message.contains("0 flows"), "{message}");
    let message = refused(&|plan| plan.cores = vec![0, 1, 2]);
    assert!(message.contains("100 flows on 3 cores"), "{message}");
    let message = refused(&|plan| plan.rate = Some(0));
    assert!(message.contains("a rate of 0"), "{message}");
    let message = refused(&|plan| plan.interface = "nosuchport".to_owned());
    assert!(message.contains("nosuchport"), "{message}");
}

/// A live run under load: what was sent, and its summary.
fn live(backend: &str, plan: &Plan) -> (Sent, Value) {
    let file = std::env::temp_dir()
        .join(format!("flowscope-line-rate-{}-{backend}.json", std::process::id()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_flowscope"))
        .args(["live", "-i", PORT, "--backend", backend, "--workers", "1"])
        .args(["--metrics", "127.0.0.1:0", "--summary"])
        .arg(&file)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("standard error"));
    let mut text = String::new();
    while !text.contains("serving metrics on") {
        assert_ne!(stderr.read_line(&mut text).expect("a line"), 0, "it ended:\n{text}");
    }
    let messages = std::thread::spawn(move || {
        stderr.lines().map_while(Result::ok).for_each(|line| text += &(line + "\n"));
        text
    });
    let sent = send(plan);
    // SAFETY: the process is our child and was not waited for, so that its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("killed");
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let messages = messages.join().expect("the messages");
    assert!(status.success(), "{messages}");
    let summary = std::fs::read(&file).expect("a summary");
    let _ = std::fs::remove_file(&file);
    (sent, serde_json::from_slice(&summary).expect("JSON"))
}

#[test]
fn flowscope_gets_what_was_sent_to_the_frame_and_to_the_flow() {
    const FLOWS: u32 = 1000;
    for backend in ["af-xdp", "af-packet"] {
        if !namespace(1) {
            return;
        }
        collect_frames(PORT);
        let plan = plan(Size::Bytes(60), FLOWS, 100_000, Duration::from_secs(2));
        let lossless = (0..RUNS_MAX).any(|_| {
            let (sent, summary) = live(backend, &plan);
            let queue = &summary["queues"][0];
            let dropped = queue["dropped"].as_object().expect("reasons");
            let dropped: u64 = dropped.values().filter_map(Value::as_u64).sum();
            let delivered = queue["delivered"].as_u64().expect("a count");
            assert_eq!(summary["ledger"]["balanced"], true, "{summary:#}");
            assert_eq!(queue["offered"], sent.taken, "{backend}: {sent:?}, {summary:#}");
            assert_eq!(delivered + dropped, sent.taken, "{backend}: {sent:?}, {summary:#}");
            assert_eq!(summary["packets_tracked"], delivered, "{backend}");
            assert_eq!(summary["flows"], FLOWS, "{backend}: {summary:#}");
            // Gaps are made up for: to a percent of two seconds.
            let held = sent.nanos.abs_diff(2_000_000_000) < 20_000_000;
            sent.refused == 0 && dropped == 0 && held
        });
        assert!(
            lossless,
            "{backend}: each of {RUNS_MAX} runs at 100 000 frames a second lost some or was late"
        );
    }
}

#[test]
fn the_search_finds_what_a_receiver_can_and_a_run_may_be_made_in_pieces() {
    let python = Command::new("python3")
        .args(["-B", "-m", "unittest", "discover", "-s", "bench/line_rate"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("python3, which scripts/test installs");
    let told = String::from_utf8_lossy(&python.stderr);
    assert!(python.status.success() && told.contains("Ran 5 tests"), "{told}");
}
