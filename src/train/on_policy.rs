//! Text that the student itself writes as it is at a step, scored by the teacher (generalized knowledge distillation, Agarwal
//! et al. 2024): what the student meets in use are its own beginnings and not those of the data, and there it learns from the
//! teacher's distributions.
//!
//! ```text
//! step t is on-policy where draw t of the run's own stream is below the share
//! prompt of a draw: of a conversation or record all before the first token that is learned, of a window its first tokens
//! sequence = prompt + tokens drawn from the student at temperature 1; rows with a target: those tokens
//! ```
//!
//! Everything follows from seed and step, so a resumed run writes what it would have written. Targets of these rows are the
//! student's own, so the cross entropy has no part in such a step.

use super::data::{Piece, Samples};
use super::parameters::{Parameters, TrainedId};
use crate::calibrate::continuations::{
    Continuation, Manner, Prompt, batches, continue_together, memory_bytes, together,
};
use crate::model::forward::{BatchError, FusedWeights};
use crate::model::spec::ModelSpec;
use crate::progress::Silent;
use slm_runtime::sample::{Sampling, random_u64};

/// Streams of these draws are others than those of the samples.
const STREAM: u64 = 0x6f6e_2d70_6f6c_6963;
/// Tokens of a window that are given, unless it is said: a part of the window.
const GIVEN: usize = 4;

/// How much of a run is on text of the student itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnPolicy {
    /// Share of the steps, above 0, up to 1.
    pub share: f64,
    /// Tokens of a window that are given; a quarter of the window if absent.
    pub prefix: Option<usize>,
}

impl OnPolicy {
    /// Whether a step is on the student's own text.
    pub fn is_own(&self, seed: u64, step: u64) -> bool {
        let draw = random_u64(random_u64(seed, STREAM), step);
        (draw >> 11) as f64 / (1u64 << 53) as f64 <= self.share && self.share > 0.0
    }

    /// Bytes of memory that it takes beside the training: the student's weights as they are seen, keys, values and logits.
    pub fn memory_bytes(spec: &ModelSpec, longest: usize) -> u64 {
        4 * spec.parameter_count() + memory_bytes(spec, longest.min(spec.context))
    }

    /// The beginning of a sample.
    fn prompt<'s>(&self, samples: &'s Samples, sample: usize) -> &'s [u32] {
        let tokens = samples.tokens(sample);
        let given = match samples {
            Samples::Answers { said, .. } => said[sample].iter().skip(1).position(|said| *said).map(|place| place + 1),
            _ => None,
        };
        let given = given.unwrap_or_else(|| self.prefix.unwrap_or(tokens.len() / GIVEN));
        &tokens[..given.clamp(1, tokens.len().max(2) - 1)]
    }

    /// The micro-batches of a step.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn pieces(&self, run: &Drawn<'_>, seen: Parameters, step: u64) -> Result<Vec<Piece>, BatchError> {
        let Drawn { spec, samples, seed, batch, pieces } = *run;
        let first = step * batch as u64;
        let draws: Vec<u64> = (first..first + batch as u64).collect();
        let stream = random_u64(seed, STREAM);
        let prompt = |&draw: &u64| Prompt {
            tokens: self.prompt(samples, samples.shuffled(seed, draw)).to_vec(),
            stream: random_u64(!stream, draw),
        };
        let prompts: Vec<Prompt> = draws.iter().map(prompt).collect();
        let written = written(spec, samples, &prompts, seen)?;
        let (mut sequences, mut said) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
        for (prompt, own) in prompts.iter().zip(written) {
            let tokens = [prompt.tokens.as_slice(), &own.tokens, own.end.as_slice()].concat();
            said.push((0..tokens.len()).map(|place| place >= prompt.tokens.len()).collect());
            sequences.push(tokens);
        }
        let own = Samples::Answers { sequences, said };
        let drawn: Vec<(u64, usize)> = draws.into_iter().zip(0..).collect();
        drawn.chunks(batch.div_ceil(pieces)).map(|samples| own.piece(spec, seed, samples)).collect()
    }
}

/// What decides the samples of a run's steps.
#[derive(Clone, Copy)]
pub struct Drawn<'d> {
    /// The student.
    pub spec: &'d ModelSpec,
    /// The data.
    pub samples: &'d Samples,
    /// The run's seed.
    pub seed: u64,
    /// Sequences of a step.
    pub batch: usize,
    /// Micro-batches of a step.
    pub pieces: usize,
}

/// What the student writes after prompts, in their order.
fn written(
    spec: &ModelSpec,
    samples: &Samples,
    prompts: &[Prompt],
    seen: Parameters,
) -> Result<Vec<Continuation>, BatchError> {
    let values = seen.into_iter().filter_map(|(id, values)| match id {
        TrainedId::Parameter(id) => Some((id, values)),
        _ => None,
    });
    let weights = FusedWeights::frozen(spec, values);
    let window = samples.longest().min(spec.context);
    let manner = Manner { sampling: Sampling { temperature: 1.0, ..Sampling::GREEDY }, window };
    let mut all: Vec<Option<Continuation>> = vec![None; prompts.len()];
    for batch in batches(prompts, together(spec, window)) {
        let some: Vec<&Prompt> = batch.iter().map(|&number| &prompts[number]).collect();
        for (number, own) in batch.into_iter().zip(continue_together(spec, &weights, &some, &manner, &Silent)?) {
            all[number] = Some(own);
        }
    }
    Ok(all.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::retrain::values_of;

    fn student() -> (ModelSpec, Parameters) {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart/teacher");
        let model = crate::formats::open_model(directory.as_ref()).expect("a model of this repository");
        let values = values_of(&model).expect("values");
        (model.spec, values.into_iter().map(|(id, values)| (TrainedId::Parameter(id), values)).collect())
    }

    #[test]
    fn the_share_of_the_steps_is_met_and_follows_from_the_seed() {
        let of = |share: f64, seed: u64| {
            let own = OnPolicy { share, prefix: None };
            (0..4000).filter(|&step| own.is_own(seed, step)).collect::<Vec<u64>>()
        };
        assert_eq!((of(0.0, 1).len(), of(1.0, 1).len()), (0, 4000));
        assert!((of(0.25, 1).len() as f64 - 1000.0).abs() < 100.0);
        assert_ne!(of(0.25, 1), of(0.25, 2));
    }

    /// Sequences begin as those of the data, and only what the student wrote has targets, each the token that follows.
    #[test]
    fn the_student_writes_on_from_the_data() {
        let (spec, parameters) = student();
        let windows: Vec<Vec<u32>> =
            (0..6u64).map(|n| (0..16).map(|at| (random_u64(n, at) % 1024) as u32).collect()).collect();
        let samples = Samples::Causal(windows.clone());
        let run = Drawn { spec: &spec, samples: &samples, seed: 3, batch: 4, pieces: 2 };
        let own = OnPolicy { share: 1.0, prefix: Some(5) };
        let pieces = |threads: usize, step: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| own.pieces(&run, parameters.clone(), step)).expect("pieces")
        };
        let of_step = pieces(1, 2);
        assert_eq!(of_step, pieces(3, 2));
        assert_ne!(of_step, pieces(1, 3));
        let (mut draw, mut beginnings) = (8u64, 0);
        for piece in &of_step {
            let [sequences, length] = piece.batch.dims();
            for sequence in 0..sequences {
                let tokens = &piece.batch.tokens()[sequence * length..][..length];
                let of_data = &windows[samples.shuffled(3, draw)];
                assert_eq!(tokens[..5], of_data[..5]);
                beginnings += usize::from(tokens[5..] != of_data[5..length]);
                let rows = piece.rows.iter().filter(|&&row| row as usize / length == sequence);
                assert_eq!(rows.clone().next().map(|&row| row as usize % length), Some(4));
                draw += 1;
            }
            for (&row, &target) in piece.rows.iter().zip(&piece.targets) {
                let next = row as usize + 1;
                assert!(
                    next.is_multiple_of(length)
                        || piece.batch.tokens()[next] == 0
                        || piece.batch.tokens()[next] == target as u32
                );
            }
        }
        assert_eq!(beginnings, 4, "the student writes other text than the data");
    }

    #[test]
    fn of_conversations_everything_before_the_answer_is_given() {
        let samples = Samples::Answers {
            sequences: vec![vec![5, 6, 7, 8, 9], vec![5, 6, 7]],
            said: vec![vec![false, false, true, true, true], vec![true, true, false]],
        };
        let own = OnPolicy { share: 1.0, prefix: None };
        assert_eq!(own.prompt(&samples, 0), [5, 6]);
        assert_eq!(own.prompt(&samples, 1), [5]);
    }
}
