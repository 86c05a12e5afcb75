//! Completions and manual pages: every subcommand is in them.

use crate::support::{json, refused, succeed};
use std::fs;

const SHELLS: [(&str, &str); 4] = [
    ("bash", "complete -F"),
    ("zsh", "#compdef slmc"),
    ("fish", "complete -c slmc"),
    ("powershell", "Register-ArgumentCompleter"),
];
/// Some of the subcommands: stages, commands, and commands below commands.
const COMMANDS: [&str; 6] = ["quantize", "run", "init", "explain", "gates", "completions"];

#[test]
fn every_shell_has_every_command() {
    let directory = tempfile::tempdir().expect("a directory");
    for (shell, word) in SHELLS {
        let script = String::from_utf8(succeed(directory.path(), &format!("completions {shell}"))).expect("UTF-8");
        assert!(script.contains(word), "{shell}: {}", &script[..200.min(script.len())]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} lacks {command}");
        }
        assert!(script.contains("calibration-tokens"), "{shell} lacks an option");
    }
    let report = json(directory.path(), "completions zsh");
    assert_eq!((&report["schema"], &report["shell"]), (&"slmc.completions/1".into(), &"zsh".into()));
    refused(directory.path(), "completions cmd", "invalid value 'cmd'");
}

#[test]
fn manual_pages_are_written_and_nothing_else_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let page = String::from_utf8(succeed(path, "man")).expect("UTF-8");
    assert!(page.contains(".TH slmc 1"), "{}", &page[..300.min(page.len())]);
    let report = json(path, "man -o pages");
    let files = report["files"].as_array().expect("files");
    for command in COMMANDS {
        let text = fs::read_to_string(path.join(format!("pages/slmc-{command}.1"))).expect("its page");
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{command}");
    }
    assert!(path.join("pages/slmc-cache-why.1").is_file() && files.len() > COMMANDS.len(), "{report}");
    // Again over its own, but not over another's.
    succeed(path, "man -o pages");
    fs::write(path.join("pages/slmc-run.1"), "my own notes").expect("written");
    refused(path, "man -o pages", "slmc-run.1");
    assert_eq!(fs::read_to_string(path.join("pages/slmc-run.1")).expect("it is there"), "my own notes");
}
