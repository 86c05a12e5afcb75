//! A gate's verdict from the reports of its stage, and of the stage that measures its baseline.

use super::contributors::Contributor;
use super::definition::Measure;
use super::{Gate, Gates, Other, drift};
use crate::eval::sums::Sums;
use crate::report::annotation::{Annotation, Level};
use crate::report::grouped;
use crate::statistics::{Draw, Interval, LEAST_DRAWS, Side, Verdict, blocks, mcnemar};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::path::PathBuf;

/// How a gate came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    /// The limit holds.
    Passed,
    /// It does not.
    Missed,
    /// It lies between the bounds, or there are too few samples to tell.
    Undecided,
    /// The stage did not run, or reports something else.
    NotMeasured,
}

/// A gate beside what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateResult {
    /// Such as `kld_max`.
    pub gate: String,
    /// Where it was measured.
    pub stage: String,
    /// `reference`, or the other artifact as the recipe names it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub against: Option<String>,
    /// The file that sets it, as the recipe was named.
    pub file: String,
    /// Its line there, from 1.
    pub line: usize,
    /// Limit asked for.
    pub limit: f64,
    /// Whether the limit is the least or the most that is allowed.
    pub at_least: bool,
    /// Measured value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<f64>,
    /// With `confidence` the true value is not below this.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lower: Option<f64>,
    /// With `confidence` the true value is not above this.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upper: Option<f64>,
    /// Confidence of each bound, one-sided; absent for counts, which have no error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub confidence: Option<f64>,
    /// Independent draws that the bounds come from: blocks of windows, texts, pairs of runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub draws: Option<u64>,
    /// Windows, texts, prompts or pairs that were measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub samples: Option<u64>,
    /// What a sample is: `windows`, `conversations`, `texts`, `prompts` or `pairs of runs`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit: Option<String>,
    /// Where it is undecided, how many would decide.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub needed: Option<u64>,
    /// How far the measured value is on the good side of the limit; negative is by how much it misses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub margin: Option<f64>,
    /// How likely as uneven a change between right and wrong is by chance alone (McNemar, mid-p).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chance: Option<f64>,
    /// The verdict.
    pub verdict: GateVerdict,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Whether it counts as held: passed, or undecided where `[gates]` says so.
    pub passed: bool,
    /// The matrices that contribute most to the error, where the limit does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub contributors: Vec<Contributor>,
}

impl GateResult {
    /// The limit with its direction: `≤ 0.05`.
    pub fn limit_words(&self) -> String {
        format!("{} {}", if self.at_least { "≥" } else { "≤" }, figure(self.limit))
    }

    /// The interval in which the true value is: `0.0712 (0.0680 to 0.0744)`; of a count the number alone.
    pub fn value_words(&self) -> String {
        match (self.value, self.lower, self.upper) {
            (Some(value), Some(lower), Some(upper)) => {
                format!("{} ({} to {})", figure(value), figure(lower), figure(upper))
            }
            (Some(value), _, _) => figure(value),
            _ => "-".to_owned(),
        }
    }

    /// The verdict with what belongs to it: `missed by 0.0212`, `undecided: 26 windows do not decide; about 140 would`.
    pub fn verdict_words(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        match (self.verdict, self.margin) {
            (GateVerdict::Passed, _) => "passed".to_owned(),
            (GateVerdict::Missed, Some(margin)) => format!("missed by {}", figure(-margin)),
            (GateVerdict::Missed, None) => "missed".to_owned(),
            (GateVerdict::Undecided, _) if self.passed => format!("undecided, which passes: {reason}"),
            (GateVerdict::Undecided, _) => format!("undecided: {reason}"),
            (GateVerdict::NotMeasured, _) if self.passed => format!("not measured, which passes: {reason}"),
            (GateVerdict::NotMeasured, _) => format!("not measured: {reason}"),
        }
    }

    /// The verdict alone.
    pub fn verdict_word(&self) -> &'static str {
        match self.verdict {
            GateVerdict::Passed => "passed",
            GateVerdict::Missed => "missed",
            GateVerdict::Undecided => "undecided",
            GateVerdict::NotMeasured => "not measured",
        }
    }

    /// For the checks of a pull request; `None` where the limit holds.
    pub fn annotation(&self) -> Option<Annotation> {
        if self.passed {
            return None;
        }
        let mut message = format!(
            "{} on {}: {}, limit {}, {}",
            self.gate,
            self.stage,
            self.value_words(),
            self.limit_words(),
            self.verdict_words()
        );
        if let Some(words) = self.contributor_words() {
            message = format!("{message}\n{words}");
        }
        let end_column = 1 + self.gate.chars().count();
        let (file, title) = (PathBuf::from(&self.file), format!("slmc gate {}", self.gate));
        Some(Annotation { level: Level::Error, file, line: self.line, column: 1, end_column, title, message })
    }

    /// The matrices that contribute most: `most of the error comes from layers.2.ffn.down (w4.g32) 31 %, …`; `None`
    /// where none is named.
    pub fn contributor_words(&self) -> Option<String> {
        let word = |one: &Contributor| format!("{} ({}) {:.0} %", one.name, one.scheme, 100.0 * one.share);
        let words: Vec<String> = self.contributors.iter().map(word).collect();
        let by_cost = self.contributors.first()?.by_cost;
        let what = if by_cost { "most of the error comes from" } else { "the largest errors of rounding are in" };
        Some(format!("{what} {}", words.join(", ")))
    }
}

/// Counts with separators, everything else with four digits after the point; small numbers with six.
pub(in crate::recipe) fn figure(value: f64) -> String {
    match value.abs() {
        size if value.fract() == 0.0 && size < 9e15 => {
            format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped(size as u64))
        }
        size if size < 1e-5 => format!("{value:.1e}"),
        size if size < 0.01 => format!("{value:.6}"),
        _ => format!("{value:.4}"),
    }
}

/// What a stage says of a quantity.
enum Measured {
    /// Exactly.
    Count(f64),
    Sampled(Sampled),
    /// Not at all, and why.
    Nothing(String),
}

/// By samples.
struct Sampled {
    /// `None` where they are too few for any.
    interval: Option<Interval>,
    samples: usize,
    unit: &'static str,
    /// From the scale on which the interval was computed to the gate's.
    scale: Scale,
    chance: Option<f64>,
}

/// The scale on which a quantity has its error.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Plain,
    /// The logarithm.
    Logarithm,
}

impl Scale {
    fn of_limit(self, limit: f64) -> f64 {
        if self == Scale::Logarithm { limit.ln() } else { limit }
    }

    fn back(self, value: f64) -> f64 {
        if self == Scale::Logarithm { value.exp() } else { value }
    }
}

/// Speeds of two artifacts, in turn: ln(own rate / other rate) of each pair of runs.
pub(in crate::recipe) type Pairs = Vec<f64>;

impl Gates {
    /// The verdict on one gate. `report` gives the reports of stages by index, `pairs` what a gate on speed measured.
    pub(in crate::recipe) fn judge<'r>(
        &self,
        gate: &Gate,
        label: String,
        report: &dyn Fn(usize) -> Option<&'r Json>,
        pairs: Option<&Result<Pairs, String>>,
    ) -> GateResult {
        let unreleased = matches!(gate.against, Other::Unreleased { .. });
        let measured = match (gate.definition.measure, pairs) {
            _ if unreleased => Measured::Nothing(
                "nothing is released yet, so there is nothing to compare with: the lock has no artifact of this stage"
                    .to_owned(),
            ),
            (Measure::Speed, Some(Ok(pairs))) => speeds(pairs, self.certainty.confidence),
            (Measure::Speed, Some(Err(reason))) => Measured::Nothing(reason.clone()),
            _ => match report(gate.stage) {
                None => Measured::Nothing(format!("stage `{label}` gave no report")),
                Some(own) => measure(gate, own, report, self.certainty.confidence),
            },
        };
        let against = match &gate.against {
            Other::Nothing => None,
            Other::Unreleased { written } => Some(written.clone()),
            Other::Reference => Some("reference".to_owned()),
            Other::Baseline { written, .. } | Other::Artifact { written, .. } => Some(written.clone()),
        };
        let mut result = GateResult {
            gate: gate.definition.name.to_owned(),
            stage: label,
            against,
            file: gate.place.source.file.display().to_string(),
            line: gate.place.line(),
            limit: gate.limit,
            at_least: gate.definition.side == Side::Min,
            value: None,
            lower: None,
            upper: None,
            confidence: None,
            draws: None,
            samples: None,
            unit: None,
            needed: None,
            margin: None,
            chance: None,
            verdict: GateVerdict::NotMeasured,
            reason: None,
            passed: false,
            contributors: Vec::new(),
        };
        match measured {
            Measured::Nothing(reason) => result.reason = Some(reason),
            Measured::Count(value) => {
                let exact = Interval { value, lower: value, upper: value, error: 0.0, draws: usize::MAX };
                result.value = Some(value);
                result.verdict = exact.verdict(gate.limit, gate.definition.side).into();
            }
            Measured::Sampled(sampled) => self.sampled(gate, &sampled, &mut result),
        }
        result.margin = result.value.map(|value| match gate.definition.side {
            Side::Max => gate.limit - value,
            Side::Min => value - gate.limit,
        });
        // Too few samples are refused, whatever [gates] says of limits between the bounds.
        let enough = result.draws.is_none_or(|draws| draws >= LEAST_DRAWS as u64);
        result.passed = match result.verdict {
            GateVerdict::Passed => true,
            GateVerdict::Undecided => self.undecided_passes && enough,
            GateVerdict::NotMeasured => unreleased,
            GateVerdict::Missed => false,
        };
        result
    }

    /// How many samples decide a gate at what was measured, however it came out; `None` for counts.
    pub(in crate::recipe) fn needed<'r>(&self, gate: &Gate, report: &dyn Fn(usize) -> Option<&'r Json>) -> Option<u64> {
        match measure(gate, report(gate.stage)?, report, self.certainty.confidence) {
            Measured::Sampled(Sampled { interval: Some(interval), samples, scale, .. }) => {
                interval.needed(samples as u64, scale.of_limit(gate.limit), self.certainty)
            }
            _ => None,
        }
    }

    fn sampled(&self, gate: &Gate, sampled: &Sampled, result: &mut GateResult) {
        let Sampled { interval, samples, unit, scale, chance } = sampled;
        (result.samples, result.unit, result.chance) = (Some(*samples as u64), Some((*unit).to_owned()), *chance);
        result.verdict = GateVerdict::Undecided;
        let Some(interval) = interval else {
            (result.draws, result.needed) = (Some(0), Some(LEAST_DRAWS as u64));
            result.reason =
                Some(format!("{samples} {unit} tell nothing of the error; at least {LEAST_DRAWS} are needed"));
            return;
        };
        let (limit, side) = (scale.of_limit(gate.limit), gate.definition.side);
        let on_scale = interval.map(|value| scale.back(value));
        result.value = Some(on_scale.value);
        result.draws = Some(interval.draws as u64);
        result.confidence = Some(self.certainty.confidence);
        (result.lower, result.upper) = (Some(on_scale.lower), Some(on_scale.upper));
        let needed = interval.needed(*samples as u64, limit, self.certainty);
        if interval.draws < LEAST_DRAWS {
            // One window is a block where there are few.
            result.needed = needed.or(Some(LEAST_DRAWS as u64));
            let most = result.needed.unwrap_or_default();
            result.reason = Some(format!("{samples} {unit} are too few for a verdict; about {most} are needed"));
            return;
        }
        result.verdict = interval.verdict(limit, side).into();
        if result.verdict == GateVerdict::Undecided {
            // As many as there are do not decide, so it is more, whatever the formula says of a good model's odds.
            result.needed = needed.map(|needed| needed.max(*samples as u64 + 1));
            result.reason = Some(match result.needed {
                Some(needed) => format!("{samples} {unit} do not decide; about {needed} would"),
                None => format!("the measured value is the limit itself, which no number of {unit} decides"),
            });
        }
    }
}

impl From<Verdict> for GateVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed => GateVerdict::Passed,
            Verdict::Missed => GateVerdict::Missed,
            Verdict::Undecided => GateVerdict::Undecided,
        }
    }
}

fn speeds(pairs: &[f64], confidence: f64) -> Measured {
    let draws: Vec<Draw> = pairs.iter().map(|&sum| Draw { sum, weight: 1.0 }).collect();
    Measured::Sampled(Sampled {
        interval: Interval::of_ratio(&draws, confidence),
        samples: pairs.len(),
        unit: "pairs of runs",
        scale: Scale::Logarithm,
        chance: None,
    })
}

/// What the report of a stage says of the gate's quantity.
fn measure<'r>(gate: &Gate, own: &Json, report: &dyn Fn(usize) -> Option<&'r Json>, confidence: f64) -> Measured {
    let definition = gate.definition;
    let Some(stated) = own.get(definition.stated).and_then(Json::as_f64) else {
        return Measured::Nothing(format!("the stage's report has no `{}`", definition.stated));
    };
    if definition.measure == Measure::Count {
        return Measured::Count(stated);
    }
    if let Measure::Stability | Measure::Distance = definition.measure {
        return match drift::measured(own, definition, confidence) {
            Some((interval, samples)) => Measured::Sampled(Sampled {
                interval: Some(interval),
                samples,
                unit: "requests",
                scale: Scale::Plain,
                chance: None,
            }),
            None => Measured::Nothing("the stage's report lacks the counts that this gate needs".to_owned()),
        };
    }
    let Some(sums) = sums(own) else {
        let reason =
            "the stage's report has no sums window by window, it is of an older slmc; run it again with --force";
        return Measured::Nothing(reason.to_owned());
    };
    let baseline = match &gate.against {
        Other::Baseline { stage, written } => {
            let Some(other) = report(*stage) else {
                return Measured::Nothing(format!("`{written}` was not measured"));
            };
            match self::sums(other) {
                Some(other) if paired(&sums, &other) => Some(other),
                _ => return Measured::Nothing(format!("`{written}` was not measured on the same text")),
            }
        }
        _ => None,
    };
    let (unit, in_blocks) = unit(own);
    let columns = Columns { sums: &sums, baseline: baseline.as_ref() };
    if let Measure::Share | Measure::ShareDrop = definition.measure {
        return match columns.share(definition.measure, confidence) {
            Some((interval, texts, chance)) => {
                Measured::Sampled(Sampled { interval, samples: texts, unit, scale: Scale::Plain, chance })
            }
            None => Measured::Nothing("the stage's report lacks the texts that are right".to_owned()),
        };
    }
    let Some(draws) = columns.draws(definition.measure) else {
        return Measured::Nothing("the stage's report lacks the sums that this gate needs".to_owned());
    };
    let samples = draws.len();
    let draws = if in_blocks { blocks(&draws) } else { draws };
    let scale = if definition.measure == Measure::PerplexityRatio { Scale::Logarithm } else { Scale::Plain };
    let (least, most) = match definition.measure {
        Measure::Divergence | Measure::DivergenceRatio | Measure::ShareRatio => (0.0, f64::INFINITY),
        Measure::Agreement => (0.0, 1.0),
        Measure::AgreementDrop | Measure::Cosine => (-1.0, 1.0),
        _ => (f64::NEG_INFINITY, f64::INFINITY),
    };
    let interval =
        Interval::of_ratio(&draws, confidence).map(|interval| interval.map(|value| value.clamp(least, most)));
    Measured::Sampled(Sampled { interval, samples, unit, scale, chance: None })
}

fn sums(report: &Json) -> Option<Sums> {
    Sums::deserialize(report.get("sums")?).ok().filter(|sums| !sums.is_empty())
}

/// Whether two models were measured on the same text, by what does not depend on the model.
fn paired(own: &Sums, other: &Sums) -> bool {
    own.counts == other.counts && own.judged == other.judged && own.reference_nll == other.reference_nll
}

/// What a sample of a report is, and whether neighbouring ones are put together, being of one text.
fn unit(report: &Json) -> (&'static str, bool) {
    match (report.get("task").and_then(Json::as_str), report.get("answers_only")) {
        (Some("lm"), Some(Json::Bool(true))) => ("conversations", false),
        (Some("lm"), _) => ("windows", true),
        (Some("generate"), _) => ("prompts", false),
        _ => ("texts", false),
    }
}

/// The sums of a model, and of the one it is compared with.
struct Columns<'s> {
    sums: &'s Sums,
    baseline: Option<&'s Sums>,
}

impl Columns<'_> {
    /// What every sample adds. `None` where a column is missing.
    fn draws(&self, measure: Measure) -> Option<Vec<Draw>> {
        let sums = self.sums;
        let numbers = |column: &[u64]| -> Vec<f64> { column.iter().map(|&count| count as f64).collect() };
        let minus = |own: &[f64], other: &[f64]| -> Option<Vec<f64>> {
            (own.len() == other.len()).then(|| own.iter().zip(other).map(|(own, other)| own - other).collect())
        };
        match measure {
            Measure::Divergence => sums.means(&sums.kld),
            Measure::DivergenceRatio => {
                let other = &self.baseline?.kld;
                let pairs = sums.kld.iter().zip(other);
                (!other.is_empty() && sums.kld.len() == other.len())
                    .then(|| pairs.map(|(&sum, &weight)| Draw { sum, weight }).collect())
            }
            Measure::PerplexityRatio => {
                let other = self.baseline.map_or(&sums.reference_nll, |baseline| &baseline.nll);
                sums.means(&minus(&sums.nll, other)?)
            }
            Measure::Agreement => sums.means(&numbers(&sums.agreeing)),
            Measure::AgreementDrop => sums.means(&minus(&numbers(&self.baseline?.agreeing), &numbers(&sums.agreeing))?),
            Measure::Cosine => sums.means(&sums.cosine),
            Measure::ShareRatio => {
                let (own, other) = self.right()?;
                let number = |right: bool| f64::from(u8::from(right));
                Some(own.iter().zip(&other).map(|(&a, &b)| Draw { sum: number(a), weight: number(b) }).collect())
            }
            Measure::Share | Measure::ShareDrop | Measure::Count => None,
            Measure::Speed | Measure::Stability | Measure::Distance => None,
        }
    }

    /// A share of texts, or by how much it fell: bounds, texts, and the odds of chance.
    fn share(&self, measure: Measure, confidence: f64) -> Option<(Option<Interval>, usize, Option<f64>)> {
        if measure == Measure::Share {
            let right = self.sums.right(&self.sums.correct)?;
            let successes = right.iter().filter(|right| **right).count();
            return Some((Interval::of_share(successes, right.len(), confidence), right.len(), None));
        }
        let (own, other) = self.right()?;
        let count = |own_right: bool| own.iter().zip(&other).filter(|(a, b)| **a == own_right && a != b).count();
        let (lost, gained) = (count(false), count(true));
        Some((Interval::of_drop(lost, gained, own.len(), confidence), own.len(), Some(mcnemar(lost, gained))))
    }

    /// Which texts are right, by the model and by the one it is compared with.
    fn right(&self) -> Option<(Vec<bool>, Vec<bool>)> {
        let other = match self.baseline {
            Some(baseline) => baseline.right(&baseline.correct)?,
            None => self.sums.right(&self.sums.reference_correct)?,
        };
        let own = self.sums.right(&self.sums.correct)?;
        (own.len() == other.len()).then_some((own, other))
    }
}
