//! Where records go: events are turned into text by the worker that saw them, in large buffers,
//! and written by one thread per sink.
//!
//! | part | noun |
//! |---|---|
//! | [`text`] | numbers, addresses and times as text, without allocation |
//! | [`community_id`] | the Community ID of a flow, version 1 |
//! | [`jsonl`] | one JSON object a record |
//! | [`records`] | a worker's end: events in, full buffers out |
//! | [`queue`] | a bounded queue whose ends sleep instead of spinning |
//! | [`sink`] | the writing end: a thread and a bounded queue, or whoever has records; a count of what became of each record |
//! | `turns` | work that those who bring it do by turns, where no core is left for a thread |
//! | `drop_behind` | a file whose written part leaves the page cache |
//!
//! Contract: a record that was produced is either written or counted as dropped under a reason;
//! memory is bounded by the queue's length; a full queue makes the worker wait.

pub mod community_id;
mod drop_behind;
pub mod jsonl;
pub mod queue;
pub mod records;
pub mod sink;
pub mod text;
mod turns;

pub use records::{RecordWriter, WhenFull};
pub use sink::{DropReason, Sink, SinkCounts};
