//! The ledger: every frame and every record, counted at both ends of each step.
//!
//! Contract: the two sides of an equation are counted in different places; a ledger that does not
//! balance is a bug and is said loudly.

use serde::Serialize;

use super::shard::{FAULTS, Figures};
use crate::export::sink::{DropReason, SinkCounts};

/// Labels of [`Fault`](crate::decode::Fault), in the order of its numbers.
pub const FAULT_LABELS: [&str; FAULTS] = [
    "link_unsupported",
    "link_truncated",
    "too_deep",
    "ip_truncated",
    "ip_malformed",
    "transport_truncated",
    "transport_malformed",
];

/// One line that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Equation {
    /// In words: `left = right`.
    pub says: String,
    /// What is on the left.
    pub left: u64,
    /// What is on the right.
    pub right: u64,
    /// Whether they are equal.
    pub balanced: bool,
}

/// All lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Whether every line balances.
    pub balanced: bool,
    /// The lines.
    pub equations: Vec<Equation>,
}

impl Ledger {
    /// The ledger of a run that has drained: nothing is on its way.
    pub fn at_end(figures: &Figures) -> Self {
        let Figures { reader, workers, sinks } = figures;
        let mut equations = vec![
            equation(
                "frames offered = delivered + shunted + lost before us + not due",
                reader.offered,
                reader.delivered
                    + reader.shunted
                    + reader.dropped.iter().sum::<u64>()
                    + reader.not_due,
            ),
            equation(
                "frames delivered = filtered + decoded",
                reader.delivered,
                reader.filtered + reader.decoded,
            ),
            equation(
                "frames decoded = unmatched + held + handed on",
                reader.decoded,
                reader.unmatched + reader.held + reader.handed_on,
            ),
            equation("frames shunted = merged into flows", reader.shunted, workers.shunted),
            equation(
                "frames handed on + shunted = tracked",
                reader.handed_on + reader.shunted,
                workers.tracked,
            ),
            equation(
                "bytes delivered + shunted = filtered + unmatched + tracked",
                reader.delivered_bytes + reader.shunted_bytes,
                reader.filtered_bytes + reader.unmatched_bytes + workers.tracked_bytes,
            ),
            equation(
                "packets tracked = in ended flows (none is live)",
                workers.tracked,
                workers.packets_ended,
            ),
            equation("packets tracked = told by records", workers.tracked, workers.packets_told),
            equation(
                "flows begun = ended + live",
                workers.started.iter().sum(),
                workers.ended.iter().sum::<u64>() + workers.live,
            ),
        ];
        for (name, counts) in sinks {
            let dropped: u64 = counts.dropped.iter().sum();
            let says = format!("records produced = written + dropped, to {name}");
            equations.push(equation(&says, workers.records, counts.written + dropped));
        }
        Self { balanced: equations.iter().all(|equation| equation.balanced), equations }
    }
}

fn equation(says: &str, left: u64, right: u64) -> Equation {
    Equation { says: says.to_owned(), left, right, balanced: left == right }
}

/// A sink's counts as the summary has them.
#[derive(Clone, Debug, Serialize)]
pub struct SinkReport {
    /// Where it writes to.
    pub output: String,
    /// Records written.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records dropped, by reason; only reasons that occurred.
    pub dropped: std::collections::BTreeMap<&'static str, u64>,
}

impl SinkReport {
    /// Of a sink.
    pub fn new(name: &str, counts: &SinkCounts) -> Self {
        let dropped = DropReason::ALL
            .iter()
            .map(|reason| (reason.label(), counts.dropped[*reason as usize]))
            .filter(|(_, records)| *records != 0)
            .collect();
        Self { output: name.to_owned(), written: counts.written, bytes: counts.bytes, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::shard::{ReaderFigures, WorkerFigures};

    fn figures() -> Figures {
        let reader = ReaderFigures {
            offered: 14,
            delivered: 10,
            delivered_bytes: 1000,
            filtered: 2,
            filtered_bytes: 200,
            decoded: 8,
            unmatched: 3,
            unmatched_bytes: 300,
            handed_on: 5,
            shunted: 4,
            shunted_bytes: 400,
            ..ReaderFigures::default()
        };
        let workers = WorkerFigures {
            tracked: 9,
            tracked_bytes: 900,
            shunted: 4,
            shunted_bytes: 400,
            packets_ended: 9,
            packets_told: 9,
            records: 3,
            started: [1, 1, 0],
            ended: [1, 0, 0, 0, 0, 0, 1, 0],
            ..WorkerFigures::default()
        };
        let counts = SinkCounts { written: 1, bytes: 300, dropped: [2, 0, 0] };
        Figures { reader, workers, sinks: vec![("standard output".to_owned(), counts)] }
    }

    #[test]
    fn a_run_that_lost_nothing_balances() {
        let ledger = Ledger::at_end(&figures());
        assert!(ledger.balanced, "{ledger:#?}");
    }

    #[test]
    fn one_frame_or_record_too_few_is_seen() {
        let spoil: [fn(&mut Figures); 8] = [
            |f| f.reader.offered += 1,
            |f| f.reader.delivered += 1,
            |f| f.reader.handed_on += 1,
            |f| f.workers.shunted -= 1,
            |f| f.workers.packets_ended -= 1,
            |f| f.workers.packets_told -= 1,
            |f| f.workers.started[0] += 1,
            |f| f.sinks[0].1.written -= 1,
        ];
        for (index, spoil) in spoil.iter().enumerate() {
            let mut figures = figures();
            spoil(&mut figures);
            assert!(!Ledger::at_end(&figures).balanced, "case {index}");
        }
    }
}
