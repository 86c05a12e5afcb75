//! A quality score by a small model: the mean negative logarithm of the probability that it gives to the first tokens of a
//! text. Texts that are too easy repeat themselves or are boilerplate; those that are too hard are noise or another language.

use super::DataError;
use crate::eval::lm;
use crate::eval::opened::{OpenedModel, Task};
use crate::model::spec::ModelKind;
use crate::progress::Silent;
use crate::text::tokenizer::Tokenizer;
use burn::tensor::Device;
use rayon::prelude::*;
use std::path::Path;

/// A model that scores texts.
pub struct Scorer {
    model: OpenedModel,
    tokenizer: Tokenizer,
    /// Most tokens of a text that are looked at, opening ones among them.
    window: usize,
}

impl Scorer {
    /// Opens a decoder.
    ///
    /// # Errors
    /// [`DataError::NoLanguageHead`], or a model that cannot be opened.
    pub fn open(path: &Path, tokens: usize, device: &Device) -> Result<Self, DataError> {
        let model = OpenedModel::open(path, device)?;
        if model.task != Task::LanguageModel || model.kind != ModelKind::Decoder {
            let output = match model.task {
                Task::LanguageModel => "next-token logits without being a decoder",
                Task::MaskedLanguageModel => "logits of masked tokens",
                Task::Classifier | Task::TokenClassifier => "logits of labels",
                Task::Answers => "places of answers",
                Task::Hidden => "hidden states",
            };
            return Err(DataError::NoLanguageHead { path: path.to_owned(), output });
        }
        let mut tokenizer = model.tokenizer()?;
        tokenizer.check(model.vocabulary)?;
        let window = tokens.min(model.context).max(model.opening.len() + 2);
        Ok(Scorer { model, tokenizer, window })
    }

    /// The mean surprise of every text in nats a token; `None` of one that has nothing to predict.
    ///
    /// # Errors
    /// The model's.
    pub fn scores(&self, texts: &[String]) -> Result<Vec<Option<f32>>, DataError> {
        let opening = &self.model.opening;
        let sequence = |text: &String| {
            let mut tokens = self.tokenizer.encode_plain(text)?;
            tokens.truncate(self.window - opening.len());
            Ok::<_, DataError>([&opening[..], &tokens].concat())
        };
        let sequences: Vec<Vec<u32>> = texts.par_iter().map(sequence).collect::<Result<_, _>>()?;
        let scored: Vec<usize> = (0..texts.len()).filter(|&text| sequences[text].len() > 1).collect();
        if scored.is_empty() {
            return Ok(vec![None; texts.len()]);
        }
        let windows: Vec<Vec<u32>> = scored.iter().map(|&text| sequences[text].clone()).collect();
        let sums = lm::evaluate(&self.model, None, &windows, &Silent)?.sums;
        let mut scores = vec![None; texts.len()];
        for ((text, nll), count) in scored.into_iter().zip(&sums.nll).zip(&sums.counts) {
            scores[text] = Some((nll / *count as f64) as f32);
        }
        Ok(scores)
    }
}

/// The places to leave out: those of the `worst` share with the highest scores and of the `best` share with the lowest.
pub fn extremes(scores: &[(usize, f32)], worst: f64, best: f64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<(usize, f32)> = scores.to_vec();
    order.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let count = |share: f64| ((share * order.len() as f64).floor() as usize).min(order.len());
    let places = |part: &[(usize, f32)]| part.iter().map(|(place, _)| *place).collect();
    let low = count(best);
    let high = count(worst).min(order.len() - low);
    (places(&order[order.len() - high..]), places(&order[..low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_taken_from_both_ends() {
        let scores: Vec<(usize, f32)> = (0..10).map(|n| (n + 5, ((n * 7) % 10) as f32)).collect();
        let (worst, best) = extremes(&scores, 0.25, 0.1);
        // 8 and 9 are those of the fifth and eighth.
        assert_eq!((worst, best), (vec![9, 12], vec![5]));
        assert_eq!(extremes(&scores, 0.0, 0.0), (vec![], vec![]));
        let (worst, best) = extremes(&scores, 0.9, 0.9);
        assert_eq!((worst.len(), best.len()), (1, 9));
        assert_eq!(extremes(&[], 0.5, 0.5), (vec![], vec![]));
    }
}
