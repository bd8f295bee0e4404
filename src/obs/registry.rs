//! [`Registry`]: the shards of living trackers, and the totals of those that are gone.
//!
//! Its lock is taken when a tracker comes or goes and when somebody asks for totals, never while
//! frames are counted. Counters never go back: a tracker's totals are folded in under the same
//! lock under which its shard leaves.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::counting::Shard;
use super::totals::Totals;

/// Adds up trackers. Cloning gives another handle to the same one.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    live: Vec<Live>,
    /// What trackers counted that are gone.
    gone: Totals,
}

#[derive(Debug)]
struct Live {
    shard: Arc<Shard>,
    /// What was read last, for when a shard cannot be read now.
    last: Totals,
}

impl Registry {
    /// An empty one: for tests, and for programs that count groups of trackers apart.
    pub fn new() -> Self {
        Self::default()
    }

    /// The one of the process, where trackers count unless told otherwise.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<Registry> = OnceLock::new();
        GLOBAL.get_or_init(Self::new)
    }

    /// The sums over all trackers, as of the last batch of each.
    pub fn totals(&self) -> Totals {
        let mut inner = self.lock();
        let mut totals = inner.gone.clone();
        for live in &mut inner.live {
            if let Some(now) = live.shard.load() {
                live.last = now;
            }
            totals.add(&live.last);
        }
        totals
    }

    /// How many trackers are alive.
    pub fn trackers(&self) -> usize {
        self.lock().live.len()
    }

    pub(super) fn enter(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::new());
        self.lock().live.push(Live { shard: Arc::clone(&shard), last: Totals::default() });
        shard
    }

    pub(super) fn leave(&self, shard: &Arc<Shard>, totals: &Totals) {
        let mut inner = self.lock();
        inner.live.retain(|live| !Arc::ptr_eq(&live.shard, shard));
        inner.gone.add(totals);
    }

    /// A panic elsewhere leaves nothing half done here, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
