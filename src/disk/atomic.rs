//! Atomic outputs. A file or directory is built in a temporary sibling and renamed into place; an existing output is
//! replaced only if slmc made it. An error or a panic removes the sibling at once; after a killed run it stays, and the
//! next run that writes the same output removes it:
//!
//! ```text
//! .NAME.slmc-PID-N.new    being built        .NAME.slmc-PID-N.old    on its way out
//! ```
//!
//! A sibling in use is locked by its run, so that two runs with one output do not remove each other's work.

use super::PROVENANCE_FILE;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Why an output was not written.
#[derive(Debug, thiserror::Error)]
pub enum AtomicError {
    /// The path has no final component.
    #[error("{}: not the name of an output; pass a path that ends in a name", path.display())]
    Unnamed {
        /// The output.
        path: PathBuf,
    },
    /// The path is a file that slmc did not make.
    #[error("{}: exists and was not made by slmc; pass another path, or remove it first", path.display())]
    Foreign {
        /// The output.
        path: PathBuf,
    },
    /// The path is a directory without slmc.json.
    #[error("{}: exists and holds no slmc.json, so slmc did not make it; pass another path, or remove it first", path.display())]
    ForeignDirectory {
        /// The output.
        path: PathBuf,
    },
    /// The file system returned an error.
    #[error("{}: cannot {action}; check permissions and free space", path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AtomicError {
    move |source| AtomicError::Io { action, path: path.to_owned(), source }
}

/// Whether a file may be written at `path`: nothing is there, or a regular file that begins with `magic`. An empty
/// magic accepts any regular file.
pub fn check_file(path: &Path, magic: &[u8]) -> Result<(), AtomicError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let foreign = || AtomicError::Foreign { path: path.to_owned() };
    if !metadata.is_file() {
        return Err(foreign());
    }
    let mut start = Vec::with_capacity(magic.len());
    let file = File::open(path).map_err(io_error("be read", path))?;
    file.take(magic.len() as u64).read_to_end(&mut start).map_err(io_error("be read", path))?;
    if start == magic { Ok(()) } else { Err(foreign()) }
}

/// Whether a directory may be written at `path`: nothing is there, or a directory with slmc.json.
pub fn check_directory(path: &Path) -> Result<(), AtomicError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(_) if !path.is_dir() => Err(AtomicError::Foreign { path: path.to_owned() }),
        Ok(_) if path.join(PROVENANCE_FILE).is_file() => Ok(()),
        Ok(_) => Err(AtomicError::ForeignDirectory { path: path.to_owned() }),
    }
}

/// Writes a file through `fill`; [`check_file`] says which files it may replace.
pub fn write_file(
    path: &Path,
    magic: &[u8],
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), AtomicError> {
    write_file_for(Readers::All, path, magic, fill)
}

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whoever the user's settings let.
    All,
    /// Its owner alone, from the moment on that it is there.
    Owner,
}

/// [`write_file`], for some readers.
///
/// # Errors
/// [`AtomicError`].
pub fn write_file_for(
    readers: Readers,
    path: &Path,
    magic: &[u8],
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), AtomicError> {
    check_file(path, magic)?;
    let siblings = Siblings::of(path)?;
    siblings.clean()?;
    let temporary = siblings.fresh("new");
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if readers == Readers::Owner {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = readers;
    let file = options.open(&temporary).map_err(io_error("be created", &temporary))?;
    // Without locks (some network file systems) leftovers are not cleaned up.
    let _ = file.try_lock();
    let mut guard = RemoveOnDrop { path: temporary, armed: true };
    let written = || -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        fill(&mut out)?;
        out.into_inner()?.sync_all()
    };
    written().map_err(io_error("be written", path))?;
    check_file(path, magic)?;
    fs::rename(&guard.path, path).map_err(io_error("be renamed into place", path))?;
    guard.armed = false;
    Ok(())
}

/// A directory under construction; dropped without [`NewDirectory::commit`], it is removed.
#[derive(Debug)]
pub struct NewDirectory {
    target: PathBuf,
    siblings: Siblings,
    temporary: RemoveOnDrop,
    /// Lock on the directory, held while this run lives; `None` where the file system has no locks.
    _lock: Option<File>,
}

impl NewDirectory {
    /// Begins an output directory beside `target`; [`check_directory`] says which directories it may replace.
    pub fn begin(target: &Path) -> Result<Self, AtomicError> {
        check_directory(target)?;
        let siblings = Siblings::of(target)?;
        siblings.clean()?;
        let path = siblings.fresh("new");
        fs::create_dir(&path).map_err(io_error("be created", &path))?;
        let lock = lock(&path);
        let temporary = RemoveOnDrop { path, armed: true };
        Ok(NewDirectory { target: target.to_owned(), siblings, temporary, _lock: lock })
    }

    /// Path of the directory under construction.
    pub fn path(&self) -> &Path {
        &self.temporary.path
    }

    /// Writes one of its files.
    #[expect(clippy::disallowed_methods, reason = "nobody sees the directory before it is whole")]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        fs::write(self.path().join(name), content)
    }

    /// Renames the directory into place. On failure the previous output is restored.
    pub fn commit(mut self) -> Result<(), AtomicError> {
        let target = &self.target;
        check_directory(target)?;
        let place = || fs::rename(&self.temporary.path, target).map_err(io_error("be renamed into place", target));
        if fs::symlink_metadata(target).is_ok() {
            let old = self.siblings.fresh("old");
            let lock = lock(target);
            fs::rename(target, &old).map_err(io_error("be moved aside", target))?;
            if let Err(error) = place() {
                let _ = fs::rename(&old, target);
                return Err(error);
            }
            drop(lock);
            remove(&old).map_err(io_error("be removed", &old))?;
        } else {
            place()?;
        }
        self.temporary.armed = false;
        Ok(())
    }
}

/// Removes a directory that slmc made, if it exists. The removal is atomic for readers; leftovers of a killed run are
/// removed by the next run that begins the same directory.
pub fn remove_directory(target: &Path) -> Result<(), AtomicError> {
    if fs::symlink_metadata(target).is_err() {
        return Ok(());
    }
    let gone = Siblings::of(target)?.fresh("new");
    fs::rename(target, &gone).map_err(io_error("be moved aside", target))?;
    remove(&gone).map_err(io_error("be removed", &gone))
}

/// Locks a file or directory, where the file system can.
fn lock(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Removes a file, a link, or a directory with its content.
fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[derive(Debug)]
struct RemoveOnDrop {
    path: PathBuf,
    armed: bool,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if self.armed {
            let _ = remove(&self.path);
        }
    }
}

/// The temporary siblings of one output.
#[derive(Debug)]
struct Siblings {
    target: PathBuf,
    parent: PathBuf,
    /// `.NAME.slmc-`
    prefix: OsString,
}

impl Siblings {
    /// Makes the parent directory if need be.
    fn of(target: &Path) -> Result<Self, AtomicError> {
        let name = target.file_name().ok_or_else(|| AtomicError::Unnamed { path: target.to_owned() })?;
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(io_error("be created", &parent))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".slmc-");
        Ok(Siblings { target: target.to_owned(), parent, prefix })
    }

    /// A name that no run uses.
    fn fresh(&self, kind: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut name = self.prefix.clone();
            name.push(format!("{}-{number}.{kind}", std::process::id()));
            let path = self.parent.join(name);
            if fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
    }

    /// Removes the leftovers of killed runs and restores an output that was moved aside but never replaced.
    fn clean(&self) -> Result<(), AtomicError> {
        let reading = || io_error("be listed", &self.parent);
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(&self.parent).map_err(reading())? {
            let name = entry.map_err(reading())?.file_name();
            leftovers.extend(self.kind(&name).map(|kind| (kind, self.parent.join(&name))));
        }
        leftovers.sort();
        for (kind, path) in leftovers {
            // Locked: its run is still going.
            if lock(&path).is_none() {
                continue;
            }
            if kind == Leftover::Old && fs::symlink_metadata(&self.target).is_err() {
                fs::rename(&path, &self.target).map_err(io_error("be moved back", &path))?;
            } else {
                remove(&path).map_err(io_error("be removed", &path))?;
            }
        }
        Ok(())
    }

    /// The kind of leftover of this output that a name denotes; `None` for any other name.
    fn kind(&self, name: &OsStr) -> Option<Leftover> {
        let rest = name.as_encoded_bytes().strip_prefix(self.prefix.as_encoded_bytes())?;
        let rest = std::str::from_utf8(rest).ok()?;
        let (numbers, kind) = rest.split_once('.')?;
        let (process, number) = numbers.split_once('-')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match kind {
            "new" if digits(process) && digits(number) => Some(Leftover::New),
            "old" if digits(process) && digits(number) => Some(Leftover::Old),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leftover {
    New,
    Old,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const MAGIC: &[u8] = b"SLMC\r\n\x1a\n";

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn commit(target: &Path, content: &str) -> Result<(), AtomicError> {
        let new = NewDirectory::begin(target)?;
        fs::write(new.path().join(PROVENANCE_FILE), content).unwrap();
        new.commit()
    }

    #[test]
    fn files_replace_only_their_own_kind() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("made/on/the/way/a.slm");
        for content in ["one", "two"] {
            write_file(&target, MAGIC, |out| {
                out.write_all(MAGIC)?;
                out.write_all(content.as_bytes())
            })
            .unwrap();
            assert!(fs::read(&target).unwrap().ends_with(content.as_bytes()));
        }
        let foreign = dir.path().join("notes.txt");
        for content in ["my notes", "SLMC", ""] {
            fs::write(&foreign, content).unwrap();
            let error = write_file(&foreign, MAGIC, |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("notes.txt: exists and was not made by slmc"), "{error}");
            assert_eq!(fs::read(&foreign).unwrap(), content.as_bytes());
        }
        assert!(write_file(dir.path(), MAGIC, |_| Ok(())).is_err());
        assert!(matches!(write_file(Path::new(".."), MAGIC, |_| Ok(())), Err(AtomicError::Foreign { .. })));
        write_file(&foreign, b"", |out| out.write_all(b"any file")).unwrap();
        assert_eq!(names(dir.path()), ["made", "notes.txt"]);
    }

    #[test]
    fn nothing_remains_of_an_error_or_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let (file, directory) = (dir.path().join("a.slm"), dir.path().join("model"));
        let failed = write_file(&file, MAGIC, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk on fire"))
        });
        assert!(failed.unwrap_err().to_string().contains("a.slm: cannot be written"));
        commit(&directory, "old").unwrap();
        drop(NewDirectory::begin(&directory).unwrap());
        let panicked = std::panic::catch_unwind(|| {
            let new = NewDirectory::begin(&directory).unwrap();
            fs::write(new.path().join("model.safetensors"), "half").unwrap();
            let _ = write_file(&file, MAGIC, |_| panic!("in the middle"));
        });
        assert!(panicked.is_err());
        assert_eq!(names(dir.path()), ["model"]);
        assert_eq!(fs::read(directory.join(PROVENANCE_FILE)).unwrap(), b"old");
    }

    #[test]
    fn directories_are_swapped_and_strangers_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        commit(&target, "one").unwrap();
        fs::write(target.join("stale"), "").unwrap();
        commit(&target, "two").unwrap();
        assert_eq!(names(&target), [PROVENANCE_FILE]);
        assert_eq!(fs::read(target.join(PROVENANCE_FILE)).unwrap(), b"two");

        let mine = dir.path().join("thesis");
        fs::create_dir(&mine).unwrap();
        fs::write(mine.join("chapter1"), "").unwrap();
        let error = commit(&mine, "x").unwrap_err();
        assert!(error.to_string().contains("thesis: exists and holds no slmc.json"), "{error}");
        assert_eq!(names(&mine), ["chapter1"]);
        // A directory that appears while the output is being built is refused as well.
        let late = dir.path().join("late");
        let new = NewDirectory::begin(&late).unwrap();
        fs::create_dir(&late).unwrap();
        assert!(matches!(new.commit(), Err(AtomicError::ForeignDirectory { .. })));
        assert_eq!(names(dir.path()), ["late", "model", "thesis"]);
    }

    #[test]
    fn leftovers_of_killed_runs_go_and_running_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        fs::create_dir(dir.path().join(".model.slmc-1-0.new")).unwrap();
        fs::write(dir.path().join(".model.slmc-1-0.new/half"), "").unwrap();
        fs::create_dir(dir.path().join(".model.slmc-1-1.old")).unwrap();
        fs::write(dir.path().join(".model.slmc-1-1.old").join(PROVENANCE_FILE), "rescued").unwrap();
        fs::write(dir.path().join(".model.slmc-notes.new"), "not ours").unwrap();
        let running = NewDirectory::begin(&target).unwrap();
        assert_eq!(fs::read(target.join(PROVENANCE_FILE)).unwrap(), b"rescued");
        commit(&target, "second run").unwrap();
        assert!(running.path().is_dir());
        drop(running);
        assert_eq!(names(dir.path()), [".model.slmc-notes.new", "model"]);
    }
}
