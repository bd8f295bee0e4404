//! Frames in, flows out: a passive flow tracker as a library.
//!
//! The lower layers are sans-IO: they never read a clock, open a file or spawn a thread.
//! Time comes in with the frames, what is due next comes out of
//! [`FlowTracker::poll_timeout`](flow::FlowTracker::poll_timeout).
//!
//! | layer | what it does |
//! |---|---|
//! | [`time`], [`net`], [`frame`] | the words everything else is written in |
//! | [`decode`] | one frame's bytes → [`Layers`](decode::Layers), a total function |
//! | [`flow`] | keys, the flow table, TCP, timers: [`FlowTracker`] |
//! | [`reassembly`], [`driver`] | in-order byte streams: [`FlowDriver`] |
//! | [`event`], [`obs`] | what a tracker tells, and under which names |
//! | `capture` | capture files (feature `capture`) |
//! | `export`, `sensor`, `cli` | the `flowscope` binary (feature `sensor`) |
//!
//! Imports point down only. `docs/ARCHITECTURE.md` is the long version.

pub mod decode;
pub mod driver;
pub mod event;
pub mod flow;
pub mod frame;
pub mod net;
pub mod obs;
mod pages;
mod prefetch;
pub mod reassembly;
pub mod time;

#[cfg(feature = "capture")]
pub mod capture;
#[cfg(feature = "sensor")]
pub mod cli;
#[cfg(feature = "sensor")]
pub mod export;
#[cfg(feature = "sensor")]
pub mod sensor;

pub use driver::FlowDriver;
pub use event::{AnomalyKind, EndReason, EventSink, FlowEvent};
pub use flow::{FlowExtractor, FlowStats, FlowTracker, TrackerConfig};
pub use frame::{Frame, LinkType};
pub use time::Timestamp;

/// The README's example is compiled and run.
#[cfg(all(doctest, feature = "capture"))]
#[doc = include_str!("../README.md")]
struct Readme;
