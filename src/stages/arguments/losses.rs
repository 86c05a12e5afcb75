//! The options of the losses: a weight each, and what some of them are set by.

use super::groups::LOSSES as HEADING;
use crate::train::loss::schedule::Schedule;
use crate::train::loss::table::{HiddenForm, LossKind, LossWeights};

/// Weights and settings of the losses.
///
/// A weight is a number, or a schedule.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub struct LossArgs {
    /// Weight of the cross entropy
    ///
    /// With the targets that the data itself has: the next tokens, the hidden tokens, or the labels. Every weight may change
    /// over the run: WEIGHT@SHARE,… are points, by the share of the steps that are done, with straight lines between them.
    /// 1@0.6,0@0.8 is 1 up to 60 % of the steps, falls to 0 at 80 % and stays there.
    #[arg(long, value_name = "WEIGHT")]
    ce: Option<Schedule>,

    /// Share of --ce that goes to all tokens or labels alike
    ///
    /// Label smoothing: the target has 1 − SHARE, and SHARE is spread evenly.
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f64>,

    /// Weight of the KL divergence
    ///
    /// KL(teacher ‖ student) times the squared temperature: the student covers what the teacher says. The best start for
    /// language models and few tokens.
    #[arg(long, value_name = "WEIGHT")]
    kl: Option<Schedule>,

    /// Weight of the skew KL divergence
    ///
    /// KL(teacher ‖ α · teacher + (1 − α) · student), times the squared temperature: what the student gives almost no
    /// probability costs less, so that gradients stay small where the two are far apart (DistiLLM).
    #[arg(long, value_name = "WEIGHT")]
    skew_kl: Option<Schedule>,

    /// α of --skew-kl
    #[arg(long, value_name = "ALPHA")]
    skew: Option<f64>,

    /// Weight of the reverse KL divergence
    ///
    /// KL(student ‖ teacher), times the squared temperature: the student says nothing that the teacher would not (MiniLLM). For
    /// answers to instructions, best on text of the student.
    #[arg(long, value_name = "WEIGHT")]
    reverse_kl: Option<Schedule>,

    /// Temperature of the divergences, for both models
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,

    /// Weight of the squared distance of logits
    ///
    /// Mean over tokens, or over the labels of a classifier. One teacher only.
    #[arg(long, value_name = "WEIGHT")]
    logits: Option<Schedule>,

    /// Weight of the hidden states
    ///
    /// Mean over the mapped layers of the distance between the hidden states of student and teacher.
    #[arg(long, value_name = "WEIGHT")]
    hidden: Option<Schedule>,

    /// Distance of --hidden: relative, raw or cosine
    ///
    /// relative: squared, divided by the squared norm of the teacher's states. raw: the plain mean square. cosine: 1 − cosine
    /// by token, which outlying channels do not rule.
    #[arg(long, value_name = "KIND", value_enum, hide_possible_values = true)]
    hidden_loss: Option<HiddenForm>,

    /// Weight of the relations in attention
    ///
    /// Divergence of how queries, keys and values of one layer relate tokens to each other (MiniLMv2): widths and numbers of
    /// heads may differ. For encoders, and students of other widths.
    #[arg(long, value_name = "WEIGHT")]
    relations: Option<Schedule>,

    /// Layers of --relations: STUDENT:TEACHER, from 0
    ///
    /// The last of the student with the last of the teacher, of a teacher of more than 12 layers with one at five sixths.
    #[arg(long, value_name = "LAYER:LAYER", value_parser = layers)]
    relation_layers: Option<(usize, usize)>,

    /// Heads in which --relations compares
    ///
    /// They must divide the widths of queries, keys and values of both models. The most whose vectors have 16 values if absent.
    #[arg(long, value_name = "N")]
    relation_heads: Option<usize>,
}

/// `1:5`
fn layers(text: &str) -> Result<(usize, usize), String> {
    let both =
        text.split_once(':').and_then(|(own, other)| Some((own.trim().parse().ok()?, other.trim().parse().ok()?)));
    both.ok_or_else(|| format!("`{text}` is no pair of layers; write STUDENT:TEACHER, such as 2:5"))
}

/// The defaults of a command, by option, for its help.
pub(super) fn defaults(loss: &LossWeights) -> Vec<(&'static str, String)> {
    let weight = |kind| loss.weight(kind).to_string();
    vec![
        ("ce", weight(LossKind::CrossEntropy)),
        ("label_smoothing", loss.smoothing.to_string()),
        ("kl", weight(LossKind::Divergence)),
        ("skew_kl", weight(LossKind::SkewDivergence)),
        ("skew", loss.skew.to_string()),
        ("reverse_kl", weight(LossKind::ReverseDivergence)),
        ("temperature", loss.temperature.to_string()),
        ("logits", weight(LossKind::Logits)),
        ("hidden", weight(LossKind::Hidden)),
        ("hidden_loss", loss.hidden_name().to_owned()),
        ("relations", weight(LossKind::Relations)),
    ]
}

impl LossArgs {
    /// Each option, and whether it was given.
    pub(super) fn given(&self) -> [(&'static str, bool); 13] {
        [
            ("ce", self.ce.is_some()),
            ("label-smoothing", self.label_smoothing.is_some()),
            ("kl", self.kl.is_some()),
            ("skew-kl", self.skew_kl.is_some()),
            ("skew", self.skew.is_some()),
            ("reverse-kl", self.reverse_kl.is_some()),
            ("temperature", self.temperature.is_some()),
            ("logits", self.logits.is_some()),
            ("hidden", self.hidden.is_some()),
            ("hidden-loss", self.hidden_loss.is_some()),
            ("relations", self.relations.is_some()),
            ("relation-layers", self.relation_layers.is_some()),
            ("relation-heads", self.relation_heads.is_some()),
        ]
    }

    /// Over the defaults of a command.
    pub(super) fn weights(&self, defaults: LossWeights) -> LossWeights {
        let mut loss = LossWeights {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            smoothing: self.label_smoothing.unwrap_or(defaults.smoothing),
            skew: self.skew.unwrap_or(defaults.skew),
            hidden_form: self.hidden_loss.unwrap_or(defaults.hidden_form),
            relation_heads: self.relation_heads.or(defaults.relation_heads),
            relation_layers: self.relation_layers.or(defaults.relation_layers),
            ..defaults
        };
        for (kind, weight) in [
            (LossKind::CrossEntropy, self.ce),
            (LossKind::Divergence, self.kl),
            (LossKind::SkewDivergence, self.skew_kl),
            (LossKind::ReverseDivergence, self.reverse_kl),
            (LossKind::Logits, self.logits),
            (LossKind::Hidden, self.hidden),
            (LossKind::Relations, self.relations),
        ] {
            if let Some(weight) = weight {
                loss.set(kind, weight);
            }
        }
        loss
    }
}
