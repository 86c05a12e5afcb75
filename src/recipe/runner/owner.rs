//! Whose outputs a directory holds, noted beside the cache. Outputs go to OUT/NAME, where NAME is the recipe's file without its
//! ending: two recipes of one name in different folders take each other's place, which is said before it happens.

use crate::disk::hash::{hex, sha256};
use crate::shell::Shell;
use crate::store::FileStore;
use std::path::{Path, PathBuf};

/// Folder of the notes, one for each directory of outputs.
const OWNERS: &str = "owners";

/// Warns where the directory holds the outputs of another recipe that is still there, and notes this one. A note that cannot
/// be written costs nothing but the warning.
pub(super) fn note(out: &Path, recipe: &Path, store: Option<&FileStore>, shell: &Shell) {
    let (Some(store), Ok(place), Ok(own)) = (store, out.canonicalize(), recipe.canonicalize()) else { return };
    let name = hex(&sha256(place.as_os_str().as_encoded_bytes()));
    let before = store.read_note(OWNERS, &name).and_then(|path| String::from_utf8(path).ok()).map(PathBuf::from);
    if before.as_ref() == Some(&own) {
        return;
    }
    if let Some(other) = before.filter(|other| other.is_file()) {
        shell.warn(format_args!(
            "{} holds the outputs of {}, a recipe of the same name; they are replaced, and a run of that recipe brings them \
             back. Pass another --out to have both",
            out.display(),
            other.display()
        ));
    }
    drop(store.write_note(OWNERS, &name, own.to_string_lossy().as_bytes()));
}
