//! A pipeline of GitLab CI: a job for each stage, for `include:` or as a child pipeline. The report has a stage of its own, so
//! that it waits for all without naming them: `needs` may have fifty entries.

use super::{Jobs, yaml};
use std::fmt::Write;

/// Keys of a pipeline that are not jobs, and the job with the report.
const TAKEN: [&str; 18] = [
    "report",
    "image",
    "services",
    "stages",
    "types",
    "before_script",
    "after_script",
    "variables",
    "cache",
    "include",
    "default",
    "workflow",
    "pages",
    "spec",
    "true",
    "false",
    "nil",
    "null",
];

pub(super) fn pipeline(jobs: &Jobs<'_>) -> String {
    let names = jobs.identifiers(&TAKEN);
    let mut out = format!(
        "# Made by `{}`; make it anew when the stages of the recipe change.
#
# The variables SLMC_IMAGE (docs/ci/Containerfile) and SLMC_CACHE (docs/cache.md) of the project name the image of the jobs and
# the cache by which they hand on their outputs; SLMC_CACHE_MODE is read-write where that variable is protected.
{}stages: [slmc, report]

default:
  image: $SLMC_IMAGE

",
        jobs.made_by("gitlab").replace('`', "'"),
        jobs.remarks("variables of the project"),
    );
    for (stage, name) in jobs.plan.stages.iter().zip(&names) {
        let need = |need: usize| format!("{{job: {}, artifacts: false}}", yaml(&names[need]));
        let needs: Vec<String> = jobs.needs(stage).into_iter().map(need).collect();
        let _ = write!(
            out,
            "{}:\n  stage: slmc\n  needs: [{}]\n  script:\n    - {}\n\n",
            yaml(name),
            needs.join(", "),
            yaml(&jobs.command(stage))
        );
    }
    let last = format!("{} --report junit=junit.xml --report html=report.html", jobs.last());
    let _ = write!(
        out,
        "report:
  stage: report
  when: always
  script:
    - {}
  artifacts:
    when: always
    paths: [out/, report.html]
    reports:
      junit: junit.xml
",
        yaml(&last)
    );
    out
}
