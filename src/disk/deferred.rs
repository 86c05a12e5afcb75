//! Bytes that are made when they are asked for: a tensor that is converted from another format, or computed from others.
//! Whoever needs them once gets a copy that is dropped after use; whoever reads them again and again makes them stay.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What makes the bytes: always the same ones.
type Make = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

/// Bytes that are made when they are asked for.
pub struct Deferred {
    bytes: usize,
    file: PathBuf,
    make: Make,
    made: OnceLock<Vec<u8>>,
}

impl Deferred {
    /// `bytes` bytes that `make` makes; messages name `file`.
    pub fn new(bytes: usize, file: &Path, make: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        Deferred { bytes, file: file.to_owned(), make: Box::new(make), made: OnceLock::new() }
    }

    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The file they come from.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The bytes, which stay in memory from now on.
    pub(super) fn kept(&self) -> &[u8] {
        self.made.get_or_init(|| self.made_now())
    }

    /// A range of the bytes; made for this caller alone where they do not stay in memory already.
    pub(super) fn once(&self, range: Range<usize>) -> Cow<'_, [u8]> {
        match self.made.get() {
            Some(made) => Cow::Borrowed(&made[range]),
            None => {
                let mut made = self.made_now();
                if range.start > 0 {
                    made.copy_within(range.clone(), 0);
                }
                made.truncate(range.len());
                Cow::Owned(made)
            }
        }
    }

    fn made_now(&self) -> Vec<u8> {
        let made = (self.make)();
        assert_eq!(made.len(), self.bytes, "a tensor of {} is made with the bytes of its shape", self.file.display());
        made
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes made of {}", self.bytes, self.file.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn bytes_are_made_for_every_caller_until_they_stay() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let deferred = Deferred::new(4, Path::new("m"), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            vec![1, 2, 3, 4]
        });
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        assert_eq!((&*deferred.once(0..4), &*deferred.once(1..3)), (&[1, 2, 3, 4][..], &[2, 3][..]));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert_eq!((deferred.kept(), &*deferred.once(2..4)), (&[1, 2, 3, 4][..], &[3, 4][..]));
        assert_eq!(deferred.kept(), [1, 2, 3, 4]);
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }
}
