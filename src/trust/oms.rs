//! The OpenSSF model signature of a directory (Model Signing specification 1.0): a Sigstore bundle whose statement lists
//! every file below it.
//!
//! ```text
//! subject    {name: directory's name, digest: SHA-256 over the concatenated digests of `resources`}
//! predicate  resources      [{name: path from the directory with /, algorithm: "sha256", digest: HEX}], by name
//!            serialization  {method: "files", hash_type: "sha256", allow_symlinks: false, ignore_paths: […]}
//! ```
//!
//! `model_signing verify key DIR --signature DIR.sig --public-key KEY.pub` verifies it, as does slmc's own reader. Its hint is
//! the SHA-256 of the public key's PEM text, and its `keyid` is empty, as the specification has them. Keys of Ed25519 are not
//! in its registry of algorithms.

use super::bundle;
use super::statement::{Resource, Statement};
use super::{Algorithm, PublicKey, SecretKey, TrustError};
use crate::disk::atomic;
use crate::disk::hash::{file_sha256, hex, sha256};
use crate::report::Report;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is said about a directory.
const PREDICATE: &str = "https://model_signing/signature/v1.0";
/// Parts of a directory that are not the model's: what `model_signing` leaves out too.
const IGNORED: [&str; 4] = [".git", ".gitignore", ".gitattributes", ".github"];
/// Most files below a directory, and how deep they may lie: a directory above this is not a release.
const MOST_FILES: usize = 100_000;
const DEEPEST: usize = 64;

/// A directory that was signed.
#[derive(Debug, Serialize)]
pub struct OmsReport {
    /// The directory.
    directory: PathBuf,
    /// The signature.
    signature: PathBuf,
    /// Files that it is over.
    files: usize,
    /// SHA-256 over the digests of all files.
    root_sha256: String,
    /// The key.
    key_id: String,
}

impl Report for OmsReport {
    const SCHEMA: &'static str = "slmc.oms/1";

    fn text(&self) -> String {
        format!(
            "{}: {} files signed in {}\nkey id  {}",
            self.directory.display(),
            self.files,
            self.signature.display(),
            self.key_id
        )
    }
}

/// A directory that is the one that was signed.
#[derive(Debug, Serialize)]
pub struct OmsChecked {
    /// The directory.
    directory: PathBuf,
    /// Files that the signature is over.
    files: usize,
    /// SHA-256 over the digests of all files.
    root_sha256: String,
    /// The key.
    key_id: String,
}

impl Report for OmsChecked {
    const SCHEMA: &'static str = "slmc.oms-verify/1";

    fn text(&self) -> String {
        format!(
            "{}: {} files are those that were signed, and no others are there\nkey id  {}",
            self.directory.display(),
            self.files,
            self.key_id
        )
    }
}

/// Signs a directory into a file.
///
/// # Errors
/// [`TrustError`]; then nothing is written.
pub fn sign(directory: &Path, signature: &Path, key: &SecretKey) -> Result<OmsReport, TrustError> {
    if key.algorithm() != Algorithm::P256 {
        return Err(TrustError::Algorithm { found: key.algorithm(), what: "directories (OpenSSF model signing)" });
    }
    atomic::check_file(signature, bundle::MAGIC)?;
    let ignored = ignored(directory, signature)?;
    let (resources, root) = resources(directory, &ignored)?;
    let files = resources.len();
    let statement = statement(directory, resources, &root, &ignored)?;
    let hint = hex(&sha256(key.public().to_pem().as_bytes()));
    let (_, text) = bundle::sign(&statement, key, (hint, String::new()))?;
    atomic::write_file(signature, bundle::MAGIC, |out| out.write_all(text.as_bytes()))?;
    Ok(OmsReport {
        directory: directory.to_owned(),
        signature: signature.to_owned(),
        files,
        root_sha256: hex(&root),
        key_id: hex(&key.public().id()),
    })
}

/// Checks a directory against its signature: every file is the signed one, none is missing, none is more.
///
/// # Errors
/// [`TrustError`].
pub fn verify(directory: &Path, signature: &Path, keys: &[PublicKey]) -> Result<OmsChecked, TrustError> {
    let ignored = ignored(directory, signature)?;
    let (found, root) = resources(directory, &ignored)?;
    let mut checked = bundle::check(signature, keys, &root).map_err(|error| match error {
        // The root is another: the list says which file it is.
        TrustError::Bundle { place, fault } => match differing(signature, &found) {
            Some(file) => TrustError::Directory {
                place: directory.join(&file).display().to_string(),
                fault: "is not the file that was signed, or is missing, or more than was signed".to_owned(),
            },
            None => TrustError::Bundle { place, fault },
        },
        error => error,
    })?;
    let place = signature.display().to_string();
    let one = checked.pop().filter(|one| checked.is_empty() && one.predicate_type == PREDICATE);
    let one = one.ok_or_else(|| TrustError::Bundle {
        place: place.clone(),
        fault: format!("does not state `{PREDICATE}`, which signatures of directories do"),
    })?;
    if one.statement.predicate["resources"] != json!(found) {
        return Err(TrustError::Bundle { place, fault: "lists other files than its root is over".to_owned() });
    }
    Ok(OmsChecked { directory: directory.to_owned(), files: found.len(), root_sha256: hex(&root), key_id: one.key_id })
}

/// The first file in which a directory and a list, whoever signed it, differ.
fn differing(signature: &Path, found: &[Value]) -> Option<String> {
    let (_, envelope) = bundle::read(signature).ok()?.pop()?;
    let statement = Statement::read(&envelope.payload_type, &envelope.body().ok()?).ok()?;
    let listed = statement.predicate["resources"].as_array()?.clone();
    let differs = |one: &Value, all: &[Value]| !all.contains(one);
    let first =
        listed.iter().find(|one| differs(one, found)).or_else(|| found.iter().find(|one| differs(one, &listed)))?;
    Some(first["name"].as_str()?.to_owned())
}

/// Names that are left out: those of version control, and the signature where it lies in the directory.
fn ignored(directory: &Path, signature: &Path) -> Result<Vec<String>, TrustError> {
    let mut ignored: Vec<String> = IGNORED.map(str::to_owned).to_vec();
    let parent = signature.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(parent), Ok(whole)) = (parent.canonicalize(), directory.canonicalize()) else {
        return match directory.is_dir() {
            true => Ok(ignored),
            false => Err(fault(directory, "is not a directory; model signatures are over the directory of a release")),
        };
    };
    if let (Ok(inner), Some(name)) = (parent.strip_prefix(&whole), signature.file_name().and_then(|name| name.to_str()))
    {
        let inner = inner.join(name);
        ignored.push(inner.to_string_lossy().into_owned());
    }
    Ok(ignored)
}

fn fault(path: &Path, fault: &str) -> TrustError {
    TrustError::Directory { place: path.display().to_string(), fault: fault.to_owned() }
}

/// Every file with its digest, by name, and the digest over all of them.
fn resources(directory: &Path, ignored: &[String]) -> Result<(Vec<Value>, [u8; 32]), TrustError> {
    if !directory.is_dir() {
        return Err(fault(directory, "is not a directory; model signatures are over the directory of a release"));
    }
    let mut names = Vec::new();
    list(directory, "", ignored, 0, &mut names)?;
    if names.is_empty() {
        return Err(fault(directory, "has no files to sign"));
    }
    names.sort();
    let (mut resources, mut digests) = (Vec::new(), Vec::new());
    for name in names {
        let digest = file_sha256(&directory.join(&name))?;
        digests.extend_from_slice(&digest);
        resources.push(json!({"name": name, "algorithm": "sha256", "digest": hex(&digest)}));
    }
    Ok((resources, sha256(&digests)))
}

/// Adds the files below a directory by their paths from the first one.
fn list(
    directory: &Path,
    prefix: &str,
    ignored: &[String],
    depth: usize,
    names: &mut Vec<String>,
) -> Result<(), TrustError> {
    if depth > DEEPEST || names.len() > MOST_FILES {
        return Err(fault(directory, "holds more, or deeper, than the directory of a release; sign that one"));
    }
    let unread = |error: std::io::Error| fault(directory, &format!("cannot be listed: {error}"));
    for entry in std::fs::read_dir(directory).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let path = entry.path();
        let name = entry.file_name();
        let name =
            name.to_str().ok_or_else(|| fault(&path, "has a name that is not UTF-8, which no signature can list"))?;
        let name = format!("{prefix}{name}");
        if ignored.contains(&name) {
            continue;
        }
        let kind = entry.file_type().map_err(unread)?;
        if kind.is_dir() {
            list(&path, &format!("{name}/"), ignored, depth + 1, names)?;
        } else if kind.is_file() {
            names.push(name);
        } else {
            return Err(fault(
                &path,
                "is a link or not a plain file, and what it leads to is not signed; put a copy in its place",
            ));
        }
    }
    Ok(())
}

fn statement(
    directory: &Path,
    resources: Vec<Value>,
    root: &[u8; 32],
    ignored: &[String],
) -> Result<Statement, TrustError> {
    let whole = directory.canonicalize().map_err(|error| fault(directory, &error.to_string()))?;
    let name = whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    let predicate = json!({
        "resources": resources,
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": false,
            "ignore_paths": ignored,
        },
    });
    Ok(Statement::new(vec![Resource::file(name, root)], PREDICATE, predicate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_holds_as_a_whole() {
        let outer = tempfile::tempdir().expect("a directory");
        let release = outer.path().join("release");
        std::fs::create_dir_all(release.join("docs/more")).expect("made");
        std::fs::create_dir_all(release.join(".git")).expect("made");
        for (name, content) in [("a.slm", "artifact"), ("docs/b.md", "text"), ("docs/more/c", ""), (".git/HEAD", "ref")]
        {
            std::fs::write(release.join(name), content).expect("written");
        }
        let key = SecretKey::generate(Algorithm::P256).expect("a key");
        let keys = [key.public().clone()];
        for signature in [outer.path().join("release.sig"), release.join("model.sig")] {
            let report = sign(&release, &signature, &key).expect("signed");
            assert_eq!(report.files, 3);
            verify(&release, &signature, &keys).expect("it holds");
            let other = SecretKey::generate(Algorithm::P256).expect("a key");
            assert!(verify(&release, &signature, &[other.public().clone()]).is_err());
            std::fs::write(release.join("docs/b.md"), "texT").expect("written");
            let error = verify(&release, &signature, &keys).expect_err("changed").to_string();
            assert!(error.contains("docs/b.md"), "{error}");
            std::fs::write(release.join("docs/b.md"), "text").expect("written");
            std::fs::write(release.join("more"), "text").expect("written");
            let error = verify(&release, &signature, &keys).expect_err("one more").to_string();
            assert!(error.contains("more"), "{error}");
            std::fs::remove_file(release.join("more")).expect("removed");
            verify(&release, &signature, &keys).expect("it holds");
            std::fs::remove_file(&signature).expect("removed");
        }
    }

    #[test]
    fn what_the_tools_do_not_take_is_refused() {
        let outer = tempfile::tempdir().expect("a directory");
        let (release, signature) = (outer.path().join("release"), outer.path().join("release.sig"));
        let ed25519 = SecretKey::generate(Algorithm::Ed25519).expect("a key");
        let key = SecretKey::generate(Algorithm::P256).expect("a key");
        let refused = |key: &SecretKey| sign(&release, &signature, key).expect_err("refused").to_string();
        assert!(refused(&ed25519).contains("Ed25519") && refused(&ed25519).contains("P-256"));
        assert!(refused(&key).contains("is not a directory"));
        std::fs::create_dir(&release).expect("made");
        assert!(refused(&key).contains("no files"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/etc/hostname", release.join("link")).expect("linked");
            assert!(refused(&key).contains("link: is a link"), "{}", refused(&key));
        }
        assert!(!signature.exists());
        std::fs::write(&signature, "notes").expect("written");
        assert!(refused(&key).contains("not made by slmc"));
    }
}
