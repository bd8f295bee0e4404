//! Which backend a live run has, chosen once: from there on everything is generic over it.
//!
//! Contract: the only place that knows which backends this build has. An interface that cannot be opened is refused with
//! what to do about it; nothing stays attached then.

use crate::capture::CaptureError;
use crate::capture::live::LiveCapture;

/// A way to get at frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The best that the ports allow.
    Auto,
    /// AF_XDP with our own program.
    AfXdp,
    /// AF_PACKET with a ring.
    AfPacket,
}

impl Backend {
    /// As the command line spells it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::AfXdp => "af-xdp",
            Self::AfPacket => "af-packet",
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
    /// Whether frames may be taken from the host's own stack.
    pub take_traffic: bool,
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

/// What is done with the captures: the same for every backend.
pub trait Run {
    /// What comes of it.
    type Out;

    /// One list of captures for each worker.
    fn run<C: LiveCapture + Send + 'static>(self, workers: Vec<Vec<Opened<C>>>) -> Self::Out;
}

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
    #[error("this build has no live backend: those that there are take Linux")]
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
        Backend::Auto => {
            let (refusal, run) = match af_xdp::run(wanted, run) {
                Ok(out) => return Ok(out),
                Err(refused) => refused,
            };
            if !matches!(refusal, OpenError::Absent { .. }) {
                tracing::info!("AF_PACKET is taken, because AF_XDP will not do here: {refusal}");
            }
            af_packet::run(wanted, run).map_err(|(error, _)| match (error, refusal) {
                (OpenError::Absent { .. }, OpenError::Absent { .. }) => OpenError::None,
                // What the build has is what the refusal is about.
                (OpenError::Absent { .. }, refusal) => refusal,
                (error, _) => error,
            })
        }
    }
}

/// Runs with what was opened; gives `run` back where nothing was.
#[cfg(all(target_os = "linux", any(feature = "af-xdp", feature = "af-packet")))]
fn start<C: LiveCapture + Send + 'static, R: Run>(
    opened: Result<Vec<Vec<Opened<C>>>, CaptureError>,
    run: R,
) -> Result<R::Out, (OpenError, R)> {
    match opened {
        Ok(captures) => Ok(run.run(captures)),
        Err(error) => Err((error.into(), run)),
    }
}

/// A configuration that a backend refuses: of what we choose ourselves, only the number of workers can be why.
#[cfg(all(target_os = "linux", any(feature = "af-xdp", feature = "af-packet")))]
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

/// Deals an interface's captures to the workers: number `i` to worker `i` modulo their number, so that worker `i` has
/// queue `i` of every interface.
#[cfg(any(test, feature = "af-xdp", feature = "af-packet"))]
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

    use super::{OpenError, Opened, Run, Wanted, deal, start, unfit};
    use crate::capture::CaptureError;
    use crate::capture::af_xdp::{AfXdp, Config};
    use crate::capture::nic::receive_queues;

    pub(super) fn run<R: Run>(wanted: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        start(open(wanted), run)
    }

    fn open(wanted: &Wanted) -> Result<Vec<Vec<Opened<AfXdp>>>, CaptureError> {
        let mut interfaces = Vec::new();
        for (id, name) in wanted.interfaces.iter().enumerate() {
            let queues = receive_queues(name);
            let workers = wanted.workers.unwrap_or(queues);
            let sockets = workers.div_ceil(queues);
            let mut config = Config::builder()
                .sockets_per_queue(sockets as u32)
                .take_traffic(wanted.take_traffic);
            if wanted.interfaces.len() > 1 || queues > workers {
                // A worker with several captures waits for all of them together.
                config = config.wait(Duration::ZERO).spin(Duration::ZERO);
            }
            let config = config.build().map_err(|error| {
                unfit(name, format!("{workers} workers for {queues} queues"), error)
            })?;
            let opened = AfXdp::open(name, id as u16, &config)?.into_iter().map(|capture| {
                let queue = match sockets {
                    1 => capture.queue().to_string(),
                    _ => format!("{}.{}", capture.queue(), capture.socket()),
                };
                Opened { capture, interface: name.clone(), queue }
            });
            interfaces.push(opened.collect::<Vec<_>>());
        }
        let most = interfaces.iter().map(Vec::len).max().unwrap_or(1);
        Ok(deal(wanted.workers.unwrap_or(most), interfaces))
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

    use super::{OpenError, Opened, Run, Wanted, deal, start, unfit};
    use crate::capture::CaptureError;
    use crate::capture::af_packet::{AfPacket, Config, Fanout, FanoutMode};
    use crate::capture::nic::receive_queues;

    pub(super) fn run<R: Run>(wanted: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        start(open(wanted), run)
    }

    /// As many sockets on each interface as there are workers; the kernel spreads flows over them.
    fn open(wanted: &Wanted) -> Result<Vec<Vec<Opened<AfPacket>>>, CaptureError> {
        let mut interfaces = Vec::new();
        for (id, name) in wanted.interfaces.iter().enumerate() {
            let workers = wanted.workers.unwrap_or_else(|| receive_queues(name));
            let mut config = Config::builder();
            if wanted.interfaces.len() > 1 {
                config = config.wait(Duration::ZERO);
            }
            if workers > 1 {
                // A group of our own: numbers are those of the network namespace.
                let group = (std::process::id() as u16).wrapping_add(id as u16);
                config = config.fanout(Some(Fanout { group, mode: FanoutMode::Hash }));
            }
            let config =
                config.build().map_err(|error| unfit(name, format!("{workers} workers"), error))?;
            let mut opened = Vec::with_capacity(workers);
            for number in 0..workers {
                let capture = AfPacket::open(name, id as u16, &config)?;
                opened.push(Opened { capture, interface: name.clone(), queue: number.to_string() });
            }
            interfaces.push(opened);
        }
        let most = interfaces.iter().map(Vec::len).max().unwrap_or(1);
        Ok(deal(most, interfaces))
    }
}

#[cfg(not(all(feature = "af-packet", target_os = "linux")))]
mod af_packet {
    use super::{Backend, OpenError, Run, Wanted};

    pub(super) fn run<R: Run>(_: &Wanted, run: R) -> Result<R::Out, (OpenError, R)> {
        Err((OpenError::Absent { backend: Backend::AfPacket, feature: "sensor" }, run))
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
