//! The quickstart, which is part of the program: its recipe and everything that the recipe reads, written out where it
//! is to run. From a checkout, `slmc run recipes/quickstart.toml` does the same from the files.

use super::error::RecipeError;
use crate::disk::atomic;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the quickstart goes below the directory for outputs.
const DIRECTORY: &str = "quickstart/inputs";
/// Its recipe.
const RECIPE: &str = "quickstart.toml";

/// A file of `recipes/`, by its path there.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../recipes/", $path)))),*]
    };
}

/// Path below `recipes/`, and content.
const FILES: &[(&str, &[u8])] = files![
    "quickstart.toml",
    "quickstart/teacher/config.json",
    "quickstart/teacher/model.safetensors",
    "quickstart/teacher/slmc.json",
    "quickstart/teacher/tokenizer.json",
    "quickstart/teacher/tokenizer_config.json",
    "quickstart/text/animals.txt",
    "quickstart/text/home.txt",
    "quickstart/text/outside.txt",
    "quickstart/text/friends.txt",
    "quickstart/text/held-out.txt",
];

/// Writes the quickstart below `out`, and says where its recipe is. Files that are there unchanged are left alone.
pub fn unpack(out: &Path) -> Result<PathBuf, RecipeError> {
    let base = out.join(DIRECTORY);
    for (path, content) in FILES {
        let file = base.join(path);
        if std::fs::read(&file).is_ok_and(|found| found == *content) {
            continue;
        }
        let directory = file.parent().unwrap_or(&base);
        let failed = |source| RecipeError::OutDirectory { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        atomic::write_file(&file, b"", |out| out.write_all(content))?;
    }
    Ok(base.join(RECIPE))
}
