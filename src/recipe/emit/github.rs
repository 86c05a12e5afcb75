//! A workflow of GitHub Actions: a job for each stage. It runs on pushes, since jobs hand their outputs on through a cache that
//! they write; pull requests, which should not write there, are for one job that runs all (docs/ci/github.yml).

use super::{Jobs, Variable, yaml};
use std::fmt::Write;

/// The job with the report.
const REPORT: &str = "report";

pub(super) fn workflow(jobs: &Jobs<'_>) -> String {
    let names = jobs.identifiers(&[REPORT]);
    let mut out = format!(
        "# Made by `{}`; make it anew when the stages of the recipe change.
#
# The variables SLMC_IMAGE (docs/ci/Containerfile) and SLMC_CACHE (docs/cache.md) of the repository name the image of the jobs and
# the cache by which they hand on their outputs; the secret SLMC_CACHE_TOKEN may write there.
{}name: {}
on:
  push:
    branches: [main]
  workflow_dispatch:
permissions:
  contents: read
concurrency:
  group: {}
  cancel-in-progress: false
env:
  SLMC_CACHE: ${{{{ vars.SLMC_CACHE }}}}
  SLMC_CACHE_MODE: read-write
  SLMC_CACHE_TOKEN: ${{{{ secrets.SLMC_CACHE_TOKEN }}}}
{}jobs:
",
        text_in_comment(&jobs.made_by("github")),
        text_in_comment(&jobs.remarks("variables of the repository, or secrets where they are such")),
        text(&format!("slmc {}", jobs.plan.recipe)),
        text(&format!("slmc-{}", jobs.plan.recipe)),
        variables(jobs),
    );
    for (stage, name) in jobs.plan.stages.iter().zip(&names) {
        let needs: Vec<&str> = jobs.needs(stage).into_iter().map(|need| names[need].as_str()).collect();
        let command = format!("{} --report github", jobs.command(stage));
        job(&mut out, name, &stage.stage, &needs, "", &command);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    // Also where a stage failed: the report says which.
    let always = "    if: ${{ !cancelled() }}\n";
    let last = format!("{} --report github --report html=report.html --report junit=junit.xml", jobs.last());
    job(&mut out, REPORT, REPORT, &all, always, &last);
    out.push_str(
        "      - uses: actions/upload-artifact@v4
        if: ${{ !cancelled() }}
        with:
          name: slmc
          path: |
            report.html
            junit.xml
            out/
          if-no-files-found: warn
",
    );
    out
}

/// The recipe's variables, by the names that it reads.
fn variables(jobs: &Jobs<'_>) -> String {
    let line = |variable: &Variable| {
        let (name, context) = (&variable.name, if variable.secret { "secrets" } else { "vars" });
        format!("  {name}: ${{{{ {context}.{name} }}}}\n")
    };
    jobs.variables().map(line).collect()
}

fn job(out: &mut String, id: &str, name: &str, needs: &[&str], condition: &str, command: &str) {
    let _ = write!(out, "  {id}:\n    name: {}\n", text(name));
    if !needs.is_empty() {
        let _ = writeln!(out, "    needs: [{}]", needs.join(", "));
    }
    let _ = write!(
        out,
        "{condition}    runs-on: ubuntu-24.04
    container: ${{{{ vars.SLMC_IMAGE }}}}
    steps:
      - uses: actions/checkout@v6
      - run: {}
",
        text(command)
    );
}

/// A scalar in which nothing is an expression.
fn text(text: &str) -> String {
    yaml(&text.replace("${{", "${{ '${{' }}"))
}

/// Likewise in a comment, where nothing is evaluated.
fn text_in_comment(text: &str) -> String {
    text.replace('`', "'")
}
