//! What the tests of this module share: the checkpoints and texts of ../shared, and a model specification.

use crate::model::spec::{Head, ModelKind, ModelSpec, Positions};
use std::path::PathBuf;

/// `../shared/{path}`, or `None`, saying so, where that folder is absent.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if !full.exists() {
        eprintln!("skipped: {} is absent", full.display());
        return None;
    }
    Some(full)
}

/// A decoder without layers: what tokenization needs to know of a model.
pub(crate) fn spec(vocabulary: usize, context: usize, bos: Option<u32>) -> ModelSpec {
    ModelSpec {
        family: "llama",
        kind: ModelKind::Decoder,
        vocabulary,
        hidden: 8,
        context,
        token_types: 0,
        positions: Positions::Rotary,
        embedding_scale: 1.0,
        embedding_norm: None,
        layers: Vec::new(),
        final_norm: None,
        head: Head::LanguageModel { tied: true },
        bos,
        eos: Vec::new(),
    }
}
