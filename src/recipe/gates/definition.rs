//! The gates that can be asked for.

use crate::recipe::stage::{Kind, RecipeStage};
use crate::stages::{Product, STAGES};
use crate::statistics::Side;

/// How a quantity comes from what a stage reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recipe) enum Measure {
    /// Mean divergence from the reference.
    Divergence,
    /// The same, over the baseline's.
    DivergenceRatio,
    /// exp of the mean difference of negative log-likelihoods.
    PerplexityRatio,
    /// Share of positions or texts with the reference's first choice.
    Agreement,
    /// By how much it is below the baseline's.
    AgreementDrop,
    /// Share of right labels or answers.
    Share,
    /// Over the other's.
    ShareRatio,
    /// By how much it is below the other's.
    ShareDrop,
    /// Mean cosine to the reference's embeddings.
    Cosine,
    /// Population stability index of a quantity of logged requests.
    Stability,
    /// Largest difference of its distributions.
    Distance,
    /// A number of bytes: counted, not measured on samples.
    Count,
    /// Tokens per second over another artifact's, run side by side.
    Speed,
}

impl Measure {
    /// Whether it is about what the model says, and not about its size or speed.
    pub(super) fn is_quality(self) -> bool {
        !matches!(self, Measure::Count | Measure::Speed | Measure::Stability | Measure::Distance)
    }
}

/// What a gate compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recipe) enum Against {
    Nothing,
    /// The reference of the eval stage.
    Reference,
    /// That, or an artifact on the same windows.
    Either,
    /// An artifact on the same windows.
    Baseline,
    /// An artifact that is run.
    Artifact,
}

/// A gate that can be asked for.
#[derive(Debug, PartialEq)]
pub(in crate::recipe) struct Definition {
    pub(in crate::recipe) name: &'static str,
    pub(in crate::recipe) side: Side,
    pub(in crate::recipe) measure: Measure,
    /// The number of a stage's report by which it is known whether the stage measures this.
    pub(in crate::recipe) stated: &'static str,
    pub(in crate::recipe) against: Against,
    /// The quantity in a few words.
    pub(in crate::recipe) meaning: &'static str,
}

const fn at_most(
    name: &'static str,
    measure: Measure,
    stated: &'static str,
    against: Against,
    meaning: &'static str,
) -> Definition {
    Definition { name, side: Side::Max, measure, stated, against, meaning }
}

const fn at_least(
    name: &'static str,
    measure: Measure,
    stated: &'static str,
    against: Against,
    meaning: &'static str,
) -> Definition {
    Definition { name, side: Side::Min, measure, stated, against, meaning }
}

/// Every gate.
pub(in crate::recipe) static DEFINITIONS: [Definition; 24] = [
    at_most("kld_max", Measure::Divergence, "kld_mean", Against::Reference, "mean KL(reference ‖ model), nats"),
    at_most(
        "kld_ratio_max",
        Measure::DivergenceRatio,
        "kld_mean",
        Against::Baseline,
        "that of the model over that of the baseline",
    ),
    at_most(
        "perplexity_ratio_max",
        Measure::PerplexityRatio,
        "perplexity",
        Against::Either,
        "perplexity over the reference's, or the baseline's",
    ),
    at_least(
        "top1_min",
        Measure::Agreement,
        "top1_agreement",
        Against::Reference,
        "share of positions with the reference's first choice",
    ),
    at_most(
        "top1_drop_max",
        Measure::AgreementDrop,
        "top1_agreement",
        Against::Baseline,
        "by how much that is below the baseline's",
    ),
    at_least("accuracy_min", Measure::Share, "accuracy", Against::Nothing, "share of right labels"),
    at_least("accuracy_ratio_min", Measure::ShareRatio, "accuracy", Against::Either, "accuracy over the other's"),
    at_most(
        "accuracy_drop_max",
        Measure::ShareDrop,
        "accuracy",
        Against::Either,
        "by how much accuracy is below the other's, as a share of texts",
    ),
    at_least("exact_match_min", Measure::Share, "exact_match", Against::Nothing, "share of answers as wanted"),
    at_least(
        "exact_match_ratio_min",
        Measure::ShareRatio,
        "exact_match",
        Against::Either,
        "share of answers as wanted, over the other's",
    ),
    at_most(
        "exact_match_drop_max",
        Measure::ShareDrop,
        "exact_match",
        Against::Either,
        "by how much exact match is below the other's, as a share of prompts",
    ),
    at_least(
        "cosine_min",
        Measure::Cosine,
        "cosine_mean",
        Against::Reference,
        "mean cosine to the reference's embeddings",
    ),
    at_most("weight_bytes_max", Measure::Count, "weight_bytes", Against::Nothing, "packed bytes of the weights"),
    at_most("file_bytes_max", Measure::Count, "file_bytes", Against::Nothing, "length of the artifact"),
    at_most(
        "ram_bytes_max",
        Measure::Count,
        "ram_bytes",
        Against::Nothing,
        "arena, key-value cache and stack on the device",
    ),
    at_most("flash_bytes_max", Measure::Count, "flash_bytes", Against::Nothing, "the artifact's device part"),
    at_least(
        "speed_min",
        Measure::Speed,
        "file_bytes",
        Against::Artifact,
        "tokens per second on this machine over another artifact's, run in turn",
    ),
    stability("confidence_psi_max", "confidence_psi", "population stability index of the model's confidence"),
    stability("length_psi_max", "length_psi", "population stability index of the lengths of texts"),
    stability(
        "out_of_vocabulary_psi_max",
        "out_of_vocabulary_psi",
        "population stability index of the share of tokens that the reference does not have",
    ),
    stability("label_psi_max", "label_psi", "population stability index of the labels given"),
    distance("confidence_ks_max", "confidence_ks", "largest difference of the distributions of confidence"),
    distance("length_ks_max", "length_ks", "largest difference of the distributions of lengths"),
    distance(
        "out_of_vocabulary_ks_max",
        "out_of_vocabulary_ks",
        "largest difference of the distributions of the share of tokens that the reference does not have",
    ),
];

const fn stability(name: &'static str, stated: &'static str, meaning: &'static str) -> Definition {
    at_most(name, Measure::Stability, stated, Against::Nothing, meaning)
}

const fn distance(name: &'static str, stated: &'static str, meaning: &'static str) -> Definition {
    at_most(name, Measure::Distance, stated, Against::Nothing, meaning)
}

impl Definition {
    /// Whether a gate that names no stage is for one of this kind.
    pub(super) fn belongs_to(&self, stage: &RecipeStage) -> bool {
        self.own(stage.kind)
    }

    /// Whether a stage states the number.
    pub(super) fn measured_by(&self, stage: &RecipeStage) -> bool {
        self.own(stage.kind) || self.also(stage.kind)
    }

    fn own(&self, kind: Kind) -> bool {
        let makes = self.measure != Measure::Speed || kind.makes() == Product::Artifact;
        makes && kind.measures().own.contains(&self.stated)
    }

    fn also(&self, kind: Kind) -> bool {
        self.measure != Measure::Speed && kind.measures().also.contains(&self.stated)
    }

    /// What it limits, how it is judged, and where it is measured.
    pub(super) fn explanation(&self) -> String {
        let side = if self.side == Side::Max { "At most" } else { "At least" };
        let judged = match self.measure {
            Measure::Count => "A count, compared as it is.",
            Measure::Share => "Judged by Wilson's bound on the share of independent texts.",
            Measure::ShareDrop => "Judged on the texts that change sides, by the bound of Agresti and Min.",
            Measure::Stability => "Less what chance alone gives; judged by the error of a χ² that is not central.",
            Measure::Distance => "Judged by the band of Kolmogorov and Smirnov.",
            Measure::Speed => {
                "Judged by Student's t over pairs of runs in turn; both artifacts must run on this machine."
            }
            _ => "Judged by Student's t over blocks of windows, or over texts.",
        };
        let against = match self.against {
            Against::Nothing => "",
            Against::Reference => " Compares with the `reference` of the eval stage.",
            Against::Either => " Compares with the `reference` of the eval stage, or with an artifact: `against`.",
            Against::Baseline => " Compares with an artifact on the same text: `against`, or `baseline` of [gates].",
            Against::Artifact => " Compares with an artifact or a stage: `against`, or `baseline` of [gates].",
        };
        let kinds = self.kinds().join(", ");
        format!("{side} this: {}. {judged}{against} Measured by: {kinds}.", self.meaning)
    }

    /// Names of the kinds whose reports state the number, those first where a bare number belongs.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let own = STAGES.into_iter().filter(|kind| self.own(*kind));
        own.chain(STAGES.into_iter().filter(|kind| self.also(*kind))).map(|kind| kind.name()).collect()
    }

    /// Whether its stage must have a reference whatever it compares with.
    pub(super) fn needs_reference(&self) -> bool {
        matches!(self.measure, Measure::Divergence | Measure::DivergenceRatio | Measure::Agreement)
            || matches!(self.measure, Measure::AgreementDrop | Measure::Cosine)
    }

    /// Whether its limit is a quotient, which is above 0.
    pub(super) fn is_ratio(&self) -> bool {
        use Measure::{DivergenceRatio, PerplexityRatio, ShareRatio, Speed};
        matches!(self.measure, DivergenceRatio | PerplexityRatio | ShareRatio | Speed)
    }

    /// The least and the most that the figure can be, where it has bounds and a limit beyond them says nothing.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        match self.measure {
            Measure::Divergence | Measure::Stability | Measure::Count => Some((0.0, f64::INFINITY)),
            Measure::Agreement | Measure::Share | Measure::Distance => Some((0.0, 1.0)),
            Measure::Cosine | Measure::AgreementDrop | Measure::ShareDrop => Some((-1.0, 1.0)),
            Measure::DivergenceRatio | Measure::PerplexityRatio | Measure::ShareRatio | Measure::Speed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_side() {
        for (n, definition) in DEFINITIONS.iter().enumerate() {
            let ending = if definition.side == Side::Max { "_max" } else { "_min" };
            assert!(definition.name.ends_with(ending), "{}", definition.name);
            assert!(DEFINITIONS[..n].iter().all(|other| other.name != definition.name), "{}", definition.name);
            assert!(!definition.kinds().is_empty(), "{} is measured by nothing", definition.name);
        }
    }
}
