//! A model: its specification, the names of its parameters, its weights, and the one f32 forward.

pub mod companions;
pub mod described;
pub mod device;
pub mod error;
pub mod families;
pub mod forward;
pub mod generation;
pub mod graph;
pub mod id;
pub mod integers;
pub mod matrix;
pub mod notes;
pub mod pattern;
pub mod quantized;
pub mod scheme;
pub mod sentence;
pub mod size;
pub mod spec;
pub mod special_tokens;
pub mod transform;
pub mod weights;
