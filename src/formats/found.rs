//! What is at a path where a model was expected. Users pass a file of the model, the directory above or below it, a
//! checkpoint of another kind, an adapter: the error names it, and where the model is if it is near.

use super::hugging_face::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
use crate::disk::Found;
use crate::disk::found::SNIFFED_BYTES;
use crate::disk::{Config, ConfigError};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How many directories below a path are looked into: a cache of downloads has its models two below.
const DEPTH: usize = 3;
/// Names that a message lists.
const SHOWN: usize = 3;
/// Most entries of one directory that are looked at.
const MOST_ENTRIES: usize = 1000;

/// Why a path is not a model that slmc reads.
#[derive(Debug, thiserror::Error)]
pub enum NotAModel {
    /// Nothing is there.
    #[error("does not exist; pass a directory with {CONFIG_FILE} and {WEIGHTS_FILE}, or a GGUF file{}", download(*hub))]
    Absent {
        /// Whether it looks like the name of a repository.
        hub: bool,
    },
    /// A file that the first bytes or the name tell.
    #[error("{0}")]
    File(Found),
    /// A graph by its name.
    #[error("{GRAPH}")]
    Graph,
    /// A file of a model's directory.
    #[error("not a directory; pass the directory with {CONFIG_FILE} and {WEIGHTS_FILE}{}", near(directory.as_ref()))]
    PartOfModel {
        /// The directory of the model that it belongs to.
        directory: Option<PathBuf>,
    },
    /// The model is in a directory below, or above.
    #[error("{CONFIG_FILE} is not there, but in {}; pass that directory", list(found))]
    Elsewhere {
        /// Where.
        found: Vec<PathBuf>,
    },
    /// A configuration without weights in a format that is read, and other files with weights.
    #[error("neither {WEIGHTS_FILE} nor {INDEX_FILE} is there, but {}; {remedy}", names(found))]
    OtherWeights {
        /// Their names.
        found: Vec<String>,
        /// What to do.
        remedy: &'static str,
    },
    /// A directory without any file of a model.
    #[error(
        "holds no file of a model{}; pass a directory with {CONFIG_FILE} and {WEIGHTS_FILE}, or a GGUF file",
        instead(found)
    )]
    Nothing {
        /// Names of files that are.
        found: Vec<String>,
    },
    /// Weights without a configuration.
    #[error("{CONFIG_FILE} is not there, but {}; {remedy}", names(found))]
    NoConfiguration {
        /// Names of files that are.
        found: Vec<String>,
        /// What to do.
        remedy: &'static str,
    },
    /// The configuration of a part.
    #[error("holds the configuration of a part of a model, which is in {}; pass that directory", found.display())]
    Part {
        /// The directory of the whole.
        found: PathBuf,
    },
}

fn download(hub: bool) -> &'static str {
    if hub { "; slmc downloads nothing: fetch a model with `hf download NAME --local-dir DIR`" } else { "" }
}

fn near(directory: Option<&PathBuf>) -> String {
    directory.map_or_else(String::new, |directory| format!(", here {}", directory.display()))
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    match paths.len() - shown.len() {
        0 => shown.join(" and "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn instead(found: &[String]) -> String {
    let shown: Vec<String> = found.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match found.len() - shown.len() {
        0 if shown.is_empty() => String::new(),
        0 => format!(", only {}", shown.join(" and ")),
        more => format!(", only {} and {more} more", shown.join(", ")),
    }
}

fn names(found: &[String]) -> String {
    let shown: Vec<String> = found.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let verb = if found.len() == 1 { "is" } else { "are" };
    match found.len() - shown.len() {
        0 => format!("{} {verb}", shown.join(" and ")),
        more => format!("{} and {more} more are", shown.join(", ")),
    }
}

/// What to do with a pickled checkpoint; as [`crate::disk::found::PICKLE_CONVERSION`].
const PICKLE: &str = "pickled checkpoints can run code when they are read: save the model as safetensors with \
                      `python -c \"from transformers import AutoModelForCausalLM as M; \
                      M.from_pretrained('DIR').save_pretrained('OUT')\"` (AutoModel for an encoder)";

/// Why a graph is not read.
const GRAPH: &str = "an exported graph cannot be read back: its matrices have lost their names and stand transposed, biases \
                     are merged, sizes and rotary tables are constants of its nodes; pass the directory with safetensors that \
                     it was exported from";

/// Kinds of weights that slmc does not read: how names end, and what to do.
const OTHER_WEIGHTS: [(&[&str], &str); 7] = [
    (
        &["adapter_model.safetensors", "adapter_model.bin"],
        "an adapter needs its adapter_config.json too: fetch that, and pass the model it changes with --base DIR",
    ),
    (&[".bin", ".pt", ".pth", ".ckpt", ".bin.index.json"], PICKLE),
    (&[".gguf"], "pass the GGUF file itself, of a model in several the first"),
    (&[".h5", ".msgpack"], "load it with transformers (`from_tf`, `from_flax`) and save it with `save_pretrained`"),
    (&[".onnx", ".tflite", ".mlmodelc", ".mlpackage"], GRAPH),
    (
        &[".safetensors"],
        "if that is the whole model, call it model.safetensors; shards need the model.safetensors.index.json that lists them",
    ),
    (&[".npz", ".pkl"], "save the model with transformers as safetensors"),
];

/// The files of a directory, by name; links that lead nowhere are among them.
fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().take(MOST_ENTRIES).flatten();
    let names = entries.filter(|entry| !entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Weights that are not read, of the first kind there are any of, and what to do.
fn other_weights(directory: &Path) -> Option<(Vec<String>, &'static str)> {
    let files = files(directory);
    OTHER_WEIGHTS.iter().find_map(|(ends, remedy)| {
        // Training leaves such files beside a model: its arguments, the optimizer.
        let left = |name: &str| ["training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"].contains(&name);
        let found: Vec<String> = files
            .iter()
            .filter(|name| ends.iter().any(|end| name.ends_with(end)) && !left(name) && !name.starts_with("rng_state"))
            .cloned()
            .collect();
        (!found.is_empty()).then_some((found, *remedy))
    })
}

/// What the first bytes of a file say.
fn first_bytes(file: &Path) -> Option<Found> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(SNIFFED_BYTES as u64).read_to_end(&mut bytes).ok()?;
    Found::by_bytes(&bytes)
}

/// Whether a configuration is one of a model, and not of a tokenizer or of a pooling layer.
fn has_configuration(directory: &Path) -> bool {
    directory.join(CONFIG_FILE).is_file()
}

/// The nearest directories below with a configuration, sorted.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut level = vec![directory.to_owned()];
    for _ in 0..DEPTH {
        let mut next: Vec<PathBuf> = Vec::new();
        for parent in &level {
            let entries = fs::read_dir(parent).into_iter().flatten().take(MOST_ENTRIES).flatten();
            next.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        next.sort();
        next.truncate(MOST_ENTRIES);
        let found: Vec<PathBuf> = next.iter().filter(|path| has_configuration(path)).cloned().collect();
        if !found.is_empty() {
            return found;
        }
        level = next;
    }
    Vec::new()
}

/// Why a path that is not a directory is not a model.
pub(super) fn not_a_directory(path: &Path) -> NotAModel {
    if let Some(found) = Found::dangling_link(path) {
        return NotAModel::File(found);
    }
    if !path.exists() {
        let text = path.to_str().unwrap_or_default();
        let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        let hub = text.split_once('/').is_some_and(|(owner, name)| {
            plain(owner) && plain(name) && !owner.starts_with('.') && !Path::new(owner).exists()
        });
        return NotAModel::Absent { hub };
    }
    let graph = |ends: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ends));
    match first_bytes(path) {
        Some(found) => NotAModel::File(found),
        None if ["onnx", "tflite", "pb"].into_iter().any(graph) => NotAModel::Graph,
        None => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty() && has_configuration(parent));
            NotAModel::PartOfModel { directory: parent.map(Path::to_owned) }
        }
    }
}

/// Why a directory without config.json is not a model; `None` where that is there, if only as a link.
pub(super) fn no_configuration(directory: &Path) -> Option<NotAModel> {
    let config = directory.join(CONFIG_FILE);
    if fs::symlink_metadata(&config).is_ok() {
        return None;
    }
    let found = below(directory);
    if !found.is_empty() {
        return Some(NotAModel::Elsewhere { found });
    }
    let above = fs::canonicalize(directory).ok().and_then(|full| Some(full.parent()?.to_owned()));
    if let Some(above) = above.filter(|above| has_configuration(above)) {
        let found = vec![directory.parent().filter(|parent| same(parent, &above)).map_or(above, Path::to_owned)];
        return Some(NotAModel::Elsewhere { found });
    }
    let safe = [WEIGHTS_FILE, INDEX_FILE].into_iter().find(|name| directory.join(name).exists());
    if let Some(name) = safe {
        let remedy = "fetch the config.json of the same model too";
        return Some(NotAModel::NoConfiguration { found: vec![name.to_owned()], remedy });
    }
    Some(match other_weights(directory) {
        Some((found, remedy)) => NotAModel::NoConfiguration { found, remedy },
        None => NotAModel::Nothing { found: files(directory) },
    })
}

fn same(a: &Path, b: &Path) -> bool {
    !a.as_os_str().is_empty() && fs::canonicalize(a).is_ok_and(|a| a == *b)
}

/// Why a directory with config.json and without weights that are read is not a model; `None` where nothing is there.
pub(super) fn no_weights(directory: &Path) -> Option<NotAModel> {
    // The folder of a pooling layer, or of an exported graph, inside a model's directory.
    let modules = |above: &Path| above.join("modules.json").is_file() || above.join(WEIGHTS_FILE).is_file();
    let part = Config::read(&directory.join(CONFIG_FILE)).is_ok_and(|config| config.value("model_type").is_none());
    if let Some(above) = directory.parent().filter(|above| part && modules(above) && has_configuration(above)) {
        return Some(NotAModel::Part { found: above.to_owned() });
    }
    other_weights(directory).map(|(found, remedy)| NotAModel::OtherWeights { found, remedy })
}

/// A link that leads nowhere, as the error that names it.
pub(super) fn check_link(file: &Path) -> Result<(), ConfigError> {
    match Found::dangling_link(file) {
        Some(found) => Err(ConfigError::Found { file: file.to_owned(), found }),
        None => Ok(()),
    }
}
