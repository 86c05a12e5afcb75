//! The one training loop: a student, optionally a frozen teacher, weights read through transforms (masks, fake
//! quantization), losses each with a weight, AdamW, checkpoints and resume. Distillation, sparse recovery and
//! quantization-aware training are settings of it.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | a run as plain data |
//! | [`data`] | samples, and the micro-batches of a step |
//! | [`parameters`] | the trained tensors, on the host and as leaves of a gradient graph |
//! | [`scope`], `adapter`, `view` | which values are trained; adapters of low rank; the weights as the forward sees them |
//! | [`privacy`] | noise that hides every single sample, and its accountant |
//! | [`loss`], [`relations`] | the losses, and what one of them compares |
//! | `gradients`, `operations` | a step's gradients: all together or sample by sample; what they are computed by |
//! | `fused`, `plain` | on fused operations; by burn's own, here or on workers |
//! | [`on_policy`] | samples that the student writes itself |
//! | [`optimizer`] | AdamW |
//! | [`memory`] | the memory that a run will need at its peak |
//! | [`student`] | a student from a teacher's layers, and which layers are compared |
//! | [`teacher_cache`] | what teachers say of the samples, on disk |
//! | [`checkpoint`] | resume state of a run |
//! | [`samples`], [`start`] | files to samples, directories to students |
//! | [`trainer`], [`error`] | the loop, and why it stopped |
//! | [`rounds`] | the average of what several clients trained |
//! | [`retrain`] | the loop with the model before a change as teacher |
//! | [`report`] | the report and the log of a run |

mod adapter;
pub mod checkpoint;
pub mod data;
pub mod error;
mod fused;
mod gradients;
pub mod loss;
pub mod memory;
pub mod on_policy;
mod operations;
pub mod optimizer;
pub mod parameters;
mod plain;
pub mod privacy;
pub mod relations;
pub mod report;
pub mod retrain;
pub mod rounds;
pub mod samples;
pub mod scope;
pub mod settings;
pub mod start;
pub mod student;
pub mod teacher_cache;
pub mod trainer;
mod view;
