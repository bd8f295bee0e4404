//! Being told to stop: by a signal, or because nobody reads the output any more.
//!
//! Contract: the reading loop looks at one flag a batch; whoever waits, waits here and is woken. The
//! first signal drains, the second one ends the process at once.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A flag that can be waited for. Cloning gives another handle to the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    raised: AtomicBool,
    signalled: AtomicBool,
    /// What is closed when it is raised.
    bells: Mutex<Vec<UnixStream>>,
    changed: Condvar,
    last: LastThings,
}

/// What is done before the process ends at once.
#[derive(Default)]
struct LastThings(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for LastThings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LastThings")
    }
}

impl LastThings {
    fn run(&self) {
        let things = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        things.into_iter().for_each(|last| last());
    }
}

impl Stop {
    /// Not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raised by SIGINT and SIGTERM from now on; the second one ends the process with this code. SIGHUP calls `hangup`; without one
    /// it does what it did.
    pub fn on_signals(
        &self,
        code_at_once: i32,
        mut hangup: Option<impl FnMut() + Send + 'static>,
    ) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if hangup.is_some() {
            signals.add_signal(SIGHUP)?;
        }
        let stop = self.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if signal == SIGHUP {
                    tracing::info!(signal, "signal: outputs are opened anew");
                    hangup.iter_mut().for_each(|hangup| hangup());
                    continue;
                }
                if stop.shared.signalled.swap(true, Ordering::SeqCst) {
                    tracing::warn!(signal, "second signal: ending at once, records may be lost");
                    stop.shared.last.run();
                    std::process::exit(code_at_once);
                }
                tracing::info!(signal, "signal: draining; once more ends at once");
                stop.raise();
            }
        })?;
        Ok(())
    }

    /// For what must not be left undone even then: done before a second signal ends the process.
    pub fn before_exit_at_once(&self, last: impl FnOnce() + Send + 'static) {
        let mut things = self.shared.last.0.lock().unwrap_or_else(PoisonError::into_inner);
        things.push(Box::new(last));
    }

    /// Raises it and wakes whoever waits.
    pub fn raise(&self) {
        self.shared.raised.store(true, Ordering::SeqCst);
        self.lock().clear();
        self.shared.changed.notify_all();
    }

    /// For who waits for a file descriptor: one that reads as ended once it is raised. For a few of them
    /// in the life of a process; they are kept until then.
    pub fn bell(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut bells = self.lock();
        // Under the lock, so that it cannot be raised in between.
        if !self.raised() {
            bells.push(ours);
        }
        Ok(theirs)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.shared.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was raised.
    #[inline]
    pub fn raised(&self) -> bool {
        self.shared.raised.load(Ordering::Relaxed)
    }

    /// Whether a signal raised it.
    pub fn signalled(&self) -> bool {
        self.shared.signalled.load(Ordering::SeqCst)
    }

    /// Waits until it is raised, for `timeout` at most. Whether it was.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let guard = self.lock();
        drop(self.shared.changed.wait_timeout_while(guard, timeout, |_| !self.raised()));
        self.raised()
    }

    /// Waits until it is raised.
    pub fn wait(&self) {
        while !self.wait_timeout(Duration::from_secs(3600)) {}
    }
}
