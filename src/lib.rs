//! slmc: from a Hugging Face checkpoint of a small language model to one file that an edge device runs.
//!
//! ```text
//! train, distill, prune ──> checkpoint ── quantize ──> quantized directory ── compile ──> artifact (.slm)
//!                                                          eval, generate, verify, inspect ──┘
//! ```
//!
//! # What lives where
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | one file per subcommand that is not a stage: options (the help text) and a `run` without logic |
//! | [`recipe`] | recipes: TOML files with line numbers, plan, cache, lock and gates |
//! | [`mod@attest`] | what is said about a finished artifact, signed: how it was made, its gates, its materials |
//! | [`store`] | where results of stages are kept: directories, servers, buckets; verified and signed |
//! | [`seal`] | artifacts whose weights are in cipher: closed for devices, opened again |
//! | [`mod@init`] | a first recipe for a checkpoint, a target and a priority |
//! | [`mod@diff`] | two artifacts, directories, recipes or reports compared, key by key |
//! | [`stages`] | the table of stages: subcommands that take models and make one, or measure it |
//! | [`shell`] | everything a person sees: results on stdout, the rest on stderr, exit codes |
//! | [`report`] | what a command hands back, as text or one JSON line |
//! | [`progress`] | the trait that long work reports to |
//! | [`divergence`] | how far two models' outputs are apart, and means with their standard errors |
//! | [`statistics`] | bounds of measured means and shares, and what they say about a limit |
//! | [`machine`] | the build machine: CPU features, kernels, huge pages, read bandwidth |
//! | [`mod@bench`] | the runtime's speed on this machine, on artifacts and on random weights of known shapes |
//! | [`mod@data`] | training data: duplicates, rules, scores, tags, weights, a held-out split, in few passes over files |
//! | [`mod@attribute`] | what a choice rests on: attention by layer and head, shares of tokens by occlusion |
//! | [`audit`] | logs of what artifacts were asked and answered: checked, replayed, written |
//! | [`eval`] | perplexity, divergence, accuracy, embeddings and generation over artifacts and directories |
//! | [`allocate`] | bits for every matrix within a budget, by gradients, measurement and an exact knapsack |
//! | [`shrink`] | students cut out of their teacher in depth and width, fitted by least squares |
//! | [`prune`] | N:M masks by magnitude, Wanda or SparseGPT, refits layer by layer, and recovery |
//! | [`quantize`] | a scheme for every matrix, scales searched row by row, key maps, quantization-aware training |
//! | [`train`] | the one training loop: losses, AdamW, checkpoints; training, distillation, recovery |
//! | [`workers`] | processes that compute the steps of a training for others, and connections to them |
//! | [`page`] | a folder that runs an artifact in a browser |
//! | [`confidence`] | temperatures of classifiers, the error that is left, answers that are kept |
//! | [`compile`] | lowering, packing, the memory plan and whether it fits, the artifact's bytes |
//! | [`firmware`] | folders that build into a program of a device: the artifact as an object, headers, a main, the runtime |
//! | [`target`] | what a device holds and runs |
//! | [`calibrate`] | statistics of activations, through the taps of the f32 forward |
//! | [`mod@update`] | packages that make a device's artifact another one: made, applied, inspected |
//! | [`artifact`] | finished artifacts: opened, run on this machine, inspected, verified |
//! | [`text`] | text to tokens to windows, training of tokenizers, and what each token writes on a device |
//! | [`trust`] | keys, signatures, statements in envelopes, signed directories |
//! | [`formats`] | models outside of slmc: directories read and written, behind two traits and one table |
//! | [`model`] | specification, names, weights, schemes, masks, byte counts, families, the one f32 forward |
//! | [`disk`] | files on disk: JSON, safetensors, mapping, hashes, writes that are all or nothing |
//! | [`slm_runtime`] | the crate that ships on the device: format, layouts, exact arithmetic, kernels, executor |
//!
//! Modules use those below them in this table; [`report`], [`progress`], [`divergence`], [`statistics`]
//! and [`machine`] use nothing and serve all. The rule
//! in full, the core types, and where to add a family, a scheme, a target, a loss or a subcommand: docs/architecture.md.
//!
//! # Files read
//!
//! | file | what of it | by |
//! |---|---|---|
//! | `config.json` | the model's configuration; a value that is not implemented is refused by key | [`disk::config`], [`model::families`] |
//! | `model.safetensors` | f32, f16 or bf16 tensors | [`disk::tensor_file`] |
//! | `model.safetensors.index.json` | which shard holds which tensor | [`formats`] |
//! | `tokenizer.json` | the tokenizer; its decoder becomes the device's table | [`text::tokenizer`], [`text::vocabulary`] |
//! | `chat_template.jinja` and the other places of chat templates | how a conversation becomes text | [`mod@text::chat_template`] |
//! | `slmc.json` | which matrices are sparse | [`formats::provenance`] |
//! | text, JSONL | training, calibration and evaluation text, labels | [`text::records`] |
//! | `*.toml` target | what a device holds (docs/targets.md) | [`target`] |
//! | `*.toml` recipe, its `.lock` | stages, gates, a sample (docs/recipes.md); the hashes of its inputs | [`recipe`] |
//! | quantized directory, artifact | as below | |
//!
//! # Files written
//!
//! | file | what it is | by |
//! |---|---|---|
//! | dense directory | `config.json`, `model.safetensors` in f32, f16 or bf16, the tokenizer's files, `slmc.json` | [`formats::hugging_face`] |
//! | quantized directory | `config.json` with `quantization_config`, `model.safetensors` with integers and scales, the tokenizer's files, `slmc.json` | [`formats::slmc_quantized`] |
//! | `slmc.json` | how a directory was made, `slmc.provenance/1`; by it slmc knows its own directories | every command that writes one |
//! | `*.slm` | the artifact (docs/format.md); its first bytes are how slmc knows its own files | [`compile::emit`], [`slm_runtime::format`] |
//! | `OUT.checkpoint/` | what a killed training goes on from (docs/training.md); gone when the output is in place | [`train::checkpoint`] |
//! | page directory | `index.html`, the runtime as WebAssembly, the artifact in pieces, `page.json`, `slmc.json` (docs/page.md) | [`page`] |
//! | data directory | `data.jsonl`, `held-out.jsonl`, `slmc.json` | [`mod@data`] |
//! | `trimmed_ids.json` of a trimmed model | the old id of every token | [`text::trimming`] |
//! | `*.svg` of `quantize --sweep` | the frontier of bytes against cost | [`allocate::sweep`], [`report::chart`] |
//! | folder of `compile --firmware` | a program around an artifact, with the runtime's sources and `slmc.json` (docs/firmware.md) | [`firmware`] |
//! | `*.jsonl` of `--metrics` | one object per training step | [`train::report`] |
//! | tokenizer directory | `tokenizer.json`, `tokenizer_config.json`, `slmc.json` | [`text::tokenizer_training`] |
//! | `RECIPE.lock` | the inputs and results of a recipe by hash | [`recipe`] |
//! | `.slmc/cache/bench/*.slm` | artifacts of random weights that `slmc bench --shape` measures | [`mod@bench`] |
//! | `ac/`, `cas/` of the cache | what stages of recipes gave, with their outputs (docs/cache.md) | [`store`] |
//! | the log of `--audit` | 160-byte records, appended (docs/audit.md) | [`audit::writer`] |
//! | `.NAME.slmc-PID-N.new`, `.old` | an output being built, and the one it replaces; gone when the command ends | [`disk::atomic`] |
//!
//! Part of the binary: `targets/*.toml`, `calibration/encoders.txt` and the quickstart of `recipes/`. JSON lines on stdout
//! carry their schema's name, such as `slmc.eval/1`; see [`report::Report::SCHEMA`] of each report.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests write their inputs"))]

pub mod allocate;
pub mod artifact;
pub mod attest;
pub mod attribute;
pub mod audit;
pub mod bench;
pub mod calibrate;
pub mod cli;
pub mod compile;
pub mod confidence;
pub mod data;
pub mod diff;
pub mod disk;
pub mod divergence;
pub mod eval;
pub mod firmware;
pub mod formats;
pub mod init;
pub mod machine;
pub mod model;
pub mod page;
pub mod progress;
pub mod prune;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod seal;
pub mod shell;
pub mod shrink;
pub mod stages;
pub mod statistics;
pub mod store;
pub mod target;
pub mod text;
pub mod train;
pub mod trust;
pub mod update;
pub mod workers;
