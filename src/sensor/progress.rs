//! A progress bar on a terminal: bytes, rate, flows, time left.
//!
//! Contract: a thread of its own reads the board ten times a second; the packet path knows nothing of it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::shard::Board;
use super::stop::Stop;

const PERIOD: Duration = Duration::from_millis(100);

/// A running bar; it goes away when this is dropped.
#[derive(Debug)]
pub struct Progress {
    end: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts it; `bytes_total` is `None` where the length is not known.
    pub fn start(board: Arc<Board>, bytes_total: Option<u64>) -> std::io::Result<Self> {
        let bar = match bytes_total {
            Some(total) => ProgressBar::new(total)
                .with_style(style("{bar:30} {bytes}/{total_bytes} {percent}%  {msg}  {eta} left")),
            None => ProgressBar::no_length().with_style(style("{spinner} {bytes}  {msg}")),
        };
        let end = Stop::new();
        let ended = end.clone();
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || follow(&board, &bar, &ended))?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end.raise();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn follow(board: &Board, bar: &ProgressBar, ended: &Stop) {
    let started = Instant::now();
    while !ended.wait_timeout(PERIOD) {
        let figures = board.figures();
        bar.set_position(figures.reader.file_bytes);
        let rate = figures.reader.delivered as f64 / started.elapsed().as_secs_f64();
        bar.set_message(format!(
            "{:.2} M packets/s, {} flows live",
            rate / 1e6,
            figures.workers.live
        ));
    }
    bar.finish_and_clear();
}
