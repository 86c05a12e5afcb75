//! What `slmc --version` says: which artifacts this program reads, what is built in, and whose bits its f32 results have.

use crate::machine::{PORTABLE, RELEASED, numerics_class};
use slm_runtime::format::header::{MAJOR, MINOR, MINOR_MIXTURES};
use slm_runtime::layout::STORAGES;

/// Cargo features of the package that are built in.
const FEATURES: [(&str, bool); 5] = [
    ("cuda", cfg!(feature = "cuda")),
    ("pkcs11", cfg!(feature = "pkcs11")),
    ("remote-cache", cfg!(feature = "remote-cache")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("workers", cfg!(feature = "workers")),
];

/// The newest minor version of the format.
fn newest_minor() -> u16 {
    STORAGES.iter().map(|def| def.minor).fold(MINOR_MIXTURES, u16::max)
}

/// Without the name, which clap puts before it.
pub(super) fn long() -> String {
    let newest = newest_minor();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_documented() {
        let documented = format!("This is version {MAJOR}.{};", newest_minor());
        assert!(
            include_str!("../../docs/format.md").contains(&documented),
            "docs/format.md does not say: {documented}"
        );
    }

    #[test]
    fn every_feature_of_the_package_is_named() {
        let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
        let features = manifest["features"].as_table().expect("a table").keys().filter(|name| *name != "default");
        let mut named: Vec<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        assert_eq!(features.map(String::as_str).collect::<Vec<_>>(), named);
    }
}
