#!/usr/bin/env bash
# Made by `slmc plan recipes/quickstart.toml --emit slurm`; make it anew when the stages of the recipe change.
#
# Submits a job for each stage and prints a line for each: its number and the stage. Run it where the jobs are to run; SLMC_CACHE
# must name a cache that all nodes reach (a directory they share, or a server: docs/cache.md). Options for every job, such as
# --partition or --time, in SLMC_SBATCH. SLMC_CACHE_MODE is read-write for servers.
set -euo pipefail
: "${SLMC_CACHE:?set SLMC_CACHE to a cache that all nodes reach}"
export SLMC_CACHE SLMC_CACHE_MODE="${SLMC_CACHE_MODE:-read-write}"
declare -a job

# submit NUMBER STAGE DEPENDENCY COMMAND OPTION…
submit() {
    local number=$1 stage=$2 dependency=$3 command=$4 options=()
    shift 4
    [ -z "$dependency" ] || options+=(--dependency="$dependency" --kill-on-invalid-dep=yes)
    # An empty list is an unset one to bash before 4.4.
    # shellcheck disable=SC2086
    job[number]=$(sbatch --parsable --requeue --job-name="slmc-$stage" ${options[@]+"${options[@]}"} "$@" ${SLMC_SBATCH:-} --wrap="$command")
    job[number]=${job[number]%%;*}
    echo "${job[number]} $stage"
}

submit 0 student "" 'slmc run recipes/quickstart.toml --only student' --mem=#M
submit 1 sparse "afterok:${job[0]}" 'slmc run recipes/quickstart.toml --only sparse' --mem=#M
submit 2 small "afterok:${job[1]}" 'slmc run recipes/quickstart.toml --only small' --mem=#M
submit 3 artifact "afterok:${job[2]}" 'slmc run recipes/quickstart.toml --only artifact' --mem=#M
submit 4 quality "afterok:${job[3]}" 'slmc run recipes/quickstart.toml --only quality' --mem=#M
submit 5 report "afterany:${job[0]}:${job[1]}:${job[2]}:${job[3]}:${job[4]}" 'slmc run recipes/quickstart.toml --cached-only --report junit=junit.xml --report html=report.html'
