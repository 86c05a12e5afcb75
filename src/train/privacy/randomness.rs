//! Random numbers that nobody can foresee: ChaCha20 with a key from the operating system, outside the determinism of everything
//! else. A test may give the key; then nothing is private, and whoever asks is told so.
//!
//! ```text
//! stream  kind · 2⁶² + step · 2²⁴ + block        one generator each, so that threads change nothing
//! normal  √(−2 ln u) · (cos 2πv, sin 2πv)        u in (0, 1], v in [0, 1), 53 bits each (Box & Muller)
//! ```

use crate::disk::hash::sha256;
use crate::train::optimizer::Gradients;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// Elements of one stream of noise.
const BLOCK: usize = 1 << 14;
/// Streams of a step.
const STREAMS: u32 = 24;

/// The operating system gave no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers ({0}), and noise that could be foreseen protects nobody")]
pub struct NoRandomness(pub getrandom::Error);

/// A key.
#[derive(Clone)]
pub struct Randomness {
    key: [u8; 32],
}

impl std::fmt::Debug for Randomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }
}

/// What a stream is for.
#[derive(Clone, Copy)]
enum Kind {
    Samples = 1,
    Noise = 2,
}

impl Randomness {
    /// A key of the operating system, or the one that a test asks for.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(test_seed: Option<u64>) -> Result<Self, NoRandomness> {
        let mut key = [0; 32];
        match test_seed {
            Some(seed) => key = sha256(&[b"slmc test of privacy".as_slice(), &seed.to_le_bytes()].concat()),
            None => getrandom::fill(&mut key).map_err(NoRandomness)?,
        }
        Ok(Randomness { key })
    }

    fn stream(&self, kind: Kind, step: u64, block: u64) -> ChaCha20Rng {
        let mut generator = ChaCha20Rng::from_seed(self.key);
        generator.set_stream((kind as u64) << 62 | step << STREAMS | block);
        generator
    }

    /// Which of `count` samples a step has, each by itself with probability `rate`.
    pub fn draw(&self, count: usize, rate: f64, step: u64) -> Vec<usize> {
        let mut generator = self.stream(Kind::Samples, step, 0);
        (0..count).filter(|_| unit(&mut generator) < rate).collect()
    }

    /// Adds noise of a standard deviation to every value.
    pub fn add_noise(&self, values: &mut Gradients, deviation: f64, step: u64) {
        let blocks: Vec<&mut [f32]> = values.values_mut().flat_map(|values| values.chunks_mut(BLOCK)).collect();
        blocks.into_par_iter().enumerate().for_each(|(block, values)| {
            let mut generator = self.stream(Kind::Noise, step, block as u64);
            for pair in values.chunks_mut(2) {
                let noise = normals(&mut generator);
                for (value, noise) in pair.iter_mut().zip(noise) {
                    *value = (f64::from(*value) + deviation * noise) as f32;
                }
            }
        });
    }
}

/// In [0, 1).
fn unit(generator: &mut ChaCha20Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Two independent draws of deviation 1.
fn normals(generator: &mut ChaCha20Rng) -> [f64; 2] {
    let radius = (-2.0 * libm::log(1.0 - unit(generator))).sqrt();
    let (sine, cosine) = libm::sincos(2.0 * std::f64::consts::PI * unit(generator));
    [radius * cosine, radius * sine]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LinearId, ParameterId, Role};
    use crate::train::parameters::TrainedId;

    fn noise(randomness: &Randomness, count: usize, step: u64) -> Vec<f32> {
        let id = TrainedId::Parameter(ParameterId::weight(LinearId::global(Role::LmHead)));
        let mut values = Gradients::from([(id, vec![0.0; count])]);
        randomness.add_noise(&mut values, 2.0, step);
        values.remove(&id).expect("it is there")
    }

    #[test]
    fn the_generator_is_chacha20() {
        // RFC 8439, A.1, test vector 1: key, counter and nonce of zeros.
        let mut generator = ChaCha20Rng::from_seed([0; 32]);
        let mut first = [0; 8];
        generator.fill_bytes(&mut first);
        assert_eq!(first, [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn noise_is_normal_with_the_deviation_asked_for() {
        let values = noise(&Randomness::new(Some(3)).expect("a key"), 200_001, 5);
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        let moment = |power: i32| {
            values.iter().map(|value| (f64::from(*value) / 2.0).powi(power)).sum::<f64>() / values.len() as f64
        };
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((moment(2) - 1.0).abs() < 0.015 && (moment(4) - 3.0).abs() < 0.15, "{} {}", moment(2), moment(4));
        let neighbours: f64 = values.windows(2).map(|pair| f64::from(pair[0] * pair[1]) / 4.0).sum();
        assert!((neighbours / values.len() as f64).abs() < 0.01);
    }

    #[test]
    fn steps_and_keys_have_noise_of_their_own() {
        let (one, other) = (Randomness::new(Some(1)).expect("a key"), Randomness::new(Some(2)).expect("a key"));
        assert_eq!(noise(&one, 100, 7), noise(&one, 100, 7));
        assert_ne!(noise(&one, 100, 7), noise(&one, 100, 8));
        assert_ne!(noise(&one, 100, 7), noise(&other, 100, 7));
        let (first, second) = (Randomness::new(None).expect("a key"), Randomness::new(None).expect("a key"));
        assert_ne!(noise(&first, 100, 7), noise(&second, 100, 7));
    }

    #[test]
    fn every_sample_is_drawn_at_the_rate() {
        let randomness = Randomness::new(Some(9)).expect("a key");
        let sizes: Vec<usize> = (0..400).map(|step| randomness.draw(1_000, 0.05, step).len()).collect();
        let mean = sizes.iter().sum::<usize>() as f64 / 400.0;
        let variance = sizes.iter().map(|size| (*size as f64 - mean).powi(2)).sum::<f64>() / 400.0;
        // A batch is binomial: 50 ± √47.5.
        assert!((mean - 50.0).abs() < 1.5 && (variance - 47.5).abs() < 12.0, "{mean} {variance}");
        assert!(randomness.draw(10, 1.0, 0).len() == 10 && randomness.draw(10, 0.0, 0).is_empty());
    }

    #[test]
    fn threads_change_no_bit() {
        let randomness = Randomness::new(Some(4)).expect("a key");
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| noise(&randomness, 100_000, 0))
        };
        assert_eq!(on(1), on(3));
    }
}
