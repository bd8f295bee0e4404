//! Times that a NIC itself gives to the frames it receives (`linux/net_tstamp.h`): whether it can, and having it done for as
//! long as somebody wants it.
//!
//! Contract: a NIC that stamps every frame already is left as it is. One that is told to is put back when the last of this
//! process gives it up, unless somebody set it otherwise meanwhile. A process that is killed leaves it on.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use super::ethtool::Nic;
use crate::capture::sys::interface_index;

/// `HWTSTAMP_FILTER_NONE` and `HWTSTAMP_FILTER_ALL`.
const NONE: u32 = libc::HWTSTAMP_FILTER_NONE;
const ALL: u32 = libc::HWTSTAMP_FILTER_ALL;

/// What a NIC can stamp, as `ethtool -T` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// `SOF_TIMESTAMPING_…`: by whom, and of what.
    pub by: u32,
    /// One bit for each `HWTSTAMP_FILTER_…` that it knows.
    pub filters: u32,
}

impl Stamps {
    /// Whether received frames can have the NIC's own time, some of them at least.
    pub fn some(self) -> bool {
        let needed = libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE;
        self.by & needed == needed && self.filters & !(1 << NONE) != 0
    }

    /// Whether all of them can.
    pub fn all(self) -> bool {
        self.some() && self.filters & 1 << ALL != 0
    }
}

/// `struct hwtstamp_config`: what a NIC stamps now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamping {
    /// None known.
    pub flags: u32,
    /// Of what it sends (`HWTSTAMP_TX_…`).
    pub sent: u32,
    /// Of what it receives (`HWTSTAMP_FILTER_…`).
    pub received: u32,
}

/// Has a NIC stamp every frame that it receives, for as long as this lives.
#[derive(Debug)]
pub struct HardwareTimes {
    key: Key,
}

/// An interface: its network namespace, and its number there.
type Key = (u64, u32);

impl HardwareTimes {
    /// Has the interface called `name` stamp every frame.
    ///
    /// # Errors
    /// What the system said: it takes `CAP_NET_ADMIN`, unless every frame is stamped already. `ERANGE` where the NIC chose
    /// to stamp less.
    pub fn hold(name: &str) -> io::Result<Self> {
        let namespace = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
        let key = (namespace, interface_index(name)?);
        let nic = Nic::open(name)?;
        HOLDS.lock().unwrap_or_else(PoisonError::into_inner).take(key, nic)?;
        Ok(Self { key })
    }
}

impl Drop for HardwareTimes {
    fn drop(&mut self) {
        HOLDS.lock().unwrap_or_else(PoisonError::into_inner).give_up(self.key);
    }
}

/// Those of this process. Under one lock, so that nobody finds a NIC set that is about to be put back.
static HOLDS: Mutex<Holds<Nic>> = Mutex::new(Holds(Vec::new()));

/// What stamps.
trait Stamper {
    fn stamping(&self) -> io::Result<Stamping>;
    /// What it came to.
    fn set_stamping(&self, stamping: Stamping) -> io::Result<Stamping>;
}

impl Stamper for Nic {
    fn stamping(&self) -> io::Result<Stamping> {
        Self::stamping(self)
    }

    fn set_stamping(&self, stamping: Stamping) -> io::Result<Stamping> {
        Self::set_stamping(self, stamping)
    }
}

#[derive(Debug)]
struct Holds<N>(Vec<Hold<N>>);

#[derive(Debug)]
struct Hold<N> {
    key: Key,
    nic: N,
    users: usize,
    before: Stamping,
}

impl<N: Stamper> Holds<N> {
    fn take(&mut self, key: Key, nic: N) -> io::Result<()> {
        let found = nic.stamping()?;
        // Also for one that is held: a driver may have forgotten it when its interface was down.
        if found.received != ALL {
            let set = nic.set_stamping(Stamping { received: ALL, ..found })?;
            if set.received != ALL {
                let _ = nic.set_stamping(found);
                return Err(io::Error::from_raw_os_error(libc::ERANGE));
            }
        }
        match self.0.iter_mut().find(|hold| hold.key == key) {
            Some(hold) => hold.users += 1,
            None => self.0.push(Hold { key, nic, users: 1, before: found }),
        }
        Ok(())
    }

    fn give_up(&mut self, key: Key) {
        let Some(at) = self.0.iter().position(|hold| hold.key == key) else { return };
        self.0[at].users -= 1;
        if self.0[at].users > 0 {
            return;
        }
        let Hold { nic, before, .. } = self.0.swap_remove(at);
        let as_set = Stamping { received: ALL, ..before };
        // An interface that is gone has nothing to be put back.
        if before != as_set && nic.stamping().is_ok_and(|now| now == as_set) {
            let _ = nic.set_stamping(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A NIC; how often it was set.
    #[derive(Default)]
    struct Fake {
        now: Cell<Stamping>,
        sets: Cell<u32>,
        chooses: Option<u32>,
    }

    impl Stamper for &Fake {
        fn stamping(&self) -> io::Result<Stamping> {
            Ok(self.now.get())
        }

        fn set_stamping(&self, stamping: Stamping) -> io::Result<Stamping> {
            let chosen = self.chooses.filter(|_| stamping.received == ALL);
            let received = chosen.unwrap_or(stamping.received);
            self.now.set(Stamping { received, ..stamping });
            self.sets.set(self.sets.get() + 1);
            Ok(self.now.get())
        }
    }

    const KEY: Key = (1, 7);
    /// As ptp4l has it: PTP's frames, both ways.
    const PTP: Stamping = Stamping { flags: 0, sent: 1, received: 12 };

    #[test]
    fn the_last_one_puts_back_what_the_first_one_found() {
        let nic = Fake { now: Cell::new(PTP), ..Fake::default() };
        let mut holds = Holds(Vec::new());
        holds.take(KEY, &nic).expect("it stamps");
        holds.take(KEY, &nic).expect("it does already");
        assert_eq!(nic.now.get(), Stamping { received: ALL, ..PTP }, "what it sends is left alone");
        holds.give_up(KEY);
        assert_eq!(nic.now.get().received, ALL, "somebody still wants it");
        holds.give_up(KEY);
        assert_eq!((nic.now.get(), nic.sets.get()), (PTP, 2));
    }

    #[test]
    fn a_nic_that_stamps_already_is_never_set() {
        let nic = Fake { now: Cell::new(Stamping { received: ALL, ..PTP }), ..Fake::default() };
        let mut holds = Holds(Vec::new());
        holds.take(KEY, &nic).expect("it does");
        holds.give_up(KEY);
        assert_eq!((nic.now.get().received, nic.sets.get()), (ALL, 0));
    }

    #[test]
    fn what_somebody_else_set_meanwhile_stays() {
        let nic = Fake::default();
        let mut holds = Holds(Vec::new());
        holds.take(KEY, &nic).expect("it stamps");
        nic.now.set(PTP);
        holds.give_up(KEY);
        assert_eq!(nic.now.get(), PTP);
    }

    #[test]
    fn a_nic_that_forgot_is_told_again_and_put_back_to_what_the_first_one_found() {
        let nic = Fake { now: Cell::new(PTP), ..Fake::default() };
        let mut holds = Holds(Vec::new());
        holds.take(KEY, &nic).expect("it stamps");
        nic.now.set(Stamping::default());
        holds.take(KEY, &nic).expect("it stamps again");
        assert_eq!(nic.now.get().received, ALL);
        // It is not as it was set, for it forgot what it sends as well: it stays.
        (0..2).for_each(|_| holds.give_up(KEY));
        assert_eq!(nic.now.get(), Stamping { received: ALL, ..Stamping::default() });
    }

    #[test]
    fn one_that_chooses_to_stamp_less_is_refused_and_put_back() {
        let nic = Fake { chooses: Some(12), ..Fake::default() };
        let mut holds = Holds(Vec::new());
        let error = holds.take(KEY, &nic).expect_err("not all frames");
        assert_eq!(error.raw_os_error(), Some(libc::ERANGE));
        assert!(holds.0.is_empty() && nic.now.get() == Stamping::default());
    }

    #[test]
    fn what_ethtool_shows_is_told_apart() {
        // An igb of the 82576, a NIC of later make, and an interface that is no hardware.
        let of = |by, filters| Stamps { by, filters };
        let hardware = 1 << 2 | 1 << 6;
        let ptp = of(hardware | 0x1b, 1 << NONE | 1 << 12);
        assert!(ptp.some() && !ptp.all());
        assert!(of(hardware, 1 << NONE | 1 << ALL).all());
        assert!(!of(0x18, 1 << NONE | 1 << ALL).some() && !of(hardware, 1 << NONE).some());
    }

    #[test]
    fn the_loopback_interface_stamps_nothing_itself() {
        let nic = Nic::open("lo").expect("every namespace has it");
        assert!(!nic.stamps().expect("the kernel itself answers").some());
        let refused = HardwareTimes::hold("lo").expect_err("it has no NIC");
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
