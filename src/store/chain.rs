//! The stores of a run, in order: the directory of this machine, then shared places. Entries and blobs are looked for in
//! that order and verified before they are used; what comes from a shared place is kept here too, and what is made here goes
//! to every place that may be written. A place that fails is warned of once and left out from then on: a cache costs time
//! at worst, never a result.

use super::entry::EntryFile;
use super::outputs::{Came, Filling, Hashed, described};
use super::{Blob, Digest, Entry, FileStore, KeyLock, Outputs, Signer, Store, StoreError, Trusted};
use crate::progress::Progress;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// A shared place that takes longer is waited for with a word.
const PATIENCE: Duration = Duration::from_secs(5);

/// A shared place.
pub struct Remote {
    store: Box<dyn Store>,
    /// Whether results go there; not any more once it refused one.
    writes: AtomicBool,
    /// Whether it failed.
    off: AtomicBool,
}

impl Remote {
    /// A place that is read, and written where that was asked for.
    pub fn new(store: Box<dyn Store>, writes: bool) -> Self {
        Remote { store, writes: AtomicBool::new(writes), off: AtomicBool::new(false) }
    }
}

/// Where an entry was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On this machine.
    Local,
    /// In a shared place, by its name.
    Remote(String),
}

/// An entry that is there with all its blobs, as far as that can be known without fetching them.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry.
    pub entry: Entry,
    /// Where it was.
    pub origin: Origin,
}

/// The stores.
#[derive(Default)]
pub struct Chain {
    local: Option<FileStore>,
    /// Whether entries of this machine must be signed too, since others write there.
    checks_local: bool,
    remotes: Vec<Remote>,
    trusted: Trusted,
    signer: Option<Signer>,
    /// Whether nothing is to be kept.
    disabled: bool,
}

impl Chain {
    /// No store, since that is what was asked for.
    pub fn disabled() -> Self {
        Chain { disabled: true, ..Chain::default() }
    }

    /// Whether no store was asked for.
    pub fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// The directory of this machine alone.
    pub fn of_local(store: FileStore) -> Self {
        Chain { local: Some(store), ..Chain::default() }
    }

    /// All that is configured.
    pub(super) fn new(
        local: Option<FileStore>,
        checks_local: bool,
        remotes: Vec<Remote>,
        trusted: Trusted,
        signer: Option<Signer>,
    ) -> Self {
        Chain { local, checks_local, remotes, trusted, signer, disabled: false }
    }

    /// The directory of this machine.
    pub fn local(&self) -> Option<&FileStore> {
        self.local.as_ref()
    }

    /// Variables of the environment from which credentials and keys come, with their use.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut all: Vec<(&'static str, String)> = Vec::new();
        for remote in &self.remotes {
            let name = remote.store.name();
            let names: &[&'static str] = match name.starts_with("s3://") {
                true => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
                false => &["SLMC_CACHE_TOKEN", "SLMC_CACHE_USER", "SLMC_CACHE_PASSWORD"],
            };
            let action = if remote.writes.load(Ordering::Relaxed) { "reads and writes" } else { "reads" };
            for own in names {
                if all.iter().all(|(known, _)| known != own) {
                    all.push((own, format!("{action} {name}, where it asks for credentials")));
                }
            }
        }
        if self.remotes.iter().any(|remote| remote.writes.load(Ordering::Relaxed)) {
            all.push(("SLMC_CACHE_KEY", "signs what is written to shared caches".to_owned()));
        }
        all
    }

    /// Whether there is a shared place.
    pub fn has_remote(&self) -> bool {
        !self.remotes.is_empty()
    }

    /// The same without shared places.
    pub fn local_only(self) -> Self {
        Chain { remotes: Vec::new(), ..self }
    }

    /// Goes on without the directory of this machine, which cannot be written.
    pub fn without_local(&mut self) {
        self.local = None;
    }

    /// The key that signs.
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.remotes.iter().filter(|remote| !remote.off.load(Ordering::Relaxed))
    }

    /// Leaves a place out from now on.
    fn failed(&self, remote: &Remote, error: &StoreError, progress: &dyn Progress) {
        if !remote.off.swap(true, Ordering::Relaxed) {
            progress.warn(&format_args!("{}; the run goes on without this cache", said(error)));
        }
    }

    /// Waits until no other run on this machine computes a key; `waiting` is called with the time waited, again and again.
    ///
    /// # Errors
    /// The lock's file cannot be made.
    pub fn lock(&self, key: &Digest, waiting: impl FnMut(Duration)) -> Result<Option<KeyLock>, StoreError> {
        self.local.as_ref().map(|local| local.lock(key, waiting)).transpose()
    }

    /// The entry of a key, if there is one that can be used: of this key, signed where that is asked for, with the files that
    /// belong to the outputs, and its blobs there.
    pub fn find(&self, key: &Digest, outputs: &Outputs, progress: &dyn Progress) -> Option<Found> {
        self.find_with(key, Some(outputs), progress)
    }

    /// Likewise, whatever files it has.
    pub fn find_any(&self, key: &Digest, progress: &dyn Progress) -> Option<Found> {
        self.find_with(key, None, progress)
    }

    fn find_with(&self, key: &Digest, outputs: Option<&Outputs>, progress: &dyn Progress) -> Option<Found> {
        if let Some(found) = self.find_local(key, outputs, progress) {
            return Some(found);
        }
        for remote in self.remotes() {
            let found = patiently(remote, progress, || self.entry_of(remote.store.as_ref(), true, key, outputs));
            match found {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Found { entry, origin: Origin::Remote(remote.store.name()) }),
                // One bad entry says nothing of the others.
                Err(error @ StoreError::Entry { .. }) => progress.warn(&said(&error)),
                Err(error) => self.failed(remote, &error, progress),
            }
        }
        None
    }

    /// Likewise, on this machine alone.
    pub fn find_here(&self, key: &Digest, outputs: &Outputs, progress: &dyn Progress) -> Option<Found> {
        self.find_local(key, Some(outputs), progress)
    }

    fn find_local(&self, key: &Digest, outputs: Option<&Outputs>, progress: &dyn Progress) -> Option<Found> {
        let local = self.local.as_ref()?;
        match self.entry_of(local, self.checks_local, key, outputs) {
            // An entry whose blobs were removed is none, unless they are elsewhere too.
            Ok(Some(entry)) if entry.blobs().all(|blob| local.has(blob).unwrap_or(false)) => {
                local.touch(key);
                Some(Found { entry, origin: Origin::Local })
            }
            Ok(_) => None,
            Err(error) => {
                progress.warn(&said(&error));
                None
            }
        }
    }

    fn entry_of(
        &self,
        store: &dyn Store,
        checks: bool,
        key: &Digest,
        outputs: Option<&Outputs>,
    ) -> Result<Option<Entry>, StoreError> {
        let Some(bytes) = store.entry(key)?.filter(|bytes| !Entry::is_of_another_version(bytes)) else {
            return Ok(None);
        };
        let bad = |fault| StoreError::Entry { place: store.name(), key: *key, fault };
        let entry = Entry::decode(key, &bytes).map_err(bad)?;
        if checks {
            self.trusted.check(&entry).map_err(bad)?;
        }
        match outputs.is_none_or(|outputs| outputs.fits(&entry.files)) {
            true => Ok(Some(entry)),
            false => Err(bad("has other files than this stage makes".to_owned())),
        }
    }

    /// Puts the outputs of an entry in place. On an error nothing of the output is.
    ///
    /// # Errors
    /// A blob that is nowhere whole, or a file that cannot be written.
    pub fn restore(&self, found: &Found, outputs: &Outputs, progress: &dyn Progress) -> Result<(), StoreError> {
        let key = super::entry::digest_of(&found.entry.about.key);
        outputs.place(&found.entry.files, &mut |file, out| self.fill(&key, file, out, progress))?;
        self.keep_entry(&key, &found.entry, progress);
        Ok(())
    }

    fn fill(&self, key: &Digest, file: &EntryFile, out: &mut File, progress: &dyn Progress) -> Result<(), StoreError> {
        let writing = |source| StoreError::Io { action: "written", path: Path::new(&file.path).to_owned(), source };
        let mut filling = Filling::new(out);
        for blob in &file.pieces {
            if !self.fetch(blob, &mut filling, progress).map_err(writing)? {
                return Err(StoreError::Gone { key: *key, digest: blob.digest });
            }
        }
        let found = Digest(filling.digest());
        if found != file.digest {
            let place = "the cache".to_owned();
            return Err(StoreError::Damaged { place, expected: file.digest, found });
        }
        Ok(())
    }

    /// One blob from the first store that has it whole.
    fn fetch(&self, blob: &Blob, filling: &mut Filling<'_>, progress: &dyn Progress) -> std::io::Result<bool> {
        if let Some(local) = &self.local {
            match filling.blob(blob, |into| local.get(blob, into))? {
                Ok(Came::Right) => return Ok(true),
                Ok(Came::Nothing) => {}
                Ok(Came::Wrong(found)) => {
                    local.discard(blob);
                    let error = StoreError::Damaged { place: local.name(), expected: blob.digest, found };
                    progress.warn(&format_args!("{}, and was removed", said(&error)));
                }
                Err(error) => progress.warn(&said(&error)),
            }
        }
        for remote in self.remotes() {
            let came = patiently(remote, progress, || filling.blob(blob, |into| remote.store.get(blob, into)));
            match came? {
                Ok(Came::Right) => {
                    if let Some(local) = &self.local
                        && let Err(error) = filling.read_back(blob, |content| local.put(blob, content))?
                    {
                        progress.warn(&said(&error));
                    }
                    return Ok(true);
                }
                Ok(Came::Nothing) => {}
                Ok(Came::Wrong(found)) => {
                    let error = StoreError::Damaged { place: remote.store.name(), expected: blob.digest, found };
                    self.failed(remote, &error, progress);
                }
                Err(error) => self.failed(remote, &error, progress),
            }
        }
        Ok(false)
    }

    /// Keeps an entry here, its blobs being here by now.
    fn keep_entry(&self, key: &Digest, entry: &Entry, progress: &dyn Progress) {
        let Some(local) = &self.local else { return };
        if entry.blobs().all(|blob| local.has(blob).unwrap_or(false))
            && let Err(error) = local.put_entry(key, &entry.encode())
        {
            progress.warn(&said(&error));
        }
    }

    /// Describes outputs that were made: every file by its digests.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn describe(outputs: &Outputs) -> Result<Vec<EntryFile>, StoreError> {
        outputs.places()?.into_iter().map(|(path, file)| described(path, &file)).collect()
    }

    /// Keeps a result, here and in every shared place that may be written. Another result of the same key is never replaced
    /// but in this machine's store; the entry that was there is handed back.
    ///
    /// # Errors
    /// It cannot be kept on this machine; faults of shared places are warned of.
    pub fn keep(
        &self,
        mut entry: Entry,
        outputs: &Outputs,
        progress: &dyn Progress,
    ) -> Result<Option<Entry>, StoreError> {
        if let Some(signer) = &self.signer {
            signer.sign(&mut entry)?;
        }
        let key = super::entry::digest_of(&entry.about.key);
        let sources = outputs.places()?;
        let mut other = None;
        let own = match &self.local {
            None => Ok(()),
            Some(local) => {
                other = different(local, &key, &entry);
                put_all(local, true, &entry, &sources).and_then(|()| local.put_entry(&key, &entry.encode()))
            }
        };
        for remote in self.remotes().filter(|remote| remote.writes.load(Ordering::Relaxed)) {
            let store = remote.store.as_ref();
            if let Some(there) = patiently(remote, progress, || different(store, &key, &entry)) {
                other = Some(there);
                continue;
            }
            let put = patiently(remote, progress, || {
                put_all(store, false, &entry, &sources).and_then(|()| store.put_entry(&key, &entry.encode()))
            });
            match put {
                Ok(()) => {}
                Err(error @ StoreError::Status { status: 401 | 403 | 405, .. }) => {
                    remote.writes.store(false, Ordering::Relaxed);
                    progress.warn(&format_args!("{}; results are not kept there", said(&error)));
                }
                Err(error) => self.failed(remote, &error, progress),
            }
        }
        own.map(|()| other)
    }

    /// Copies the result of a key from this machine to every shared place; `false` where it is not here.
    ///
    /// # Errors
    /// The first fault of a place.
    pub fn push(&self, key: &Digest) -> Result<bool, StoreError> {
        let Some(local) = &self.local else { return Ok(false) };
        let Some(bytes) = local.entry(key)?.filter(|bytes| !Entry::is_of_another_version(bytes)) else {
            return Ok(false);
        };
        let bad = |fault| StoreError::Entry { place: local.name(), key: *key, fault };
        let mut entry = Entry::decode(key, &bytes).map_err(bad)?;
        if let Some(signer) = &self.signer {
            signer.sign(&mut entry)?;
        }
        for remote in self.remotes() {
            let store = remote.store.as_ref();
            for blob in entry.blobs() {
                if !store.has(blob)? {
                    let mut content = Vec::new();
                    if !local.get(blob, &mut content)? {
                        return Err(StoreError::Gone { key: *key, digest: blob.digest });
                    }
                    check(local, blob, Digest::of(&content))?;
                    store.put(blob, &mut content.as_slice())?;
                }
            }
            store.put_entry(key, &entry.encode())?;
        }
        Ok(true)
    }

    /// Copies an entry that was found and its blobs to this machine.
    ///
    /// # Errors
    /// A blob that is nowhere whole.
    pub fn pull(&self, found: &Found, progress: &dyn Progress) -> Result<(), StoreError> {
        let key = super::entry::digest_of(&found.entry.about.key);
        for file in &found.entry.files {
            let folder = self.local.as_ref().map_or_else(std::env::temp_dir, |local| local.root().to_owned());
            std::fs::create_dir_all(&folder).map_err(StoreError::io("made", &folder))?;
            let mut passing = tempfile::tempfile_in(&folder).map_err(StoreError::io("written", &folder))?;
            self.fill(&key, file, &mut passing, progress)?;
        }
        self.keep_entry(&key, &found.entry, progress);
        Ok(())
    }
}

/// Talks to a shared place, and says so where that takes long.
fn patiently<T>(remote: &Remote, progress: &dyn Progress, work: impl FnOnce() -> T) -> T {
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                progress.waits(&format_args!("for the cache {}", remote.store.name()));
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// An entry with this key and another output, where the store has one. slmc repeats itself to the bit, so one of the two is
/// wrong, or the key lacks something.
fn different(store: &dyn Store, key: &Digest, entry: &Entry) -> Option<Entry> {
    let there = Entry::decode(key, &store.entry(key).ok()??).ok()?;
    (there.output() != entry.output()).then_some(there)
}

/// Puts every blob that a store lacks; into this machine's also those that are there, since one of them may be damaged, which
/// is why the stage ran.
fn put_all(
    store: &dyn Store,
    anew: bool,
    entry: &Entry,
    sources: &[(String, std::path::PathBuf)],
) -> Result<(), StoreError> {
    for (file, (_, path)) in entry.files.iter().zip(sources) {
        let mut start = 0;
        for blob in &file.pieces {
            if anew || !store.has(blob)? {
                let mut content = File::open(path).map_err(StoreError::io("read", path))?;
                content.seek(SeekFrom::Start(start)).map_err(StoreError::io("read", path))?;
                let mut hashed = Hashed::new(content.take(blob.size));
                store.put(blob, &mut hashed)?;
                check_output(path, blob, hashed.digest())?;
            }
            start += blob.size;
        }
    }
    Ok(())
}

fn check_output(path: &Path, blob: &Blob, found: Digest) -> Result<(), StoreError> {
    match found == blob.digest {
        true => Ok(()),
        false => Err(StoreError::Output {
            path: path.to_owned(),
            fault: "changed while it was put into the cache".to_owned(),
        }),
    }
}

fn check(store: &dyn Store, blob: &Blob, found: Digest) -> Result<(), StoreError> {
    match found == blob.digest {
        true => Ok(()),
        false => Err(StoreError::Damaged { place: store.name(), expected: blob.digest, found }),
    }
}

/// An error and its causes on one line.
pub(super) fn said(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
