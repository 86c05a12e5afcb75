//! How sure a classifier is, and what that is worth: the temperature at which the softmax of its logits says how often it is
//! right, the error that is left, and how accurate its answers are where it answers only when it is sure.
//!
//! ```text
//! p     = softmax(z / T) of the likeliest label
//! T     = argmin mean (−t ln p − (1 − t) ln (1 − p))                  golden section over ln 1 / T
//! t     = (right + 1) / (right + 2) of a text whose likeliest label is right, 1 / (wrong + 2) of one where it is wrong
//! ECE   = Σ over 15 bins of equally many texts, by rising p, of share of the bin · |mean p − share of right answers|
//! kept  = texts whose answer is not `oos` and whose p is at least the bound; the others are to be asked elsewhere
//! ```
//!
//! Guo et al. 2017, who fit T to −ln p of the right label instead: of a head with many gross errors that leaves the likeliest label
//! less sure than it is right. The targets t are Platt's (1999): of few texts without an error no certainty follows. Exponentials are libm's, so that a temperature is the same bits on every machine.

use serde::Serialize;

/// Bins of the calibration error.
pub const BINS: usize = 15;
/// Smallest and largest 1 / T that is looked for.
const INVERSE_TEMPERATURES: [f64; 2] = [0.01, 100.0];
/// Steps of the golden section: it narrows the range of ln 1 / T, 9.2, to 3e-9.
const STEPS: usize = 45;
/// Points of a curve.
const POINTS: usize = 40;

/// Logits of one text and the number of its label.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'l> {
    /// Of every label.
    pub logits: &'l [f32],
    /// The right one.
    pub truth: usize,
}

/// Whether the likeliest label is the right one; −ln p and −ln (1 − p), p its softmax at 1 / T = `inverse`.
fn surprises(judged: &Judged<'_>, inverse: f64) -> (bool, f64, f64) {
    let first = |best: usize, label: usize| if judged.logits[label] > judged.logits[best] { label } else { best };
    let best = (0..judged.logits.len()).fold(0, first);
    let Some(&top) = judged.logits.get(best) else { return (false, 0.0, 0.0) };
    let below = |logit: f32| (f64::from(logit) - f64::from(top)) * inverse;
    let others = judged.logits.iter().enumerate().filter(|(label, _)| *label != best);
    let others: f64 = others.map(|(_, &logit)| libm::exp(below(logit))).sum();
    let all = libm::log(1.0 + others);
    (best == judged.truth, all, all - libm::log(others.max(f64::MIN_POSITIVE)))
}

/// Mean surprise, in nats, at whether the likeliest label is the right one.
pub fn mean_surprise(texts: &[Judged<'_>], inverse_temperature: f64) -> f64 {
    let surprise = |judged: &Judged<'_>| match surprises(judged, inverse_temperature) {
        (true, of_right, _) => of_right,
        (false, _, of_wrong) => of_wrong,
    };
    texts.iter().map(surprise).sum::<f64>() / texts.len().max(1) as f64
}

/// 1 / T at which the mean surprise is least; 1 of no text.
pub fn inverse_temperature(texts: &[Judged<'_>]) -> f32 {
    if texts.is_empty() {
        return 1.0;
    }
    let right = texts.iter().filter(|judged| surprises(judged, 1.0).0).count() as f64;
    let wrong = texts.len() as f64 - right;
    let (of_right, of_wrong) = ((right + 1.0) / (right + 2.0), 1.0 / (wrong + 2.0));
    let cost = |at: f64| -> f64 {
        let inverse = libm::exp(at);
        let surprise = |judged: &Judged<'_>| {
            let (right, p, not_p) = surprises(judged, inverse);
            let target = if right { of_right } else { of_wrong };
            target * p + (1.0 - target) * not_p
        };
        texts.iter().map(surprise).sum()
    };
    libm::exp(golden_section(INVERSE_TEMPERATURES.map(libm::log), STEPS, cost)) as f32
}

/// Where a function with one minimum between `low` and `high` has it, after so many steps, each of which leaves 0.618 of the range.
pub fn golden_section([mut low, mut high]: [f64; 2], steps: usize, cost: impl Fn(f64) -> f64) -> f64 {
    let ratio = (libm::sqrt(5.0) - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut of_left, mut of_right) = (cost(left), cost(right));
    for _ in 0..steps {
        if of_left <= of_right {
            (high, right, of_right) = (right, left, of_left);
            left = high - ratio * (high - low);
            of_left = cost(left);
        } else {
            (low, left, of_left) = (left, right, of_right);
            right = low + ratio * (high - low);
            of_right = cost(right);
        }
    }
    (low + high) / 2.0
}

/// One answer of a classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Probability of the label.
    pub confidence: f32,
    /// Whether it is right.
    pub right: bool,
    /// Whether the label says that the text belongs to none of the others: such a text is asked elsewhere.
    pub elsewhere: bool,
}

/// The calibration error of answers; 0 of none.
pub fn calibration_error(answers: &[Answer]) -> f64 {
    let mut sorted = answers.to_vec();
    sorted.sort_by(|a, b| a.confidence.total_cmp(&b.confidence));
    let count = sorted.len();
    let mut error = 0.0;
    for bin in 0..BINS {
        let texts = &sorted[bin * count / BINS..(bin + 1) * count / BINS];
        let confidence: f64 = texts.iter().map(|answer| f64::from(answer.confidence)).sum();
        let right = texts.iter().filter(|answer| answer.right).count() as f64;
        error += (confidence - right).abs();
    }
    error / count.max(1) as f64
}

/// A bound that is not a probability.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a bound of {0} is not a probability; pass a number from 0 to 1, such as 0.8")]
pub struct BoundError(f32);

/// Whether a bound is a probability.
///
/// # Errors
/// [`BoundError`].
pub fn check_bound(bound: f32) -> Result<(), BoundError> {
    if (0.0..=1.0).contains(&bound) { Ok(()) } else { Err(BoundError(bound)) }
}

/// What is kept at a bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// Texts below it are asked elsewhere.
    pub confidence: f32,
    /// Share of all texts that are answered.
    pub share: f64,
    /// Share of those answers that are right; absent where none is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// What is kept of the answers at a bound.
pub fn kept(answers: &[Answer], bound: f32) -> Kept {
    let (mut texts, mut right) = (0u64, 0u64);
    for answer in answers.iter().filter(|answer| !answer.elsewhere && answer.confidence >= bound) {
        texts += 1;
        right += u64::from(answer.right);
    }
    let accuracy = (texts > 0).then(|| right as f64 / texts as f64);
    Kept { confidence: bound, share: texts as f64 / answers.len().max(1) as f64, accuracy }
}

/// What is kept at bounds that keep ever fewer texts, in steps of a fortieth of those with an answer, from all on.
pub fn curve(answers: &[Answer]) -> Vec<Kept> {
    let answered = answers.iter().filter(|answer| !answer.elsewhere);
    let mut bounds: Vec<f32> = answered.map(|answer| answer.confidence).collect();
    bounds.sort_by(f32::total_cmp);
    let count = bounds.len();
    let places = (0..POINTS).map(|point| point * count / POINTS);
    let mut chosen: Vec<f32> = places.filter_map(|place| bounds.get(place).copied()).collect();
    chosen.dedup();
    if let Some(first) = chosen.first_mut() {
        *first = 0.0;
    }
    chosen.into_iter().map(|bound| kept(answers, bound)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temperature_undoes_a_factor() {
        // Two labels whose logits are ±1; right with probability 1 / (1 + e^−2) = 0.8808 at a temperature of 1.
        let (sure, unsure) = ([3.0f32, -3.0], [-3.0f32, 3.0]);
        let texts: Vec<Judged<'_>> =
            (0..10_000).map(|n| Judged { logits: if n < 8808 { &sure } else { &unsure }, truth: 0 }).collect();
        let found = inverse_temperature(&texts);
        assert!((found - 1.0 / 3.0).abs() < 1e-3, "{found}");
        assert!(mean_surprise(&texts, f64::from(found)) < mean_surprise(&texts, 1.0));
        assert_eq!(inverse_temperature(&[]), 1.0);
    }

    #[test]
    fn bins_have_equally_many_texts() {
        let answer = |confidence, right| Answer { confidence, right, elsewhere: false };
        // All as sure as they are right: 1 in 2.
        let honest: Vec<Answer> = (0..300).map(|n| answer(0.5, n % 2 == 0)).collect();
        assert!(calibration_error(&honest) < 1e-9);
        let boasting: Vec<Answer> = (0..300).map(|n| answer(0.9, n % 2 == 0)).collect();
        assert!((calibration_error(&boasting) - 0.4).abs() < 1e-6);
        assert_eq!(calibration_error(&[]), 0.0);
    }

    #[test]
    fn what_is_kept_is_sure_and_has_a_label() {
        let answer = |confidence, right, elsewhere| Answer { confidence, right, elsewhere };
        let answers =
            [answer(0.9, true, false), answer(0.8, false, false), answer(0.95, true, true), answer(0.4, false, false)];
        assert_eq!(kept(&answers, 0.0), Kept { confidence: 0.0, share: 0.75, accuracy: Some(1.0 / 3.0) });
        assert_eq!(kept(&answers, 0.85), Kept { confidence: 0.85, share: 0.25, accuracy: Some(1.0) });
        assert_eq!(kept(&answers, 0.99).accuracy, None);
        let curve = curve(&answers);
        assert_eq!(curve.first().map(|first| (first.confidence, first.share)), Some((0.0, 0.75)));
        assert!(curve.windows(2).all(|pair| pair[0].share > pair[1].share), "{curve:?}");
    }
}
