//! The `flowscope` program: see [`flowscope::cli`].

use std::process::ExitCode;

// Threads that trade buffers are what it is good at; the library leaves the choice to its user.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(flowscope::cli::run())
}
