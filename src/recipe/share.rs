//! Results of a recipe between caches, and why one of its stages runs: `slmc cache push`, `pull` and `why`.

use super::cache::{self, Made};
use super::error::RecipeError;
use super::key;
use super::plan::{self, RunOptions};
use super::stage::RecipeStage;
use crate::disk::schema::nearest;
use crate::progress::Progress;
use crate::report::{Align, Report, Table, grouped};
use crate::store::{Found, Origin, StoreError, digest_of};
use serde::Serialize;
use serde_json::Value;

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From this machine to every shared cache.
    Push,
    /// From the shared caches to this machine.
    Pull,
}

/// Result of `slmc cache push` and `pull`.
#[derive(Clone, Debug, Serialize)]
pub struct ShareReport {
    /// The recipe's name.
    pub recipe: String,
    /// In the order in which they run.
    pub stages: Vec<SharedStage>,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct SharedStage {
    /// Name, with the target where the stage has several.
    pub stage: String,
    /// Digest of everything that decides the result; absent where a stage before it has no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Bytes of its outputs; absent where there is no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether it is there now where it was to go.
    pub shared: bool,
}

impl ShareReport {
    /// Whether every stage is there now.
    pub fn complete(&self) -> bool {
        self.stages.iter().all(|stage| stage.shared)
    }
}

impl Report for ShareReport {
    const SCHEMA: &'static str = "slmc.cache.share/1";

    fn text(&self) -> String {
        let mut table = Table::new([("stage", Align::Left), ("bytes", Align::Right), ("", Align::Left)]);
        for stage in &self.stages {
            let bytes = stage.bytes.map_or_else(|| "-".to_owned(), grouped);
            table.row([stage.stage.as_str(), &bytes, if stage.shared { "shared" } else { "no result" }]);
        }
        table.to_string()
    }
}

/// Copies what the stages of a recipe gave, as far as there are results.
///
/// # Errors
/// Mistakes in the recipe, caches that cannot be used, and the first fault of one.
pub fn share(options: &RunOptions, direction: Direction, progress: &dyn Progress) -> Result<ShareReport, RecipeError> {
    let mut prepared = plan::prepare(options)?;
    if !prepared.chain.has_remote() {
        return Err(StoreError::Setting {
            place: "--cache".to_owned(),
            fault: "names no shared cache; pass https://… or s3://…, and no --cache-mode off".to_owned(),
        }
        .into());
    }
    let mut made: Vec<Option<Made>> = Vec::new();
    let mut stages = Vec::new();
    for index in 0..prepared.recipe.stages.len() {
        let stage = prepared.recipe.stages[index].clone();
        let mut shared = SharedStage { stage: stage.label(), key: None, bytes: None, shared: false };
        made.push(None);
        if stage.waits_for().all(|other| made[other].is_some()) {
            let key = prepared.key(index, &made, options.run.seed)?;
            let digest = digest_of(&key);
            shared.key = Some(digest.to_string());
            if let Some(found) = prepared.chain.find(&digest, &cache::outputs(&stage), progress) {
                shared.bytes = Some(found.entry.blobs().map(|blob| blob.size).sum());
                shared.shared = match direction {
                    Direction::Push => prepared.chain.push(&digest)?,
                    Direction::Pull => pulled(&prepared.chain, &found, progress)?,
                };
                made[index] = Some(Made { entry: found.entry, origin: Some(found.origin) });
            }
        }
        stages.push(shared);
    }
    prepared.hashes.save();
    Ok(ShareReport { recipe: prepared.recipe.name.clone(), stages })
}

fn pulled(chain: &crate::store::Chain, found: &Found, progress: &dyn Progress) -> Result<bool, StoreError> {
    match found.origin {
        Origin::Local => Ok(true),
        Origin::Remote(_) => chain.pull(found, progress).map(|()| true),
    }
}

/// Result of `slmc cache why`.
#[derive(Clone, Debug, Serialize)]
pub struct WhyReport {
    /// Name, with the target where the stage has several.
    pub stage: String,
    /// Whether its result is known.
    pub cached: bool,
    /// In words.
    pub why: String,
    /// Digest of the key; absent while it waits for another stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Everything that decides the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// What it was when the stage had a result last on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Value>,
}

impl Report for WhyReport {
    const SCHEMA: &'static str = "slmc.cache.why/1";

    fn text(&self) -> String {
        let state = if self.cached { "cached" } else { "to do" };
        let mut text = format!("{}: {state}: {}", self.stage, self.why);
        if let (Some(key), Some(digest)) = (&self.key, &self.digest) {
            let mut table = Table::pairs();
            table.row(["key", digest]);
            for (part, value) in key.as_object().into_iter().flatten() {
                table.row([part.as_str(), &value.to_string()]);
            }
            text = format!("{text}\n\n{table}");
        }
        text
    }
}

/// Says whether a stage would run, and why: the first part of its key that is another than last time.
///
/// # Errors
/// Mistakes in the recipe, and a stage that it does not have.
pub fn why(options: &RunOptions, stage: &str, progress: &dyn Progress) -> Result<WhyReport, RecipeError> {
    let mut prepared = plan::prepare(options)?;
    let labels: Vec<String> = prepared.recipe.stages.iter().map(RecipeStage::label).collect();
    let Some(wanted) = labels.iter().position(|label| label == stage) else {
        let hint = match nearest(stage, labels.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("stages: {}", labels.join(", ")),
        };
        return Err(RecipeError::UnknownStage { name: stage.to_owned(), hint });
    };
    let mut made: Vec<Option<Made>> = Vec::new();
    for index in 0..=wanted {
        let stage = prepared.recipe.stages[index].clone();
        made.push(None);
        let waits = stage.waits_for().find(|&other| made[other].is_none());
        if let (Some(other), true) = (waits, index == wanted) {
            let why = format!("it reads what stage `{}` gives, which is to run first", labels[other]);
            let stage = labels[wanted].clone();
            return Ok(WhyReport { stage, cached: false, why, digest: None, key: None, last: None });
        }
        if waits.is_some() {
            continue;
        }
        let key = prepared.key(index, &made, options.run.seed)?;
        let found = prepared.chain.find(&digest_of(&key), &cache::outputs(&stage), progress);
        if index == wanted {
            let last = cache::last_key(&prepared.chain, &options.recipe, &labels[wanted]);
            let why = match &found {
                None => cache::why(&prepared.chain, &options.recipe, &labels[wanted], &key),
                Some(Found { origin: Origin::Remote(name), .. }) => format!("its result is in {name}"),
                Some(Found { origin: Origin::Local, .. }) => {
                    match last.as_ref().and_then(|last| key::difference(last, &key)) {
                        Some(difference) => format!(
                            "its result is on this machine, from an earlier run; since the last one, {difference}"
                        ),
                        None => "its result is on this machine".to_owned(),
                    }
                }
            };
            let digest = Some(digest_of(&key).to_string());
            prepared.hashes.save();
            return Ok(WhyReport {
                stage: labels[wanted].clone(),
                cached: found.is_some(),
                why,
                digest,
                key: Some(key),
                last,
            });
        }
        made[index] = found.map(|found| Made { entry: found.entry, origin: Some(found.origin) });
    }
    // The loop ends at the stage that is asked for.
    Err(RecipeError::UnknownStage { name: stage.to_owned(), hint: String::new() })
}
