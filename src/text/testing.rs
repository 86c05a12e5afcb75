//! What the tests of this module share: the checkpoints and texts of ../shared, and the files beside a checkpoint.

use crate::model::companions::Companions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `../shared/{path}`, or `None`, saying so, where that is absent; with `SLMC_REQUIRE_SHARED=1` a failure.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if !full.exists() {
        let required = std::env::var_os("SLMC_REQUIRE_SHARED").is_some_and(|value| value == "1");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let absent = full.display();
        assert!(!required, "{test}: {absent} is absent, and SLMC_REQUIRE_SHARED=1 says that everything runs");
        // Straight to the stream and in one piece: `eprintln!` is captured when a test passes.
        let _ = std::io::stderr().write_all(format!("not run: {test}: {absent} is absent\n").as_bytes());
        return None;
    }
    Some(full)
}

/// The companions in a directory.
pub(crate) fn companions(directory: &Path) -> Companions {
    crate::formats::companions(directory).expect("a directory of files always has them")
}
