//! Giving up the rights that a run does not need.
//!
//! Contract: called while the process has one thread; threads that start later inherit what is left. Kept is what it takes
//! to open an interface, because one that goes away is opened again when it is back; everything else goes, for good: from the bounding
//! set too, and with `no_new_privs`. See capabilities(7). Elsewhere than on Linux there is nothing of the kind: nothing is given up, and
//! another user is refused.

#[cfg(target_os = "linux")]
pub use linux::{Kept, PrivilegeError, User, drop_to, needed};
#[cfg(not(target_os = "linux"))]
pub use other::{Kept, PrivilegeError, User, drop_to, needed};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
