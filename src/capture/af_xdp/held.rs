//! The frames that are ours for the moment: received, not yet given back.
//!
//! Contract: a descriptor comes in by [`Held::receive`] and leaves by [`Held::give_back`], and is never handed out in
//! between. So a frame of the UMEM is with the kernel or in exactly one place here, and what was given back cannot be
//! read any more. Invariant: `lent <= used <= descs.len()`; `descs[..lent]` were looked at, `descs[lent..used]` wait.

#![allow(unsafe_code)]

/// The two ends of a frame's way around: the ring to us and the ring back. The kernel's, or a test's.
pub(super) trait Rings {
    /// What names a frame.
    type Desc: Copy + Default;

    /// Takes descriptors off the ring to us, from the start of `into` on. How many there were.
    fn receive(&mut self, into: &mut [Self::Desc]) -> usize;

    /// Gives frames back to the kernel. All of them: the ring has room for every frame that there is.
    ///
    /// # Safety
    /// Each of them came from `receive` of the same rings and was not given back since; none is in `frames` twice,
    /// and nobody reads any of them any more.
    unsafe fn give_back(&mut self, frames: &[Self::Desc]);
}

/// Descriptors of frames that are ours.
#[derive(Debug)]
pub(super) struct Held<D> {
    descs: Box<[D]>,
    lent: usize,
    used: usize,
}

impl<D: Copy + Default> Held<D> {
    /// Room for `max` frames.
    pub(super) fn new(max: usize) -> Self {
        Self { descs: vec![D::default(); max].into_boxed_slice(), lent: 0, used: 0 }
    }

    /// Takes in what the ring has, as far as there is room. Whether anything waits now.
    pub(super) fn receive(&mut self, rings: &mut impl Rings<Desc = D>) -> bool {
        self.used += rings.receive(&mut self.descs[self.used..]);
        self.used > self.lent
    }

    /// What waits to be looked at.
    pub(super) fn waiting(&self) -> &[D] {
        &self.descs[self.lent..self.used]
    }

    /// Whether no more can be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.used == self.descs.len()
    }

    /// The first `frames` of those that wait were looked at.
    pub(super) fn lend(&mut self, frames: usize) {
        assert!(frames <= self.used - self.lent, "more frames lent than there are");
        self.lent += frames;
    }

    /// Gives back those that were looked at. Nobody looks at them any more: that takes `&mut self`, and whoever still
    /// reads a frame has borrowed what this is in.
    pub(super) fn give_back(&mut self, rings: &mut impl Rings<Desc = D>) {
        if self.lent == 0 {
            return;
        }
        // SAFETY:
        // - everything in `descs[..used]` came from `receive`, each once: the ring holds no frame twice, and what is
        //   given back is moved out below.
        // - what was lent has been borrowed from who owns this, and `&mut self` says that those borrows are over.
        unsafe { rings.give_back(&self.descs[..self.lent]) };
        // Mostly nothing waits: only a batch that was full of split frames leaves a rest.
        self.descs.copy_within(self.lent..self.used, 0);
        self.used -= self.lent;
        self.lent = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use proptest::prelude::*;

    /// A kernel that checks: it knows which frames it has, and takes none twice.
    struct Kernel {
        fill: VecDeque<u32>,
        rx: VecDeque<u32>,
        has: Vec<bool>,
        /// Entries of the fill ring that it saw when it last looked, and those that it took since: only when none is
        /// left does it say how many it took, and look again.
        seen: usize,
        taken_untold: usize,
    }

    impl Kernel {
        fn new(frames: u32) -> Self {
            Self {
                fill: (0..frames).collect(),
                rx: VecDeque::new(),
                has: vec![true; frames as usize],
                seen: 0,
                taken_untold: 0,
            }
        }

        /// Frames arrive: as many of those on the fill ring move to the ring to us.
        fn arrive(&mut self, count: usize) {
            for _ in 0..count.min(self.fill.len()) {
                if self.seen == 0 {
                    (self.seen, self.taken_untold) = (self.fill.len(), 0);
                }
                self.seen -= 1;
                self.taken_untold += 1;
                self.rx.extend(self.fill.pop_front());
            }
        }
    }

    impl Rings for Kernel {
        type Desc = u32;

        fn receive(&mut self, into: &mut [u32]) -> usize {
            let count = into.len().min(self.rx.len());
            for (slot, frame) in into.iter_mut().zip(self.rx.drain(..count)) {
                assert!(std::mem::replace(&mut self.has[frame as usize], false), "given out twice");
                *slot = frame;
            }
            count
        }

        unsafe fn give_back(&mut self, frames: &[u32]) {
            for &frame in frames {
                let had = std::mem::replace(&mut self.has[frame as usize], true);
                assert!(!had, "frame {frame} was given back twice");
                self.fill.push_back(frame);
            }
            // As many entries as `Config::fill_ring` gives it.
            assert!(
                self.fill.len() + self.taken_untold <= 2 * self.has.len(),
                "the fill ring is full"
            );
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(usize),
        Receive,
        Lend(usize),
        GiveBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..40).prop_map(Step::Arrive),
            Just(Step::Receive),
            (0usize..12).prop_map(Step::Lend),
            Just(Step::GiveBack),
        ]
    }

    proptest! {
        #[test]
        fn a_frame_is_always_in_exactly_one_place(
            steps in proptest::collection::vec(step(), 0..200), frames in 1u32..64, room in 1usize..24,
        ) {
            let mut kernel = Kernel::new(frames);
            let mut held = Held::new(room);
            for step in steps {
                match step {
                    Step::Arrive(count) => kernel.arrive(count),
                    Step::Receive => {
                        let some = held.receive(&mut kernel);
                        prop_assert_eq!(some, !held.waiting().is_empty());
                    }
                    Step::Lend(count) => held.lend(count.min(held.waiting().len())),
                    Step::GiveBack => held.give_back(&mut kernel),
                }
                let ours = &held.descs[..held.used];
                let mut all: Vec<u32> = ours.iter().chain(&kernel.fill).chain(&kernel.rx).copied().collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..frames).collect::<Vec<_>>());
                prop_assert!(ours.iter().all(|&frame| !kernel.has[frame as usize]));
            }
        }
    }

    #[test]
    fn what_waits_keeps_its_order_when_what_was_lent_goes_back() {
        let mut kernel = Kernel::new(8);
        let mut held = Held::new(8);
        kernel.arrive(8);
        assert!(held.receive(&mut kernel));
        held.lend(3);
        held.give_back(&mut kernel);
        assert_eq!(held.waiting(), [3, 4, 5, 6, 7]);
        assert_eq!(kernel.fill, [0, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "more frames lent than there are")]
    fn no_more_is_lent_than_there_is() {
        Held::<u32>::new(4).lend(1);
    }
}
