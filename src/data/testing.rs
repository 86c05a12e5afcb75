//! What the tests of this module share: the checkpoints and texts of ../shared.

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
