//! Random numbers and the choice of a token.

use std::format;
use std::vec::Vec;

use super::{Differences, floats, number, section};
use crate::numerics::{LOG2E_Q15, exp2_q24};
use crate::sample::{Sampling, choose, choose_after, choose_among, mark, random_u64, seen_words};

#[test]
fn random_numbers() {
    let cases = section("/ops/random_u64");
    let mut differences = Differences::default();
    for case in cases.as_array().expect("cases") {
        let (seed, index) = (case["seed"].as_u64().expect("a seed"), case["index"].as_u64().expect("an index"));
        // As text: not every JSON reader keeps 64 bits.
        let value = case["value"].as_str().expect("a value as text");
        differences.value(
            format!("seed {seed}, index {index}"),
            format!("{}", random_u64(seed, index)).as_str(),
            value,
        );
    }
    differences.none();
}

#[test]
fn choosing() {
    let operation = section("/ops/choose");
    let mut differences = Differences::default();
    let logits = floats(&operation["logits"]);
    for case in operation["cases"].as_array().expect("cases") {
        let fraction = |name: &str| case[name].as_f64().expect("a number");
        let sampling = Sampling {
            temperature: fraction("temperature") as f32,
            top_k: number(&case["top_k"]) as u32,
            top_p: (fraction("top_p") * 65_536.0).round() as u32,
            ..Sampling::GREEDY
        };
        let (seed, index) = (case["seed"].as_u64().expect("a seed"), case["index"].as_u64().expect("an index"));
        let token = choose(&logits, &sampling, seed, index);
        differences.value(case, token as usize, number(&case["token"]));
    }
    differences.none();
}

#[test]
fn equal_logits_go_to_the_lowest_id() {
    assert_eq!(choose(&[1.0, 3.0, 3.0, 2.0], &Sampling::GREEDY, 0, 0), 1);
}

/// The draws of the reference over logits of which the second and third are equal.
#[test]
fn top_k_keeps_ties() {
    let drawn = |top_k, top_p| -> Vec<u32> {
        let sampling = Sampling { temperature: 8.0, top_k, top_p, ..Sampling::GREEDY };
        (0..24).map(|index| choose(&[5.0, 3.0, 3.0, 1.0], &sampling, 11, index)).collect()
    };
    let three = [0, 0, 1, 1, 0, 1, 0, 2, 0, 2, 0, 0, 2, 2, 2, 0, 1, 2, 2, 2, 0, 2, 2, 1];
    let four = [1, 0, 2, 1, 0, 1, 0, 2, 1, 3, 0, 0, 3, 3, 3, 0, 2, 3, 2, 2, 0, 3, 2, 1];
    assert_eq!(drawn(1, 65_536), [0; 24]);
    assert_eq!(drawn(2, 65_536), three);
    assert_eq!(drawn(3, 65_536), three);
    assert_eq!(drawn(4, 65_536), four);
    assert_eq!(drawn(0, 65_536), four);
    assert_eq!(drawn(0, 0), [0; 24]);
}

/// With tokens of weights 2^24 and 257, a share of 65535/65536 is 2^24 and a part of one: the second token is needed
/// too.
#[test]
fn the_share_of_top_p_is_rounded_up() {
    const DEPTH: u32 = 523_919;
    assert_eq!(exp2_q24(DEPTH), 257);
    // A factor of one: a logit's distance from the largest is its depth. The draw falls to the second token.
    let drawn = |top_p| {
        let sampling = Sampling { temperature: LOG2E_Q15 as f32, top_p, ..Sampling::GREEDY };
        choose(&[0.0, -(DEPTH as f32)], &sampling, 3, 39_220)
    };
    assert_eq!([drawn(65_536), drawn(65_535), drawn(65_534)], [1, 1, 0]);
}

#[test]
fn a_draw_of_zero_goes_to_the_first_token_that_weighs_anything() {
    let seed = 0u64.wrapping_sub(0x9E37_79B9_7F4A_7C15);
    assert_eq!(random_u64(seed, 0), 0);
    let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    assert_eq!(choose(&[-1e6, 0.0, 0.0], &sampling, seed, 0), 1);
}

/// Weights of tokens at 1, 1/2, 1/4 and 1/8 of the largest: a share keeps what is not below it, ties and all.
#[test]
fn min_p_keeps_a_share_of_the_largest_weight() {
    let drawn = |min_p| -> Vec<u32> {
        let sampling = Sampling { temperature: 1.0, min_p, ..Sampling::GREEDY };
        let logits = [0.0f32, 1.0, 2.0, 3.0, 3.0].map(|halvings| (halvings - 3.0) * core::f32::consts::LN_2);
        let mut drawn: Vec<u32> = (0..400).map(|index| choose(&logits, &sampling, 5, index)).collect();
        drawn.sort_unstable();
        drawn.dedup();
        drawn
    };
    assert_eq!(drawn(0), [0, 1, 2, 3, 4]);
    // 1/8 of 65536 is 8192; a little above it excludes the weight of 1/8.
    assert_eq!(drawn(8_100), [0, 1, 2, 3, 4]);
    assert_eq!(drawn(8_300), [1, 2, 3, 4]);
    assert_eq!(drawn(30_000), [2, 3, 4]);
    assert_eq!(drawn(65_536), [3, 4]);
}

/// A penalty counts once for a token, on either sign, in greedy choices too; without one the set is not looked at.
#[test]
fn a_repetition_penalty_counts_for_tokens_that_were_seen() {
    let greedy = |penalty| Sampling { repetition_penalty: penalty, ..Sampling::GREEDY };
    let mut seen = [0u32; seen_words(40)];
    assert_eq!(seen.len(), 2);
    [1, 1, 33, 4_000_000_000].iter().for_each(|&token| mark(&mut seen, token));
    assert_eq!(seen, [2, 2]);
    let mut logits = [0.0f32; 40];
    (logits[1], logits[2], logits[33]) = (3.0, 2.5, 2.9);
    assert_eq!(choose_after(&logits, &seen, &greedy(1.0), 0, 0), 1);
    assert_eq!(choose_after(&logits, &seen, &greedy(1.1), 0, 0), 1);
    assert_eq!(choose_after(&logits, &seen, &greedy(1.25), 0, 0), 2);
    assert_eq!(choose_after(&logits, &[], &greedy(1.25), 0, 0), 1);
    // All below zero: the penalty makes a token less likely there too.
    logits.iter_mut().for_each(|logit| *logit -= 4.0);
    assert_eq!(choose_after(&logits, &seen, &greedy(2.0), 0, 0), 2);
    // Sampling draws from the penalised logits, by the same draws.
    let sampling = Sampling { temperature: 0.7, top_k: 12, ..greedy(1.3) };
    let penalised: Vec<f32> =
        logits.iter().enumerate().map(|(id, &l)| if [1, 33].contains(&id) { l * 1.3 } else { l }).collect();
    for index in 0..100 {
        let plain = choose(&penalised, &Sampling { repetition_penalty: 1.0, ..sampling }, 9, index);
        assert_eq!(choose_after(&logits, &seen, &sampling, 9, index), plain);
    }
}

/// Among the tokens of a set, the draw is that of their logits alone.
#[test]
fn a_choice_among_some_is_the_choice_of_a_shorter_list() {
    let logit = |id: u64| (random_u64(3, id) % 4000) as f32 / 250.0 - 8.0;
    let logits: Vec<f32> = (0..300).map(logit).collect();
    for case in 0..400u64 {
        let number = |index: u64| random_u64(900 + case, index);
        let sampling = Sampling {
            temperature: [0.0, 0.3, 1.0, 2.5][number(0) as usize % 4],
            top_k: [0, 1, 7, 400][number(1) as usize % 4],
            top_p: [65_536, 40_000, 3000][number(2) as usize % 3],
            min_p: [0, 0, 5000][number(3) as usize % 3],
            repetition_penalty: [1.0, 1.5][number(4) as usize % 2],
        };
        let (mut allowed, mut seen) = (Vec::from([0; seen_words(300)]), Vec::from([0; seen_words(300)]));
        let rare = 1 + number(5) % 40;
        let ids: Vec<u32> = (0..300).filter(|&id| number(10 + u64::from(id)).is_multiple_of(rare)).collect();
        ids.iter().for_each(|&id| mark(&mut allowed, id));
        (0..300).filter(|&id| number(400 + u64::from(id)).is_multiple_of(5)).for_each(|id| mark(&mut seen, id));
        let short: Vec<f32> = ids.iter().map(|&id| logits[id as usize]).collect();
        let mut short_seen = Vec::from([0; seen_words(300)]);
        for (place, &id) in ids.iter().enumerate() {
            if seen[id as usize / 32] >> (id % 32) & 1 == 1 {
                mark(&mut short_seen, place as u32);
            }
        }
        let expected = match short.is_empty() {
            true => None,
            false => Some(ids[choose_after(&short, &short_seen, &sampling, case, 4) as usize]),
        };
        assert_eq!(choose_among(&logits, &allowed, &seen, &sampling, case, 4), expected, "{sampling:?}, {ids:?}");
    }
    assert_eq!(choose_among(&[1.0, 2.0, 2.0], &[0b110], &[], &Sampling::GREEDY, 0, 0), Some(1));
    // Tokens beyond the logits are none.
    assert_eq!(choose_among(&[1.0, 2.0], &[0b100], &[], &Sampling::GREEDY, 0, 0), None);
}
