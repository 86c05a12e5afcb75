//! Streamed artifacts on this machine, as a device runs them: the file is read, never mapped, through two buffers, the
//! second of which a thread fills while the first is computed with.

use super::host::{ArtifactError, SessionMemory};
use serde::Serialize;
use slm_runtime::session::SessionError;
use slm_runtime::sha256::Software;
use slm_runtime::streaming::{Check, Fault, OpenError, Reader, Sizes, Storage, Streamed, Traffic, sizes};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Bytes of the header page.
const PAGE_BYTES: usize = 4096;

/// A file that is read, whose errors are kept by the caller of the runtime: it knows only that bytes did not come.
struct FileReader(File);

impl Reader for FileReader {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.0.seek(SeekFrom::Start(offset)).map_err(|_| Fault::Failed)?;
        let mut count = 0;
        while count < buffer.len() {
            match self.0.read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Fault::Failed),
            }
        }
        Ok(count)
    }
}

/// A read that a thread does.
struct Job {
    offset: u64,
    bytes: usize,
    buffer: Vec<u8>,
}

/// A file behind two buffers, one of which a thread fills while the other is in use.
pub struct FileAhead {
    reader: FileReader,
    /// Empty while the thread has one.
    buffers: [Vec<u8>; 2],
    jobs: Option<Sender<Job>>,
    done: Receiver<(Vec<u8>, Result<usize, Fault>)>,
    thread: Option<JoinHandle<()>>,
}

impl FileAhead {
    /// With buffers of some bytes each.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, buffer_bytes: usize) -> std::io::Result<Self> {
        let (reader, mut ahead) = (FileReader(File::open(path)?), FileReader(File::open(path)?));
        let (jobs, asked) = channel::<Job>();
        let (answer, done) = channel();
        let thread = std::thread::spawn(move || {
            for Job { offset, bytes, mut buffer } in asked {
                let found = buffer.get_mut(..bytes).ok_or(Fault::Failed).and_then(|part| ahead.read(offset, part));
                if answer.send((buffer, found)).is_err() {
                    return;
                }
            }
        });
        let buffers = [vec![0; buffer_bytes], vec![0; buffer_bytes]];
        Ok(FileAhead { reader, buffers, jobs: Some(jobs), done, thread: Some(thread) })
    }
}

impl Drop for FileAhead {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It does nothing that panics.
            let _ = thread.join();
        }
    }
}

impl Reader for FileAhead {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.reader.read(offset, buffer)
    }
}

impl Storage for FileAhead {
    fn buffer(&mut self, number: usize) -> &mut [u8] {
        &mut self.buffers[number & 1]
    }

    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault> {
        let buffer = self.buffers[number & 1].get_mut(..bytes).ok_or(Fault::Failed)?;
        self.reader.read(offset, buffer)
    }

    fn begin(&mut self, number: usize, offset: u64, bytes: usize) -> bool {
        let Some(jobs) = &self.jobs else { return false };
        let buffer = std::mem::take(&mut self.buffers[number & 1]);
        match jobs.send(Job { offset, bytes, buffer }) {
            Ok(()) => true,
            Err(returned) => {
                self.buffers[number & 1] = returned.0.buffer;
                false
            }
        }
    }

    fn finish(&mut self, number: usize) -> Result<usize, Fault> {
        let (buffer, found) = self.done.recv().map_err(|_| Fault::Failed)?;
        self.buffers[number & 1] = buffer;
        found
    }
}

/// Why an artifact is not streamed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The file cannot be opened.
    #[error("{}: cannot be read", path.display())]
    Open {
        /// The artifact.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// It is refused.
    #[error("{}: {error}", path.display())]
    Refused {
        /// The artifact.
        path: PathBuf,
        /// The reason.
        error: OpenError,
    },
    /// It does not run.
    #[error("{}: streamed, it does not run: {error}", path.display())]
    Session {
        /// The artifact.
        path: PathBuf,
        /// The reason.
        error: SessionError,
    },
    /// The artifact as a whole.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// What a streamed artifact read, and the memory for it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StreamingReport {
    /// The device part without the weights.
    pub image_bytes: u64,
    /// Tensors that stay in RAM.
    pub resident_bytes: u64,
    /// Each of the two buffers.
    pub buffer_bytes: u64,
    /// Positions that were computed.
    pub positions: u64,
    /// Bytes read for them.
    pub read_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Of these, begun while the piece before was computed with, and used.
    pub ahead: u64,
}

impl StreamingReport {
    /// A sentence.
    pub fn sentence(&self) -> String {
        let each = self.read_bytes.checked_div(self.positions).unwrap_or(0);
        format!(
            "{} bytes in {} reads, {} a position; {} reads ahead; in RAM {} of weights, {} of the rest, two buffers of {}",
            self.read_bytes, self.reads, each, self.ahead, self.resident_bytes, self.image_bytes, self.buffer_bytes
        )
    }
}

/// The resident part of an artifact, in memory of its size.
pub struct ResidentPart {
    path: PathBuf,
    sizes: Sizes,
    memory: SessionMemory,
    storage: FileAhead,
}

impl ResidentPart {
    /// Reads what the artifact needs from its header page, and allocates that.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn new(path: &Path) -> Result<Self, StreamError> {
        let open = |source| StreamError::Open { path: path.to_owned(), source };
        let refused = |error| StreamError::Refused { path: path.to_owned(), error };
        let mut page = vec![0; PAGE_BYTES];
        let mut first = FileReader(File::open(path).map_err(open)?);
        let sizes = sizes(&mut first, &mut page).map_err(refused)?;
        let memory = SessionMemory::of_bytes(sizes.memory_bytes());
        let storage = FileAhead::open(path, sizes.buffer_bytes as usize).map_err(open)?;
        Ok(ResidentPart { path: path.to_owned(), sizes, memory, storage })
    }

    /// Reads the resident part into the memory, and gives it with the storage of the rest.
    ///
    /// # Errors
    /// [`StreamError::Refused`].
    pub fn load(&mut self, check: Check) -> Result<(Streamed<'_>, &mut FileAhead), StreamError> {
        let (memory, storage) = (self.memory.as_mut_slice(), &mut self.storage);
        match Streamed::open(storage, memory, &Software, check) {
            Ok(streamed) => Ok((streamed, storage)),
            Err(error) => Err(StreamError::Refused { path: self.path.clone(), error }),
        }
    }

    /// The memory that it needs.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }
}

/// What was read for some positions.
pub fn report(sizes: Sizes, traffic: Traffic, positions: u64) -> StreamingReport {
    StreamingReport {
        image_bytes: sizes.image_bytes,
        resident_bytes: sizes.resident_bytes,
        buffer_bytes: sizes.buffer_bytes,
        positions,
        read_bytes: traffic.bytes,
        reads: traffic.reads,
        ahead: traffic.ahead,
    }
}
