//! What a model is: its specification, the names of its parameters, its weights, and the one f32 forward.

pub mod arch;
pub mod id;
pub mod quantized;
pub mod scheme;
pub mod spec;
