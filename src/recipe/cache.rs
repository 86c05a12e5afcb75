//! Results of stages: found by their keys in the stores of a run, and kept there with their outputs. What key a stage had
//! last is noted beside the store of this machine, so that a plan can say why it is to run again.

use super::hashes::{Content, Hashes};
use super::key;
use super::stage::{Chosen, RecipeStage};
use crate::machine::tool;
use crate::progress::Progress;
use crate::stages::{Cost, Outcome};
use crate::store::{About, Chain, Digest, Entry, Origin, Outputs, SCHEMA, StoreError, canonical, digest_of};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Why a stage that is not known is to run.
pub(super) const NEVER_RUN: &str = "not run before on this machine";
/// Folder of the notes about stages.
const UNITS: &str = "units";

/// The result of a stage.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// With its files by their digests, whether it is kept anywhere or not.
    pub(super) entry: Entry,
    /// Where it came from; `None` where it was made by this run.
    pub(super) origin: Option<Origin>,
}

impl Made {
    /// The output as an input of other stages.
    pub(super) fn content(&self) -> Content {
        let rest = self.entry.rest();
        self.entry.output().map_or_else(Content::none, |sha256| Content { sha256, rest })
    }
}

/// What a result took when it was made.
pub(super) fn cost(entry: &Entry) -> Cost {
    let About { seconds, peak_memory_bytes, .. } = entry.about;
    Cost { seconds, peak_memory_bytes }
}

/// The places of the outputs of a stage.
pub(super) fn outputs(stage: &RecipeStage) -> Outputs {
    let writes = stage.choices.iter().filter_map(|choice| match &choice.value {
        Chosen::Writes(path) => Some((choice.flag.clone(), path.clone())),
        _ => None,
    });
    Outputs {
        output: stage.output.clone(),
        is_directory: stage.is_directory,
        magic: stage.kind.magic(),
        writes: writes.collect(),
    }
}

/// Whether the files of an entry are in place as they are in it.
pub(super) fn in_place(entry: &Entry, outputs: &Outputs, hashes: &mut Hashes) -> bool {
    let Ok(places) = outputs.places() else { return false };
    places.len() == entry.files.len()
        && entry.files.iter().zip(&places).all(|(file, (path, place))| {
            file.path == *path && hashes.file(place).is_ok_and(|digest| digest == file.digest)
        })
}

/// The entry of what a stage made.
pub(super) fn entry(key: &Value, outcome: &Outcome, report: &Value, outputs: &Outputs) -> Result<Entry, StoreError> {
    let about = About {
        schema: SCHEMA.to_owned(),
        key: key.clone(),
        kind: key["kind"].as_str().unwrap_or_default().to_owned(),
        report: report.clone(),
        seconds: outcome.cost.seconds,
        peak_memory_bytes: outcome.cost.peak_memory_bytes,
        made_by: tool(),
        numerics: key["numerics"].as_str().map(str::to_owned),
        whole: BTreeMap::new(),
    };
    Ok(Entry::new(Chain::describe(outputs)?, about))
}

/// Says that one key has two results: slmc repeats itself to the bit, so something is wrong with the machine, the memory or
/// the key.
pub(super) fn shout(label: &str, other: &Entry, own: &Entry, progress: &dyn Progress) {
    let shown = |entry: &Entry| entry.output().map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    progress.warn(&format_args!(
        "stage `{label}` gave another output than before with the same key: {} now, {} by {} in the cache. The same inputs, \
         options and class of CPU should give the same bytes: look for damaged memory or files, run it once more with --force, \
         and report it with the key {}",
        shown(own),
        shown(other),
        other.about.made_by,
        canonical(&own.about.key)
    ));
}

/// The name of the note about a stage of a recipe.
fn note(recipe: &Path, label: &str) -> String {
    let place = recipe.canonicalize().unwrap_or_else(|_| recipe.to_owned());
    Digest::of(&[place.as_os_str().as_encoded_bytes(), b"\0", label.as_bytes()].concat()).to_string()
}

/// Notes the key that a stage has now.
pub(super) fn note_key(chain: &Chain, recipe: &Path, label: &str, key: &Value) {
    if let Some(local) = chain.local() {
        // Without it a plan says less.
        drop(local.write_note(UNITS, &note(recipe, label), canonical(key).as_bytes()));
    }
}

/// The key that a stage had last.
pub(super) fn last_key(chain: &Chain, recipe: &Path, label: &str) -> Option<Value> {
    serde_json::from_slice(&chain.local()?.read_note(UNITS, &note(recipe, label))?).ok()
}

/// Why a stage is to run: the first part of its key that is another than last time.
pub(super) fn why(chain: &Chain, recipe: &Path, label: &str, key: &Value) -> String {
    match last_key(chain, recipe, label) {
        None => NEVER_RUN.to_owned(),
        Some(last) => match key::difference(&last, key) {
            Some(difference) => difference,
            None => format!("its result is in none of the caches any more (key {})", digest_of(key)),
        },
    }
}
