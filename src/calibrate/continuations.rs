//! Prompts continued by a decoder, many together: one forward computes a token of each, at the same position of all. A
//! prompt that is longer than others goes on being read while the others are already continued. A text that has ended is
//! read on with them, its output unused, until half of a batch has ended and is left out.
//!
//! ```text
//! token at position p of text n = draw p of stream n        log-probability = Σ ln softmax(logits)(token), at temperature 1
//! ```
//!
//! No text's logits depend on others, so what is written is the same for any number of threads.

use super::samples::{at_once, cache_bytes};
use crate::divergence::nll;
use crate::model::forward::{BatchError, Decoder, FusedWeights};
use crate::model::spec::ModelSpec;
use crate::progress::Progress;
use rayon::prelude::*;
use slm_runtime::sample::{Sampling, choose};

/// A text to be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids, those that open a text included; at least one, and fewer than the window.
    pub tokens: Vec<u32>,
    /// Stream of its draws.
    pub stream: u64,
}

/// What a model wrote after a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// The ids, without the one that ends the text.
    pub tokens: Vec<u32>,
    /// ln of their probability under the model given what stands before them, the one that ends the text included.
    pub log_probability: f64,
    /// The token by which the model ended it; `None` where the window did.
    pub end: Option<u32>,
}

impl Continuation {
    /// Mean of the logarithm of the probability of a token, the one that ends the text included; 0 where there is none.
    pub fn mean_log_probability(&self) -> f64 {
        self.log_probability / (self.tokens.len() + usize::from(self.end.is_some())).max(1) as f64
    }
}

/// How texts are continued.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manner {
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Most tokens of a text, its prompt included.
    pub window: usize,
}

/// How many texts go together: as many as keep within the memory of a cache.
pub fn together(spec: &ModelSpec, window: usize) -> usize {
    at_once(spec, window)
}

/// Bytes of memory that it takes beside the weights: keys and values, and logits.
pub fn memory_bytes(spec: &ModelSpec, window: usize) -> u64 {
    (together(spec, window) * (cache_bytes(spec, window) + 12 * spec.vocabulary)) as u64
}

/// The order in which prompts are continued, in batches: those of one length together.
pub fn batches(prompts: &[Prompt], together: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&number| (prompts[number].tokens.len(), number));
    order.chunks(together.max(1)).map(<[usize]>::to_vec).collect()
}

/// Continues prompts that go together, each to its end or to the window. `progress` advances by the tokens written.
///
/// # Errors
/// [`BatchError`]: tokens that the model does not have, a window beyond its positions, a prompt without tokens.
pub fn continue_together(
    spec: &ModelSpec,
    weights: &FusedWeights,
    prompts: &[&Prompt],
    manner: &Manner,
    progress: &dyn Progress,
) -> Result<Vec<Continuation>, BatchError> {
    let Some(mut read) = prompts.iter().map(|prompt| prompt.tokens.len()).min() else { return Ok(Vec::new()) };
    if read == 0 {
        return Err(BatchError::Ragged { tokens: 0, sequences: prompts.len() });
    }
    let mut decoder = Decoder::new(spec, weights, prompts.len(), manner.window);
    let begun = |_| Continuation { tokens: Vec::new(), log_probability: 0.0, end: None };
    let mut written: Vec<Continuation> = prompts.iter().map(begun).collect();
    // The texts that the decoder holds.
    let mut held: Vec<usize> = (0..prompts.len()).collect();
    let goes_on = |text: usize, written: &[Continuation]| written[text].end.is_none();
    let mut next: Vec<u32> = prompts.iter().flat_map(|prompt| prompt.tokens[..read].to_vec()).collect();
    while read < manner.window {
        let logits = decoder.read(next)?;
        let rows = held.par_iter().zip(logits.par_chunks_exact(spec.vocabulary));
        let chosen: Vec<(u32, f64)> = rows
            .map(|(&text, row)| {
                if let Some(&token) = prompts[text].tokens.get(read) {
                    return (token, 0.0);
                }
                if !goes_on(text, &written) {
                    return (0, 0.0);
                }
                let token = choose(row, &manner.sampling, prompts[text].stream, read as u64);
                (token, -nll(row, token as usize))
            })
            .collect();
        let mut advanced = 0;
        for (&text, &(token, log_probability)) in held.iter().zip(&chosen) {
            if read < prompts[text].tokens.len() || !goes_on(text, &written) {
                continue;
            }
            let own = &mut written[text];
            own.log_probability += log_probability;
            if spec.ends.contains(&token) {
                own.end = Some(token);
            } else {
                own.tokens.push(token);
                advanced += 1;
            }
        }
        progress.advance(advanced);
        read += 1;
        let kept: Vec<usize> = (0..held.len()).filter(|&place| goes_on(held[place], &written)).collect();
        if kept.is_empty() {
            break;
        }
        next = chosen.iter().map(|&(token, _)| token).collect();
        if 2 * kept.len() <= held.len() {
            decoder.keep(&kept);
            next = kept.iter().map(|&place| next[place]).collect();
            held = kept.iter().map(|&place| held[place]).collect();
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open_model;
    use crate::progress::Silent;
    use slm_runtime::sample::random_u64;
    use std::path::Path;

    fn prompts(vocabulary: usize) -> Vec<Prompt> {
        let token = |n: u64| (random_u64(3, n) % vocabulary as u64) as u32;
        let lengths = [3usize, 5, 3, 9, 4];
        let one = |(number, &length): (usize, &usize)| Prompt {
            tokens: (0..length).map(|place| token((10 * number + place) as u64)).collect(),
            stream: random_u64(7, number as u64),
        };
        lengths.iter().enumerate().map(one).collect()
    }

    /// Uneven prompts together, on any number of threads, and texts that end early: each as it is beside one other of its
    /// own batch, since none depends on another.
    #[test]
    fn neither_threads_nor_others_change_a_text() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
        for name in ["llama-gqa-tied", "lfm2-short-conv"] {
            let mut model = open_model(&golden.join(name)).expect("a golden checkpoint opens");
            // Every fourth token ends a text, so that batches shrink.
            model.spec.ends = (0..model.spec.vocabulary as u32).filter(|id| id % 4 == 1).collect();
            let spec = &model.spec;
            let weights = Decoder::weights(&model).expect("it has weights");
            let prompts = prompts(spec.vocabulary);
            let manner = Manner { sampling: Sampling { temperature: 1.0, ..Sampling::GREEDY }, window: 14 };
            let run = |which: &[usize], threads: usize| {
                let some: Vec<&Prompt> = which.iter().map(|&number| &prompts[number]).collect();
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| continue_together(spec, &weights, &some, &manner, &Silent)).expect("it continues")
            };
            let all = run(&[0, 1, 2, 3, 4], 1);
            assert_eq!(all, run(&[0, 1, 2, 3, 4], 3), "{name}");
            assert!(
                all.iter().any(|text| text.end.is_some()) && all.iter().any(|text| text.tokens.len() > 1),
                "{name}: {all:?}"
            );
            for number in 0..prompts.len() {
                // The shortest prompt says how many tokens are read at once.
                let beside = if number == 0 { 2 } else { 0 };
                assert_eq!(run(&[beside, number], 1)[1], all[number], "{name}: {number}");
                let text = &all[number];
                let length = text.tokens.len() + prompts[number].tokens.len();
                assert!(text.end.is_some() || length == manner.window, "{name}: {number}");
                assert!(text.log_probability < 0.0 && text.mean_log_probability() >= text.log_probability);
            }
        }
    }

    /// The log-probability is that of the whole forward.
    #[test]
    fn the_log_probability_is_the_models_own() {
        use crate::model::device::device;
        use crate::model::forward::{Batch, DenseWeights, Forward, Unobserved};
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/llama-gqa-tied");
        let mut model = open_model(&golden).expect("a golden checkpoint opens");
        model.spec.ends = Vec::new();
        let (spec, device) = (&model.spec, device("flex").expect("a backend"));
        let weights = Decoder::weights(&model).expect("it has weights");
        let prompt = &prompts(spec.vocabulary)[1];
        let manner = Manner { sampling: Sampling { temperature: 0.7, ..Sampling::GREEDY }, window: 12 };
        let written = &continue_together(spec, &weights, &[prompt], &manner, &Silent).expect("it continues")[0];
        assert!(written.end.is_none() && written.tokens.len() == 12 - prompt.tokens.len());
        let whole = [prompt.tokens.as_slice(), &written.tokens].concat();
        let batch = Batch::new(spec, whole.clone(), 1).expect("a batch");
        let dense = DenseWeights::new(&model, &device).expect("weights");
        let logits = Forward::new(spec, &dense, &device).run(&batch, &mut Unobserved).logits.into_data();
        let logits: Vec<f32> = logits.try_to_vec().expect("values");
        let row = |place: usize| &logits[place * spec.vocabulary..][..spec.vocabulary];
        let expected: f64 =
            (prompt.tokens.len()..whole.len()).map(|place| -nll(row(place - 1), whole[place] as usize)).sum();
        assert!((written.log_probability - expected).abs() < 1e-3, "{} {expected}", written.log_probability);
    }

    #[test]
    fn batches_hold_prompts_of_one_length_where_they_can() {
        let order = batches(&prompts(9), 2);
        assert_eq!(order, [vec![0, 2], vec![4, 1], vec![3]]);
        assert!(batches(&[], 2).is_empty());
    }
}
