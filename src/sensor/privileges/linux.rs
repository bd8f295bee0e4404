//! Capabilities and users of Linux.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::capture::fanout::FanoutMode;
use crate::sensor::backends::Backend;

/// Whom a run goes on as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// By its name in the system's user database.
    pub fn find(name: &str) -> Result<Self, String> {
        match nix::unistd::User::from_name(name) {
            Ok(Some(user)) => {
                Ok(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
            }
            Ok(None) => {
                Err("there is no such user: give the name of one, see getent passwd".to_owned())
            }
            Err(error) => Err(format!("the user database cannot be read: {error}")),
        }
    }

    /// Makes a directory theirs, so that they can remove what is in it.
    ///
    /// # Errors
    /// What the system said.
    pub fn take_over(&self, directory: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(directory, Some(self.uid), Some(self.gid))
    }
}

/// A right that could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {error}: start as root, or without what asks for it")]
pub struct PrivilegeError {
    what: String,
    error: Errno,
}

/// What a backend's interfaces take to be opened, and, where they are set for it, to be put back.
pub fn needed(backend: Backend, fanout: FanoutMode, is_put_back: bool) -> CapabilitySet {
    let to_put_back = if is_put_back { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    let to_open = match backend {
        Backend::AfPacket if fanout == FanoutMode::Ebpf => {
            CapabilitySet::NET_RAW | CapabilitySet::BPF | CapabilitySet::PERFMON
        }
        Backend::AfPacket | Backend::Pcap => CapabilitySet::NET_RAW,
        Backend::AfXdp | Backend::Auto => {
            CapabilitySet::NET_RAW
                | CapabilitySet::NET_ADMIN
                | CapabilitySet::BPF
                | CapabilitySet::PERFMON
                | CapabilitySet::IPC_LOCK
        }
    };
    to_open | to_put_back
}

/// What is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept(CapabilitySet);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (name, _)) in self.0.iter_names().enumerate() {
            write!(f, "{}CAP_{name}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Goes on as `user` where one is given, with those of the rights in `keep` that the process has.
///
/// # Errors
/// [`PrivilegeError`] when another user cannot be become, or a right stays that was to go; the process should end then.
pub fn drop_to(keep: CapabilitySet, user: Option<&User>) -> Result<Kept, PrivilegeError> {
    let told = |what: &str| {
        let what = what.to_owned();
        move |error| PrivilegeError { what, error }
    };
    let held = capabilities(None).map_err(told("read the process's capabilities"))?;
    let keep = keep & held.permitted;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (CapabilitySet::all() - keep).iter() {
            match remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(told("narrow the capability bounding set")(error)),
            }
        }
    }
    if let Some(User { name, uid, gid }) = user {
        let become_them = |error| told(&format!("become {name}"))(error);
        // Without it all capabilities go with the user number 0.
        set_keep_capabilities(true).map_err(become_them)?;
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        set_thread_groups(&[gid]).map_err(become_them)?;
        set_thread_res_gid(gid, gid, gid).map_err(become_them)?;
        set_thread_res_uid(uid, uid, uid).map_err(become_them)?;
    }
    let sets =
        CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(told("give up capabilities"))?;
    // Nothing ambient is left without permitted ones; those kept must not reach what we start, which is nothing.
    clear_ambient_capability_set().map_err(told("clear the ambient capabilities"))?;
    set_no_new_privs(true).map_err(told("set no_new_privs"))?;
    Ok(Kept(keep))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_named_as_capabilities_7_does() {
        let hash = FanoutMode::Hash;
        assert_eq!(Kept(needed(Backend::AfPacket, hash, false)).to_string(), "CAP_NET_RAW");
        assert_eq!(Kept(CapabilitySet::empty()).to_string(), "none");
        let all = Kept(needed(Backend::Auto, hash, false)).to_string();
        for name in ["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_IPC_LOCK"] {
            assert!(all.contains(name), "{all}");
        }
    }

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(User::find("root").map(|user| user.uid), Ok(0));
        assert!(User::find("no such user").unwrap_err().contains("no such user"));
    }

    /// On a thread of its own: rights are a thread's.
    #[test]
    fn what_is_not_kept_is_gone_for_good() {
        std::thread::spawn(|| {
            let before = capabilities(None).unwrap();
            let kept = drop_to(CapabilitySet::NET_RAW, None).unwrap();
            let after = capabilities(None).unwrap();
            assert_eq!(after.permitted, before.permitted & CapabilitySet::NET_RAW);
            assert_eq!(after.permitted, kept.0);
            assert!(set_capabilities(None, before).is_err() || before == after);
            if before.permitted.contains(CapabilitySet::SETUID) {
                let them = User { name: "nobody".to_owned(), uid: 65534, gid: 65534 };
                assert!(drop_to(CapabilitySet::empty(), Some(&them)).is_err());
            }
        })
        .join()
        .unwrap();
    }
}
