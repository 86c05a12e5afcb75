//! Results that a lock names, found again in the caches: by the stage's key, which a released version shares with every
//! machine of its class; of other builds by what their keys would be, on this machine alone. Gates compare with
//! such artifacts by `baseline = "lock"`, or the path of another lock.

use super::key;
use super::lock::{self, Lock, Released};
use super::stage::chain as said;
use crate::compile::ARTIFACT_MAGIC;
use crate::machine::numerics_class;
use crate::progress::{Progress, Silent};
use crate::store::{Chain, Entry, Found, Outputs, StoreError, digest_of};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What stands for the lock of the recipe itself.
const OWN: &str = "lock";

/// Whether a gate's baseline is one that a lock names.
pub(super) fn is_lock(written: &str) -> bool {
    written == OWN || written.ends_with(".lock")
}

/// The artifacts of locks, put where gates can read them, for as long as this is there.
pub(super) struct Artifacts<'a> {
    recipe: &'a Path,
    chain: &'a Chain,
    directory: &'a TempDir,
}

impl<'a> Artifacts<'a> {
    /// For a recipe, from these caches, into a directory that goes away with the run.
    pub(super) fn new(recipe: &'a Path, chain: &'a Chain, directory: &'a TempDir) -> Self {
        Artifacts { recipe, chain, directory }
    }

    /// Whether what a gate names is the lock of this recipe, by the word or by its path.
    pub(super) fn is_own(&self, written: &str, base: &Path) -> bool {
        let own = lock::beside(self.recipe);
        let same = |path: &Path| {
            path == own
                || std::fs::canonicalize(path)
                    .is_ok_and(|path| std::fs::canonicalize(&own).is_ok_and(|own| own == path))
        };
        written == OWN || (is_lock(written) && same(&base.join(written)))
    }

    /// The artifact of a stage by the lock that `written` names, a path being relative to `base`. `None` where the own lock is
    /// not there yet, or has no such stage: nothing is released. The error is for a person.
    pub(super) fn find(&self, written: &str, base: &Path, stage: &str) -> Result<Option<PathBuf>, String> {
        let path = if written == OWN { lock::beside(self.recipe) } else { base.join(written) };
        let read = Lock::read(&path).map_err(|error| said(&error))?;
        let released = read.and_then(|lock| lock.released(numerics_class(), stage));
        let Some(released) = released else {
            let fault = || format!("{} does not exist, or has no result of stage `{stage}`", path.display());
            return if written == OWN { Ok(None) } else { Err(fault()) };
        };
        let Some(output) = released.output else {
            return Err(format!("{}: stage `{stage}` has no output there", path.display()));
        };
        let place = self.directory.path().join(format!("{output}.slm"));
        let fetched =
            place.is_file() || artifact(self.chain, &released, &place, &Silent).map_err(|error| said(&error))?;
        match fetched {
            true => Ok(Some(place)),
            false => Err(format!(
                "the artifact of stage `{stage}` that {} names ({output}) is in none of the caches",
                path.display()
            )),
        }
    }
}

/// The entry of a result; `None` where no cache has it.
pub(super) fn entry(chain: &Chain, released: &Released, progress: &dyn Progress) -> Option<Entry> {
    found(chain, released, progress).map(|found| found.entry)
}

/// Puts the artifact of a result at a path; `false` where no cache has it.
pub(super) fn artifact(
    chain: &Chain,
    released: &Released,
    path: &Path,
    progress: &dyn Progress,
) -> Result<bool, StoreError> {
    let Some(found) = found(chain, released, progress) else { return Ok(false) };
    let outputs =
        Outputs { output: Some(path.to_owned()), is_directory: false, magic: ARTIFACT_MAGIC, writes: Vec::new() };
    if !outputs.fits(&found.entry.files) {
        return Ok(false);
    }
    chain.restore(&found, &outputs, progress)?;
    Ok(true)
}

fn found(chain: &Chain, released: &Released, progress: &dyn Progress) -> Option<Found> {
    if let Some(found) = chain.find_any(&released.key, progress)
        && found.entry.output() == released.output
    {
        return Some(found);
    }
    // A build that is not a release has keys of its own; what they would be of a release is in the lock.
    let listed = chain.local()?.list().ok()?;
    let same = |key: &Value| digest_of(&key::released(key)) == released.key;
    let mut found = listed
        .iter()
        .filter(|listed| same(&listed.about.key))
        .filter_map(|listed| chain.find_any(&listed.key, progress));
    found.find(|found| found.entry.output() == released.output)
}
