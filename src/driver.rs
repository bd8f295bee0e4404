//! [`FlowDriver`]: a tracker and its byte streams in one call.

use crate::flow::{FlowExtractor, FlowTracker};

/// A tracker that also reassembles.
#[derive(Debug)]
pub struct FlowDriver<E: FlowExtractor> {
    tracker: FlowTracker<E>,
}

impl<E: FlowExtractor> FlowDriver<E> {
    /// The tracker inside.
    pub fn tracker(&self) -> &FlowTracker<E> {
        &self.tracker
    }
}
