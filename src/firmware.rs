//! `slmc compile --firmware DIR`: a folder that builds into a program of a device. It holds the artifact as a linkable object, the
//! header of the C interface, the planned memory as sizes of static arrays, a main that generates, the runtime's sources, and what
//! CMake, Zephyr, ESP-IDF and PlatformIO need; its README.md is notes whose commands tests run word for word (docs/firmware.md).
//!
//! | file | contents |
//! |---|---|
//! | `machine` | machines of object files, emulated boards |
//! | `object` | the artifact as an ELF object |
//! | `headers` | `model_memory.h`, `firmware_config.h` |
//! | `runtime` | the crate that the folder carries |
//! | `notes` | README.md |
//! | `place` | which folders may be replaced |
//! | `folder/` | the files that are the same for every artifact |

mod headers;
mod machine;
mod notes;
mod object;
mod place;
mod runtime;

use crate::compile::fit::Footprint;
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::{AtomicError, NewDirectory};
use crate::disk::hash::{HashError, hex, sha256};
use crate::report::{Table, grouped};
use crate::target::Target;
use serde::Serialize;
use serde_json::{Value, json};
use slm_runtime::format::artifact::ArtifactView;
use std::path::{Path, PathBuf};

pub use headers::{BEGINNING, session_bytes};
pub use place::check;

/// Why a folder was not written.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The folder, or a file of it.
    #[error(transparent)]
    Atomic(#[from] AtomicError),
    /// A file of a folder that is there.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A directory that slmc made for something other than firmware.
    #[error("{}: holds something else that slmc made, no firmware; pass another folder for --firmware", path.display())]
    Another {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that somebody went on working in.
    #[error(
        "{}: `{file}` {how} since slmc wrote the folder, and would be lost; move the folder away, or pass another for --firmware",
        path.display()
    )]
    Changed {
        /// The folder.
        path: PathBuf,
        /// The first such file.
        file: String,
        /// What happened to it.
        how: &'static str,
    },
    /// No object of the target's machine has room for it.
    #[error("the artifact cannot be an object for {machine}: {reason}; leave --firmware out")]
    Object {
        /// The machine.
        machine: &'static str,
        /// The writer's words.
        reason: String,
    },
    /// The runtime's own manifest: a defect of slmc.
    #[error("the runtime's manifest cannot be read, which is a defect of slmc")]
    Manifest(#[source] toml::de::Error),
    /// The notes do not render: a defect of slmc.
    #[error("the notes cannot be written, which is a defect of slmc")]
    Notes(#[source] minijinja::Error),
}

/// What a folder is made of.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// The artifact's device part, opened.
    pub view: &'a ArtifactView<'a>,
    /// The device.
    pub target: &'a Target,
    /// What the plan says.
    pub footprint: Footprint,
    /// Names of a classifier's labels; empty for other models.
    pub labels: &'a [String],
    /// Tokens of [`BEGINNING`], where only hosts have the tokenizer.
    pub prompt_tokens: &'a [u32],
}

/// A file of the folder, or the runtime's as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Path below the folder.
    pub path: String,
    /// Length; of the runtime all its files together.
    pub bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirmwareReport {
    /// Boards that the folder builds for, `host` first.
    pub boards: Vec<&'static str>,
    /// The linkable object; absent where the target names no machine with ELF objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Features of the runtime that the artifact needs.
    pub features: Vec<String>,
    /// Static memory of a session, the planned arena and cache among it.
    pub session_bytes: u64,
    /// Files, the folder `runtime/` as one.
    pub files: Vec<Written>,
}

impl FirmwareReport {
    /// Rows of a report of compilation.
    pub fn rows(&self, table: &mut Table) {
        table.row(["firmware", &format!("for {}", self.boards.join(", "))]);
        if let Some(object) = &self.object {
            table.row(["  object", object]);
        }
        let features = if self.features.is_empty() { "none".to_owned() } else { self.features.join(", ") };
        table.row(["  runtime", &format!("optional features: {features}")]);
        table.row(["  session", &format!("{} bytes of static memory", grouped(self.session_bytes))]);
        let bytes: u64 = self.files.iter().map(|file| file.bytes).sum();
        table.row(["  files", &format!("{} bytes", grouped(bytes))]);
    }
}

/// A folder that is whole, and not yet in its place.
#[derive(Debug)]
pub struct Pending {
    directory: NewDirectory,
    /// What it holds.
    pub report: FirmwareReport,
}

impl Pending {
    /// Renames it into place.
    ///
    /// # Errors
    /// A folder that came there meanwhile, or a failing file system.
    pub fn commit(self) -> Result<FirmwareReport, FirmwareError> {
        self.directory.commit()?;
        Ok(self.report)
    }
}

/// Files that are the same for every artifact, by path.
const SAME: [(&str, &str); 23] = [
    ("CMakeLists.txt", include_str!("firmware/folder/CMakeLists.txt")),
    ("artifact/model.S", include_str!("firmware/folder/artifact/model.S")),
    ("boards/host/board.cmake", include_str!("firmware/folder/boards/host/board.cmake")),
    ("boards/host/port.c", include_str!("firmware/folder/boards/host/port.c")),
    ("cmake/runtime.cmake", include_str!("firmware/folder/cmake/runtime.cmake")),
    ("esp-idf/CMakeLists.txt", include_str!("firmware/folder/esp-idf/CMakeLists.txt")),
    ("esp-idf/main/CMakeLists.txt", include_str!("firmware/folder/esp-idf/main/CMakeLists.txt")),
    ("esp-idf/main/app_main.c", include_str!("firmware/folder/esp-idf/main/app_main.c")),
    ("include/firmware.h", include_str!("firmware/folder/include/firmware.h")),
    ("include/port.h", include_str!("firmware/folder/include/port.h")),
    ("include/slm.h", runtime::HEADER),
    ("platformio.ini", include_str!("firmware/folder/platformio.ini")),
    ("platformio/runtime.py", include_str!("firmware/folder/platformio/runtime.py")),
    ("src/firmware.c", include_str!("firmware/folder/src/firmware.c")),
    ("src/main.c", include_str!("firmware/folder/src/main.c")),
    ("src/say.h", include_str!("firmware/folder/src/say.h")),
    ("zephyr/CMakeLists.txt", include_str!("firmware/folder/zephyr/CMakeLists.txt")),
    ("zephyr/Kconfig", include_str!("firmware/folder/zephyr/Kconfig")),
    ("zephyr/app/CMakeLists.txt", include_str!("firmware/folder/zephyr/app/CMakeLists.txt")),
    ("zephyr/app/main.c", include_str!("firmware/folder/zephyr/app/main.c")),
    ("zephyr/app/prj.conf", include_str!("firmware/folder/zephyr/app/prj.conf")),
    ("zephyr/module.yml", include_str!("firmware/folder/zephyr/module.yml")),
    (".gitignore", include_str!("firmware/folder/gitignore")),
];

/// Files of boards with a Cortex-M, by path.
const CORTEX_M: [(&str, &str); 4] = [
    ("boards/cortex-m/gcc.cmake", include_str!("firmware/folder/boards/cortex-m/gcc.cmake")),
    ("boards/cortex-m/port.c", include_str!("firmware/folder/boards/cortex-m/port.c")),
    ("boards/cortex-m/sections.ld", include_str!("firmware/folder/boards/cortex-m/sections.ld")),
    ("boards/cortex-m/startup.c", include_str!("firmware/folder/boards/cortex-m/startup.c")),
];

/// Files of one board, by the board and the path.
const OF_BOARD: [(&str, &str, &str); 4] = [
    ("mps2-an386", "boards/mps2-an386/board.cmake", include_str!("firmware/folder/boards/mps2-an386/board.cmake")),
    ("mps2-an386", "boards/mps2-an386/board.ld", include_str!("firmware/folder/boards/mps2-an386/board.ld")),
    ("mps3-an547", "boards/mps3-an547/board.cmake", include_str!("firmware/folder/boards/mps3-an547/board.cmake")),
    ("mps3-an547", "boards/mps3-an547/board.ld", include_str!("firmware/folder/boards/mps3-an547/board.ld")),
];

/// Writes the folder beside its place. `made` is the provenance of the artifact, to which the digests of the files are added.
///
/// # Errors
/// A folder that may not be replaced, a file system that fails.
pub fn write(out: &Path, content: &Content<'_>, mut made: Value) -> Result<Pending, FirmwareError> {
    check(out)?;
    let board = machine::board(content.target);
    let machine = content.target.triple.as_deref().and_then(machine::machine);
    let needed = runtime::needed(content.view)?;
    let artifact = content.view.bytes();
    let mut files: Vec<(String, Vec<u8>)> =
        SAME.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    if let Some(board) = board {
        let own = OF_BOARD.iter().filter(|(name, ..)| *name == board.name).map(|(_, path, text)| (*path, *text));
        files.extend(CORTEX_M.into_iter().chain(own).map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())));
    }
    files.push(("include/model_memory.h".to_owned(), headers::memory(content).into_bytes()));
    files.push(("include/firmware_config.h".to_owned(), headers::config(content).into_bytes()));
    files.push(("artifact/model.slm".to_owned(), artifact.to_vec()));
    let object = machine.map(|machine| format!("artifact/model-{}.o", machine.name));
    if let Some((machine, path)) = machine.zip(object.as_ref()) {
        let bytes = object::object(artifact, machine)
            .map_err(|reason| FirmwareError::Object { machine: machine.name, reason })?;
        files.push((path.clone(), bytes));
    }
    files.extend(runtime::files(&needed)?.into_iter().map(|(path, bytes)| (format!("runtime/{path}"), bytes)));
    files.push(("README.md".to_owned(), notes::notes(content, board, object.as_deref(), &needed)?.into_bytes()));
    files.sort();
    let digests: serde_json::Map<String, Value> =
        files.iter().map(|(path, bytes)| (path.clone(), json!(hex(&sha256(bytes))))).collect();
    made[place::KEY] = Value::Object(digests);

    let directory = NewDirectory::begin(out)?;
    let io = |source| AtomicError::Io { action: "be written", path: out.to_owned(), source };
    for (path, bytes) in &files {
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(directory.path().join(folder)).map_err(io)?;
        }
        directory.write(path, bytes).map_err(io)?;
    }
    directory.write(PROVENANCE_FILE, format!("{made:#}\n")).map_err(io)?;
    let report = FirmwareReport {
        boards: std::iter::once("host").chain(board.map(|board| board.name)).collect(),
        object,
        features: needed,
        session_bytes: session_bytes(content),
        files: summary(&files),
    };
    Ok(Pending { directory, report })
}

/// The files with the runtime's as one.
fn summary(files: &[(String, Vec<u8>)]) -> Vec<Written> {
    let (of_runtime, own): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| path.starts_with("runtime/"));
    let one = |path: &str, bytes: u64| Written { path: path.to_owned(), bytes };
    let mut written: Vec<Written> = own.into_iter().map(|(path, bytes)| one(path, bytes.len() as u64)).collect();
    written.push(one("runtime/", of_runtime.iter().map(|(_, bytes)| bytes.len() as u64).sum()));
    written.sort_by(|a, b| a.path.cmp(&b.path));
    written
}
