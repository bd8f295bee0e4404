//! Exit codes, all in one place; `--help` prints the same table.

use crate::sensor::ports::findings::Severity;
use crate::sensor::run::Outcome;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something else failed while running.
    Failure,
    /// A frame or a record is not accounted for: a bug of ours.
    Unbalanced,
    /// Records could not be written.
    OutputFailed,
    /// Whoever read standard output went away.
    ReaderGone,
    /// A capture file is broken.
    CaptureBroken,
    /// `doctor` found something that should be mended.
    Findings,
    /// A signal ended the run early.
    Interrupted,
    /// All went well.
    Success,
}

impl Exit {
    /// What the shell sees. Usage errors are 2, which clap gives by itself.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::CaptureBroken => 3,
            Self::OutputFailed => 4,
            Self::Unbalanced => 5,
            Self::Findings => 6,
            Self::Interrupted => 130,
            Self::ReaderGone => 141,
        }
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Complete => Self::Success,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::CaptureBroken => Self::CaptureBroken,
            Outcome::ReaderGone => Self::ReaderGone,
            Outcome::OutputFailed => Self::OutputFailed,
            Outcome::Unbalanced => Self::Unbalanced,
        }
    }
}

impl From<Severity> for Exit {
    fn from(worst: Severity) -> Self {
        match worst {
            Severity::Ok | Severity::Note => Self::Success,
            Severity::Warning => Self::Findings,
        }
    }
}

/// The code of a usage error.
pub const USAGE: u8 = 2;

/// The table as `--help` prints it.
pub const HELP: &str = "\
Exit codes:
    0  the captures were read to their end (replay), or a signal ended the run (live); every record was written,
       the ledger balances
    1  something failed while running; the message says what
    2  the command line was refused; nothing was read or written
    3  a capture file is broken, or an interface was away at the end: what could be read was processed and written
    4  records could not be written to an output; they are counted as dropped
    5  the ledger does not balance: a bug of flowscope, please report it
    6  doctor found something that should be mended: a warning
  130  replay was ended early by SIGINT or SIGTERM: every live flow ended with a record
  141  whoever read standard output went away; reading stopped, the rest is counted as dropped";
