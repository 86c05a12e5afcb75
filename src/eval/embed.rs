//! Sentence embeddings, and the cosine between a model's and a reference's for each text. A model that pools gives them
//! itself; of one that gives the hidden state of every token the mean is taken, special tokens included.

use super::error::{EvalError, Side};
use super::forward::Forward;
use super::outputs::{Pair, Rows};
use super::subject::{Subject, number_row};
use crate::divergence::{embedding, percentile};
use crate::model::spec::Embedding;
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
    /// How the model pools, by its files; absent where the mean of its hidden states was taken instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<&'static str>,
    /// Whether the model scales its embeddings to length one; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalized: Option<bool>,
    /// SHA-256 of the model's outputs, the embeddings or all hidden states: little-endian f32, every row of every text in
    /// order.
    pub logits_sha256: String,
}

/// A model that embeds texts.
#[derive(Clone, Copy)]
pub struct Embedder<'a> {
    /// The model.
    pub forward: &'a dyn Forward,
    /// How it pools; `None` where it gives the hidden state of every token.
    pub embedding: Option<Embedding>,
}

impl Embedder<'_> {
    fn rows(&self) -> Rows {
        if self.embedding.is_some() { Rows::One } else { Rows::PerToken }
    }
}

/// Embeds every sequence with `model`, and with `reference` to compare if there is one.
///
/// # Errors
/// [`EvalError`]: no texts, a failing or damaged model, models of different widths, an embedding without direction.
pub fn evaluate(
    model: Embedder<'_>,
    reference: Option<Embedder<'_>>,
    sequences: &[Vec<u32>],
    progress: &dyn Progress,
) -> Result<EmbedMetrics, EvalError> {
    if sequences.is_empty() {
        return Err(EvalError::Nothing { with: "" });
    }
    let width = model.forward.output_width();
    let pair = Pair {
        model: model.forward,
        reference: reference.map(|reference| reference.forward),
        shared: None,
        rows: model.rows(),
        reference_rows: reference.map_or(Rows::PerToken, |reference| reference.rows()),
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
        pooling: model.embedding.map(|embedding| embedding.pooling.name()),
        normalized: model.embedding.map(|embedding| embedding.normalize),
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
        let scaled = |normalized| if normalized == Some(true) { "scaled to length one" } else { "not scaled" };
        let pooling = match metrics.pooling {
            Some(pooling) => format!("{pooling}, {}", scaled(metrics.normalized)),
            None => "mean, taken here: the model gives a state for every token".to_owned(),
        };
        table.row(["pooling", &pooling]);
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
        let all = |forward| Embedder { forward, embedding: None };
        let texts = [vec![0, 0], vec![0, 1]];
        let metrics = evaluate(all(&model), Some(all(&reference)), &texts, &Silent).expect("evaluates");
        let second = 3.0 / (2f64.sqrt() * 5f64.sqrt());
        assert_eq!((metrics.tokens, metrics.windows), (4, 2));
        assert!(metrics.cosine_mean.is_some_and(|mean| (mean - (1.0 + second) / 2.0).abs() < 1e-12));
        assert!(metrics.cosine_p01.is_some_and(|low| (low - second).abs() < 1e-12));
        let alone = evaluate(all(&model), None, &[vec![0]], &Silent).expect("evaluates");
        assert_eq!((alone.cosine_mean, alone.pooling), (None, None));
    }

    #[test]
    fn a_model_that_pools_is_compared_by_its_one_row() {
        let embedding = Some(Embedding { pooling: crate::model::spec::Pooling::First, normalize: true });
        let model = Model::per_sequence(&[&[1.0, 0.0], &[0.0, 1.0]]);
        let reference = Model::per_token(&[&[2.0, 0.0], &[2.0, 2.0]]);
        let (own, other) = (Embedder { forward: &model, embedding }, Embedder { forward: &reference, embedding: None });
        let metrics = evaluate(own, Some(other), &[vec![1, 0]], &Silent).expect("evaluates");
        // (0, 1) beside the mean of (2, 2) and (2, 0).
        assert!(metrics.cosine_mean.is_some_and(|mean| (mean - 1.0 / 5f64.sqrt()).abs() < 1e-12));
        assert_eq!((metrics.pooling, metrics.normalized), (Some("cls"), Some(true)));
    }

    #[test]
    fn an_embedding_of_zero_is_refused() {
        let model = Model::per_token(&[&[1.0, 0.0], &[-1.0, 0.0]]);
        let model = Embedder { forward: &model, embedding: None };
        let error = evaluate(model, None, &[vec![0], vec![0, 1]], &Silent).expect_err("zero").to_string();
        assert_eq!(error, "the model's embedding of sequence 1 is zero and has no direction");
    }
}
