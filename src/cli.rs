//! The command line: arguments → validated options → run → exit code.
//!
//! | part | noun |
//! |---|---|
//! | [`args`] | what clap reads, and the manual page |
//! | [`values`] | option values, one parser each |
//! | [`options`] | everything validated, refusals |
//! | [`exit`] | exit codes |
//! | [`logging`] | messages on standard error |

pub mod args;
pub mod exit;
pub mod logging;
pub mod options;
pub mod values;

use clap::Parser;

use crate::sensor;
use args::{Cli, Command, LogFormat};
use exit::Exit;

/// Runs the program and gives its exit code. `clap` itself ends the process for `--help` and for
/// arguments that it refuses.
pub fn run() -> u8 {
    let at_once = i32::from(Exit::Interrupted.code());
    let result = match Cli::parse().command {
        Command::Replay(args) => {
            logging::start(args.common.log_format);
            match options::replay(*args) {
                Ok(options) => sensor::replay::run(options, at_once).map(Exit::from),
                Err(refused) => return refuse("replay", &refused),
            }
        }
        Command::Live(args) => {
            logging::start(args.common.log_format);
            match options::live(*args) {
                Ok(options) => sensor::live::run(&options, at_once).map(Exit::from),
                Err(refused) => return refuse("live", &refused),
            }
        }
        Command::Doctor(args) => {
            logging::start(LogFormat::Text);
            sensor::ports::doctor(&options::doctor(args)).map(Exit::from)
        }
        Command::Restore(args) => {
            logging::start(LogFormat::Text);
            sensor::ports::restore(&args.state.state_dir).map(|()| Exit::Success)
        }
    };
    match result {
        Ok(exit) => exit.code(),
        Err(error) => {
            // The whole chain in one line: what was tried, what came of it.
            tracing::error!("{error:#}");
            Exit::Failure.code()
        }
    }
}

fn refuse(command: &str, refused: &options::UsageError) -> u8 {
    eprintln!("error: {refused}\n\nFor more information, try 'flowscope {command} --help'.");
    exit::USAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_tells_examples_environment_and_exit_codes() {
        let mut command = Cli::command();
        let doctor = command.find_subcommand_mut("doctor").unwrap().render_long_help().to_string();
        assert!(doctor.contains("6  doctor found") && doctor.contains("Examples:"), "{doctor}");
        for name in ["replay", "live"] {
            let command = command.find_subcommand_mut(name).unwrap();
            let help = command.render_long_help().to_string();
            for expected in ["Examples:", "RUST_LOG", "130", "--filter"] {
                assert!(help.contains(expected), "{expected} is not in:\n{help}");
            }
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused_by_name() {
        let refusal = |args: &[&str]| {
            let args = [&["flowscope", "replay", "x.pcap"], args].concat();
            let Command::Replay(args) = Cli::parse_from(args).command else { unreachable!() };
            options::replay(*args).unwrap_err().to_string()
        };
        assert!(refusal(&["--max-flows", "0"]).contains("--max-flows 0"));
        assert!(refusal(&["--max-flows", "3", "--workers", "4"]).contains("--workers 4"));
        assert!(refusal(&["-o", "jsonl:-", "-o", "jsonl:-"]).contains("standard output"));
        // A core that this process may use; nobody has core 1023 switched on.
        let core = crate::sensor::cores::allowed()[0].to_string();
        assert!(refusal(&["--cores", &core, "--workers", "2"]).contains("1 of the 2 cores"));
        let far = format!("{core},1023");
        assert!(refusal(&["--cores", &far]).contains("core 1023 is not online"));
        assert!(refusal(&["--filter", "tcp prot 80"]).contains("tcp prot 80"));
    }
}
