//! Where sentence-transformers puts the parts of a model: modules.json in one directory, the network beside it or, by old
//! versions, in a folder `0_Transformer`, and the configuration of every further module in a folder of its own. Passed is
//! either directory.

use super::{CONFIG_FILE, is_there};
use crate::disk::config::{json as parsed, read_bounded};
use crate::model::companions::{Companions, MODULES_FILE, POOLING_FILE, PROMPTS_FILE, SENTENCE_FILES};
use crate::model::sentence::{Module, configuration_name, modules};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The modules that a directory lists; `None` where it has no list, or one that is refused when the model is read.
fn listed(directory: &Path) -> Option<Vec<Module>> {
    let file = directory.join(MODULES_FILE);
    if !is_there(&file) {
        return None;
    }
    modules(&file, &read_bounded(&file).ok()?).ok()
}

/// The folder of the network.
fn network(modules: &[Module]) -> Option<&str> {
    let first = modules.first().filter(|module| module.class == "Transformer")?;
    (!first.folder.is_empty()).then_some(first.folder.as_str())
}

/// The directory with the network of a model: the path itself, or the folder that its modules.json names for it.
pub(super) fn model_directory(path: &Path) -> PathBuf {
    if path.is_dir() && !is_there(&path.join(CONFIG_FILE)) {
        let folder = listed(path).and_then(|modules| Some(path.join(network(&modules)?)));
        if let Some(folder) = folder.filter(|folder| folder.join(CONFIG_FILE).is_file()) {
            return folder;
        }
    }
    path.to_owned()
}

/// The directory of the modules of the network in `directory`: itself, or the one above that names it as its network.
fn root_of(directory: &Path) -> PathBuf {
    if !is_there(&directory.join(MODULES_FILE))
        && let Ok(full) = std::fs::canonicalize(directory)
        && let Some((above, name)) = full.parent().zip(full.file_name())
        && listed(above).is_some_and(|modules| network(&modules).is_some_and(|folder| name == folder))
    {
        return match directory.parent().filter(|parent| parent.is_dir()) {
            Some(parent) => parent.to_owned(),
            None => above.to_owned(),
        };
    }
    directory.to_owned()
}

/// Adds modules.json, the configurations of its modules and the files beside it to the companions of a network. What is
/// written has the network beside modules.json, so that is what the list says then.
pub(super) fn add(companions: &mut Companions, directory: &Path) {
    let root = root_of(directory);
    if root != directory {
        for name in [PROMPTS_FILE].into_iter().chain(SENTENCE_FILES) {
            let file = root.join(name);
            if companions.find(name).is_none() && is_there(&file) {
                companions.add_file(name, file);
            }
        }
    }
    let file = root.join(MODULES_FILE);
    if !is_there(&file) {
        // It is not followed without the list, and that is said.
        let pooling = root.join(POOLING_FILE);
        if is_there(&pooling) {
            companions.add_file(POOLING_FILE, pooling);
        }
        return;
    }
    let Some(modules) = listed(&root) else { return companions.add_file(MODULES_FILE, file) };
    for module in modules.iter().skip(1).filter(|module| !module.folder.is_empty() && module.folder != "..") {
        let configuration = root.join(&module.folder).join(CONFIG_FILE);
        if is_there(&configuration) {
            companions.add_file(&configuration_name(module), configuration);
        }
    }
    let beside = network(&modules).and_then(|_| {
        let mut list: Value = parsed(&file, &read_bounded(&file).ok()?).ok()?;
        *list.get_mut(0)?.get_mut("path")? = json!("");
        Some(format!("{list:#}\n").into_bytes())
    });
    match beside {
        Some(bytes) => companions.add_bytes_of(MODULES_FILE, file, bytes),
        None => companions.add_file(MODULES_FILE, file),
    }
}
