//! `slmc plan --emit`: the workflows of the quickstart as they are recorded in `tests/data/emit`, which `.ci/weekly engines`
//! holds to the schemas of the engines; the Slurm script run by a stand-in for sbatch; names that would be commands.

use crate::fixture;
use crate::support::{json, refused, root, slmc, stderr, succeed};
use regex::Regex;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Engines, and the recorded file of each.
const ENGINES: [(&str, &str); 5] = [
    ("github", "github.yml"),
    ("gitlab", "gitlab-ci.yml"),
    ("slurm", "slurm.sh"),
    ("json", "graph.json"),
    ("dot", "graph.dot"),
];

/// Two targets of which one is measured.
const CHAIN: &str = "version = 1\n[model]\npath = 'model'\n[stages.small]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                     method = 'rtn'\n[stages.artifact]\nkind = 'compile'\ninput = 'small'\ntarget = ['generic', 'cortex-m55']\n\
                     [stages.quality]\nkind = 'eval'\ninput = 'artifact.generic'\nreference = 'model'\ndata = 'text.txt'\n\
                     window = 32\n[gates]\nkld_max = 100\n";

fn emitted(directory: &Path, recipe: &str, engine: &str) -> String {
    String::from_utf8(succeed(directory, &format!("plan {recipe} --emit {engine}"))).expect("UTF-8")
}

/// Without what is of this machine and this build.
fn portable(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, with) in
        [(r"--mem=\d+M", "--mem=#M"), (r#""(key|seconds|peak_memory_bytes|output_bytes)": [^,\n]+"#, "\"$1\": \"#\"")]
    {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, with).into_owned();
    }
    text
}

#[test]
fn workflows_are_as_recorded() {
    let directory = tempfile::tempdir().expect("a directory");
    symlink(root("recipes"), directory.path().join("recipes")).expect("a link");
    for (engine, file) in ENGINES {
        let text = portable(&emitted(directory.path(), "recipes/quickstart.toml", engine));
        let path = root("tests/data/emit").join(file);
        if std::env::var_os("SLMC_UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, &text).expect("written");
        }
        let recorded = fs::read_to_string(&path).unwrap_or_default();
        let remedy = "SLMC_UPDATE=1 writes it anew; then run .ci/weekly engines";
        assert!(recorded == text, "{} differs from what is emitted; {remedy}:\n{text}", path.display());
        for stage in ["student", "sparse", "small", "artifact", "quality"] {
            assert!(text.contains(stage), "{engine} lacks {stage}");
        }
    }
}

#[test]
fn the_graph_has_every_unit_after_those_it_needs() {
    let directory = fixture::workshop("chain.toml", CHAIN);
    let graph: Value = serde_json::from_str(&emitted(directory.path(), "chain.toml", "json")).expect("JSON");
    assert_eq!(graph["schema"], "slmc.graph/1");
    let units = graph["units"].as_array().expect("units");
    let names: Vec<&str> = units.iter().filter_map(|unit| unit["unit"].as_str()).collect();
    assert_eq!(names, ["small", "artifact.generic", "artifact.cortex-m55", "quality"]);
    for (index, unit) in units.iter().enumerate() {
        for need in unit["needs"].as_array().expect("needs") {
            assert!(names[..index].contains(&need.as_str().expect("a name")), "{unit}");
        }
    }
    assert_eq!(units[3]["command"], "slmc run chain.toml --only quality");
    assert_eq!(graph["last"]["command"], "slmc run chain.toml --cached-only");
    // As one line within a report, and with what the command line sets.
    let line = json(directory.path(), "plan chain.toml --emit json --set stages.small.scheme=w4");
    assert!(line.is_object());
}

#[test]
fn workflows_hand_the_recipes_variables_on_and_name_what_they_leave_out() {
    let recipe = CHAIN
        .replace("scheme = 'w8'", "scheme = 'env:SCHEME'")
        .replace("[stages.quality]\n", "[stages.quality]\nwhen = \"env:MEASURED == 'yes'\"\n");
    let recipe = recipe.split("[gates]").next().expect("the stages").to_owned();
    let directory = fixture::workshop("named.toml", &recipe);
    let emit = |engine: &str| {
        let mut command = slmc(directory.path(), &format!("plan named.toml --emit {engine}"));
        let output = command.env("SCHEME", "w8").output().expect("it runs");
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let github = emit("github");
    for line in ["  SCHEME: ${{ vars.SCHEME }}\n", "  MEASURED: ${{ vars.MEASURED }}\n"] {
        assert!(github.contains(line), "{github}");
    }
    for engine in ["github", "gitlab", "slurm"] {
        let text = emit(engine);
        assert!(text.contains("# The recipe reads MEASURED, SCHEME"), "{text}");
        assert!(text.contains("# Without quality, "), "{text}");
        assert!(!text.contains("--only quality"), "{text}");
    }
}

/// A stand-in for sbatch that runs what it is given at once, as a shell of a job would, if what it depends on went well.
const SBATCH: &str = r#"#!/usr/bin/env bash
set -u
state=$(dirname "$0")/jobs
mkdir -p "$state"
number=$(($(ls "$state" | wc -l) + 1))
dependency= command=
for argument in "$@"; do
    case $argument in
        --dependency=*) dependency=${argument#*=} ;;
        --wrap=*) command=${argument#*=} ;;
    esac
done
echo "$command" >>"$(dirname "$0")/log"
IFS=: read -ra needed <<<"${dependency#*:}"
if [[ $dependency == afterok:* ]]; then
    for other in "${needed[@]}"; do
        [ "$(cat "$state/$other")" = 0 ] || { echo 1 >"$state/$number"; echo "$number;cluster"; exit 0; }
    done
fi
sh -c "$command" >"$(dirname "$0")/out.$number" 2>&1
echo $? >"$state/$number"
echo "$number;cluster"
"#;

#[test]
fn the_slurm_script_runs_the_graph() {
    let directory = fixture::workshop("chain.toml", CHAIN);
    let path = directory.path();
    succeed(path, "run chain.toml --out plain --cache none");
    let bin = path.join("bin");
    fs::create_dir(&bin).expect("a directory");
    fs::write(bin.join("sbatch"), SBATCH).expect("written");
    fs::set_permissions(bin.join("sbatch"), fs::Permissions::from_mode(0o755)).expect("it can be run");
    symlink(env!("CARGO_BIN_EXE_slmc"), bin.join("slmc")).expect("a link");
    fs::write(path.join("submit"), emitted(path, "chain.toml", "slurm")).expect("written");
    let paths = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let submit = |cache: Option<&str>| {
        let mut command = std::process::Command::new("bash");
        command
            .arg("submit")
            .current_dir(path)
            .env("PATH", &paths)
            .env_remove("SLMC_CACHE_MODE")
            .env_remove("SLMC_CACHE");
        cache.map(|cache| command.env("SLMC_CACHE", cache));
        command.output().expect("bash starts")
    };
    let output = submit(None);
    assert!(!output.status.success() && stderr(&output).contains("set SLMC_CACHE"), "{}", stderr(&output));
    let output = submit(Some("file:cache"));
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed, "1 small\n2 artifact.generic\n3 artifact.cortex-m55\n4 quality\n5 report\n");
    for target in ["generic", "cortex-m55"] {
        let of = |out: &str| fs::read(path.join(format!("{out}/chain/artifact.{target}.slm"))).expect("the artifact");
        assert!(of("out") == of("plain"), "{target} has other bytes");
    }
    assert!(path.join("report.html").is_file() && path.join("junit.xml").is_file());
}

#[test]
fn names_that_would_be_commands_or_expressions_are_text() {
    let name = "a b'; touch gone; echo ${{ github.token }} $(touch gone) .toml";
    let directory = fixture::workshop(name, CHAIN);
    let path = directory.path();
    let of = |engine: &str| {
        let output = slmc(path, &["plan", name, "--emit", engine]).output().expect("the program starts");
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let quoted = "'a b'\\''; touch gone; echo ${{ github.token }} $(touch gone) .toml'";
    let github = of("github");
    let without_comments: String = github.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(!without_comments.contains("${{ github.token"), "{github}");
    assert!(github.contains("echo ${{ '${{' }} github.token"), "{github}");
    assert!(of("slurm").contains(&quoted.replace('\'', "'\\''")) || of("slurm").contains("touch gone"));
    let graph: Value = serde_json::from_str(&of("json")).expect("JSON");
    assert_eq!(graph["units"][0]["command"], format!("slmc run {quoted} --only small"));
    // The script takes the name for one word.
    fs::write(path.join("submit"), of("slurm")).expect("written");
    let bin = path.join("bin");
    fs::create_dir(&bin).expect("a directory");
    fs::write(
        bin.join("sbatch"),
        "#!/bin/sh\nfor a in \"$@\"; do case $a in --wrap=*) sh -c \"${a#*=}\" >&2;; esac; done; echo 1\n",
    )
    .expect("written");
    fs::write(bin.join("slmc"), "#!/bin/sh\nprintf '%s\\n' \"$2\" >>seen\n").expect("written");
    for program in ["sbatch", "slmc"] {
        fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755)).expect("it can be run");
    }
    let paths = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let run = std::process::Command::new("bash")
        .arg("submit")
        .current_dir(path)
        .env("PATH", paths)
        .env("SLMC_CACHE", "none")
        .output();
    assert!(run.as_ref().is_ok_and(|output| output.status.success()), "{run:?}");
    let seen = fs::read_to_string(path.join("seen")).expect("jobs ran");
    assert!(seen.lines().all(|line| line == name) && seen.lines().count() == 5, "{seen}");
    assert!(!path.join("gone").exists());
}

#[test]
fn a_recipe_with_mistakes_is_no_workflow() {
    let directory = fixture::workshop("chain.toml", &CHAIN.replace("scheme", "scheem"));
    refused(directory.path(), "plan chain.toml --emit github", "unknown key `scheem`");
    refused(directory.path(), "plan chain.toml --emit jenkins", "invalid value 'jenkins'");
}
