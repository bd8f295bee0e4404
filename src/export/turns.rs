//! Work that those who bring it do by turns: who finds nobody at it does what there is, who finds somebody leaves what it brought and goes
//! on.
//!
//! Contract: nothing that was brought is lost, and what one brought is done in its order. Nobody waits but where too much is left
//! already. What is at hand is done in turn, so that of threads that all have a core of their own none is idle.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam_queue::ArrayQueue;

/// What the work is done with, and what is left to be done.
#[derive(Debug)]
pub(super) struct Turns<W, T> {
    tool: Mutex<W>,
    left: ArrayQueue<T>,
}

impl<W, T> Turns<W, T> {
    /// So many items are left to others at most.
    pub(super) fn new(tool: W, left_max: usize) -> Self {
        Self { tool: Mutex::new(tool), left: ArrayQueue::new(left_max) }
    }

    /// Does an item, and what others left meanwhile, or leaves it to who is at it.
    pub(super) fn take(&self, mut item: T, mut work: impl FnMut(&mut W, T)) {
        while let Err(back) = self.left.push(item) {
            item = back;
            drop(self.after_all(&mut work));
        }
        loop {
            // Either this one sees that nobody is at it any more, or who was sees what this one left.
            fence(Ordering::SeqCst);
            if self.left.is_empty() {
                return;
            }
            let mut tool = match self.tool.try_lock() {
                Ok(tool) => tool,
                Err(TryLockError::Poisoned(error)) => error.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.do_all(&mut tool, &mut work);
        }
    }

    /// The tool, once nobody is at it and nothing is left.
    pub(super) fn after_all(&self, mut work: impl FnMut(&mut W, T)) -> MutexGuard<'_, W> {
        // Who panicked with it has left nothing half-done that counts.
        let mut tool = self.tool.lock().unwrap_or_else(PoisonError::into_inner);
        self.do_all(&mut tool, &mut work);
        tool
    }

    fn do_all(&self, tool: &mut W, work: &mut impl FnMut(&mut W, T)) {
        while let Some(item) = self.left.pop() {
            work(tool, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_finds_somebody_at_it_leaves_what_it_has_until_too_much_is_left() {
        const LEFT_MAX: usize = 4;
        let turns = Turns::new(Vec::new(), LEFT_MAX);
        let (begun, begins) = channel();
        let (go_on, goes_on) = channel::<()>();
        std::thread::scope(|scope| {
            let turns = &turns;
            scope.spawn(move || {
                turns.take(0, |done: &mut Vec<usize>, item| {
                    let _ = begun.send(());
                    // An error is that it may go on.
                    let _ = goes_on.recv();
                    done.push(item);
                });
            });
            begins.recv().unwrap();
            for item in 1..=LEFT_MAX {
                turns.take(item, |_, _| panic!("somebody is at it"));
                assert_eq!(turns.left.len(), item);
            }
            let one_more = scope.spawn(|| turns.take(LEFT_MAX + 1, Vec::push));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!one_more.is_finished(), "there was no room");
            drop(go_on);
        });
        assert!(turns.left.is_empty(), "before the end comes");
        assert_eq!(*turns.after_all(Vec::push), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn of_many_each_item_is_done_once_and_in_its_order() {
        const THREADS: usize = 4;
        const ITEMS: usize = 50_000;
        let turns = Turns::new(Vec::new(), 2);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let turns = &turns;
                scope.spawn(move || {
                    (0..ITEMS).for_each(|item| turns.take((thread, item), Vec::push));
                });
            }
        });
        assert!(turns.left.is_empty(), "nobody leaves what nobody finds");
        let mut next = [0; THREADS];
        for &(thread, item) in &*turns.after_all(Vec::push) {
            assert_eq!(item, next[thread]);
            next[thread] += 1;
        }
        assert_eq!(next, [ITEMS; THREADS]);
    }

    /// Only what is left last is left for good.
    #[test]
    fn of_two_that_bring_their_last_item_at_once_neither_leaves_what_nobody_finds() {
        const ROUNDS: usize = 20_000;
        let turns = Turns::new(0, 2);
        let rounds = AtomicUsize::new(0);
        let meet = |come: usize| {
            rounds.fetch_add(1, Ordering::SeqCst);
            while rounds.load(Ordering::SeqCst) < come {
                std::thread::yield_now();
            }
        };
        let bring = || {
            let mut lost = 0;
            for round in 0..ROUNDS {
                meet(4 * round + 2);
                turns.take(1, |sum, item| *sum += item);
                meet(4 * round + 4);
                lost += turns.left.len();
            }
            assert_eq!(lost, 0);
        };
        std::thread::scope(|scope| {
            scope.spawn(bring);
            scope.spawn(bring);
        });
        assert_eq!(*turns.after_all(|_, _| panic!("nothing is left")), 2 * ROUNDS);
    }

    #[test]
    fn who_panicked_holds_nobody_up() {
        let turns = Turns::new(Vec::new(), 2);
        let panicked = std::thread::scope(|scope| {
            scope.spawn(|| turns.take(1, |_: &mut Vec<i32>, _| panic!("as the test wants"))).join()
        });
        assert!(panicked.is_err());
        turns.take(2, Vec::push);
        assert_eq!(*turns.after_all(Vec::push), [2]);
    }
}
