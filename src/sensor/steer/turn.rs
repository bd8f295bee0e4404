//! What one worker does in its turn: it collects a few batches while it alone reads, decodes them while others read on, and deals when
//! all before it have dealt.
//!
//! Contract: turns are dealt in the order in which they were read, and each gives a worker one parcel at most. Only frames whose bytes
//! [last](Lasting) are decoded outside of reading; others, which are lent for the time of a batch, are dealt while they are read. A
//! turn that met a fragment or an ICMP error, or in which fragments are given up on, is decoded once more by the dealer, in order.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::dealer::{Dealer, OpenParcels};
use super::lane::Lane;
use crate::capture::{BATCH_FRAMES_MAX, Lasting};
use crate::flow::ByFiveTuple;
use crate::flow::ingest::Ingest;
use crate::frame::{Frame, LinkType};
use crate::sensor::read::Stage;
use crate::sensor::shard::ReaderFigures;
use crate::time::Timestamp;

/// Batches in a turn: two parcels of a common size for two workers.
pub(super) const TURN_BATCHES: u32 = 4;

/// Who deals after whom.
pub(super) struct Order {
    dealer: Mutex<Dealer>,
    /// Turns that were dealt.
    dealt: AtomicU64,
    /// A worker panicked: its turn will never come.
    is_broken: AtomicBool,
    /// How often who waits looks before it lets others have the core.
    looks: u32,
}

impl Order {
    pub(super) fn new(dealer: Dealer, looks: u32) -> Self {
        Self {
            dealer: Mutex::new(dealer),
            dealt: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
            looks,
        }
    }

    /// The dealer, once all turns before this one were dealt; `None` where that will never be.
    pub(super) fn wait(&self, turn: u64) -> Option<MutexGuard<'_, Dealer>> {
        let mut looks = self.looks;
        while self.dealt.load(Ordering::Acquire) != turn {
            if self.is_broken() {
                return None;
            }
            if looks > 0 {
                looks -= 1;
                spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        self.dealer.lock().ok()
    }

    /// The next turn may be dealt.
    pub(super) fn next(&self) {
        self.dealt.fetch_add(1, Ordering::Release);
    }

    /// How often who waits looks first.
    pub(super) fn looks(&self) -> u32 {
        self.looks
    }

    /// Whether a worker panicked.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// The dealer at the end, whatever was.
    pub(super) fn into_dealer(self) -> Dealer {
        self.dealer.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Tells those who wait for a worker that it panicked.
pub(super) struct Alarm<'a>(pub(super) &'a Order);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

/// A frame of bytes that last.
#[derive(Clone, Copy)]
struct Span {
    ts: Timestamp,
    at: usize,
    len: u32,
    wire_len: u32,
    link: LinkType,
    interface: u16,
}

impl Span {
    /// `None` for a frame that is not of these bytes.
    #[inline]
    fn new(frame: &Frame<'_>, bytes: &[u8]) -> Option<Self> {
        let at = frame.data.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
        let is_within = at.checked_add(frame.data.len())? <= bytes.len();
        is_within.then_some(Self {
            ts: frame.ts,
            at,
            len: u32::try_from(frame.data.len()).ok()?,
            wire_len: frame.wire_len,
            link: frame.link,
            interface: frame.interface,
        })
    }

    #[inline]
    fn frame(self, bytes: &[u8]) -> Frame<'_> {
        Frame {
            ts: self.ts,
            wire_len: self.wire_len,
            link: self.link,
            interface: self.interface,
            data: bytes.get(self.at..self.at + self.len as usize).unwrap_or_default(),
        }
    }
}

/// The frames of a turn, where their bytes last.
#[derive(Default)]
struct Collected {
    bytes: Option<Arc<dyn Lasting>>,
    spans: Vec<Span>,
    /// Up to which span each batch goes, and how late it was then.
    batches: Vec<(usize, Timestamp)>,
}

impl Collected {
    /// `false` for frames of other bytes, of which none is kept.
    fn keep(&mut self, frames: &[Frame<'_>]) -> bool {
        let Some(bytes) = &self.bytes else { return false };
        let (bytes, before) = (bytes.bytes(), self.spans.len());
        self.spans.extend(frames.iter().map_while(|frame| Span::new(frame, bytes)));
        let is_all = self.spans.len() - before == frames.len() && frames.len() <= BATCH_FRAMES_MAX;
        if !is_all {
            self.spans.truncate(before);
        }
        is_all
    }

    fn each_batch(&self, mut f: impl FnMut(&[Frame<'_>], Timestamp)) {
        let Some(bytes) = &self.bytes else { return };
        let bytes = bytes.bytes();
        let mut begin = 0;
        for &(end, now) in &self.batches {
            let spans = &self.spans[begin..end];
            begin = end;
            let Some(&first) = spans.first() else {
                f(&[], now);
                continue;
            };
            let mut frames = [first.frame(bytes); BATCH_FRAMES_MAX];
            frames.iter_mut().zip(spans).for_each(|(frame, span)| *frame = span.frame(bytes));
            f(&frames[..spans.len()], now);
        }
    }

    fn clear(&mut self) {
        self.bytes = None;
        self.spans.clear();
        self.batches.clear();
    }
}

/// A worker's turn.
pub(super) struct Turn {
    number: u64,
    /// How late it was before.
    began: Timestamp,
    collected: Collected,
    /// Frames came whose bytes do not last: from there on the dealer has all.
    is_dealt: bool,
    apart: Ingest<ByFiveTuple>,
    parcels: OpenParcels,
}

impl Turn {
    /// For a worker at the end of one of `lanes`.
    pub(super) fn new(apart: Ingest<ByFiveTuple>, lanes: &[Arc<Lane>]) -> Self {
        Self {
            number: 0,
            began: Timestamp::ZERO,
            collected: Collected::default(),
            is_dealt: false,
            apart,
            parcels: OpenParcels::new(lanes),
        }
    }

    /// Begins the turn of that number, at that time of the capture.
    pub(super) fn begin(&mut self, number: u64, began: Timestamp) {
        self.number = number;
        self.began = began;
        self.is_dealt = false;
        self.collected.clear();
    }

    /// What its frames are of, if that lasts.
    pub(super) fn bytes(&self) -> Option<Arc<dyn Lasting>> {
        self.collected.bytes.clone()
    }

    /// Which it is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Collects while this worker reads frames, which may be of `bytes`.
    pub(super) fn collect<'a>(
        &'a mut self,
        order: &'a Order,
        bytes: Option<Arc<dyn Lasting>>,
    ) -> Collect<'a> {
        self.collected.bytes = bytes;
        Collect { turn: self, order }
    }

    /// Decodes what was collected.
    pub(super) fn decode(&mut self) {
        let Self { collected, apart, parcels, is_dealt, .. } = self;
        if *is_dealt {
            return;
        }
        apart.handle_timeout(self.began, parcels);
        collected.each_batch(|frames, now| {
            apart.batch(frames, parcels);
            apart.handle_timeout(now, parcels);
        });
    }

    /// Deals it.
    pub(super) fn deal(&mut self, dealer: &mut Dealer) {
        let apart = self.apart.take_apart();
        match (apart, self.collected.batches.last()) {
            _ if self.is_dealt => dealer.hand_on_all(),
            (_, None) => {}
            (Some(apart), Some(&(_, now))) if !dealer.has_due_by(now) => {
                let batches = self.collected.batches.len() as u32;
                dealer.deal(&apart, &mut self.parcels, batches, now);
            }
            _ => {
                self.parcels.clear();
                self.deal_again(dealer);
                dealer.hand_on_all();
            }
        }
        // The file is to be had again.
        self.collected.clear();
    }

    /// By the one that has the fragments.
    fn deal_again(&self, dealer: &mut Dealer) {
        self.collected.each_batch(|frames, now| {
            dealer.frames(frames);
            dealer.advance(now);
        });
    }
}

/// A turn while it is read.
pub(super) struct Collect<'a> {
    turn: &'a mut Turn,
    order: &'a Order,
}

impl Stage for Collect<'_> {
    fn frames(&mut self, frames: &[Frame<'_>]) {
        let Self { turn, order } = self;
        if !turn.is_dealt && turn.collected.keep(frames) {
            return;
        }
        let Some(mut dealer) = order.wait(turn.number) else { return };
        if !turn.is_dealt {
            turn.deal_again(&mut dealer);
            turn.is_dealt = true;
        }
        dealer.frames(frames);
    }

    fn tick(&mut self, now: Timestamp, figures: &mut ReaderFigures) {
        let Self { turn, order } = self;
        if turn.is_dealt {
            let Some(mut dealer) = order.wait(turn.number) else { return };
            dealer.advance(now);
            figures.set_ingest(dealer.counters());
        } else {
            turn.collected.batches.push((turn.collected.spans.len(), now));
            // Whoever deals just then has its figures told by the next batch.
            if let Ok(dealer) = order.dealer.try_lock() {
                figures.set_ingest(dealer.counters());
            }
        }
    }

    /// Nothing is handed on before the turn is over, and a file is never quiet.
    fn flush(&mut self) {}
}
