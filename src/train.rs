//! The one training loop: a student, optionally a frozen teacher, weights read through transforms (masks, fake
//! quantization), losses each with a weight, AdamW, checkpoints and resume. Distillation, sparse recovery and
//! quantization-aware training are settings of it.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | a run as plain data |
//! | [`data`] | samples, and the micro-batches of a step |
//! | [`parameters`] | the trained tensors, on the host and as leaves of a gradient graph |
//! | [`loss`], [`relations`] | the losses, and what one of them compares |
//! | `fused` | a step's gradients on fused operations |
//! | [`on_policy`] | samples that the student writes itself |
//! | [`optimizer`] | AdamW |
//! | [`memory`] | the memory that a run will need at its peak |
//! | [`student`] | a student from a teacher's layers, and which layers are compared |
//! | [`teacher_cache`] | what teachers say of the samples, on disk |
//! | [`checkpoint`] | resume state of a run |
//! | [`samples`], [`start`] | files to samples, directories to students |
//! | [`trainer`] | the loop |
//! | [`retrain`] | the loop with the model before a change as teacher |
//! | [`report`] | the report and the log of a run |

pub mod checkpoint;
pub mod data;
mod fused;
pub mod loss;
pub mod memory;
pub mod on_policy;
pub mod optimizer;
pub mod parameters;
pub mod relations;
pub mod report;
pub mod retrain;
pub mod samples;
pub mod settings;
pub mod start;
pub mod student;
pub mod teacher_cache;
pub mod trainer;
