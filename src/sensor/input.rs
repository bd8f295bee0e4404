//! Standard input that a stop interrupts.
//!
//! Contract: a read that waits for a silent pipe ends within a moment of the stop, with [`Stopped`]; bytes
//! that came before it were handed out. Nothing is buffered here, because bytes in a buffer are not seen by
//! who waits for the pipe.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::stop::Stop;
use crate::capture::CaptureError;

/// What a read fails with when it was told to stop.
#[derive(Debug, thiserror::Error)]
#[error("told to stop")]
pub struct Stopped;

impl Stopped {
    /// Whether that is all that is wrong.
    pub fn is(error: &CaptureError) -> bool {
        match error {
            CaptureError::Open { error, .. } | CaptureError::Read { error, .. } => {
                error.get_ref().is_some_and(|inner| inner.is::<Self>())
            }
            _ => false,
        }
    }
}

/// A stream that can be waited for together with a stop.
#[derive(Debug)]
pub struct StoppableInput {
    input: File,
    /// Its other end is closed by the stop.
    bell: UnixStream,
}

impl StoppableInput {
    /// Standard input, past the buffer that the standard library keeps for it.
    pub fn stdin(stop: &Stop) -> io::Result<Self> {
        Ok(Self::new(File::from(io::stdin().as_fd().try_clone_to_owned()?), stop.bell()?))
    }

    fn new(input: File, bell: UnixStream) -> Self {
        Self { input, bell }
    }

    /// Waits until there is something to read, or an end to tell.
    fn wait(&self) -> io::Result<()> {
        loop {
            let mut fds =
                [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(&self.input, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if !fds[0].revents().is_empty() => return Err(io::Error::other(Stopped)),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(()),
                // A signal came, of which the thread for signals will tell the stop.
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for StoppableInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        self.input.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    /// A pipe's two ends, the reading one stoppable.
    fn pipe(stop: &Stop) -> (UnixStream, StoppableInput) {
        let (writer, reader) = UnixStream::pair().unwrap();
        let input = File::from(OwnedFd::from(reader));
        (writer, StoppableInput::new(input, stop.bell().unwrap()))
    }

    #[test]
    fn bytes_and_the_end_come_through() {
        let stop = Stop::new();
        let (mut writer, mut input) = pipe(&stop);
        writer.write_all(b"abc").unwrap();
        drop(writer);
        let mut text = String::new();
        input.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_stop_ends_a_read_that_waits() {
        let stop = Stop::new();
        let (_writer, mut input) = pipe(&stop);
        let reading = std::thread::spawn(move || input.read(&mut [0; 16]));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!reading.is_finished());
        stop.raise();
        let error = reading.join().unwrap().unwrap_err();
        assert!(Stopped::is(&CaptureError::Open { file: "-".to_owned(), error }));
    }

    #[test]
    fn a_stop_that_was_raised_before_ends_the_first_read() {
        let stop = Stop::new();
        stop.raise();
        let (mut writer, mut input) = pipe(&stop);
        writer.write_all(b"abc").unwrap();
        assert!(input.read(&mut [0; 16]).is_err());
    }

    #[test]
    fn another_failure_is_no_stop() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(!Stopped::is(&CaptureError::Open { file: "-".to_owned(), error }));
    }
}
