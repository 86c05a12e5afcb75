//! The stages: what each subcommand that opens a model and writes one does.

pub mod compile;
pub mod eval;
pub mod prune;
pub mod quantize;
pub mod runner;
pub mod train;
