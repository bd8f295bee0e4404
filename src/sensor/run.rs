//! What a replay and a live run have in common: outputs, the server, how it ended, the summary.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::http::{Listener, Server};
use super::ledger::Ledger;
use super::options::Output;
use super::read::{ReadEnd, ReadLoop};
use super::shard::{Board, Figures};
use super::stop::Stop;
use super::summary::Summary;
use super::telemetry::Telemetry;
use crate::export::Sink;
use crate::export::sink::{DropReason, OpenError, Opened, WrittenBy};

/// How a run ended; the worst of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Read to the end, everything written.
    Complete,
    /// A signal ended it early.
    Interrupted,
    /// A capture file is broken, or another of several is.
    CaptureBroken,
    /// Whoever read the output went away.
    ReaderGone,
    /// Records could not be written.
    OutputFailed,
    /// A frame or a record is not accounted for.
    Unbalanced,
}

impl Outcome {
    /// As the summary spells it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
            Self::CaptureBroken => "capture_broken",
            Self::ReaderGone => "reader_gone",
            Self::OutputFailed => "output_failed",
            Self::Unbalanced => "unbalanced",
        }
    }
}

pub(super) fn open_outputs(outputs: &[Output]) -> Result<Vec<Opened>, OpenError> {
    let open = |Output::Jsonl(target): &Output| Opened::open(target);
    outputs.iter().map(open).collect()
}

pub(super) fn start_sinks(opened: Vec<Opened>, by: WrittenBy) -> Result<Vec<Sink>, OpenError> {
    opened.into_iter().map(|opened| Sink::start(opened, by)).collect()
}

pub(super) fn serve(listener: Listener, board: &Board) -> anyhow::Result<Server> {
    let server = Server::start(listener, Telemetry::install(board.clone())?)?;
    // Not a log message: whoever asked for port 0 needs it whatever RUST_LOG says.
    eprintln!("serving metrics on http://{}/metrics", server.addr());
    Ok(server)
}

pub(super) fn outcome(figures: &Figures, ledger: &Ledger, end: &ReadEnd, stop: &Stop) -> Outcome {
    let dropped = |reason: DropReason| {
        figures.sinks.iter().any(|(_, counts)| counts.dropped[reason as usize] != 0)
    };
    if !ledger.balanced {
        Outcome::Unbalanced
    } else if dropped(DropReason::WriteFailed) {
        Outcome::OutputFailed
    } else if dropped(DropReason::ReaderGone) {
        Outcome::ReaderGone
    } else if !end.errors.is_empty() {
        Outcome::CaptureBroken
    } else if end.stopped && stop.signalled() {
        Outcome::Interrupted
    } else {
        Outcome::Complete
    }
}

pub(super) fn report(summary: &Summary, board: &Board, outcome: Outcome) {
    // As one text: standard error has no buffer, and each piece would be a system call.
    let text = summary.to_string();
    eprint!("{text}");
    for (name, sink) in &board.sinks {
        if let Some(error) = sink.error() {
            tracing::error!(output = %name, %error, "records were dropped");
        }
    }
    if outcome == Outcome::Unbalanced {
        tracing::error!("the ledger does not balance: please report this with the summary");
    }
}

/// Where the summary goes.
#[derive(Debug)]
pub(super) struct SummaryFile {
    path: PathBuf,
    file: File,
}

impl SummaryFile {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| Self::refused(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn write(mut self, summary: &Summary) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(summary)? + "\n";
        self.file.write_all(text.as_bytes()).with_context(|| Self::refused(&self.path))
    }

    fn refused(path: &Path) -> String {
        format!("cannot write the summary to {}: choose another path", path.display())
    }
}

pub(super) fn warn_of_uncovered_links(reading: &ReadLoop) {
    let Some(filter) = reading.filter() else { return };
    for (link, frames) in reading.links().iter().filter(|(link, _)| !filter.covers(*link)) {
        tracing::warn!(
            link = link.name(),
            frames,
            filter = filter.expression(),
            "the filter means nothing on this link type: its frames are counted as filtered"
        );
    }
}
