//! The ports of a live run: what they are like, what stands against it, and setting them for it.
//!
//! | part | noun |
//! |---|---|
//! | [`findings`] | what was read → what is well, worth knowing, or wrong: pure |
//! | [`system`] | the same about the machine: rights, limits, clock |
//! | [`tune`] | what is to be changed, changing it, putting it back |
//! | [`state`] | how ports were, in a file, for when we cannot put it back ourselves |
//! | [`report`] | findings for people and as JSON |
//!
//! Contract: [`doctor`] changes nothing. What [`prepare`] changes it wrote down before, logs as old → new, and puts back when
//! its [`Prepared`] goes. A port that is not there is for the backend to refuse.

pub mod findings;
pub mod report;
pub mod state;
pub mod system;
pub mod tune;

mod expected;

use anyhow::Context;

use super::cores;
use super::options::{DoctorOptions, LiveOptions};
use super::stop::Stop;
use crate::capture::nic::{Nic, Port, port_names};
use findings::{Finding, Severity, Situation};
use report::Report;
use state::{Left, StateDir};
use system::System;
use tune::Tuned;

/// Looks, prints what it found, and gives the worst of it.
///
/// # Errors
/// When there is no interface of a name, or nothing can be printed.
pub fn doctor(options: &DoctorOptions) -> anyhow::Result<Severity> {
    let names = match &options.interfaces[..] {
        [] => port_names().context("the kernel does not tell which interfaces there are")?,
        named => named.to_vec(),
    };
    let (state, left) = StateDir::look(&options.state_dir);
    let mut report = Report::new(System::read().findings());
    for name in names {
        let port = Port::read(&name).with_context(|| {
            format!(
                "{name}: no such interface: name one that `ip link` shows in this network namespace"
            )
        })?;
        let (backend, why) = expected::backend(options.backend, &name, false);
        let situation = Situation {
            backend,
            why,
            steered: false,
            cores: cores::allowed(),
            far: Vec::new(),
            left: left.iter().find(|left| state.is_of(left, &port)),
        };
        report.ports.push((name, findings::of(&port, &situation)));
    }
    report.print(options.json)?;
    Ok(report.worst())
}

/// Puts back what runs left behind that were killed.
///
/// # Errors
/// When some of it could not be.
pub fn restore(state_dir: &std::path::Path) -> anyhow::Result<()> {
    let (state, left) = StateDir::look(state_dir);
    let mut failed = 0;
    for left in &left {
        if left.is_running() {
            tracing::info!(
                interface = left.interface,
                "is set by process {}, which runs and will put it back itself",
                left.process
            );
        } else if !state.put_back(left) {
            failed += 1;
        }
    }
    if left.is_empty() {
        tracing::info!("nothing was left behind in {}", state_dir.display());
    }
    anyhow::ensure!(failed == 0, "{failed} of {} ports could not be put back", left.len());
    Ok(())
}

/// The ports of a run, as they are set for it. Puts back what was changed when it goes.
#[derive(Debug, Default)]
pub struct Prepared {
    _tuned: Vec<Tuned>,
}

/// Looks at the ports of a run, sets them where that is asked for, and says what stands against them then.
///
/// # Errors
/// When they are to be set and cannot be: nothing is changed then.
pub fn prepare(options: &LiveOptions, stop: &Stop) -> anyhow::Result<Prepared> {
    let wanted = &options.wanted;
    let (state, left) = StateDir::look(&options.state_dir);
    let mut tuned = Vec::new();
    for name in &wanted.interfaces {
        // The backend refuses it by name.
        let Ok(mut port) = Port::read(name) else { continue };
        let (backend, why) = expected::backend(wanted.backend, name, wanted.take_traffic);
        let mut left = left.iter().find(|left| state.is_of(left, &port));
        if options.tune {
            if let Some(left) = left.take() {
                recover(&state, left)?;
                port = Port::read(name)?;
            }
            let port_tuned = Tuned::apply(&state, &port, backend)?;
            let put_back = port_tuned.put_back();
            stop.before_exit_at_once(move || put_back.now());
            tuned.push(port_tuned);
            port = Port::read(name)?;
        }
        let asked = options.cores.as_ref().map(|list| list.cores().to_vec());
        let node = |core: &usize| cores::node_of(*core);
        let is_far = |core: &usize| port.node.zip(node(core)).is_some_and(|(nic, own)| nic != own);
        let situation = Situation {
            backend,
            why,
            steered: wanted.steer,
            far: asked.iter().flatten().copied().filter(is_far).collect(),
            cores: asked.unwrap_or_else(cores::allowed),
            left,
        };
        warn(name, &findings::of(&port, &situation), options.tune);
    }
    warn("system", &System::read().findings(), options.tune);
    Ok(Prepared { _tuned: tuned })
}

/// Before a port is set anew: or it would be remembered as it was set the last time.
fn recover(state: &StateDir, left: &Left) -> anyhow::Result<()> {
    let name = &left.interface;
    anyhow::ensure!(
        !left.is_running(),
        "--tune: {name} is set by process {} already: end it, or run without --tune",
        left.process
    );
    anyhow::ensure!(
        state.put_back(left),
        "--tune: {name} could not be put back as it was before a run that was killed: set it by hand, and remove {}",
        state.path_of(left).display()
    );
    Ok(())
}

/// One line a warning, one after the other.
fn warn(about: &str, findings: &[Finding], tuned: bool) {
    let warnings = || findings.iter().filter(|finding| finding.severity == Severity::Warning);
    for Finding { what, found, why, mend, .. } in warnings() {
        let mend = mend.as_ref().map(|mend| format!("; {mend}")).unwrap_or_default();
        tracing::warn!("{about}: {what}: {found}: {why}{mend}");
    }
    if !tuned && warnings().any(|finding| finding.tunable) {
        tracing::warn!("{about}: --tune sets what can be set, and puts it back at the end");
    }
}

/// Cores on the NUMA nodes of these interfaces.
pub fn cores_near(interfaces: &[String]) -> Vec<usize> {
    let node = |name: &String| Nic::open(name).ok()?.driver().ok()?.node();
    interfaces.iter().filter_map(node).flat_map(cores::of_node).collect()
}
