//! Next tokens of many texts that are read on together: one forward computes a token of each, so that every weight is
//! read once for all of them. A text's logits have the same bits whatever other texts go with it, since no output of a
//! fused operation depends on another row.

use super::{Context, FusedForward, FusedWeights, root_without_graph};
use crate::model::forward::Unobserved;
use crate::model::forward::batch::{Batch, BatchError};
use crate::model::forward::layer::Operations;
use crate::model::spec::{Mixer, ModelSpec};
use crate::model::weights::{Model, ModelError};
use slm_fused::attention::cached::{Past, keep_parts};
use slm_fused::embedding::select;
use slm_fused::node::{Value, slice, tensor};
use std::sync::Arc;

/// What a layer needs of the positions before.
pub(crate) enum LayerPast {
    Attention(Past),
    Convolution(Inputs),
}

/// The last inputs of a short convolution, (sequences, taps − 1, 3 · channels), zeros before the first position.
pub(crate) struct Inputs {
    values: Vec<f32>,
    /// taps − 1
    kept: usize,
}

impl Inputs {
    /// Rows with those before them, (sequences, kept + length, width), and how many that is a sequence.
    pub(super) fn before(&mut self, rows: &Value, sequences: usize) -> (Value, usize) {
        let (width, new) = (rows.width(), rows.tensor());
        let (own, kept) = (slice(&new).len() / sequences, self.kept * width);
        let mut all = Vec::with_capacity(sequences * (own + kept));
        for (rows, before) in slice(&new).chunks_exact(own).zip(chunks(&self.values, kept, sequences)) {
            all.extend_from_slice(before);
            all.extend_from_slice(rows);
        }
        let length = self.kept + own / width;
        self.values.clear();
        for rows in all.chunks_exact(length * width) {
            self.values.extend_from_slice(&rows[rows.len() - kept..]);
        }
        (Value::Plain(tensor(all, &[sequences, length, width])), length)
    }

    /// Without the rows that stand for those before.
    pub(super) fn without(&self, rows: &Value, sequences: usize) -> Value {
        let (width, all) = (rows.width(), rows.tensor());
        let own = slice(&all).len() / sequences;
        let mut out = Vec::new();
        slice(&all).chunks_exact(own).for_each(|rows| out.extend_from_slice(&rows[self.kept * width..]));
        let length = own / width - self.kept;
        Value::Plain(tensor(out, &[sequences, length, width]))
    }
}

/// `count` pieces of `size`, which may be 0.
fn chunks(values: &[f32], size: usize, count: usize) -> impl Iterator<Item = &[f32]> {
    (0..count).map(move |number| &values[number * size..][..size])
}

/// Texts of a decoder that are read on together.
pub(crate) struct Decoder<'a> {
    forward: FusedForward<'a>,
    sequences: usize,
    read: usize,
    layers: Vec<LayerPast>,
}

impl<'a> Decoder<'a> {
    /// The weights of a model, as a decoder reads them.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub(crate) fn weights(model: &Model) -> Result<FusedWeights, ModelError> {
        FusedWeights::of_model(model)
    }

    /// Nothing read yet; with room for `room` positions of each text.
    pub(crate) fn new(spec: &'a ModelSpec, weights: &'a FusedWeights, sequences: usize, room: usize) -> Self {
        let past = |mixer: &Mixer| match mixer {
            Mixer::Attention(spec) => {
                LayerPast::Attention(Past::new(sequences, spec.key_value_heads, spec.head_dim, room))
            }
            Mixer::Conv(conv) => {
                let kept = conv.taps - 1;
                LayerPast::Convolution(Inputs { values: vec![0.0; sequences * kept * 3 * spec.hidden], kept })
            }
        };
        let layers = spec.layers.iter().map(|layer| past(&layer.mixer)).collect();
        Decoder { forward: FusedForward::new(spec, weights, false), sequences, read: 0, layers }
    }

    /// Forgets all texts but some: `kept` are their numbers, ascending. What the others give is the same to the bit.
    pub(crate) fn keep(&mut self, kept: &[usize]) {
        for layer in &mut self.layers {
            match layer {
                LayerPast::Attention(past) => past.keep(self.sequences, kept),
                LayerPast::Convolution(inputs) => keep_parts(&mut inputs.values, self.sequences, kept),
            }
        }
        self.sequences = kept.len();
    }

    /// Reads as many next tokens of every text, text by text, and returns the logits after the last of each, (texts,
    /// vocabulary).
    pub(crate) fn read(&mut self, tokens: Vec<u32>) -> Result<Vec<f32>, BatchError> {
        let forward = &self.forward;
        if let Some(stacks) = forward.spec.stacks() {
            return Err(BatchError::NotAPair { start: stacks.start });
        }
        let batch = Batch::starting_at(forward.spec, tokens, self.sequences, self.read)?;
        let [sequences, length] = batch.dims();
        let context = Context::new(forward.spec, &batch);
        let mut hidden = forward.embed(&batch, &root_without_graph());
        for (layer, past) in self.layers.iter_mut().enumerate() {
            hidden = forward.layer(layer, hidden, &context, Some(past), &mut Unobserved);
        }
        self.read += length;
        let last = select(&hidden, Arc::new((0..sequences).map(|sequence| (sequence + 1) * length - 1).collect()));
        let input = forward.before_last(forward.finish(last), &mut Unobserved);
        let output = match forward.spec.last_linear() {
            Some(id) => forward.last_linear(&input, id, &mut Unobserved),
            None => input,
        };
        Ok(slice(&output.tensor()).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open_model;
    use crate::model::device::device;
    use crate::model::forward::{DenseWeights, Forward};
    use crate::model::spec::ModelKind;
    use slm_runtime::sample::random_u64;
    use std::path::Path;

    /// Largest difference, as a part of the largest logit.
    const TOLERANCE: f32 = 2e-5;
    const TEXTS: usize = 3;
    const LENGTH: usize = 20;

    /// Every golden decoder, in uneven pieces of several texts, past its windows: the logits of the whole forward.
    #[test]
    fn pieces_of_many_texts_give_what_whole_texts_give() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
        let device = device("flex").unwrap();
        let mut decoders = 0;
        for folder in std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
        {
            let model = open_model(&folder).unwrap();
            let spec = &model.spec;
            if spec.kind != ModelKind::Decoder {
                continue;
            }
            decoders += 1;
            let draw = |index: usize| (random_u64(6, index as u64) % spec.vocabulary as u64) as u32;
            let texts: Vec<Vec<u32>> =
                (0..TEXTS).map(|text| (0..LENGTH).map(|at| draw(text * LENGTH + at)).collect()).collect();
            let weights = DenseWeights::new(&model, &device).unwrap();
            let whole = Batch::new(spec, texts.concat(), TEXTS).unwrap();
            let logits = Forward::new(spec, &weights, &device).run(&whole, &mut Unobserved).logits.into_data();
            let logits: Vec<f32> = logits.try_to_vec().unwrap();
            let weights = Decoder::weights(&model).unwrap();
            let mut all = Decoder::new(spec, &weights, TEXTS, LENGTH);
            let mut alone = Decoder::new(spec, &weights, 1, LENGTH);
            for (start, end) in [(0, 3), (3, 4), (4, 5), (5, 17), (17, 18), (18, 20)] {
                let found = all.read(texts.iter().flat_map(|text| text[start..end].to_vec()).collect()).unwrap();
                for (text, found) in found.chunks_exact(spec.vocabulary).enumerate() {
                    let row = (text * LENGTH + end - 1) * spec.vocabulary;
                    let expected = &logits[row..][..spec.vocabulary];
                    let largest = expected.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
                    let worst = found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                    assert!(worst <= TOLERANCE * largest, "{}: text {text} to {end}: {worst}", folder.display());
                }
                // Others change no bit of a text.
                let own = alone.read(texts[1][start..end].to_vec()).unwrap();
                assert_eq!(own, found[spec.vocabulary..][..spec.vocabulary], "{}", folder.display());
            }
            // Nor does it when others are forgotten on the way.
            let mut some = Decoder::new(spec, &weights, TEXTS, LENGTH);
            let piece = |from: usize, to: usize, of: &[usize]| -> Vec<u32> {
                of.iter().flat_map(|&text| texts[text][from..to].to_vec()).collect()
            };
            let mut whole = Decoder::new(spec, &weights, TEXTS, LENGTH);
            some.read(piece(0, 6, &[0, 1, 2])).unwrap();
            whole.read(piece(0, 6, &[0, 1, 2])).unwrap();
            some.keep(&[0, 2]);
            let (kept, all_three) =
                (some.read(piece(6, 7, &[0, 2])).unwrap(), whole.read(piece(6, 7, &[0, 1, 2])).unwrap());
            let of = |text: usize| &all_three[text * spec.vocabulary..][..spec.vocabulary];
            assert_eq!(kept, [of(0), of(2)].concat(), "{}", folder.display());
            some.keep(&[1]);
            let own = whole.read(piece(7, 8, &[0, 1, 2])).unwrap();
            assert_eq!(some.read(piece(7, 8, &[2])).unwrap(), own[2 * spec.vocabulary..], "{}", folder.display());
            let more = all.read(vec![0; TEXTS * spec.context]);
            assert!(matches!(more, Err(BatchError::TooLong { .. })), "{}", folder.display());
        }
        assert_eq!(decoders, 32);
    }
}
