//! A decoder's samples of itself, drawn at temperature 1 by the f32 forward: many sequences are read on together, one token
//! of each at a time. Sequence n draws from stream seed + n, and no sequence's logits depend on others, so the samples are
//! the same however many go together, for any number of threads.

use super::CalibrateError;
use crate::model::forward::Decoder;
use crate::model::spec::{Mixer, ModelSpec};
use crate::model::weights::Model;
use crate::progress::Progress;
use rayon::prelude::*;
use slm_runtime::sample::{Sampling, choose, random_u64};

/// Most sequences that are read on together: enough rows for products to be limited by arithmetic.
const TOGETHER: usize = 64;
/// Most bytes of keys and values.
const CACHE_BYTES: usize = 512 << 20;

/// At least `tokens` tokens in sequences of `window`. Each begins as a text of the model does; without such an opening,
/// with any token.
///
/// # Errors
/// [`CalibrateError`]: weights that cannot be read, or a window beyond the context.
pub fn sample(
    model: &Model,
    tokens: usize,
    window: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Vec<u32>>, CalibrateError> {
    let spec = &model.spec;
    let count = tokens.div_ceil(window.max(1));
    progress.begin("sampling from the model itself", (count * window) as u64, "tokens");
    let weights = Decoder::weights(model)?;
    let mut sequences = Vec::with_capacity(count);
    let together = at_once(spec, window);
    while sequences.len() < count {
        let first = sequences.len() as u64;
        let many = together.min(count - sequences.len());
        let decoder = Decoder::new(spec, &weights, many, window);
        sequences.extend(draw(spec, decoder, many, window, seed.wrapping_add(first), progress)?);
    }
    progress.finish();
    Ok(sequences)
}

/// Bytes of keys and values, or of inputs of convolutions, of one sequence.
pub(super) fn cache_bytes(spec: &ModelSpec, window: usize) -> usize {
    let of_layer = |mixer: &Mixer| match mixer {
        Mixer::Attention(attention) => 8 * attention.key_width() * window,
        Mixer::Conv(conv) => 12 * spec.hidden * conv.taps,
    };
    spec.layers.iter().map(|layer| of_layer(&layer.mixer)).sum()
}

/// How many sequences go together: as many as keep within the memory of a cache.
pub(super) fn at_once(spec: &ModelSpec, window: usize) -> usize {
    (CACHE_BYTES / cache_bytes(spec, window).max(1)).clamp(1, TOGETHER)
}

/// Bytes of memory that sampling takes at most: the whole model in f32, keys and values, and logits.
pub fn memory_bytes(spec: &ModelSpec, window: usize) -> u64 {
    let sequences = at_once(spec, window);
    4 * spec.parameter_count() + (sequences * (cache_bytes(spec, window) + 12 * spec.vocabulary)) as u64
}

/// Sequences of the streams from `seed`, as many as the decoder reads.
fn draw(
    spec: &ModelSpec,
    mut decoder: Decoder<'_>,
    many: usize,
    window: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Vec<u32>>, CalibrateError> {
    let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    let stream = |number: usize| seed.wrapping_add(number as u64);
    let begin = |number: usize| match spec.opening.is_empty() {
        true => vec![(random_u64(stream(number), u64::MAX) % spec.vocabulary as u64) as u32],
        false => spec.opening.clone(),
    };
    let mut sequences: Vec<Vec<u32>> = (0..many).map(begin).collect();
    let mut read = 0;
    while sequences[0].len() < window {
        let next = sequences.iter().flat_map(|sequence| sequence[read..].iter().copied()).collect();
        let length = sequences[0].len();
        let logits = decoder.read(next)?;
        let rows = logits.par_chunks_exact(spec.vocabulary).enumerate();
        let chosen: Vec<u32> =
            rows.map(|(number, row)| choose(row, &sampling, stream(number), length as u64)).collect();
        progress.advance((many * (length - read)) as u64);
        read = length;
        sequences.iter_mut().zip(chosen).for_each(|(sequence, token)| sequence.push(token));
    }
    progress.advance((many * (window - read)) as u64);
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open_model;
    use crate::progress::Silent;
    use std::path::Path;

    #[test]
    fn neither_threads_nor_others_change_a_sequence() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
        for name in ["llama-gqa-tied", "lfm2-short-conv"] {
            let model = open_model(&golden.join(name)).expect("a golden checkpoint opens");
            let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let all = |threads| pool(threads).install(|| sample(&model, 5 * 12, 12, 7, &Silent)).expect("it samples");
            let sequences = all(1);
            assert_eq!(sequences, all(3), "{name}");
            assert_eq!(sequences.len(), 5);
            let weights = Decoder::weights(&model).expect("it has weights");
            for (number, sequence) in (0..).zip(&sequences) {
                let decoder = Decoder::new(&model.spec, &weights, 1, 12);
                let alone = draw(&model.spec, decoder, 1, 12, 7 + number, &Silent).expect("it samples");
                assert_eq!(alone, std::slice::from_ref(sequence), "{name}");
            }
            assert!(sequences.iter().any(|sequence| *sequence != sequences[0]), "{name}: all are one");
        }
    }
}
