//! The running sensor: a reading loop, one or more trackers, records, and an account of every frame.
//!
//! | part | noun |
//! |---|---|
//! | [`options`] | what a run is told |
//! | [`replay`] | a run over capture files, from opening to the summary |
//! | [`live`] | a run over interfaces; [`backends`] opens them, [`queues`] reads several as one |
//! | [`ports`] | what the ports of a live run are like, and setting them for it |
//! | [`cores`] | which worker runs where |
//! | [`run`] | what both have in common |
//! | [`read`] | the reading loop, generic over the capture and over what follows it |
//! | [`direct`] | what follows: a tracker on the same thread |
//! | [`steer`] | or: steering to trackers on pinned threads; [`rss`] says which |
//! | [`shunt`] | large flows are counted where they come in |
//! | [`pace`] | when frames are due; which ones, says [`Filter`](crate::capture::filter::Filter) |
//! | [`shard`] | what each thread counted, for others to read |
//! | [`ledger`], [`summary`] | whether it all adds up, for people and as JSON |
//! | [`telemetry`], [`http`], [`progress`] | the same figures while it runs |
//! | [`stop`], [`input`] | signals, also while standard input is silent |
//!
//! Contract: nothing is allocated, locked or shared per packet; every frame is counted exactly once;
//! a run that is told to stop drains.

pub mod backends;
pub mod cores;
pub mod direct;
pub mod http;
pub mod input;
pub mod ledger;
pub mod live;
pub mod options;
pub mod pace;
pub mod pages;
#[cfg(target_os = "linux")]
pub mod ports;
#[cfg(not(target_os = "linux"))]
#[path = "sensor/ports_off.rs"]
pub mod ports;
pub mod post;
pub mod privileges;
pub mod progress;
pub mod queues;
pub mod read;
pub mod replay;
pub mod rss;
pub mod run;
pub mod shard;
pub mod shunt;
pub mod steer;
pub mod stop;
pub mod summary;
pub mod telemetry;
pub mod watch;
