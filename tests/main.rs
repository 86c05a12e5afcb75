//! The one integration binary: each module is a subject.
#![expect(clippy::disallowed_methods, reason = "tests write their inputs")]

mod adapters;
mod allocate;
mod artifact;
mod c_interface;
mod cache;
mod calibration;
mod chat;
mod checkpoints;
mod cli;
mod conversations;
mod data_files;
mod dense_directory;
mod determinism;
mod families;
mod fixture;
mod formats;
mod fuzz_seeds;
mod gguf;
mod golden;
mod graph;
mod hostile_checkpoint;
mod incremental;
mod interrupt;
mod packed;
mod prune;
mod quality;
mod quantize;
mod real_model;
mod recipes;
mod reference;
mod resume;
mod revisions;
mod sampling;
mod schemes;
mod sentences;
mod special_tokens;
mod statistics;
mod students;
mod support;
mod targets;
mod training;

pub(crate) use support::shared;
