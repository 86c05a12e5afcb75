//! Artifacts on this machine: a file mapped and checked, and the runtime's session in memory allocated for it.

use crate::disk::Found;
use crate::disk::found::SNIFFED_BYTES;
use crate::disk::mmap::MappedFile;
use crate::machine::huge_pages::{self, HugePages};
use crate::machine::kernels::kernels_for;
use crate::seal::SealingError;
use crate::text::tokenizer::TokenizerError;
use crate::trust::policy::PolicyError;
use slm_runtime::format::FormatError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::session::{Extent, Session, SessionError};
use slm_runtime::tokenizer::EncodeError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an artifact cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The artifact.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{}: {found}", path.display())]
    Found {
        /// What was passed.
        path: PathBuf,
        /// What it is.
        found: Found,
    },
    /// The file is damaged or of another kind.
    #[error("{}: {error}; {}", path.display(), remedy(error))]
    Format {
        /// The artifact.
        path: PathBuf,
        /// The fault.
        error: FormatError,
    },
    /// The signature does not hold, or is not by the keys given.
    #[error("{}: {error}", path.display())]
    Signature {
        /// The artifact.
        path: PathBuf,
        /// The reason.
        error: PolicyError,
    },
    /// The weights stay closed.
    #[error("{}: {error}", path.display())]
    Sealed {
        /// The artifact.
        path: PathBuf,
        /// The reason.
        error: Box<SealingError>,
    },
    /// The golden prompts do not run.
    #[error("{}: the golden prompts do not run: {error}", path.display())]
    Golden {
        /// Path of the artifact.
        path: PathBuf,
        /// The reason.
        error: SessionError,
    },
    /// The golden prompts give other logits than the file states.
    #[error(
        "{}: the golden prompts give logits with digest {found}, the artifact states {expected}: this machine does not \
         compute what the build machine did; please report it with the output of `slmc doctor`",
        path.display()
    )]
    GoldenDiffers {
        /// Path of the artifact.
        path: PathBuf,
        /// Digest in the file.
        expected: String,
        /// Digest of the computed logits.
        found: String,
    },
    /// The tokenizer of the host part cannot be used.
    #[error("{}: {error}", path.display())]
    HostTokenizer {
        /// Path of the artifact.
        path: PathBuf,
        /// The reason.
        error: Box<TokenizerError>,
    },
    /// The device's tokenizer stops at a text.
    #[error("{}: the device's tokenizer does not encode {text:?}: {error}", path.display())]
    DeviceTokenizer {
        /// Path of the artifact.
        path: PathBuf,
        /// The text.
        text: String,
        /// The reason.
        error: EncodeError,
    },
    /// Device and host make different tokens of a text.
    #[error("{}: the device's tokenizer makes {device:?} of {text:?}, the host's {host:?}; please report it", path.display())]
    TokensDiffer {
        /// Path of the artifact.
        path: PathBuf,
        /// The text.
        text: String,
        /// Tokens of the device.
        device: Vec<u32>,
        /// Tokens of the host.
        host: Vec<u32>,
    },
}

/// Remedy for a file that is refused.
fn remedy(error: &FormatError) -> &'static str {
    match error {
        FormatError::NotAnArtifact => "pass a file written by `slmc compile`, or a model directory",
        _ => "compile it again, or fetch an undamaged copy",
    }
}

/// A mapped artifact.
#[derive(Clone, Debug)]
pub struct ArtifactFile {
    file: Arc<MappedFile>,
    /// Read instead of the file's pages, where there is one.
    copy: Option<Arc<HugePages>>,
}

impl ArtifactFile {
    /// Maps a file and checks its structure and every digest.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let something_else = |found| ArtifactError::Found { path: path.to_owned(), found };
        let read = |source| match Found::dangling_link(path) {
            Some(found) => something_else(found),
            None => ArtifactError::Read { path: path.to_owned(), source },
        };
        let file = huge_pages::map_resident(path).map_err(read)?;
        let checked = ArtifactView::open(file.bytes()).and_then(|view| view.verify_digests());
        checked.map_err(|error| match Found::by_bytes(&file.bytes()[..file.bytes().len().min(SNIFFED_BYTES)]) {
            Some(found) if found != Found::Empty => something_else(found),
            _ => ArtifactError::Format { path: path.to_owned(), error },
        })?;
        Ok(ArtifactFile { file, copy: None })
    }

    /// The same artifact, read from a copy in huge pages.
    pub fn in_huge_pages(self) -> io::Result<Self> {
        let copy = HugePages::copy(self.file.bytes())?;
        Ok(ArtifactFile { copy: Some(Arc::new(copy)), ..self })
    }

    /// The same artifact, read from bytes in memory in the place of the file's: one whose weights were opened.
    pub fn read_from(self, bytes: &[u8]) -> io::Result<Self> {
        let copy = HugePages::copy(bytes)?;
        Ok(ArtifactFile { copy: Some(Arc::new(copy)), ..self })
    }

    /// How much of it is in huge pages by now; `None` where the system does not tell.
    pub fn huge_bytes(&self) -> Option<u64> {
        huge_pages::huge_bytes(self.bytes())
    }

    /// The file's pages, or the copy.
    fn bytes(&self) -> &[u8] {
        self.copy.as_ref().map_or(self.file.bytes(), |copy| copy.bytes())
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The artifact.
    pub fn view(&self) -> Result<ArtifactView<'_>, ArtifactError> {
        ArtifactView::open(self.bytes()).map_err(|error| ArtifactError::Format { path: self.path().to_owned(), error })
    }
}

/// Bytes that start on 64, as a session wants them.
pub struct SessionMemory {
    bytes: Vec<u8>,
    length: usize,
}

impl SessionMemory {
    /// Zeroed memory of exactly the size the artifact's plan states. Where this machine does not have as much it is
    /// empty, which a session refuses: a small file can state any size, and must not end the process.
    pub fn for_artifact(artifact: &ArtifactView<'_>) -> Self {
        SessionMemory::for_extent(artifact, Extent::PLANNED)
    }

    /// [`SessionMemory::for_artifact`] for a session that several workers run together, or one that reads several
    /// positions with their logits.
    pub fn for_extent(artifact: &ArtifactView<'_>, extent: Extent) -> Self {
        SessionMemory::of_bytes(Session::required_bytes_for(artifact, extent))
    }

    /// Zeroed memory of some bytes; empty where this machine does not have as much.
    pub fn of_bytes(bytes: u64) -> Self {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let there = length.checked_add(ALIGNMENT).filter(|&total| Vec::<u8>::new().try_reserve_exact(total).is_ok());
        let length = there.map_or(0, |_| length);
        SessionMemory { bytes: vec![0; length + ALIGNMENT], length }
    }

    /// The memory.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let start = self.bytes.as_ptr().align_offset(ALIGNMENT);
        &mut self.bytes[start..start + self.length]
    }
}

/// Output rows of one sequence, row-major, from a fresh session.
pub fn run_sequence(artifact: &ArtifactView<'_>, tokens: &[u32]) -> Result<Vec<f32>, SessionError> {
    let mut memory = SessionMemory::for_artifact(artifact);
    let mut session = Session::new(artifact, kernels_for(artifact.layout()), memory.as_mut_slice())?;
    let mut rows = Vec::with_capacity(tokens.len() * artifact.spec().output_width as usize);
    session.run(tokens, &mut |_, row| rows.extend_from_slice(row))?;
    Ok(rows)
}
