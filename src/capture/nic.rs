//! What a port has and how it is set: link, queues, rings, RSS, offloads, pause frames, whose it is. Read, and set.
//!
//! | part | noun |
//! |---|---|
//! | [`Port`] | everything that is read about a port, at one moment |
//! | [`Nic`] | its driver, asked and told by ethtool's ioctls |
//! | [`Rss`], [`Features`] | what is of variable length there |
//! | [`Interface`] | what the kernel itself knows: flags, addresses, programs (rtnetlink) |
//! | [`Promiscuous`] | frames to others, for as long as somebody holds it |
//! | [`Rights`] | capabilities of this thread |
//!
//! Contract: reading changes nothing. What a driver does not tell is an answer ([`Untold`]) and never an error. Lengths that
//! the kernel names are bounded before memory is taken for them. `/sys/class/net` shows the
//! network namespace that it was mounted in, which may not be ours: it is asked for the one thing that nobody else tells.

mod ethtool;
mod features;
mod interface;
mod netlink;
mod promiscuous;
mod rights;
mod rss;

use std::io;

pub use ethtool::{Channels, Driver, Nic, Pause, Ring};
pub use features::{Feature, Features};
pub use interface::Interface;
pub use promiscuous::Promiscuous;
pub use rights::{Capability, Rights};
pub use rss::{Rss, round_robin};

/// Why a driver's answer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    /// The driver has no such thing, or does not tell.
    #[error("the driver does not tell")]
    Unsupported,
    /// It takes more rights to ask.
    #[error("it takes CAP_NET_ADMIN to ask")]
    Denied,
    /// The kernel said something else.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Failed(i32),
}

impl From<io::Error> for Untold {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Self::Unsupported,
            Some(libc::EPERM | libc::EACCES) => Self::Denied,
            Some(code) => Self::Failed(code),
            // Of our own making: an answer that cannot be.
            None => Self::Failed(libc::EPROTO),
        }
    }
}

/// An answer of a driver, or why there is none.
pub type Told<T> = Result<T, Untold>;

/// Everything that is known about a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// What the kernel itself knows.
    pub interface: Interface,
    /// Who drives it.
    pub driver: Told<Driver>,
    /// Megabits a second; unknown while there is no link.
    pub speed_mbit: Told<Option<u32>>,
    /// Its queues.
    pub channels: Told<Channels>,
    /// The ring that the NIC receives into.
    pub ring: Told<Ring>,
    /// Pause frames.
    pub pause: Told<Pause>,
    /// How frames are spread over queues.
    pub rss: Told<Rss>,
    /// Whether the ports of UDP over IPv4 count in that.
    pub udp_ports_hashed: Told<bool>,
    /// Offloads.
    pub features: Told<Features>,
    /// The NUMA node that the NIC is on, where there is more than one.
    pub node: Option<u32>,
}

impl Port {
    /// Reads it all; changes nothing.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel does not tell of any.
    pub fn read(name: &str) -> io::Result<Self> {
        let interface = Interface::find(name)?;
        let nic = Nic::open(name)?;
        let driver = nic.driver();
        let node = driver.as_ref().ok().and_then(Driver::node);
        Ok(Self {
            name: name.to_owned(),
            interface,
            driver,
            speed_mbit: nic.speed_mbit(),
            channels: nic.channels(),
            ring: nic.ring(),
            pause: nic.pause(),
            rss: nic.rss(),
            udp_ports_hashed: nic.udp_ports_hashed(),
            features: nic.features(),
            node,
        })
    }

    /// Queues that it receives on.
    pub fn queues(&self) -> u32 {
        self.interface.queues.max(1)
    }
}

/// The names of all interfaces that are no loopback, in the kernel's order.
///
/// # Errors
/// When the kernel does not tell.
pub fn port_names() -> io::Result<Vec<String>> {
    Ok(interface::all()?
        .into_iter()
        .filter(|(_, is_loopback)| !is_loopback)
        .map(|(name, _)| name)
        .collect())
}

/// How many queues an interface receives on; 1 where the system does not tell.
pub fn receive_queues(name: &str) -> usize {
    Interface::find(name).map_or(1, |interface| interface.queues.max(1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_read_and_what_it_lacks_is_said() {
        let port = Port::read("lo").expect("every namespace has it");
        assert!(!port.interface.is_ethernet, "{port:?}");
        assert_eq!(port.channels, Err(Untold::Unsupported));
        assert_eq!(port.ring, Err(Untold::Unsupported));
        assert_eq!(port.rss, Err(Untold::Unsupported));
        let features = port.features.expect("the kernel itself answers");
        assert!(features.get("rx-gro").is_some(), "{features:?}");
        assert_eq!(features.get("rx-lro").map(|lro| lro.changeable), Some(false));
        assert!(!port_names().expect("a list").contains(&"lo".to_owned()));
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        for name in ["flowscope-none", "a\0b", "", "a-name-of-sixteen"] {
            let error = Port::read(name).expect_err("not there");
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
        assert_eq!(receive_queues("flowscope-none"), 1);
    }
}
