//! `/metrics`, `/healthz` and `/readyz`, on a thread of its own.
//!
//! Contract: a scrape costs the packet path nothing; `/healthz` says that the process lives,
//! `/readyz` says 200 while it reads or holds and 503 before, after, when reading failed, and while a worker stands still.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::oneshot;

use super::telemetry::Telemetry;

/// What `/readyz` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Readiness {
    /// Not reading yet.
    Starting,
    /// Reading.
    Reading,
    /// Read to the end; serving the final figures.
    Holding,
    /// The capture broke, an output failed, or the ledger does not balance.
    Failed,
}

impl Readiness {
    const fn answer(number: u8) -> (StatusCode, &'static str) {
        const READING: u8 = Readiness::Reading as u8;
        const HOLDING: u8 = Readiness::Holding as u8;
        const FAILED: u8 = Readiness::Failed as u8;
        match number {
            READING => (StatusCode::OK, "reading\n"),
            HOLDING => (StatusCode::OK, "finished, holding\n"),
            FAILED => (StatusCode::SERVICE_UNAVAILABLE, "failed\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        }
    }
}

/// The address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("--metrics {addr}: cannot listen there: {source}: choose a free port, or 0 for any")]
pub struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

struct Served {
    telemetry: Telemetry,
    readiness: AtomicU8,
}

/// An address that is ours, and not served yet.
#[derive(Debug)]
pub struct Listener {
    listener: std::net::TcpListener,
    addr: SocketAddr,
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    /// [`BindError`] when it is not to be had.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let refuse = |source| BindError { addr, source };
        let listener = std::net::TcpListener::bind(addr).map_err(refuse)?;
        listener.set_nonblocking(true).map_err(refuse)?;
        let addr = listener.local_addr().map_err(refuse)?;
        Ok(Self { listener, addr })
    }
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    served: Arc<Served>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("telemetry", &self.telemetry).finish_non_exhaustive()
    }
}

impl Server {
    /// Serves on a thread.
    ///
    /// # Errors
    /// [`BindError`] when the system has no thread or no reactor for it.
    pub fn start(listener: Listener, telemetry: Telemetry) -> Result<Self, BindError> {
        let Listener { listener, addr } = listener;
        let refuse = |source| BindError { addr, source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(refuse)?;
        let readiness = AtomicU8::new(Readiness::Starting as u8);
        let served = Arc::new(Served { telemetry, readiness });
        let of_thread = Arc::clone(&served);
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(listener, of_thread, ended)) {
                    tracing::error!(%error, "metrics are not served any more");
                }
            })
            .map_err(refuse)?;
        Ok(Self { addr, served, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what `/readyz` says.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.served.readiness.store(readiness as u8, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    served: Arc<Served>,
    ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(served);
    // Not the graceful kind: a client that keeps its connection open must not keep us alive.
    tokio::select! {
        result = axum::serve(listener, routes) => result,
        _ = ended => Ok(()),
    }
}

async fn metrics(Shared(served): Shared<Arc<Served>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, served.telemetry.render())
}

async fn ready(Shared(served): Shared<Arc<Served>>) -> impl IntoResponse {
    match served.telemetry.stalled() {
        Some(thread) => (StatusCode::SERVICE_UNAVAILABLE, format!("{thread} stands still\n")),
        None => {
            let (code, text) = Readiness::answer(served.readiness.load(Ordering::Relaxed));
            (code, text.to_owned())
        }
    }
}
