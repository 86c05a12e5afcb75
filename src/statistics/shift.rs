//! How far apart two samples of one quantity are: the population stability index over bins, and the statistic of Kolmogorov
//! and Smirnov. With n values in one sample and m in the other, shares pᵢ and qᵢ of bin i (a quarter of a count added to each), F and
//! G the empirical distributions:
//!
//! ```text
//! PSI = Σ (qᵢ − pᵢ) · ln(qᵢ / pᵢ)
//! KS  = max |F − G|
//! ```
//!
//! Where nothing changed, PSI · nm/(n+m) is about χ² with one degree of freedom fewer than bins: it is never 0, and larger the
//! smaller the samples. So the mean of that is taken off, k·s with k = bins − 1 and s = 1/n + 1/m. The error is that of the
//! delta method over both multinomial samples, with the χ²'s own added, and the bounds are taken on √PSI, whose distribution is
//! nearly normal with an error that hardly depends on it:
//!
//! ```text
//! g = ln(q/p) + 1 − p/q      h = −ln(q/p) + 1 − q/p
//! se² = (Σ q·g² − (Σ q·g)²) / m + (Σ p·h² − (Σ p·h)²) / n + 2·k·s²
//! value = PSI − k·s
//! lower = (√PSI − z·se / 2√PSI)² − k·s        upper = (√PSI + z·se / 2√PSI)² − (k − 1)·s
//! ```
//!
//! The bounds of KS are the band that the difference of two empirical distributions keeps with the confidence 1 − α:
//! √(−½·ln(α/2) · s).

use super::{Interval, normal_quantile};

/// Bins of a quantity that has a scale: tenths of the reference.
const TENTHS: usize = 10;
/// Added to every count, so that a bin without values has a logarithm.
const ADDED: f64 = 0.25;

/// The upper ends of the bins of a sample, each inclusive; what is above the last is a bin of its own. Tenths; a value that
/// takes several of them has a bin to itself, so that a change to either side of it is seen. Empty for no values.
pub fn edges(reference: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = reference.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return Vec::new();
    }
    let mut places: Vec<usize> = (1..=TENTHS).map(|tenth| (tenth * sorted.len()).div_ceil(TENTHS).max(1) - 1).collect();
    places.dedup();
    let mut edges: Vec<f64> = Vec::new();
    let mut repeats = false;
    for edge in places.into_iter().map(|place| sorted[place]) {
        match edges.last() {
            // Nothing is below 0: a share, a length.
            Some(last) if *last == edge && !repeats && edge > 0.0 => edges.insert(edges.len() - 1, edge.next_down()),
            Some(last) if *last == edge => {}
            _ => edges.push(edge),
        }
        repeats = edges.len() > 1 && edges[edges.len() - 2] == edge.next_down();
    }
    // What is above the largest value is a bin of its own only where that value has one.
    if edges.len() > 1 && !repeats {
        edges.pop();
    }
    edges
}

/// How many values are in each bin.
pub fn counts(values: &[f64], edges: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; edges.len() + 1];
    for value in values {
        counts[edges.partition_point(|edge| edge < value)] += 1;
    }
    counts
}

/// PSI of two rows of counts over the same bins, less what chance alone gives. `None` for fewer than two bins, rows of
/// different lengths, and samples without values.
pub fn psi(reference: &[u64], other: &[u64], confidence: f64) -> Option<Interval> {
    let sum = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
    let (n, m, bins) = (sum(reference), sum(other), reference.len());
    if bins < 2 || other.len() != bins || n == 0.0 || m == 0.0 {
        return None;
    }
    let share = |count: u64, all: f64| (count as f64 + ADDED) / (all + ADDED * bins as f64);
    let (mut index, mut own, mut others) = (0.0, [0.0; 2], [0.0; 2]);
    for (&reference, &other) in reference.iter().zip(other) {
        let (p, q) = (share(reference, n), share(other, m));
        let ratio = (q / p).ln();
        index += (q - p) * ratio;
        for (sums, weight, slope) in [(&mut own, p, 1.0 - ratio - q / p), (&mut others, q, 1.0 + ratio - p / q)] {
            sums[0] += weight * slope;
            sums[1] += weight * slope * slope;
        }
    }
    let (freedom, scale) = ((bins - 1) as f64, 1.0 / n + 1.0 / m);
    let variance = |[sum, squares]: [f64; 2], count: f64| (squares - sum * sum) / count;
    let error = (variance(own, n) + variance(others, m) + 2.0 * freedom * scale * scale).sqrt();
    let value = (index - freedom * scale).max(0.0);
    // No less than what chance alone gives: few values that happen to agree say little.
    let root = index.max(freedom * scale).sqrt();
    let reach = normal_quantile(confidence) * error / (2.0 * root);
    let lower = ((root - reach).max(0.0).powi(2) - freedom * scale).max(0.0);
    let upper = (root + reach).powi(2) - (freedom - 1.0) * scale;
    let draws = n.min(m) as usize;
    Some(Interval { value, lower, upper, error, draws })
}

/// The largest difference of two empirical distributions. `None` where one has no values.
pub fn ks(reference: &[f64], other: &[f64]) -> Option<f64> {
    let sorted = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (own, other) = (sorted(reference), sorted(other));
    if own.is_empty() || other.is_empty() {
        return None;
    }
    let below = |values: &[f64], at: f64| values.partition_point(|value| *value <= at) as f64 / values.len() as f64;
    let gaps = own.iter().chain(&other).map(|&at| (below(&own, at) - below(&other, at)).abs());
    Some(gaps.fold(0.0, f64::max))
}

/// The bounds of [`ks`] for samples of these sizes.
pub fn ks_bounds(value: f64, (n, m): (u64, u64), confidence: f64) -> Option<Interval> {
    if n == 0 || m == 0 {
        return None;
    }
    let scale = 1.0 / n as f64 + 1.0 / m as f64;
    let reach = (-0.5 * ((1.0 - confidence) / 2.0).ln() * scale).sqrt();
    // As if the band were that of a normal error: for the number of samples that decides.
    let error = reach / normal_quantile(confidence);
    Some(Interval {
        value,
        lower: (value - reach).max(0.0),
        upper: (value + reach).min(1.0),
        error,
        draws: n.min(m) as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::sample::random_u64;

    /// Values in [0, 1), the same for the same stream.
    fn uniform(stream: u64, count: usize) -> Vec<f64> {
        (0..count).map(|n| random_u64(stream, n as u64) as f64 / u64::MAX as f64).collect()
    }

    #[test]
    fn bins_are_tenths_of_the_reference_and_fewer_where_values_repeat() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(edges(&values), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]);
        assert_eq!(counts(&values, &edges(&values)), [10; 10]);
        let below = 3f64.next_down();
        assert_eq!(edges(&[3.0; 20]), [below, 3.0]);
        assert_eq!(counts(&[2.0, 3.0, 4.0], &edges(&[3.0; 20])), [1, 1, 1]);
        // Half of them at the top, and at zero, below which is nothing.
        let capped: Vec<f64> = (1..=20).map(|n| f64::from(n).min(11.0)).collect();
        assert_eq!(edges(&capped), [2.0, 4.0, 6.0, 8.0, 10.0, 11f64.next_down(), 11.0]);
        assert_eq!(edges(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]), [0.0, 1.0]);
        assert_eq!(edges(&[0.0; 9]), [0.0]);
        assert_eq!(edges(&[]), Vec::<f64>::new());
    }

    #[test]
    fn figures_by_hand() {
        // Shares 0.5 and 0.5 against 0.25 and 0.75, of many values.
        let found = psi(&[500_000, 500_000], &[250_000, 750_000], 0.95).expect("two bins");
        let by_hand = 0.25 * (0.75f64 / 0.25).ln();
        assert!((found.value - by_hand).abs() < 1e-4 && found.lower < by_hand && by_hand < found.upper, "{found:?}");
        assert_eq!(ks(&[1.0, 2.0, 3.0, 4.0], &[3.0, 4.0, 5.0, 6.0]), Some(0.5));
        assert_eq!(ks(&[1.0, 2.0], &[1.0, 2.0]), Some(0.0));
        assert_eq!((ks(&[], &[1.0]), psi(&[1], &[1], 0.95), psi(&[0, 0], &[1, 1], 0.95)), (None, None, None));
        let bounds = ks_bounds(0.2, (1000, 1000), 0.95).expect("samples");
        assert!((bounds.upper - 0.2 - 0.0607).abs() < 1e-3, "{bounds:?}");
    }

    /// Few pairs of samples in which nothing changed look as if something had; and a change is between its bounds as often as
    /// is said.
    #[test]
    fn bounds_hold_as_often_as_they_say() {
        let (mut alarms, mut ks_alarms, mut covered, mut above) = (0, 0, 0, 0);
        let all = 400;
        // Half of the second sample is pushed into the upper half: shares of tenths 0.05 and 0.15.
        let shares = [0.05, 0.15].map(|q: f64| 5.0 * (q - 0.1) * (q / 0.1).ln());
        let exact = shares[0] + shares[1];
        for trial in 0..all {
            let (own, other) = (uniform(2 * trial, 600), uniform(2 * trial + 1, 400));
            let moved: Vec<f64> = other
                .iter()
                .enumerate()
                .map(|(n, value)| if n % 2 == 0 { 0.5 + value / 2.0 } else { *value })
                .collect();
            let edges = edges(&own);
            let same = psi(&counts(&own, &edges), &counts(&other, &edges), 0.95).expect("bins");
            alarms += u32::from(same.lower > 0.0);
            ks_alarms +=
                u32::from(ks_bounds(ks(&own, &other).expect("values"), (600, 400), 0.95).expect("values").lower > 0.0);
            let found = psi(&counts(&own, &edges), &counts(&moved, &edges), 0.95).expect("bins");
            covered += u32::from(found.lower <= exact);
            above += u32::from(found.upper >= exact);
        }
        let share = |count: u32| f64::from(count) / all as f64;
        assert!(share(alarms) <= 0.09 && share(ks_alarms) <= 0.07, "{} {}", share(alarms), share(ks_alarms));
        assert!((0.9..=1.0).contains(&share(covered)) && (0.9..=1.0).contains(&share(above)), "{covered} {above}");
    }
}
