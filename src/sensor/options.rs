//! What a run is told: one type for each kind, already validated.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::backends::{Backend, Wanted};
use super::cores::CoreList;
use super::privileges::User;
use crate::capture::filter::Filter;
use crate::export::sink::Target;
use crate::flow::{ByFiveTuple, TrackerConfig};
use crate::reassembly::ReassemblyConfig;

/// How fast a capture is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as it can be read.
    Max,
    /// So many seconds of capture in one second.
    Times(f64),
}

/// An output: what kind, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// One JSON object a line.
    Jsonl(Target),
}

/// Everything that a live run needs to know.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// What is captured, and how.
    pub wanted: Wanted,
    /// Whether the ports are set for it, and put back at the end.
    pub tune: bool,
    /// Where it is remembered how they were.
    pub state_dir: PathBuf,
    /// Where the workers run, in their order.
    pub cores: Option<CoreList>,
    /// Where records go.
    pub outputs: Vec<Output>,
    /// Where the summary goes as JSON.
    pub summary: Option<PathBuf>,
    /// Whether records have a Community ID.
    pub community_id: bool,
    /// What makes a flow.
    pub extractor: ByFiveTuple,
    /// How flows are tracked; `max_flows` is that of all workers together.
    pub tracker: TrackerConfig,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Whom it goes on as, once what takes rights is open.
    pub user: Option<User>,
}

/// What `doctor` is to look at.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// Interfaces, by name; none for all that are no loopback.
    pub interfaces: Vec<String>,
    /// How they are to be captured.
    pub backend: Backend,
    /// Where a run remembers how ports were.
    pub state_dir: PathBuf,
    /// For programs and not for people.
    pub json: bool,
}

/// Everything that a replay needs to know.
#[derive(Debug)]
pub struct ReplayOptions {
    /// Capture files; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Where the workers run, in their order.
    pub cores: Option<CoreList>,
    /// Where records go.
    pub outputs: Vec<Output>,
    /// Where the summary goes as JSON.
    pub summary: Option<PathBuf>,
    /// Whether records have a Community ID.
    pub community_id: bool,
    /// How fast.
    pub speed: Speed,
    /// Whether the byte streams of TCP connections are put together; only with one worker.
    pub reassemble: bool,
    /// How many threads track.
    pub workers: usize,
    /// What frames are wanted.
    pub filter: Option<Filter>,
    /// What makes a flow.
    pub extractor: ByFiveTuple,
    /// How flows are tracked; `max_flows` is that of all workers together.
    pub tracker: TrackerConfig,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Whether to go on serving after the end.
    pub hold: bool,
    /// Whether a terminal gets a progress bar.
    pub progress: bool,
}

impl ReplayOptions {
    /// The configuration of each worker's tracker: its share of the flows.
    ///
    /// Which worker a flow goes to depends on its hash alone, so with more than one worker a table can be
    /// full while others have room. As long as none is full, the records are the same set.
    pub fn worker_tracker(&self) -> TrackerConfig {
        TrackerConfig {
            max_flows: self.tracker.max_flows.div_ceil(self.workers),
            ..self.tracker.clone()
        }
    }

    /// What a worker puts streams together with: its part of all memory for them, which holds one side's at least.
    pub fn worker_streams(&self) -> ReassemblyConfig {
        let all = ReassemblyConfig::default();
        let part = all.total_bytes_max / self.workers;
        ReassemblyConfig { total_bytes_max: part.max(all.side_bytes_max), ..all }
    }
}
