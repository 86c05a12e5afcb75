//! Packed checkpoints whose tensors and configuration disagree: refused by file, tensor or key, and none makes the reader
//! panic.
