//! Ports looked at, set and put back: veth pairs in namespaces of the tests' own, with ethtool to say how they are.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[allow(dead_code, reason = "shared with the backends' tests, which use other parts of it")]
#[path = "support/net.rs"]
mod net;
#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
#[path = "support/run.rs"]
mod run;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use flowscope::capture::nic::Port;
use serde_json::Value;

use net::{PORT, ip, namespace};
use run::{Live, Scratch, flowscope};

fn run(arguments: &[&str]) -> Output {
    flowscope(arguments).output().expect("it runs")
}

fn ethtool(arguments: &str) -> String {
    let out = Command::new("ethtool").args(arguments.split_whitespace()).output();
    let out = out.expect("ethtool, which scripts/test installs");
    assert!(out.status.success(), "ethtool {arguments}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn is_on(feature: &str) -> bool {
    let text = ethtool(&format!("-k {PORT}"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix(feature)?.strip_prefix(": "));
    line.expect("a feature of that name").starts_with("on")
}

const GRO: &str = "generic-receive-offload";

/// What can be seen of a port from outside, but for what it counts.
fn all_of(port: &str) -> [String; 3] {
    [
        ethtool(&format!("-k {port}")),
        ethtool(&format!("-l {port}")),
        ip(&format!("-d link show {port}")),
    ]
}

/// The report as JSON, and the exit code.
fn doctor(arguments: &[&str]) -> (Value, Option<i32>) {
    let out = run(&[&["doctor", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&out.stdout);
    let report = serde_json::from_str(&text);
    (report.unwrap_or_else(|error| panic!("{error}: {text:?} {out:?}")), out.status.code())
}

/// A finding about the first interface of a report.
fn finding<'a>(report: &'a Value, what: &str) -> &'a Value {
    let findings = report["interfaces"][0]["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["what"] == what).unwrap_or(&Value::Null)
}

/// Starts a live run on the port.
fn live(arguments: &[&str]) -> Live {
    Live::start(&[&["-i", PORT], arguments].concat())
}

#[test]
fn what_we_read_is_what_ethtool_says() {
    if !namespace(3) {
        return;
    }
    ethtool(&format!("-K {PORT} gro on"));
    let port = Port::read(PORT).expect("it is there");
    let features = port.features.as_ref().expect("the kernel tells");
    let mut compared = 0;
    for line in ethtool(&format!("-k {PORT}")).lines() {
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        // ethtool has names of its own for some.
        let Some(feature) = features.get(name) else { continue };
        compared += 1;
        let found = (feature.active, !feature.changeable);
        assert_eq!(found, (value.starts_with("on"), value.contains("[fixed]")), "{line}");
    }
    assert!(compared > 20, "{compared} features have the same name");
    assert!(features.is_on("rx-gro"));
    assert_eq!(port.channels.map(|channels| (channels.rx, channels.rx_max)), Ok((3, 3)));
    assert_eq!(port.queues(), 3);
    let speed = port.speed_mbit.expect("veth tells one").expect("the link is up");
    assert!(ethtool(PORT).contains(&format!("Speed: {speed}Mb/s")), "{speed}");
    assert_eq!(port.driver.as_ref().expect("it tells").name, "veth");
    ethtool(&format!("-L {PORT} rx 2"));
    assert_eq!(Port::read(PORT).expect("it is there").queues(), 2);
}

#[test]
fn doctor_finds_what_is_wrong_and_changes_nothing() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("looks");
    let look = ["-i", PORT, "--backend", "af-packet", "--state-dir", scratch.as_str()];
    let (report, code) = doctor(&look);
    assert_eq!((code, &report["worst"]), (Some(0), &"ok".into()), "{report:#}");

    ethtool(&format!("-K {PORT} gro on"));
    ip(&format!("link set {PORT} down"));
    let before = all_of(PORT);
    let (report, code) = doctor(&look);
    assert_eq!(all_of(PORT), before);
    assert_eq!(scratch.files(), 0);
    assert_eq!((code, &report["worst"]), (Some(6), &"warning".into()), "{report:#}");
    let link = finding(&report, "link");
    assert_eq!((&link["severity"], &link["found"]), (&"warning".into(), &"set down".into()));
    assert_eq!(link["mend"], format!("ip link set {PORT} up"));
    let gro = finding(&report, "gro");
    assert_eq!((&gro["severity"], &gro["found"]), (&"warning".into(), &"on".into()));

    // What it says to do is what helps.
    for what in ["link", "gro"] {
        let mend = finding(&report, what)["mend"].as_str().expect("a mend").to_owned();
        let status = Command::new("sh").args(["-c", &mend]).status().expect("a shell");
        assert!(status.success(), "{mend}");
    }
    let (report, code) = doctor(&look);
    assert_eq!(code, Some(0), "{report:#}");

    let text = run(&["doctor"]);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains(PORT) && !text.contains("\nlo\n"), "{text}");
    let nosuch = run(&["doctor", "-i", "nosuchport"]);
    let message = String::from_utf8_lossy(&nosuch.stderr);
    assert!(nosuch.status.code() == Some(1) && message.contains("nosuchport"), "{message}");
}

#[test]
fn a_tuned_port_is_put_back_at_the_end() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("tune");
    let tune = ["--backend", "af-packet", "--tune", "--state-dir", scratch.as_str()];
    ethtool(&format!("-K {PORT} gro on"));
    let before = all_of(PORT);
    let live = live(&tune);
    assert!(!is_on(GRO));
    assert_eq!(scratch.files(), 1);
    let (report, code) = doctor(&["-i", PORT, "--state-dir", scratch.as_str()]);
    let tuned = finding(&report, "tuned");
    assert!(
        tuned["found"].as_str().is_some_and(|found| found.contains("which runs")),
        "{report:#}"
    );
    assert_eq!(tuned["severity"], "ok", "{code:?}");
    // One at a time.
    let second = run(&[&["live", "-i", PORT], &tune[..]].concat());
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && message.contains("is set by process"), "{message}");
    assert!(!is_on(GRO));

    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    assert!(messages.contains("rx-gro on → rx-gro off"), "{messages}");
    assert!(messages.contains("put back: rx-gro off → rx-gro on"), "{messages}");
    assert_eq!(all_of(PORT), before);
    assert_eq!(scratch.files(), 0);
}

#[test]
fn a_port_is_put_back_also_when_the_run_fails_or_ends_at_once() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("fails");
    let tune = ["--backend", "af-packet", "--tune", "--state-dir", scratch.as_str()];
    ethtool(&format!("-K {PORT} gro on"));
    let failed = run(&[&["live", "-i", PORT, "-i", "nosuchport"], &tune[..]].concat());
    let message = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && message.contains("nosuchport"), "{message}");
    assert!(message.contains("rx-gro on → rx-gro off"), "{message}");
    assert!(is_on(GRO) && scratch.files() == 0, "{message}");

    // Two signals that wait for it together: it ends at the second.
    let live = live(&tune);
    assert!(!is_on(GRO));
    let signals = [libc::SIGSTOP, libc::SIGTERM, libc::SIGINT, libc::SIGCONT];
    signals.iter().for_each(|signal| live.signal(*signal));
    let (code, messages) = live.end();
    assert!(code == Some(130) && messages.contains("second signal"), "{code:?} {messages}");
    assert!(is_on(GRO) && scratch.files() == 0, "{messages}");

    let nowhere = run(&["live", "-i", PORT, "--tune", "--state-dir", "/proc/nowhere"]);
    let message = String::from_utf8_lossy(&nowhere.stderr);
    assert!(nowhere.status.code() == Some(1) && message.contains("/proc/nowhere"), "{message}");
    assert!(message.contains("nothing was set") && is_on(GRO), "{message}");
}

#[test]
fn what_a_killed_run_left_is_told_and_can_be_put_back() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("killed");
    let state = ["--state-dir", scratch.as_str()];
    let tune = [&["--backend", "af-packet", "--tune"], &state[..]].concat();
    ethtool(&format!("-K {PORT} gro on"));
    let kill = || {
        let live = live(&tune);
        live.signal(libc::SIGKILL);
        live.end();
        assert!(!is_on(GRO) && scratch.files() == 1);
    };
    kill();
    let (report, code) = doctor(&[&["-i", PORT], &state[..]].concat());
    let tuned = finding(&report, "tuned");
    assert_eq!((code, &tuned["severity"]), (Some(6), &"warning".into()), "{report:#}");
    assert_eq!(tuned["mend"], "flowscope restore");
    let restored = run(&[&["restore"], &state[..]].concat());
    let message = String::from_utf8_lossy(&restored.stderr);
    assert_eq!(restored.status.code(), Some(0), "{message}");
    assert!(is_on(GRO) && scratch.files() == 0, "{message}");

    // The next run that sets it remembers it as it was first.
    kill();
    let live = live(&tune);
    live.signal(libc::SIGTERM);
    let (code, messages) = live.end();
    assert_eq!(code, Some(0), "{messages}");
    assert!(is_on(GRO) && scratch.files() == 0, "{messages}");
}

#[test]
fn a_run_that_is_not_told_to_set_a_port_says_what_is_wrong_and_leaves_it() {
    if !namespace(1) {
        return;
    }
    let scratch = Scratch::new("warns");
    ethtool(&format!("-K {PORT} gro on"));
    let live = live(&["--backend", "af-packet", "--state-dir", scratch.as_str()]);
    assert!(is_on(GRO) && scratch.files() == 0);
    live.signal(libc::SIGTERM);
    let (_, messages) = live.end();
    let mend = format!("ethtool -K {PORT} gro off");
    let warned = messages.find(&mend).expect("the mend");
    assert!(warned < messages.find("AF_PACKET, ring").expect("the start"), "{messages}");
    assert!(messages.contains("--tune sets what can be set"), "{messages}");
}

#[test]
fn workers_are_where_they_were_told_to_be() {
    if !namespace(1) {
        return;
    }
    let allowed = |status: &str| {
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        list.expect("the cores of a thread").to_owned()
    };
    let ours = std::fs::read_to_string("/proc/thread-self/status").expect("our own");
    let last = allowed(&ours).rsplit(['-', ',']).next().expect("a core").to_owned();
    let live = live(&["--backend", "af-packet", "--cores", &last]);
    let worker = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", live.child.id())).expect("threads");
        let status =
            |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).ok();
        tasks.flatten().filter_map(status).find(|status| status.starts_with("Name:\tworker-0\n"))
    };
    // It starts after the server, and pins itself first of all.
    let deadline = Instant::now() + Duration::from_secs(10);
    while worker().is_none_or(|status| allowed(&status) != last) {
        assert!(Instant::now() < deadline, "{:?} is not on core {last}", worker());
        std::thread::sleep(Duration::from_millis(5));
    }
    live.signal(libc::SIGTERM);
    let (_, messages) = live.end();
    assert!(messages.contains(&format!("the worker runs on core {last}")), "{messages}");

    for (cores, message) in [
        ("1023", "core 1023 is not online"),
        ("1024", "core 1024"),
        ("3-1", "goes backwards"),
        ("0,0", "core 0 is given twice"),
    ] {
        let out = run(&["live", "-i", PORT, "--cores", cores]);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && text.contains(message), "{cores}: {text}");
    }
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/http.pcap");
    let out = run(&["replay", capture, "--cores", &last]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains(&format!("runs on core {last}")), "{text}");
    let out = run(&["live", "-i", PORT, "--workers", "2", "--cores", &last]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && text.contains("1 of the 2 cores"), "{text}");
}

/// Promiscuous for as long as it runs, whatever the backend; and for AF_XDP tags stay in the frames.
#[cfg(feature = "af-xdp")]
#[test]
fn a_port_is_promiscuous_while_it_is_listened_to() {
    let promiscuity = || Port::read(PORT).expect("it is there").interface.promiscuity;
    for backend in ["af-xdp", "af-packet"] {
        if !namespace(1) {
            return;
        }
        let scratch = Scratch::new(backend);
        let before = all_of(PORT);
        let live = live(&["--backend", backend, "--tune", "--state-dir", scratch.as_str()]);
        assert_eq!(promiscuity(), 1, "{backend}");
        assert_eq!(is_on("rx-vlan-offload"), backend == "af-packet", "{backend}");
        live.signal(libc::SIGTERM);
        let (code, messages) = live.end();
        assert_eq!((code, promiscuity()), (Some(0), 0), "{backend}: {messages}");
        assert_eq!(all_of(PORT), before, "{backend}: {messages}");
    }
}
