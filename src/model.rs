//! What a model is: its specification, the names of its parameters, its weights, and the one f32 forward.

pub mod dense_directory;
pub mod device;
pub mod families;
pub mod forward;
pub mod graph;
pub mod id;
pub mod matrix;
mod output_directory;
pub mod pattern;
pub mod quantized;
pub mod quantized_directory;
pub mod scheme;
pub mod size;
pub mod spec;
pub mod special_tokens;
pub mod transform;
pub mod weights;
