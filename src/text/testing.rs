//! What the tests of this module share: the checkpoints and texts of ../shared.

use std::path::PathBuf;

/// `../shared/{path}`, or `None`, saying so, where that folder is absent; with `SLMC_REQUIRE_SHARED=1` a failure.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if !full.exists() {
        let required = std::env::var_os("SLMC_REQUIRE_SHARED").is_some_and(|value| value == "1");
        assert!(!required, "{} is absent, and SLMC_REQUIRE_SHARED=1 says that nothing is skipped", full.display());
        eprintln!("skipped: {} is absent", full.display());
        return None;
    }
    Some(full)
}
