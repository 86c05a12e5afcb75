//! A shell script that submits a job for each stage to Slurm and prints their numbers. A stage starts when those it reads are
//! done, is cancelled when one of them failed, and starts again where its node was taken away.

use super::Jobs;
use crate::report::shell;
use std::fmt::Write;

/// Memory beside the estimate: the program, its tables, what an estimate may miss.
const REST_BYTES: u64 = 512 << 20;

pub(super) fn script(jobs: &Jobs<'_>) -> String {
    let mut out = format!(
        "#!/usr/bin/env bash
# Made by `{}`; make it anew when the stages of the recipe change.
#
# Submits a job for each stage and prints a line for each: its number and the stage. Run it where the jobs are to run; SLMC_CACHE
# must name a cache that all nodes reach (a directory they share, or a server: docs/cache.md). Options for every job, such as
# --partition or --time, in SLMC_SBATCH. SLMC_CACHE_MODE is read-write for servers.
{}set -euo pipefail
: \"${{SLMC_CACHE:?set SLMC_CACHE to a cache that all nodes reach}}\"
export SLMC_CACHE SLMC_CACHE_MODE=\"${{SLMC_CACHE_MODE:-read-write}}\"
declare -a job

# submit NUMBER STAGE DEPENDENCY COMMAND OPTION…
submit() {{
    local number=$1 stage=$2 dependency=$3 command=$4 options=()
    shift 4
    [ -z \"$dependency\" ] || options+=(--dependency=\"$dependency\" --kill-on-invalid-dep=yes)
    # An empty list is an unset one to bash before 4.4.
    # shellcheck disable=SC2086
    job[number]=$(sbatch --parsable --requeue --job-name=\"slmc-$stage\" ${{options[@]+\"${{options[@]}}\"}} \"$@\" ${{SLMC_SBATCH:-}} --wrap=\"$command\")
    job[number]=${{job[number]%%;*}}
    echo \"${{job[number]}} $stage\"
}}

",
        jobs.made_by("slurm").replace('`', "'"),
        jobs.remarks("jobs have the environment of this script"),
    );
    for (number, stage) in jobs.plan.stages.iter().enumerate() {
        let needs: String = jobs.needs(stage).into_iter().map(|need| format!(":${{job[{need}]}}")).collect();
        let dependency = if needs.is_empty() { String::new() } else { format!("afterok{needs}") };
        let memory = stage.estimate.predicted.peak_memory_bytes.map(|bytes| (bytes + bytes / 4 + REST_BYTES) >> 20);
        let memory = memory.map_or_else(String::new, |mebibytes| format!(" --mem={mebibytes}M"));
        let _ = writeln!(
            out,
            "submit {number} {} \"{dependency}\" {}{memory}",
            shell(&stage.stage),
            shell(&jobs.command(stage))
        );
    }
    let count = jobs.plan.stages.len();
    let all: String = (0..count).map(|number| format!(":${{job[{number}]}}")).collect();
    let last = format!("{} --report junit=junit.xml --report html=report.html", jobs.last());
    let dependency = if all.is_empty() { String::new() } else { format!("afterany{all}") };
    let _ = writeln!(out, "submit {count} report \"{dependency}\" {}", shell(&last));
    out
}
