//! Values of options, each with one parser. A refusal says what was found and what would do.

use std::time::Duration;

use super::args::Workers;
use crate::capture::fanout::FanoutMode;
use crate::export::sink::Target;
use crate::flow::IdleTimeouts;
use crate::sensor::cores::CoreList;
use crate::sensor::options::{Output, Speed};

/// Parses `max`, `realtime` or `Nx`.
pub fn speed(text: &str) -> Result<Speed, String> {
    match text {
        "max" => return Ok(Speed::Max),
        "realtime" => return Ok(Speed::Times(1.0)),
        _ => {}
    }
    text.strip_suffix('x')
        .and_then(|number| number.parse::<f64>().ok())
        .filter(|times| times.is_finite() && (1e-6..=1e9).contains(times))
        .map(Speed::Times)
        .ok_or_else(|| "give max, realtime, or a factor such as 10x or 0.5x".to_owned())
}

/// Parses `auto` or 1 to 128.
pub fn workers(text: &str) -> Result<Workers, String> {
    if text == "auto" {
        return Ok(Workers(None));
    }
    text.parse::<usize>()
        .ok()
        .filter(|workers| (1..=128).contains(workers))
        .map(|workers| Workers(Some(workers)))
        .ok_or_else(|| "give auto, or a number from 1 to 128".to_owned())
}

/// Parses the name of a way to spread frames.
pub fn fanout(text: &str) -> Result<FanoutMode, String> {
    FanoutMode::ALL
        .into_iter()
        .find(|mode| mode.label() == text)
        .ok_or_else(|| "give hash, ebpf, qm or cpu".to_owned())
}

/// Parses cores: `2-5,8`.
pub fn cores(text: &str) -> Result<CoreList, String> {
    CoreList::parse(text).map_err(|error| error.to_string())
}

/// A number, and what stands behind it.
fn number_and_unit(text: &str) -> (Option<f64>, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number.parse().ok(), unit)
}

/// Parses a number of bytes: `1500`, `64kB`, `10MB`, `1.5GB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let unit_bytes = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return Err(format!("unknown unit {unit:?}: give kB, MB or GB")),
    };
    number
        .map(|number| number * unit_bytes)
        .filter(|bytes| (1.0..=1e15).contains(bytes))
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "give a size above zero, such as 64kB, 10MB or 1GB".to_owned())
}

/// Parses a time: `300s`, `5m`, `1h`, `500ms`, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let unit_secs = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: give ms, s, m or h")),
    };
    number
        .and_then(|number| Duration::try_from_secs_f64(number * unit_secs).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a time above zero, such as 300s, 5m or 500ms".to_owned())
}

/// Parses a time, or `off`.
pub fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    duration(text).map(Some).map_err(|why| format!("{why}, or off"))
}

/// One idle timeout, by the name of what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimeout {
    class: IdleClass,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdleClass {
    TcpEmbryonic,
    TcpEstablished,
    TcpHalfClosed,
    TcpClosed,
    Udp,
    Other,
}

const IDLE_CLASSES: [(&str, IdleClass); 6] = [
    ("tcp-embryonic", IdleClass::TcpEmbryonic),
    ("tcp-established", IdleClass::TcpEstablished),
    ("tcp-half-closed", IdleClass::TcpHalfClosed),
    ("tcp-closed", IdleClass::TcpClosed),
    ("udp", IdleClass::Udp),
    ("other", IdleClass::Other),
];

/// Parses `NAME=TIME`.
pub fn idle_timeout(text: &str) -> Result<IdleTimeout, String> {
    let names = || IDLE_CLASSES.map(|(name, _)| name).join(", ");
    let (name, time) = text
        .split_once('=')
        .ok_or_else(|| format!("give NAME=TIME with NAME one of {}", names()))?;
    let &(_, class) = IDLE_CLASSES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| format!("unknown name {name:?}: give one of {}", names()))?;
    Ok(IdleTimeout { class, timeout: duration(time)? })
}

impl IdleTimeout {
    /// Puts it where it belongs.
    pub fn apply(self, to: &mut IdleTimeouts) {
        *match self.class {
            IdleClass::TcpEmbryonic => &mut to.tcp_embryonic,
            IdleClass::TcpEstablished => &mut to.tcp_established,
            IdleClass::TcpHalfClosed => &mut to.tcp_half_closed,
            IdleClass::TcpClosed => &mut to.tcp_closed,
            IdleClass::Udp => &mut to.udp,
            IdleClass::Other => &mut to.other,
        } = self.timeout;
    }
}

/// Parses `KIND:WHERE`.
pub fn output(text: &str) -> Result<Output, String> {
    const KINDS: &str = "jsonl:PATH (jsonl:- for standard output)";
    match text.split_once(':') {
        Some(("jsonl", "")) => Err("the path is empty: give jsonl:PATH, or jsonl:-".to_owned()),
        Some(("jsonl", path)) => Ok(Output::Jsonl(Target::parse(path))),
        Some((kind, _)) => Err(format!("unknown kind of output {kind:?}: known are {KINDS}")),
        None => Err(format!("no kind of output: known are {KINDS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_words_or_factors() {
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("realtime"), Ok(Speed::Times(1.0)));
        assert_eq!(speed("2.5x"), Ok(Speed::Times(2.5)));
        for wrong in ["", "x", "0x", "-1x", "10", "infx", "nanx", "fast"] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("300"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "s", "0s", "5d", "-5", "1.2.3s", "1e30h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration_or_off("off"), Ok(None));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("1500"), Ok(1500));
        assert_eq!(bytes("1.5kB"), Ok(1500));
        assert_eq!(bytes("10MB"), Ok(10_000_000));
        assert_eq!(bytes("2GB"), Ok(2_000_000_000));
        for wrong in ["", "MB", "0", "0.1", "-1", "10MiB", "1e30GB", "99999999GB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn idle_timeouts_go_where_their_name_says() {
        let mut timeouts = IdleTimeouts::default();
        idle_timeout("udp=1s").unwrap().apply(&mut timeouts);
        idle_timeout("tcp-half-closed=2s").unwrap().apply(&mut timeouts);
        assert_eq!(timeouts.udp, Duration::from_secs(1));
        assert_eq!(timeouts.tcp_half_closed, Duration::from_secs(2));
        assert!(idle_timeout("sctp=1s").unwrap_err().contains("tcp-embryonic"));
    }

    #[test]
    fn an_unknown_output_is_refused_by_name() {
        let message = output("parquet:x").unwrap_err();
        assert!(message.contains("parquet") && message.contains("jsonl"), "{message}");
        assert!(output("records.json").unwrap_err().contains("jsonl"));
    }
}
