//! Live frames by libpcap: on every system that has it, and of interfaces that AF_PACKET does not read.
//!
//! | part | noun |
//! |---|---|
//! | [`Config`] | what is wanted, checked before anything is opened |
//! | `refuse` | what cannot be, and what to do about it |
//! | `linux`, `other` | what the system does beside libpcap |
//!
//! Contract: one [`PcapLive`] is one capture of one interface, for one thread. Frames are copied once, into memory taken at the
//! start, because libpcap's are valid only until the next read. On Linux what the host sends is not captured, times are in
//! nanoseconds, and the counts are exact once the capture is stopped and empty. Elsewhere what is offered is by definition what
//! was delivered and what libpcap says was dropped, and times are in microseconds.

mod config;
mod refuse;

#[cfg(target_os = "linux")]
#[path = "pcap_live/linux.rs"]
mod imp;
#[cfg(not(target_os = "linux"))]
#[path = "pcap_live/other.rs"]
mod imp;

use std::io;
use std::time::{Duration, Instant};

use pcap::{Active, Linktype};

pub use config::{Builder, Config};

use super::file::recycled;
use super::filter::{Filter, link_of};
use super::live::{DropReason, LiveCapture, QueueCounts};
use super::refuse::{error, gone, unknown};
use super::{BATCH_FRAMES_MAX, Capture, CaptureError};
use crate::frame::{Frame, LinkType};
use crate::time::Timestamp;

/// How long the last frames may take to be given to us, as the AF_PACKET backend has it.
const CLOSING_RETIRES: u32 = 10;
const CLOSING_EXTRA: Duration = Duration::from_millis(500);
const CLOSING_STEP: Duration = Duration::from_millis(1);

/// One capture by libpcap.
pub struct PcapLive {
    capture: pcap::Capture<Active>,
    interface: String,
    id: u16,
    config: Config,
    link: LinkType,
    filter: Option<Filter>,
    gate: Gate,
    life: Life,
    /// When reading ends after the stop, where nothing tells that all came.
    closes: Option<Instant>,
    /// Why it ended, until that was told.
    failure: Option<io::Error>,
    batch: Batch,
    /// The last batch's frames, taken out; kept for its room.
    scratch: Vec<Frame<'static>>,
    counted: Counted,
    /// Frames that libpcap gave us.
    read: u64,
    /// Those of them that the filter did not want, and that nothing before us could refuse.
    refused: u64,
    /// And those for which there was no room.
    lost: u64,
    /// Frames handed out.
    delivered: u64,
}

/// From the first frame to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Frames come.
    Open,
    /// No more come; there may be some in the buffer.
    Stopped,
    /// The last one was handed out.
    Ended,
}

/// Where frames that are not wanted are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "one is for other systems"))]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "two are for Linux"))]
enum Gate {
    /// All are wanted.
    Open,
    /// In the kernel, by a program of so many instructions.
    Kernel(usize),
    /// Here.
    UserSpace,
    /// Where libpcap does so.
    System,
}

/// Frames of one batch, one behind the other.
struct Batch {
    memory: Vec<u8>,
    places: Vec<Place>,
}

/// One of them.
struct Place {
    ts: Timestamp,
    wire_len: u32,
    end: usize,
}

/// What libpcap counted, added up: its own counters have 32 bits.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    last: [u32; 3],
    received: u64,
    dropped: u64,
    dropped_by_interface: u64,
}

impl Counted {
    /// Counts from these figures on.
    fn from(last: [u32; 3]) -> Self {
        Self { last, ..Self::default() }
    }

    fn add(&mut self, found: [u32; 3]) {
        let sums = [&mut self.received, &mut self.dropped, &mut self.dropped_by_interface];
        for ((sum, last), found) in sums.into_iter().zip(self.last).zip(found) {
            *sum += u64::from(found.wrapping_sub(last));
        }
        self.last = found;
    }
}

impl PcapLive {
    /// Opens `interface`. Its frames are of interface number `id`.
    ///
    /// # Errors
    /// [`CaptureError::Live`], with what to do about it; nothing is left open then. A filter that does not compile is refused before
    /// anything is opened.
    pub fn open(interface: &str, id: u16, config: &Config) -> Result<Self, CaptureError> {
        let name = interface;
        let filter = config.filter.as_deref().map(Filter::compile).transpose();
        let filter = filter.map_err(|refused| refuse::no_filter(name, refused))?;
        imp::find(name).map_err(|error| unknown(name, error))?;
        let not_opened = |libpcap| refuse::not_opened(name, config, libpcap);
        let inactive = pcap::Capture::from_device(name)
            .map_err(not_opened)?
            .promisc(config.promiscuous)
            .snaplen(config.frame_bytes as i32)
            .buffer_size(config.buffer_bytes as i32)
            .timeout(config.retire.as_millis() as i32);
        let mut capture =
            imp::prepare(inactive).open().and_then(imp::activated).map_err(not_opened)?;
        imp::clear(&mut capture, closing(config))
            .map_err(|system| refuse::no_gate(name, "making a clean start", system))?;
        let found = stats(&mut capture)
            .map_err(|system| refuse::no_gate(name, "reading libpcap's counters", system))?;
        let Linktype(dlt) = capture.get_datalink();
        let link = link_of(dlt);
        let gate = imp::let_in(&mut capture, filter.as_ref(), link, config.frame_bytes)
            .map_err(|system| refuse::no_gate(name, "attaching the filter", system))?;
        Ok(Self {
            capture,
            interface: name.to_owned(),
            id,
            config: config.clone(),
            link,
            filter,
            gate,
            life: Life::Open,
            closes: None,
            failure: None,
            batch: Batch {
                memory: vec![0; config.frame_bytes as usize * BATCH_FRAMES_MAX],
                places: Vec::with_capacity(BATCH_FRAMES_MAX),
            },
            scratch: Vec::with_capacity(BATCH_FRAMES_MAX),
            counted: Counted::from(found),
            read: 0,
            refused: 0,
            lost: 0,
            delivered: 0,
        })
    }

    /// How its frames begin.
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// What frames it is asked for; `None` is all.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    fn look(&mut self) -> io::Result<()> {
        self.counted.add(stats(&mut self.capture)?);
        Ok(())
    }

    fn tally(&self) -> QueueCounts {
        let Counted { received, dropped, dropped_by_interface, .. } = self.counted;
        let offered = if imp::COUNTS_TELL_THE_END {
            (received + dropped_by_interface).saturating_sub(self.refused)
        } else {
            self.delivered + self.lost + dropped + dropped_by_interface
        };
        let mut counts =
            QueueCounts { offered, delivered: self.delivered, ..QueueCounts::default() };
        counts.dropped[DropReason::RingFull as usize] = dropped;
        counts.dropped[DropReason::Driver as usize] = dropped_by_interface;
        counts.dropped[DropReason::Socket as usize] = self.lost;
        counts
    }

    /// Reads what there is into the batch, up to its size: how many frames were read, wanted or not.
    fn fill(&mut self) -> io::Result<usize> {
        let Self { capture, batch: Batch { memory, places }, filter, link, id, .. } = self;
        places.clear();
        let (mut end, mut refused, mut lost) = (0, 0, 0);
        let read = capture.dispatch(Some(BATCH_FRAMES_MAX), |packet| {
            let header = packet.header;
            let nanos = header.ts.tv_sec as u64 * 1_000_000_000
                + header.ts.tv_usec as u64 * imp::FRACTION_NS;
            let ts = Timestamp::from_nanos(nanos);
            let (wire_len, data) = (header.len, packet.data);
            let frame = Frame { ts, wire_len, link: *link, interface: *id, data };
            if !filter.as_ref().is_none_or(|filter| filter.matches(&frame)) {
                refused += 1;
                return;
            }
            // There is room, unless libpcap gives more or longer ones than it was asked for.
            let Some(room) = memory.get_mut(end..end + data.len()) else {
                lost += 1;
                return;
            };
            room.copy_from_slice(data);
            end += data.len();
            places.push(Place { ts, wire_len, end });
        });
        self.refused += refused;
        self.lost += lost;
        self.read += self.batch.places.len() as u64 + refused + lost;
        read.map_err(refuse::said)
    }

    /// Lends what is in the batch.
    fn lend<R>(&mut self, f: impl FnOnce(&[Frame<'_>]) -> R) -> R {
        let mut frames = recycled(std::mem::take(&mut self.scratch));
        let mut start = 0;
        for &Place { ts, wire_len, end } in &self.batch.places {
            let data = self.batch.memory.get(start..end).unwrap_or_default();
            frames.push(Frame { ts, wire_len, link: self.link, interface: self.id, data });
            start = end;
        }
        self.delivered += frames.len() as u64;
        let result = f(&frames);
        self.scratch = recycled(frames);
        self.batch.places.clear();
        result
    }

    /// Waits for frames that are wanted, as long as the configuration says, and reads them.
    fn wait(&mut self) -> io::Result<()> {
        let until = Instant::now() + self.config.wait;
        let mut left = self.config.wait;
        while !imp::wait(&self.capture, left)? || self.fill()? == 0 || self.batch.places.is_empty()
        {
            left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
        }
        Ok(())
    }

    /// After it was shut: waits until what is in the buffer is given to us, and reads it. Whether there was any.
    fn rest(&mut self) -> io::Result<bool> {
        self.look()?;
        let until = Instant::now() + closing(&self.config);
        let closes = *self.closes.get_or_insert(until);
        if !imp::COUNTS_TELL_THE_END && Instant::now() > closes {
            return Ok(false);
        }
        loop {
            // Its error was told already, or is that of the interface, which ends it anyway.
            let has_frames = imp::wait(&self.capture, Duration::ZERO).unwrap_or(false);
            let read = if has_frames { self.fill()? } else { 0 };
            if !self.batch.places.is_empty() {
                return Ok(true);
            }
            let expected = self.counted.received - self.counted.dropped;
            let all_came = if imp::COUNTS_TELL_THE_END { self.read >= expected } else { read == 0 };
            if all_came || Instant::now() > until {
                return Ok(false);
            }
            if read == 0 {
                std::thread::sleep(CLOSING_STEP);
            }
        }
    }

    /// Reads the next batch. Whether there is one, if only an empty one.
    fn next(&mut self) -> Result<bool, CaptureError> {
        if self.life == Life::Open {
            let Err(system) = self.wait() else { return Ok(true) };
            // Should the interface come back, it is not ours any more: what was lost meanwhile nobody counted.
            self.failure = Some(imp::shut(&self.capture).err().unwrap_or(system));
            self.life = Life::Stopped;
            if !self.batch.places.is_empty() {
                return Ok(true);
            }
        }
        if self.life == Life::Stopped {
            match self.rest() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(system) => self.failure = self.failure.take().or(Some(system)),
            }
            self.life = Life::Ended;
        }
        let Some(system) = self.failure.take() else { return Ok(false) };
        Err(gone(&self.interface, system))
    }
}

/// How long what is on its way at the stop may take to come out.
fn closing(config: &Config) -> Duration {
    config.retire * CLOSING_RETIRES + CLOSING_EXTRA
}

/// Received, dropped for want of room, dropped by the interface.
fn stats(capture: &mut pcap::Capture<Active>) -> io::Result<[u32; 3]> {
    let found = capture.stats().map_err(refuse::said)?;
    Ok([found.received, found.dropped, found.if_dropped])
}

impl Capture for PcapLive {
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        if !self.next()? {
            return Ok(None);
        }
        Ok(Some(self.lend(f)))
    }
}

impl LiveCapture for PcapLive {
    /// libpcap counts in 32 bits: ask at least once in 4 billion frames. What the filter refuses is not offered.
    fn counts(&mut self) -> Result<QueueCounts, CaptureError> {
        if self.life != Life::Ended {
            self.look().map_err(|system| {
                error(&self.interface, "reading libpcap's counters", system, "please report this")
            })?;
            return Ok(self.tally());
        }
        let mut counts = self.tally();
        // Of a block that the kernel did not close in time: none, in all tests.
        let left = counts.underway();
        counts.dropped[DropReason::Socket as usize] += left;
        Ok(counts)
    }

    fn stop(&mut self) -> Result<(), CaptureError> {
        if self.life != Life::Open {
            return Ok(());
        }
        imp::shut(&self.capture).map_err(|system| {
            refuse::no_gate(&self.interface, "attaching a filter that takes nothing", system)
        })?;
        self.life = Life::Stopped;
        Ok(())
    }

    fn description(&self) -> String {
        let Config { frame_bytes, buffer_bytes, retire, promiscuous, .. } = &self.config;
        let filter = match self.gate {
            Gate::Open => String::new(),
            Gate::Kernel(instructions) => format!(", filter of {instructions} instructions"),
            Gate::UserSpace => ", filter in user space".to_owned(),
            Gate::System => ", filter by libpcap".to_owned(),
        };
        format!(
            "{}: libpcap, {}, buffer of {} MiB (given after {} ms), frames of up to {frame_bytes} bytes{}{filter}",
            self.interface,
            self.link,
            buffer_bytes >> 20,
            retire.as_millis(),
            if *promiscuous { ", promiscuous" } else { "" },
        )
    }
}

impl std::fmt::Debug for PcapLive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapLive")
            .field("interface", &self.interface)
            .field("life", &self.life)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_32_bits_are_added_up_across_their_end() {
        let mut counted = Counted::from([u32::MAX - 1, 5, 0]);
        counted.add([3, 5, 1]);
        counted.add([3, 2, u32::MAX]);
        let Counted { received, dropped, dropped_by_interface, .. } = counted;
        assert_eq!(received, 5);
        assert_eq!(dropped, u64::from(u32::MAX) - 2);
        assert_eq!(dropped_by_interface, u64::from(u32::MAX));
    }
}
