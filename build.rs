//! Puts the sources of the runtime into the program, for the folders of `slmc compile --firmware`: a table of paths and bytes in
//! `OUT_DIR/runtime_sources.rs`, in the order of the paths, without tests.
#![expect(clippy::disallowed_methods, reason = "OUT_DIR is cargo's own, and nobody reads it before this ends")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The runtime's crate, below the root of this package.
const RUNTIME: &str = "src/runtime";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={RUNTIME}/src");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join(RUNTIME);
    let mut sources = Vec::new();
    collect(&root.join("src"), &mut sources);
    sources.sort();
    let mut table = String::from("&[\n");
    for path in &sources {
        let name = path.strip_prefix(&root).expect("a file below the root").to_str().expect("UTF-8");
        let name = name.replace('\\', "/");
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", path.display().to_string()).expect("a string grows");
    }
    table.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("runtime_sources.rs"), table).expect("OUT_DIR can be written");
}

/// The sources below a folder, but for tests.
fn collect(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the runtime's sources are beside the program's") {
        let path = entry.expect("an entry").path();
        match (path.is_dir(), path.file_stem().and_then(|stem| stem.to_str())) {
            (_, Some("tests")) => {}
            (true, _) => collect(&path, sources),
            (false, _) if path.extension().is_some_and(|extension| extension == "rs") => sources.push(path),
            (false, _) => {}
        }
    }
}
