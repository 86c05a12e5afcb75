//! Writers for tests of the shell and of commands: one that keeps everything, one whose reader went away.

use super::{Shell, ShellOptions};
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex};

/// Keeps everything; clones share it.
#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// Everything written so far.
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic while writing").clone()).expect("UTF-8")
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while writing").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe whose reader went away.
pub(super) struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(ErrorKind::BrokenPipe.into())
    }
}

/// A shell with its stdout and stderr.
pub(super) fn shell(options: ShellOptions) -> (Shell, Captured, Captured) {
    let (out, err) = (Captured::default(), Captured::default());
    (Shell::from_writers(options, Box::new(out.clone()), Box::new(err.clone())), out, err)
}
