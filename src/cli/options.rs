//! Parsed arguments → one validated value. What is refused here is refused before a file is opened.

use super::args::{CommonArgs, DoctorArgs, LiveArgs, ReplayArgs, Workers};
use std::time::Duration;

use crate::capture::filter::{Filter, FilterError};
use crate::capture::shunt::ShuntPorts;
use crate::flow::config::ConfigError;
use crate::flow::{ByFiveTuple, TrackerConfig};
use crate::sensor::backends::{Backend, Wanted};
use crate::sensor::cores::CoreError;
use crate::sensor::options::{DoctorOptions, LiveOptions, Output, ReplayOptions};
use crate::sensor::shunt::ShuntWanted;

/// The shortest idle timeout of flows that may be shunted: several times what their counts take to be told.
const SHUNT_IDLE_MIN: Duration = Duration::from_secs(1);

/// Why a command line was refused.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Two outputs of the same place.
    #[error("the output {0} is given twice: give each place once")]
    OutputTwice(String),
    /// Two captures of the same port.
    #[error("the interface {0} is given twice: its frames would be counted twice")]
    InterfaceTwice(String),
    /// Cores that there are not, or not for us.
    #[error(transparent)]
    Cores(#[from] CoreError),
    /// A filter that does not compile.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A tracker that cannot be.
    #[error("{}", tracker_refused(.0))]
    Tracker(ConfigError),
    /// Fewer flows than workers.
    #[error(
        "--max-flows {max_flows} is less than --workers {workers}: give each worker one at least"
    )]
    FewerFlowsThanWorkers {
        /// Flows of all workers.
        max_flows: usize,
        /// Workers.
        workers: usize,
    },
    /// What only one backend has, with another one.
    #[error(
        "{option} with --backend {}: it is of {} alone: add --backend {}, or leave out {option}",
        found.label(), only.label(), only.label()
    )]
    OfAnotherBackend {
        /// What was asked for.
        option: &'static str,
        /// Whose it is.
        only: Backend,
        /// What is to capture.
        found: Backend,
    },
    /// The NIC's own times, which we have no way to ask for in an XDP program.
    #[error(
        "--hardware-times with --backend af-xdp: it is of af-packet alone, because the NIC tells its time only to a program that \
         is loaded for that one port (bpf_xdp_metadata_rx_timestamp, Linux 6.3), and our loader (aya 0.14) can neither \
         say which port nor call that function: add --backend af-packet, or leave out --hardware-times"
    )]
    HardwareTimesByXdp,
    /// A reader that is not told for how many.
    #[error("--steer: say how many workers it steers to, by --workers N")]
    SteerWithoutWorkers,
    /// Flows that are counted whole, of frames that are judged one by one.
    #[error(
        "--shunt-above with --filter: the filter judges frames one by one, in user space, and shunted ones do not get there: \
         leave out one of them"
    )]
    ShuntFiltered,
    /// Flows that are counted for who reads, where others track.
    #[error(
        "--shunt-above with --steer: only workers that read for themselves have flows shunted: leave out one of them"
    )]
    ShuntSteered,
    /// Flows that would be over before they are looked at.
    #[error(
        "--shunt-above with --idle-timeout {name}=…: the counts of shunted flows are told 20 times a second: give at least 1s"
    )]
    ShuntIdle {
        /// The timeout's name.
        name: &'static str,
    },
}

fn tracker_refused(error: &ConfigError) -> String {
    match error {
        ConfigError::MaxFlows(found) => {
            format!("--max-flows {found}: choose 1 to {}", TrackerConfig::MAX_FLOWS)
        }
        other => other.to_string(),
    }
}

/// What [`CommonArgs`] come to.
struct Common {
    filter: Option<Filter>,
    extractor: ByFiveTuple,
    tracker: TrackerConfig,
}

fn common(args: &CommonArgs, workers: usize, steer: bool) -> Result<Common, UsageError> {
    for (index, output) in args.outputs.iter().enumerate() {
        if args.outputs[..index].contains(output) {
            let Output::Jsonl(target) = output;
            return Err(UsageError::OutputTwice(target.name()));
        }
    }
    if let Some(cores) = &args.cores {
        cores.check()?;
        let cores = cores.cores().len();
        if cores < workers {
            return Err(CoreError::Fewer { cores, workers }.into());
        }
        if steer && cores <= workers {
            return Err(CoreError::FewerSteered { cores, threads: workers + 1 }.into());
        }
    }
    let mut tracker = TrackerConfig {
        max_flows: args.max_flows,
        active_timeout: args.active_timeout,
        key_hash: args.flow_hash.into(),
        ..TrackerConfig::default()
    };
    args.idle_timeout.iter().for_each(|timeout| timeout.apply(&mut tracker.idle));
    tracker.validate().map_err(UsageError::Tracker)?;
    if args.max_flows < workers {
        let max_flows = args.max_flows;
        return Err(UsageError::FewerFlowsThanWorkers { max_flows, workers });
    }
    Ok(Common {
        filter: args.filter.as_deref().map(Filter::compile).transpose()?,
        extractor: ByFiveTuple { vlan: args.key_vlan, interface: args.key_interface },
        tracker,
    })
}

/// Validates arguments of `replay`.
pub fn replay(args: ReplayArgs) -> Result<ReplayOptions, UsageError> {
    let workers = usize::from(args.workers);
    let Common { filter, extractor, tracker } = common(&args.common, workers, false)?;
    Ok(ReplayOptions {
        files: args.files,
        cores: args.common.cores,
        outputs: args.common.outputs,
        summary: args.common.summary,
        community_id: !args.common.no_community_id,
        speed: args.speed,
        reassemble: args.reassemble,
        workers,
        filter,
        extractor,
        tracker,
        metrics: args.common.metrics,
        hold: args.hold,
        progress: !args.no_progress,
    })
}

/// Validates arguments of `live`.
pub fn live(args: LiveArgs) -> Result<LiveOptions, UsageError> {
    let Workers(workers) = args.workers;
    if args.steer && workers.is_none() {
        return Err(UsageError::SteerWithoutWorkers);
    }
    let Common { filter, extractor, tracker } =
        common(&args.common, workers.unwrap_or(1), args.steer)?;
    for (index, name) in args.interfaces.iter().enumerate() {
        if args.interfaces[..index].contains(name) {
            return Err(UsageError::InterfaceTwice(name.clone()));
        }
    }
    let backend = args.backend.into();
    if args.hardware_times && backend == Backend::AfXdp {
        return Err(UsageError::HardwareTimesByXdp);
    }
    let of_one = [
        ("--busy-poll", args.busy_poll.is_some(), Backend::AfXdp),
        ("--shunt-above", args.shunt_above.is_some(), Backend::AfXdp),
        ("--hardware-times", args.hardware_times, Backend::AfPacket),
        ("--fanout", args.fanout.is_some(), Backend::AfPacket),
    ];
    for (option, is_wanted, only) in of_one {
        if is_wanted && backend != only {
            return Err(UsageError::OfAnotherBackend { option, only, found: backend });
        }
    }
    if args.shunt_above.is_some() {
        if filter.is_some() {
            return Err(UsageError::ShuntFiltered);
        }
        if args.steer {
            return Err(UsageError::ShuntSteered);
        }
        let idle = &tracker.idle;
        for (name, timeout) in [("tcp-established", idle.tcp_established), ("udp", idle.udp)] {
            if timeout < SHUNT_IDLE_MIN {
                return Err(UsageError::ShuntIdle { name });
            }
        }
    }
    let shunt = args.shunt_above.map(|above_bytes| ShuntWanted {
        above_bytes,
        by_vlan: extractor.vlan,
        ports: ShuntPorts::default(),
    });
    Ok(LiveOptions {
        wanted: Wanted {
            shunt,
            interfaces: args.interfaces,
            backend,
            workers,
            steer: args.steer,
            take_traffic: args.take_traffic,
            busy_poll_micros: args.busy_poll,
            fanout: args.fanout.unwrap_or_default(),
            hardware_times: args.hardware_times,
            filter,
        },
        tune: args.tune,
        state_dir: args.state.state_dir,
        cores: args.common.cores,
        outputs: args.common.outputs,
        summary: args.common.summary,
        community_id: !args.common.no_community_id,
        extractor,
        tracker,
        metrics: args.common.metrics,
        user: args.user,
    })
}

/// Validates arguments of `doctor`.
pub fn doctor(args: DoctorArgs) -> DoctorOptions {
    DoctorOptions {
        interfaces: args.interfaces,
        backend: args.backend.into(),
        state_dir: args.state.state_dir,
        json: args.json,
    }
}
