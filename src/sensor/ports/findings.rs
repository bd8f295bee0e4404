//! What was read about a port → what is well, worth knowing, or wrong with it, and what to do. Pure.
//!
//! Contract: a warning says that frames will be missed or that records will be wrong; everything else is a note. Every warning
//! says why, and has a mend: a command, where there is one.

use std::fmt::Display;

use serde::Serialize;

use super::state::Left;
use crate::capture::nic::{Port, Rss, Untold};
use crate::sensor::backends::Backend;
use crate::sensor::cores::listed;
use crate::sensor::rss::symmetric_key;

/// A ring with fewer frames is a warning: at 10 Gbit/s of 64-byte frames it bridges less than 70 µs, which a processor that
/// just went to sleep takes to wake up.
const RING_FRAMES_FEW: u32 = 1024;

/// The largest MTU whose frames fit into one buffer of AF_XDP: 2048 bytes, of which the kernel keeps 256 and a header with
/// two tags takes 22.
const BUFFER_MTU_MAX: u32 = 2048 - 256 - 22;

/// From what is well to what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something will be missed, or wrong.
    Warning,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub what: &'static str,
    /// What it was like.
    pub found: String,
    /// Why it matters; empty where all is well.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub why: &'static str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// Whether `--tune` does it.
    #[serde(skip)]
    pub tunable: bool,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(what: &'static str, found: impl Display) -> Self {
        Self {
            severity: Severity::Ok,
            what,
            found: found.to_string(),
            why: "",
            mend: None,
            tunable: false,
        }
    }

    /// Worth knowing.
    pub(super) fn note(what: &'static str, found: impl Display, why: &'static str) -> Self {
        Self { severity: Severity::Note, why, ..Self::ok(what, found) }
    }

    /// Something will be missed, or wrong.
    pub(super) fn warning(what: &'static str, found: impl Display, why: &'static str) -> Self {
        Self { severity: Severity::Warning, why, ..Self::ok(what, found) }
    }

    /// With what to do about it.
    pub(super) fn mend(mut self, mend: impl Display) -> Self {
        self.mend = Some(mend.to_string());
        self
    }

    fn tunable(self) -> Self {
        self.tunable_if(true)
    }

    fn tunable_if(mut self, tunable: bool) -> Self {
        self.tunable = tunable;
        self
    }
}

/// What a port is looked at for.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The backend that it will be captured by.
    pub backend: Backend,
    /// Why by that one.
    pub why: String,
    /// Whether one thread reads all queues.
    pub steered: bool,
    /// The cores that workers may have.
    pub cores: Vec<usize>,
    /// Those of them that were asked for by number and are on another NUMA node.
    pub far: Vec<usize>,
    /// What a run has set and not yet put back.
    pub left: Option<&'a Left>,
}

/// All findings about a port, in the order in which they are told.
pub fn of(port: &Port, situation: &Situation<'_>) -> Vec<Finding> {
    let xdp = situation.backend == Backend::AfXdp;
    let mut found = vec![backend(situation), link(port)];
    found.extend(driver(port));
    found.push(queues(port, situation));
    found.push(ring(port));
    found.extend(spread(port, xdp, situation.steered));
    found.extend(merging(port, xdp));
    found.extend(tags(port, xdp));
    found.push(mtu(port, xdp));
    found.push(promiscuous(port));
    found.extend(host(port, xdp));
    found.push(pause(port));
    found.extend(numa(port, situation));
    found.extend(situation.left.map(left));
    found
}

fn untold(what: &'static str, why: Untold) -> Finding {
    let finding = Finding::ok(what, format_args!("not known: {why}"));
    Finding {
        severity: if why == Untold::Unsupported { Severity::Ok } else { Severity::Note },
        ..finding
    }
}

fn backend(situation: &Situation<'_>) -> Finding {
    Finding::ok("backend", format_args!("{}: {}", situation.backend.label(), situation.why))
}

fn link(port: &Port) -> Finding {
    let name = &port.name;
    if !port.interface.is_up {
        return Finding::warning("link", "set down", "no frame comes")
            .mend(format_args!("ip link set {name} up"));
    }
    if !port.interface.has_carrier {
        return Finding::warning("link", "up, without a carrier", "no frame comes")
            .mend("look at the cable, the optics and the other end");
    }
    match port.speed_mbit {
        Ok(Some(speed)) => Finding::ok("link", format_args!("up, {speed} Mbit/s")),
        _ => Finding::ok("link", "up"),
    }
}

fn driver(port: &Port) -> Option<Finding> {
    let driver = port.driver.as_ref().ok()?;
    let parts = [&driver.name, &driver.version, &driver.firmware, &driver.bus];
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|p| !p.is_empty()).collect();
    Some(Finding::ok("driver", parts.join(", ")))
}

fn queues(port: &Port, situation: &Situation<'_>) -> Finding {
    let (name, queues) = (&port.name, port.queues());
    let most = port.channels.map_or(queues, |c| c.rx_max.max(c.combined_max).max(queues));
    let cores = situation.cores.len();
    let found = format!("{queues} of {most}, {cores} cores for workers");
    if cores == 0 || queues as usize <= cores {
        return Finding::ok("queues", found);
    }
    let kind = kind(port);
    Finding::note(
        "queues",
        found,
        "a worker for each queue: several share a core and wait for each other",
    )
    .mend(format_args!("ethtool -L {name} {kind} {cores}, or --workers {cores}"))
}

/// What ethtool calls the queues that receive.
fn kind(port: &Port) -> &'static str {
    if port.channels.is_ok_and(|channels| channels.combined == 0) { "rx" } else { "combined" }
}

fn ring(port: &Port) -> Finding {
    let name = &port.name;
    let ring = match port.ring {
        Ok(ring) => ring,
        Err(why) => return untold("ring", why),
    };
    let found = format!("{} of {} frames", ring.frames, ring.frames_max);
    if ring.frames >= ring.frames_max {
        return Finding::ok("ring", found);
    }
    let few = ring.frames < RING_FRAMES_FEW;
    let why = "what comes in a burst beyond it is lost in the NIC, where it is not in the ledger";
    let finding = if few { Finding::warning } else { Finding::note }("ring", found, why);
    finding.mend(format_args!("ethtool -G {name} rx {}", ring.frames_max)).tunable()
}

/// How frames are spread over queues.
fn spread(port: &Port, xdp: bool, steered: bool) -> Vec<Finding> {
    const TWO_RECORDS: &str = "with a worker for each queue the two directions of a flow are tracked apart, and become two records";
    let (name, queues) = (&port.name, port.queues());
    if queues < 2 {
        return vec![Finding::ok("rss", "one queue")];
    }
    if steered {
        return vec![Finding::ok("rss", "of no matter: one thread reads all queues")];
    }
    if !xdp {
        return vec![Finding::ok(
            "rss",
            "of no matter: AF_PACKET spreads flows itself, both directions alike",
        )];
    }
    let one_queue = format!(
        "ethtool -L {name} {} 1, and --workers {queues}: our own program then spreads flows, both directions alike; or --steer",
        kind(port)
    );
    let rss = match &port.rss {
        Ok(rss) => rss,
        Err(why) => {
            let found = format!("not known: {why}");
            return vec![Finding::warning("rss", found, TWO_RECORDS).mend(one_queue)];
        }
    };
    let mut findings = Vec::new();
    findings.push(if rss.is_symmetric() {
        Finding::ok("rss key", "symmetric")
    } else if rss.key.is_empty() {
        Finding::warning("rss key", "not told by the driver", TWO_RECORDS).mend(one_queue)
    } else {
        let key = hex(&symmetric_key(rss.key.len()));
        Finding::warning("rss key", "not symmetric", TWO_RECORDS)
            .mend(format_args!("ethtool -X {name} hfunc toeplitz hkey {key}"))
            .tunable()
    });
    findings.push(table(name, rss, queues));
    if port.udp_ports_hashed == Ok(false) {
        let why = "all UDP between two hosts goes to one worker";
        let finding = Finding::note("rss fields", "UDP by its addresses alone", why);
        findings.push(finding.mend(format_args!("ethtool -N {name} rx-flow-hash udp4 sdfn")));
    }
    findings
}

fn table(name: &str, rss: &Rss, queues: u32) -> Finding {
    let entries = rss.table.len();
    if rss.is_even(queues) {
        return Finding::ok(
            "rss table",
            format_args!("{entries} entries, even over {queues} queues"),
        );
    }
    let used = rss.queues_used();
    let found = format!("{entries} entries, not even: {used} of {queues} queues are named");
    Finding::warning("rss table", found, "some workers have more to do than others, or nothing")
        .mend(format_args!("ethtool -X {name} equal {queues}"))
        .tunable()
}

/// Whether frames are merged before anybody sees them.
fn merging(port: &Port, xdp: bool) -> Vec<Finding> {
    const MERGED: &str = "frames are merged: their sizes and number are not those of the wire";
    let features = match &port.features {
        Ok(features) => features,
        Err(why) => return vec![untold("gro", *why)],
    };
    let on = |what, feature: &str, option: &str| {
        let finding = Finding::warning(what, "on", MERGED);
        if features.get(feature).is_some_and(|feature| feature.changeable) {
            finding.mend(format_args!("ethtool -K {} {option} off", port.name)).tunable()
        } else {
            finding.mend("the driver does not let it be switched off: listen on another port")
        }
    };
    let mut findings = Vec::new();
    for (what, feature) in [("lro", "rx-lro"), ("gro in hardware", "rx-gro-hw")] {
        let option = if what == "lro" { what } else { feature };
        findings.push(match features.is_on(feature) {
            true => on(what, feature, option),
            false => Finding::ok(what, "off"),
        });
    }
    findings.push(match (features.is_on("rx-gro"), xdp) {
        (true, true) => Finding::ok("gro", "on, behind AF_XDP, which has the frames before"),
        (true, false) => on("gro", "rx-gro", "gro"),
        (false, _) => Finding::ok("gro", "off"),
    });
    findings
}

/// Whether the NIC takes VLAN tags off.
fn tags(port: &Port, xdp: bool) -> Option<Finding> {
    let features = port.features.as_ref().ok()?;
    let name = &port.name;
    let on = |name| features.get(name).filter(|feature| feature.active);
    let on = [on("rx-vlan-hw-parse"), on("rx-vlan-stag-hw-parse")];
    let mut on = on.iter().flatten().peekable();
    Some(match (on.peek().is_some(), xdp) {
        (false, _) => Finding::ok("vlan offload", "off"),
        (true, false) => Finding::ok("vlan offload", "on; AF_PACKET puts tags back"),
        (true, true) => {
            let why =
                "the NIC takes VLAN tags off, and AF_XDP does not get them: records have no VLAN";
            Finding::warning("vlan offload", "on", why)
                .mend(format_args!("ethtool -K {name} rxvlan off, or --backend af-packet"))
                .tunable_if(on.all(|feature| feature.changeable))
        }
    })
}

fn mtu(port: &Port, xdp: bool) -> Finding {
    let mtu = port.interface.mtu;
    if xdp && mtu > BUFFER_MTU_MAX {
        let why = "frames come in several buffers and are put together by a copy; the driver must know how";
        return Finding::note("mtu", mtu, why).mend(format_args!(
            "ip link set {} mtu {BUFFER_MTU_MAX}, where no frame is longer",
            port.name
        ));
    }
    Finding::ok("mtu", mtu)
}

fn promiscuous(port: &Port) -> Finding {
    match port.interface.promiscuity {
        0 => Finding::ok("promiscuous", "off; it is on while flowscope listens"),
        1 => Finding::ok("promiscuous", "on"),
        users => Finding::ok("promiscuous", format_args!("on, wanted {users} times")),
    }
}

/// Who else has the port.
fn host(port: &Port, xdp: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let addresses = &port.interface.addresses;
    let why = "the host uses the port: AF_XDP takes its frames away, and is refused without --take-traffic";
    if !addresses.is_empty() {
        let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let finding = Finding::note("addresses", list.join(", "), why);
        findings.push(finding.mend("listen on a port that is a mirror's alone"));
    }
    if let Some(master) = port.interface.master {
        let finding = Finding::note("master", format_args!("interface {master}"), why);
        findings.push(finding.mend("listen on a port that is a mirror's alone"));
    }
    if let Some(program) = port.interface.program {
        let why = "another program has the frames first, and AF_XDP is refused";
        let finding = if xdp { Finding::warning } else { Finding::note };
        findings.push(
            finding("xdp program", format_args!("number {program}"), why)
                .mend("bpftool net shows whose it is"),
        );
    }
    findings
}

fn pause(port: &Port) -> Finding {
    let pause = match port.pause {
        Ok(pause) => pause,
        Err(why) => return untold("pause frames", why),
    };
    let mend = format!("ethtool -A {} autoneg off rx off tx off", port.name);
    if pause.transmit {
        let why = "when we are slow the NIC asks the switch to stop: the sensor slows down what it watches";
        return Finding::warning("pause frames", "sent", why).mend(mend).tunable();
    }
    if pause.receive {
        let why = "of no use to a port that only receives";
        return Finding::note("pause frames", "obeyed", why).mend(mend).tunable();
    }
    Finding::ok("pause frames", "off")
}

fn numa(port: &Port, situation: &Situation<'_>) -> Option<Finding> {
    let node = port.node?;
    if situation.far.is_empty() {
        return Some(Finding::ok("numa", format_args!("node {node}")));
    }
    let far = listed(&situation.far);
    let why = "every frame is fetched from another node's memory";
    Some(
        Finding::warning("numa", format_args!("node {node}; cores {far} are on another"), why)
            .mend(format_args!(
                "choose among the cores of /sys/devices/system/node/node{node}/cpulist"
            )),
    )
}

fn left(left: &Left) -> Finding {
    let changes: Vec<_> = left.changes.iter().map(ToString::to_string).collect();
    let (changes, process) = (changes.join("; "), left.process);
    if left.is_running() {
        return Finding::ok("tuned", format_args!("by process {process}, which runs: {changes}"));
    }
    let why = "a run with --tune was killed before it could put the port back as it was";
    Finding::warning("tuned", format_args!("by process {process}, which is gone: {changes}"), why)
        .mend("flowscope restore")
}

/// As ethtool takes a key.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A port as it should be, for tests to make worse.
#[cfg(test)]
pub(super) fn good_port() -> Port {
    use crate::capture::nic::{Channels, Driver, Interface, Pause, Ring, round_robin};
    let features =
        [("rx-gro", false), ("rx-gro-hw", false), ("rx-lro", false), ("rx-vlan-hw-parse", false)];
    Port {
        name: "eth9".to_owned(),
        interface: Interface {
            index: 9,
            mtu: 1500,
            queues: 4,
            is_ethernet: true,
            is_up: true,
            has_carrier: true,
            ..Interface::default()
        },
        driver: Ok(Driver { name: "ixgbe".to_owned(), ..Driver::default() }),
        speed_mbit: Ok(Some(10_000)),
        channels: Ok(Channels { rx: 0, combined: 4, rx_max: 0, combined_max: 8 }),
        ring: Ok(Ring { frames: 4096, frames_max: 4096 }),
        pause: Ok(Pause::default()),
        rss: Ok(Rss {
            table: round_robin(128, 4),
            key: symmetric_key(40),
            function: Rss::TOEPLITZ,
            transform: 0,
        }),
        udp_ports_hashed: Ok(true),
        features: Ok(features.into_iter().collect()),
        node: Some(0),
    }
}

/// The worst of a list.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::nic::{Channels, Features, Interface, Pause, Ring, round_robin};

    fn situation(backend: Backend) -> Situation<'static> {
        let cores = (0..8).collect();
        let (far, left) = (Vec::new(), None);
        Situation { backend, why: "a test".to_owned(), steered: false, cores, far, left }
    }

    /// What is not as it should be, in one line each.
    fn complaints(port: &Port, situation: &Situation<'_>) -> Vec<String> {
        let line = |f: Finding| {
            let severity = if f.severity == Severity::Warning { "WARNING" } else { "note" };
            format!("{severity} {}: {} ({})", f.what, f.found, f.mend.unwrap_or_default())
        };
        let findings = of(port, situation).into_iter();
        findings.filter(|finding| finding.severity != Severity::Ok).map(line).collect()
    }

    fn xdp(change: impl FnOnce(&mut Port)) -> Vec<String> {
        let mut port = good_port();
        change(&mut port);
        complaints(&port, &situation(Backend::AfXdp))
    }

    fn packet(change: impl FnOnce(&mut Port)) -> Vec<String> {
        let mut port = good_port();
        change(&mut port);
        complaints(&port, &situation(Backend::AfPacket))
    }

    #[test]
    fn nothing_is_said_against_a_port_that_is_as_it_should_be() {
        assert_eq!(xdp(|_| ()), [""; 0]);
        assert_eq!(packet(|_| ()), [""; 0]);
        let findings = of(&good_port(), &situation(Backend::AfXdp));
        for what in
            ["link", "queues", "ring", "rss key", "rss table", "gro", "vlan offload", "promiscuous"]
        {
            assert!(findings.iter().any(|finding| finding.what == what), "{what} is not told");
        }
    }

    #[test]
    fn a_link_that_is_down_is_told_from_one_without_a_carrier() {
        assert_eq!(
            xdp(|p| p.interface.is_up = false),
            ["WARNING link: set down (ip link set eth9 up)"]
        );
        let found = xdp(|p| p.interface.has_carrier = false);
        assert!(found[0].starts_with("WARNING link: up, without a carrier"), "{found:?}");
    }

    #[test]
    fn what_is_merged_in_the_nic_is_wrong_for_all_and_gro_for_who_comes_after_it() {
        let features = |name: &'static str| {
            move |p: &mut Port| {
                p.features = Ok([(name, true)].into_iter().collect::<Features>());
            }
        };
        assert_eq!(xdp(features("rx-lro")), ["WARNING lro: on (ethtool -K eth9 lro off)"]);
        assert_eq!(packet(features("rx-lro")), ["WARNING lro: on (ethtool -K eth9 lro off)"]);
        assert_eq!(
            packet(features("rx-gro-hw")),
            ["WARNING gro in hardware: on (ethtool -K eth9 rx-gro-hw off)"]
        );
        assert_eq!(packet(features("rx-gro")), ["WARNING gro: on (ethtool -K eth9 gro off)"]);
        assert_eq!(xdp(features("rx-gro")), [""; 0]);
    }

    #[test]
    fn tags_that_the_nic_takes_off_are_lost_to_af_xdp_alone() {
        let on = |p: &mut Port| {
            p.features = Ok([("rx-vlan-hw-parse", true)].into_iter().collect::<Features>());
        };
        assert_eq!(packet(on), [""; 0]);
        let found = xdp(on);
        assert!(
            found[0].starts_with("WARNING vlan offload: on (ethtool -K eth9 rxvlan off"),
            "{found:?}"
        );
    }

    #[test]
    fn an_unsymmetric_key_has_the_one_that_would_do_as_its_mend() {
        let skewed = |p: &mut Port| p.rss.as_mut().unwrap().key[3] ^= 1;
        assert_eq!(packet(skewed), [""; 0], "AF_PACKET spreads flows itself");
        let found = xdp(skewed);
        let key = ["6d:5a"; 20].join(":");
        assert_eq!(
            found,
            [format!("WARNING rss key: not symmetric (ethtool -X eth9 hfunc toeplitz hkey {key})")]
        );
        assert_eq!(
            xdp(|p| {
                skewed(p);
                p.interface.queues = 1;
            }),
            [""; 0],
            "one queue has both directions"
        );
        let mut port = good_port();
        skewed(&mut port);
        let steered = Situation { steered: true, ..situation(Backend::AfXdp) };
        assert_eq!(complaints(&port, &steered), [""; 0], "one thread has both directions");
        assert!(
            xdp(|p| p.rss = Err(Untold::Unsupported))[0].contains("combined 1, and --workers 4")
        );
    }

    #[test]
    fn a_table_that_leaves_a_queue_out_is_told_with_how_many_it_names() {
        let found = xdp(|p| p.rss.as_mut().unwrap().table = round_robin(128, 3));
        assert_eq!(
            found,
            [
                "WARNING rss table: 128 entries, not even: 3 of 4 queues are named (ethtool -X eth9 equal 4)"
            ]
        );
    }

    #[test]
    fn a_short_ring_is_worse_than_one_that_could_be_longer() {
        let ring = |frames| move |p: &mut Port| p.ring = Ok(Ring { frames, frames_max: 4096 });
        assert_eq!(xdp(ring(512)), ["WARNING ring: 512 of 4096 frames (ethtool -G eth9 rx 4096)"]);
        assert_eq!(xdp(ring(2048)), ["note ring: 2048 of 4096 frames (ethtool -G eth9 rx 4096)"]);
        assert_eq!(xdp(ring(4096)), [""; 0]);
        assert_eq!(xdp(|p| p.ring = Err(Untold::Unsupported)), [""; 0]);
    }

    #[test]
    fn pause_frames_that_we_send_slow_down_what_is_watched() {
        let pause = |transmit| {
            move |p: &mut Port| {
                p.pause = Ok(Pause { negotiated: true, receive: true, transmit });
            }
        };
        assert!(xdp(pause(true))[0].starts_with("WARNING pause frames: sent"));
        assert!(xdp(pause(false))[0].starts_with("note pause frames: obeyed"));
    }

    #[test]
    fn more_queues_than_cores_and_a_long_mtu_are_notes() {
        let mut few = situation(Backend::AfXdp);
        few.cores = vec![0, 1];
        let found = complaints(&good_port(), &few);
        assert_eq!(
            found,
            [
                "note queues: 4 of 8, 2 cores for workers (ethtool -L eth9 combined 2, or --workers 2)"
            ]
        );
        let mut port = good_port();
        port.channels = Ok(Channels { rx: 4, rx_max: 4, ..Channels::default() });
        assert!(complaints(&port, &few)[0].contains("ethtool -L eth9 rx 2"));
        assert!(xdp(|p| p.interface.mtu = 9000)[0].starts_with("note mtu: 9000"));
        assert_eq!(packet(|p| p.interface.mtu = 9000), [""; 0]);
        assert_eq!(xdp(|p| p.interface.mtu = BUFFER_MTU_MAX), [""; 0]);
    }

    #[test]
    fn cores_on_another_node_than_the_nic_are_named() {
        let mut far = situation(Backend::AfXdp);
        far.far = vec![4, 5];
        let found = complaints(&good_port(), &far);
        assert!(
            found[0].starts_with("WARNING numa: node 0; cores 4-5 are on another"),
            "{found:?}"
        );
    }

    #[test]
    fn what_the_host_uses_is_a_note_and_a_program_before_ours_a_warning() {
        let found = xdp(|p| p.interface.addresses = vec!["10.0.0.1".parse().unwrap()]);
        assert!(found[0].starts_with("note addresses: 10.0.0.1"), "{found:?}");
        assert!(
            xdp(|p| p.interface.program = Some(7))[0].starts_with("WARNING xdp program: number 7")
        );
        assert!(packet(|p| p.interface.program = Some(7))[0].starts_with("note xdp program"));
    }

    #[test]
    fn every_warning_says_why_and_what_to_do() {
        let mut port = good_port();
        port.interface = Interface { program: Some(1), queues: 4, ..Interface::default() };
        port.ring = Ok(Ring { frames: 64, frames_max: 4096 });
        port.pause = Ok(Pause { transmit: true, ..Pause::default() });
        port.rss.as_mut().unwrap().key[0] = 0;
        port.rss.as_mut().unwrap().table[0] = 9;
        let all = ["rx-lro", "rx-gro-hw", "rx-gro", "rx-vlan-hw-parse"].map(|name| (name, true));
        port.features = Ok(all.into_iter().collect());
        let found = of(&port, &situation(Backend::AfXdp));
        let warnings: Vec<_> = found.iter().filter(|f| f.severity == Severity::Warning).collect();
        assert!(warnings.len() >= 7, "{warnings:#?}");
        for finding in warnings {
            assert!(!finding.why.is_empty() && finding.mend.is_some(), "{finding:#?}");
        }
    }
}
