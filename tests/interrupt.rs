//! Commands killed at any moment leave nothing half-written: the output is absent, or what it was, or complete; the next
//! run succeeds and removes what the killed one left.

use crate::fixture::{Family, Size, write};
use crate::support::{slmc, succeed};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn quiet(directory: &Path, line: &str) -> Command {
    let mut command = slmc(directory, line);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Every file of a path with its content, sorted; empty if there is nothing.
fn content(path: &Path) -> Vec<(String, Vec<u8>)> {
    if path.is_file() {
        return vec![(String::new(), fs::read(path).expect("it can be read"))];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("it can be read"))
        })
        .collect();
    files.sort();
    files
}

/// Hidden siblings, which only a killed run may leave.
fn leftovers(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).expect("the directory").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with('.')).collect()
}

/// Kills `line` after more and more time until it ends by itself; until then `out` is `old`, or, where a directory is
/// exchanged for another, not there for a moment.
fn kill_all_along(directory: &Path, line: &str, out: &str, new: &[(String, Vec<u8>)], old: &[(String, Vec<u8>)]) {
    let path = directory.join(out);
    let mut killed = 0;
    for step in 0..200u64 {
        let mut child = quiet(directory, line).spawn().expect("the program starts");
        // Steps grow, so that slow machines come to the end as well.
        std::thread::sleep(Duration::from_micros(500 * step + 20 * step * step));
        let ended = child.try_wait().expect("its state can be asked").is_some();
        // SIGKILL where there are signals: no destructor runs.
        let _ = child.kill();
        let status = child.wait().expect("it ends");
        let found = content(&path);
        let exchanging = old.len() > 1 && found.is_empty();
        assert!(found == new || found == old || exchanging, "{line}: half-written {out} after {killed} kills");
        if ended || status.success() {
            assert!(found == new, "{line}: a run that ended left {out} as it was");
            break;
        }
        killed += 1;
    }
    assert!(killed >= 5, "{line} was killed {killed} times only");
    succeed(directory, line);
    assert!(content(&path) == new, "{line}: the run after a killed one gives something else");
    assert_eq!(leftovers(directory), Vec::<String>::new(), "{line}: the run after a killed one does not clean up");
}

#[test]
fn killed_commands_leave_nothing_half_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    // Wide enough for writing to take a while.
    let size = Size { hidden: 128, ffn: 384, layers: 6, heads: 4, context: 96 };
    write(&directory.join("model"), Family::Llama, size);
    fs::write(directory.join("text.txt"), "the quick brown fox jumps over the lazy dog.\n".repeat(12)).expect("a file");
    // Rounding that takes no time, so that most kills meet the writing; those of longer work are in resume.rs.
    let quantize = |scheme: &str, out: &str| {
        format!("quantize model --scheme {scheme} --method rtn --calibration text.txt -o {out}")
    };
    succeed(directory, &quantize("w8", "w8"));
    succeed(directory, &quantize("w4", "w4"));
    let (w8, w4) = (content(&directory.join("w8")), content(&directory.join("w4")));
    assert!(w8 != w4 && w8.len() > 3);
    kill_all_along(directory, &quantize("w8", "fresh"), "fresh", &w8, &[]);
    succeed(directory, &quantize("w4", "fresh"));
    kill_all_along(directory, &quantize("w8", "fresh"), "fresh", &w8, &w4);

    succeed(directory, "compile w8 --target generic -o w8.slm");
    succeed(directory, "compile w4 --target generic -o w4.slm");
    let (w8, w4) = (content(&directory.join("w8.slm")), content(&directory.join("w4.slm")));
    assert!(w8 != w4 && w8.len() == 1);
    kill_all_along(directory, "compile w8 --target generic -o fresh.slm", "fresh.slm", &w8, &[]);
    succeed(directory, "compile w4 --target generic -o fresh.slm");
    kill_all_along(directory, "compile w8 --target generic -o fresh.slm", "fresh.slm", &w8, &w4);
}
