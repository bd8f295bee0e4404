//! What every program of ours takes beside the loader: its refusals, in the system's words.

use std::error::Error;
use std::io;

/// What the object of a program does not have.
pub(super) fn missing(what: &str) -> io::Error {
    io::Error::other(format!(
        "the compiled program has no {what}: it was not made from these sources"
    ))
}

/// The system's number under an error of the loader, when there is one and nothing beside it says more.
pub(super) fn system_error(error: impl Error) -> io::Error {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    if let Some(log) = verifier_log(&error.to_string()) {
        return io::Error::other(log);
    }
    while let Some(inner) = cause {
        if let Some(code) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        cause = inner.source();
    }
    io::Error::other(error.to_string())
}

/// The last lines of what the verifier had to say.
fn verifier_log(text: &str) -> Option<String> {
    const LINES: usize = 12;
    text.contains("processed ").then(|| {
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    })
}
