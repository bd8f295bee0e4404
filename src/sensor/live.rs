//! A live run: interfaces in, records and metrics out, until a signal.
//!
//! Contract: run to completion, or steered; `launch` starts the threads of either. What cannot work is refused before the first
//! frame. At the end nothing new is taken, what is in the rings is tracked, every live flow ends with a record, and the ledger is
//! drawn up: what the queues were offered is what they lost, by reason, and what the workers tracked, filtered or could not match.

mod launch;

use std::time::Instant;

use anyhow::Context;

use super::backends;
use super::http::{Listener, Readiness};
use super::ledger::Ledger;
use super::options::LiveOptions;
use super::ports;
use super::privileges;
use super::read::ReadEnd;
use super::run::{Outcome, SummaryFile, open_outputs, outcome, report, start_sinks};
use super::stop::Stop;
use super::summary::{RunFacts, Summary};
use crate::export::Sink;
use crate::export::sink::{SinkHandle, WrittenBy};
use crate::frame::LinkType;
use launch::{Launch, Launched};

/// Captures until a signal, and says how it ended. `Err` is for what failed before the first frame, and for bugs.
/// A second SIGINT or SIGTERM ends the process with `code_at_once`.
pub fn run(options: &LiveOptions, code_at_once: i32) -> anyhow::Result<Outcome> {
    let outputs = open_outputs(&options.outputs)?;
    let summary_file = options.summary.as_deref().map(SummaryFile::create).transpose()?;
    let listener = options.metrics.map(Listener::bind).transpose()?;
    let stop = Stop::new();
    // What it sets is put back when it goes: after the queues are closed, and whatever ended the run.
    let _ports = ports::prepare(options, &stop)?;
    if let (Some(user), true) = (&options.user, options.tune) {
        let dir = &options.state_dir;
        user.take_over(dir).with_context(|| format!("{} cannot be given away", dir.display()))?;
    }
    // From here on there are threads, which inherit what is left.
    let is_put_back = options.tune || options.wanted.hardware_times;
    let needed = privileges::needed(options.wanted.backend, options.wanted.fanout, is_put_back);
    let kept = privileges::drop_to(needed, options.user.as_ref())?;
    tracing::info!("rights kept: {kept}");
    let mut sinks = start_sinks(outputs, WrittenBy::Thread)?;
    let handles: Vec<_> = sinks.iter().map(Sink::handle).collect();
    stop.on_signals(code_at_once, Some(move || handles.iter().for_each(SinkHandle::reopen)))
        .context("signals cannot be watched")?;
    let started = Instant::now();
    let launch = Launch { options, stop: stop.clone(), sinks: &sinks, listener };
    let Launched { board, server, readers, watch, yard } =
        backends::open(&options.wanted, launch)??;
    if let Some(server) = &server {
        server.set_readiness(Readiness::Reading);
    }

    let mut end = ReadEnd::default();
    let mut links: Vec<(LinkType, u64)> = Vec::new();
    for reader in readers {
        let name = reader.thread().name().unwrap_or_default().to_owned();
        let Ok(done) = reader.join() else {
            anyhow::bail!("{name} panicked: its flows are lost; please report it");
        };
        done.steered?;
        end.errors.extend(done.end.errors);
        end.stopped |= done.end.stopped;
        for (link, frames) in done.links {
            match links.iter_mut().find(|(known, _)| *known == link) {
                Some((_, sum)) => *sum += frames,
                None => links.push((link, frames)),
            }
        }
    }
    // They may also end because every output failed.
    stop.raise();
    let Ok(watched) = watch.join() else {
        anyhow::bail!("the watch panicked: please report it");
    };
    if yard.is_some_and(|yard| yard.join().is_err()) {
        anyhow::bail!("the thread that shunts panicked: please report it");
    }
    sinks.iter_mut().for_each(Sink::finish);

    let figures = board.figures();
    let ledger = Ledger::at_end(&figures);
    // A signal is how a live run ends.
    let outcome = match outcome(&figures, &ledger, &end, &stop) {
        Outcome::Interrupted | Outcome::Complete if watched.is_away => Outcome::CaptureBroken,
        Outcome::Interrupted => Outcome::Complete,
        outcome => outcome,
    };
    let facts = RunFacts {
        outcome: outcome.label(),
        errors: watched
            .interruptions
            .into_iter()
            .chain(end.errors.iter().map(ToString::to_string))
            .collect(),
        files: 0,
        elapsed: started.elapsed(),
        links: &links,
        reassembled: false,
        queues: board.queues.iter().map(|queue| (&***queue).into()).collect(),
    };
    let summary = Summary::new(&figures, ledger, facts);
    report(&summary, &board, outcome);
    if let Some(file) = summary_file {
        file.write(&summary)?;
    }
    Ok(outcome)
}
