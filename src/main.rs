//! Parse, run, and end with the exit code.

use clap::Parser;
use slmc::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run().into()
}
