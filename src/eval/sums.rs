//! What was measured in every window, conversation, text or prompt, in the order of the data: the sums behind the
//! means of a report. A gate is judged by them, with another limit too, and two reports over the same data are paired
//! by them.

use crate::statistics::Draw;
use serde::{Deserialize, Serialize};

/// Columns of one length; a column that the task does not have is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sums {
    /// Values: positions with a target; of a text 1.
    pub counts: Vec<u64>,
    /// Negative log-likelihoods of the targets, in nats.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nll: Vec<f64>,
    /// The reference's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reference_nll: Vec<f64>,
    /// KL divergences from the reference, in nats.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kld: Vec<f64>,
    /// Positions, or texts, at which both rank the same first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agreeing: Vec<u64>,
    /// Whether accuracy counts the text: 0 where its label is `oos`. Empty where it counts all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<u64>,
    /// Right labels or answers, among those that count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub correct: Vec<u64>,
    /// The reference's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reference_correct: Vec<u64>,
    /// Cosines to the reference's embeddings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cosine: Vec<f64>,
}

impl Sums {
    /// How many windows or texts there are.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// A column over the counts, window by window. `None` where the report lacks the column.
    pub fn means(&self, column: &[f64]) -> Option<Vec<Draw>> {
        let pairs = column.iter().zip(&self.counts);
        (!self.is_empty() && column.len() == self.len())
            .then(|| pairs.map(|(&sum, &count)| Draw { sum, weight: count as f64 }).collect())
    }

    /// Whether each text that accuracy counts is right, by a column of `correct`.
    pub fn right(&self, correct: &[u64]) -> Option<Vec<bool>> {
        if self.is_empty() || correct.len() != self.len() {
            return None;
        }
        let counts = |text: &usize| self.judged.get(*text).is_none_or(|&judged| judged > 0);
        Some((0..correct.len()).filter(counts).map(|text| correct[text] > 0).collect())
    }
}
