//! What a worker and the watch hand each other: captures that ended, captures that take their place.
//!
//! Contract: the worker looks at one flag when it looks at its counts, once a second; a lock is taken only when
//! something is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::capture::CaptureError;

/// A capture of a worker ended, or is about to.
#[derive(Debug)]
pub struct Loss {
    /// Which of the worker's queues.
    pub slot: usize,
    /// What was wrong; `None` when it is over and everything in its ring was taken.
    pub error: Option<CaptureError>,
}

/// One for each worker.
#[derive(Debug)]
pub struct Post<C> {
    has_arrivals: AtomicBool,
    arrivals: Mutex<Vec<(usize, C)>>,
    losses: Mutex<Vec<Loss>>,
}

impl<C> Default for Post<C> {
    fn default() -> Self {
        Self {
            has_arrivals: AtomicBool::new(false),
            arrivals: Mutex::default(),
            losses: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> Post<C> {
    /// To the watch.
    pub fn lose(&self, loss: Loss) {
        lock(&self.losses).push(loss);
    }

    /// What was lost since this was last asked.
    pub fn losses(&self) -> Vec<Loss> {
        std::mem::take(&mut lock(&self.losses))
    }

    /// To the worker: a capture for one of its queues.
    pub fn arrive(&self, slot: usize, capture: C) {
        lock(&self.arrivals).push((slot, capture));
        self.has_arrivals.store(true, Ordering::Release);
    }

    /// What arrived since this was last asked.
    pub fn arrivals(&self) -> Vec<(usize, C)> {
        if !self.has_arrivals.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut lock(&self.arrivals))
    }
}
