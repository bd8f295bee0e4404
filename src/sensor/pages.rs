//! In which pages the tables of a run that is over soon lie.
//!
//! Huge pages make a look-up among a million flows a sixth cheaper, and come as quickly as small ones where memory is the machine's own. A
//! virtual machine that gives free memory back to its host (free page reporting) gives back just what huge pages are made of, and has it
//! again at 5 ms for each: 160 MB took 390 ms, and 61 in small ones. So of a table that grows each next huge page is touched before flows
//! come to it, and once two were dear the rest comes in small ones.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::direct::{PacketTracking, Tracking};
use super::shunt::ShuntCounts;
use crate::capture::Upcoming;
use crate::export::RecordWriter;
use crate::flow::{ByFiveTuple, FlowKey, FlowTracker, Packet};
use crate::frame::Frame;
use crate::reassembly::ReassemblyCounters;
use crate::time::Timestamp;

/// A table with fewer flows is left alone: it is in a page or two.
const FLOWS_MIN: usize = 16 * 1024;
/// So many flows before a page begins it is touched: more than a batch begins.
const FLOWS_BEFORE: usize = 1024;
/// A huge page that takes longer is dear. One that is at hand takes 0.2 to 0.3 ms, small ones in its place 0.8.
const DEAR: Duration = Duration::from_millis(2);
/// So many one after the other are no chance: one may have taken long because something else ran meanwhile.
const DEAR_MAX: u32 = 2;

/// Tracking whose table grows.
#[derive(Debug)]
pub struct Growing<T> {
    tracking: T,
    /// With nearly so many flows the next page is touched.
    next: usize,
    /// How many of the last pages were dear.
    dear: u32,
    touch: Touch,
}

/// Touches a page: which flows will lie in it, and how long it took.
type Touch = fn(&mut FlowTracker<ByFiveTuple>) -> (Option<Range<usize>>, Duration);

impl<T: Tracking> Growing<T> {
    /// Of tracking that has no flows yet.
    pub fn new(tracking: T) -> Self {
        Self { tracking, next: FLOWS_MIN, dear: 0, touch: touch_timed }
    }

    /// Before frames are taken.
    #[inline]
    fn look(&mut self) {
        if self.tracking.tracker().flows_most() + FLOWS_BEFORE >= self.next {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let tracker = self.tracking.tracker_mut();
        let (Some(page), took) = (self.touch)(tracker) else {
            self.next = usize::MAX;
            return;
        };
        let flows = tracker.flows_most();
        self.next = flows + page.end;
        self.dear = if took > DEAR { self.dear + 1 } else { 0 };
        if self.dear == DEAR_MAX {
            tracing::debug!(
                flows,
                ?took,
                "huge pages are slow to come: the rest of the table is in small ones"
            );
            tracker.use_small_pages(page.end);
            self.next = usize::MAX;
        }
    }
}

fn touch_timed(tracker: &mut FlowTracker<ByFiveTuple>) -> (Option<Range<usize>>, Duration) {
    let begin = Instant::now();
    let page = tracker.touch_huge_page();
    (page, begin.elapsed())
}

impl<T: Tracking> Tracking for Growing<T> {
    #[inline]
    fn process(
        &mut self,
        frames: &[Frame<'_>],
        upcoming: &mut Upcoming<'_>,
        records: &mut RecordWriter,
    ) {
        self.look();
        self.tracking.process(frames, upcoming, records);
    }

    fn handle_timeout(&mut self, now: Timestamp, records: &mut RecordWriter) -> bool {
        self.tracking.handle_timeout(now, records)
    }

    fn drain(&mut self, records: &mut RecordWriter) {
        self.tracking.drain(records);
    }

    fn tracker(&self) -> &FlowTracker<ByFiveTuple> {
        self.tracking.tracker()
    }

    fn tracker_mut(&mut self) -> &mut FlowTracker<ByFiveTuple> {
        self.tracking.tracker_mut()
    }

    fn streams(&self) -> Option<&ReassemblyCounters> {
        self.tracking.streams()
    }

    fn shunted(&self) -> ShuntCounts {
        self.tracking.shunted()
    }
}

impl<T: PacketTracking> PacketTracking for Growing<T> {
    const NEEDS_FRAMES: bool = T::NEEDS_FRAMES;

    #[inline]
    fn process_packets(
        &mut self,
        packets: &[Packet<FlowKey>],
        frames: &[Frame<'_>],
        records: &mut RecordWriter,
    ) {
        self.look();
        self.tracking.process_packets(packets, frames, records);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::flow::TrackerConfig;

    /// With entries of 128 bytes.
    const FLOWS_A_PAGE: usize = crate::pages::HUGE_BYTES / 128;

    /// Touches a page, of which it says that it took so long.
    fn touch<const MILLIS: u64>(
        tracker: &mut FlowTracker<ByFiveTuple>,
    ) -> (Option<Range<usize>>, Duration) {
        (tracker.touch_huge_page(), Duration::from_millis(MILLIS))
    }

    /// Every other page is dear, of the only table that is touched so.
    fn touch_odd(tracker: &mut FlowTracker<ByFiveTuple>) -> (Option<Range<usize>>, Duration) {
        static PAGES: AtomicU64 = AtomicU64::new(0);
        let number = PAGES.fetch_add(1, Ordering::Relaxed);
        (tracker.touch_huge_page(), Duration::from_millis(number % 2 * 10))
    }

    fn frame_of(data: &[u8]) -> Frame<'_> {
        let link = crate::frame::LinkType::ETHERNET;
        let wire_len = data.len() as u32;
        Frame { ts: Timestamp::new(1, 0), wire_len, link, interface: 0, data }
    }

    /// How many flows there were at each look of a table that grows to `flows`, and with how many the next would have been.
    fn looks(flows: usize, touch: Touch) -> (Vec<usize>, usize) {
        let config = TrackerConfig { max_flows: flows, ..TrackerConfig::default() };
        let tracker = FlowTracker::new(ByFiveTuple::default(), config).unwrap();
        let mut growing = Growing { touch, ..Growing::new(tracker) };
        let mut records = RecordWriter::new(Vec::new(), false, crate::export::WhenFull::Wait);
        let mut frame = *b"\0\0\0\0\0\x01\0\0\0\0\0\x02\x08\0\
            \x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x0a\0\0\0\x0a\0\0\0\0\x07\0\x07\0\x08\0\0";
        let mut looks = Vec::new();
        for flow in 0..flows as u32 {
            frame[26..30].copy_from_slice(&flow.to_be_bytes());
            let before = growing.next;
            growing.process(&[frame_of(&frame)], &mut Upcoming::default(), &mut records);
            if growing.next != before {
                looks.push(flow as usize);
            }
        }
        assert_eq!((growing.tracker().flows_most(), growing.tracker().len()), (flows, flows));
        (looks, growing.next)
    }

    #[test]
    fn each_page_is_touched_before_flows_come_to_it() {
        const PAGES: usize = 6;
        let (looks, next) = looks(PAGES * FLOWS_A_PAGE, touch::<0>);
        assert!((PAGES - 1..=PAGES).contains(&looks.len()), "{looks:?}");
        assert_eq!(looks[0], FLOWS_MIN - FLOWS_BEFORE);
        let steps = looks[1..].windows(2).map(|pair| pair[1] - pair[0]);
        assert!(steps.take(PAGES - 3).all(|step| step == FLOWS_A_PAGE), "{looks:?}");
        assert!(next > PAGES * FLOWS_A_PAGE - FLOWS_BEFORE, "{next}");
    }

    #[test]
    fn behind_two_dear_pages_nothing_is_touched() {
        let (looks, next) = looks(6 * FLOWS_A_PAGE, touch::<3>);
        assert_eq!((looks.len(), next), (2, usize::MAX), "{looks:?}");
    }

    #[test]
    fn a_page_that_was_dear_by_chance_ends_nothing() {
        let (looks, _) = looks(6 * FLOWS_A_PAGE, touch_odd);
        assert!(looks.len() >= 5, "{looks:?}");
    }

    #[test]
    fn a_small_table_is_left_alone() {
        let (looks, next) = looks(FLOWS_MIN - FLOWS_BEFORE, touch::<3>);
        assert_eq!((looks, next), (vec![], FLOWS_MIN));
    }
}
