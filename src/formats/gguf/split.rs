//! A model in several files, `NAME-00001-of-00003.gguf` and so on: each is a file of its own with `split.no`, counted from
//! 0, and `split.count`; the first has the keys of the model, and `split.tensors.count` says how many tensors all have.

use super::container::Container;
use super::error::GgufError;
use std::path::{Path, PathBuf};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Opens a file with the others of its model, as one.
pub(super) fn open(path: &Path) -> Result<Container, GgufError> {
    let mut first = Container::open(path)?;
    let count = first.metadata.optional_count(COUNT)?.unwrap_or(1).max(1);
    let number = first.metadata.optional_count(NUMBER)?.unwrap_or(0);
    if number != 0 {
        let first = part(path, 0, count).unwrap_or_else(|| PathBuf::from("the file whose name ends in `-00001-of-…`"));
        return Err(GgufError::NotTheFirst { file: path.to_owned(), number, count, first });
    }
    for number in 1..count {
        let other = Container::open(&named(path, number, count)?)?;
        let file = other.metadata.file().to_owned();
        let states = (other.metadata.optional_count(NUMBER)?, other.metadata.optional_count(COUNT)?);
        if states != (Some(number), Some(count)) {
            let problem = format!("its keys do not say that it is part {} of {count}", number + 1);
            return Err(GgufError::Part { file, problem });
        }
        for (name, tensor) in other.tensors {
            if first.tensors.insert(name.clone(), tensor).is_some() {
                return Err(GgufError::Part { file, problem: format!("tensor `{name}` is in another part as well") });
            }
        }
    }
    match first.metadata.optional_count(TENSORS)? {
        Some(expected) if expected != first.tensors.len() => {
            let problem = format!("the parts hold {} tensors, expected {expected}", first.tensors.len());
            Err(GgufError::Part { file: path.to_owned(), problem })
        }
        _ => Ok(first),
    }
}

/// The files of the model at a path, itself first.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, GgufError> {
    let count = Container::open(path)?.metadata.optional_count(COUNT)?.unwrap_or(1).max(1);
    let others = (1..count).map(|number| named(path, number, count));
    std::iter::once(Ok(path.to_owned())).chain(others).collect()
}

/// A part, which must be there.
fn named(path: &Path, number: usize, count: usize) -> Result<PathBuf, GgufError> {
    let named = part(path, number, count).ok_or_else(|| GgufError::PartName { file: path.to_owned(), count })?;
    // A link that leads nowhere is said by who opens it.
    match named.exists() || named.is_symlink() {
        true => Ok(named),
        false => Err(GgufError::MissingPart { file: named, number, count }),
    }
}

/// The path of another part by the name of one.
fn part(path: &Path, number: usize, count: usize) -> Option<PathBuf> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let rest = stem.strip_suffix(&format!("-of-{count:05}"))?;
    let (name, own) = rest.rsplit_once('-')?;
    let is_number = own.len() == 5 && own.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| path.with_file_name(format!("{name}-{:05}-of-{count:05}.gguf", number + 1)))
}
