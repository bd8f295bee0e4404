//! Anywhere but on Linux: ports are not looked at, and not set.

pub use findings::Severity;

use std::path::Path;

use super::options::{DoctorOptions, LiveOptions};
use super::stop::Stop;

/// How bad a finding is.
pub mod findings {
    /// From what is well to what is wrong.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Severity {
        /// As it should be.
        Ok,
        /// Worth knowing.
        Note,
        /// Something will be missed, or wrong.
        Warning,
    }
}

/// Says that nothing is looked at here.
///
/// # Errors
/// Always.
pub fn doctor(_: &DoctorOptions) -> anyhow::Result<Severity> {
    anyhow::bail!("doctor: ports can be looked at on Linux only: ask the system's own tools")
}

/// Says that nothing was set here.
///
/// # Errors
/// Always.
pub fn restore(_: &Path) -> anyhow::Result<()> {
    anyhow::bail!("restore: ports are set on Linux only: there is nothing to put back")
}

/// Nothing.
#[derive(Debug, Default)]
pub struct Prepared;

/// Does nothing.
///
/// # Errors
/// When the ports are to be set.
pub fn prepare(options: &LiveOptions, _: &Stop) -> anyhow::Result<Prepared> {
    anyhow::ensure!(!options.tune, "--tune: ports are set on Linux only: set them by hand");
    Ok(Prepared)
}

/// None is known.
pub fn cores_near(_: &[String]) -> Vec<usize> {
    Vec::new()
}
