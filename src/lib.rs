//! slmc: from a Hugging Face checkpoint of a small language model to one file that an edge device runs.

pub mod calibrate;
pub mod checkpoint;
pub mod cli;
pub mod compile;
pub mod data;
pub mod eval;
pub mod machine;
pub mod model;
pub mod progress;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod shell;
pub mod train;
