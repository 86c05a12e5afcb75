//! Looking after the store of this machine: what is in it, whether it is what its names say, and what may go.

use super::outputs::IntoHash;
use super::{About, Blob, Digest, Entry, FileStore, StoreError};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Blobs that no entry names stay so long: a run puts them there before their entry.
const GRACE: Duration = Duration::from_secs(3600);

/// An entry of the store.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub key: Digest,
    /// What it says.
    pub about: About,
    /// Bytes of its blobs.
    pub bytes: u64,
    /// Since it was used.
    pub unused: Duration,
    /// Whether it is signed.
    pub signed: bool,
}

/// What is in the store, checked.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Entries that were read.
    pub entries: usize,
    /// Blobs that were hashed.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not what their names say, and were removed.
    pub damaged: Vec<PathBuf>,
    /// Entries that name a blob which is gone; a run makes them anew.
    pub incomplete: Vec<Digest>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Entries.
    pub entries: usize,
    /// Blobs.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// How long ago a file was used or written.
fn age(metadata: &Metadata) -> Duration {
    metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default()
}

/// The digest that a file is named by.
fn named(path: &Path) -> Option<Digest> {
    path.file_name()?.to_str()?.parse().ok()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    fs::remove_file(path).map_err(StoreError::io("removed", path))
}

impl FileStore {
    fn read_entry(path: &Path) -> Option<(Digest, Entry)> {
        let key = named(path)?;
        Some((key, Entry::decode(&key, &fs::read(path).ok()?).ok()?))
    }

    /// Every entry, the one used last first.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let mut all = Vec::new();
        for (path, metadata) in self.files("ac")? {
            if let Some((key, entry)) = Self::read_entry(&path) {
                let bytes = entry.blobs().map(|blob| blob.size).sum();
                let signed = entry.signature.is_some();
                all.push(Listed { key, about: entry.about, bytes, unused: age(&metadata), signed });
            }
        }
        all.sort_by_key(|listed| (listed.unused, listed.key));
        Ok(all)
    }

    /// Reads every entry and hashes every blob; what is damaged is removed.
    ///
    /// # Errors
    /// A file that cannot be read or removed.
    pub fn verify(&self, progress: &dyn crate::progress::Progress) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        let blobs = self.files("cas")?;
        let total = blobs.iter().map(|(_, metadata)| metadata.len()).sum();
        progress.begin("hashing the cache", total, "bytes");
        let mut sound = BTreeSet::new();
        for (path, metadata) in &blobs {
            // What a run that was killed left, or one is writing, has another kind of name.
            let Some(digest) = named(path) else { continue };
            let mut hasher = Sha256::new();
            let mut file = File::open(path).map_err(StoreError::io("read", path))?;
            std::io::copy(&mut file, &mut IntoHash(&mut hasher)).map_err(StoreError::io("read", path))?;
            progress.advance(metadata.len());
            if Digest(hasher.finalize().into()) == digest {
                verified.blobs += 1;
                verified.bytes += metadata.len();
                sound.insert(Blob { digest, size: metadata.len() });
            } else {
                remove(path)?;
                verified.damaged.push(path.clone());
            }
        }
        progress.finish();
        for (path, _) in self.files("ac")? {
            if named(&path).is_none() {
                continue;
            }
            match Self::read_entry(&path) {
                // What another version of slmc left is sound to that one; `clean` takes it.
                None if fs::read(&path).is_ok_and(|bytes| Entry::is_of_another_version(&bytes)) => {}
                None => {
                    remove(&path)?;
                    verified.damaged.push(path);
                }
                Some((key, entry)) => {
                    verified.entries += 1;
                    if !entry.blobs().all(|blob| sound.contains(blob)) {
                        verified.incomplete.push(key);
                    }
                }
            }
        }
        Ok(verified)
    }

    /// Removes entries that were not used for `older`, then those used longest ago until the blobs of the others are at most
    /// `most` bytes; after the entries the blobs that none names any more.
    ///
    /// # Errors
    /// A file that cannot be listed or removed.
    pub fn clean(&self, older: Option<Duration>, most: Option<u64>) -> Result<Cleaned, StoreError> {
        let mut cleaned = Cleaned::default();
        let mut kept: Vec<(Duration, PathBuf, Entry)> = Vec::new();
        let mut released = BTreeSet::new();
        for (path, metadata) in self.files("ac")? {
            match Self::read_entry(&path) {
                Some((_, entry)) => kept.push((age(&metadata), path, entry)),
                None if age(&metadata) > GRACE => {
                    remove(&path)?;
                    cleaned.entries += 1;
                }
                None => {}
            }
        }
        kept.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        // How many of the entries kept name a blob.
        let mut uses: BTreeMap<Blob, usize> = BTreeMap::new();
        kept.iter().flat_map(|(_, _, entry)| entry.blobs()).for_each(|blob| *uses.entry(*blob).or_default() += 1);
        let mut bytes: u64 = uses.keys().map(|blob| blob.size).sum();
        while let Some((unused, path, entry)) = kept.last() {
            let old = older.is_some_and(|older| *unused >= older);
            if !old && most.is_none_or(|most| bytes <= most) {
                break;
            }
            remove(path)?;
            cleaned.entries += 1;
            for blob in entry.blobs() {
                let count = uses.entry(*blob).or_default();
                *count = count.saturating_sub(1);
                if *count == 0 && released.insert(blob.digest) {
                    bytes -= blob.size;
                }
            }
            kept.pop();
        }
        let used: BTreeSet<Digest> =
            kept.iter().flat_map(|(_, _, entry)| entry.blobs()).map(|blob| blob.digest).collect();
        for (path, metadata) in self.files("cas")? {
            let goes = match named(&path) {
                Some(digest) => !used.contains(&digest) && (released.contains(&digest) || age(&metadata) > GRACE),
                None => age(&metadata) > GRACE,
            };
            if goes {
                remove(&path)?;
                cleaned.blobs += 1;
                cleaned.bytes += metadata.len();
            }
        }
        Ok(cleaned)
    }
}
