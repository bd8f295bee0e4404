//! Setting a port for a run, and putting it back.
//!
//! Contract: what is changed is written down before. A value counts as set when it reads as set. At the end a value is put back
//! only if it is still the one that was set: what somebody else changed meanwhile is theirs.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::state::{Left, StateDir};
use crate::capture::nic::{
    Capability, Features, Interface, Nic, Pause, Port, Rights, Ring, Rss, Told, round_robin,
};
use crate::sensor::backends::Backend;
use crate::sensor::rss::symmetric_key;

/// What merges frames. What is done in hardware depends on what is done in software: it goes first and comes back last.
const MERGING: [&str; 3] = ["rx-gro-hw", "rx-lro", "rx-gro"];

/// What takes VLAN tags off.
const TAKING_TAGS: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

/// Something that a port is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// An offload.
    Feature {
        /// As the kernel spells it.
        name: String,
        /// Whether it is in force.
        on: bool,
    },
    /// Frames that the NIC's ring has room for.
    Ring {
        /// So many.
        frames: u32,
    },
    /// Pause frames.
    Pause {
        /// Whether the two ends agree on it.
        negotiated: bool,
        /// Whether they are obeyed.
        receive: bool,
        /// Whether they are sent.
        transmit: bool,
    },
    /// How frames are spread over queues.
    Rss {
        /// Queue by the low bits of the hash.
        table: Vec<u32>,
        /// The key.
        key: Vec<u8>,
        /// The hash function.
        function: u8,
        /// What is done before.
        transform: u8,
    },
}

impl Setting {
    /// What the port has now of the same kind.
    fn now(&self, nic: &Nic) -> Told<Self> {
        Ok(match self {
            Self::Feature { name, .. } => {
                Self::Feature { name: name.clone(), on: nic.features()?.is_on(name) }
            }
            Self::Ring { .. } => Self::Ring { frames: nic.ring()?.frames },
            Self::Pause { .. } => nic.pause()?.into(),
            Self::Rss { .. } => nic.rss()?.into(),
        })
    }

    /// Sets it, and reads it back.
    fn set(&self, nic: &Nic) -> io::Result<()> {
        match self {
            Self::Feature { name, on } => nic.set_feature(name, *on),
            Self::Ring { frames } => nic.set_ring(*frames),
            &Self::Pause { negotiated, receive, transmit } => {
                nic.set_pause(Pause { negotiated, receive, transmit })
            }
            Self::Rss { table, key, function, transform } => {
                let queues = nic.channels().map_or(1, |channels| channels.receive());
                let (table, key) = (table.clone(), key.clone());
                let rss = Rss { table, key, function: *function, transform: *transform };
                nic.set_rss(&rss, queues)
            }
        }?;
        match self.now(nic) {
            Ok(now) if now == *self => Ok(()),
            Ok(now) => Err(io::Error::other(format!("the driver took it and has {now}"))),
            Err(why) => Err(io::Error::other(format!("it cannot be read back: {why}"))),
        }
    }
}

impl From<Pause> for Setting {
    fn from(Pause { negotiated, receive, transmit }: Pause) -> Self {
        Self::Pause { negotiated, receive, transmit }
    }
}

impl From<Rss> for Setting {
    fn from(Rss { table, key, function, transform }: Rss) -> Self {
        Self::Rss { table, key, function, transform }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switched = |on| if on { "on" } else { "off" };
        match self {
            Self::Feature { name, on } => write!(f, "{name} {}", switched(*on)),
            Self::Ring { frames } => write!(f, "ring of {frames} frames"),
            Self::Pause { negotiated, receive, transmit } => {
                let [negotiated, receive, transmit] =
                    [negotiated, receive, transmit].map(|on| switched(*on));
                write!(f, "pause frames autoneg {negotiated} rx {receive} tx {transmit}")
            }
            Self::Rss { table, key, .. } => {
                // Enough of the key to know it by.
                let start: String = key.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                let queues = table.iter().max().map_or(0, |highest| u64::from(*highest) + 1);
                write!(f, "RSS key {start}… over {queues} queues")
            }
        }
    }
}

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it was.
    pub old: Setting,
    /// What it was set to.
    pub new: Setting,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.old, self.new)
    }
}

/// What is to be changed about a port, in this order. Only what the driver lets be changed.
pub fn plan(port: &Port, backend: Backend) -> Vec<Change> {
    let xdp = backend == Backend::AfXdp;
    let mut plan = Vec::new();
    if let Ok(features) = &port.features {
        let off = |name: &&str| switch_off(features, name);
        plan.extend(MERGING.iter().filter_map(off));
        if xdp {
            plan.extend(TAKING_TAGS.iter().filter_map(off));
        }
    }
    if let Ok(Ring { frames, frames_max }) = port.ring
        && frames < frames_max
    {
        plan.push(Change {
            old: Setting::Ring { frames },
            new: Setting::Ring { frames: frames_max },
        });
    }
    if let Ok(pause) = port.pause
        && (pause.receive || pause.transmit)
    {
        plan.push(Change { old: pause.into(), new: Pause::default().into() });
    }
    // AF_PACKET spreads flows itself.
    if let Ok(rss) = &port.rss
        && xdp
    {
        plan.extend(spread_evenly(rss, port.queues()));
    }
    plan
}

fn switch_off(features: &Features, name: &str) -> Option<Change> {
    let feature = features.get(name).filter(|feature| feature.active && feature.changeable)?;
    let setting = |on| Setting::Feature { name: feature.name.clone(), on };
    Some(Change { old: setting(true), new: setting(false) })
}

/// The key of [`sensor::rss`](crate::sensor::rss), and queues in turn, where they are not so already.
fn spread_evenly(rss: &Rss, queues: u32) -> Option<Change> {
    if queues < 2 || rss.is_symmetric() && rss.is_even(queues) {
        return None;
    }
    let mut new = rss.clone();
    if !rss.is_symmetric() {
        new.key = symmetric_key(rss.key.len());
        // A driver that does not tell its function has but one.
        new.function = if rss.function == 0 { 0 } else { Rss::TOEPLITZ };
    }
    if !rss.is_even(queues) {
        new.table = round_robin(rss.table.len(), queues);
    }
    Some(Change { old: rss.clone().into(), new: new.into() })
}

/// A port that was set for a run. Puts it back when it goes.
#[derive(Debug)]
pub struct Tuned(Arc<PutBack>);

/// What is to be put back, once.
#[derive(Debug)]
pub struct PutBack(Mutex<Option<(StateDir, Left)>>);

impl Tuned {
    /// Writes down what is to be changed, and changes it. What cannot be set is told and left.
    ///
    /// # Errors
    /// When nothing may be set, or what it was cannot be written down: nothing is changed then.
    pub fn apply(state: &StateDir, port: &Port, backend: Backend) -> anyhow::Result<Self> {
        let name = &port.name;
        anyhow::ensure!(
            Rights::effective().has(Capability::NET_ADMIN),
            "--tune: setting {name} takes CAP_NET_ADMIN, and this process has it not: give it, or run without --tune"
        );
        let plan = plan(port, backend);
        if plan.is_empty() {
            tracing::info!("{name}: there is nothing to set");
            return Ok(Self(Arc::new(PutBack(Mutex::new(None)))));
        }
        let mut left = state.left(port, plan);
        state.write(&left).with_context(|| {
            format!(
                "--tune: how {name} was cannot be written to {}: nothing was set; choose another --state-dir",
                state.path_of(&left).display()
            )
        })?;
        let nic = Nic::open(name)?;
        left.changes.retain(|change| match change.new.set(&nic) {
            Ok(()) => {
                tracing::info!("{name}: {change}");
                true
            }
            Err(error) => {
                tracing::warn!("{name}: {} could not be set: {error}", change.new);
                // It may have been set to something else.
                change.old.now(&nic).is_ok_and(|now| now != change.old)
            }
        });
        // What could not be set need not be put back; should this fail, it is found to be what it was.
        if let Err(error) = state.write(&left) {
            tracing::warn!("{name}: {} is out of date: {error}", state.path_of(&left).display());
        }
        Ok(Self(Arc::new(PutBack(Mutex::new(Some((state.clone(), left)))))))
    }

    /// For whoever must put it back before this goes.
    pub fn put_back(&self) -> Arc<PutBack> {
        Arc::clone(&self.0)
    }
}

impl Drop for Tuned {
    fn drop(&mut self) {
        self.0.now();
    }
}

impl PutBack {
    /// Puts it back. Whoever comes second waits for the first and does nothing.
    pub fn now(&self) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((state, left)) = left.take() {
            state.put_back(&left);
        }
    }
}

/// Puts back what is still as it was set, last change first. Whether that could be done.
pub(super) fn put_back(left: &Left) -> bool {
    let Left { interface: name, changes, .. } = left;
    // Another one of the same name is not the one that was set.
    let is_it = Interface::find(name).is_ok_and(|found| found.index == left.index);
    let Some(nic) = is_it.then(|| Nic::open(name).ok()).flatten() else {
        tracing::info!("{name}: the interface is gone, and its settings with it");
        return true;
    };
    let mut all = true;
    for Change { old, new } in changes.iter().rev() {
        match new.now(&nic) {
            Ok(now) if now == *old => {}
            Ok(now) if now != *new => {
                tracing::warn!(
                    "{name}: {now} is somebody else's doing, and is left so; it was {old}"
                );
            }
            _ => match old.set(&nic) {
                Ok(()) => tracing::info!("{name}: put back: {new} → {old}"),
                Err(error) => {
                    tracing::warn!("{name}: {old} could not be put back: {error}");
                    all = false;
                }
            },
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::findings::good_port;
    use super::*;
    use crate::flow::{FiveTuple, FlowKey};
    use crate::net::{Addr, IpProto, IpVersion};
    use crate::sensor::rss::{KEY_LEN, Steering, Toeplitz};

    fn told(port: &Port, backend: Backend) -> Vec<String> {
        plan(port, backend).iter().map(ToString::to_string).collect()
    }

    fn bad_port() -> Port {
        let mut port = good_port();
        let on = ["rx-gro", "rx-gro-hw", "rx-lro", "rx-vlan-hw-parse"].map(|name| (name, true));
        port.features = Ok(on.into_iter().collect());
        port.ring = Ok(Ring { frames: 512, frames_max: 4096 });
        port.pause = Ok(Pause { negotiated: true, receive: true, transmit: true });
        let rss = port.rss.as_mut().unwrap();
        rss.key = (0..40).collect();
        rss.table = round_robin(128, 2);
        port
    }

    #[test]
    fn a_port_that_is_as_it_should_be_is_left_alone() {
        assert_eq!(told(&good_port(), Backend::AfXdp), [""; 0]);
        assert_eq!(told(&good_port(), Backend::AfPacket), [""; 0]);
    }

    #[test]
    fn what_is_changed_is_told_as_old_and_new_and_depends_on_the_backend() {
        let for_packets = [
            "rx-gro-hw on → rx-gro-hw off",
            "rx-lro on → rx-lro off",
            "rx-gro on → rx-gro off",
            "ring of 512 frames → ring of 4096 frames",
            "pause frames autoneg on rx on tx on → pause frames autoneg off rx off tx off",
        ];
        assert_eq!(told(&bad_port(), Backend::AfPacket), for_packets);
        let for_xdp = told(&bad_port(), Backend::AfXdp);
        assert!(for_packets.iter().all(|change| for_xdp.iter().any(|found| found == change)));
        assert_eq!(for_xdp[3], "rx-vlan-hw-parse on → rx-vlan-hw-parse off");
        assert_eq!(
            for_xdp.last().unwrap(),
            "RSS key 00010203… over 2 queues → RSS key 6d5a6d5a… over 4 queues"
        );
    }

    #[test]
    fn what_is_remembered_comes_back_from_its_file_as_it_was() {
        let plan = plan(&bad_port(), Backend::AfXdp);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Change>>(&text).unwrap(), plan);
    }

    #[test]
    fn only_what_is_wrong_about_spreading_is_changed() {
        let mut port = good_port();
        let even = port.rss.clone().unwrap();
        port.rss.as_mut().unwrap().table = round_robin(128, 3);
        let [Change { new: Setting::Rss { table, key, .. }, .. }] =
            &plan(&port, Backend::AfXdp)[..]
        else {
            panic!("one change");
        };
        assert_eq!((table, key), (&even.table, &even.key));
        port.rss = Ok(Rss { transform: 1, key: vec![7; 52], ..even });
        let none = told(&port, Backend::AfXdp);
        assert_eq!(none, [""; 0], "symmetric by what is done before the hash");
        port.rss.as_mut().unwrap().transform = 0;
        port.rss.as_mut().unwrap().key[0] = 6;
        port.rss.as_mut().unwrap().function = 0;
        let [Change { new: Setting::Rss { key, function, .. }, .. }] =
            &plan(&port, Backend::AfXdp)[..]
        else {
            panic!("one change");
        };
        assert_eq!(
            (key, *function),
            (&symmetric_key(52), 0),
            "a function that is not told is left"
        );
    }

    /// A NIC with what we set picks the queue that `sensor::rss` picks; `tests/af_xdp` holds the XDP program to that.
    #[test]
    fn the_nic_would_spread_flows_as_the_sensor_does() {
        let nic_sizes = [(40, 128, 4), (40, 128, 3), (52, 512, 4), (52, 64, 2), (40, 2048, 8)];
        for (key_bytes, entries, queues) in nic_sizes {
            let mut port = bad_port();
            port.interface.queues = queues;
            let rss = port.rss.as_mut().unwrap();
            (rss.key, rss.table) = ((0..key_bytes).collect(), vec![0; entries]);
            let plan = plan(&port, Backend::AfXdp);
            let Some(Change { new: Setting::Rss { table, key, function, .. }, .. }) = plan.last()
            else {
                panic!("no RSS in {plan:?}");
            };
            assert_eq!((key.len(), table.len(), *function), (key_bytes as usize, entries, 1));
            // What lies behind is for longer inputs than there are.
            let toeplitz = Toeplitz::new(key.first_chunk::<KEY_LEN>().unwrap());
            let steering = Steering::new(queues as usize);
            for number in 0..2000u16 {
                let [high, low] = number.to_be_bytes();
                let (src, dst, version, skip) = if number % 2 == 0 {
                    (Addr::v4([192, 0, 2, low]), Addr::v4([198, 51, 100, 7]), IpVersion::V4, 12)
                } else {
                    let src = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low];
                    (Addr(src), Addr([7; 16]), IpVersion::V6, 0)
                };
                let there = FiveTuple {
                    src,
                    dst,
                    src_port: 1024 + number,
                    dst_port: 443,
                    proto: IpProto::TCP,
                    version,
                    scope: Default::default(),
                };
                let (key, _): (FlowKey, _) = there.canonical();
                for (src, dst, ports) in [
                    (there.src, there.dst, [there.src_port, there.dst_port]),
                    (there.dst, there.src, [there.dst_port, there.src_port]),
                ] {
                    let ports = ports.iter().flat_map(|port| port.to_be_bytes());
                    let header = src.0[skip..].iter().chain(&dst.0[skip..]).copied().chain(ports);
                    let hash = toeplitz.hash(&header.collect::<Vec<_>>());
                    let queue = table[hash as usize % table.len()];
                    assert_eq!(queue as usize, steering.worker(&key), "{queues} of {entries}");
                }
            }
        }
    }
}
