//! The result of a recipe: the results and figures of every stage, the gates, the sample. Figures come from the stages'
//! own reports by their keys, so that a stage taken from the cache shows the same as when it ran.

use super::gates::{GateResult, NotJudged};
use super::plan_report::{LeftOutStage, duration};
use crate::report::annotation::{Annotation, Level};
use crate::report::{Align, Report, Table, grouped, visible};
use crate::stages::{self, Cost, summary::Figures};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran.
    Done,
    /// It had run before, with the same inputs.
    Cached,
    /// The model does not fit the target; there is no artifact.
    DoesNotFit,
    /// An input is missing, because a stage before it gave no output.
    NotRun,
    /// Nothing was to be computed, and its result is in none of the caches.
    NotCached,
}

/// One stage.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StageResult {
    /// Name, with the target where the stage has several.
    pub stage: String,
    /// Its subcommand.
    pub kind: &'static str,
    /// The values of the matrix that it has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cell: BTreeMap<String, String>,
    /// How it ended.
    pub status: Status,
    /// What it took, where it ran.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What it took when it was made, where its result was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_in: Option<Cost>,
    /// Why it has no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Path of its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// SHA-256 of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The subcommand's report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
    /// File and line in the recipe.
    #[serde(skip)]
    pub place: (PathBuf, usize),
}

/// A text continued.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SampleResult {
    /// `model`, or the stage whose artifact it is.
    pub of: String,
    /// Prompt and continuation.
    pub text: String,
}

/// Something that stages read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct InputDigest {
    /// As the recipe names it.
    pub path: String,
    /// Hash of the file, or of a directory's files and their names.
    pub sha256: String,
}

/// An artifact that was signed for devices, beside the one of its stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SignedArtifact {
    /// The stage whose artifact was signed.
    pub stage: String,
    /// The signed file.
    pub output: PathBuf,
    /// SHA-256 of that.
    pub sha256: String,
}

/// Result of `slmc run`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunReport {
    /// The recipe's name.
    pub recipe: String,
    /// Its file, as it was named.
    pub file: String,
    /// Values of the command line over the recipe's, as `KEY=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// Name and version of the program.
    pub tool: String,
    /// Everything that was read and that no stage made.
    pub inputs: Vec<InputDigest>,
    /// In the order in which they ran.
    pub stages: Vec<StageResult>,
    /// In the order of the recipe.
    pub gates: Vec<GateResult>,
    /// Stages that a condition leaves out, with what reads them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutStage>,
    /// Gates that nothing is measured for, since their stages are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_judged: Vec<NotJudged>,
    /// Samples of the model and of the last artifact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<SampleResult>,
    /// Artifacts signed for devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signed: Vec<SignedArtifact>,
    /// Files that state how the artifacts were made, and which gates they passed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<PathBuf>,
    /// Whether every stage gave a result and every gate holds, one at least of those that the recipe has being judged.
    pub passed: bool,
    /// The same, and whether there was anything to judge.
    pub verdict: RunVerdict,
}

/// How a run came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunVerdict {
    /// Every stage gave a result and every gate that could be judged holds.
    Passed,
    /// Not so.
    NotPassed,
    /// Conditions leave out every stage, or the stage of every gate.
    NotJudged,
}

impl RunVerdict {
    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            RunVerdict::Passed => "passed",
            RunVerdict::NotPassed => "not passed",
            RunVerdict::NotJudged => "not judged",
        }
    }
}

impl StageResult {
    fn figures(&self) -> Option<Figures<'_>> {
        self.report.as_ref().map(Figures)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.figures()?.number(key)
    }

    fn count(&self, key: &str) -> Option<String> {
        self.figures()?.count(key)
    }

    /// In a few words.
    fn what(&self) -> String {
        let state = match (self.status, self.made_in) {
            (Status::Cached, Some(cost)) => format!(", cached, made in {}", duration(cost.seconds)),
            (Status::Cached, None) => ", cached".to_owned(),
            (Status::NotRun, _) => return "not run".to_owned(),
            (Status::DoesNotFit, _) => return "does not fit".to_owned(),
            (Status::NotCached, _) => return "in none of the caches".to_owned(),
            (Status::Done, _) => String::new(),
        };
        let words = stages::named(self.kind).zip(self.figures()).and_then(|(kind, figures)| kind.summary(&figures));
        format!("{}{state}", words.unwrap_or_else(|| self.kind.to_owned()))
    }

    /// For the checks of a pull request; `None` where there is a result, or a stage before it has the fault.
    pub(super) fn annotation(&self) -> Option<Annotation> {
        let short = match self.status {
            Status::Done | Status::Cached | Status::NotRun => return None,
            Status::DoesNotFit => "the model does not fit its target",
            Status::NotCached => "its result is in none of the caches",
        };
        let message = self.why.clone().unwrap_or_else(|| short.to_owned());
        let ((file, line), title) = (self.place.clone(), format!("slmc stage {}", self.stage));
        Some(Annotation { level: Level::Error, file, line, column: 1, end_column: 1, title, message })
    }

    /// What was changed or left out of the data files that it read.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.figures().map(|figures| figures.remarks()).unwrap_or_default()
    }

    /// Where its result comes from.
    pub(super) fn origin(&self) -> &'static str {
        match self.status {
            Status::Done => "this run",
            Status::Cached => "cache",
            Status::DoesNotFit | Status::NotRun | Status::NotCached => "-",
        }
    }

    /// Name, what it did, bytes, KLD, top-1, perplexity, accuracy or cosine, seconds, peak memory in MiB.
    pub(super) fn cells(&self) -> [String; 9] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let percent = |key: &str| self.number(key).map(|share| format!("{:.2} %", 100.0 * share));
        let perplexity = self.number("perplexity").map(|perplexity| {
            match self.number("reference_perplexity").filter(|&reference| reference > 0.0) {
                Some(reference) => format!("{perplexity:.3} ({:.3})", perplexity / reference),
                None => format!("{perplexity:.3}"),
            }
        });
        [
            self.stage.clone(),
            self.what(),
            or_dash(self.count("file_bytes").or_else(|| self.count("weight_bytes"))),
            or_dash(self.number("kld_mean").map(|kld| format!("{kld:.4}"))),
            or_dash(percent("top1_agreement")),
            or_dash(perplexity),
            or_dash(percent("accuracy").or_else(|| self.number("cosine_mean").map(|cosine| format!("{cosine:.4}")))),
            or_dash(took(self.cost, self.made_in, |cost| Some(format!("{:.1}", cost.seconds)))),
            or_dash(took(self.cost, self.made_in, |cost| cost.peak_memory_bytes.map(|bytes| grouped(bytes >> 20)))),
        ]
    }
}

/// A figure of what a stage took; in brackets of when it was made, where that was earlier.
fn took(cost: Option<Cost>, made_in: Option<Cost>, figure: impl Fn(Cost) -> Option<String>) -> Option<String> {
    cost.and_then(&figure).or_else(|| made_in.and_then(&figure).map(|text| format!("({text})")))
}

impl RunReport {
    /// Why results that had to come from caches did not, a stage each.
    pub fn not_cached(&self) -> impl Iterator<Item = &str> {
        let missing = self.stages.iter().filter(|stage| stage.status == Status::NotCached);
        missing.filter_map(|stage| stage.why.as_deref())
    }

    /// What conditions leave out, a line each; nothing where they leave out nothing.
    pub(super) fn absent(&self) -> Vec<String> {
        let stages = self.left_out.iter().map(|other| format!("left out: {}: {}", other.stage, other.why));
        let gates = self.not_judged.iter().map(|gate| format!("not judged: {}", gate.words()));
        let mut lines: Vec<String> = stages.chain(gates).collect();
        if self.verdict == RunVerdict::NotJudged {
            lines.push("not judged: no gate, or no stage at all, is in this run, which is not passed".to_owned());
        }
        lines
    }
}

impl Report for RunReport {
    const SCHEMA: &'static str = "slmc.run/2";

    fn text(&self) -> String {
        let right = Align::Right;
        let cosine = self.stages.iter().any(|stage| stage.number("cosine_mean").is_some());
        let mut table = Table::new([
            ("stage", Align::Left),
            ("what it did", Align::Left),
            ("bytes", right),
            ("KLD", right),
            ("top-1", right),
            ("perplexity (ratio)", right),
            (if cosine { "cosine" } else { "accuracy" }, right),
            ("seconds", right),
            ("peak MiB", right),
        ]);
        for stage in &self.stages {
            table.row(stage.cells());
        }
        let mut text = table.to_string();
        let mut data = Table::new([("data of", Align::Left), ("", Align::Left)]);
        for stage in &self.stages {
            for remark in stage.remarks() {
                data.row([&stage.stage, &remark]);
            }
        }
        if !data.is_empty() {
            text = format!("{text}\n\n{data}");
        }
        if !self.gates.is_empty() {
            let mut gates = Table::new([
                ("gate", Align::Left),
                ("stage", Align::Left),
                ("limit", right),
                ("value (bounds)", right),
                ("", Align::Left),
            ]);
            for gate in &self.gates {
                let verdict = gate.verdict_words();
                // Capitals are seen in a long log.
                let verdict = match verdict.split_once([' ', ':']) {
                    _ if gate.passed => verdict,
                    Some((word, _)) => format!("{}{}", word.to_uppercase(), &verdict[word.len()..]),
                    None => verdict.to_uppercase(),
                };
                gates.row([&gate.gate, &gate.stage, &gate.limit_words(), &gate.value_words(), &verdict]);
            }
            text = format!("{text}\n\n{gates}");
            for gate in &self.gates {
                if let Some(words) = gate.contributor_words() {
                    text = format!("{text}\n{} on {}: {words}", gate.gate, gate.stage);
                }
            }
        }
        for (number, line) in self.absent().iter().enumerate() {
            text = format!("{text}{}{line}", if number == 0 { "\n\n" } else { "\n" });
        }
        for sample in &self.samples {
            text = format!("{text}\n\n{}: {}", sample.of, sample.text);
        }
        for (number, signed) in self.signed.iter().enumerate() {
            let path = signed.output.display();
            text = format!("{text}{}signed: {path}", if number == 0 { "\n\n" } else { "\n" });
        }
        for (number, path) in self.attestations.iter().enumerate() {
            text = format!("{text}{}attested: {}", if number == 0 { "\n\n" } else { "\n" }, path.display());
        }
        // Names and texts are other people's.
        visible(&text)
    }
}
