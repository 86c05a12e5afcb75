//! The one integration binary: each module is a subject.
#![expect(clippy::disallowed_methods, reason = "tests write their inputs")]

mod allocate;
mod artifact;
mod c_interface;
mod cli;
mod dense_directory;
mod determinism;
mod families;
mod fixture;
mod golden;
mod hostile_checkpoint;
mod incremental;
mod interrupt;
mod prune;
mod quality;
mod quantize;
mod recipes;
mod reference;
mod targets;
mod training;

use std::path::PathBuf;

/// A path in the shared material beside the checkout; where it is absent, says that the test is skipped.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(path);
    if path.exists() {
        return Some(path);
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let mut stderr = std::io::stderr().lock();
    let _ = std::io::Write::write_fmt(&mut stderr, format_args!("skipped {test}: {} is absent\n", path.display()));
    None
}
