//! Two stacks of layers, one after the other in [`ModelSpec::layers`]: the encoder's first, then the decoder's. A decoder's layer
//! has attention to its own positions, attention to the encoder's finished states of the same shape, and a network.

use super::{ModelKind, ModelSpec};

/// The stacks of an encoder-decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// How many of the layers are the encoder's.
    pub encoder_layers: usize,
    /// The token that begins what the decoder writes. Tokenizers put it into no text, so a source and what is written of it
    /// are told apart by it where they stand in one sequence.
    pub start: u32,
}

/// How far a key is from its query, in classes that grow with the distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Classes: of the encoder half for keys before and half for keys after their query; at least 4.
    pub count: usize,
    /// From this distance on all is one class; more than half of the classes of one side.
    pub distance: usize,
}

impl Buckets {
    /// The class of a key at `key` for a query at `query`, where later keys are seen (`both`) or not:
    ///
    /// ```text
    /// n = count, halved for both; later keys of both begin at n            e = n / 2        d = |key − query|
    /// d < e: d            else min(e + ⌊ln(d / e) / ln(distance / e) · (n − e)⌋, n − 1)
    /// ```
    ///
    /// In f32, as the models were trained.
    pub fn class(self, query: usize, key: usize, both: bool) -> usize {
        let count = if both { self.count / 2 } else { self.count };
        let (first, distance) = match key.checked_sub(query) {
            Some(after) if after > 0 && both => (count, after),
            Some(_) => (0, 0),
            None => (0, query - key),
        };
        let exact = count / 2;
        if distance < exact {
            return first + distance;
        }
        let far = libm::logf(distance as f32 / exact as f32) / libm::log(self.distance as f64 / exact as f64) as f32;
        first + (exact + (far * (count - exact) as f32) as usize).min(count - 1)
    }

    /// [`Buckets::class`] of every query from `start` on and every key up to the last, query by query.
    pub fn classes(self, start: usize, queries: usize, both: bool) -> Vec<u32> {
        let keys = start + queries;
        (start..keys).flat_map(|query| (0..keys).map(move |key| self.class(query, key, both) as u32)).collect()
    }
}

impl ModelSpec {
    /// The stacks, where there are two.
    pub fn stacks(&self) -> Option<Stacks> {
        match self.kind {
            ModelKind::EncoderDecoder(stacks) => Some(stacks),
            ModelKind::Decoder | ModelKind::Encoder => None,
        }
    }

    /// How many of the first layers are the encoder's of an encoder-decoder.
    pub fn encoder_layers(&self) -> usize {
        self.stacks().map_or(0, |stacks| stacks.encoder_layers)
    }

    /// Whether a layer attends to the encoder's states.
    pub fn attends_across(&self, layer: usize) -> bool {
        self.stacks().is_some_and(|stacks| layer >= stacks.encoder_layers)
    }

    /// Whether a position of a layer sees itself and those before it alone.
    pub fn is_causal(&self, layer: usize) -> bool {
        match self.stacks() {
            Some(_) => self.attends_across(layer),
            None => self.causal,
        }
    }

    /// A sequence at the token that begins what the decoder writes: the source, and the rest with that token. `None` where
    /// either is empty, and of models with one stack.
    pub fn split<'t>(&self, sequence: &'t [u32]) -> Option<(&'t [u32], &'t [u32])> {
        let start = self.stacks()?.start;
        let at = sequence.iter().position(|&token| token == start).filter(|&at| at > 0)?;
        Some(sequence.split_at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the classes of transformers begin, for keys after their query and for keys before it.
    #[test]
    fn classes_are_those_of_transformers() {
        let both: [(usize, usize, &[usize]); 3] = [
            (32, 128, &[1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]),
            (16, 64, &[1, 2, 3, 4, 8, 16, 32]),
            (8, 20, &[1, 2, 7]),
        ];
        for (count, distance, firsts) in both {
            let buckets = Buckets { count, distance };
            for far in 1..600 {
                let class = firsts.iter().filter(|&&first| first <= far).count();
                assert_eq!(buckets.class(0, far, true), count / 2 + class, "{count} {far} after");
                assert_eq!(buckets.class(far, 0, true), class, "{count} {far} before");
            }
        }
        let causal: [(usize, usize, &[usize]); 2] = [
            (
                32,
                128,
                &[
                    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67,
                    77, 87, 99, 113,
                ],
            ),
            (8, 20, &[1, 2, 3, 4, 6, 9, 14]),
        ];
        for (count, distance, firsts) in causal {
            let buckets = Buckets { count, distance };
            for far in 1..600 {
                let class = firsts.iter().filter(|&&first| first <= far).count();
                assert_eq!(buckets.class(far, 0, false), class, "{count} {far}");
                assert_eq!(buckets.class(0, far, false), 0, "{count} {far}");
            }
        }
        let buckets = Buckets { count: 8, distance: 20 };
        assert_eq!(buckets.classes(1, 2, false), [1, 0, 0, 2, 1, 0]);
    }
}
