//! The runtime that ships on the device: it reads a `.slm` artifact in place and computes logits that are the same bits
//! on every target. No allocation, no dependencies, memory from the caller.
//!
//! | module | contents |
//! |---|---|
//! | [`mod@format`] | the artifact: one definition for the writer and this reader |
//! | [`layout`] | the address of each weight of a tile, for every target |
//! | [`numerics`] | the elementary operations of the exact arithmetic |
//! | [`kernels`] | the inner loops, as a table per instruction set |
//! | [`plan`] | the memory an artifact needs |
//! | [`session`] | the executor for decoders and encoders |
//! | [`sample`] | choosing a token |
//! | `speculate` | several tokens in one pass, guessed and confirmed; with the feature `speculation` |
//! | `grammar` | the tokens that a grammar allows next; with the feature `grammar` |
//! | `exits` | when a text leaves a classifier, and how sure it is; with the feature `exits` |
//! | [`tokenizer`] | text to token ids |
//! | [`text`] | token ids to text |
//! | [`self_test`] | the golden vectors |
//! | `c_api` | all of this from C, with the feature `c-api`; `include/slm.h`, docs/c-api.md |
//! | [`sha256`] | digests |
//! | `hmac` | keyed digests and derived keys, with the features that need them |
//! | `seal` | artifacts whose weights are in cipher; with the feature `seal` |
//! | `audit` | the log of what was inferred, with the feature `audit` |
//! | `trust` | signed artifacts; with the feature `signed` |
//! | `streaming` | weights in slow storage; with the feature `streaming` |
//! | `update` | packages of changed leaves, two slots, trials; with the feature `update` |
//!
//! ```text
//! let artifact = ArtifactView::open(bytes)?;
//! let mut session = Session::new(&artifact, &kernels::SCALAR, memory)?;   // memory: Session::required_bytes
//! let logits = session.step(&[1, 403, 407])?;
//! let token = sample::choose(logits, &Sampling::GREEDY, 0, 0);
//! ```

#![no_std]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod attention;
#[cfg(any(test, feature = "audit"))]
pub mod audit;
#[cfg(any(test, feature = "c-api"))]
pub mod c_api;
mod cache;
#[cfg(feature = "exits")]
pub mod exits;
pub mod format;
#[cfg(feature = "grammar")]
pub mod grammar;
#[cfg(any(test, feature = "audit", feature = "seal"))]
pub mod hmac;
pub mod kernels;
pub mod layout;
mod memory;
pub mod numerics;
pub mod plan;
pub mod sample;
#[cfg(feature = "seal")]
pub mod seal;
pub mod self_test;
pub mod session;
pub mod sha256;
#[cfg(feature = "speculation")]
pub mod speculate;
#[cfg(feature = "streaming")]
pub mod streaming;
pub mod text;
pub mod tokenizer;
#[cfg(feature = "signed")]
pub mod trust;
#[cfg(feature = "update")]
pub mod update;
// Tests that need the crate's private parts, out of the tree of the product; `cargo test --lib` runs them, on every
// target.
#[cfg(test)]
#[path = "../tests/vectors/numerics.rs"]
mod vectors;
