//! What stands between a parameter and its use: plain data that pruning, training and quantization share, so that none
//! of them imports another.

pub mod mask;

pub use mask::{Mask, MaskError, NmPattern, UnknownPattern};
