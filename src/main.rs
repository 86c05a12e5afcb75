//! Parse, run, and end with the exit code.

use slmc::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::read().run().into()
}
