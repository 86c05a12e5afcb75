//! Everything a person sees. stdout carries the result and nothing else (text, or one JSON line); stderr carries
//! status, notes, warnings, errors and progress. No other module prints.

mod exit;
mod input;
mod messages;
mod progress;
#[cfg(test)]
mod testing;

pub use exit::ExitStatus;
pub use input::{Input, Listening};
pub use messages::{ProgressMode, Shell, ShellOptions, Verbosity};
