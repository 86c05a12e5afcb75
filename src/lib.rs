//! slmc: from a Hugging Face checkpoint of a small language model to one file that an edge device runs.
//!
//! ```text
//! checkpoint ── quantize ──> quantized directory ── compile ──> artifact (.slm) ── eval, generate, verify, inspect
//! ```
//!
//! # What lives where
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | one file per subcommand: options (the help text) and a `run` without logic |
//! | [`shell`] | everything a person sees: results on stdout, the rest on stderr, exit codes |
//! | [`report`] | what a command hands back, as text or one JSON line |
//! | [`progress`] | the trait that long work reports to |
//! | [`recipe`] | TOML files as closed types with line numbers: targets |
//! | [`quantize`] | a scheme for every matrix, scales searched row by row, key maps |
//! | [`compile`] | lowering, packing, the memory plan and whether it fits, the artifact and what looks at it |
//! | [`eval`] | perplexity, divergence, accuracy, embeddings and generation over artifacts and directories |
//! | [`calibrate`] | statistics of activations, through the taps of the f32 forward |
//! | [`data`] | text to tokens to windows, and what each token writes on a device |
//! | [`model`] | specification, names, weights, schemes, byte counts, families, the one f32 forward |
//! | [`checkpoint`] | directories on disk: JSON, safetensors, mapping, hashes, writes that are all or nothing |
//! | [`slm_runtime`] | the crate that ships on the device: format, layouts, exact arithmetic, kernels, executor |
//!
//! Modules use those below them in this table; [`report`] and [`progress`] use nothing and serve all. The rule in full, the
//! core types, and where to add a family, a scheme, a target or a subcommand: docs/architecture.md.
//!
//! # Files read
//!
//! | file | what of it | by |
//! |---|---|---|
//! | `config.json` | the model's configuration; a value that is not implemented is refused by key | [`checkpoint::config`], [`model::arch`] |
//! | `model.safetensors` | f32, f16 or bf16 tensors | [`checkpoint::tensor_file`] |
//! | `model.safetensors.index.json` | which shard holds which tensor | [`checkpoint::directory`] |
//! | `tokenizer.json` | the tokenizer; its decoder becomes the device's table | [`data::tokenizer`], [`data::vocabulary`] |
//! | text, JSONL | calibration and evaluation text | [`data::text`] |
//! | `*.toml` target | what a device holds (docs/targets.md) | [`recipe::target`] |
//! | quantized directory, artifact | as below | |
//!
//! # Files written
//!
//! | file | what it is | by |
//! |---|---|---|
//! | quantized directory | `config.json` with `quantization_config`, `model.safetensors` with integers and scales, the tokenizer's files, `slmc.json` | [`model::quantized_directory`] |
//! | `slmc.json` | how a directory was made, `slmc.provenance/1`; by it slmc knows its own directories | [`quantize::directory`] |
//! | `*.slm` | the artifact (docs/format.md); its first bytes are how slmc knows its own files | [`compile::emit`], [`slm_runtime::format`] |
//! | `.NAME.slmc-PID-N.new`, `.old` | an output being built, and the one it replaces; gone when the command ends | [`checkpoint::atomic`] |
//!
//! Part of the binary: `targets/*.toml` and `calibration/encoders.txt`. JSON lines on stdout carry their schema's name, such as
//! `slmc.eval/1`; see [`report::Report::SCHEMA`] of each report.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests write their inputs"))]

pub mod calibrate;
pub mod checkpoint;
pub mod cli;
pub mod compile;
pub mod data;
pub mod eval;
pub mod machine;
pub mod model;
pub mod progress;
pub mod prune;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod shell;
pub mod train;
