//! Stub: the command line.

/// Runs the command line and gives the exit code.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
