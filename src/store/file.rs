//! A store in a directory, and what else is kept there:
//!
//! ```text
//! ac/KE/KEY  cas/SH/SHA256   entries and blobs, put in place by renaming
//! locks/KEY                  locked by the run that computes this key; the kernel lets go when a run is killed
//! units/SHA256               the key a stage of a recipe had last, by the recipe's path and the stage's name
//! hashes.json                SHA-256 of files by their place, size and times
//! ```

use super::outputs::Hashed;
use super::{Blob, Digest, LONGEST_ENTRY, Store, StoreError};
use crate::disk::atomic;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a run that waits for another says so.
const REMINDER: Duration = Duration::from_secs(30);
/// How often it looks whether the other is done: asking the kernel to wait would leave nobody to say anything.
const POLL: Duration = Duration::from_millis(50);

/// The directory.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: PathBuf,
}

/// Held while a key is computed.
#[derive(Debug)]
pub struct KeyLock {
    /// Unlocked when it is closed; `None` where the file system has no locks.
    _file: Option<File>,
}

impl FileStore {
    /// The store in a directory, which is made when something is put there.
    pub fn new(root: PathBuf) -> Self {
        FileStore { root }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether something can be kept here: the directory is made, and a file is written into it and removed.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.root).map_err(StoreError::io("made", &self.root))?;
        let write = |mut file: File| file.write_all(b"slmc");
        tempfile::tempfile_in(&self.root).and_then(write).map_err(StoreError::io("written", &self.root))
    }

    /// Where a file of a name is.
    fn sharded(&self, folder: &str, name: &Digest) -> PathBuf {
        let name = name.to_string();
        self.root.join(folder).join(&name[..2]).join(name)
    }

    fn blob(&self, blob: &Blob) -> PathBuf {
        self.sharded("cas", &blob.digest)
    }

    /// Notes that an entry was used now, for [`FileStore::clean`].
    pub(super) fn touch(&self, key: &Digest) {
        if let Ok(file) = File::options().write(true).open(self.sharded("ac", key)) {
            drop(file.set_modified(std::time::SystemTime::now()));
        }
    }

    /// Removes a blob that is not what its name says.
    pub(super) fn discard(&self, blob: &Blob) {
        drop(fs::remove_file(self.blob(blob)));
    }

    /// Waits until no other run computes a key. `waiting` is called if one does, at once and then every half minute, with the
    /// time waited.
    ///
    /// # Errors
    /// The lock's file cannot be made.
    pub fn lock(&self, key: &Digest, mut waiting: impl FnMut(Duration)) -> Result<KeyLock, StoreError> {
        let folder = self.root.join("locks");
        fs::create_dir_all(&folder).map_err(StoreError::io("made", &folder))?;
        let path = folder.join(key.to_string());
        let open = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(StoreError::io("written", &path))?;
        Ok(KeyLock { _file: locked(file, REMINDER, &mut waiting) })
    }

    /// A small file beside the entries.
    pub fn read_note(&self, folder: &str, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(folder).join(name)).ok()
    }

    /// Writes one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_note(&self, folder: &str, name: &str, content: &[u8]) -> Result<(), StoreError> {
        Ok(atomic::write_file(&self.root.join(folder).join(name), b"", |out| out.write_all(content))?)
    }

    /// Names, sizes and ages of the files in a folder of names.
    pub(super) fn files(&self, folder: &str) -> Result<Vec<(PathBuf, fs::Metadata)>, StoreError> {
        let root = self.root.join(folder);
        let mut files = Vec::new();
        let shards = match fs::read_dir(&root) {
            Ok(shards) => shards,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(StoreError::io("listed", &root)(error)),
        };
        for shard in shards {
            let shard = shard.map_err(StoreError::io("listed", &root))?.path();
            if !shard.is_dir() {
                continue;
            }
            for file in fs::read_dir(&shard).map_err(StoreError::io("listed", &shard))? {
                let file = file.map_err(StoreError::io("listed", &shard))?;
                let metadata = file.metadata().map_err(StoreError::io("read", &file.path()))?;
                files.push((file.path(), metadata));
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(files)
    }
}

/// The file once it is locked; `None` where the file system has no locks.
fn locked(file: File, reminder: Duration, waiting: &mut dyn FnMut(Duration)) -> Option<File> {
    let (begun, mut next) = (Instant::now(), Duration::ZERO);
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return None,
        }
        let waited = begun.elapsed();
        if waited >= next {
            waiting(waited);
            next = waited + reminder;
        }
        std::thread::sleep(POLL);
    }
}

impl Store for FileStore {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn has(&self, blob: &Blob) -> Result<bool, StoreError> {
        Ok(fs::metadata(self.blob(blob)).is_ok_and(|file| file.is_file() && file.len() == blob.size))
    }

    fn get(&self, blob: &Blob, into: &mut dyn Write) -> Result<bool, StoreError> {
        let path = self.blob(blob);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        io::copy(&mut file, into).map_err(StoreError::io("copied", &path))?;
        Ok(true)
    }

    fn put(&self, blob: &Blob, content: &mut dyn Read) -> Result<(), StoreError> {
        let mut hashed = Hashed::new(content);
        let fill = |out: &mut io::BufWriter<File>| {
            io::copy(&mut hashed, out)?;
            match hashed.digest() == blob.digest {
                true => Ok(()),
                false => Err(io::Error::other("its content changed while it was read")),
            }
        };
        Ok(atomic::write_file(&self.blob(blob), b"", fill)?)
    }

    fn entry(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.sharded("ac", key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let mut entry = Vec::new();
        file.take(LONGEST_ENTRY).read_to_end(&mut entry).map_err(StoreError::io("read", &path))?;
        Ok(Some(entry))
    }

    fn put_entry(&self, key: &Digest, entry: &[u8]) -> Result<(), StoreError> {
        Ok(atomic::write_file(&self.sharded("ac", key), b"", |out| out.write_all(entry))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_waits_says_so_again_and_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || File::create(directory.path().join("key")).expect("a file");
        let mut held = locked(open(), POLL, &mut |_| panic!("nobody holds it")).expect("locked").into();
        let mut said = Vec::new();
        let own = locked(open(), POLL, &mut |waited| {
            said.push(waited);
            if said.len() == 3 {
                held = None::<File>;
            }
        });
        assert!(own.is_some() && held.is_none());
        assert!(said.len() >= 3 && said[2] >= 2 * POLL, "{said:?}");
    }
}
