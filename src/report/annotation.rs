//! Workflow commands of GitHub Actions: annotations at lines of files. A line is
//!
//! ```text
//! ::error file=recipes/x.toml,line=12,col=3,endLine=12,endColumn=9,title=slmc (S011)::message
//! ```
//!
//! with `%`, CR and LF of the message as `%25`, `%0D`, `%0A`, and in properties also `:` as `%3A` and `,` as `%2C`.
//! GitHub shows ten of a level a step and leaves the rest out in silence: here the tenth says how many more there are.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Annotations of one level that a step may have.
const MOST: usize = 10;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Fails the check.
    Error,
    /// Does not.
    Warning,
    /// Worth knowing.
    Notice,
}

impl Level {
    fn command(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "notice",
        }
    }
}

/// A message at a place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// How bad it is.
    pub level: Level,
    /// As the program was told.
    pub file: PathBuf,
    /// From 1; 0 where it concerns the whole file.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// After the last character.
    pub end_column: usize,
    /// One line.
    pub title: String,
    /// May have several lines.
    pub message: String,
}

/// The commands for all annotations, one a line; files are named relative to `root`, the top of the repository, where
/// they are below it.
pub fn commands(annotations: &[Annotation], root: Option<&Path>) -> String {
    let mut out = String::new();
    for level in [Level::Error, Level::Warning, Level::Notice] {
        let all: Vec<&Annotation> = annotations.iter().filter(|annotation| annotation.level == level).collect();
        let shown = if all.len() > MOST { MOST - 1 } else { all.len() };
        for annotation in &all[..shown] {
            let file = property(&relative(&annotation.file, root));
            let title = property(&annotation.title);
            let _ = write!(out, "::{} file={file}", level.command());
            if annotation.line > 0 {
                let Annotation { line, column, end_column, .. } = annotation;
                let _ = write!(out, ",line={line},col={column},endLine={line},endColumn={end_column}");
            }
            let _ = writeln!(out, ",title={title}::{}", message(&annotation.message));
        }
        if shown < all.len() {
            let more = all.len() - shown;
            let _ = writeln!(out, "::{} title=slmc::{more} more; the log of this step lists all", level.command());
        }
    }
    out
}

/// Text between two lines that keep GitHub from reading commands in it: lines of a model's text may begin with `::`.
pub fn fenced(text: &str, token: &str) -> String {
    format!("::stop-commands::{token}\n{text}\n::{token}::\n")
}

/// The directory that holds a `.git`, upwards from `start`.
pub fn repository(start: &Path) -> Option<PathBuf> {
    let start = start.canonicalize().ok()?;
    start.ancestors().find(|directory| directory.join(".git").exists()).map(Path::to_owned)
}

/// A file by its path below `root`, with slashes.
fn relative(file: &Path, root: Option<&Path>) -> String {
    let below = root.and_then(|root| Some(file.canonicalize().ok()?.strip_prefix(root).ok()?.to_owned()));
    let path = below.unwrap_or_else(|| file.to_owned());
    path.display().to_string().replace('\\', "/")
}

fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(line: usize, title: &str, message: &str) -> Annotation {
        Annotation {
            level: Level::Error,
            file: PathBuf::from("a,b:c.toml"),
            line,
            column: 3,
            end_column: 9,
            title: title.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn nothing_in_a_message_ends_its_command() {
        let hostile = annotation(12, "slmc: x, y", "50 % off\n::error::gone\r\n::set-output name=a::b");
        assert_eq!(
            commands(&[hostile], None),
            "::error file=a%2Cb%3Ac.toml,line=12,col=3,endLine=12,endColumn=9,title=slmc%3A x%2C y::50 %25 off%0A::error\
             ::gone%0D%0A::set-output name=a::b\n"
        );
    }

    #[test]
    fn beyond_ten_the_last_says_how_many_there_are() {
        for (count, lines, last) in [(10, 10, "::m9"), (11, 10, "::2 more;"), (60, 10, "::51 more;")] {
            let all: Vec<Annotation> = (0..count).map(|n| annotation(n + 1, "t", &format!("m{n}"))).collect();
            let out = commands(&all, None);
            assert_eq!(out.lines().count(), lines);
            assert!(out.lines().last().is_some_and(|line| line.contains(last)), "{out}");
        }
    }

    #[test]
    fn files_are_named_from_the_top_of_the_repository() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("recipes");
        std::fs::create_dir_all(&inner).expect("made");
        std::fs::create_dir(directory.path().join(".git")).expect("made");
        std::fs::write(inner.join("x.toml"), "").expect("written");
        let root = repository(&inner).expect("a repository");
        assert_eq!(relative(&inner.join("x.toml"), Some(&root)), "recipes/x.toml");
        assert_eq!(relative(Path::new("none.toml"), Some(&root)), "none.toml");
    }
}
