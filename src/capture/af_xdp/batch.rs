//! Descriptors → frames, one slice each.
//!
//! Contract: a frame that came in several buffers is put together in memory of our own; none is cut. What cannot be put
//! together is counted.
#![allow(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

use xsk_rs::FrameDesc;

use super::held::Held;
use super::sys;
use super::umem::Socket;
use crate::capture::BATCH_FRAMES_MAX;
use crate::capture::file::recycled;
use crate::frame::{Frame, LinkType};
use crate::time::Timestamp;

/// Room for frames that are put together, in a batch. The kernel makes none longer than 18 pages.
const JOINED_BYTES: usize = 256 * 1024;
const FRAME_BYTES_MAX: usize = 18 * 4096;
const _: () = assert!(JOINED_BYTES >= FRAME_BYTES_MAX);

/// What makes frames of descriptors.
pub(super) struct Batch {
    held: Held<FrameDesc>,
    /// The last batch's frames, taken out; kept for its room.
    scratch: Vec<Frame<'static>>,
    /// Where frames are put together; empty where none comes in several buffers.
    joined: Box<[u8]>,
    interface: u16,
    /// Frames handed out.
    pub(super) delivered: u64,
    /// Frames of which not all buffers came, or too many: none, unless the kernel is wrong.
    pub(super) broken: u64,
}

/// How the times of frames come about: one look at the clocks a batch.
#[derive(Clone, Copy)]
enum Clock {
    /// Every frame has the batch's.
    Batch(Timestamp),
    /// Stamped frames have their own, this much later by the clock of the day.
    Stamped { now: Timestamp, real_minus_monotonic_ns: u64 },
}

impl Clock {
    fn read(stamped: bool) -> Self {
        if stamped {
            let (real_ns, monotonic_ns) = sys::clocks_ns();
            let now = Timestamp::from_nanos(real_ns);
            let real_minus_monotonic_ns = real_ns.wrapping_sub(monotonic_ns);
            return Self::Stamped { now, real_minus_monotonic_ns };
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::Batch(Timestamp::new(now.as_secs(), now.subsec_nanos()))
    }

    #[inline]
    fn of(self, stamp_ns: Option<u64>) -> Timestamp {
        match (self, stamp_ns) {
            (Self::Stamped { real_minus_monotonic_ns, .. }, Some(ns)) => {
                Timestamp::from_nanos(ns.wrapping_add(real_minus_monotonic_ns))
            }
            (Self::Stamped { now, .. }, None) | (Self::Batch(now), _) => now,
        }
    }
}

impl Batch {
    pub(super) fn new(interface: u16, multi_buffer: bool) -> Self {
        let joined = if multi_buffer { JOINED_BYTES } else { 0 };
        Self {
            held: Held::new(BATCH_FRAMES_MAX),
            scratch: Vec::with_capacity(BATCH_FRAMES_MAX),
            joined: vec![0; joined].into_boxed_slice(),
            interface,
            delivered: 0,
            broken: 0,
        }
    }

    /// Takes in what the ring has. Whether there is anything to hand out.
    #[inline]
    pub(super) fn receive(&mut self, socket: &mut Socket) -> bool {
        self.held.receive(socket)
    }

    /// Hands out what was taken in, then gives it back to the kernel. `socket` is the one that it came from.
    pub(super) fn lend<R>(
        &mut self,
        socket: &mut Socket,
        stamped: bool,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> R {
        let waiting = self.held.waiting();
        if waiting.is_empty() {
            return f(&[]);
        }
        let clock = Clock::read(stamped);
        let mut frames = recycled(std::mem::take(&mut self.scratch));
        let mut room = &mut self.joined[..];
        let mut used = 0;
        let mut broken = 0;
        while let Some(first) = waiting.get(used) {
            // SAFETY:
            // - what waits came from `receive` of this socket, and goes back only below, when no frame is borrowed any
            //   more: `frames` is emptied before.
            let (data, stamp) = unsafe { socket.frame(first) };
            let ts = clock.of(stamp);
            let data = if first.has_more_frames() {
                let rest = &waiting[used..];
                let Some(last) = rest.iter().position(|desc| !desc.has_more_frames()) else {
                    break;
                };
                let bytes = rest[..=last].iter().map(|desc| desc.lengths().data()).sum();
                if bytes > room.len() {
                    if frames.is_empty() {
                        broken += 1;
                        used += last + 1;
                        continue;
                    }
                    break;
                }
                let (whole, behind) = std::mem::take(&mut room).split_at_mut(bytes);
                room = behind;
                let mut at = 0;
                for desc in &rest[..=last] {
                    // SAFETY:
                    // - as for `first`: it waits like that one, and its bytes are copied before anything goes back.
                    let (part, _) = unsafe { socket.frame(desc) };
                    whole[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
                used += last + 1;
                &*whole
            } else {
                used += 1;
                data
            };
            let (link, interface) = (LinkType::ETHERNET, self.interface);
            frames.push(Frame { ts, wire_len: data.len() as u32, link, interface, data });
        }
        if used == 0 && self.held.is_full() {
            // All room is taken by one frame that does not end.
            broken += 1;
            used = waiting.len();
        }
        let result = f(&frames);
        self.delivered += frames.len() as u64;
        self.broken += broken;
        self.scratch = recycled(frames);
        self.held.lend(used);
        self.held.give_back(socket);
        result
    }
}
