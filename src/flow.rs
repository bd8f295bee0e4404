//! The flow core, sans-IO: frames with their times go in, events come out.
//!
//! | part | noun |
//! |---|---|
//! | [`key`] | what makes two frames one flow |
//! | [`extract`] | layers → key |
//! | [`packet`] | what the table needs to know of a frame |
//! | [`ingest`] | frames → packets: decode, fragments, keys, in batches |
//! | `hash` | the keyed hash of a key |
//! | [`fragments`] | later fragments find the flow of their datagram |
//! | [`table`] | key → slot, without tombstones and without rehashing |
//! | [`wheel`] | which slots are due when |
//! | [`tcp`] | the connection's state, one enum and one table |
//! | [`stats`], [`history`] | what a flow adds up to |
//! | [`shunted`] | packets that were counted elsewhere |
//! | `entry`, `by_slot`, `extra` | what the table keeps of a flow, and what few flows have beside it |
//! | [`observer`] | how reassembly hooks in |
//! | `flows` | entries, table and wheel: one packet at a time |
//! | [`tracker`] | all of it behind [`FlowTracker`] |

pub(crate) mod by_slot;
pub mod config;
mod entry;
mod extra;
pub mod extract;
mod flows;
pub mod fragments;
mod hash;
pub mod history;
pub mod ingest;
pub mod key;
pub mod observer;
pub mod packet;
pub mod shunted;
pub mod stats;
pub mod table;
pub mod tcp;
pub mod tracker;
pub mod wheel;

pub use config::{IdleTimeouts, TrackerConfig};
pub use extract::{ByFiveTuple, ByFlowLabel, ByIpPair, ByMacPair, Extracted, FlowExtractor};
pub use hash::KeyHash;
pub use history::History;
pub use key::{FiveTuple, FlowKey, FlowLabel, IpPair, MacPair, Scope, TableKey};
pub use observer::{FlowId, FlowObserver, Verdict};
pub use packet::Packet;
pub use shunted::{Counted, CountedSide, Shunted};
pub use stats::{FlowStats, SideStats, Totals};
pub use tcp::TcpState;
pub use tracker::{FlowTracker, TrackerCounters};
