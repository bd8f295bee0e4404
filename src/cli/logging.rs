//! Messages: to standard error, chosen by `RUST_LOG`, as text or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::args::LogFormat;

/// Installs the subscriber of the process; does nothing when there is one.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| quiet());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
}

/// The default: what the program says, without one message a flow.
fn quiet() -> EnvFilter {
    EnvFilter::new("info,flowscope.flow=off,flowscope.anomaly=off")
}
