//! The one integration binary: each module is a subject.
#![expect(clippy::disallowed_methods, reason = "tests write their inputs")]

mod allocate;
mod artifact;
mod c_interface;
mod chat;
mod cli;
mod dense_directory;
mod determinism;
mod families;
mod fixture;
mod fuzz_seeds;
mod golden;
mod hostile_checkpoint;
mod incremental;
mod interrupt;
mod prune;
mod quality;
mod quantize;
mod real_model;
mod recipes;
mod reference;
mod special_tokens;
mod targets;
mod training;

use std::path::PathBuf;

/// A path in the shared material beside the checkout, as [`outside`] gives it.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    outside(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(path))
}

/// A path outside the repository. Where it is absent the test is skipped, saying so; with `SLMC_REQUIRE_SHARED=1`, which CI
/// sets, it fails.
pub(crate) fn outside(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let required = std::env::var_os("SLMC_REQUIRE_SHARED").is_some_and(|value| value == "1");
    assert!(!required, "{test} needs {}, and SLMC_REQUIRE_SHARED=1 says that nothing is skipped", path.display());
    let mut stderr = std::io::stderr().lock();
    let _ = std::io::Write::write_fmt(&mut stderr, format_args!("skipped {test}: {} is absent\n", path.display()));
    None
}
