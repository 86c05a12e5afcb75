//! Where the result of a run goes besides stdout: files in several formats, each a rendering of one [`RunReport`], and
//! the places that GitHub Actions names. A file that something else wrote is never replaced.

mod junit;
pub(super) mod markdown;
mod page;

use super::mistake::Mistakes;
use super::plan_report::PlanReport;
use super::run_report::RunReport;
use crate::disk::atomic::{self, AtomicError};
use crate::report::annotation::{self, Annotation, commands};
use crate::report::{Report, json_line};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As on a terminal.
    Text,
    /// As with `--json`.
    Json,
    /// For the summary of a job.
    Markdown,
    /// JUnit XML.
    Junit,
    /// One page.
    Html,
}

impl Format {
    const ALL: [(&'static str, Format); 5] = [
        ("text", Format::Text),
        ("json", Format::Json),
        ("markdown", Format::Markdown),
        ("junit", Format::Junit),
        ("html", Format::Html),
    ];

    /// First bytes of every file of it.
    fn magic(self) -> &'static [u8] {
        match self {
            Format::Text => b"stage",
            Format::Json => b"{\"schema\":\"slmc.run/",
            Format::Markdown => markdown::MAGIC.as_bytes(),
            Format::Junit => junit::MAGIC.as_bytes(),
            Format::Html => page::MAGIC.as_bytes(),
        }
    }

    /// Likewise of a plan.
    fn plan_magic(self) -> &'static [u8] {
        match self {
            Format::Json => b"{\"schema\":\"slmc.plan/",
            Format::Markdown => markdown::PLAN_MAGIC.as_bytes(),
            other => other.magic(),
        }
    }

    fn render(self, report: &RunReport) -> Result<String, ReportError> {
        Ok(match self {
            Format::Text => format!("{}\n", report.text()),
            Format::Json => format!("{}\n", json_line(report)?),
            Format::Markdown => markdown::render(report),
            Format::Junit => junit::render(report),
            Format::Html => page::render(report),
        })
    }
}

/// A report that was asked for: `--report html=report.html`, `--report github`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A file.
    File {
        /// Its format.
        format: Format,
        /// Its path.
        path: PathBuf,
    },
    /// Annotations on stdout; a summary and outputs in the files that the environment of a job of GitHub names.
    GitHub,
}

/// A request that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Another word.
    #[error("`{0}` is not a report; known: {known}, each with =FILE, and github", known = Format::ALL.map(|(name, _)| name).join(", "))]
    Unknown(String),
    /// No file.
    #[error("`{0}` needs a file: {0}=FILE")]
    NoFile(String),
    /// A file for what has none.
    #[error("`github` takes no file: it writes to stdout, and to the files that the job's environment names")]
    File,
}

impl FromStr for Request {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name, Some(path).filter(|path| !path.is_empty())),
            None => (text, None),
        };
        if name == "github" {
            return if text.contains('=') { Err(RequestError::File) } else { Ok(Request::GitHub) };
        }
        let known = Format::ALL.into_iter().find(|(known, _)| *known == name);
        let (_, format) = known.ok_or_else(|| RequestError::Unknown(name.to_owned()))?;
        let path = path.ok_or_else(|| RequestError::NoFile(name.to_owned()))?.into();
        Ok(Request::File { format, path })
    }
}

/// Why a report is not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Its file cannot be written, or is something else.
    #[error(transparent)]
    File(#[from] AtomicError),
    /// Its directory cannot be made.
    #[error("{}: cannot be made", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file of the job cannot be written.
    #[error("{}: cannot be written, though the job's environment names it", path.display())]
    Job {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Two things for one stream.
    #[error("--report github writes to stdout, where --json has its one line; pass --report json=FILE instead")]
    Stdout,
    /// A plan has nothing to put there.
    #[error("junit and html are for the results of `slmc run`; a plan is written as text, json, markdown and github")]
    OfRun,
    /// It cannot be JSON.
    #[error("the report cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Refuses, before the work, files that may not be replaced, and makes their directories. `json` says that stdout has a line
/// of JSON.
///
/// # Errors
/// [`ReportError`].
pub fn check(requests: &[Request], json: bool) -> Result<(), ReportError> {
    check_files(requests, json, Format::magic)
}

/// Likewise for a plan.
///
/// # Errors
/// [`ReportError`]; a plan has no results for some formats.
pub fn check_plan(requests: &[Request], json: bool) -> Result<(), ReportError> {
    let of_results = |request: &&Request| matches!(request, Request::File { format: Format::Junit | Format::Html, .. });
    if requests.iter().any(|request| of_results(&request)) {
        return Err(ReportError::OfRun);
    }
    check_files(requests, json, Format::plan_magic)
}

fn check_files(requests: &[Request], json: bool, magic: impl Fn(Format) -> &'static [u8]) -> Result<(), ReportError> {
    if json && requests.contains(&Request::GitHub) {
        return Err(ReportError::Stdout);
    }
    for request in requests {
        if let Request::File { format, path } = request {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(directory) = directory {
                let failed = |source| ReportError::Directory { path: directory.to_owned(), source };
                std::fs::create_dir_all(directory).map_err(failed)?;
            }
            atomic::check_file(path, magic(*format))?;
        }
    }
    Ok(())
}

/// Writes a plan where it was asked for; the returned text is for stdout.
///
/// # Errors
/// [`ReportError`].
pub fn write_plan(requests: &[Request], plan: &PlanReport) -> Result<String, ReportError> {
    let mut out = String::new();
    for request in requests {
        match request {
            Request::File { format, path } => {
                let text = match format {
                    Format::Text => format!("{}\n", plan.text()),
                    Format::Json => format!("{}\n", json_line(plan)?),
                    Format::Markdown => markdown::plan(plan),
                    Format::Junit | Format::Html => return Err(ReportError::OfRun),
                };
                atomic::write_file(path, format.plan_magic(), |file| file.write_all(text.as_bytes()))?;
            }
            Request::GitHub => {
                out.push_str(&github(&plan.annotations()));
                of_job("GITHUB_STEP_SUMMARY", &markdown::plan(plan))?;
                let to_do = plan.names_to_do().join(",");
                of_job("GITHUB_OUTPUT", &format!("fits={}\nto_do={to_do}\n", plan.fits))?;
            }
        }
    }
    Ok(out)
}

/// Writes what was asked for; the returned text is for stdout.
///
/// # Errors
/// [`ReportError`].
pub fn write(requests: &[Request], report: &RunReport) -> Result<String, ReportError> {
    let mut out = String::new();
    for request in requests {
        match request {
            Request::File { format, path } => {
                let text = format.render(report)?;
                atomic::write_file(path, format.magic(), |file| file.write_all(text.as_bytes()))?;
            }
            Request::GitHub => {
                let of_gates = report.gates.iter().filter_map(|gate| gate.annotation());
                let of_stages = report.stages.iter().filter_map(|stage| stage.annotation());
                let left_out = report.not_judged.iter().map(|gate| gate.annotation());
                let annotations: Vec<Annotation> = of_gates.chain(of_stages).chain(left_out).collect();
                out.push_str(&github(&annotations));
                of_job("GITHUB_STEP_SUMMARY", &markdown::render(report))?;
                of_job("GITHUB_OUTPUT", &outputs(report))?;
            }
        }
    }
    Ok(out)
}

/// Appends to the file that a variable of the job names, if there is one.
fn of_job(variable: &str, text: &str) -> Result<(), ReportError> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(());
    };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| ReportError::Job { path, source })
}

/// Lines `name=value` for the steps after this one; a value has no line end, since names of gates have none.
fn outputs(report: &RunReport) -> String {
    let failed: Vec<&str> = report.gates.iter().filter(|gate| !gate.passed).map(|gate| gate.gate.as_str()).collect();
    let verdict = report.verdict.words().replace(' ', "_");
    format!("verdict={verdict}\npassed={}\nfailed_gates={}\n", report.passed, failed.join(","))
}

/// The annotations of a recipe's mistakes, if GitHub's were asked for.
pub fn of_mistakes(requests: &[Request], mistakes: &Mistakes) -> String {
    if requests.contains(&Request::GitHub) { github(&mistakes.annotations()) } else { String::new() }
}

/// The text for the log of a job, in which nothing that a model says is taken for a command.
pub fn fenced(report: &RunReport) -> String {
    // Not to be guessed by a text: the hasher's keys are random.
    let token = format!("slmc-{:016x}", RandomState::new().build_hasher().finish());
    annotation::fenced(&report.text(), &token)
}

fn github(annotations: &[Annotation]) -> String {
    commands(annotations, annotation::repository(Path::new(".")).as_deref())
}

#[cfg(test)]
mod tests {
    use super::super::gates::{GateResult, GateVerdict, NotJudged};
    use super::super::plan_report::LeftOutStage;
    use super::super::run_report::{InputDigest, RunVerdict, SampleResult, StageResult, Status};
    use super::*;
    use serde_json::json;

    /// Text that would be markup, a command or an escape in one of the formats.
    const HOSTILE: &str = "</pre></td><script>alert(1)</script><img src=x onerror=y>]]>&amp;\n::error file=a::b\n```\n\
                           | [x](javascript:y) |\u{1b}[2J\u{0}\u{202e}\u{b}\n::set-output name=a::b";

    fn gate(name: &str, verdict: GateVerdict) -> GateResult {
        let gate = json!({
            "gate": name, "stage": HOSTILE, "file": "a.toml", "line": 3, "limit": 0.05, "at_least": false,
            "value": 0.0712, "lower": 0.068, "upper": 0.0744, "confidence": 0.95, "draws": 16, "samples": 26,
            "unit": "windows", "needed": 140, "margin": -0.0212, "verdict": verdict, "reason": HOSTILE,
            "passed": verdict == GateVerdict::Passed,
            "contributors": [{"name": HOSTILE, "scheme": "w4.g32", "share": 0.31, "by_cost": true}],
        });
        serde_json::from_value(gate).expect("a gate")
    }

    fn report() -> RunReport {
        let stage = |name: &str, kind, status, report| StageResult {
            stage: name.to_owned(),
            kind,
            cell: Default::default(),
            status,
            cost: None,
            made_in: None,
            why: Some(HOSTILE.to_owned()),
            output: Some(PathBuf::from(HOSTILE)),
            sha256: Some("00".to_owned()),
            report: Some(report),
            place: (PathBuf::from("a.toml"), 3),
        };
        let matrices = json!([{"name": HOSTILE, "scheme": "w8", "relative_error": 0.1}]);
        let curve = json!([[0, 4.0], [1, 3.0]]);
        let memory = json!({
            "target": HOSTILE, "arena_bytes": 10, "cache_bytes": 20, "stack_bytes": 3, "ram_bytes": 33, "flash_bytes": 99,
            "weight_bytes": 90, "bytes_by_class": {"ffn": 60, "embedding": 30}, "context": 64,
        });
        RunReport {
            recipe: HOSTILE.to_owned(),
            file: HOSTILE.to_owned(),
            settings: Vec::new(),
            signed: Vec::new(),
            attestations: Vec::new(),
            tool: "slmc 0".to_owned(),
            inputs: vec![InputDigest { path: HOSTILE.to_owned(), sha256: "00".to_owned() }],
            stages: vec![
                stage("student", "distill", Status::Done, json!({"curve": curve})),
                stage("small", "quantize", Status::Cached, json!({"matrices": matrices})),
                stage("artifact", "compile", Status::Done, memory),
                stage("board", "compile", Status::DoesNotFit, json!({})),
            ],
            gates: [
                ("kld_max", GateVerdict::Missed),
                ("top1_min", GateVerdict::Undecided),
                ("cosine_min", GateVerdict::NotMeasured),
                ("file_bytes_max", GateVerdict::Passed),
            ]
            .map(|(name, verdict)| gate(name, verdict))
            .to_vec(),
            samples: vec![SampleResult { of: HOSTILE.to_owned(), text: HOSTILE.to_owned() }],
            left_out: vec![LeftOutStage { stage: "late".to_owned(), why: HOSTILE.to_owned() }],
            not_judged: vec![NotJudged {
                gate: "accuracy_min".to_owned(),
                stage: "late".to_owned(),
                file: "a.toml".to_owned(),
                line: 9,
                why: HOSTILE.to_owned(),
            }],
            passed: false,
            verdict: RunVerdict::NotPassed,
        }
    }

    #[test]
    fn hostile_text_is_text_in_every_format() {
        let report = report();
        for (name, format) in Format::ALL {
            let text = format.render(&report).expect("renders");
            assert!(text.as_bytes().starts_with(format.magic()), "{name}: {text}");
            let control = |character: &char| character.is_control() && !matches!(character, '\n' | '\t');
            assert_eq!(text.chars().find(control), None, "{name}");
        }
        let html = Format::Html.render(&report).expect("renders");
        for markup in ["<script", "<img", "</pre></td>", "javascript:y)<", "\u{202e}"] {
            assert!(!html.contains(markup), "{markup} in {html}");
        }
        assert!(html.contains("&lt;script&gt;") && html.len() < 1 << 20);
        let markdown = Format::Markdown.render(&report).expect("renders");
        for markup in ["<script", "<img", "[x](javascript"] {
            let outside: String = markdown.split("````").step_by(2).collect();
            assert!(!outside.contains(markup), "{markup} in {markdown}");
        }
        let log = fenced(&report);
        let token = log.lines().next().and_then(|line| line.strip_prefix("::stop-commands::")).expect("a fence");
        assert!(log.ends_with(&format!("\n::{token}::\n")) && !report.text().contains(token), "{log}");
    }

    /// What junit-10.xsd of Jenkins asks for, as far as it can be seen without a validator.
    #[test]
    fn junit_is_in_the_dialect_that_all_readers_take() {
        let text = Format::Junit.render(&report()).expect("renders");
        let suites = text.lines().nth(1).and_then(|line| line.split_once('>')).expect("an element").0;
        assert_eq!(suites, "<testsuites name=\"slmc\" tests=\"10\" failures=\"2\" errors=\"2\" time=\"0.000\"");
        for (element, expected) in [("testcase", 10), ("failure", 2), ("error", 2), ("skipped", 2)] {
            let (starts, ends) = (format!("<{element} "), format!("</{element}>"));
            assert_eq!((text.matches(&starts).count(), text.matches(&ends).count()), (expected, expected), "{text}");
        }
        let cases: Vec<&str> =
            text.split("<testcase ").skip(1).map(|case| case.split('>').next().unwrap_or("")).collect();
        let mut names: Vec<&str> = cases.clone();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases.len(), "GitLab counts the first of equal names only");
        assert!(cases.iter().all(|case| case.matches("=\"").count() == 3), "{cases:?}");
        assert!(!text.contains("<script") && text.contains("&lt;script&gt;"), "{text}");
    }

    #[test]
    fn a_summary_too_long_leaves_whole_sections_out_and_says_so() {
        let mut report = report();
        report.samples[0].text = "word ".repeat(20_000);
        let markdown = Format::Markdown.render(&report).expect("renders");
        assert!(markdown.len() < 64 << 10 && markdown.contains("Left out, being too long for a summary: samples."));
        assert!(markdown.contains("| ❌ | kld"), "{markdown}");
    }

    #[test]
    fn requests_name_a_format_and_a_file() {
        let file = Request::File { format: Format::Json, path: PathBuf::from("a=b.json") };
        assert_eq!("json=a=b.json".parse(), Ok(file));
        assert_eq!("github".parse(), Ok(Request::GitHub));
        let wrong = [
            ("json", RequestError::NoFile("json".to_owned())),
            ("json=", RequestError::NoFile("json".to_owned())),
            ("pdf=a.pdf", RequestError::Unknown("pdf".to_owned())),
            ("github=a", RequestError::File),
        ];
        for (text, error) in wrong {
            assert_eq!(text.parse::<Request>(), Err(error), "{text}");
        }
    }
}
