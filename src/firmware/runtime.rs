//! The runtime's crate as a folder carries it: the sources that are in this program, a manifest that stands alone, and the features
//! that an artifact needs. Features that bring other crates are left out, so that cargo builds it without a network.

use super::FirmwareError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::{Block, ExitHead};
use std::collections::BTreeMap;
use std::fmt::Write;
use toml::{Table, Value};

/// Paths below the crate and contents, in order.
static SOURCES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/runtime_sources.rs"));
/// The crate's manifest, from which the folder's is made.
const MANIFEST: &str = include_str!("../runtime/Cargo.toml");
/// The header of its functions.
pub(super) const HEADER: &str = include_str!("../runtime/include/slm.h");
/// Its name.
const PACKAGE: &str = "slm-runtime";

/// Whether an artifact needs a feature that is in by default; features that are not here are always kept.
fn needs(feature: &str, view: &ArtifactView<'_>) -> bool {
    match feature {
        // Drafts change no token, and the folder's main makes none.
        "speculation" => false,
        "grammar" => view.section(SectionKind::Grammar).is_some(),
        "snapshots" => view.section(SectionKind::Prefix).is_some(),
        "nibble-values" => has_nibble_values(view),
        "exits" => view.section(SectionKind::Exits).is_some() || view.spec().exit_head != ExitHead::LastLayer as u8,
        "mixtures" => (0..view.spec().layers as usize).any(|index| view.layer(index).is_mixture()),
        _ => true,
    }
}

fn has_nibble_values(view: &ArtifactView<'_>) -> bool {
    use slm_runtime::format::spec::LayerCacheFormat;
    let layers = (0..view.spec().layers as usize).map(|index| view.layer(index));
    layers
        .filter(|layer| layer.block == Block::Attention as u8)
        .filter_map(|layer| LayerCacheFormat::from_number(layer.cache_format))
        .any(LayerCacheFormat::has_nibble_values)
}

/// The features of the crate, by name, with those each asks for.
fn features() -> Result<BTreeMap<String, Vec<String>>, FirmwareError> {
    let manifest: Table = MANIFEST.parse().map_err(FirmwareError::Manifest)?;
    let list = |value: &Value| {
        value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let table = manifest.get("features").and_then(Value::as_table);
    Ok(table.into_iter().flatten().map(|(name, asked)| (name.clone(), list(asked))).collect())
}

/// Whether a feature brings another crate, by itself or by one that it asks for.
fn brings_crates(name: &str, features: &BTreeMap<String, Vec<String>>) -> bool {
    let asked = features.get(name).into_iter().flatten();
    asked.into_iter().any(|other| other.starts_with("dep:") || (other != name && brings_crates(other, features)))
}

/// Features that an artifact needs, in the order of their names.
///
/// # Errors
/// A manifest that is none: a defect of slmc.
pub(super) fn needed(view: &ArtifactView<'_>) -> Result<Vec<String>, FirmwareError> {
    let mut all = features()?;
    let mut needed: Vec<String> = all.remove("default").unwrap_or_default();
    needed.retain(|feature| needs(feature, view));
    needed.sort();
    Ok(needed)
}

/// Features that a folder's library can have beside those.
///
/// # Errors
/// As for [`needed`].
pub(super) fn further(needed: &[String]) -> Result<Vec<String>, FirmwareError> {
    let all = features()?;
    let of_builds = ["default", "std", "dsp", "helium", "c-api", "panic-handler"];
    let there =
        |name: &&String| !of_builds.contains(&name.as_str()) && !needed.contains(name) && !brings_crates(name, &all);
    Ok(all.keys().filter(there).cloned().collect())
}

/// Files of the crate, by their paths in it.
///
/// # Errors
/// As for [`needed`].
pub(super) fn files(needed: &[String]) -> Result<Vec<(String, Vec<u8>)>, FirmwareError> {
    let mut files = vec![
        ("Cargo.toml".to_owned(), manifest(needed)?.into_bytes()),
        ("Cargo.lock".to_owned(), lock().into_bytes()),
        ("include/slm.h".to_owned(), HEADER.as_bytes().to_vec()),
    ];
    files.extend(SOURCES.iter().map(|(path, content)| ((*path).to_owned(), content.to_vec())));
    Ok(files)
}

/// A manifest of a crate that is in no workspace and needs no other crate.
fn manifest(needed: &[String]) -> Result<String, FirmwareError> {
    let all = features()?;
    let quoted = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        format!("[{}]", names.join(", "))
    };
    let default: Vec<String> = std::iter::once("c-api".to_owned()).chain(needed.iter().cloned()).collect();
    let mut text = format!(
        "# The runtime of slmc {version}, with what this folder's artifact needs. Features that bring other crates are left out.\n\
         [package]\nname = {PACKAGE:?}\nversion = {version:?}\nedition = \"2024\"\nlicense = \"MIT OR Apache-2.0\"\n\
         publish = false\n\n[lib]\ncrate-type = [\"staticlib\"]\n\n[features]\ndefault = {}\n",
        quoted(&default),
        version = env!("CARGO_PKG_VERSION"),
    );
    for (name, asked) in all.iter().filter(|(name, _)| *name != "default" && !brings_crates(name, &all)) {
        // A string grows.
        let _ = writeln!(text, "{name} = {}", quoted(asked));
    }
    text.push_str(
        "\n[lints.rust]\nunexpected_cfgs = \"allow\"\n\n# As what is handed out is built.\n[profile.release]\nlto = \"fat\"\n\
         codegen-units = 1\n\n[workspace]\n",
    );
    Ok(text)
}

/// The lock of a crate alone.
fn lock() -> String {
    format!(
        "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\nversion = 4\n\n\
         [[package]]\nname = {PACKAGE:?}\nversion = {:?}\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_has_no_dependencies_and_the_sources_no_tests() {
        let manifest: Table = manifest(&["grammar".to_owned()]).unwrap().parse().unwrap();
        assert!(!manifest.contains_key("dependencies"));
        let features = manifest["features"].as_table().unwrap();
        assert_eq!(features["default"].as_array().unwrap().len(), 2);
        for absent in ["ed25519", "p256", "chacha", "aes"] {
            assert!(!features.contains_key(absent), "{absent} needs another crate");
        }
        assert!(features.contains_key("signed") && features.contains_key("update"));
        assert!(SOURCES.iter().any(|(path, _)| *path == "src/lib.rs"));
        assert!(SOURCES.iter().all(|(path, content)| !path.contains("tests") && !content.is_empty()));
        let further = further(&["grammar".to_owned()]).unwrap();
        assert!(further.contains(&"snapshots".to_owned()) && !further.contains(&"grammar".to_owned()));
    }
}
