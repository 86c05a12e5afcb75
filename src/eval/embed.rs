//! Sentence embeddings: the mean over all tokens, special ones included, of the hidden states, scaled to length one,
//! and the cosine between a model's and a reference's for each text.

use super::forward::Forward;
use super::outputs::{EvalError, Pair, Rows, Side};
use super::subject::{Subject, number_row};
use crate::divergence::{embedding, percentile};
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use serde::Serialize;

/// How near a model's embeddings are to a reference's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbedMetrics {
    /// Tokens of all texts, special tokens included.
    pub tokens: u64,
    /// Texts.
    pub windows: u64,
    /// Mean over texts of the cosine to the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_mean: Option<f64>,
    /// 1st percentile over texts (nearest rank).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_p01: Option<f64>,
    /// SHA-256 of the model's hidden states: little-endian f32, every position of every text in order.
    pub logits_sha256: String,
}

/// Embeds every sequence with `model`, and with `reference` to compare if there is one.
///
/// # Errors
/// [`EvalError`]: no texts, a failing or damaged model, models of different widths, an embedding without direction.
pub fn evaluate(
    model: &dyn Forward,
    reference: Option<&dyn Forward>,
    sequences: &[Vec<u32>],
    progress: &dyn Progress,
) -> Result<EmbedMetrics, EvalError> {
    if sequences.is_empty() {
        return Err(EvalError::Nothing { with: "" });
    }
    let width = model.output_width();
    let pair = Pair {
        model,
        reference,
        shared: None,
        rows: Rows::PerToken,
        columns: "dimensions",
        work: ("embedding", "texts"),
    };
    let mut cosines = Vec::new();
    let logits_sha256 = pair.watched(sequences, progress, |sequence, states, reference| {
        let embed = |side, states| embedding(states, width).ok_or(EvalError::ZeroEmbedding { side, sequence });
        let own = embed(Side::Model, states)?;
        if let Some(reference) = reference {
            let other = embed(Side::Reference, reference)?;
            cosines.push(own.iter().zip(&other).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0));
        }
        Ok(())
    })?;
    Ok(EmbedMetrics {
        tokens: sequences.iter().map(|tokens| tokens.len() as u64).sum(),
        windows: sequences.len() as u64,
        cosine_mean: reference.map(|_| cosines.iter().sum::<f64>() / cosines.len() as f64),
        cosine_p01: percentile(&cosines, 0.01),
        logits_sha256,
    })
}

/// Result of `slmc eval --task embed`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename = "embed")]
pub struct EmbedReport {
    /// Quality.
    #[serde(flatten)]
    pub metrics: EmbedMetrics,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
}

impl Report for EmbedReport {
    const SCHEMA: &'static str = super::SCHEMA;

    fn text(&self) -> String {
        let metrics = &self.metrics;
        let mut table = Table::pairs();
        table.row(["tokens", &grouped(metrics.tokens)]).row(["texts", &grouped(metrics.windows)]);
        number_row(&mut table, "cosine_mean", metrics.cosine_mean, 6);
        number_row(&mut table, "cosine_p01", metrics.cosine_p01, 6);
        self.subject.rows(&mut table);
        format!("{table}\nlogits_sha256  {}", metrics.logits_sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::super::outputs::testing::Table as Model;
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn cosines_are_between_means_of_hidden_states() {
        let model = Model::per_token(&[&[1.0, 0.0], &[0.0, 1.0]]);
        let reference = Model::per_token(&[&[2.0, 0.0], &[2.0, 2.0]]);
        // Text 1: (1, 0) and (2, 0); text 2: means (1/2, 1/2) and (2, 1).
        let metrics = evaluate(&model, Some(&reference), &[vec![0, 0], vec![0, 1]], &Silent).expect("evaluates");
        let second = 3.0 / (2f64.sqrt() * 5f64.sqrt());
        assert_eq!((metrics.tokens, metrics.windows), (4, 2));
        assert!(metrics.cosine_mean.is_some_and(|mean| (mean - (1.0 + second) / 2.0).abs() < 1e-12));
        assert!(metrics.cosine_p01.is_some_and(|low| (low - second).abs() < 1e-12));
        assert_eq!(evaluate(&model, None, &[vec![0]], &Silent).expect("evaluates").cosine_mean, None);
    }

    #[test]
    fn an_embedding_of_zero_is_refused() {
        let model = Model::per_token(&[&[1.0, 0.0], &[-1.0, 0.0]]);
        let error = evaluate(&model, None, &[vec![0], vec![0, 1]], &Silent).expect_err("zero").to_string();
        assert_eq!(error, "the model's embedding of sequence 1 is zero and has no direction");
    }
}
