//! An entry: the outputs of a stage by their blobs, and what slmc says about them. On the wire it is Bazel's ActionResult, so
//! that caches which check their entries take it and guard against entries whose blobs are gone:
//!
//! ```text
//! output_files   output             an artifact                     stdout_raw   {"schema":"slmc.entry/3","key":{…},"kind":…,
//!                output/NAME        a file of a directory                         "report":{…},"seconds":…,"made_by":…,…}
//!                writes/OPTION      a file that an option names    exit_code    0
//!                PATH#0001, …       pieces of 256 MiB of a longer file    stderr_raw   {"sha256":…,"signature":…}
//! ```
//!
//! The digest of the key's canonical JSON is the name of the entry; an entry whose key says something else is foreign. The JSON
//! part is kept as it came, byte for byte: it is signed, and numbers may be read and written in more than one way. `sha256` is
//! of what is signed, in entries that are not signed too: the report of an entry is believed as much as its files are.

use super::protobuf::{ActionResult, OutputFile};
use super::signature::Signature;
use super::{Blob, Digest};
use crate::disk::PROVENANCE_FILE;
use crate::disk::hash::names_sha256;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Schema of the JSON part.
pub const SCHEMA: &str = "slmc.entry/3";
/// The same without its version.
const FAMILY: &str = "slmc.entry/";
/// Bytes of a piece: below every server's limit, so that no upload of several parts is needed.
pub(super) const PIECE: u64 = 256 << 20;
/// Path of an artifact, and of the directory that a stage makes.
const OUTPUT: &str = "output";
/// Paths of files that options name.
const WRITES: &str = "writes";
/// Longest path of a file.
const LONGEST_PATH: usize = 512;

/// A file of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryFile {
    /// Such as `output/config.json`.
    pub path: String,
    /// Hash of the whole file.
    pub digest: Digest,
    /// Its content, in pieces of 256 MiB where it is longer.
    pub pieces: Vec<Blob>,
}

/// The JSON part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// [`SCHEMA`].
    pub schema: String,
    /// Everything that decides the result.
    pub key: Value,
    /// The stage's subcommand.
    pub kind: String,
    /// Its report.
    pub report: Value,
    /// Wall time it took.
    pub seconds: f64,
    /// Most memory that was resident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Name and version of the program.
    pub made_by: String,
    /// Class of the f32 work; absent where there was none.
    pub numerics: Option<String>,
    /// Digests of files that are cut into pieces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub whole: BTreeMap<String, Digest>,
}

/// The part that stands for the others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    /// SHA-256 of [`Entry::message`].
    sha256: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// In the order of their paths.
    pub files: Vec<EntryFile>,
    /// The JSON part.
    pub about: About,
    /// The same as it is written.
    said: Vec<u8>,
    /// Over everything else, where the writer has a key.
    pub(super) signature: Option<Signature>,
}

/// JSON with the keys of every object sorted and no spaces: equal values have equal bytes.
pub fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(object) => {
                let fields: BTreeMap<&String, &Value> = object.iter().collect();
                Value::Object(
                    fields.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect::<Map<_, _>>(),
                )
            }
            Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

/// The name of the entry of a key.
pub fn digest_of(key: &Value) -> Digest {
    Digest::of(canonical(key).as_bytes())
}

impl Entry {
    /// A result that was just made.
    pub fn new(files: Vec<EntryFile>, mut about: About) -> Self {
        let several = files.iter().filter(|file| file.pieces.len() > 1);
        about.whole = several.map(|file| (file.path.clone(), file.digest)).collect();
        let said = serde_json::to_vec(&about).unwrap_or_default();
        Entry { files, about, said, signature: None }
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let one = |(path, blob): (String, &Blob)| OutputFile { path, hash: blob.digest.to_string(), size: blob.size };
        let output_files = self.pieces().map(one).collect();
        let seal = Seal { sha256: Digest::of(&self.message()), signature: self.signature.clone() };
        let stderr_raw = serde_json::to_vec(&seal).unwrap_or_default();
        ActionResult { output_files, exit_code: 0, stdout_raw: self.said.clone(), stderr_raw }.encode()
    }

    /// Every piece with its path on the wire.
    fn pieces(&self) -> impl Iterator<Item = (String, &Blob)> {
        self.files.iter().flat_map(|file| {
            let one = file.pieces.len() == 1;
            file.pieces.iter().enumerate().map(move |(n, blob)| {
                (if one { file.path.clone() } else { format!("{}#{:04}", file.path, n + 1) }, blob)
            })
        })
    }

    /// The entry of a key, or what is wrong with it.
    ///
    /// # Errors
    /// The fault.
    pub fn decode(key: &Digest, bytes: &[u8]) -> Result<Self, String> {
        let entry = Self::parse(bytes)?;
        match digest_of(&entry.about.key) == *key {
            true => Ok(entry),
            false => Err("is that of another key".to_owned()),
        }
    }

    /// Whether an entry is of another version of this form: one that an earlier or later slmc left. It is none, and no fault.
    pub fn is_of_another_version(bytes: &[u8]) -> bool {
        let about = ActionResult::decode(bytes).and_then(|message| serde_json::from_slice(&message.stdout_raw).ok());
        about.is_some_and(|about: Value| {
            about["schema"].as_str().is_some_and(|schema| schema.starts_with(FAMILY) && schema != SCHEMA)
        })
    }

    /// The entry of whatever key it says.
    ///
    /// # Errors
    /// The fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let message = ActionResult::decode(bytes).ok_or("is not an ActionResult")?;
        if message.exit_code != 0 {
            return Err(format!("has exit code {}, expected 0", message.exit_code));
        }
        let about: About = serde_json::from_slice(&message.stdout_raw)
            .map_err(|error| format!("was not written by this slmc: {error}"))?;
        if about.schema != SCHEMA {
            return Err(format!("has schema `{}`, expected {SCHEMA}", about.schema));
        }
        let Seal { sha256, signature } = serde_json::from_slice(&message.stderr_raw)
            .map_err(|error| format!("has no SHA-256 of itself where one should be: {error}"))?;
        let mut entry = Entry { files: Vec::new(), about, said: message.stdout_raw, signature };
        for file in message.output_files {
            let digest = file.hash.parse().map_err(|error| format!("names a blob badly: {error}"))?;
            let blob = Blob { digest, size: file.size };
            entry.add(&file.path, blob)?;
        }
        match entry.files.iter().find(|file| file.pieces.len() == 1 && file.digest != file.pieces[0].digest) {
            Some(file) => Err(format!("has one piece of the file `{}`", file.path)),
            None if Digest::of(&entry.message()) != sha256 => {
                Err("does not have the SHA-256 that it says: it was changed or damaged".to_owned())
            }
            None => Ok(entry),
        }
    }

    fn add(&mut self, path: &str, blob: Blob) -> Result<(), String> {
        let (path, number) = match path.rsplit_once('#') {
            None => (path, None),
            Some((path, number)) => {
                (path, Some(number.parse::<usize>().map_err(|_| format!("has a file `{path}#{number}`"))?))
            }
        };
        if !is_a_path(path) {
            return Err(format!("has a file `{}`", path.chars().take(80).collect::<String>()));
        }
        let last = self.files.last_mut().filter(|file| file.path == path);
        match (number, last) {
            (None, None) => {
                self.files.push(EntryFile { path: path.to_owned(), digest: blob.digest, pieces: vec![blob] })
            }
            (Some(1), None) => {
                let digest = *self.about.whole.get(path).ok_or_else(|| format!("lacks the digest of `{path}`"))?;
                self.files.push(EntryFile { path: path.to_owned(), digest, pieces: vec![blob] });
            }
            (Some(number), Some(file)) if number == file.pieces.len() + 1 => file.pieces.push(blob),
            _ => return Err(format!("has the file `{path}` out of order")),
        }
        let ordered =
            self.files.len() < 2 || self.files[self.files.len() - 2].path < self.files[self.files.len() - 1].path;
        if ordered { Ok(()) } else { Err(format!("has the file `{path}` out of order")) }
    }

    /// Every blob, in the order of the files.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.files.iter().flat_map(|file| &file.pieces)
    }

    /// The hash of the output as slmc names inputs: of a file's content, or of a directory's names and contents.
    pub fn output(&self) -> Option<Digest> {
        let file = |path: &str| self.files.iter().find(|file| file.path == path);
        if let Some(file) = file(OUTPUT) {
            return Some(file.digest);
        }
        let counted: Vec<_> = self
            .in_directory()
            .filter(|(name, _)| counts(name))
            .map(|(name, digest)| (name.as_bytes(), digest.0))
            .collect();
        (!counted.is_empty()).then(|| Digest(names_sha256(&counted)))
    }

    /// Files of the directory, by their names there.
    fn in_directory(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.files.iter().filter_map(|file| Some((inside(&file.path)?, file.digest)))
    }

    /// The hash of what the directory holds beside that: slmc.json and files of subdirectories; see
    /// [`rest_of`].
    pub fn rest(&self) -> Option<Digest> {
        let rest: Vec<(String, Digest)> = self
            .in_directory()
            .filter(|(name, _)| !counts(name))
            .map(|(name, digest)| (name.to_owned(), digest))
            .collect();
        rest_of(rest)
    }

    /// What is hashed, and signed: key, kind, every piece, and everything else that is said.
    ///
    /// ```text
    /// slmc-entry/3
    /// KEY
    /// KIND
    /// PATH SIZE SHA256         a line for every piece, PATH with #0001 where there are several
    /// SHA-256 of the JSON part as it is written
    /// ```
    pub(super) fn message(&self) -> Vec<u8> {
        let mut text = format!("slmc-entry/3\n{}\n{}\n", digest_of(&self.about.key), self.about.kind);
        for (path, Blob { digest, size }) in self.pieces() {
            let _ = writeln!(text, "{path} {size} {digest}");
        }
        let _ = writeln!(text, "{}", Digest::of(&self.said));
        text.into_bytes()
    }
}

/// Whether a file counts in the hash of its directory.
fn counts(name: &str) -> bool {
    name != PROVENANCE_FILE && !name.contains('/') && !name.starts_with('.')
}

/// The hash of files that the hash of their directory leaves out, `None` where there are none: as that of a directory, over
/// paths in place of names.
pub fn rest_of(mut files: Vec<(String, Digest)>) -> Option<Digest> {
    files.sort();
    let named: Vec<_> = files.iter().map(|(name, digest)| (name.as_bytes(), digest.0)).collect();
    (!named.is_empty()).then(|| Digest(names_sha256(&named)))
}

/// Where in its directory a file is.
pub(super) fn inside(path: &str) -> Option<&str> {
    path.strip_prefix(OUTPUT)?.strip_prefix('/')
}

/// The option that names a file, or the directory that it is in; and its name there.
pub(super) fn of_option(path: &str) -> Option<(&str, Option<&str>)> {
    let rest = path.strip_prefix(WRITES)?.strip_prefix('/')?;
    Some(rest.split_once('/').map_or((rest, None), |(option, name)| (option, Some(name))))
}

/// The path of a file in a directory.
pub(super) fn in_output(name: &str) -> String {
    format!("{OUTPUT}/{name}")
}

/// The path of a file that an option names.
pub(super) fn by_option(option: &str) -> String {
    format!("{WRITES}/{option}")
}

/// The path of an artifact.
pub(super) fn is_output(path: &str) -> bool {
    path == OUTPUT
}

/// Whether a path is one that slmc writes: an entry comes from anywhere, and must lead nowhere else.
fn is_a_path(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', ':', '#']);
    let known = is_output(path) || inside(path).is_some() || of_option(path).is_some();
    known && path.len() <= LONGEST_PATH && path.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(path: &str, sizes: &[u64]) -> EntryFile {
        let blob = |size: &u64| Blob { digest: Digest::of(&size.to_le_bytes()), size: *size };
        let pieces: Vec<Blob> = sizes.iter().map(blob).collect();
        let digest = if pieces.len() == 1 { pieces[0].digest } else { Digest::of(path.as_bytes()) };
        EntryFile { path: path.to_owned(), digest, pieces }
    }

    fn sample(files: Vec<EntryFile>) -> (Digest, Entry) {
        let key = json!({"kind": "quantize", "revision": 1});
        let about = About {
            schema: SCHEMA.to_owned(),
            key: key.clone(),
            kind: "quantize".to_owned(),
            report: json!({"weight_bytes": 3}),
            seconds: 1.5,
            peak_memory_bytes: None,
            made_by: "slmc 0".to_owned(),
            numerics: None,
            whole: BTreeMap::new(),
        };
        (digest_of(&key), Entry::new(files, about))
    }

    #[test]
    fn an_entry_is_read_back() {
        let files = vec![
            file("output/config.json", &[7]),
            file("output/model.safetensors", &[PIECE, PIECE, 3]),
            file("writes/metrics", &[0]),
        ];
        let (key, entry) = sample(files);
        let read = Entry::decode(&key, &entry.encode()).expect("it is sound");
        assert_eq!(read, entry);
        assert_eq!(read.message(), entry.message());
        assert_eq!(entry.blobs().count(), 5);
        let other = digest_of(&json!({"kind": "prune"}));
        assert_eq!(Entry::decode(&other, &entry.encode()), Err("is that of another key".to_owned()));
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let (key, entry) = sample(vec![file("output", &[7])]);
        let bytes = entry.encode();
        let changed = |old: &str, new: &str| {
            let at = bytes.windows(old.len()).position(|part| part == old.as_bytes()).expect(old);
            [&bytes[..at], new.as_bytes(), &bytes[at + old.len()..]].concat()
        };
        for (old, new) in [("\"weight_bytes\":3", "\"weight_bytes\":2"), ("1.5", "1.4"), ("slmc 0", "slmc 1")] {
            let error = Entry::decode(&key, &changed(old, new)).expect_err(old);
            assert!(error.contains("does not have the SHA-256"), "{error}");
        }
        let older = changed("slmc.entry/3", "slmc.entry/2");
        assert!(Entry::is_of_another_version(&older) && Entry::decode(&key, &older).is_err());
        for bytes in [&bytes, &changed("slmc.entry/3", "slmc.report/3"), &b"<html>".to_vec()] {
            assert!(!Entry::is_of_another_version(bytes));
        }
    }

    #[test]
    fn the_hash_of_a_directory_follows_from_its_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut files = Vec::new();
        std::fs::create_dir(directory.path().join("1_Pooling")).expect("made");
        for name in ["1_Pooling/config.json", "a", "slmc.json", "z"] {
            std::fs::write(directory.path().join(name), name).expect("written");
            let blob = Blob { digest: Digest::of(name.as_bytes()), size: name.len() as u64 };
            files.push(EntryFile { path: in_output(name), digest: blob.digest, pieces: vec![blob] });
        }
        let (_, entry) = sample(files);
        let expected = crate::disk::hash::directory_sha256(directory.path()).expect("hashed");
        assert_eq!(entry.output(), Some(Digest(expected)));
        assert!(entry.rest().is_some());
        assert_eq!(sample(vec![file("output", &[5])]).1.output(), Some(Digest::of(&5u64.to_le_bytes())));
        assert_eq!(sample(Vec::new()).1.output(), None);
    }

    #[test]
    fn entries_lead_nowhere_else() {
        for path in [
            "../etc/passwd",
            "output/../x",
            "/output/x",
            "output//x",
            "other",
            "writes",
            "writes//a",
            "writes/a//b",
            "writes/a/../b",
            "output/a\\b",
            "output/..",
        ] {
            let (key, entry) = sample(vec![file(path, &[1])]);
            assert!(Entry::decode(&key, &entry.encode()).is_err(), "{path}");
        }
        for files in
            [vec![file("output/b", &[1]), file("output/a", &[1])], vec![file("output/a", &[1]), file("output/a", &[1])]]
        {
            let (key, entry) = sample(files);
            assert!(Entry::decode(&key, &entry.encode()).is_err());
        }
        let (key, entry) = sample(vec![file("output/a", &[1, 2])]);
        let swapped = entry.encode().windows(1).map(|byte| byte[0]).collect::<Vec<u8>>();
        let at = swapped.windows(4).position(|four| four == b"0001").expect("a piece");
        let mut bytes = swapped;
        bytes[at + 3] = b'2';
        assert!(Entry::decode(&key, &bytes).is_err());
    }

    #[test]
    fn canonical_json_sorts_at_every_depth() {
        let value: Value = serde_json::from_str(r#"{"b":[{"d":1,"c":null}],"a":2e-3}"#).expect("JSON");
        assert_eq!(canonical(&value), r#"{"a":0.002,"b":[{"c":null,"d":1}]}"#);
    }
}
