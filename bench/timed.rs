//! How long a command takes, from before it is started until it has ended, and nothing else: `timeout`, `taskset` and `time` before it are 3 ms
//! together, which is a twentieth of what is measured.
//!
//! ```text
//! timed CORE FILE COMMAND…
//! ```
//!
//! Runs the command on one core and writes its microseconds, its peak resident set in KiB, and its processor time in seconds, that of the user and
//! of the system, to the file. Ends as the command does; with 2 where it cannot be started.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
#[path = "load/pin.rs"]
mod pin;

#[cfg(target_os = "linux")]
mod imp {
    use std::error::Error;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitCode, ExitStatus};
    use std::time::Instant;
    use std::{env, fs, io};

    use super::pin::pin;

    /// How a process ended, and what it took.
    fn wait(pid: u32) -> io::Result<(ExitStatus, libc::rusage)> {
        let mut status = 0;
        // SAFETY: the structure is of integers alone, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY:
        // - both pointers are to values of ours of the type that is written, for the length of the call;
        // - the process is our child, and nobody else waits for it.
        let ended = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
        if ended < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((ExitStatus::from_raw(status), usage))
    }

    pub fn main() -> Result<ExitCode, Box<dyn Error>> {
        let arguments: Vec<_> = env::args_os().skip(1).collect();
        let [core, file, program, arguments @ ..] = arguments.as_slice() else {
            return Err("usage: timed CORE FILE COMMAND…".into());
        };
        let core = core.to_str().and_then(|core| core.parse().ok()).ok_or("no core's number")?;
        pin(core)?;
        let begin = Instant::now();
        let child = Command::new(program).args(arguments).spawn();
        let child = child.map_err(|error| format!("{}: {error}", program.display()))?;
        let (status, usage) = wait(child.id())?;
        let micros = begin.elapsed().as_micros();
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let (user, system) = (seconds(usage.ru_utime), seconds(usage.ru_stime));
        fs::write(file, format!("{micros} {} {user:.6} {system:.6}\n", usage.ru_maxrss))?;
        // As shells tell of a signal.
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    imp::main().unwrap_or_else(|error| {
        eprintln!("timed: {error}");
        std::process::ExitCode::from(2)
    })
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("timed: Linux only");
    std::process::ExitCode::from(2)
}
