//! Systems without capabilities.

use crate::capture::fanout::FanoutMode;
use crate::sensor::backends::Backend;

/// Whom a run goes on as: nobody but who started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {}

impl User {
    /// Refused.
    pub fn find(_: &str) -> Result<Self, String> {
        Err("only on Linux: start it as that user".to_owned())
    }

    /// Never happens.
    ///
    /// # Errors
    /// Never.
    pub fn take_over(&self, _: &std::path::Path) -> std::io::Result<()> {
        match *self {}
    }
}

/// Never happens.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {}

/// Nothing is told apart.
pub fn needed(_: Backend, _: FanoutMode, _: bool) {}

/// What is left: all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept;

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all")
    }
}

/// Does nothing.
///
/// # Errors
/// Never.
pub fn drop_to((): (), _: Option<&User>) -> Result<Kept, PrivilegeError> {
    Ok(Kept)
}
