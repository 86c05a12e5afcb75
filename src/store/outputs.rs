//! What a stage leaves on disk, as files of an entry: taken apart into blobs, and put in place again as a whole.

use super::entry::{EntryFile, PIECE, by_option, in_output, inside, is_output, of_option};
use super::{Blob, Digest, StoreError};
use crate::disk::atomic::{self, NewDirectory};
use crate::disk::hash::Hash;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The places of the outputs of a stage.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The directory or artifact.
    pub output: Option<PathBuf>,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The first bytes of an artifact, by which a file that may be replaced is known.
    pub magic: &'static [u8],
    /// Other files and directories, by the options that name them.
    pub writes: Vec<(String, PathBuf)>,
}

/// Writes the content of a file of an entry.
pub(super) type Fill<'f> = dyn FnMut(&EntryFile, &mut File) -> Result<(), StoreError> + 'f;

impl Outputs {
    /// The files that are there, in the order of their paths in an entry.
    ///
    /// # Errors
    /// A directory that cannot be listed, a name that cannot be kept.
    pub fn places(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let mut files = Vec::new();
        match &self.output {
            Some(output) if self.is_directory => walk(output, &in_output(""), &mut files)?,
            Some(output) => files.push(("output".to_owned(), output.clone())),
            None => {}
        }
        // What an option names may not be there, where the stage had nothing to write.
        for (option, path) in &self.writes {
            if path.is_dir() {
                walk(path, &format!("{}/", by_option(option)), &mut files)?;
            } else if path.is_file() {
                files.push((by_option(option), path.clone()));
            }
        }
        files.sort();
        Ok(files)
    }

    /// Whether an entry has the files that belong to these places.
    pub fn fits(&self, files: &[EntryFile]) -> bool {
        let known = |file: &EntryFile| match of_option(&file.path) {
            Some((option, _)) => self.writes.iter().any(|(own, _)| own == option),
            None => match self.is_directory {
                true => inside(&file.path).is_some(),
                false => is_output(&file.path),
            },
        };
        let output = files.iter().any(|file| of_option(&file.path).is_none());
        files.iter().all(known) && output == self.output.is_some()
    }

    /// Puts the files of an entry in place; all of the output or nothing of it.
    pub(super) fn place(&self, files: &[EntryFile], fill: &mut Fill<'_>) -> Result<(), StoreError> {
        if let Some(output) = &self.output {
            if self.is_directory {
                place_directory(output, files.iter().filter_map(|file| Some((inside(&file.path)?, file))), fill)?;
            } else if let Some(file) = files.iter().find(|file| is_output(&file.path)) {
                place_file(output, self.magic, file, fill)?;
            }
        }
        for (option, path) in &self.writes {
            if let Some(file) = files.iter().find(|file| of_option(&file.path) == Some((option, None))) {
                place_file(path, b"", file, fill)?;
                continue;
            }
            let named = |file: &'_ EntryFile| match of_option(&file.path) {
                Some((own, Some(_))) => own == option,
                _ => false,
            };
            if files.iter().any(named) {
                let own = files.iter().filter(|file| named(file));
                place_directory(path, own.filter_map(|file| Some((of_option(&file.path)?.1?, file))), fill)?;
            }
        }
        Ok(())
    }
}

/// Puts files in place as a directory, by their names there.
fn place_directory<'f>(
    output: &Path,
    files: impl Iterator<Item = (&'f str, &'f EntryFile)>,
    fill: &mut Fill<'_>,
) -> Result<(), StoreError> {
    let new = NewDirectory::begin(output)?;
    for (name, file) in files {
        let path = new.path().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(StoreError::io("made", folder))?;
        }
        let mut out = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("written", &path))?;
        fill(file, &mut out)?;
    }
    Ok(new.commit()?)
}

fn place_file(path: &Path, magic: &[u8], file: &EntryFile, fill: &mut Fill<'_>) -> Result<(), StoreError> {
    // Beside its place, so that it need only be renamed.
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(StoreError::io("made", folder))?;
    let mut content = tempfile::tempfile_in(folder).map_err(StoreError::io("written", folder))?;
    fill(file, &mut content)?;
    content.seek(SeekFrom::Start(0)).map_err(StoreError::io("read", path))?;
    Ok(atomic::write_file(path, magic, |out| io::copy(&mut content, out).map(drop))?)
}

/// The files below a folder, by their paths in an entry, which begin with `prefix`.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(StoreError::io("listed", folder))? {
        let path = entry.map_err(StoreError::io("listed", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.contains(['#', '\\', ':']));
        let Some(name) = name else {
            let fault = "has a name that the cache cannot keep; rename it to letters, digits, -, _ and .".to_owned();
            return Err(StoreError::Output { path, fault });
        };
        match path.is_dir() {
            true => walk(&path, &format!("{prefix}{name}/"), files)?,
            false => files.push((format!("{prefix}{name}"), path)),
        }
    }
    Ok(())
}

/// The digests of a file and of its pieces, read once.
pub(super) fn described(path: String, file: &Path) -> Result<EntryFile, StoreError> {
    let mut content = File::open(file).map_err(StoreError::io("read", file))?;
    let (mut whole, mut pieces) = (Sha256::new(), Vec::new());
    loop {
        let mut piece = Hashed { inner: (&mut content).take(PIECE), hasher: Sha256::new() };
        let mut both = IntoHash(&mut whole);
        let size = io::copy(&mut piece, &mut both).map_err(StoreError::io("read", file))?;
        if size > 0 || pieces.is_empty() {
            pieces.push(Blob { digest: Digest(piece.hasher.finalize().into()), size });
        }
        if size < PIECE {
            break;
        }
    }
    Ok(EntryFile { path, digest: Digest(whole.finalize().into()), pieces })
}

/// A reader that hashes what goes through it.
pub(super) struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R> Hashed<R> {
    pub(super) fn new(inner: R) -> Self {
        Hashed { inner, hasher: Sha256::new() }
    }

    pub(super) fn digest(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// A writer into a hash.
pub(super) struct IntoHash<'h>(pub(super) &'h mut Sha256);

impl Write for IntoHash<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is filled with one blob after the other, each verified when it is complete.
pub(super) struct Filling<'f> {
    file: &'f mut File,
    whole: Sha256,
}

/// Writes one blob: into the file and a hash, and never more than the blob is long.
pub(super) struct BlobWriter<'w> {
    file: &'w mut File,
    hasher: Sha256,
    whole: Sha256,
    left: u64,
}

impl<'f> Filling<'f> {
    pub(super) fn new(file: &'f mut File) -> Self {
        Filling { file, whole: Sha256::new() }
    }

    /// Lets `get` write a blob, and keeps it if it is the right one. The digest of what came, where it is not.
    pub(super) fn blob<E>(
        &mut self,
        blob: &Blob,
        get: impl FnOnce(&mut dyn Write) -> Result<bool, E>,
    ) -> io::Result<Result<Came, E>> {
        let start = self.file.stream_position()?;
        let mut writer =
            BlobWriter { file: self.file, hasher: Sha256::new(), whole: self.whole.clone(), left: blob.size };
        let came = get(&mut writer);
        let BlobWriter { hasher, whole, left, .. } = writer;
        let found = Digest(hasher.finalize().into());
        if matches!(came, Ok(true)) && left == 0 && found == blob.digest {
            self.whole = whole;
            return Ok(Ok(Came::Right));
        }
        self.file.set_len(start)?;
        self.file.seek(SeekFrom::Start(start))?;
        Ok(came.map(|came| if came { Came::Wrong(found) } else { Came::Nothing }))
    }

    /// Copies a blob that was just written.
    pub(super) fn read_back(
        &mut self,
        blob: &Blob,
        put: impl FnOnce(&mut dyn Read) -> Result<(), StoreError>,
    ) -> io::Result<Result<(), StoreError>> {
        let end = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(end - blob.size))?;
        let done = put(&mut (&mut *self.file).take(blob.size));
        self.file.seek(SeekFrom::Start(end))?;
        Ok(done)
    }

    /// Digest of all that was kept.
    pub(super) fn digest(self) -> Hash {
        self.whole.finalize().into()
    }
}

/// How a blob came.
pub(super) enum Came {
    /// As it should.
    Right,
    /// Other content, or not all of it.
    Wrong(Digest),
    /// The store does not have it.
    Nothing,
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("longer than it should be"));
        }
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.whole.update(bytes);
        self.left -= bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
