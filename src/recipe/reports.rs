//! Where the result of a run goes besides stdout: files in several formats, each a rendering of one [`RunReport`], and
//! the places that GitHub Actions names. A file that something else wrote is never replaced.

use super::mistake::Mistakes;
use super::run_report::RunReport;
use crate::disk::atomic::{self, AtomicError};
use crate::report::annotation::{self, Annotation, commands};
use crate::report::{Report, json_line};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As on a terminal.
    Text,
    /// As with `--json`.
    Json,
}

impl Format {
    const ALL: [(&'static str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

    /// First bytes of every file of it.
    fn magic(self) -> &'static [u8] {
        match self {
            Format::Text => b"stage",
            Format::Json => b"{\"schema\":\"slmc.run/",
        }
    }

    fn render(self, report: &RunReport) -> Result<String, serde_json::Error> {
        Ok(match self {
            Format::Text => format!("{}\n", report.text()),
            Format::Json => format!("{}\n", json_line(report)?),
        })
    }
}

/// A report that was asked for: `--report html=report.html`, `--report github`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A file.
    File {
        /// Its format.
        format: Format,
        /// Its path.
        path: PathBuf,
    },
    /// Annotations on stdout; a summary and outputs in the files that the environment of a job of GitHub names.
    GitHub,
}

/// A request that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Another word.
    #[error("`{0}` is not a report; known: {known}, each with =FILE, and github", known = Format::ALL.map(|(name, _)| name).join(", "))]
    Unknown(String),
    /// No file.
    #[error("`{0}` needs a file: {0}=FILE")]
    NoFile(String),
    /// A file for what has none.
    #[error("`github` takes no file: it writes to stdout, and to the files that the job's environment names")]
    File,
}

impl FromStr for Request {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name, Some(path).filter(|path| !path.is_empty())),
            None => (text, None),
        };
        if name == "github" {
            return if text.contains('=') { Err(RequestError::File) } else { Ok(Request::GitHub) };
        }
        let known = Format::ALL.into_iter().find(|(known, _)| *known == name);
        let (_, format) = known.ok_or_else(|| RequestError::Unknown(name.to_owned()))?;
        let path = path.ok_or_else(|| RequestError::NoFile(name.to_owned()))?.into();
        Ok(Request::File { format, path })
    }
}

/// Why a report is not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Its file cannot be written, or is something else.
    #[error(transparent)]
    File(#[from] AtomicError),
    /// Its directory cannot be made.
    #[error("{}: cannot be made", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file of the job cannot be written.
    #[error("{}: cannot be written, though the job's environment names it", path.display())]
    Job {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// It cannot be JSON.
    #[error("the report cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Refuses, before the work, files that may not be replaced, and makes their directories.
///
/// # Errors
/// [`ReportError`].
pub fn check(requests: &[Request]) -> Result<(), ReportError> {
    for request in requests {
        if let Request::File { format, path } = request {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(directory) = directory {
                let failed = |source| ReportError::Directory { path: directory.to_owned(), source };
                std::fs::create_dir_all(directory).map_err(failed)?;
            }
            atomic::check_file(path, format.magic())?;
        }
    }
    Ok(())
}

/// Writes what was asked for; the returned text is for stdout.
///
/// # Errors
/// [`ReportError`].
pub fn write(requests: &[Request], report: &RunReport) -> Result<String, ReportError> {
    let mut out = String::new();
    for request in requests {
        match request {
            Request::File { format, path } => {
                let text = format.render(report)?;
                atomic::write_file(path, format.magic(), |file| file.write_all(text.as_bytes()))?;
            }
            Request::GitHub => {
                let annotations: Vec<Annotation> = report.gates.iter().filter_map(|gate| gate.annotation()).collect();
                out.push_str(&github(&annotations));
            }
        }
    }
    Ok(out)
}

/// The annotations of a recipe's mistakes, if GitHub's were asked for.
pub fn of_mistakes(requests: &[Request], mistakes: &Mistakes) -> String {
    if requests.contains(&Request::GitHub) { github(&mistakes.annotations()) } else { String::new() }
}

/// The text for the log of a job, in which nothing that a model says is taken for a command.
pub fn fenced(report: &RunReport) -> String {
    // Not to be guessed by a text: the hasher's keys are random.
    let token = format!("slmc-{:016x}", RandomState::new().build_hasher().finish());
    annotation::fenced(&report.text(), &token)
}

fn github(annotations: &[Annotation]) -> String {
    commands(annotations, annotation::repository(Path::new(".")).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_a_format_and_a_file() {
        let file = Request::File { format: Format::Json, path: PathBuf::from("a=b.json") };
        assert_eq!("json=a=b.json".parse(), Ok(file));
        assert_eq!("github".parse(), Ok(Request::GitHub));
        let wrong = [
            ("json", RequestError::NoFile("json".to_owned())),
            ("json=", RequestError::NoFile("json".to_owned())),
            ("pdf=a.pdf", RequestError::Unknown("pdf".to_owned())),
            ("github=a", RequestError::File),
        ];
        for (text, error) in wrong {
            assert_eq!(text.parse::<Request>(), Err(error), "{text}");
        }
    }
}
