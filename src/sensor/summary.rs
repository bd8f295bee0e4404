//! What a run came to, for people on standard error and as JSON.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::ledger::{FAULT_LABELS, Ledger, SinkReport};
use super::read::OTHER_LINKS;
use super::shard::{Figures, QueueShard, StreamFigures};
use crate::capture::live::DropReason;
use crate::event::EndReason;
use crate::export::text::{LINE_BYTES_MAX, Line, Seconds};
use crate::frame::LinkType;
use crate::net::L4;
use crate::obs::{END_REASON_LABELS, L4_LABELS};
use crate::time::Timestamp;

/// A count with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What was counted.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// What became of the bytes of TCP streams, both sides together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Streams {
    /// Bytes that were in order at last.
    pub bytes_in_order: u64,
    /// Holes that were given up.
    pub gaps: u64,
    /// Their bytes.
    pub bytes_missing: u64,
    /// Bytes that the snapshot length cut off.
    pub bytes_cut: u64,
    /// Segments dropped as out of order.
    pub segments_dropped: u64,
    /// Bytes given up because a buffer was full.
    pub bytes_dropped: u64,
}

impl Streams {
    fn new(sides: &[StreamFigures]) -> Self {
        let sum = |of: fn(&StreamFigures) -> u64| sides.iter().map(of).sum();
        Self {
            bytes_in_order: sum(|side| side.in_order),
            gaps: sum(|side| side.gaps),
            bytes_missing: sum(|side| side.missing),
            bytes_cut: sum(|side| side.cut),
            segments_dropped: sum(|side| side.segments_dropped),
            bytes_dropped: sum(|side| side.bytes_dropped),
        }
    }
}

/// As in the table for people: what is zero is left out, but for the gaps.
impl fmt::Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes_in_order, gaps, bytes_missing, .. } = *self;
        write!(f, "{} bytes in order, ", grouped(bytes_in_order))?;
        write!(f, "{} gaps, {} bytes missing", grouped(gaps), grouped(bytes_missing))?;
        for (count, what) in [
            (self.bytes_cut, "bytes cut by the snapshot length"),
            (self.segments_dropped, "segments dropped as out of order"),
            (self.bytes_dropped, "bytes dropped by a full buffer"),
        ] {
            if count != 0 {
                write!(f, ", {} {what}", grouped(count))?;
            }
        }
        Ok(())
    }
}

/// What became of a live queue's frames.
#[derive(Clone, Debug, Serialize)]
pub struct QueueReport {
    /// The interface.
    pub interface: String,
    /// The queue.
    pub queue: String,
    /// Frames that it had for us.
    pub offered: u64,
    /// Those that came to the sensor.
    pub delivered: u64,
    /// Those that were counted for a flow that is shunted.
    pub shunted: u64,
    /// Those that were lost, by reason; only reasons that occurred.
    pub dropped: std::collections::BTreeMap<&'static str, u64>,
}

impl From<&QueueShard> for QueueReport {
    fn from(shard: &QueueShard) -> Self {
        let counts = shard.load();
        let dropped = DropReason::ALL
            .iter()
            .map(|reason| (reason.label(), counts.dropped[*reason as usize]))
            .filter(|(_, frames)| *frames != 0)
            .collect();
        Self {
            interface: shard.interface.clone(),
            queue: shard.queue.clone(),
            offered: counts.offered,
            delivered: counts.delivered,
            shunted: counts.shunted,
            dropped,
        }
    }
}

/// The summary and the ledger of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// How the run ended: `complete`, or what was wrong.
    pub outcome: &'static str,
    /// What was wrong with the capture.
    pub errors: Vec<String>,
    /// Queues of the interfaces, of a live run.
    pub queues: Vec<QueueReport>,
    /// Capture files read.
    pub files: usize,
    /// Bytes of them read, as stored.
    pub file_bytes: u64,
    /// Time of the earliest frame.
    pub first: Option<String>,
    /// Time of the latest frame.
    pub last: Option<String>,
    /// Seconds of capture.
    pub capture_seconds: f64,
    /// Seconds that the run took.
    pub elapsed_seconds: f64,
    /// Frames read a second.
    pub frames_per_second: f64,
    /// Frames read.
    pub frames: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Frames that the filter did not want.
    pub frames_filtered: u64,
    /// Frames that belong to no flow.
    pub packets_unmatched: u64,
    /// Those by what was wrong with them; `not_ip` when nothing was.
    pub unmatched: Vec<Count>,
    /// Frames whose link type is not decoded, by its name.
    pub unsupported_links: Vec<Count>,
    /// Later fragments whose first one never came.
    pub fragments_unattributed: u64,
    /// Packets in flows, shunted ones included.
    pub packets_tracked: u64,
    /// Those of them that were counted in the kernel.
    pub packets_shunted: u64,
    /// Flows that were shunted for a while.
    pub flows_shunted: u64,
    /// How often a flow was to be shunted and there was no room.
    pub shunts_refused: u64,
    /// Flows.
    pub flows: u64,
    /// Flows by transport.
    pub flows_by_l4: Vec<Count>,
    /// Flows by how they ended.
    pub flows_by_reason: Vec<Count>,
    /// What became of TCP streams; `null` unless they were reassembled.
    pub streams: Option<Streams>,
    /// Anomalies.
    pub anomalies: u64,
    /// Records, interim ones included.
    pub records: u64,
    /// Interim records.
    pub records_interim: u64,
    /// What became of them, by output.
    pub outputs: Vec<SinkReport>,
    /// Whether it adds up.
    pub ledger: Ledger,
}

/// What is known of a run beside its figures.
#[derive(Debug)]
pub struct RunFacts<'a> {
    /// How it ended.
    pub outcome: &'static str,
    /// What was wrong with the capture.
    pub errors: Vec<String>,
    /// Capture files.
    pub files: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Frames by link type.
    pub links: &'a [(LinkType, u64)],
    /// Whether streams were put together.
    pub reassembled: bool,
    /// Queues of the interfaces.
    pub queues: Vec<QueueReport>,
}

impl Summary {
    /// Of a run that has drained.
    pub fn new(figures: &Figures, ledger: Ledger, facts: RunFacts<'_>) -> Self {
        let Figures { reader, workers, sinks } = figures;
        let time = |nanos| (reader.delivered != 0).then(|| rfc3339(Timestamp::from_nanos(nanos)));
        let faulty: u64 = reader.faults.iter().sum();
        let mut unmatched = counts(&FAULT_LABELS, &reader.faults);
        unmatched.extend(counts(&["not_ip"], &[reader.unmatched.saturating_sub(faulty)]));
        let elapsed_seconds = facts.elapsed.as_secs_f64();
        Self {
            outcome: facts.outcome,
            errors: facts.errors,
            queues: facts.queues,
            files: facts.files,
            file_bytes: reader.file_bytes,
            first: time(reader.first_ns),
            last: time(reader.last_ns),
            capture_seconds: reader.last_ns.saturating_sub(reader.first_ns) as f64 / 1e9,
            elapsed_seconds,
            frames_per_second: reader.delivered as f64 / elapsed_seconds.max(1e-9),
            frames: reader.delivered,
            bytes: reader.delivered_bytes,
            frames_filtered: reader.filtered,
            packets_unmatched: reader.unmatched,
            unmatched,
            unsupported_links: unsupported(facts.links),
            fragments_unattributed: reader.fragments_unattributed,
            packets_tracked: workers.tracked,
            packets_shunted: workers.shunted,
            flows_shunted: workers.flows_shunted,
            shunts_refused: workers.shunts_refused,
            flows: workers.started.iter().sum(),
            flows_by_l4: counts(&L4_LABELS, &workers.started),
            flows_by_reason: counts(&END_REASON_LABELS, &workers.ended),
            streams: facts.reassembled.then(|| Streams::new(&workers.streams)),
            anomalies: workers.anomalies,
            records: workers.records,
            records_interim: workers.interim,
            outputs: sinks.iter().map(|(name, sink)| SinkReport::new(name, sink)).collect(),
            ledger,
        }
    }
}

const _: () = assert!(L4_LABELS.len() == L4::ALL.len());
const _: () = assert!(END_REASON_LABELS.len() == EndReason::ALL.len());

/// The counts that are not zero.
fn counts(labels: &[&str], values: &[u64]) -> Vec<Count> {
    let named = labels.iter().zip(values).filter(|(_, count)| **count != 0);
    named.map(|(name, &count)| Count { name: (*name).to_owned(), count }).collect()
}

fn unsupported(links: &[(LinkType, u64)]) -> Vec<Count> {
    let name = |link: LinkType| match link {
        OTHER_LINKS => "others".to_owned(),
        link => format!("{} ({})", link.name(), link.0),
    };
    let unsupported = links.iter().filter(|(link, frames)| !link.supported() && *frames != 0);
    unsupported.map(|&(link, count)| Count { name: name(link), count }).collect()
}

fn rfc3339(time: Timestamp) -> String {
    let (mut room, mut seconds) = ([0; LINE_BYTES_MAX], Seconds::default());
    let mut line = Line::new(&mut room, &mut seconds);
    line.time(time);
    String::from_utf8_lossy(line.as_bytes()).into_owned()
}

/// A table for people.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &str| {
            writeln!(f, "  {name:<22}{value}")
        };
        writeln!(f, "flowscope: {}", self.outcome.replace('_', " "))?;
        let time = format!(
            "{:.3} s, {} frames/s",
            self.elapsed_seconds,
            grouped(self.frames_per_second as u64)
        );
        row(
            f,
            "read",
            &format!("{} frames, {} bytes in {time}", grouped(self.frames), grouped(self.bytes)),
        )?;
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            row(f, "captured", &format!("{first} to {last}, {:.3} s", self.capture_seconds))?;
        }
        for queue in &self.queues {
            let name = format!("{} queue {}", queue.interface, queue.queue);
            let mut text = format!(
                "{} offered, {} delivered",
                grouped(queue.offered),
                grouped(queue.delivered)
            );
            if queue.shunted != 0 {
                write!(text, ", {} shunted", grouped(queue.shunted))?;
            }
            for (reason, frames) in &queue.dropped {
                write!(text, ", {} LOST ({reason})", grouped(*frames))?;
            }
            row(f, &name, &text)?;
        }
        if self.frames_filtered != 0 {
            row(f, "filtered out", &grouped(self.frames_filtered))?;
        }
        row(f, "unmatched", &with_parts(self.packets_unmatched, &self.unmatched))?;
        for link in &self.unsupported_links {
            row(
                f,
                "link type not decoded",
                &format!("{}: {} frames", link.name, grouped(link.count)),
            )?;
        }
        row(f, "tracked", &format!("{} packets", grouped(self.packets_tracked)))?;
        if self.flows_shunted != 0 || self.shunts_refused != 0 {
            let (packets, flows) = (grouped(self.packets_shunted), grouped(self.flows_shunted));
            let mut text = format!("{packets} of them, of {flows} flows");
            if self.shunts_refused != 0 {
                write!(text, ", {} times without room", grouped(self.shunts_refused))?;
            }
            row(f, "shunted", &text)?;
        }
        row(f, "flows", &with_parts(self.flows, &self.flows_by_l4))?;
        row(f, "ended by", &parts(&self.flows_by_reason))?;
        if let Some(streams) = &self.streams {
            row(f, "streams", &streams.to_string())?;
        }
        if self.anomalies != 0 {
            row(f, "anomalies", &grouped(self.anomalies))?;
        }
        row(
            f,
            "records",
            &format!(
                "{}, {} of them interim",
                grouped(self.records),
                grouped(self.records_interim)
            ),
        )?;
        for output in &self.outputs {
            let mut text = format!("{} written", grouped(output.written));
            for (reason, records) in &output.dropped {
                write!(text, ", {} DROPPED ({reason})", grouped(*records))?;
            }
            row(f, "", &format!("{text} to {}", output.output))?;
        }
        writeln!(
            f,
            "ledger: {}",
            if self.ledger.balanced { "balanced" } else { "DOES NOT BALANCE" }
        )?;
        for equation in &self.ledger.equations {
            let sign = if equation.balanced { "=" } else { "≠" };
            let sides = format!("{} {sign} {}", grouped(equation.left), grouped(equation.right));
            writeln!(f, "  {:<50} {sides}", equation.says)?;
        }
        self.errors.iter().try_for_each(|error| writeln!(f, "broken: {error}"))
    }
}

fn with_parts(total: u64, of: &[Count]) -> String {
    if of.is_empty() { grouped(total) } else { format!("{} ({})", grouped(total), parts(of)) }
}

fn parts(of: &[Count]) -> String {
    let each = of.iter().map(|part| format!("{} {}", part.name, grouped(part.count)));
    each.collect::<Vec<_>>().join(", ")
}

/// A number with its digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
    }

    #[test]
    fn a_link_type_that_is_not_decoded_is_named() {
        let links = [(LinkType::ETHERNET, 3), (LinkType(105), 7), (OTHER_LINKS, 1)];
        let found = unsupported(&links);
        assert_eq!(found.len(), 2);
        assert!(found[0].name.contains("105") && found[0].count == 7, "{found:?}");
    }
}
