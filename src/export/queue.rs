//! A bounded queue between two threads that sleep instead of spinning.
//!
//! Contract: nothing that was pushed is lost; a push that cannot be taken any more gives its item
//! back. Items are whole batches or buffers, so that one lock per sleep does not matter; while both
//! sides have work, no lock is taken. Who is in no hurry leaves a sleeping taker alone until there is enough to wake it
//! for: a taker that is faster than its giver would be woken for every item otherwise, and waking takes longer than many
//! an item.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

/// How long a sleeper sleeps at most before it looks again by itself: so long can an item wait that was pushed without hurry.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What a taker finds that does not wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<T> {
    /// The oldest item.
    Item(T),
    /// Nothing, for now.
    Nothing,
    /// Nothing any more: the queue is closed and empty.
    Closed,
}

/// The queue, shared by its two ends.
#[derive(Debug)]
pub struct Queue<T> {
    items: ArrayQueue<T>,
    closed: AtomicBool,
    takers: Sleepers,
    givers: Sleepers,
}

#[derive(Debug, Default)]
struct Sleepers {
    count: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Sleepers {
    /// Sleeps unless `ready` gives something, which is asked once more after this sleeper is known: a
    /// waker either sees it, or what it did is seen here.
    fn sleep<R>(&self, ready: impl FnOnce() -> Option<R>) -> Option<R> {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let found = ready();
        if found.is_none() {
            drop(self.changed.wait_timeout(guard, SLEEP_MAX));
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        found
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) != 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }
}

impl<T> Queue<T> {
    /// Holds `capacity` items at most.
    pub fn new(capacity: usize) -> Self {
        Self {
            items: ArrayQueue::new(capacity),
            closed: AtomicBool::new(false),
            takers: Sleepers::default(),
            givers: Sleepers::default(),
        }
    }

    /// Appends an item, waiting for room. `Err` gives it back when the queue is closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.push_waking_at(1, item)
    }

    /// The same, for an item that can wait for others: a taker that sleeps is woken once a quarter of the queue is
    /// full, or looks by itself after 100 ms.
    pub fn push_without_hurry(&self, item: T) -> Result<(), T> {
        self.push_waking_at(self.items.capacity().div_ceil(4), item)
    }

    fn push_waking_at(&self, waiting: usize, mut item: T) -> Result<(), T> {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(item);
            }
            match self.items.push(item) {
                Ok(()) => {
                    if waiting <= 1 || self.items.len() >= waiting {
                        self.takers.wake();
                    }
                    return Ok(());
                }
                Err(back) => item = back,
            }
            // A full queue is enough to wake a taker for, whoever filled it.
            self.takers.wake();
            self.givers.sleep(|| self.has_room().then_some(()));
        }
    }

    /// Appends an item if there is room. `Err` gives it back when there is none, or when the queue is closed.
    pub fn try_push(&self, item: T) -> Result<(), T> {
        if self.closed.load(Ordering::Acquire) {
            return Err(item);
        }
        self.items.push(item)?;
        self.takers.wake();
        Ok(())
    }

    /// Takes the oldest item, waiting for one. `None` when the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        loop {
            match self.pop_soon() {
                Taken::Item(item) => return Some(item),
                Taken::Nothing => {}
                Taken::Closed => return None,
            }
        }
    }

    /// Takes the oldest item, waiting for one for 100 ms at most.
    pub fn pop_soon(&self) -> Taken<T> {
        if let Some(item) = self.try_pop() {
            return Taken::Item(item);
        }
        if self.closed.load(Ordering::Acquire) {
            // Whatever was pushed before the queue was closed is visible now.
            return self.try_pop().map_or(Taken::Closed, Taken::Item);
        }
        let closed = || self.closed.load(Ordering::Acquire);
        let found = self.takers.sleep(|| match self.items.pop() {
            Some(item) => Some(Some(item)),
            None => closed().then_some(None),
        });
        match found {
            Some(Some(item)) => {
                self.after_pop();
                Taken::Item(item)
            }
            _ => Taken::Nothing,
        }
    }

    /// Takes the oldest item if there is one.
    fn try_pop(&self) -> Option<T> {
        let item = self.items.pop()?;
        self.after_pop();
        Some(item)
    }

    /// Wakes those who wait for room only once half of it is free: on one core every wake-up is a
    /// change of threads.
    fn after_pop(&self) {
        if self.items.len() <= self.items.capacity() / 2 {
            self.givers.wake();
        }
    }

    /// Whether half of it is free, or nothing is taken any more: a push does not wait then, unless another giver comes first.
    fn has_room(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.items.len() <= self.items.capacity() / 2
    }

    /// No more pushes; what is inside can still be taken.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.takers.wake();
        self.givers.wake();
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn everything_pushed_comes_out_in_order_through_a_small_queue() {
        const ITEMS: u64 = 100_000;
        let queue = Queue::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..ITEMS).for_each(|item| queue.push(item).unwrap());
                queue.close();
            });
            let mut expected = 0;
            while let Some(item) = queue.pop() {
                assert_eq!(item, expected);
                expected += 1;
            }
            assert_eq!(expected, ITEMS);
        });
    }

    #[test]
    fn a_closed_queue_gives_back_what_it_cannot_take_and_keeps_what_it_has() {
        let queue = Queue::new(4);
        queue.push(1).unwrap();
        queue.close();
        assert_eq!(queue.push(2), Err(2));
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
    }

    #[test]
    fn who_does_not_wait_gets_its_item_back() {
        let queue = Queue::new(1);
        assert_eq!((queue.try_push(1), queue.try_push(2)), (Ok(()), Err(2)));
        assert_eq!(queue.pop(), Some(1));
        queue.close();
        assert_eq!(queue.try_push(3), Err(3));
    }

    #[test]
    fn who_waits_for_a_while_is_told_that_nothing_came_and_that_nothing_will() {
        let queue = Queue::new(2);
        assert_eq!(queue.pop_soon(), Taken::Nothing);
        queue.push(1).unwrap();
        queue.close();
        assert_eq!((queue.pop_soon(), queue.pop_soon()), (Taken::Item(1), Taken::Closed));
    }

    /// How long a taker that sleeps on an empty queue of eight takes to come by the first of so many items that can wait.
    fn slept_for(items: u32) -> Duration {
        let queue = Queue::new(8);
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let begin = Instant::now();
                assert_eq!(queue.pop(), Some(0));
                begin.elapsed()
            });
            while queue.takers.count.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            (0..items).for_each(|item| queue.push_without_hurry(item).unwrap());
            let slept = taker.join().unwrap();
            (1..items).for_each(|item| assert_eq!(queue.pop(), Some(item)));
            queue.close();
            assert_eq!(queue.push_without_hurry(9), Err(9));
            slept
        })
    }

    #[test]
    fn what_can_wait_wakes_a_taker_once_there_is_a_quarter_of_the_queue() {
        assert!(slept_for(1) >= SLEEP_MAX, "woken for one of eight");
        // Another process may have the core for as long, but not each time.
        let soon = (0..5).any(|_| slept_for(2) < SLEEP_MAX / 2);
        assert!(soon, "not woken for two of eight");
    }

    #[test]
    fn closing_wakes_a_giver_that_waits_for_room() {
        let queue = Queue::new(1);
        queue.push(1).unwrap();
        std::thread::scope(|scope| {
            let giver = scope.spawn(|| queue.push(2));
            std::thread::sleep(Duration::from_millis(20));
            queue.close();
            assert_eq!(giver.join().unwrap(), Err(2));
        });
    }
}
