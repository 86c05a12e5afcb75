//! The memory that a training run will need at its peak, from specifications and settings alone. What is held from the first
//! step to the last, and on top of it the largest micro-batch:
//!
//! ```text
//! held          the program; 16 bytes a trained value (value, two moments, gradient), those of projections to a teacher's width
//!               among them, and 6 more where a transform stands before the forward; 4 bytes a frozen one, and 8 more where an
//!               adapter changes it (what the forward sees, and the gradient by that); 4 bytes a trained value where privacy sums
//!               the gradients of samples; the teacher's values; what reading the data has taken
//! micro-batch   4 bytes · tokens · (Σ over layers of what operations keep for the backward pass + the ends + the work of one
//!               operation); with recomputation the input of every layer and the one layer that keeps most
//! scores        4 bytes · outputs · tokens of a chunk, twice where they are compared with a teacher's
//! workers       in the place of both: 4 bytes a value, 8 more of every worker, and 4 of every worker for its gradients
//! ```
//!
//! What an operation keeps is the table of docs/training.md. Samples are taken to be as long as the longest.

use super::gradients::TOGETHER;
use super::loss::table::Against;
use super::scope::Scope;
use super::settings::Settings;
use crate::model::device::Backend;
use crate::model::forward::StagedForward;
use crate::model::spec::{LayerSpec, Mixer, ModelSpec, NormPlacement};

/// The program with its threads, and the working memory of products.
const PROGRAM_BYTES: u64 = 24 << 20;
/// Bytes of a tokenizer for each of its tokens.
const TOKEN_BYTES: u64 = 256;
/// Rows whose scores are made at once.
const CHUNK: usize = 256;
/// Activations live in memory that is used again, and a buffer may be larger than what it holds: this many percent.
const SLACK_PERCENT: u64 = 10;

/// What computes the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputedBy {
    /// Fused operations.
    Fused,
    /// burn's own ones on a device of this machine.
    Plain,
    /// burn's own ones on this many workers.
    Workers(usize),
}

impl ComputedBy {
    /// What computes the steps of a backend.
    pub fn of(backend: &Backend) -> Self {
        match backend {
            Backend::Remote(addresses) => ComputedBy::Workers(addresses.len()),
            Backend::Device(device) if StagedForward::is_fused(device) => ComputedBy::Fused,
            Backend::Device(_) => ComputedBy::Plain,
        }
    }

    /// Whether settings that need fused operations can be followed.
    pub fn is_fused(self) -> bool {
        self == ComputedBy::Fused
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct TrainingNeed<'n> {
    /// The student.
    pub student: &'n ModelSpec,
    /// The part of it that is trained.
    pub scope: &'n Scope,
    /// Whether the gradients of samples are clipped and summed apart.
    pub private: bool,
    /// The teachers, where the loss has some.
    pub teachers: Vec<&'n ModelSpec>,
    /// The run.
    pub settings: &'n Settings,
    /// Most tokens of a sample.
    pub longest: usize,
    /// Whether a transform stands between the trained values and the forward.
    pub transformed: bool,
    /// What it runs on.
    pub computed_by: ComputedBy,
    /// Bytes that reading the data has taken.
    pub read_bytes: u64,
}

/// More memory is needed than is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("training needs about {need_bytes} bytes of memory, --max-ram allows {limit_bytes}; {remedy}")]
pub struct NotEnoughMemory {
    /// At the peak.
    pub need_bytes: u64,
    /// Allowed.
    pub limit_bytes: u64,
    /// The options that would fit.
    pub remedy: String,
}

impl TrainingNeed<'_> {
    /// Bytes at the peak.
    pub fn peak_bytes(&self) -> u64 {
        let Settings { batch, pieces, .. } = *self.settings;
        let samples = if self.private { TOGETHER.min(batch) } else { batch.div_ceil(pieces.max(1)) };
        let tokens = samples * self.longest;
        // Private gradients keep what they are products of until the samples are clipped.
        let kept = if self.private { 2 } else { 1 };
        let computing = match self.computed_by {
            ComputedBy::Fused => kept * self.piece_bytes(tokens),
            ComputedBy::Plain => self.plain_bytes(tokens),
            ComputedBy::Workers(workers) => self.sent_bytes(workers),
        };
        (self.held_bytes() + computing).max(self.writing_bytes())
    }

    /// Refuses a run that needs more than `limit` bytes, with what would fit.
    ///
    /// # Errors
    /// [`NotEnoughMemory`].
    pub fn check(&self, limit: Option<u64>) -> Result<(), NotEnoughMemory> {
        let need_bytes = self.peak_bytes();
        match limit {
            Some(limit_bytes) if need_bytes > limit_bytes => {
                Err(NotEnoughMemory { need_bytes, limit_bytes, remedy: self.remedy(limit_bytes) })
            }
            _ => Ok(()),
        }
    }

    fn held_bytes(&self) -> u64 {
        let (all, trained) = (self.student.parameter_count(), self.scope.trained_count(self.student));
        let adapted = self.scope.adapted_count();
        let of_adapters: u64 = self.scope.adapters().values().map(|shape| shape.count() as u64).sum();
        let frozen = (all + of_adapters).saturating_sub(trained);
        let transformed = if self.transformed { 6 } else { 0 };
        let sum = if self.private { 4 } else { 0 };
        let of_teachers = self.teachers.iter().map(|teacher| 4 * teacher.parameter_count()).sum::<u64>();
        let program = PROGRAM_BYTES + TOKEN_BYTES * self.student.vocabulary as u64;
        let projected = (16 + sum) * self.projected_count();
        program
            + (16 + transformed + sum) * trained
            + projected
            + 4 * frozen
            + 8 * adapted
            + of_teachers
            + self.read_bytes
    }

    /// Values of the projections that are trained beside the student: one for every pair of hidden states that is compared, where
    /// its width is not the teacher's.
    pub fn projected_count(&self) -> u64 {
        if !self.settings.loss.needs(Against::States) {
            return 0;
        }
        let own = self.student;
        // Every layer's output, and the embeddings' of each stack.
        let pairs = own.layers.len() + if own.stacks().is_some() { 2 } else { 1 };
        let others = self.teachers.iter().map(|teacher| teacher.hidden).filter(|width| *width != own.hidden);
        others.map(|width| (pairs * own.hidden * width) as u64).sum()
    }

    /// At the end: every value, and the same as the tensor that is written. Of a run that trains everything that is less than its
    /// steps take.
    fn writing_bytes(&self) -> u64 {
        let program = PROGRAM_BYTES + TOKEN_BYTES * self.student.vocabulary as u64;
        program + 8 * self.student.parameter_count() + 4 * self.scope.adapted_count() + self.read_bytes
    }

    /// Bytes of a micro-batch on fused operations.
    fn piece_bytes(&self, tokens: usize) -> u64 {
        let spec = self.student;
        let kept = spec.layers.iter().map(|layer| kept_floats(layer, spec.hidden));
        let most = kept.clone().max().unwrap_or(0);
        let layers = if self.settings.recompute { spec.layers.len() * spec.hidden + most } else { kept.sum() };
        let working = spec.layers.iter().map(|layer| working_floats(layer, spec.hidden)).max().unwrap_or(0);
        // The last state, the same normed, and its gradient.
        let mut floats = layers + working + 3 * spec.hidden;
        let mut heads = 1;
        for teacher in &self.teachers {
            if self.settings.loss.needs(Against::States) {
                // The teacher's states, and a difference for every pair.
                floats += (teacher.layers.len() + spec.layers.len() + 2) * teacher.hidden;
            }
            if self.settings.loss.needs(Against::Logits) {
                floats += teacher.hidden;
                // The scores of one after the other, and their mixture.
                heads = if self.teachers.len() > 1 { 3 } else { 2 };
            }
            if self.settings.loss.needs(Against::Projections) {
                floats += 3 * (teacher.hidden + 2 * spec.hidden);
            }
        }
        let scores = heads * spec.output_width() * CHUNK.min(tokens);
        let activations = 4 * (tokens * floats) as u64;
        activations + activations * SLACK_PERCENT / 100 + 4 * scores as u64
    }

    /// Bytes of all micro-batches on burn's own operations, which run side by side, each with its own leaves and gradients.
    fn plain_bytes(&self, tokens: usize) -> u64 {
        let spec = self.student;
        let of_layer = |layer: &LayerSpec| {
            let scores = layer.attention().map_or(0, |attention| 4 * attention.heads * self.longest);
            12 * spec.hidden + 4 * layer.ffn.width + scores
        };
        let of_token = 10 * spec.output_width() + spec.layers.iter().map(of_layer).sum::<usize>();
        self.settings.pieces as u64 * (12 * spec.parameter_count() + 4 * (tokens * of_token) as u64)
    }

    /// Bytes of what goes to workers and comes back: what the forward sees, twice a worker while it is sent (values, and the
    /// message), and the gradients of a piece of each before they are added.
    fn sent_bytes(&self, workers: usize) -> u64 {
        let (all, trained) = (self.student.parameter_count(), self.scope.trained_count(self.student));
        4 * (all + workers as u64 * (2 * all + trained))
    }

    /// What to do about a limit that is too low.
    fn remedy(&self, limit: u64) -> String {
        let fitting: Vec<String> =
            self.fitting(limit).into_iter().map(|(options, need)| format!("{options} (about {need})")).collect();
        match fitting.split_last() {
            None => {
                let least = self.with(&|settings| {
                    (settings.pieces, settings.recompute) = (settings.batch, self.computed_by.is_fused());
                });
                // Private samples are computed one by one already.
                let pieces = if self.private { String::new() } else { format!(" --pieces {}", self.settings.batch) };
                let recompute = if self.computed_by.is_fused() { " --recompute" } else { "" };
                let with = if pieces.is_empty() && recompute.is_empty() { "" } else { ", with" };
                format!(
                    "the least is about {least}{with}{pieces}{recompute}; raise it, or take a shorter --window or a smaller model"
                )
            }
            Some((last, [])) => format!("{last} fits"),
            Some((last, others)) => format!("{} or {last} fits", others.join(", ")),
        }
    }

    fn with(&self, change: &dyn Fn(&mut Settings)) -> u64 {
        let mut settings = self.settings.clone();
        change(&mut settings);
        TrainingNeed { settings: &settings, ..self.clone() }.peak_bytes()
    }

    /// The options with which the run stays within `limit`, each with its need; the result of the first is that of none.
    fn fitting(&self, limit: u64) -> Vec<(String, u64)> {
        let Settings { batch, pieces, recompute, .. } = *self.settings;
        let mut found = Vec::new();
        let mut consider = |options: String, need: u64| {
            let fits = need <= limit;
            if fits {
                found.push((options, need));
            }
            fits
        };
        let again = self.computed_by.is_fused() && !recompute;
        if again {
            consider("--recompute".to_owned(), self.with(&|settings| settings.recompute = true));
        }
        let size = batch.div_ceil(pieces.max(1));
        let more: Vec<usize> = (pieces + 1..=batch).filter(|more| batch.div_ceil(*more) < size).collect();
        let cut = |more: usize, recompute: bool| {
            self.with(&|settings| (settings.pieces, settings.recompute) = (more, recompute))
        };
        let alone = more.iter().any(|&more| consider(format!("--pieces {more}"), cut(more, recompute)));
        if again && !alone {
            more.iter().any(|&more| consider(format!("--recompute --pieces {more}"), cut(more, true)));
        }
        let smaller =
            |fewer: usize| self.with(&|settings| (settings.batch, settings.pieces) = (fewer, pieces.min(fewer)));
        (1..batch).rev().any(|fewer| consider(format!("--batch {fewer}"), smaller(fewer)));
        found
    }
}

/// Floats a token that the operations of a layer keep for the backward pass, their inputs for the most part.
fn kept_floats(layer: &LayerSpec, hidden: usize) -> usize {
    let states = match layer.norm_placement {
        NormPlacement::Pre
        | NormPlacement::Post
        | NormPlacement::Beside
        | NormPlacement::Added
        | NormPlacement::Common
        | NormPlacement::Network => 4 * hidden,
        NormPlacement::Around => 6 * hidden,
    };
    let mixer = match &layer.mixer {
        Mixer::Attention(attention) => {
            let projected = attention.query_width() + 2 * attention.key_width();
            let copies = if attention.query_key_norm.is_some() { 2 } else { 1 };
            copies * projected + attention.query_width() + 2 * attention.heads
        }
        // Its input three times as wide, sums and output.
        Mixer::Conv(_) => 5 * hidden,
    };
    // What a mixture's channels are multiplied with, and the products.
    let of_experts = if layer.ffn.mixture.is_some() { 2 * layer.ffn.width } else { 0 };
    states + mixer + widened(layer) + layer.ffn.width + of_experts
}

/// Floats a token that the backward pass of a layer's largest operation has on top.
fn working_floats(layer: &LayerSpec, hidden: usize) -> usize {
    let mixer = match &layer.mixer {
        // Gradients of output and input, and the latter by heads before they are put side by side.
        Mixer::Attention(attention) => 4 * attention.query_width() + 4 * attention.key_width(),
        Mixer::Conv(_) => 5 * hidden,
    };
    hidden + mixer.max(layer.ffn.width + widened(layer))
}

/// Values a token of up, and gate.
fn widened(layer: &LayerSpec) -> usize {
    layer.ffn.width * if layer.ffn.gated { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::loss::table::LossKind;

    #[test]
    fn projections_are_trained_values_where_states_of_other_widths_are_compared() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart/teacher");
        let teacher = crate::formats::open_model(directory.as_ref()).expect("a model of this repository").spec;
        let narrow = ModelSpec { hidden: teacher.hidden / 2, ..teacher.clone() };
        let (scope, compared) = (Scope::default(), Settings::DISTILL);
        let alone = Settings { loss: compared.loss.with(LossKind::Hidden, 0.0), ..compared.clone() };
        let need = |student, settings, teachers: &[&'static str]| {
            let teachers = teachers.iter().map(|name| if *name == "wide" { &teacher } else { &narrow }).collect();
            let need = TrainingNeed {
                student,
                scope: &scope,
                private: false,
                teachers,
                settings,
                longest: 16,
                transformed: false,
                computed_by: ComputedBy::Fused,
                read_bytes: 0,
            };
            (need.projected_count(), need.held_bytes())
        };
        let of_teacher = (narrow.layers.len() as u64 + 1) * (narrow.hidden * teacher.hidden) as u64;
        let (count, held) = need(&narrow, &compared, &["wide", "narrow"]);
        assert_eq!((count, need(&narrow, &compared, &["wide", "wide"]).0), (of_teacher, 2 * of_teacher));
        let (none, without) = need(&narrow, &alone, &["wide", "narrow"]);
        assert_eq!((none, held - without), (0, 16 * of_teacher));
        assert_eq!(need(&teacher, &compared, &["wide"]).0, 0);
    }
}
