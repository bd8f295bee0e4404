//! Which backend a live run has, chosen once: from there on everything is generic over it.
//!
//! Contract: the only place that knows which backends this build has. An interface that cannot be opened is refused with
//! what to do about it; nothing stays attached then.

use crate::capture::CaptureError;
use crate::capture::fanout::FanoutMode;
use crate::capture::filter::Filter;
use crate::capture::live::LiveCapture;
use crate::frame::LinkType;
use crate::sensor::shunt::ShuntWanted;

/// A way to get at frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The best that the ports allow.
    Auto,
    /// AF_XDP with our own program.
    AfXdp,
    /// AF_PACKET with a ring.
    AfPacket,
    /// libpcap.
    Pcap,
}

impl Backend {
    /// As the command line spells it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::AfXdp => "af-xdp",
            Self::AfPacket => "af-packet",
            Self::Pcap => "pcap",
        }
    }
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Interfaces, by name: one, or one for each direction of a TAP.
    pub interfaces: Vec<String>,
    /// How.
    pub backend: Backend,
    /// How many workers; `None` for as many as an interface has queues.
    pub workers: Option<usize>,
    /// Whether one reader steers to them, or each reads for itself.
    pub steer: bool,
    /// Whether frames may be taken from the host's own stack.
    pub take_traffic: bool,
    /// For how many microseconds AF_XDP polls the driver before it sleeps; `None` leaves that to interrupts.
    pub busy_poll_micros: Option<u32>,
    /// How the kernel spreads frames over workers that each read for themselves, by AF_PACKET.
    pub fanout: FanoutMode,
    /// Whether frames are to have the NIC's own time, by AF_PACKET.
    pub hardware_times: bool,
    /// Which frames are wanted, for backends that can say so in the kernel as well. What they let through is filtered again.
    pub filter: Option<Filter>,
    /// Which flows are shunted, by AF_XDP; where workers read for themselves.
    pub shunt: Option<ShuntWanted>,
}

impl Wanted {
    /// How many read the `queues` of an interface.
    pub fn readers(&self, queues: usize) -> usize {
        if self.steer { 1 } else { self.workers.unwrap_or(queues) }
    }
}

/// A capture, and what its queue is called.
#[derive(Debug)]
pub struct Opened<C> {
    /// It.
    pub capture: C,
    /// The interface, as it was named.
    pub interface: String,
    /// The queue: a label.
    pub queue: String,
}

/// Who has the captures.
#[derive(Debug)]
pub enum Dealt<C> {
    /// Each worker its own.
    Workers(Vec<Vec<Opened<C>>>),
    /// One reader all of them, for so many workers.
    Reader(Vec<Opened<C>>, usize),
}

/// What is done with the captures: the same for every backend.
pub trait Run {
    /// What comes of it.
    type Out;

    /// The captures, and how to open an interface again.
    fn run<C: LiveCapture + Send + 'static>(self, captures: Dealt<C>, again: Again<C>)
    -> Self::Out;
}

/// Opens an interface again, by its place on the command line: all of its captures.
pub type Again<C> = Box<dyn FnMut(usize) -> Result<Vec<Opened<C>>, CaptureError> + Send>;

/// Opens an interface, by its place on the command line.
type Open<C> = fn(&Wanted, usize) -> Result<Vec<Opened<C>>, CaptureError>;

/// Why nothing could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An interface was refused.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The build does not have it.
    #[error("--backend {}: this build does not have it: build with --features {feature}, on Linux", backend.label())]
    Absent {
        /// What was asked for.
        backend: Backend,
        /// What would bring it.
        feature: &'static str,
    },
    /// No backend at all.
    #[error("this build has no live backend: build with --features sensor")]
    None,
}

/// Opens what is wanted and runs with it.
///
/// # Errors
/// [`OpenError`]; `run` was not called then.
pub fn open<R: Run>(wanted: &Wanted, run: R) -> Result<R::Out, OpenError> {
    match wanted.backend {
        Backend::AfXdp => af_xdp::run(wanted, run).map_err(|(error, _)| error),
        Backend::AfPacket => af_packet::run(wanted, run).map_err(|(error, _)| error),
        Backend::Pcap => pcap::run(wanted, run).map_err(|(error, _)| error),
        Backend::Auto => best(wanted, run),
    }
}

/// Opens by the first backend that will do, and says why the others did not. The refusal is that of the first one which
/// this build has and which asks for nothing of the interface but frames.
fn best<R: Run>(wanted: &Wanted, run: R) -> Result<R::Out, OpenError> {
    let told = |next: &str, refusal: &OpenError| {
        if !matches!(refusal, OpenError::Absent { .. }) {
            tracing::info!("{next}: {refusal}");
        }
    };
    let (by_af_xdp, run) = match af_xdp::run(wanted, run) {
        Ok(out) => return Ok(out),
        Err(refused) => refused,
    };
    told("AF_PACKET is taken, because AF_XDP will not do here", &by_af_xdp);
    let (by_af_packet, run) = match af_packet::run(wanted, run) {
        Ok(out) => return Ok(out),
        Err(refused) => refused,
    };
    told("libpcap is tried, because AF_PACKET will not do here", &by_af_packet);
    pcap::run(wanted, run).map_err(|(by_pcap, _)| {
        let refusals = [by_af_packet, by_pcap, by_af_xdp];
        let is_there = |refusal: &OpenError| !matches!(refusal, OpenError::Absent { .. });
        refusals.into_iter().find(is_there).unwrap_or(OpenError::None)
    })
}

/// Opens every interface by `open` and runs with the captures, all for the reader, or dealt to as many workers as were asked for, or
/// as an interface has captures; gives `run` back where one cannot be opened.
fn start<C: LiveCapture + Send + 'static, R: Run>(
    wanted: &Wanted,
    open: Open<C>,
    run: R,
) -> Result<R::Out, (OpenError, R)> {
    let opened: Result<Vec<_>, _> =
        (0..wanted.interfaces.len()).map(|id| open(wanted, id)).collect();
    match opened {
        Ok(interfaces) => {
            let most = interfaces.iter().map(Vec::len).max().unwrap_or(1);
            let workers = wanted.workers.unwrap_or(most);
            let dealt = if wanted.steer {
                Dealt::Reader(interfaces.into_iter().flatten().collect(), workers)
            } else {
                Dealt::Workers(deal(workers, interfaces))
            };
            let wanted = wanted.clone();
            Ok(run.run(dealt, Box::new(move |id| open(&wanted, id))))
        }
        Err(error) => Err((error.into(), run)),
    }
}

/// A configuration that a backend refuses: of what we choose ourselves, only the number of workers can be why.
fn unfit(
    interface: &str,
    what: String,
    error: impl std::error::Error + Send + Sync + 'static,
) -> CaptureError {
    CaptureError::Live {
        interface: interface.to_owned(),
        what,
        error: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
        mend: "ask for fewer --workers".to_owned(),
    }
}

/// Says at the start what no frame will show: a filter in the kernel lets none through.
fn warn_of_nothing(interface: &str, filter: &Filter, link: LinkType) {
    if !filter.covers(link) {
        let filter = filter.expression();
        tracing::warn!(filter, "{interface}: the filter means nothing on {link}: no frame comes");
    }
}

/// Deals an interface's captures to the workers: number `i` to worker `i` modulo their number, so that worker `i` has
/// queue `i` of every interface.
fn deal<C>(workers: usize, interfaces: Vec<Vec<Opened<C>>>) -> Vec<Vec<Opened<C>>> {
    let mut dealt: Vec<Vec<Opened<C>>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    for captures in interfaces {
        for (number, capture) in captures.into_iter().enumerate() {
            dealt[number % workers.max(1)].push(capture);
        }
    }
    dealt.retain(|captures| !captures.is_empty());
    dealt
}

#[cfg(all(feature = "af-xdp", target_os = "linux"))]
mod af_xdp {
    use std::time::Duration;

    use super::{OpenError, Opened, Run, Wanted, start, unfit};
    use crate::capture::CaptureError;
    use crate::capture::af_xdp::{AfXdp, BusyPoll, Config};
    use crate::capture::nic::receive_queues;
    use crate::capture::shunt::{SHUNTS_MAX, ShuntConfig};

    pub(super) fn run<R: Run>(wanted: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        start(wanted, open, run)
    }

    fn open(wanted: &Wanted, id: usize) -> Result<Vec<Opened<AfXdp>>, CaptureError> {
        let name = &wanted.interfaces[id];
        let queues = receive_queues(name);
        let readers = wanted.readers(queues);
        let sockets = readers.div_ceil(queues);
        let budget = BusyPoll::BUDGET_USUAL;
        let busy_poll = wanted.busy_poll_micros.map(|micros| BusyPoll { micros, budget });
        let shunt = wanted.shunt.as_ref().map(|shunt| ShuntConfig {
            readers: readers as u32,
            by_vlan: shunt.by_vlan,
            flows_max: SHUNTS_MAX,
        });
        let mut config = Config::builder()
            .sockets_per_queue(sockets as u32)
            .shunt(shunt)
            .take_traffic(wanted.take_traffic)
            .busy_poll(busy_poll);
        if wanted.interfaces.len() > 1 || queues > readers {
            // Who has several captures waits for all of them together.
            config = config.wait(Duration::ZERO).spin(Duration::ZERO);
        }
        let config = config.build().map_err(|error| {
            unfit(name, format!("{readers} workers for {queues} queues"), error)
        })?;
        let captures = AfXdp::open(name, id as u16, &config)?;
        let table = captures.first().and_then(AfXdp::shunts);
        if let (Some(shunt), Some(table)) = (&wanted.shunt, table) {
            shunt.ports.set(id, table);
        }
        let opened = captures.into_iter().map(|capture| {
            let queue = match sockets {
                1 => capture.queue().to_string(),
                _ => format!("{}.{}", capture.queue(), capture.socket()),
            };
            Opened { capture, interface: name.clone(), queue }
        });
        Ok(opened.collect())
    }
}

#[cfg(not(all(feature = "af-xdp", target_os = "linux")))]
mod af_xdp {
    use super::{Backend, OpenError, Run, Wanted};

    pub(super) fn run<R: Run>(_: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        Err((OpenError::Absent { backend: Backend::AfXdp, feature: "sensor,af-xdp" }, run))
    }
}

#[cfg(all(feature = "af-packet", target_os = "linux"))]
mod af_packet {
    use std::time::Duration;

    use super::{OpenError, Opened, Run, Wanted, start, unfit, warn_of_nothing};
    use crate::capture::CaptureError;
    use crate::capture::af_packet::{AfPacket, Config, Fanout, Instruction, Times, link_type};
    use crate::capture::nic::receive_queues;

    pub(super) fn run<R: Run>(wanted: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        start(wanted, open, run)
    }

    /// As many sockets on each interface as there are workers that read; the kernel spreads flows over them.
    fn open(wanted: &Wanted, id: usize) -> Result<Vec<Opened<AfPacket>>, CaptureError> {
        let name = &wanted.interfaces[id];
        let readers = wanted.readers(receive_queues(name));
        let mut config = Config::builder();
        if wanted.interfaces.len() > 1 {
            config = config.wait(Duration::ZERO);
        }
        if readers > 1 {
            // A group of our own: numbers are those of the network namespace.
            let group = (std::process::id() as u16).wrapping_add(id as u16);
            config = config.fanout(Some(Fanout { group, mode: wanted.fanout }));
        }
        if wanted.hardware_times {
            config = config.times(Times::Hardware);
        }
        if let Some(program) = in_kernel(wanted, name)? {
            config = config.filter(program);
        }
        let config =
            config.build().map_err(|error| unfit(name, format!("{readers} workers"), error))?;
        let group = AfPacket::open_group(name, id as u16, &config, readers)?;
        let one = |(number, capture): (usize, _)| Opened {
            capture,
            interface: name.clone(),
            queue: number.to_string(),
        };
        Ok(group.into_iter().enumerate().map(one).collect())
    }

    /// The filter as the kernel takes it; without one, nothing is refused there.
    fn in_kernel(wanted: &Wanted, name: &str) -> Result<Option<Vec<Instruction>>, CaptureError> {
        let Some(filter) = &wanted.filter else { return Ok(None) };
        let link = link_type(name)?;
        warn_of_nothing(name, filter, link);
        let program = filter.in_kernel(link);
        if program.is_none() {
            tracing::warn!("{name}: the filter is too long for the kernel: it runs in user space");
        }
        Ok(program)
    }
}

#[cfg(not(all(feature = "af-packet", target_os = "linux")))]
mod af_packet {
    use super::{Backend, OpenError, Run, Wanted};

    pub(super) fn run<R: Run>(_: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        Err((OpenError::Absent { backend: Backend::AfPacket, feature: "sensor" }, run))
    }
}

mod pcap {
    use std::time::Duration;

    use super::{OpenError, Opened, Run, Wanted, start, unfit, warn_of_nothing};
    use crate::capture::CaptureError;
    use crate::capture::pcap_live::{Config, PcapLive};

    pub(super) fn run<R: Run>(wanted: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        // libpcap does not spread frames.
        let steer = wanted.steer || wanted.workers.is_some_and(|workers| workers > 1);
        start(&Wanted { steer, ..wanted.clone() }, open, run)
    }

    /// One capture of each interface, all for one worker or reader.
    fn open(wanted: &Wanted, id: usize) -> Result<Vec<Opened<PcapLive>>, CaptureError> {
        let name = &wanted.interfaces[id];
        let mut config = Config::builder()
            .filter(wanted.filter.as_ref().map(|filter| filter.expression().to_owned()));
        if wanted.interfaces.len() > 1 {
            config = config.wait(Duration::ZERO);
        }
        let config =
            config.build().map_err(|error| unfit(name, "one capture".to_owned(), error))?;
        let capture = PcapLive::open(name, id as u16, &config)?;
        if let Some(filter) = capture.filter() {
            warn_of_nothing(name, filter, capture.link());
        }
        let (interface, queue) = (name.clone(), "0".to_owned());
        Ok(vec![Opened { capture, interface, queue }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(interface: &str, queues: usize) -> Vec<Opened<usize>> {
        let one = |queue: usize| Opened {
            capture: queue,
            interface: interface.to_owned(),
            queue: queue.to_string(),
        };
        (0..queues).map(one).collect()
    }

    #[test]
    fn a_worker_has_its_queue_of_every_interface() {
        let dealt = deal(2, vec![opened("tap0", 2), opened("tap1", 2)]);
        let names = |captures: &Vec<Opened<usize>>| {
            captures
                .iter()
                .map(|one| format!("{}/{}", one.interface, one.queue))
                .collect::<Vec<_>>()
        };
        let names: Vec<_> = dealt.iter().map(names).collect();
        assert_eq!(names, [["tap0/0", "tap1/0"], ["tap0/1", "tap1/1"]]);
    }

    #[test]
    fn more_queues_than_workers_are_shared_out_and_no_worker_is_idle() {
        assert_eq!(
            deal(2, vec![opened("eth2", 5)]).iter().map(Vec::len).collect::<Vec<_>>(),
            [3, 2]
        );
        assert_eq!(deal(8, vec![opened("eth2", 3)]).len(), 3);
    }
}
