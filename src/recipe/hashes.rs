//! Hashes of what a recipe reads, each computed once. Hashes of files are remembered over runs by place, size, times and
//! inode, beside the cache: times never decide what a file is, they only save reading it again. A file whose time is so near
//! to now that it could change without another time is not remembered.

use crate::disk::PROVENANCE_FILE;
use crate::disk::hash::{HashError, counted_files, file_sha256_with, names_sha256, sha256};
use crate::formats;
use crate::progress::Progress;
use crate::store::{Digest, FileStore, rest_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file beside the cache, and its schema.
const FILE: &str = "hashes.json";
const SCHEMA: &str = "slmc.hashes/1";
/// Most files that are remembered; beyond it those that are gone are forgotten, and then all.
const MOST: usize = 20_000;
/// Together files of fewer bytes are hashed without a word.
const LONG_BYTES: u64 = 256 << 20;

/// The content of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Hash of a file's content, or of a directory's names and contents.
    pub(super) sha256: Digest,
    /// Hash of what the other one leaves out and stages read all the same: slmc.json, files of the model in
    /// subdirectories; of a model in several files, those that are not named.
    pub(super) rest: Option<Digest>,
}

impl Content {
    /// Nothing: the content of a stage without an output, which nobody reads.
    pub(super) fn none() -> Self {
        Content { sha256: Digest([0; 32]), rest: None }
    }

    /// A file of a directory, known by the content of all of it.
    pub(super) fn part(self, file: &str) -> Self {
        let Digest(directory) = self.sha256;
        Content { sha256: Digest(sha256(&[&directory[..], file.as_bytes()].concat())), rest: None }
    }
}

/// What is remembered of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    size: u64,
    /// Modification and change of its state, in nanoseconds since 1970.
    times: [u64; 2],
    /// Device and inode.
    place: [u64; 2],
    sha256: Digest,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    schema: String,
    files: BTreeMap<PathBuf, Remembered>,
}

/// Hashes of paths.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: BTreeMap<PathBuf, Content>,
    memory: Memory,
    store: Option<FileStore>,
    changed: bool,
}

impl Hashes {
    /// With what is remembered beside a store.
    pub(super) fn remembered(store: Option<&FileStore>) -> Self {
        let read = store.and_then(|store| store.read_note("", FILE));
        let memory: Option<Memory> = read.and_then(|text| serde_json::from_slice(&text).ok());
        let memory = memory.filter(|memory| memory.schema == SCHEMA).unwrap_or_default();
        Hashes { memory, store: store.cloned(), ..Hashes::default() }
    }

    /// The content of a file or directory.
    pub(super) fn of(&mut self, path: &Path) -> Result<Content, HashError> {
        if let Some(content) = self.known.get(path) {
            return Ok(*content);
        }
        let content = self.read(path)?;
        self.known.insert(path.to_owned(), content);
        Ok(content)
    }

    /// As it is now, whatever it was.
    pub(super) fn again(&mut self, path: &Path) -> Result<Content, HashError> {
        self.known.remove(path);
        self.of(path)
    }

    fn read(&mut self, path: &Path) -> Result<Content, HashError> {
        if !path.is_dir() {
            // A model may be in several files, of which one is named.
            let mut others = Vec::new();
            for file in formats::gguf::files(path).iter().skip(1) {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                others.push((name, self.file(file)?));
            }
            return Ok(Content { sha256: self.file(path)?, rest: rest_of(others) });
        }
        let names = counted_files(path)?;
        let mut files = Vec::new();
        for name in &names {
            files.push((name.as_encoded_bytes(), self.file(&path.join(name))?.0));
        }
        let mut rest = Vec::new();
        let record = path.join(PROVENANCE_FILE);
        if record.is_file() {
            rest.push((PROVENANCE_FILE.to_owned(), self.file(&record)?));
        }
        // A directory without a model has none of them, and its stage will say so.
        if let Ok(companions) = formats::companions(path) {
            for (name, companion) in
                companions.iter().filter(|(name, companion)| name.contains('/') && companion.exists())
            {
                rest.push((name.to_owned(), Digest(companion.sha256()?)));
            }
        }
        Ok(Content { sha256: Digest(names_sha256(&files)), rest: rest_of(rest) })
    }

    /// Hashes files that are not remembered, with progress where they are long, so that they are known from then on.
    pub(super) fn learn<'p>(
        &mut self,
        paths: impl Iterator<Item = &'p Path>,
        progress: &dyn Progress,
    ) -> Result<(), HashError> {
        let mut files: Vec<PathBuf> = Vec::new();
        for path in paths {
            match path.is_dir() {
                true => files.extend(counted_files(path)?.into_iter().map(|name| path.join(name))),
                false => files.extend(formats::gguf::files(path)),
            }
        }
        files.sort();
        files.dedup();
        files.retain(|path| self.known_file(path).is_none());
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let total: u64 = files.iter().map(length).sum();
        if total < LONG_BYTES {
            return Ok(());
        }
        progress.begin("hashing inputs", total >> 20, "MiB");
        let (mut read, mut told) = (0u64, 0u64);
        for file in &files {
            self.hashed(file, &mut |bytes| {
                read += bytes;
                progress.advance((read >> 20) - told);
                told = read >> 20;
            })?;
        }
        progress.finish();
        Ok(())
    }

    /// What is remembered of a file, as it is.
    fn known_file(&self, path: &Path) -> Option<Digest> {
        let metadata = std::fs::metadata(path).ok()?;
        let own = self.memory.files.get(&path.canonicalize().ok()?)?;
        let (times, place) = place(&metadata)?;
        (own.size == metadata.len() && own.times == times && own.place == place).then_some(own.sha256)
    }

    /// The hash of a file's content.
    pub(super) fn file(&mut self, path: &Path) -> Result<Digest, HashError> {
        match self.known_file(path) {
            Some(known) => Ok(known),
            None => self.hashed(path, &mut |_| {}),
        }
    }

    /// Likewise, whatever is remembered.
    fn hashed(&mut self, path: &Path, read: &mut dyn FnMut(u64)) -> Result<Digest, HashError> {
        let failed = |source| HashError { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let (name, now) = (path.canonicalize().map_err(failed)?, SystemTime::now());
        let place = place(&metadata);
        let sha256 = Digest(file_sha256_with(path, read)?);
        if let Some((times, place)) = place.filter(|(times, _)| settled(times, now)) {
            self.memory.files.insert(name, Remembered { size: metadata.len(), times, place, sha256 });
            self.changed = true;
        }
        Ok(sha256)
    }

    /// Keeps what was learnt; a memory that cannot be written costs time and nothing else.
    pub(super) fn save(&mut self) {
        let Some(store) = self.store.as_ref().filter(|_| self.changed) else { return };
        // Another run may have learnt something meanwhile.
        let others = Hashes::remembered(Some(store)).memory.files;
        for (path, remembered) in others {
            self.memory.files.entry(path).or_insert(remembered);
        }
        if self.memory.files.len() > MOST {
            self.memory.files.retain(|path, _| path.exists());
        }
        if self.memory.files.len() > MOST {
            self.memory.files.clear();
        }
        self.memory.schema = SCHEMA.to_owned();
        if let Ok(text) = serde_json::to_vec(&self.memory)
            && store.write_note("", FILE, &text).is_ok()
        {
            self.changed = false;
        }
    }
}

/// Times, device and inode, by which a file is known again; `None` where the system has none.
#[cfg(unix)]
fn place(metadata: &Metadata) -> Option<([u64; 2], [u64; 2])> {
    use std::os::unix::fs::MetadataExt;
    let nanoseconds = |seconds: i64, part: i64| (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(part as u64);
    let times =
        [nanoseconds(metadata.mtime(), metadata.mtime_nsec()), nanoseconds(metadata.ctime(), metadata.ctime_nsec())];
    Some((times, [metadata.dev(), metadata.ino()]))
}

#[cfg(not(unix))]
fn place(_metadata: &Metadata) -> Option<([u64; 2], [u64; 2])> {
    None
}

/// Whether a change after `now` gives another time. File systems count in ticks: fine ones in a few milliseconds, coarse
/// ones, whose times end in zeros, in up to two seconds.
fn settled(times: &[u64; 2], now: SystemTime) -> bool {
    let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else { return false };
    times.iter().all(|&time| {
        let tick = if time % 1_000_000 == 0 { Duration::from_secs(2) } else { Duration::from_millis(50) };
        Duration::from_nanos(time) + tick < now
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn hashes_are_remembered_until_a_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path().join("store"));
        let file = directory.path().join("a.txt");
        fs::write(&file, "one").unwrap();
        std::thread::sleep(Duration::from_millis(120));
        let mut hashes = Hashes::remembered(Some(&store));
        assert_eq!(hashes.of(&file).unwrap().sha256, Digest::of(b"one"));
        hashes.save();
        // The memory is believed: this shows that it is used.
        let mut text = String::from_utf8(store.read_note("", FILE).expect("a memory")).unwrap();
        text = text.replace(&Digest::of(b"one").to_string(), &Digest::of(b"other").to_string());
        store.write_note("", FILE, text.as_bytes()).unwrap();
        let mut hashes = Hashes::remembered(Some(&store));
        assert_eq!(hashes.of(&file).unwrap().sha256, Digest::of(b"other"));
        // The same size, and a time set back: its change of state is another.
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        let mut hashes = Hashes::remembered(Some(&store));
        assert_eq!(hashes.of(&file).unwrap().sha256, Digest::of(b"two"));
        store.write_note("", FILE, b"not JSON").unwrap();
        assert_eq!(Hashes::remembered(Some(&store)).of(&file).unwrap().sha256, Digest::of(b"two"));
    }

    #[test]
    fn a_directory_has_a_hash_and_a_rest() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), "{}").unwrap();
        let of = || Hashes::default().of(directory.path()).unwrap();
        let before = of();
        assert_eq!(before.rest, None);
        fs::write(directory.path().join(PROVENANCE_FILE), "{}").unwrap();
        let after = of();
        assert!(after.sha256 == before.sha256 && after.rest.is_some());
        let expected = crate::disk::hash::directory_sha256(directory.path()).unwrap();
        assert_eq!(after.sha256, Digest(expected));
    }
}
