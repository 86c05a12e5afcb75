//! The memory that a training run will need at its peak, from specifications and settings alone. What is held from the first
//! step to the last, and on top of it the largest micro-batch:
//!
//! ```text
//! held          16 bytes a parameter: value, two moments, gradient; 4 more where a transform stands before the forward, and
//!               the grid; the teacher's values; the files, which are mapped or read
//! micro-batch   4 bytes · tokens · (Σ over layers of what operations keep for the backward pass + the ends);
//!               with recomputation the input of every layer and the one layer that keeps most; the scores of a chunk
//! ```
//!
//! What an operation keeps is the table of docs/training.md. Samples are taken to be as long as the window, and memory that is
//! used again counts once.

use super::settings::Settings;
use crate::model::spec::{LayerSpec, Mixer, ModelSpec, NormPlacement};

/// The program itself with a tokenizer, its threads, and the working memory of products.
const PROGRAM_BYTES: u64 = 48 << 20;
/// Rows whose scores are made at once.
const CHUNK: usize = 256;

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct TrainingNeed<'n> {
    /// The student.
    pub student: &'n ModelSpec,
    /// The teacher, where the loss has one.
    pub teacher: Option<&'n ModelSpec>,
    /// The run.
    pub settings: &'n Settings,
    /// Whether a transform stands between the trained values and the forward.
    pub transformed: bool,
    /// Whether it runs on fused operations.
    pub fused: bool,
    /// Bytes of the files that are mapped or read.
    pub files_bytes: u64,
}

impl TrainingNeed<'_> {
    /// Bytes at the peak.
    pub fn peak_bytes(&self) -> u64 {
        let Settings { batch, pieces, window, .. } = *self.settings;
        let sequences = batch.div_ceil(pieces.max(1));
        let tokens = sequences * window.min(self.student.context);
        self.held_bytes() + if self.fused { self.piece_bytes(tokens) } else { self.plain_bytes(tokens) }
    }

    /// Bytes held all along.
    fn held_bytes(&self) -> u64 {
        let parameters = self.student.parameter_count();
        let transformed = if self.transformed { 4 + 3 } else { 0 };
        let largest = self.student.parameters().iter().map(|parameter| parameter.shape.iter().product::<usize>()).max();
        // A checkpoint is written tensor by tensor.
        let written = 4 * largest.unwrap_or(0) as u64;
        let of_teacher = self.teacher.map_or(0, |teacher| 4 * teacher.parameter_count());
        PROGRAM_BYTES + (16 + transformed) * parameters + written + of_teacher + self.files_bytes
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
        if let Some(teacher) = self.teacher {
            if self.settings.loss.needs_hidden() {
                // The teacher's states, and a difference for every pair.
                floats += (teacher.layers.len() + spec.layers.len() + 2) * teacher.hidden;
            }
            if self.settings.loss.needs_divergence() {
                floats += teacher.hidden;
                heads = 2;
            }
        }
        let scores = heads * spec.output_width() * CHUNK.min(tokens);
        4 * (tokens * floats + scores) as u64
    }

    /// Bytes of all micro-batches on burn's own operations, which run side by side, each with its own leaves and gradients.
    fn plain_bytes(&self, tokens: usize) -> u64 {
        let spec = self.student;
        let of_layer = |layer: &LayerSpec| {
            let scores = layer.attention().map_or(0, |attention| 4 * attention.heads * self.settings.window);
            12 * spec.hidden + 4 * layer.ffn.width + scores
        };
        let of_token = 10 * spec.output_width() + spec.layers.iter().map(of_layer).sum::<usize>();
        let pieces = self.settings.pieces as u64;
        pieces * (12 * spec.parameter_count() + 4 * (tokens * of_token) as u64)
    }

    /// The changes of settings by which the run stays within `limit`, each with its need; the first does not change its result.
    pub fn fitting(&self, limit: u64) -> Vec<(String, u64)> {
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut settings = self.settings.clone();
            change(&mut settings);
            TrainingNeed { settings: &settings, ..*self }.peak_bytes()
        };
        let Settings { batch, pieces, .. } = *self.settings;
        let mut found = Vec::new();
        let mut consider = |text: String, need: u64| {
            let fits = need <= limit;
            if fits {
                found.push((text, need));
            }
            fits
        };
        let again = self.fused && !self.settings.recompute;
        if again {
            consider("--recompute".to_owned(), with(&|settings| settings.recompute = true));
        }
        let more = || (pieces + 1..=batch).filter(|more| batch.div_ceil(*more) < batch.div_ceil(pieces.max(1)));
        let alone = more().any(|more| consider(format!("--pieces {more}"), with(&|settings| settings.pieces = more)));
        if again && !alone {
            more().any(|more| {
                let need = with(&|settings| (settings.pieces, settings.recompute) = (more, true));
                consider(format!("--recompute --pieces {more}"), need)
            });
        }
        let smaller = |batch: usize| {
            move |settings: &mut Settings| (settings.batch, settings.pieces) = (batch, pieces.min(batch))
        };
        (1..batch).rev().any(|batch| consider(format!("--batch {batch}"), with(&smaller(batch))));
        found
    }
}

/// Floats a token that the operations of a layer keep for the backward pass, their inputs for the most part.
fn kept_floats(layer: &LayerSpec, hidden: usize) -> usize {
    let states = match layer.norm_placement {
        NormPlacement::Pre | NormPlacement::Post => 4 * hidden,
        NormPlacement::Around => 6 * hidden,
    };
    let mixer = match &layer.mixer {
        Mixer::Attention(attention) => {
            let projected = attention.query_width() + 2 * attention.key_width();
            let copies = if attention.query_key_norm { 2 } else { 1 };
            copies * projected + attention.query_width() + 2 * attention.heads
        }
        // Its input three times as wide, sums and output.
        Mixer::Conv(_) => 5 * hidden,
    };
    states + mixer + widened(layer) + layer.ffn.width
}

/// Floats a token that a backward pass of a layer's largest operation has on top.
fn working_floats(layer: &LayerSpec, hidden: usize) -> usize {
    let mixer = match &layer.mixer {
        // Gradients of the output and of the input, and the latter by heads before they are put side by side.
        Mixer::Attention(attention) => {
            3 * attention.query_width() + 4 * attention.key_width() + attention.query_width()
        }
        Mixer::Conv(_) => 5 * hidden,
    };
    hidden + mixer.max(layer.ffn.width + widened(layer))
}

/// Values a token of up, and gate.
fn widened(layer: &LayerSpec) -> usize {
    layer.ffn.width * if layer.ffn.gated { 2 } else { 1 }
}
