//! The losses in one table: how each is named, asked for, and what it compares. A run gives every loss a weight.

use super::schedule::Schedule;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// One loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossKind {
    /// −ln p_s(target), with label smoothing.
    CrossEntropy,
    /// T² · KL(p_t ‖ p_s)
    Divergence,
    /// T² · KL(p_t ‖ α p_t + (1 − α) p_s)
    SkewDivergence,
    /// T² · KL(p_s ‖ p_t)
    ReverseDivergence,
    /// Mean (z_s − z_t)² of the logits.
    Logits,
    /// Distance of hidden states.
    Hidden,
    /// Divergence of the relations among queries, keys and values.
    Relations,
    /// Σ over exit heads of (cross entropy + T² · KL(p_last ‖ p_exit)) / 2
    Exits,
}

/// What a loss compares the student with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The data's own targets.
    Targets,
    /// A teacher's logits.
    Logits,
    /// A teacher's hidden states.
    States,
    /// What a layer of a teacher projects for attention.
    Projections,
    /// The data's targets and the model's own last head.
    LastHead,
}

impl Against {
    /// Whether it is a teacher's.
    pub fn is_teachers(self) -> bool {
        !matches!(self, Against::Targets | Against::LastHead)
    }
}

/// A row of the table.
pub struct LossDef {
    /// The loss.
    pub kind: LossKind,
    /// Its key in logs, reports and provenance.
    pub key: &'static str,
    /// The option with its weight.
    pub option: &'static str,
    /// What it compares with.
    pub against: Against,
}

/// Every loss, in the order of [`LossKind`].
pub const LOSSES: [LossDef; LossKind::COUNT] = [
    LossDef { kind: LossKind::CrossEntropy, key: "cross_entropy", option: "ce", against: Against::Targets },
    LossDef { kind: LossKind::Divergence, key: "divergence", option: "kl", against: Against::Logits },
    LossDef { kind: LossKind::SkewDivergence, key: "skew_divergence", option: "skew-kl", against: Against::Logits },
    LossDef {
        kind: LossKind::ReverseDivergence,
        key: "reverse_divergence",
        option: "reverse-kl",
        against: Against::Logits,
    },
    LossDef { kind: LossKind::Logits, key: "logits", option: "logits", against: Against::Logits },
    LossDef { kind: LossKind::Hidden, key: "hidden", option: "hidden", against: Against::States },
    LossDef { kind: LossKind::Relations, key: "relations", option: "relations", against: Against::Projections },
    LossDef { kind: LossKind::Exits, key: "exits", option: "exit-weight", against: Against::LastHead },
];

impl LossKind {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// Its row.
    pub fn def(self) -> &'static LossDef {
        &LOSSES[self as usize]
    }
}

/// What `--hidden` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HiddenForm {
    /// Σ (h_s − h_t)² / Σ h_t²
    Relative,
    /// Mean (h_s − h_t)² by element
    Raw,
    /// Mean over tokens of 1 − cos(h_s, h_t)
    Cosine,
}

/// Weights and settings of the losses of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossWeights {
    /// By [`LossKind`].
    pub weights: [Schedule; LossKind::COUNT],
    /// T of the divergences.
    pub temperature: f64,
    /// Share of the cross entropy that goes to all tokens alike.
    pub smoothing: f64,
    /// α of the skew divergence.
    pub skew: f64,
    /// What is measured between hidden states.
    pub hidden_form: HiddenForm,
    /// Heads in which relations are compared; as many as suit both models if absent.
    pub relation_heads: Option<usize>,
    /// Layers whose projections are compared, (student, teacher), from 0.
    pub relation_layers: Option<(usize, usize)>,
}

impl LossWeights {
    /// No loss.
    pub const NONE: LossWeights = LossWeights {
        weights: [Schedule::constant(0.0); LossKind::COUNT],
        temperature: 1.0,
        smoothing: 0.0,
        skew: 0.1,
        hidden_form: HiddenForm::Relative,
        relation_heads: None,
        relation_layers: None,
    };
    /// Training without a teacher.
    pub const PLAIN: LossWeights = LossWeights::NONE.with(LossKind::CrossEntropy, 1.0);
    /// Distillation.
    pub const DISTILL: LossWeights = LossWeights::PLAIN.with(LossKind::Hidden, 0.5);
    /// Quantization-aware training, and with hidden states sparse recovery; the teacher is the unchanged model.
    pub const RECOVER: LossWeights = LossWeights::NONE.with(LossKind::Divergence, 1.0);

    /// The same with another weight of one loss.
    pub const fn with(mut self, kind: LossKind, weight: f64) -> Self {
        self.weights[kind as usize] = Schedule::constant(weight);
        self
    }

    /// Sets the weight of a loss.
    pub fn set(&mut self, kind: LossKind, weight: Schedule) {
        self.weights[kind as usize] = weight;
    }

    /// The weight of a loss.
    pub fn weight(&self, kind: LossKind) -> Schedule {
        self.weights[kind as usize]
    }

    /// The losses that have a weight at some step.
    pub fn used(&self) -> impl Iterator<Item = &'static LossDef> + '_ {
        LOSSES.iter().filter(|def| self.uses(def.kind))
    }

    /// Whether a loss has a weight at some step.
    pub fn uses(&self, kind: LossKind) -> bool {
        !self.weight(kind).is_zero()
    }

    /// Whether some loss compares with this.
    pub fn needs(&self, against: Against) -> bool {
        self.used().any(|def| def.against == against)
    }

    /// Whether there must be a teacher.
    pub fn needs_teacher(&self) -> bool {
        self.used().any(|def| def.against.is_teachers())
    }

    /// The first share of the steps at which no loss has a weight; `without` one that does not count.
    pub fn pause(&self, without: Option<LossKind>) -> Option<f64> {
        let counted = || LOSSES.iter().filter(|def| Some(def.kind) != without).map(|def| self.weight(def.kind));
        // Between two points every weight is a line: where all are 0 for a while, they are at a point. No step is at the end.
        let points = counted().flat_map(|weight| weight.shares()).filter(|share| *share < 1.0);
        let mut shares: Vec<f64> = std::iter::once(0.0).chain(points).collect();
        shares.sort_by(f64::total_cmp);
        shares.into_iter().find(|share| counted().all(|weight| weight.at(*share) == 0.0))
    }

    /// The weights where `share` of the steps are done.
    pub fn at(&self, share: f64) -> LossParts {
        LossParts { total: 0.0, values: self.weights.map(|weight| weight.at(share)) }
    }

    /// What is measured between hidden states, in the words of the option.
    pub fn hidden_name(&self) -> &'static str {
        match self.hidden_form {
            HiddenForm::Relative => "relative",
            HiddenForm::Raw => "raw",
            HiddenForm::Cosine => "cosine",
        }
    }
}

/// Losses with a weight and the settings that they read; cross entropy, divergence and hidden states always.
impl Serialize for LossWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let always = [LossKind::CrossEntropy, LossKind::Divergence, LossKind::Hidden];
        let mut map = serializer.serialize_map(None)?;
        for kind in always {
            map.serialize_entry(kind.def().key, &self.weight(kind))?;
            if kind == LossKind::Divergence {
                map.serialize_entry("temperature", &self.temperature)?;
            }
        }
        map.serialize_entry("hidden_raw", &(self.hidden_form == HiddenForm::Raw))?;
        for def in self.used().filter(|def| !always.contains(&def.kind)) {
            map.serialize_entry(def.key, &self.weight(def.kind))?;
        }
        if self.hidden_form == HiddenForm::Cosine {
            map.serialize_entry("hidden_cosine", &true)?;
        }
        if self.smoothing != 0.0 {
            map.serialize_entry("label_smoothing", &self.smoothing)?;
        }
        if self.uses(LossKind::SkewDivergence) {
            map.serialize_entry("skew", &self.skew)?;
        }
        if self.uses(LossKind::Relations) {
            map.serialize_entry("relation_heads", &self.relation_heads)?;
            map.serialize_entry("relation_layers", &self.relation_layers)?;
        }
        map.end()
    }
}

/// A number for each loss: values of a step, or its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossParts {
    /// The weighted sum, which is minimised.
    pub total: f64,
    values: [f64; LossKind::COUNT],
}

impl LossParts {
    /// The value of one loss, without its weight.
    pub fn get(&self, kind: LossKind) -> f64 {
        self.values[kind as usize]
    }

    /// Sets the value of one loss.
    pub fn set(&mut self, kind: LossKind, value: f64) {
        self.values[kind as usize] = value;
    }

    /// Whether some loss against this has a number other than 0.
    pub fn has(&self, against: Against) -> bool {
        LOSSES.iter().any(|def| def.against == against && self.get(def.kind) != 0.0)
    }

    /// Makes the total the sum of the values by their weights.
    pub fn weigh(&mut self, weights: &LossParts) {
        self.total = self.values.iter().zip(weights.values).map(|(value, weight)| weight * value).sum();
    }

    /// Adds `share` of other values.
    pub fn add(&mut self, other: &LossParts, share: f64) {
        self.total += other.total * share;
        self.values.iter_mut().zip(other.values).for_each(|(sum, value)| *sum += value * share);
    }

    /// The values of the losses that have a weight among `weights`, by their keys. What was not computed is left out, not 0.
    pub fn by_key(&self, weights: &LossParts) -> Map<String, Value> {
        let weighed = LOSSES.iter().filter(|def| weights.get(def.kind) != 0.0);
        weighed.map(|def| (def.key.to_owned(), json!(self.get(def.kind)))).collect()
    }
}

/// Means of the losses of several steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeanLosses {
    /// Mean of the weighted sum.
    pub total: f64,
    /// Means of its parts by their keys, each over the steps that have it.
    pub parts: Map<String, Value>,
}

impl MeanLosses {
    /// Means over the log's lines, which have what [`LossParts::by_key`] gave and the total as `loss`. A private step
    /// without samples has neither.
    pub fn of_lines(lines: &[Value]) -> Self {
        let mean = |key: &str| {
            let values: Vec<f64> = lines.iter().filter_map(|line| line[key].as_f64()).collect();
            let share = 1.0 / values.len() as f64;
            (!values.is_empty()).then(|| values.iter().fold(0.0, |sum, value| sum + value * share))
        };
        let part = |def: &LossDef| Some((def.key.to_owned(), json!(mean(def.key)?)));
        MeanLosses { total: mean("loss").unwrap_or(0.0), parts: LOSSES.iter().filter_map(part).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_their_kinds() {
        for (number, def) in LOSSES.iter().enumerate() {
            assert_eq!(def.kind as usize, number, "{}", def.key);
            assert!(LOSSES.iter().filter(|other| other.option == def.option || other.key == def.key).count() == 1);
        }
    }
    #[test]
    fn a_pause_is_where_no_loss_has_a_weight() {
        let pause = |weights: &[(LossKind, &str)], without| {
            let mut loss = LossWeights::NONE;
            weights.iter().for_each(|(kind, weight)| loss.set(*kind, weight.parse().expect("a schedule")));
            loss.pause(without)
        };
        let (entropy, divergence, hidden) = (LossKind::CrossEntropy, LossKind::Divergence, LossKind::Hidden);
        for (weights, expected) in [
            (&[][..], Some(0.0)),
            (&[(hidden, "1@0.5,0@0.6")], Some(0.6)),
            (&[(hidden, "0@0.2,1@0.4")], Some(0.0)),
            (&[(hidden, "0@0.5,1@0.5")], Some(0.0)),
            (&[(hidden, "1@0.2,0@0.4,0@0.6,1@0.8"), (divergence, "0@0.5,1@0.7")], Some(0.4)),
            // A step may be where two lines meet at 0.
            (&[(hidden, "1@0,0@0.5,1@1")], Some(0.5)),
            // After the last step.
            (&[(hidden, "1@0,0@1")], None),
            (&[(hidden, "1@0.5,0@0.6"), (divergence, "0@0.4,1@0.6")], None),
            (&[(hidden, "1@0.5,0@0.5"), (divergence, "0@0.5,1@0.5")], None),
            (&[(entropy, "0.5"), (hidden, "1@0.5,0@0.6")], None),
        ] {
            assert_eq!(pause(weights, None), expected, "{weights:?}");
        }
        assert_eq!(pause(&[(entropy, "0.5"), (hidden, "1@0.5,0@0.6")], Some(entropy)), Some(0.6));
        assert_eq!(pause(&[(entropy, "0.5"), (divergence, "1")], Some(entropy)), None);
    }

    #[test]
    fn a_part_is_averaged_over_the_steps_that_have_it() {
        let lines = [
            json!({"step": 7, "loss": 3.0, "divergence": 2.0, "hidden": 0.5}),
            json!({"step": 8, "loss": 1.0, "divergence": 4.0}),
            // A private step without samples.
            json!({"step": 9}),
        ];
        let means = MeanLosses::of_lines(&lines);
        assert_eq!((means.total, json!(means.parts)), (2.0, json!({"divergence": 3.0, "hidden": 0.5})));
        assert_eq!(MeanLosses::of_lines(&[]), MeanLosses::default());
        let mut weights = LossParts::default();
        weights.set(LossKind::Hidden, 0.25);
        let parts = LossParts { total: 1.0, ..LossParts::default() };
        assert_eq!(json!(parts.by_key(&weights)), json!({"hidden": 0.0}));
    }
}
