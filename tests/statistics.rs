//! The bounds by which gates are judged, on two stored sets of windows: sums that `slmc eval` measured on every window
//! of a text (tests/data/windows). As many windows as a small evaluation has are drawn from them again and again, and
//! the value of the whole set has to be on the good side of the bound as often as was promised.

use crate::support::root;
use slm_runtime::sample::random_u64;
use slmc::eval::sums::Sums;
use slmc::statistics::{Draw, Interval, blocks};

const DRAWS: u64 = 2000;
const CONFIDENCE: f64 = 0.95;
/// With 2,000 draws at exactly 95 %, all but one in a million shares lie within 92.6 and 97.3 %; the windows are skewed, so the
/// bounds are not exact.
const HELD: std::ops::RangeInclusive<f64> = 0.91..=0.98;

fn sums(model: &str) -> Sums {
    let text = std::fs::read(root(&format!("tests/data/windows/{model}.json"))).expect("it is part of the repository");
    serde_json::from_slice(&text).expect("sums")
}

/// The quantities of gates, window by window.
fn quantities(sums: &Sums) -> [(&'static str, Vec<Draw>); 3] {
    let paired: Vec<f64> = sums.nll.iter().zip(&sums.reference_nll).map(|(own, other)| own - other).collect();
    let agreeing: Vec<f64> = sums.agreeing.iter().map(|&count| count as f64).collect();
    let draws = |column: &[f64]| sums.means(column).expect("a column for every window");
    [("KLD", draws(&sums.kld)), ("ln perplexity ratio", draws(&paired)), ("top-1", draws(&agreeing))]
}

#[test]
fn one_sided_bounds_hold_as_often_as_they_say() {
    for (model, windows) in [("stories260k", 145), ("tales-6m", 400)] {
        let sums = sums(model);
        assert_eq!(sums.len(), windows);
        for (quantity, all) in quantities(&sums) {
            let total: f64 = all.iter().map(|window| window.weight).sum();
            let truth = all.iter().map(|window| window.sum).sum::<f64>() / total;
            for size in [16, 32, 64] {
                let (mut above, mut below) = (0u32, 0u32);
                for draw in 0..DRAWS {
                    let place = |n: usize| random_u64(draw, n as u64) % all.len() as u64;
                    let drawn: Vec<Draw> = (0..size).map(|n| all[place(n) as usize]).collect();
                    let interval = Interval::of_ratio(&blocks(&drawn), CONFIDENCE).expect("sixteen blocks");
                    above += u32::from(interval.upper >= truth);
                    below += u32::from(interval.lower <= truth);
                }
                for (side, held) in [("upper", above), ("lower", below)] {
                    let held = f64::from(held) / DRAWS as f64;
                    assert!(
                        HELD.contains(&held),
                        "{model}, {quantity}, {size} windows: the {side} bound holds in {held}"
                    );
                }
            }
        }
    }
}

/// A quarter of the windows, spread over the whole text, tells the value of all of them within its bounds; the first
/// quarter of these books does not have to.
#[test]
fn spread_windows_tell_of_the_whole_text() {
    for model in ["stories260k", "tales-6m"] {
        for (quantity, all) in quantities(&sums(model)) {
            let total: f64 = all.iter().map(|window| window.weight).sum();
            let truth = all.iter().map(|window| window.sum).sum::<f64>() / total;
            let mut spread = all.clone();
            slmc::text::windows::Choice::Spread.take(&mut spread, all.len() / 4);
            let interval = Interval::of_ratio(&blocks(&spread), 0.99).expect("blocks");
            assert!(
                (interval.lower..=interval.upper).contains(&truth),
                "{model}, {quantity}: {truth} is not in {interval:?}"
            );
        }
    }
}
