//! What a recipe is to do for a model, a target and a priority: a scheme and a method with the reason for each, from the
//! sizes and rates that [`crate::compile::estimate`] gives without reading a weight.

use crate::compile::estimate::{EstimateReport, SchemeEstimate};
use crate::model::scheme::Preset;
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::report::grouped;
use crate::target::Target;
use clap::ValueEnum;
use serde::Serialize;

/// What matters most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Fewest bytes of the artifact.
    Size,
    /// As near to the checkpoint as the target holds.
    Quality,
    /// Most tokens per second on the target.
    Latency,
    /// A first artifact soon.
    Time,
    /// Fewest bytes moved for a token.
    Power,
    /// Every step can be shown and made again.
    Compliance,
}

/// A key of the recipe, its value, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The stage it belongs to.
    pub stage: &'static str,
    /// Its key.
    pub key: &'static str,
    /// As TOML.
    pub value: String,
    /// The reason, in a sentence without a full stop.
    pub why: String,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choices {
    /// In the order of the recipe.
    pub(super) all: Vec<Choice>,
    /// Whether the artifact will fit, by the estimate.
    pub(super) fits: bool,
    /// Positions that the artifact is for.
    pub(super) context: usize,
}

impl Priority {
    /// As it is written on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Priority::Size => "size",
            Priority::Quality => "quality",
            Priority::Latency => "latency",
            Priority::Time => "time",
            Priority::Power => "power",
            Priority::Compliance => "compliance",
        }
    }

    /// What it means here, in a sentence without a full stop.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Priority::Size => "the fewest bytes that keep the model usable",
            Priority::Quality => "as near to the checkpoint as the target holds",
            Priority::Latency => "the most tokens per second that the target's rates allow",
            Priority::Time => "a first artifact soon, without calibration",
            Priority::Power => {
                "the fewest weight bytes read for a token; energy itself is not measured by slmc, and reading weights is most of \
                 what a device of this kind spends it on"
            }
            Priority::Compliance => {
                "every step can be shown and made again: no text of others goes in, seeds are written, and the bytes are the \
                 same on every CPU"
            }
        }
    }

    /// The presets, those that serve it best first.
    fn order(self, rows: &[&SchemeEstimate]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        match self {
            // `estimate` has them from the largest to the smallest.
            Priority::Quality | Priority::Compliance => {}
            Priority::Size => order.reverse(),
            Priority::Time => order.sort_by_key(|&row| rows[row].scheme != Preset::Mixed.name()),
            Priority::Power => order.sort_by_key(|&row| rows[row].bytes_per_token),
            Priority::Latency => order.sort_by(|&a, &b| {
                let rate = |row: usize| rows[row].ceiling_tokens_per_s.unwrap_or(0.0);
                rate(b).total_cmp(&rate(a)).then(rows[a].bytes_per_token.cmp(&rows[b].bytes_per_token))
            }),
        }
        order
    }
}

/// Everything that choices follow from.
pub(super) struct Facts<'f> {
    pub(super) spec: &'f ModelSpec,
    pub(super) target: &'f Target,
    pub(super) estimate: &'f EstimateReport,
}

impl Facts<'_> {
    /// The choices; `None` where the target runs none of the presets.
    pub(super) fn choices(&self, priority: Priority) -> Option<Choices> {
        let runs = |row: &&SchemeEstimate| {
            let preset = Preset::ALL.into_iter().find(|preset| preset.name() == row.scheme);
            preset.is_some_and(|preset| self.target.check_schemes(&preset.assign(self.spec)).is_ok())
        };
        let rows: Vec<&SchemeEstimate> = self.estimate.schemes.iter().filter(runs).collect();
        let order = priority.order(&rows);
        let fitting = order.iter().find(|&&row| rows[row].fits);
        let shorter = || order.iter().find(|&&row| rows[row].largest_context.is_some());
        let smallest = order.iter().max_by_key(|&&row| row);
        let row = rows[*fitting.or_else(shorter).or(smallest)?];
        let mut choices = Choices {
            all: Vec::new(),
            fits: row.fits || row.largest_context.is_some(),
            context: if row.fits {
                self.estimate.context
            } else {
                row.largest_context.unwrap_or(self.estimate.context)
            },
        };
        self.sparsity(priority, &mut choices);
        self.scheme(priority, row, &rows, &mut choices);
        self.method(priority, &mut choices);
        if priority == Priority::Compliance {
            self.proof(&mut choices);
        }
        if !row.fits && row.largest_context.is_some() {
            let why = format!(
                "at the model's own context of {} the memory of the target is too small by {} bytes; this is the longest that \
                 fits",
                self.estimate.context,
                grouped(row.over_bytes.unwrap_or_default())
            );
            choices.push("artifact", "context", choices.context.to_string(), why);
        }
        Some(choices)
    }

    /// Zeros that the target insists on.
    fn sparsity(&self, priority: Priority, choices: &mut Choices) {
        let Some(pattern) = self.target.required.as_ref().and_then(|required| required.sparsity.as_deref()) else {
            return;
        };
        let why = format!("{} runs models with this sparsity only", self.target.name);
        choices.push("sparse", "pattern", quoted(pattern), why);
        let (method, why) = match priority {
            Priority::Time => ("magnitude", "the size of a weight alone decides: no calibration"),
            _ => (
                "sparsegpt",
                "weights that stay make up for those that go; train back what is lost with `recover` and `data`",
            ),
        };
        choices.push("sparse", "method", quoted(method), why);
    }

    fn scheme(&self, priority: Priority, row: &SchemeEstimate, rows: &[&SchemeEstimate], choices: &mut Choices) {
        let flash = self.flash_words(row);
        if priority == Priority::Quality
            && row.scheme != Preset::W8.name()
            && let Some(budget) = self.budget(rows)
        {
            let why = "8 bits everywhere do not fit: the bits that flash leaves go where they lower the error most, by measurement";
            choices.push("small", "scheme", quoted("auto"), why);
            let limit = self.target.flash_bytes.unwrap_or_default();
            let why =
                format!("of {} bytes of flash, what code tables and the vocabulary leave for weights", grouped(limit));
            choices.push("small", "budget", quoted(&budget.to_string()), why);
            return;
        }
        let why = match (priority, row.scheme) {
            (Priority::Latency, scheme) => match row.ceiling_tokens_per_s {
                Some(rate) => {
                    format!("at most {rate:.1} tokens/s by the target's rates, the most of the presets; {flash}")
                }
                None => format!(
                    "{scheme} reads the fewest bytes for a token ({}); the target states no rates, so measure with `slmc bench`; {flash}",
                    grouped(row.bytes_per_token)
                ),
            },
            (Priority::Power, _) => {
                format!(
                    "{} weight bytes are read for a token, the fewest of the presets; {flash}",
                    grouped(row.bytes_per_token)
                )
            }
            (Priority::Size, "w4") => format!("4 bits everywhere but in small tables; {flash}"),
            (Priority::Time, "mixed") => {
                format!("feed-forward networks in 4 bits, all else in 8: safe without calibration; {flash}")
            }
            (Priority::Compliance, "w8") => {
                format!(
                    "8 bits everywhere: nearest to the checkpoint, so that what was shown of it holds best; {flash}"
                )
            }
            (_, "w8") => format!("8 bits everywhere: nearest to the checkpoint; {flash}"),
            (_, "mixed") => format!("feed-forward networks in 4 bits, all else in 8; {flash}"),
            (_, scheme) => format!("{scheme} is the nearest that the target holds; {flash}"),
        };
        choices.push("small", "scheme", quoted(row.scheme), why);
        self.looked_up(priority, row, choices);
    }

    /// A token table that is only looked up: one row a token, so its bits cost neither time nor energy.
    fn looked_up(&self, priority: Priority, row: &SchemeEstimate, choices: &mut Choices) {
        let untied = matches!(self.spec.head, Head::LanguageModel { tied: false, .. });
        let extra = (self.spec.vocabulary * self.spec.hidden) as u64 / 2;
        let holds = self.target.flash_bytes.is_none_or(|flash| row.flash_bytes + extra <= flash);
        if !matches!(priority, Priority::Latency | Priority::Power)
            || row.scheme != "w4"
            || !untied
            || !holds
            || !row.fits
        {
            return;
        }
        let why =
            "the token table is not the head: one row of it is read for a token, so 8 bits there cost next to nothing";
        choices.push("small", "keep", "[\"embedding=w8\"]".to_owned(), why);
    }

    fn method(&self, priority: Priority, choices: &mut Choices) {
        let decoder = self.spec.kind == ModelKind::Decoder;
        let (method, why) = match priority {
            Priority::Time => {
                ("rtn", "to nearest on searched scales: seconds, no calibration; `gptq` is better and slower")
            }
            _ if decoder => (
                "gptq",
                "later matrices make up for the errors of earlier ones, on text that the model samples from itself",
            ),
            _ => ("gptq", "later matrices make up for the errors of earlier ones, on the text that ships with slmc"),
        };
        choices.push("small", "method", quoted(method), why);
    }

    /// What makes a result one that others can make again.
    fn proof(&self, choices: &mut Choices) {
        choices.push(
            "small",
            "seed",
            "0".to_owned(),
            "every random choice starts here, and the artifact's provenance says so",
        );
        choices.push(
            "small",
            "numerics",
            quoted("portable"),
            "refuses work whose bits depend on the CPU: `slmc reproduce` gives the same bytes on another machine",
        );
    }

    fn flash_words(&self, row: &SchemeEstimate) -> String {
        let used = grouped(row.flash_bytes);
        match self.target.flash_bytes {
            Some(limit) => format!("{used} of {} bytes of flash", grouped(limit)),
            None => format!("{used} bytes of flash"),
        }
    }

    /// Bytes for weights where flash is the limit, if `auto` has something to choose within them.
    fn budget(&self, rows: &[&SchemeEstimate]) -> Option<u64> {
        let of = |name: &str| rows.iter().find(|row| row.scheme == name);
        let (wide, narrow) = (of("w8")?, of("w4")?);
        let rest = narrow.flash_bytes.saturating_sub(narrow.size.weight_bytes) + self.target.page_bytes;
        let budget = self.target.flash_bytes?.checked_sub(rest)?;
        (narrow.fits && budget > narrow.size.weight_bytes && budget < wide.size.weight_bytes).then_some(budget)
    }
}

impl Choices {
    fn push(&mut self, stage: &'static str, key: &'static str, value: String, why: impl Into<String>) {
        self.all.push(Choice { stage, key, value, why: why.into() });
    }

    /// Those of a stage.
    pub(super) fn of(&self, stage: &str) -> impl Iterator<Item = &Choice> {
        self.all.iter().filter(move |choice| choice.stage == stage)
    }
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
