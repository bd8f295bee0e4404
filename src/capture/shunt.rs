//! Flows whose frames are counted where they come in, and do not come to us.
//!
//! Contract: a flow is shunted for one reader of frames, the one that has it in its table. A frame is counted or it comes, never
//! both. Once a flow was taken out and [`Shunts::settle`] has returned, its counts are final.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::flow::{Counted, FlowKey};

/// Flows that an interface can have shunted at once. Each takes 64 bytes a processor.
pub const SHUNTS_MAX: u32 = 1024;

/// Whose frames are shunted, and what a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShuntConfig {
    /// Readers of frames that the interface's sockets are dealt to, round robin; at least 1.
    pub readers: u32,
    /// Whether a VLAN that differs is a different flow.
    pub by_vlan: bool,
    /// Flows that can be shunted at once, 1 to [`SHUNTS_MAX`].
    pub flows_max: u32,
}

/// Where a shunted flow is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShuntSlot(pub u32);

/// The shunted flows of one interface. Every call is at least one system call: none of them is for the packet path.
pub trait Shunts: Send + Sync + fmt::Debug {
    /// From now on frames of the flow are counted for `reader`. `None` where there is no room, or it is shunted already.
    ///
    /// # Errors
    /// What the system said; nothing was changed then.
    fn insert(&self, key: &FlowKey, reader: u32) -> io::Result<Option<ShuntSlot>>;

    /// What was counted so far.
    ///
    /// # Errors
    /// What the system said.
    fn read(&self, slot: ShuntSlot) -> io::Result<Counted>;

    /// Frames of the flow come again, from now on or a little later.
    ///
    /// # Errors
    /// What the system said; it is shunted as before then.
    fn remove(&self, key: &FlowKey, reader: u32) -> io::Result<()>;

    /// Waits until no frame is on its way any more that found a flow which was removed.
    fn settle(&self);

    /// Another flow may have it: the flow was removed, settled, and read for the last time.
    fn free(&self, slot: ShuntSlot);
}

/// The interfaces of a run that flows can be shunted on, by their number. One that comes back brings another table.
#[derive(Clone, Debug, Default)]
pub struct ShuntPorts(Arc<Mutex<Vec<Option<Port>>>>);

/// The table of one port.
type Port = Arc<dyn Shunts>;

impl ShuntPorts {
    /// The table of an interface that was opened.
    pub fn set(&self, port: usize, shunts: Arc<dyn Shunts>) {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ports.len() <= port {
            ports.resize(port + 1, None);
        }
        ports[port] = Some(shunts);
    }

    /// Each one's table, by number.
    pub fn current(&self) -> Vec<Option<Arc<dyn Shunts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
