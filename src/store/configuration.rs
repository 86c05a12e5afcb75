//! Which stores a command has. In this order, the first that says something: `--cache` and `--cache-mode`, the variables
//! `SLMC_CACHE` and `SLMC_CACHE_MODE`, `[cache]` of the nearest `slmc.toml` at or above the working directory, up to the root
//! of the repository:
//!
//! ```toml
//! [cache]
//! url = "s3://models/slmc?region=eu-central-1"     # or a list; file:, https: and s3:
//! mode = "read-only"                               # read-write, off
//! trusted = ["keys/ci.pub"]                        # public keys of which one must have signed an entry
//! ```
//!
//! Credentials are in the environment alone and never part of a URL: `SLMC_CACHE_TOKEN`, or `SLMC_CACHE_USER` and
//! `SLMC_CACHE_PASSWORD`; `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` for s3. `SLMC_CACHE_KEY` names the
//! key that signs.

use super::{Chain, FileStore, Remote, Signer, Store, StoreError, Trusted};
use crate::disk::schema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The file.
const FILE: &str = "slmc.toml";
/// The word for no store at all.
const NONE: &str = "none";

/// What may be done with shared places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: they are left out
    Off,
    /// Results are taken from them
    #[default]
    ReadOnly,
    /// Results are put there too
    ReadWrite,
}

/// What a command line says.
#[derive(Clone, Debug, Default)]
pub struct CacheOptions {
    /// `--cache`, each.
    pub urls: Vec<String>,
    /// `--cache-mode`.
    pub mode: Option<Mode>,
}

/// `slmc.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    cache: Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    url: Urls,
    mode: Option<Mode>,
    #[serde(default)]
    trusted: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Several(Vec<String>),
}

impl Default for Urls {
    fn default() -> Self {
        Urls::Several(Vec::new())
    }
}

/// Opens the stores; nothing is read, written or connected to.
///
/// # Errors
/// [`StoreError`]: a URL, setting or key that cannot be used.
pub fn open(options: &CacheOptions) -> Result<Chain, StoreError> {
    open_in(options, Path::new("."), &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn open_in(
    options: &CacheOptions,
    here: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Chain, StoreError> {
    let (settings, base) = settings(here)?;
    let urls = match (&options.urls[..], variable("SLMC_CACHE"), settings.cache.url) {
        ([], None, Urls::One(url)) => vec![url],
        ([], None, Urls::Several(urls)) => urls,
        ([], Some(urls), _) => urls.split_whitespace().map(str::to_owned).collect(),
        (urls, _, _) => urls.to_vec(),
    };
    // Relative to the file that says it, or to the working directory.
    let relative_to = if options.urls.is_empty() && variable("SLMC_CACHE").is_none() { base.as_path() } else { here };
    let mode = match (options.mode, variable("SLMC_CACHE_MODE")) {
        (Some(mode), _) => mode,
        (None, Some(text)) => named_mode(&text)?,
        (None, None) => settings.cache.mode.unwrap_or_default(),
    };
    let trusted = Trusted::read(&settings.cache.trusted, &base)?;
    let signer = variable("SLMC_CACHE_KEY").map(|key| Signer::read(&key)).transpose()?;
    if urls.iter().any(|url| url == NONE) {
        return Ok(Chain::disabled());
    }
    let (mut local, mut shared_directory, mut remotes) = (default_directory(variable), false, Vec::new());
    for url in &urls {
        match directory(url) {
            Some(path) if path.as_os_str().is_empty() => return Err(fault(url, "names no directory; write file:PATH")),
            Some(path) => (local, shared_directory) = (Some(relative_to.join(path)), true),
            None if mode == Mode::Off => drop(remote(url, variable)?),
            None => remotes.push(Remote::new(remote(url, variable)?, mode == Mode::ReadWrite)),
        }
    }
    Ok(Chain::new(local.map(FileStore::new), shared_directory, remotes, trusted, signer))
}

/// The store of this machine, for commands that look after it. One that a command line names beside it is refused: nothing
/// lists or empties a server, and the directory of this machine is not what was meant.
///
/// # Errors
/// [`StoreError`].
pub fn open_directory(options: &CacheOptions) -> Result<FileStore, StoreError> {
    let chain = open(options)?;
    if let Some(url) = options.urls.iter().find(|url| directory(url).is_none()) {
        return Err(fault(
            url,
            "is no directory, and only those are listed, verified and cleaned; write file:DIR, or leave --cache out for the \
             cache of this machine",
        ));
    }
    chain.local().cloned().ok_or_else(|| StoreError::Setting {
        place: "--cache".to_owned(),
        fault: "names no directory, and neither XDG_CACHE_HOME nor HOME is set; pass file:DIR".to_owned(),
    })
}

fn named_mode(text: &str) -> Result<Mode, StoreError> {
    clap::ValueEnum::from_str(text, false).map_err(|_| StoreError::Setting {
        place: "$SLMC_CACHE_MODE".to_owned(),
        fault: format!("is `{text}`; expected off, read-only or read-write"),
    })
}

/// The settings of the nearest file, and where it is.
fn settings(here: &Path) -> Result<(Settings, PathBuf), StoreError> {
    let real = here.canonicalize().unwrap_or_else(|_| here.to_owned());
    for folder in real.ancestors() {
        let path = folder.join(FILE);
        if let Ok(text) = std::fs::read_to_string(&path) {
            let fault = |error: schema::SchemaError| StoreError::Setting {
                place: format!("{}:{}", path.display(), error.line),
                fault: error.message,
            };
            return Ok((schema::parse(&text).map_err(fault)?, folder.to_owned()));
        }
        if folder.join(".git").exists() {
            break;
        }
    }
    Ok((Settings::default(), here.to_owned()))
}

/// `$XDG_CACHE_HOME/slmc`, or what stands for it.
fn default_directory(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("LOCALAPPDATA"))
        .or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(cache?.join("slmc"))
}

/// The directory of `file:PATH` and `file:///PATH`.
fn directory(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file:")?;
    Some(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
}

/// A fault of a URL, which is named without user and password.
pub(super) fn fault(url: &str, fault: impl Into<String>) -> StoreError {
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            let (authority, path) =
                rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{}", path.map(|path| format!("/{path}")).unwrap_or_default())
        }
        None => url.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    StoreError::Url { url: shown, fault: fault.into() }
}

/// A store on a server.
fn remote(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Box<dyn Store>, StoreError> {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https" | "s3"))
    else {
        return Err(fault(
            url,
            "is not a place that slmc knows; write file:PATH, https://HOST/PATH or s3://BUCKET/PREFIX",
        ));
    };
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err(fault(
            url,
            "holds a user or password, which would end up in logs; put them into SLMC_CACHE_USER and SLMC_CACHE_PASSWORD",
        ));
    }
    #[cfg(feature = "remote-cache")]
    return match scheme {
        "s3" => Ok(Box::new(super::s3::S3Store::new(url, rest, variable)?)),
        _ => Ok(Box::new(super::http::HttpStore::new(url, variable)?)),
    };
    #[cfg(not(feature = "remote-cache"))]
    {
        let _ = variable;
        Err(fault(url, format!("needs {scheme}, and this slmc was built without the feature remote-cache")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and values of the environment.
    type Variables<'v> = &'v [(&'v str, &'v str)];

    /// The chain, or what is said.
    fn opened(here: &Path, urls: &[&str], variables: &[(&str, &str)]) -> Result<Chain, String> {
        let options = CacheOptions { urls: urls.iter().map(|url| (*url).to_owned()).collect(), mode: None };
        let variable =
            |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        open_in(&options, here, &variable).map_err(|error| error.to_string())
    }

    fn local(chain: &Chain) -> Option<PathBuf> {
        chain.local().map(|local| local.root().to_owned())
    }

    #[test]
    fn the_first_that_says_something_holds() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path().canonicalize().expect("a path");
        let inner = here.join("a/b");
        std::fs::create_dir_all(&inner).expect("made");
        let home = [("XDG_CACHE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(local(&opened(&inner, &[], &home).expect("none")), Some("/x/slmc".into()));
        assert_eq!(local(&opened(&inner, &[], &home[1..]).expect("none")), Some("/h/.cache/slmc".into()));
        assert_eq!(local(&opened(&inner, &[], &[]).expect("none")), None);
        std::fs::write(here.join("slmc.toml"), "[cache]\nurl = 'file:kept'\n").expect("written");
        assert_eq!(local(&opened(&inner, &[], &home).expect("one")), Some(here.join("kept")));
        let variables = [("SLMC_CACHE", "file:///v")];
        assert_eq!(local(&opened(&inner, &[], &variables).expect("one")), Some("/v".into()));
        assert_eq!(local(&opened(&inner, &["file:/f"], &variables).expect("one")), Some("/f".into()));
        assert_eq!(local(&opened(&inner, &["none"], &variables).expect("none")), None);
        // Not beyond the repository.
        std::fs::create_dir(inner.join(".git")).expect("made");
        assert_eq!(local(&opened(&inner, &[], &home).expect("none")), Some("/x/slmc".into()));
    }

    #[test]
    fn faults_are_named_without_credentials() {
        let directory = tempfile::tempdir().expect("a directory");
        let cases: [(&[&str], Variables<'_>, &str); 6] = [
            (&["ftp://host/x"], &[], "`ftp://host/x` is not a place that slmc knows"),
            (&["/some/path"], &[], "is not a place that slmc knows; write file:PATH"),
            (&["https://me:hidden@host/x"], &[], "`https://host/x` holds a user or password"),
            (&["file:"], &[], "names no directory"),
            (&[], &[("SLMC_CACHE_MODE", "rw")], "$SLMC_CACHE_MODE: is `rw`; expected off, read-only or read-write"),
            (&[], &[("SLMC_CACHE_KEY", "env:SLMC_NO_SUCH_VARIABLE")], "$SLMC_NO_SUCH_VARIABLE: is not set"),
        ];
        for (urls, variables, expected) in cases {
            let said = opened(directory.path(), urls, variables).err().unwrap_or_default();
            assert!(said.contains(expected) && !said.contains("hidden"), "{said}");
        }
        std::fs::write(directory.path().join("slmc.toml"), "[cache]\nurll = 'x'\n").expect("written");
        let said = opened(directory.path(), &[], &[]).err().unwrap_or_default();
        assert!(said.contains("slmc.toml:2: unknown key `urll`; did you mean `url`?"), "{said}");
    }
}
