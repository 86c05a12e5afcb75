//! A page that runs an artifact in a browser, as a folder that any static server hands out (docs/page.md):
//!
//! ```text
//! index.html, *.js, style.css, icon.svg   the page (`site/`), the same for every model
//! relaxed.wasm, simd.wasm, scalar.wasm    the runtime as `wasm/build` compiled it, for browsers of three kinds
//! service-worker.js                       with a first line that names the files and their digest
//! piece-NNN-DIGEST.bin                    the artifact's device part, cut where a piece is full
//! page.json                               slmc.page/1: what the model is, and the digest of every file that is computed with
//! slmc.json                               how the artifact was made, and the mark of a directory that slmc may replace
//! ```
//!
//! Every name is relative, nothing is loaded from elsewhere, and the same artifact gives the same bytes.

use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::{AtomicError, NewDirectory};
use crate::disk::hash::hex;
use crate::machine::tool;
use crate::model::spec::{Head, ModelSpec};
use crate::report::grouped;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;
use slm_runtime::tokenizer::Tokenizer;
use std::io;
use std::path::{Path, PathBuf};

/// Most bytes of a piece: what servers and caches of browsers take without a word.
const PIECE_BYTES: usize = 16 << 20;
/// What says what the page runs.
const MANIFEST_FILE: &str = "page.json";
/// The worker that serves the page without a connection.
const SERVICE_WORKER_FILE: &str = "service-worker.js";
/// The layout that the vectors of WebAssembly multiply.
const LAYOUT: Layout = Layout::R8K4Offset8;

/// The files that every page has as they are.
const SITE: [(&str, &[u8]); 8] = [
    ("check.js", include_bytes!("page/site/check.js")),
    ("icon.svg", include_bytes!("page/site/icon.svg")),
    ("index.html", include_bytes!("page/site/index.html")),
    ("page.js", include_bytes!("page/site/page.js")),
    ("slm.js", include_bytes!("page/site/slm.js")),
    ("style.css", include_bytes!("page/site/style.css")),
    ("views.js", include_bytes!("page/site/views.js")),
    ("worker.js", include_bytes!("page/site/worker.js")),
];
/// What serves them without a connection, after its first line.
const SERVICE_WORKER: &str = include_str!("page/site/service-worker.js");

/// The runtime with 128-bit vectors and products of bytes, with vectors, and without.
const PROGRAMS: [(&str, &str, &[u8]); 3] = [
    ("relaxed", "relaxed.wasm", include_bytes!("page/data/relaxed.wasm")),
    ("simd", "simd.wasm", include_bytes!("page/data/simd.wasm")),
    ("scalar", "scalar.wasm", include_bytes!("page/data/scalar.wasm")),
];

/// Why a page is refused.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The weights are laid out for other vectors.
    #[error("a page needs weights in the layout {}, which the vectors of WebAssembly multiply, and target {target} has {found}; compile with --target wasm32", LAYOUT.name())]
    Layout {
        /// The target.
        target: String,
        /// Its layout.
        found: &'static str,
    },
    /// There is nothing that a person could do with the output.
    #[error(
        "a page shows texts, answers, labels of texts or how alike two texts are, and this model gives {what}; leave out --page"
    )]
    Output {
        /// The output.
        what: &'static str,
    },
    /// A browser has no tokenizer but the artifact's.
    #[error(
        "a page makes tokens with the artifact's own tokenizer, and this one is host-only: {reason}; leave out --page"
    )]
    HostOnly {
        /// What the device has no code for.
        reason: String,
    },
    /// The artifact that was compiled does not open.
    #[error("the artifact does not open: {0}; please report this")]
    Artifact(slm_runtime::format::FormatError),
    /// A file of the page.
    #[error("{}: cannot be written; check permissions and free space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The directory cannot be made, or is not slmc's.
    #[error(transparent)]
    Directory(#[from] AtomicError),
}

/// What a page is made of.
pub struct Page<'a> {
    /// Name of the model, for people.
    pub name: &'a str,
    /// What it is, in a line.
    pub summary: String,
    /// The artifact's bytes, whole or its device part.
    pub artifact: &'a [u8],
    /// Length of the device part.
    pub device_bytes: usize,
    /// Its shape, with the labels of a classifier.
    pub spec: &'a ModelSpec,
    /// Why the tokenizer is host-only, where it is.
    pub host_only: Option<&'a str>,
    /// How the artifact was made.
    pub provenance: &'a Value,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct PageReport {
    /// Files of the folder.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Of the files, those that the artifact is cut into.
    pub pieces: usize,
}

impl PageReport {
    /// In words.
    pub fn words(&self) -> String {
        let pieces = if self.pieces == 1 { "one piece".to_owned() } else { format!("{} pieces", self.pieces) };
        format!("{} bytes in {} files, the artifact in {pieces}", grouped(self.bytes), self.files)
    }
}

/// A file that is computed with, as page.json states it.
fn stated(file: &str, bytes: &[u8]) -> Value {
    json!({ "file": file, "bytes": bytes.len(), "sha256": sha256(bytes) })
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes).into())
}

/// Whether a page can show what a model gives.
///
/// # Errors
/// [`PageError::Output`].
pub fn check_model(spec: &ModelSpec) -> Result<(), PageError> {
    match spec.head {
        Head::LanguageModel { .. } | Head::Classifier { .. } | Head::LastClassifier { .. } => Ok(()),
        Head::Hidden if spec.embedding.is_some() => Ok(()),
        Head::Hidden => Err(PageError::Output { what: "the hidden state of every token" }),
        Head::MaskedLanguageModel { .. } => Err(PageError::Output { what: "logits of masked tokens" }),
        Head::TokenClassifier { .. } => Err(PageError::Output { what: "labels of tokens" }),
        Head::Answers { .. } => Err(PageError::Output { what: "where an answer starts and ends" }),
    }
}

/// Whether the weights of a target are those that a browser's vectors multiply.
///
/// # Errors
/// [`PageError::Layout`].
pub fn check_layout(target: &str, layout: Layout) -> Result<(), PageError> {
    match layout == LAYOUT {
        true => Ok(()),
        false => Err(PageError::Layout { target: target.to_owned(), found: layout.name() }),
    }
}

/// A page under construction: dropped without [`NewPage::commit`], nothing of it remains.
pub struct NewPage {
    directory: NewDirectory,
    target: PathBuf,
    report: PageReport,
}

impl NewPage {
    /// Writes all files of a page into a temporary sibling of `target`.
    ///
    /// # Errors
    /// The model has nothing to show, the directory is not slmc's, or a file cannot be written.
    pub fn begin(page: &Page<'_>, target: &Path) -> Result<Self, PageError> {
        let device = &page.artifact[..page.device_bytes];
        check_model(page.spec)?;
        if Tokenizer::of(&ArtifactView::open(device).map_err(PageError::Artifact)?).is_none() {
            let reason = page.host_only.unwrap_or("the artifact has no tables for it").to_owned();
            return Err(PageError::HostOnly { reason });
        }
        let labels = page.spec.head.labels();
        let report = PageReport { files: 0, bytes: 0, pieces: 0 };
        let mut new = NewPage { directory: NewDirectory::begin(target)?, target: target.to_owned(), report };
        let mut pieces = Vec::new();
        for (index, piece) in device.chunks(PIECE_BYTES).enumerate() {
            let file = format!("piece-{index:03}-{}.bin", &sha256(piece)[..16]);
            new.write(&file, piece)?;
            pieces.push(stated(&file, piece));
        }
        new.report.pieces = pieces.len();
        let programs: serde_json::Map<String, Value> =
            PROGRAMS.iter().map(|(name, file, bytes)| ((*name).to_owned(), stated(file, bytes))).collect();
        let manifest = json!({
            "schema": "slmc.page/1",
            "tool": tool(),
            "model": { "name": page.name, "summary": page.summary },
            "programs": programs,
            "artifact": { "bytes": device.len(), "sha256": sha256(device), "pieces": pieces },
            "labels": labels,
        });
        let manifest = format!("{manifest:#}\n");
        for (file, bytes) in SITE.into_iter().chain(PROGRAMS.map(|(_, file, bytes)| (file, bytes))) {
            new.write(file, bytes)?;
        }
        new.write(MANIFEST_FILE, manifest.as_bytes())?;
        new.write(SERVICE_WORKER_FILE, service_worker(&manifest, &pieces).as_bytes())?;
        new.write(PROVENANCE_FILE, format!("{:#}\n", page.provenance).as_bytes())?;
        Ok(new)
    }

    /// Puts the page in its place.
    ///
    /// # Errors
    /// The directory cannot be replaced.
    pub fn commit(self) -> Result<PageReport, PageError> {
        self.directory.commit()?;
        Ok(self.report)
    }

    fn write(&mut self, file: &str, bytes: &[u8]) -> Result<(), PageError> {
        let fault = |source| PageError::Write { path: self.target.join(file), source };
        self.directory.write(file, bytes).map_err(fault)?;
        self.report.files += 1;
        self.report.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The service worker of a page: a line with its files, and a version that changes with any of them.
fn service_worker(manifest: &str, pieces: &[Value]) -> String {
    let mut all = Sha256::new();
    let contents = SITE.iter().map(|(_, bytes)| *bytes).chain(PROGRAMS.iter().map(|(_, _, bytes)| *bytes));
    for bytes in contents.chain([SERVICE_WORKER.as_bytes(), manifest.as_bytes()]) {
        all.update((bytes.len() as u64).to_le_bytes());
        all.update(bytes);
    }
    let mut files: Vec<&str> = SITE.iter().map(|(file, _)| *file).collect();
    files.extend(PROGRAMS.iter().map(|(_, file, _)| *file));
    files.push(MANIFEST_FILE);
    let pieces: Vec<&Value> = pieces.iter().map(|piece| &piece["file"]).collect();
    let line = json!({ "version": hex(&all.finalize().into()), "files": files, "pieces": pieces });
    format!("const PAGE = {line};\n{SERVICE_WORKER}")
}

/// The command that serves a page, for a person to copy.
pub fn serving(directory: &Path) -> String {
    let shown = directory.display().to_string();
    let plain = shown.chars().all(|character| character.is_alphanumeric() || "/._-".contains(character));
    let shown = if plain { shown } else { format!("'{}'", shown.replace('\'', r"'\''")) };
    format!("python3 -m http.server -d {shown}, then open http://localhost:8000")
}
