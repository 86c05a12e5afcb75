//! What `slmc --version` says: which artifacts this program reads, what is built in, and whose bits its f32 results have.

use crate::machine::{PORTABLE, RELEASED, numerics_class};
use slm_runtime::format::header::{MAJOR, MINOR, MINOR_ENCODERS};
use slm_runtime::layout::STORAGES;

/// Cargo features of the package that are built in.
const FEATURES: [(&str, bool); 3] = [
    ("cuda", cfg!(feature = "cuda")),
    ("remote-cache", cfg!(feature = "remote-cache")),
    ("wgpu", cfg!(feature = "wgpu")),
];

/// Without the name, which clap puts before it.
pub(super) fn long() -> String {
    let newest = STORAGES.iter().map(|def| def.minor).fold(MINOR_ENCODERS, u16::max);
    let features: Vec<&str> = FEATURES.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    let build = match RELEASED {
        true => "released: results are shared by version",
        false => "of a working copy: results are shared by its bytes",
    };
    let (version, class) = (env!("CARGO_PKG_VERSION"), numerics_class());
    [
        version.to_owned(),
        format!("format    {MAJOR}.{MINOR} to {MAJOR}.{newest}"),
        format!("features  {features}"),
        format!("numerics  {PORTABLE}; {class} where operations are not slmc's own"),
        format!("build     {build}"),
    ]
    .join("\n")
}
